"""The worker: its events, training that goes on in another round, the weights it keeps, and how it fails."""

import dataclasses
import io
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import backend_names

from backends import parameters
from backends.numpy_backend import NumpyBackend
from bench.inputs import protocol
from bench.inputs.streams import TrainingStream, pixels_to_x
from bench.running import worker
from bench.running.messages import EVENT, EpochDone, Finished, Measured, Started, StateLeft, WorkerPlan
from bench.running.worker_environment import worker_environment
from bench.running.worker_io import send

pytestmark = pytest.mark.slow

FAST = {"measure__seconds_per_timing": 1e-3, "measure__sampling_batches": [1]}
BACKENDS = [name for name in ("numpy", "torch") if name in backend_names()]


def make_plan(folder, loaded, *, backend="numpy", round_=1, rounds=1, epochs=2):
    folder.mkdir(exist_ok=True)
    return WorkerPlan(
        protocol=loaded,
        backend=backend,
        device="cpu",
        precision="float32",
        mode="eager",
        seed=3,
        round=round_,
        rounds=rounds,
        epochs=epochs,
        state=str(folder / "state.safetensors"),
        best=str(folder / "best.safetensors"),
        weights=str(folder / "weights.safetensors"),
    )


def events_of(plan):
    """What the worker says, the last of it the status that it returns; the last state that it leaves is the plan's."""
    out = io.StringIO()
    status = send(worker.carry_out(plan), out)
    events = [EVENT.validate_json(line) for line in out.getvalue().splitlines()]
    assert events[-1].status == status
    for event in of(StateLeft, events):
        Path(event.path).replace(plan.state)
    return events


def smoke(**overrides):
    return protocol.load("smoke", **FAST, **overrides)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module", params=BACKENDS)
def worked(request, tmp_path_factory):
    """Two epochs in one round, and the same two in two rounds: (folder, events of each round) of both."""
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    one = events_of(make_plan(whole, smoke(training__rounds=1), backend=request.param))
    two = [
        events_of(make_plan(parts, smoke(), backend=request.param, round_=round_, rounds=2, epochs=1))
        for round_ in (1, 2)
    ]
    return (whole, [one]), (parts, two)


@pytest.fixture(scope="module")
def whole(worked):
    return worked[0][1][0]


def test_events_begin_with_a_start_and_end_well(whole):
    assert isinstance(whole[0], Started)
    assert (len(of(Started, whole)), len(of(Finished, whole))) == (1, 1)
    assert whole[-1].status == "ok"
    assert whole[-1].reason is None


def test_every_epoch_is_told_once_in_order(whole):
    assert [event.point.epoch for event in of(EpochDone, whole)] == [1, 2]


def test_nothing_is_compiled_before_trainings_first_call_but_what_the_probe_takes(whole):
    kinds = [event.measurement.measure if isinstance(event, Measured) else event.event for event in whole]
    assert kinds[:4] == ["started", "startup", "startup", "epoch"]


def test_the_first_call_is_cold_in_the_first_round_and_warm_in_the_next(worked):
    _, (_, rounds) = worked
    told = [
        [e.measurement.quantity for e in of(Measured, events) if "first_call" in e.measurement.quantity]
        for events in rounds
    ]
    assert told == [["first_call_seconds"], ["warm_first_call_seconds"]]


def test_losses_fall_and_are_told_per_step_for_the_first_epoch(whole):
    first, second = of(EpochDone, whole)
    assert len(first.first_epoch_losses) == 512 // 64
    assert np.mean(first.first_epoch_losses) == pytest.approx(first.point.train_loss, rel=1e-6)
    assert second.first_epoch_losses == []
    assert second.point.train_loss < first.point.train_loss
    assert second.point.test_loss < first.point.test_loss


def test_everything_is_measured(whole):
    measures = {event.measurement.measure for event in of(Measured, whole)}
    assert measures == {"startup", "agreement", "invertibility", "training", "floor", "calibration"} | {
        "likelihood",
        "sampling",
    }


def test_the_start_says_what_it_stands_on(whole):
    assert whole[0].precision.seen == "float32"
    assert set(whole[0].digests) == {"data", "initial_parameters"}
    assert whole[0].environment["framework"]


def test_the_digest_at_the_end_is_that_of_the_weights_on_disk(worked):
    (folder, [events]), _ = worked
    on_disk = parameters.load(folder / "weights.safetensors")[1]
    assert events[-1].digests == {"final_parameters": parameters.digest(on_disk)}


def test_training_has_moved_the_weights(whole):
    assert whole[0].digests["initial_parameters"] != whole[-1].digests["final_parameters"]


def test_two_rounds_of_an_epoch_end_with_the_same_bits_as_one_round_of_two(worked):
    (_, [one]), (_, [_, second]) = worked
    assert second[-1].digests["final_parameters"] == one[-1].digests["final_parameters"]


def test_two_rounds_tell_the_same_curve_as_one(worked):
    (_, [one]), (_, rounds) = worked
    points = [[event.point for event in of(EpochDone, events)] for events in (one, rounds[0] + rounds[1])]
    curves = [[(point.epoch, point.train_loss, point.test_loss) for point in told] for told in points]
    assert curves[0] == curves[1]


def test_initial_weights_are_measured_in_the_first_round_and_trained_ones_in_the_last(worked):
    _, (_, rounds) = worked
    weights = [
        {e.measurement.context["weights"] for e in of(Measured, events) if "weights" in e.measurement.context}
        for events in rounds
    ]
    assert weights == [{"initial"}, {"trained"}]


def test_the_likelihood_is_measured_in_the_last_round_only(worked):
    _, (_, rounds) = worked
    told = [any(e.measurement.measure == "likelihood" for e in of(Measured, events)) for events in rounds]
    assert told == [False, True]


# The best weights

UNNEEDED = (
    "agreement.compare",
    "agreement.trajectory",
    "calibration.measure",
    "floor.measure",
    "invertibility.measure",
    "invertibility.measure_couplings",
    "likelihood.measure",
    "sampling.measure",
    "floor.measure_forward",
)


@pytest.mark.parametrize("rounds", [(3,), (2, 1)], ids=["one round", "two rounds"])
@pytest.mark.parametrize(("keep", "epochs"), [("best", 2), ("last", 3)])
def test_the_weights_that_the_protocol_keeps_are_kept(tmp_path, monkeypatch, rounds, keep, epochs):
    test_losses = itertools.chain([5.0, 1.0, 3.0], itertools.repeat(9.0))
    monkeypatch.setattr(worker.likelihood, "test_loss", lambda *_: next(test_losses))
    for name in UNNEEDED:
        monkeypatch.setattr(f"bench.measures.{name}", lambda *_: iter(()))
    loaded = smoke(training__keep=keep, training__epochs=3, training__rounds=len(rounds))
    best = None
    for round_, now in enumerate(rounds, 1):
        plan = make_plan(tmp_path / "kept", loaded, round_=round_, rounds=len(rounds), epochs=now)
        events = events_of(plan.model_copy(update={"best_loss": best}))
        best = min(event.point.test_loss for event in of(EpochDone, events))
    kept = events[-1].digests
    plain = make_plan(tmp_path / "plain", smoke(training__epochs=epochs, training__rounds=1), epochs=epochs)
    assert kept["final_parameters"] == events_of(plain)[-1].digests["final_parameters"]


def test_where_only_the_training_counts_nothing_else_is_measured_and_the_weights_are_the_same(tmp_path):
    all_of_it = events_of(make_plan(tmp_path / "all", smoke(training__rounds=1)))
    out = io.StringIO()
    plan = make_plan(tmp_path / "only", smoke(training__rounds=1))
    send(worker.carry_out(plan, training_only=True), out)
    events = [EVENT.validate_json(line) for line in out.getvalue().splitlines()]
    measures = {event.measurement.measure for event in of(Measured, events)}
    assert measures == {"startup", "training", "floor", "calibration"}
    assert events[-1].digests == all_of_it[-1].digests != {}


# Failing


def test_a_model_that_passes_the_flow_otherwise_than_the_reference_has_failed(tmp_path, monkeypatch):
    for method, quantity in (("_encode", "z"), ("_decode", "decode")):
        with monkeypatch.context() as patched:
            patched.setattr(NumpyBackend, method, off_by_a_thousandth(getattr(NumpyBackend, method)))
            events = events_of(make_plan(tmp_path / quantity, smoke(training__rounds=1)))
        assert events[-1].status == "failed"
        told = f"{quantity} at the initial weights is off by 1.0e-03 from the float64 reference, more than the "
        assert events[-1].reason.startswith(told)
        assert "trajectory_update" in {event.measurement.quantity for event in of(Measured, events)}


def off_by_a_thousandth(method):
    def wrong(self, x):
        found = method(self, x)
        if self.precision == "float64":  # the reference
            return found
        factor = np.float32(1.001)
        return (found[0] * factor, found[1]) if isinstance(found, tuple) else found * factor

    return wrong


def test_a_model_that_trains_otherwise_than_the_reference_has_failed(tmp_path, monkeypatch):
    make = NumpyBackend._training

    def faster(self, images, optimiser, pixels):
        rate = 1.05 if self.precision == "float32" else 1.0
        return make(self, images, dataclasses.replace(optimiser, learning_rate=rate * optimiser.learning_rate), pixels)

    monkeypatch.setattr(NumpyBackend, "_training", faster)
    finished = events_of(make_plan(tmp_path, smoke(training__rounds=1)))[-1]
    assert finished.status == "failed"
    assert finished.reason.startswith("trajectory_update at the initial weights is off by ")


def test_without_a_test_loss_that_is_a_number_there_are_no_best_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.likelihood, "test_loss", lambda *_: math.nan)
    loaded = smoke(training__keep="best", training__epochs=1, training__rounds=1)
    finished = events_of(make_plan(tmp_path, loaded, epochs=1))[-1]
    assert (finished.status, finished.reason) == (
        "diverged",
        "no test loss was a number, so that no weights are the best",
    )


def test_more_images_than_there_are_is_a_failure_that_says_so(tmp_path):
    [finished] = events_of(make_plan(tmp_path, smoke(data__train=600)))
    assert finished.status == "failed"
    assert finished.reason.endswith("data.train and data.validation ask for 600 + 0 images; mnist-subset has 512")


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_a_learning_rate_that_is_too_large_is_a_divergence_at_an_epoch_and_a_step(tmp_path):
    events = events_of(make_plan(tmp_path, smoke(optimiser__learning_rate=1e30)))
    assert events[-1].status == "diverged"
    losses = of(EpochDone, events)[0].first_epoch_losses
    step = losses.index(None) + 1
    assert step > 1
    assert events[-1].reason in {f"loss is {what} at step {step} of epoch 1" for what in ("nan", "inf")}


def test_an_unknown_mode_is_a_failure_that_names_those_there_are(tmp_path):
    [finished] = events_of(make_plan(tmp_path, smoke()).model_copy(update={"mode": "warp"}))
    assert (finished.status, finished.reason) == ("failed", "ValueError: mode is 'warp'; numpy has ('eager',)")


def test_a_precision_that_the_backend_lacks_is_unavailable(tmp_path):
    [finished] = events_of(make_plan(tmp_path, smoke()).model_copy(update={"precision": "tf32"}))
    assert finished.status == "unavailable"
    assert finished.reason == "numpy: no precision tf32 on device cpu; it has float64, float32"


@pytest.mark.parametrize("batch", [384, 512])
def test_a_batch_of_more_than_half_the_images_can_be_used(tmp_path, batch):
    assert events_of(make_plan(tmp_path, smoke(training__batch=batch)))[-1].status == "ok"


# In a process


def test_nothing_but_events_leaves_on_standard_output(tmp_path):
    plan = make_plan(tmp_path, smoke(training__rounds=1), backend="chatty")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("faulty_worker.py")), "chatty"],
        input=plan.model_dump_json(),
        env=worker_environment("numpy", sys.executable, "cpu"),
        capture_output=True,
        text=True,
        check=True,
    )
    events = [EVENT.validate_json(line) for line in done.stdout.splitlines()]
    assert isinstance(events[-1], Finished)
    assert done.stderr.count("from Python") == done.stderr.count("from a library") == 2


# Averaged weights

RECIPE = {
    "architecture": {"preset": "paper", "couplings": 2, "hidden_layers": 1, "hidden_units": 8}
    | {"reorder": "none", "permutation": "shuffle", "permute": "before"},
    "pixels": {"divisor": 256.0, "training_noise": 0.00390625, "evaluation_noise": 0.00390625},
    "initial": {"kernels": "he_normal", "log_scale": "data", "permutations": "patterns"},
    "optimiser": {"name": "adamw", "warmup_steps": 2, "average": 0.9},
}


def test_the_average_of_the_weights_is_what_is_selected_on_kept_and_measured(tmp_path):
    entries = smoke().model_dump() | RECIPE
    entries["training"] |= {"loss": "nll", "target_of": "selection", "rounds": 1}
    plan = make_plan(tmp_path, protocol.validate(entries, source="test"))
    events = events_of(plan)
    model, _ = worker.model_of(plan)
    images, pixels = worker.Images.of(plan.protocol), plan.protocol.training_pixels()
    stream = TrainingStream(plan.seed, len(images.train), 784, plan.protocol.training.batch, pixels)
    list(model.train(images.train, plan.protocol.make_optimiser(), stream, plan.epochs))
    x = pixels_to_x(images.select, plan.protocol.evaluation_pixels(), plan.seed)
    raw, average = model.parameters(), model.training_state().moments["average"]
    kept = parameters.load(plan.weights)[1]
    assert all(np.array_equal(kept[name], average[name]) for name in average)
    assert not np.array_equal(kept["log_scale"], raw["log_scale"])
    with model.averaged():
        expected = -float(model.log_prob(x).mean())
    assert of(EpochDone, events)[-1].point.test_loss == pytest.approx(expected, rel=1e-6)
    found = {e.measurement.quantity: e.measurement.value for e in of(Measured, events)}
    test = pixels_to_x(images.test, worker.likelihood.DEQUANTISED, plan.seed)
    assert found["log_likelihood_without_average"] == pytest.approx(float(model.log_prob(test).mean()), rel=1e-6)
