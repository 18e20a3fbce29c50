import json
import math
import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from bench.records import EpochPoint, Measurement, Plan, PrecisionSeen, Record, RecordError, load, now, save
from bench.records.collection import load_all

PLAN = {
    "protocol": "article",
    "protocol_digest": "0123456789abcdef",
    "backend": "torch",
    "device": "cpu",
    "precision": "float32",
    "mode": "eager",
    "seed": 0,
    "epochs": 2,
    "batch": 128,
    "rounds": 1,
    "architecture": {"dim": 784, "split": "interleaved"},
    "optimiser": {"name": "adam", "rate": 1e-3},
    "loss": "article",
    "target_loss": -2200.0,
    "caption": "The article selects on the test set − and so does this.",
}


def record(run="a", status="ok", reason=None, **plan):
    return Record(
        run=run,
        created="2026-01-02T03:04:05+00:00",
        status=status,
        reason=reason,
        plan=Plan(**PLAN | plan),
        environment={"cores": 2, "packages": {"torch": "2.13.0"}, "gpus": []},
        precision=PrecisionSeen(asked="float32", seen="float32", mantissa_bits=23),
        digests={"data": "d" * 64},
        curve=[EpochPoint(epoch=1, train_loss=-1 / 3, test_loss=None, seconds=0.1 + 0.2, round=1)],
        first_epoch_losses=[100.0, -1 / 3],
        measurements=[
            Measurement(measure="sampling", quantity="latency", value=1e-9 / 3, unit="s", n=30, context={"batch": 16})
        ],
    )


def raw(change):
    """Return a record's JSON value after `change` was done to it."""
    data = json.loads(record().model_dump_json())
    change(data)
    return data


# Saving


def test_a_saved_record_comes_back_the_same(tmp_path):
    path = save(record(), tmp_path / "new" / "folder")
    assert path.name == "article-torch-cpu-float32-eager-seed0.json"
    assert load(path) == record()
    assert load(path).measurements[0].value == 1e-9 / 3


def test_the_file_is_json_that_people_can_read(tmp_path):
    text = save(record(), tmp_path).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert ' "first_epoch_losses": [100.0, -0.3333333333333333],' in lines
    assert " − and so does this" in text
    latency = {"measure": "sampling", "quantity": "latency", "value": 1e-9 / 3, "unit": "s", "n": 30}
    assert f"  {json.dumps(latency | {'context': {'batch': 16}})}" in lines  # a row a line, without what it lacks
    assert len(lines) < 60
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        ({"mode": None, "seed": 12}, "article-torch-cpu-float32-seed12.json"),
        ({"protocol": "../My Protocol/é", "mode": "A:B"}, "my-protocol-torch-cpu-float32-a-b-seed0.json"),
        ({"protocol": "..."}, "x-torch-cpu-float32-eager-seed0.json"),
    ],
)
def test_names_are_safe(tmp_path, plan, name):
    path = save(record(**plan), tmp_path)
    assert path.parent == tmp_path
    assert path.name == name


def test_the_same_run_replaces_its_record_and_another_run_never_does(tmp_path):
    first = save(record("a"), tmp_path)
    second = save(record("b"), tmp_path)
    third = save(record("c"), tmp_path)
    assert [path.stem.removeprefix(first.stem) for path in (first, second, third)] == ["", "-2", "-3"]
    assert save(record("b", status="failed", reason="boom"), tmp_path) == second
    assert [load(path).run for path in (first, second, third)] == ["a", "b", "c"]
    assert load(second).status == "failed"
    first.unlink()
    assert save(record("c"), tmp_path) == third
    assert not first.exists()


def test_plans_that_share_a_name_do_not_share_a_file(tmp_path):
    assert save(record(mode="a b"), tmp_path) != save(record(mode="a-b"), tmp_path)
    assert save(record(seed=1), tmp_path) != save(record(seed=12), tmp_path)


def test_a_file_that_is_no_record_is_not_replaced(tmp_path):
    taken = tmp_path / "article-torch-cpu-float32-eager-seed0.json"
    taken.write_text("half a rec")
    assert save(record(), tmp_path).name == "article-torch-cpu-float32-eager-seed0-2.json"
    assert taken.read_text() == "half a rec"


@pytest.mark.parametrize("crash", [OSError("disk full"), KeyboardInterrupt()])
def test_a_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, crash):
    path = save(record(), tmp_path)
    before = path.read_bytes()

    def fail(_):
        raise crash

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RecordError if isinstance(crash, OSError) else KeyboardInterrupt):
        save(record(status="failed", reason="a longer text than before"), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_taken_while_writing_is_not_overwritten(tmp_path, monkeypatch):
    link = os.link

    def race(source, target):
        if not Path(target).exists():
            Path(target).write_text("another process was here")
            monkeypatch.setattr(os, "link", link)
        return link(source, target)

    monkeypatch.setattr(os, "link", race)
    path = save(record(), tmp_path)
    assert path.stem.endswith("-2")
    assert load(path) == record()


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def fail(source, target):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", fail)
    assert load(save(record(), tmp_path)) == record()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"file.*cannot write a record here"):
        save(record(), tmp_path / "file")


# Numbers that are not finite


def test_numbers_that_are_not_finite_become_null_and_a_note(tmp_path):
    found = record()
    found.measurements.append(
        Measurement(measure="agreement", quantity="z", value=math.inf, unit="relative", low=math.nan, note="at batch 3")
    )
    found.curve.append(EpochPoint(epoch=2, train_loss=np.float32("nan"), seconds=1.0, round=1))
    found.first_epoch_losses.append(math.nan)
    path = save(found, tmp_path)

    def refuse(token):
        raise AssertionError(token)

    data = json.loads(path.read_text(), parse_constant=refuse)
    last = data["measurements"][-1]
    assert (last["value"], last.get("low"), last["note"]) == (None, None, "at batch 3; value was inf, low was nan")
    assert (data["curve"][-1]["train_loss"], data["curve"][-1]["note"]) == (None, "train_loss was nan")
    assert data["first_epoch_losses"] == [100.0, -1 / 3, None]
    assert load(path).measurements[-1].note == "at batch 3; value was inf, low was nan"


def test_numbers_that_are_not_finite_elsewhere_are_named_too():
    made = Measurement(measure="m", quantity="q", value=1.0, unit="1", context={"temperature": math.inf})
    assert made.context == {"temperature": "inf"}
    about = Record(run="a", status="ok", plan=Plan(**PLAN), environment={"loads": [math.nan, np.float64(1.5)]})
    assert about.environment == {"loads": ["nan", 1.5]}
    with pytest.raises(ValidationError, match="target_loss"):
        Plan(**PLAN | {"target_loss": math.nan})


def test_numpy_scalars_are_taken():
    made = Measurement(
        measure="m", quantity="q", value=np.float32(0.5), unit="1", n=np.int64(3), context={"b": np.int64(4)}
    )
    assert (made.value, made.n, made.context) == (0.5, 3, {"b": 4})
    assert type(made.context["b"]) is int


# Fields


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Plan(**PLAN | {"epoch": 1}), "epoch"),
        (lambda: Plan(**PLAN | {"loss": "mse"}), "loss"),
        (lambda: Plan(**PLAN | {"batch": 0}), "batch"),
        (lambda: Plan(**PLAN | {"architecture": {"made by": object()}}), "architecture"),
        (lambda: EpochPoint(epoch=0, train_loss=1.0, seconds=1.0, round=1), "epoch"),
        (lambda: record(status="fine"), "status"),
        (lambda: Record(run="a", status="ok", plan=Plan(**PLAN), created="yesterday"), "created"),
        (lambda: Record(run="a", status="ok", plan=Plan(**PLAN), created="2026-01-02T03:04:05+01:00"), "created"),
        (lambda: Record(run="a", status="ok", plan=Plan(**PLAN), created="2026-01-02T03:04:05"), "created"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(make, field):
    with pytest.raises(ValidationError, match=field):
        make()


def test_now_is_utc():
    moment = datetime.fromisoformat(now())
    assert moment.utcoffset() == timedelta(0)
    assert record().created == Record(
        run="a", status="ok", plan=Plan(**PLAN), created="2026-01-02T03:04:05Z"
    ).created.replace("Z", "+00:00")


# Loading


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(schema_version=2), "schema_version: found 2, this program reads 1"),
        (lambda r: r.update(schema_version=True), "schema_version: found true, this program reads 1"),
        (lambda r: r.pop("schema_version"), "not a record: expected an object with schema_version, found none"),
        (lambda r: r.update(speed=1), "speed: found 1, expected no such field"),
        (lambda r: r["plan"].pop("seed"), "plan.seed: found nothing, expected this field"),
        (lambda r: r["plan"].update(seed="0"), 'plan.seed: found "0", expected a valid integer'),
        (
            lambda r: r["measurements"][0].update(value="fast"),
            'measurements.0.value: found "fast", expected a valid number',
        ),
        (lambda r: r.update(status="fine"), """status: found "fine", expected 'ok'"""),
        (lambda r: r.update(run=1, first_epoch_losses=["x"] * 12), "; and 3 more"),
    ],
)
def test_a_bad_record_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(raw(change)))
    with pytest.raises(RecordError) as caught:
        load(path)
    found = str(caught.value)
    assert found.startswith(f"{path}: ")
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a record: expected JSON"),
        (b'{"schema_version": 1, ', "not a record: expected JSON"),
        (b"\xff\xfe", "not a record: expected JSON"),
        (b"[" * 100_000, "not a record: expected JSON"),
        (b'{"schema_version": NaN}', "found NaN, which is not JSON"),
        (b"[1, 2]", "expected an object with schema_version"),
        (b'{"machine_info": {}, "benchmarks": []}', "this is pytest-benchmark output"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, content, message):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"none\.json: cannot be read: No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(RecordError, match=r"none: no such file or folder"):
        load_all([tmp_path / "none"])


def test_one_bad_file_among_many_is_named(tmp_path):
    save(record(), tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad.json").write_text("{}")
    with pytest.raises(RecordError, match=r"bad\.json"):
        load_all(tmp_path)


def test_folders_are_read_recursively_without_runs_and_each_file_once(tmp_path):
    kept = save(record(seed=1), tmp_path / "results" / "gpu")
    save(record(seed=2), tmp_path / "results" / "runs" / "today")
    (tmp_path / "results" / "notes.txt").write_text("no record")

    def seeds(*paths):
        return [found.plan.seed for found in load_all(paths)]

    results = tmp_path / "results"
    assert seeds(results) == [1]
    assert seeds(results, kept, results / "gpu") == [1]
    assert seeds(results / "runs") == [2]
    assert seeds(results / "runs" / "today") == [2]
    assert seeds(results, results / "runs") == [1, 2]
    assert [found.plan.seed for found in load_all(str(results))] == [1]


def test_what_was_cut_off_is_read_only_where_it_is_named(tmp_path, monkeypatch):
    name = ".scratch-x"
    monkeypatch.chdir(tmp_path)
    save(record(seed=1), Path("results", "check"))
    save(record(seed=2), Path("results", name, "noise_wider"))
    (tmp_path / "results" / name / "kernel.json").write_text("[]")
    assert [found.plan.seed for found in load_all("results")] == [1]
    assert [found.plan.seed for found in load_all(Path("results", name, "noise_wider"))] == [2]
    save(record(seed=3), Path("results", "runs", "check"))
    save(record(seed=4), Path("results", "runs", name))
    assert [found.plan.seed for found in load_all("results/runs")] == [3]


def test_what_a_killed_process_left_beside_a_file_is_no_record(tmp_path):
    path = save(record(seed=1), tmp_path)
    (tmp_path / f".{path.name}.x7ab.json").write_bytes(path.read_bytes())
    assert [found.plan.seed for found in load_all(tmp_path)] == [1]


def test_runs_inside_a_named_runs_folder_are_read(tmp_path):
    save(record(), tmp_path / "runs" / "sweep" / "runs")
    assert len(load_all(tmp_path / "runs" / "sweep")) == 1
    assert load_all(tmp_path) == []


def test_a_checkout_below_a_folder_called_runs_still_leaves_its_own_runs_out(tmp_path, monkeypatch):
    checkout = tmp_path / "runs" / "checkout"
    save(record(), checkout / "results" / "runs")
    monkeypatch.chdir(checkout)
    assert load_all(checkout / "results") == []
