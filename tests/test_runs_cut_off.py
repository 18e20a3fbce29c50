"""Runs by workers that are no processes: what is left of them, and how one that was cut off goes on."""

import errno
import fcntl
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from factories import SMALL, weights
from test_trainings import request, training

from backends import TrainingState, state
from bench import records
from bench.errors import BenchError
from bench.records import EpochPoint, Measurement, PrecisionSeen, collection, environment
from bench.running import runner
from bench.running.messages import EpochDone, Finished, Measured, Started, StateLeft

STEPS = 512 // 64  # of an epoch of the smoke protocol


class Listener:
    def __init__(self):
        self.begun = []

    def begin(self, label, round_, epochs):
        self.begun.append((label, round_, epochs))

    def event(self, *_): ...

    def end(self, *_): ...


class Workers:
    """Work as they are asked; those of `dies` end after so many epochs, those of `silent` leave no state before."""

    def __init__(self, dies=None, silent=(), others=None):
        self.dies, self.silent, self.plans, self.others = dies or {}, silent, [], others

    def __call__(self, command, plan, variables, timeout, take, stopped):
        self.plans.append(plan)
        at = lambda quantity: Measured(  # noqa: E731
            measurement=Measurement(
                measure="training", quantity=quantity, value=1.0, unit="s", context={"round": plan.round}
            )
        )
        seen = PrecisionSeen(asked="float32", seen="float32", mantissa_bits=23)
        digests = {"data": "d"}
        take([Started(environment=environment.fingerprint(), mode=plan.mode or "m", precision=seen, digests=digests)])
        take([at("import_seconds")] if not plan.resumed else [])
        try:
            done = state.load(plan.state)[1].step // STEPS
        except FileNotFoundError:
            done = 0
        for epoch in range(done + 1, done + plan.epochs + 1):
            if self.dies.get(plan.backend) == epoch - 1:
                return Finished(status="failed", reason="it broke"), False
            point = EpochPoint(
                epoch=epoch,
                train_loss=-1.0 * epoch,
                test_loss=-2.0 * epoch,
                seconds=1.0,
                others=0.1 * epoch,
                round=plan.round,
            )
            take([EpochDone(point=point)])
            if plan.backend not in self.silent or epoch == done + plan.epochs:
                moments = {name: weights(SMALL, "float32") for name in ("mean", "square")}
                left = TrainingState(weights(SMALL, "float32"), moments, epoch * STEPS)
                path = plan.state.replace("state.", f"state.{epoch}.")
                state.save(path, SMALL, left)
                take([StateLeft(path=path)])
        take([at("seconds_per_epoch"), at("after")])
        if self.others is not None:
            busy = Measurement.of("training", "others_share", self.others, "1", round=plan.round, n=1)
            take([Measured(measurement=busy)])
        if plan.round == plan.rounds:
            with open(plan.weights, "wb") as file:  # noqa: PTH123
                file.write(plan.backend.encode())
        return Finished(status="ok", digests={"final_parameters": "f"}), True


def run(folder, workers, backends=("a",), **options):
    listener = Listener()
    made = runner.run(request(folder, backends, supervise=workers, **options), listener)
    return SimpleNamespace(records={r.plan.backend: r for r in made}, begun=listener.begun)


def resume(folder, workers):
    listener = Listener()
    asked = runner.unfinished(folder)
    made = runner.run(runner.replace(asked, supervise=workers), listener)
    return SimpleNamespace(records={r.plan.backend: r for r in made}, begun=listener.begun, asked=asked)


def figures(record):
    return [(m.quantity, m.context.get("round")) for m in record.measurements]


ENDING = [("final_train_loss", None), ("epochs_to_target", None), ("seconds_to_target", None)]
ROUNDS = [(quantity, round_) for round_ in (1, 2) for quantity in ("import_seconds", "seconds_per_epoch", "after")]


def test_a_run_that_ends_well_leaves_records_and_weights_alone(tmp_path):
    workers = Workers()
    ran = run(tmp_path, workers, ("a", "b"))
    assert ran.begun == [("a", 1, 2), ("b", 1, 2), ("b", 2, 2), ("a", 2, 2)]
    for name, record in ran.records.items():
        assert (record.status, [p.epoch for p in record.curve], record.plan.mode) == ("ok", [1, 2, 3, 4], "m")
        assert figures(record) == ROUNDS + ENDING
        assert record.digests == {"data": "d", "final_parameters": "f"}
        (path,) = tmp_path.glob(f"*-{name}-*.safetensors")
        assert path.read_bytes() == name.encode()
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    assert [plan.best_loss for plan in workers.plans if plan.backend == "a"] == [None, -4.0]
    assert collection.load_all(tmp_path) == [ran.records[name] for name in "ab"]


@pytest.mark.parametrize(
    ("dies", "round_", "epochs", "resumed", "kept"),
    [
        (1, 1, 1, True, [("import_seconds", 1)]),
        (3, 2, 1, True, [*ROUNDS[:3], ("import_seconds", 2)]),
        (2, 2, 2, False, ROUNDS[:3]),
    ],
)
def test_a_run_goes_on_from_its_latest_state(tmp_path, dies, round_, epochs, resumed, kept):
    first = run(tmp_path, Workers({"a": dies}))
    record = first.records["a"]
    assert (record.status, record.reason, len(record.curve)) == ("failed", "it broke", dies)
    workers = Workers()
    again = resume(tmp_path, workers)
    plan = workers.plans[0]
    assert (plan.round, plan.epochs, plan.resumed, plan.best_loss) == (round_, epochs, resumed, -2.0 * dies)
    record = again.records["a"]
    assert (record.status, [p.epoch for p in record.curve], record.run) == ("ok", [1, 2, 3, 4], first.records["a"].run)
    at = ("resumed_after_epochs", round_)
    rest = [each for each in ROUNDS if each not in kept and not (resumed and each == ("import_seconds", round_))]
    others = [("others_share", round_)] if resumed else []
    assert figures(record) == [*kept, at, *rest, *others, *ENDING]
    (said,) = [m for m in record.measurements if m.quantity == "resumed_after_epochs"]
    assert (said.measure, said.value, said.unit) == ("startup", dies, "epochs")
    assert len(collection.load_all(tmp_path)) == 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_without_a_state_all_is_made_anew(tmp_path):
    first = run(tmp_path, Workers({"a": 1, "b": 1}, silent=("a",)), ("a", "b"))
    assert [len(record.curve) for record in first.records.values()] == [1, 1]
    (states,) = tmp_path.glob(".unfinished-*")
    assert not (states / "a").exists()  # what it compiled would make the first call a warm one
    workers = Workers()
    again = resume(tmp_path, workers)
    asked = {plan.backend: (plan.round, plan.epochs, plan.resumed) for plan in reversed(workers.plans)}
    assert asked == {"a": (1, 2, False), "b": (1, 1, True)}
    assert figures(again.records["a"]) == ROUNDS + ENDING
    assert [point.epoch for point in again.records["a"].curve] == [1, 2, 3, 4]


def test_only_what_failed_goes_on(tmp_path):
    first = run(tmp_path, Workers({"b": 1}), ("a", "b"))
    assert [r.status for r in first.records.values()] == ["ok", "failed"]
    workers = Workers()
    again = resume(tmp_path, workers)
    assert {plan.backend for plan in workers.plans} == {"b"}
    assert again.records["a"] == first.records["a"]
    assert again.records["b"].status == "ok"
    assert again.begun == [("b", 1, 2), ("b", 2, 2)]


def test_a_failed_run_keeps_its_request_and_its_states(tmp_path):
    asked = {"seed": 5, "precision": "float64", "timeout": 77.0}
    run(tmp_path, Workers({"b": 1}), ("a", "b"), **asked)
    (folder,) = tmp_path.glob(".unfinished-*")
    assert {path.name for path in folder.iterdir()} == {"request.json", "b"}
    written = json.loads((folder / "request.json").read_text())
    assert not {"folder", "command", "stopped", "supervise", "run"} & set(written)
    found = runner.unfinished(tmp_path)
    assert (found.backends, found.seed, found.precision, found.timeout) == (["a", "b"], 5, "float64", 77.0)
    assert (found.folder, found.run) == (tmp_path, folder.name.removeprefix(".unfinished-"))
    assert found.protocol == request(tmp_path).protocol


def test_of_several_runs_that_were_cut_off_the_latest_goes_on(tmp_path):
    for name in ("20260102", "20260103", "20260101"):
        folder = tmp_path / f".unfinished-{name}"
        folder.mkdir()
        dumped = runner.REQUEST.dump_json(request(tmp_path), exclude={"command", "stopped", "supervise", "run"})
        (folder / "request.json").write_bytes(dumped)
    assert runner.unfinished(tmp_path).run == "20260103"


def test_a_request_that_cannot_be_read_is_an_error_with_its_file(tmp_path):
    with pytest.raises(BenchError, match="no run was cut off here"):
        runner.unfinished(tmp_path)
    (tmp_path / ".unfinished-x").mkdir()
    (tmp_path / ".unfinished-x" / "request.json").write_text("{}")
    with pytest.raises(BenchError, match=r"request\.json: .*protocol"):
        runner.unfinished(tmp_path)


def test_a_run_of_another_machine_or_with_missing_epochs_is_not_gone_on_with(tmp_path, monkeypatch):
    record = run(tmp_path, Workers({"a": 1})).records["a"]
    (path,) = tmp_path.glob("*.json")
    other = record.model_copy(update={"environment": record.environment | {"cpu": "another"}})
    path.write_text(records.layout(other.model_dump(mode="json")))
    with pytest.raises(BenchError, match="its run was measured on another"):
        resume(tmp_path, Workers())
    path.write_text(records.layout(record.model_copy(update={"curve": []}).model_dump(mode="json")))
    with pytest.raises(BenchError, match="is of epoch 1; the record has 0 of its epochs"):
        resume(tmp_path, Workers())


def test_a_run_that_goes_on_under_other_software_names_both(tmp_path):
    record = run(tmp_path, Workers({"a": 1})).records["a"]
    (path,) = tmp_path.glob("*.json")
    older = {"packages": {"torch": "2.11"}, "git": {"commit": "f" * 40, "dirty": False}, "framework": {"a": "1.0"}}
    other = record.model_copy(update={"environment": record.environment | older})
    path.write_text(records.layout(other.model_dump(mode="json")))
    found = resume(tmp_path, Workers()).records["a"].environment
    now = environment.fingerprint()
    assert found["begun_with"] == older
    assert (found["packages"], found["git"]) == (now["packages"], now["git"])
    unchanged = run(tmp_path / "b", Workers({"a": 1})), resume(tmp_path / "b", Workers()).records["a"]
    assert "begun_with" not in unchanged[1].environment


def test_of_a_round_that_went_on_what_others_used_is_of_all_its_epochs(tmp_path):
    def shares(record):
        return [(m.value, m.context["round"], m.n) for m in record.measurements if m.quantity == "others_share"]

    three = {"training__epochs": 3, "training__rounds": 1}
    whole = run(tmp_path / "whole", Workers(), **three).records["a"]
    assert shares(whole) == []  # which is for the worker to say
    for since, said in ((None, 0.2), (0.01, 0.2), (0.9, 0.9)):  # whichever is larger, of all epochs or of the last
        folder = tmp_path / f"{since}"
        run(folder, Workers({"a": 2}), **three)
        assert shares(resume(folder, Workers(others=since)).records["a"]) == [(pytest.approx(said), 1, 3)]
    run(tmp_path / "twice", Workers({"a": 1}))
    assert resume(tmp_path / "twice", Workers({"a": 3})).records["a"].status == "failed"
    found = shares(resume(tmp_path / "twice", Workers()).records["a"])
    assert found == [(pytest.approx(0.15), 1, 2), (pytest.approx(0.35), 2, 2)]


def test_a_folder_is_locked_where_only_files_open_for_writing_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.fcntl, "flock", fcntl.lockf)  # as NFS 4 does it
    assert run(tmp_path, Workers()).records["a"].status == "ok"

    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runner.fcntl, "flock", refused)
    with pytest.raises(BenchError, match=r"request\.json: can't be locked \(No locks available\)"):
        run(tmp_path / "b", Workers())


def test_the_same_run_does_not_go_on_twice_at_once(tmp_path):
    run(tmp_path, Workers({"a": 1}))

    def meanwhile(*_):
        with pytest.raises(BenchError, match="is still going on"):
            resume(tmp_path, Workers())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, meanwhile)
    assert np.isfinite(resume(tmp_path, Workers()).records["a"].curve[-1].train_loss)


def test_a_profile_leaves_nothing_to_go_on_from(tmp_path):
    workers = Workers({"a": 1})
    assert run(tmp_path, workers, kind="profile").records["a"].status == "failed"
    assert tmp_path in Path(workers.plans[0].state).parents
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_run_goes_on_where_it_was_found_to_be(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "resolve_device", lambda device: seen.append(device) or "cpu")
    asked = runner.replace(request(tmp_path, supervise=Workers({"a": 1})), device="auto")
    runner.run(asked, Listener())
    assert seen == ["auto", "cpu"]
    assert runner.unfinished(tmp_path).device == "cpu"


def test_each_mode_goes_on_with_its_own_record(tmp_path):
    asked = request(tmp_path, modes={"a": ("x", "y")}, supervise=Workers({"a": 1}))
    runner.run(asked, Listener())
    (tmp_path / "other.json").write_text("{}")  # no record
    made = runner.run(runner.replace(runner.unfinished(tmp_path), supervise=Workers()), Listener())
    assert [(r.plan.mode, r.status, [p.epoch for p in r.curve]) for r in made] == [
        (mode, "ok", [1, 2, 3, 4]) for mode in "xy"
    ]
    assert [("resumed_after_epochs", 1) in figures(record) for record in made] == [True, True]


def test_the_record_of_before_the_mode_was_known_is_removed(tmp_path):
    record = run(tmp_path, Workers({"a": 1})).records["a"]
    before = record.model_copy(update={"plan": record.plan.model_copy(update={"mode": None}), "curve": []})
    path = tmp_path / "before.json"
    path.write_text(records.layout(before.model_dump(mode="json")))
    assert resume(tmp_path, Workers()).records["a"].status == "ok"
    assert not path.exists()
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_what_was_compiled_before_a_state_was_left_is_removed(tmp_path):
    run(tmp_path, Workers({"a": 1}, silent=("a", "b")))
    asked = request(tmp_path)
    (path,) = tmp_path.glob("*.json")
    (tmp_path / "a" / "cache").mkdir(parents=True)
    asked = runner.replace(asked, run=records.load(path).run)
    runner.trainings(asked, asked.run, tmp_path)
    assert list((tmp_path / "a").iterdir()) == []


def test_what_came_after_the_state_is_left_out(tmp_path):
    made = training(tmp_path)
    made.done = 3
    for epoch in (1, 2, 3, 4):
        made.record.curve.append(EpochPoint(epoch=epoch, train_loss=-1.0, seconds=1.0, round=1 + (epoch > 2)))
    for quantity, round_ in ROUNDS:
        made.add(Measurement.of("training", quantity, 1.0, "s", round=round_))
    made._take_up(made.record)
    assert [point.epoch for point in made.record.curve] == [1, 2, 3]
    assert figures(made.record) == [*ROUNDS[:4], ("resumed_after_epochs", 2)]


CPU = {"cpu": "one", "cores": 2, "cpu_quota": None, "variables": {}, "gpus": [{"name": "G"}]}


@pytest.mark.parametrize(
    ("device", "changed", "same"),
    [
        ("cpu", {"variables": {"OMP_NUM_THREADS": "2"}}, True),
        ("cpu", {"variables": {"OMP_NUM_THREADS": "1"}}, False),
        ("gpu", {"variables": {"OMP_NUM_THREADS": "1"}}, True),
        ("cpu", {"gpus": []}, True),
        ("cpu", {"cpu": "another"}, False),
        ("gpu", {"cpu": "another"}, True),
        ("gpu", {"gpus": [{"name": "H"}]}, False),
    ],
)
def test_a_machine_is_the_same_by_what_trains_there(tmp_path, monkeypatch, device, changed, same):
    made = training(tmp_path)
    made.record = made.record.model_copy(update={"plan": made.record.plan.model_copy(update={"device": device})})
    monkeypatch.setattr(environment, "fingerprint", lambda: CPU)
    monkeypatch.setattr(environment, "cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with nullcontext() if same else pytest.raises(BenchError, match="its run was measured on"):
        made._take_up(made.record.model_copy(update={"environment": CPU | changed}))
