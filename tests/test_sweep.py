"""Sweeps: which points are measured, what is left out and why, what a point's figures are, what a dead process costs.

Backends are called here as what befalls them; see `sweeping_worker`.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from factories import backend_names

import backends
from backends import Backend, parameters
from backends.architecture import flops
from bench.errors import BenchError
from bench.inputs import protocol
from bench.inputs.protocol import OPERATIONS, Point
from bench.inputs.streams import initial_parameters
from bench.measures import sweep as points_measured
from bench.measures.timing import Timing
from bench.records import Measurement, collection
from bench.running import variant
from bench.running.messages import PointBegun, Started, SweepPlan
from bench.sweeps import sweep, sweep_worker

SMOKE = protocol.load("smoke")


class Listener:
    """Keeps what it is given."""

    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, *given):
        self.begun.append(given)

    def event(self, *given):
        pass

    def end(self, *given):
        self.ended.append(given)


def make_plan(points, *, backend="numpy", **options):
    options = {"seconds": 1e-3, "longest_call": 60.0} | options
    return SweepPlan(
        protocol=SMOKE, backend=backend, device="cpu", precision="float32", mode=None, points=points, **options
    )


def batches(*values, operation="log_prob"):
    return [Point(axis="batch", value=value, operation=operation) for value in values]


def worked(plan):
    """(value, operation) → the figures of each point, by quantity."""
    found = {}
    for event in sweep_worker.events(plan):
        if isinstance(event, Measurement):
            figures = found.setdefault((event.context["value"], event.context["operation"]), {})
            figures[event.quantity] = event
    return found


def notes(found):
    return {key: figures["seconds"].note for key, figures in found.items() if figures["seconds"].value is None}


# Which points


def test_the_usual_batches_are_those_of_the_issue_and_training_has_a_range_of_its_own():
    made = sweep.points("batch", sweep.VALUES["batch"], OPERATIONS)
    by_operation = {name: [p.value for p in made if p.operation == name] for name in OPERATIONS}
    assert (by_operation["sample"][0], by_operation["sample"][-1], len(by_operation["sample"])) == (1, 65536, 17)
    assert by_operation["log_prob"] == by_operation["sample"]
    assert (by_operation["train"][0], by_operation["train"][-1]) == (32, 8192)
    assert [p.value for p in made] == sorted(p.value for p in made)
    asked = sweep.points("batch", (8, 16384), ("log_prob", "train"))
    assert [p.value for p in asked if p.operation == "train"] == [8, 16384]


def test_values_that_are_given_replace_the_usual_ones_and_axes_keep_their_order():
    chosen = sweep.choose(["depth", "batch"], {"batch": [64, 1, 1]})
    assert chosen == {"batch": (1, 64), "depth": sweep.VALUES["depth"]}
    assert list(chosen) == ["batch", "depth"]


@pytest.mark.parametrize(
    ("axes", "values", "message"),
    [
        (["batch"], {"heigth": [1]}, "values of heigth, which isn't swept"),
        (["batch"], {"width": [1]}, "values of width, which isn't swept"),
    ],
)
def test_an_axis_that_is_not_there_is_refused(axes, values, message):
    with pytest.raises(BenchError, match=message):
        sweep.choose(axes, values)


@pytest.mark.parametrize(
    ("axis", "field"), [("width", "hidden_units"), ("depth", "hidden_layers"), ("couplings", "couplings")]
)
def test_an_axis_changes_one_size_of_the_network_and_not_the_batch(axis, field):
    architecture, batch = points_measured.setting(SMOKE, Point(axis=axis, value=5, operation="train"))
    assert architecture.to_dict() == SMOKE.make_architecture().to_dict() | {field: 5}
    assert batch == 64


def test_the_batch_axis_leaves_the_network_alone():
    assert points_measured.setting(SMOKE, batches(7)[0]) == (SMOKE.make_architecture(), 7)


# A point's figures


@pytest.fixture
def clock(monkeypatch):
    """A clock on which every call takes as long as is said here, whatever it does; it keeps what it timed."""
    fake = SimpleNamespace(seconds=0.5, calls=[])

    def time_calls(model, call, budget):
        fake.calls.append(call())
        return Timing(fake.seconds, fake.seconds / 2, fake.seconds * 2, 7, fake.seconds / 2)

    monkeypatch.setattr(points_measured, "time_calls", time_calls)
    return fake


def test_figures_follow_from_seconds_batch_and_products(clock):
    figures = worked(make_plan(batches(64)))[64, "log_prob"]
    work = flops(SMOKE.make_architecture().forward_products(64))
    expected = {"seconds": (0.5, 0.25, 1.0), "examples_per_second": (128, 64, 256)}
    expected["flop_rate"] = (2 * work, work, 4 * work)
    assert {name: (m.value, m.low, m.high) for name, m in figures.items()} == expected
    assert {m.n for m in figures.values()} == {7}
    assert figures["seconds"].context == {"axis": "batch", "value": 64, "operation": "log_prob"}


def test_samples_are_swept_at_the_protocols_temperature(clock):
    asked = []

    def workload(operation, batch, *, temperature):
        asked.append((operation, batch, temperature))
        return lambda: None

    model = SimpleNamespace(architecture=SMOKE.make_architecture(), workload=workload)
    points_measured.measure(model, SMOKE, batches(7, operation="sample")[0], rate=None, seconds=1e-3)
    assert asked == [("sample", 7, 0.8)]


def test_a_training_figure_is_of_one_step_though_a_call_makes_many(clock):
    clock.seconds = 0.05  # of the trial of one step, hence 4 steps to a call of 0.2 s; and then of such a call
    figures = worked(make_plan(batches(64, operation="train")))[64, "train"]
    assert [len(report.losses) for report in clock.calls] == [1, 4]
    assert figures["seconds"].value == pytest.approx(0.05 / 4)
    work = flops(SMOKE.make_architecture().training_products(64))
    assert figures["flop_rate"].value == pytest.approx(work / (0.05 / 4))


def test_what_is_known_of_smaller_points_spares_the_trial(clock):
    work = flops(SMOKE.make_architecture().training_products(64))
    worked(make_plan(batches(64, operation="train"), rates={"train": 0.02 / work}))
    assert [len(report.losses) for report in clock.calls] == [10]


@pytest.mark.parametrize("backend", [name for name in ("numpy", "torch") if name in backend_names()])
def test_training_is_real_and_leaves_the_model_as_it_was(monkeypatch, backend):
    architecture = SMOKE.make_architecture()
    initial = initial_parameters(architecture, 0, "glorot_uniform", "glorot_normal")
    model = backends.create(backend, architecture, initial, device="cpu")
    seen = []

    def time_calls(model, call, budget):
        reports = [call(), call()]
        seen.append((reports, model.training_state()))
        return Timing(0.1, 0.1, 0.1, 3, 0.1)

    monkeypatch.setattr(points_measured, "time_calls", time_calls)
    [point] = batches(32, operation="train")
    points_measured.measure(model, SMOKE, point, rate=None, seconds=1e-3)
    (reports, state) = seen[-1]
    assert state.step == sum(len(report.losses) for report in reports) == 4
    assert not np.array_equal(state.parameters["log_scale"], initial["log_scale"])
    assert parameters.digest(model.parameters()) == parameters.digest(initial)
    assert model.training_state().step == 0


def test_a_plan_is_worked_through_in_order_and_begins_with_mode_and_precision(clock):
    plan = make_plan([*batches(1, 2), Point(axis="width", value=3, operation="sample")])
    events = list(sweep_worker.events(plan))
    assert isinstance(events[0], Started)
    assert (events[0].mode, events[0].precision.seen) == ("eager", "float32")
    assert [event.point for event in events if isinstance(event, PointBegun)] == plan.points


# Left out


def test_a_point_that_would_take_too_long_is_a_row_that_says_so(clock):
    found = worked(make_plan(batches(1, 2, 4, 8), longest_call=1.0))
    # Every call takes half a second, however large: so twice as large, a second is expected.
    assert notes(found) == {}
    found = worked(make_plan(batches(1, 2, 8, 16), longest_call=1.5))
    assert notes(found) == {(8, "log_prob"): "left out: a call would take about 2 s"} | {
        (16, "log_prob"): "left out: a call would take about 4 s"
    }


def test_operations_do_not_speak_for_each_other(clock):
    plan = make_plan([*batches(1), *batches(64, operation="sample"), *batches(64)], longest_call=1.0)
    assert list(notes(worked(plan))) == [(64, "log_prob")]


def test_a_point_that_needs_more_memory_than_there_is_is_left_out_on_a_cpu(monkeypatch, clock):
    monkeypatch.setattr(sweep_worker.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**24, total=2**30))
    plan = make_plan([Point(axis="width", value=value, operation="log_prob") for value in (8, 8000)], longest_call=1e9)
    [(key, note)] = notes(worked(plan)).items()
    assert key == (8000, "log_prob")
    assert note.startswith("left out: needs about 2")
    assert note.endswith("GiB of memory; 0.016 are free")


def failing(error, at):
    """A `Backend.workload` that fails from this batch on."""
    workload = Backend.workload

    def fails(self, operation, batch, **options):
        if operation == "log_prob" and batch >= at:
            raise error
        return workload(self, operation, batch, **options)

    return fails


def test_a_point_that_runs_out_of_memory_is_a_row_larger_ones_are_left_out_and_the_rest_goes_on(monkeypatch, clock):
    monkeypatch.setattr(Backend, "workload", failing(RuntimeError("RESOURCE_EXHAUSTED: 75 GiB"), at=4))
    plan = make_plan([*batches(2, 4), *batches(4, operation="sample"), *batches(8), *batches(8, operation="sample")])
    assert notes(worked(plan)) == {
        (4, "log_prob"): "out of memory: RuntimeError: RESOURCE_EXHAUSTED: 75 GiB",
        (8, "log_prob"): "left out: out of memory at 4",
    }


def test_another_failure_is_a_row_and_speaks_for_itself_alone(monkeypatch, clock):
    monkeypatch.setattr(Backend, "workload", failing(ValueError("a bug"), at=2))
    found = worked(make_plan([*batches(1, 2, 4), *batches(4, operation="sample")]))
    assert notes(found) == {(value, "log_prob"): "failed: ValueError: a bug" for value in (2, 4)}


# Processes


def command(backend, interpreter):
    return [interpreter, str(Path(__file__).with_name("sweeping_worker.py")), backend]


def run(folder, names, values=None, **options):
    listener = Listener()
    request = sweep.Request(
        protocol=SMOKE,
        values={"batch": (1, 2, 4), "depth": (1, 2)} if values is None else values,
        operations=("log_prob", "sample"),
        backends=names,
        device="cpu",
        folder=folder,
        command=command,
        **options,
    )
    made = sweep.run(request, listener)
    return SimpleNamespace(records={r.plan.backend: r for r in made}, listener=listener)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return SimpleNamespace(folder=folder, **vars(run(folder, ["well", "dies", "absent", "empty"])))


def rows(record):
    return {
        (m.context["axis"], m.context["value"], m.context["operation"]): m.note or m.value
        for m in record.measurements
        if m.quantity == "seconds"
    }


@pytest.mark.slow
def test_every_axis_is_a_round_that_begins_with_another_backend(ran):
    assert [message[:2] for message in ran.listener.begun[:4]] == [(n, 1) for n in ("well", "dies", "absent", "empty")]
    assert [message[:2] for message in ran.listener.begun[4:]] == [("dies", 2), ("empty", 2), ("well", 2)]
    assert [message[2] for message in ran.listener.begun if message[0] == "well"] == [6, 4]


@pytest.mark.slow
def test_a_sweep_that_nobody_comes_back_to_is_not_whole(tmp_path, monkeypatch):
    begun = []

    def begin(self, backend, round_, *_):
        begun.append((backend, round_))
        if round_ == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Listener, "begin", begin)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, ["well"])
    (left,) = collection.load_all(tmp_path)
    assert (left.status, left.reason) == ("failed", "ended after round 1 of 2")
    assert {at[0] for at in rows(left)} == {"batch"}


@pytest.mark.slow
def test_a_record_has_every_point_and_says_what_was_swept(ran):
    record = ran.records["well"]
    assert (record.status, record.plan.kind, record.plan.protocol, record.plan.mode) == (
        "ok",
        "sweep",
        "smoke",
        "eager",
    )
    sizes = [("batch", 1), ("batch", 2), ("batch", 4), ("depth", 1), ("depth", 2)]
    assert rows(record) == {(*size, operation): 0.5 for size in sizes for operation in ("log_prob", "sample")}
    assert "2 couplings of 2 hidden layers of 32, 784 dimensions, batch 64" in record.plan.caption


@pytest.mark.slow
def test_a_process_that_dies_costs_one_point_and_the_larger_ones_and_another_goes_on(ran):
    record = ran.records["dies"]
    assert record.status == "ok"
    died = "failed: killed by SIGKILL, as the kernel does to a process when memory runs out"
    assert rows(record) == rows(ran.records["well"]) | {
        ("batch", 2, "sample"): died,
        ("batch", 4, "sample"): "left out: at 2 the process ended",
        ("depth", 2, "sample"): died,
    }


@pytest.mark.slow
def test_the_next_process_goes_by_the_best_rate_that_was_seen(tmp_path, monkeypatch):
    plans = []
    supervise = variant.supervise
    monkeypatch.setattr(variant, "supervise", lambda c, plan, *rest: (plans.append(plan), supervise(c, plan, *rest))[1])
    run(tmp_path, ["slower"])
    rates = [plan.rates for plan in plans]
    # 1e9 FLOP/s at the first point of an operation, and less at each that follows.
    assert rates == [{}, {"log_prob": 1e-9, "sample": 1e-9}]


@pytest.mark.slow
def test_a_framework_that_is_not_there_is_a_record_that_says_so(ran):
    record = ran.records["absent"]
    assert (record.status, record.reason, record.measurements) == ("unavailable", "no such framework", [])


@pytest.mark.slow
def test_a_sweep_without_a_single_figure_has_failed(ran):
    assert (ran.records["empty"].status, ran.records["empty"].reason) == ("failed", "failed: ValueError: a bug")


@pytest.mark.slow
def test_a_process_that_dies_before_its_first_point_has_failed_and_is_not_started_again(tmp_path):
    ran = run(tmp_path, ["at-once"])
    assert (ran.records["at-once"].status, ran.records["at-once"].reason) == ("failed", "ended with exit code 4")
    assert len(ran.listener.begun) == 1


@pytest.mark.slow
def test_a_point_without_end_is_a_row(tmp_path):
    record = run(tmp_path, ["hangs"], {"batch": (1, 2)}, timeout=4.0).records["hangs"]
    assert rows(record)["batch", 2, "sample"] == "timeout: no end after 4 s"
    assert rows(record)["batch", 2, "log_prob"] == 0.5


@pytest.mark.slow
def test_records_are_on_disk_as_they_were_returned_and_nothing_else_is(ran):
    on_disk = collection.load_all(ran.folder)
    assert {record.plan.backend: record for record in on_disk} == ran.records
    assert len(list(ran.folder.iterdir())) == 4
    assert (ran.folder / "smoke-sweep-well-cpu-float32-eager-seed0.json").is_file()


@pytest.mark.slow
def test_the_real_worker_takes_the_plan_of_a_sweep(tmp_path):
    around = {"protocol": SMOKE, "values": {"batch": (32,)}}
    request = sweep.Request(**around, backends=["numpy"], device="cpu", folder=tmp_path, seconds=1e-3)
    [record] = sweep.run(request, Listener())
    assert (record.status, record.precision.seen, record.plan.mode) == ("ok", "float32", "eager")
    assert [operation for _, _, operation in rows(record)] == ["log_prob", "sample", "train"]
    assert all(m.value > 0 for m in record.measurements)


def test_devices_are_swept_by_run(nice_bench):
    said = nice_bench("sweep", "--axis", "batch", "--axis", "devices")
    assert said.code == 1
    assert "that sweep is `nice-bench run --devices 1,2,4`" in said.err
