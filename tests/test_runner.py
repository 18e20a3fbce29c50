"""The runner: whatever befalls a backend becomes a row that says so, and the others go on.

Backends are called here as the fault that befalls them; see `faulty_worker`.
"""

import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench import records, tables
from bench.errors import BenchError
from bench.inputs import protocol
from bench.records import EpochPoint, collection, environment
from bench.running import runner
from bench.running.messages import EpochDone
from bench.running.runner import Request
from bench.running.variant import resolve_device

pytestmark = pytest.mark.slow

FAULTS = {
    "missing": ("unavailable", "missing: can't be imported here (import of jax halted; None in sys.modules)"),
    "exit": ("failed", "ended with exit code 3"),
    "segfault": ("failed", "ended by SIGSEGV"),
    "killed": ("failed", "killed by SIGKILL, as the kernel does to a process when memory runs out"),
    "memory": ("out_of_memory", "MemoryError: "),
    "exhausted": ("out_of_memory", "RuntimeError: RESOURCE_EXHAUSTED: failed to allocate 75.1 GiB"),
    "bug": ("failed", "ValueError: shapes don't match"),
    "nan": ("diverged", "loss is nan at step 4 of epoch 2"),
    "at-once": ("failed", "ended with exit code 4"),
    "nowhere": ("unavailable", "/no/such/python can't be started (No such file or directory)"),
}
CURVES = dict.fromkeys(FAULTS, 1) | {"missing": 0, "nan": 2, "at-once": 0, "nowhere": 0}
NAMES = ["numpy", "garbage", *FAULTS]


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.begun, self.events, self.ended = [], [], []

    def begin(self, *told):
        self.begun.append(told)

    def event(self, *told):
        self.events.append(told)

    def end(self, *told):
        self.ended.append(told)


def faulty(backend, interpreter):
    """The command line of a worker in which what its backend is called goes wrong; the reference is left alone."""
    if backend == "numpy":
        return [interpreter, "-m", runner.Training.worker]
    return [interpreter, str(Path(__file__).with_name("faulty_worker.py")), backend]


def request(loaded, backends, folder, **options):
    return Request(protocol=loaded, backends=backends, device="cpu", folder=folder, command=faulty, **options)


def run(folder, backends, *, timeout=300.0, interpreters=None, stopped=lambda: False, **overrides):
    """Run the smoke protocol with these backends; records by name, and what the listener was told."""
    listener = Listener()
    options = {"timeout": timeout, "interpreters": interpreters or {}, "stopped": stopped}
    made = runner.run(request(protocol.load("smoke", **overrides), backends, folder, **options), listener)
    return SimpleNamespace(folder=folder, records={r.plan.backend: r for r in made}, listener=listener)


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """One run in which everything befalls somebody; its folder held another run's record and a stranger's file."""
    folder = tmp_path_factory.mktemp("faults")
    rule = {"training__epochs": 3, "measure__seconds_per_timing": 1e-3, "measure__sampling_batches": [1]}
    other = run(folder, ["well"]).records["well"]
    other = other.model_copy(update={"plan": other.plan.model_copy(update={"backend": "numpy"})})
    before = {path: path.read_bytes() for path in [records.save(other, folder), *folder.iterdir()]}
    ran = run(folder, NAMES, interpreters={"nowhere": "/no/such/python"}, **rule)
    return SimpleNamespace(before=before, **vars(ran))


@pytest.fixture(scope="module")
def well(tmp_path_factory):
    """A run in which all goes well, of 5 epochs in 3 rounds, with workers that only talk."""
    return run(tmp_path_factory.mktemp("well"), ["a", "b", "c"], training__epochs=5, training__rounds=3)


# Faults


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_status_and_a_reason(faults, fault):
    status, reason = FAULTS[fault]
    record = faults.records[fault]
    assert record.status == status
    assert record.reason.startswith(reason)


@pytest.mark.parametrize("fault", FAULTS)
def test_epochs_measured_before_the_fault_are_kept(faults, fault):
    assert [point.epoch for point in faults.records[fault].curve] == list(range(1, CURVES[fault] + 1))


def test_a_loss_that_is_not_a_number_is_none_with_a_note(faults):
    point = faults.records["nan"].curve[-1]
    assert point.train_loss is None
    assert point.note == "train_loss was nan"


@pytest.mark.parametrize("name", ["numpy", "garbage"])
def test_the_others_go_on_to_the_end(faults, name):
    record = faults.records[name]
    assert (record.status, record.reason) == ("ok", None)
    assert [point.epoch for point in record.curve] == [1, 2, 3]


def test_garbage_on_standard_output_changes_nothing(faults):
    curves = [[point.train_loss for point in faults.records[name].curve] for name in ("numpy", "garbage")]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_on_disk_as_it_was_returned(faults, name):
    run_id = faults.records["numpy"].run
    on_disk = [record for record in collection.load_all(faults.folder) if record.run == run_id]
    assert [record for record in on_disk if record.plan.backend == name] == [faults.records[name]]


def test_a_fault_ends_a_backends_turns(faults):
    turns = [name for name, *_ in faults.listener.begun]
    assert {name: turns.count(name) for name in NAMES} == dict.fromkeys(FAULTS, 1) | {"numpy": 2, "garbage": 2}


def test_the_listener_is_told_how_each_turn_ended(faults):
    ended = {name: (status, reason) for name, status, reason in faults.listener.ended}
    assert ended == {name: (record.status, record.reason) for name, record in faults.records.items()}


def test_records_of_another_run_are_left_alone(faults):
    assert {path: path.read_bytes() for path in faults.before} == faults.before


def test_nothing_is_left_in_the_folder_but_records_weights_and_the_states_of_what_failed(faults):
    [states] = faults.folder.glob(".unfinished-*")
    assert {path.suffix for path in faults.folder.iterdir() if path != states} == {".json", ".safetensors"}
    begun = {name for name, epochs in CURVES.items() if epochs}
    assert {path.parent.name for path in states.glob("*/state.safetensors")} <= begun
    assert {path.name for path in states.iterdir()} <= {"request.json", *begun}


def test_nothing_is_left_of_a_run_in_which_all_goes_well_but_records_and_weights(well):
    assert {path.suffix for path in well.folder.iterdir()} == {".json", ".safetensors"}


@pytest.fixture(scope="module")
def speed(faults):
    """The cells of each row of the first table that people read."""
    text = tables.render([tables.speed(faults.records.values())], "markdown")
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_row_of_the_table_that_says_so(speed, fault):
    [row] = [cells for cells in speed if fault in cells]
    status, reason = FAULTS[fault]
    assert any(cell.startswith(f"{status}: {reason.strip()}"[:40]) for cell in row)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_the_machine_of_the_others(faults, fault):
    machines = [environment.machine("cpu", faults.records[name].environment) for name in (fault, "numpy")]
    assert machines[0] == machines[1]


def test_a_worker_that_hangs_is_ended_when_the_command_was_interrupted_and_keeps_its_epochs(tmp_path):
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["hang"], stopped=lambda: time.monotonic() > begun + 10, training__rounds=1)
    (record,) = collection.load_all(tmp_path)
    assert (record.status, record.reason, len(record.curve)) == ("failed", "interrupted in round 1", 1)


def test_a_worker_that_hangs_is_a_timeout_and_keeps_its_epochs(tmp_path):
    ran = run(tmp_path, ["hang", "well"], timeout=10.0, training__rounds=1)
    assert (ran.records["hang"].status, ran.records["hang"].reason) == ("timeout", "no end after 10 s")
    assert len(ran.records["hang"].curve) == 1
    assert ran.records["well"].status == "ok"


def test_a_message_without_end_is_a_failure_and_is_not_read_whole(tmp_path):
    record = run(tmp_path, ["endless"]).records["endless"]
    assert (record.status, record.reason) == ("failed", "wrote a message of more than 4 MiB")


def test_a_worker_that_ends_without_saying_how_has_failed(tmp_path):
    record = run(tmp_path, ["silent"]).records["silent"]
    assert (record.status, record.reason) == ("failed", "ended with exit code 0")


def test_a_worker_that_dies_before_it_has_read_a_long_plan_has_failed(tmp_path):
    loaded = protocol.load("smoke").model_copy(update={"caption": "x" * 300_000})  # longer than a pipe holds
    [record] = runner.run(request(loaded, ["at-once"], tmp_path), Listener())
    assert (record.status, record.reason) == ("failed", "ended with exit code 4")


@pytest.fixture
def orphans(tmp_path):
    """The processes that this test's workers left behind, given time to die; they don't outlive the test."""

    def find():
        left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
        return psutil.wait_procs(left, timeout=5)[1]

    yield find
    for process in find():
        process.kill()


def test_a_process_that_the_worker_started_neither_holds_the_runner_up_nor_stays(tmp_path, orphans):
    start = time.monotonic()
    record = run(tmp_path, ["child"], timeout=60.0, training__epochs=1, training__rounds=1).records["child"]
    assert (record.status, record.reason) == ("ok", None)
    assert time.monotonic() - start < 50
    assert orphans() == []


# Rounds


def test_epochs_are_spread_over_rounds_and_each_round_begins_with_another_backend(well):
    first = [("a", 1, 2), ("b", 1, 2), ("c", 1, 2)]
    second = [("b", 2, 2), ("c", 2, 2), ("a", 2, 2)]
    third = [("c", 3, 1), ("a", 3, 1), ("b", 3, 1)]
    assert well.listener.begun == [*first, *second, *third]


def test_the_listener_hears_of_every_epoch(well):
    epochs = [event.point.epoch for name, event in well.listener.events if isinstance(event, EpochDone) and name == "b"]
    assert epochs == [1, 2, 3, 4, 5]


def test_a_records_curve_goes_through_all_rounds(well):
    curve = well.records["a"].curve
    assert [(point.epoch, point.round) for point in curve] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]


def test_an_epoch_is_on_disk_before_anybody_hears_of_it(tmp_path):
    class Reader(Listener):
        def event(self, name, event):
            if isinstance(event, EpochDone):
                [record] = collection.load_all(tmp_path)
                self.events.append((record.status, event.point in record.curve))

    reader = Reader()
    loaded = protocol.load("smoke", training__epochs=3, training__rounds=1)
    runner.run(request(loaded, ["well"], tmp_path), reader)
    assert reader.events == [("failed", True)] * 3  # what it is if it ends here


def test_between_rounds_a_record_says_that_it_lacks_some(tmp_path):
    class Reader(Listener):
        def begin(self, name, round_, epochs):
            found = {record.plan.backend: record for record in collection.load_all(tmp_path)}
            self.begun.append(
                (round_, name, getattr(found.get("a"), "status", None), getattr(found.get("a"), "reason", None))
            )

    reader = Reader()
    loaded = protocol.load("smoke", training__epochs=2, training__rounds=2)
    made = runner.run(request(loaded, ["a", "b"], tmp_path), reader)
    partly = ("failed", "ended after round 1 of 2")
    assert reader.begun == [(1, "a", None, None), (1, "b", *partly), (2, "b", *partly), (2, "a", *partly)]
    assert [(record.status, record.reason) for record in made] == [("ok", None)] * 2


def test_what_a_backends_first_process_compiles_only_its_later_ones_find(well):
    told = {
        n: [m.value for m in record.measurements if m.quantity == "cache_found"] for n, record in well.records.items()
    }
    assert told == {"a": [0, 1, 1], "b": [0, 1, 1], "c": [0, 1, 1]}


def test_a_round_is_told_the_lowest_test_loss_of_those_before(tmp_path):
    asked = request(protocol.load("smoke"), ["a"], tmp_path)
    plan = runner.plan_of(asked, asked.protocol, "cpu", "a", None, epochs=2, rounds=2)
    training = runner.Training(asked, "a", plan, "run", tmp_path)
    assert training.worker_plan(1).best_loss is None
    for epoch, loss in enumerate((5.0, 1.0, float("nan"), 3.0), start=1):
        training.record.curve.append(EpochPoint(epoch=epoch, train_loss=0, test_loss=loss, seconds=1, round=1))
    assert training.worker_plan(2).best_loss == 1.0


def test_weights_stand_beside_the_record(well):
    found = {path.name: path.read_bytes() for path in well.folder.glob("*.safetensors")}
    assert found == {f"smoke-{n}-cpu-float32-eager-seed0.safetensors": b"weights of " + n.encode() for n in "abc"}
    assert {Path(name).stem for name in found} == {path.stem for path in well.folder.glob("*.json")}


def test_the_backends_of_a_run_share_its_name(well):
    assert len({record.run for record in well.records.values()}) == 1


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("epochs_to_target", 2), ("seconds_to_target", 4.0), ("final_train_loss", -250.0)],
)
def test_figures_of_the_whole_curve(well, quantity, value):
    # The target is −100; the stand-in's losses are −50 an epoch, 2 seconds each.
    assert [m.value for m in well.records["a"].measurements if m.quantity == quantity] == [value]


def test_each_rounds_time_is_compared_with_its_floor(well):
    ratios = [(m.context["round"], m.value) for m in well.records["a"].measurements if m.quantity == "training_ratio"]
    assert ratios == [(1, 4.0), (2, 4.0), (3, 4.0)]


def test_a_target_that_is_not_reached_is_a_figure_without_a_value(tmp_path):
    record = run(tmp_path, ["well"], training__target_loss=-1e6).records["well"]
    values = {m.quantity: m.value for m in record.measurements if m.quantity.endswith("to_target")}
    assert values == {"epochs_to_target": None, "seconds_to_target": None}


def test_a_record_says_what_was_planned(well):
    plan = well.records["c"].plan
    assert (plan.protocol, plan.device, plan.precision, plan.mode, plan.seed) == ("smoke", "cpu", "float32", "eager", 0)
    assert (plan.epochs, plan.batch, plan.rounds) == (5, 64, 3)


def test_several_modes_of_a_backend_take_turns(tmp_path):
    listener, modes = Listener(), {"a": ("one", "two"), "c": ("three",)}
    loaded = protocol.load("smoke", training__epochs=2, training__rounds=2)
    runner.run(request(loaded, ["a", "b", "c"], tmp_path, modes=modes), listener)
    first, second = ["a-one", "a-two", "b", "c"], ["a-two", "b", "c", "a-one"]
    assert [label for label, *_ in listener.begun] == first + second
    made = collection.load_all(tmp_path)
    assert sorted((record.plan.backend, record.plan.mode, record.status) for record in made) == [
        ("a", "one", "ok"),
        ("a", "two", "ok"),
        ("b", "eager", "ok"),
        ("c", "three", "ok"),
    ]
    weights = {path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert weights == {b"weights of " + label.encode() for label in first}
    caches = [m.value for record in made for m in record.measurements if m.quantity == "cache_found"]
    assert caches == [0, 1] * 4


# Before anything starts


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="can't be written"):
        run(tmp_path / "file", ["well"])


@pytest.mark.parametrize(
    ("asked", "present", "expected"),
    [("auto", [], "cpu"), ("auto", [{}], "gpu"), ("cpu", [{}], "cpu"), ("gpu", [{}], "gpu")],
)
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, asked, present, expected):
    monkeypatch.setattr(environment, "gpus", lambda: present)
    assert resolve_device(asked) == expected


def test_a_gpu_that_is_not_there_is_one_error_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "gpus", list)
    with pytest.raises(BenchError, match="no GPU is visible"):
        runner.run(Request(protocol=protocol.load("smoke"), device="gpu", folder=tmp_path / "runs"), Listener())
    assert not (tmp_path / "runs").exists()
