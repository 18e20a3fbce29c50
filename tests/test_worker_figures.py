"""What the worker reports of a training, and on which images: against figures worked out by hand.

The model trains in no time, by a clock that moves only when it says so: epochs of 1, 9 and 2 s, a first call of 30 s,
an evaluation of 100 s after each epoch, and half a second of the harness' own before each.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from factories import SMALL, assert_same_bits, create, images

from backends import EpochReport, Nodes, Pixels, parameters
from bench.inputs import data, protocol
from bench.inputs.streams import TrainingStream, initial_parameters, pixels_to_x
from bench.records import Measurement
from bench.running import worker
from bench.running.messages import EpochDone, WorkerPlan

CONSTANT = 6 * np.log(2 * np.pi)  # ½ D log 2π
SECONDS, WAITS = [1.0, 9.0, 2.0], [0.75, 0.1, 1.0]
LOSSES = [[6.0, 3.0, 3.0], [4.0, 1.0, 1.0], [1.0, 2.5, 1.0]]
SELECT, TEST = 51, 255  # the one grey level of what is selected on, and of the test set


class Trained:
    """A model that trains as the constants above say; its test loss is that of the epoch, plus the first pixel."""

    dtype, architecture, replicas = np.dtype("float32"), SMALL, 1

    def __init__(self, test_losses=(7.0, 6.0, 6.5)):
        self.now, self.epoch, self.test_losses = 1000.0, 0, test_losses
        self.is_average, self.seen = False, []

    def train(self, images, optimiser, stream, epochs):
        for epoch in range(1, epochs + 1):
            first_call = 30.0 if epoch == 1 else 0.0
            self.now += first_call + SECONDS[epoch - 1] + 0.5
            self.epoch = epoch
            losses = np.array(LOSSES[epoch - 1])
            yield EpochReport(epoch, losses, SECONDS[epoch - 1], first_call, WAITS[epoch - 1])

    @contextmanager
    def averaged(self):
        self.is_average = True
        yield
        self.is_average = False

    def log_prob(self, x):
        self.now += 100.0
        self.seen.append((self.is_average, x))
        return -(self.test_losses[self.epoch - 1] + x[:, 0])

    def parameters(self):
        return {"epoch": self.epoch}


class Others:
    """What others used of the cores: in the epochs 10 and 40 % and in one nobody knows, and all of them between."""

    def __init__(self, device, devices):
        assert (device, devices) == ("cpu", 1)
        self.shares = iter([0.1, 1.0, 0.4, 1.0, None, 1.0])

    def share(self):
        return next(self.shares)


def plan_of(round_=1, best_loss=None, **overrides):
    return WorkerPlan(
        protocol=protocol.load("smoke", **{"training__loss": "nll", "training__target_of": "selection", **overrides}),
        backend="numpy",
        device="cpu",
        precision="float32",
        mode=None,
        seed=3,
        round=round_,
        rounds=1,
        epochs=3,
        state="",
        best="",
        best_loss=best_loss,
        weights="",
    )


def trained(monkeypatch, model=None, **options):
    """The epochs that the worker reports, quantity → measurement, and the weights that it calls the best."""
    model = model or Trained()
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: model.now))
    monkeypatch.setattr(worker.disturbance, "Others", Others)
    of = {name: np.full((4, 12), level, np.uint8) for name, level in (("select", SELECT), ("test", TEST))}
    given = worker.Images(images(11), **of, digest="")
    leaving = SimpleNamespace(best=None, between_epochs=lambda: iter(()))
    stream = TrainingStream(3, 11, 12, 5, Pixels(1))
    events = list(worker._train(model, given, stream, plan_of(**options), leaving))
    figures = {event.quantity: event for event in events if isinstance(event, Measurement)}
    return [event for event in events if isinstance(event, EpochDone)], figures, leaving.best


@pytest.mark.parametrize(
    ("quantity", "value", "n"),
    [
        ("first_call_seconds", 30.0, None),
        ("seconds_per_epoch", 2.0, 3),  # the median
        ("images_per_second", 2 * 5 / 2.0, 3),  # of 11 images one is left out of each epoch
        ("harness_fraction", 1.5 / 13.5, 3),
        ("others_share", (0.1 * 1 + 0.4 * 9) / 10, 2),
        ("wait_fraction", (0.1 + 1.0) / (9 + 2), 2),  # the first epoch's inputs were made before its clock
    ],
)
def test_figures_of_the_epochs_are_those_of_a_calculation_by_hand(monkeypatch, quantity, value, n):
    _, figures, _ = trained(monkeypatch)
    found = figures[quantity]
    assert (found.value, found.n, found.context) == (pytest.approx(value), n, {"round": 1})


def test_a_later_rounds_first_call_is_warm(monkeypatch):
    figures = trained(monkeypatch, round_=2)[1]
    assert "first_call_seconds" not in figures
    assert figures["warm_first_call_seconds"].value == 30.0
    assert {found.context["round"] for found in figures.values()} == {2}


def test_each_epoch_says_what_others_used_meanwhile(monkeypatch):
    assert [event.point.others for event in trained(monkeypatch)[0]] == [0.1, 0.4, None]


def test_where_nobody_knows_what_others_used_nothing_is_said(monkeypatch):
    monkeypatch.setattr(Others, "share", lambda self: None)
    assert "others_share" not in trained(monkeypatch)[1]


def test_devices_side_by_side_exchange_every_gradient_once_a_step(monkeypatch):
    model = Trained()
    assert "reduced_bytes" not in trained(monkeypatch, model)[1]
    model.replicas = 2
    numbers = 3 * (6 * 7 + 7 + 7 * 7 + 7 + 7 * 6 + 6) + 12
    found = trained(monkeypatch, model)[1]["reduced_bytes"]
    assert (found.value, found.context) == (4 * numbers, {"round": 1})


@pytest.mark.parametrize(("loss", "constant"), [("nll", 0.0), ("article", CONSTANT)])
def test_an_epochs_losses_are_its_mean_and_that_of_what_is_selected_on(monkeypatch, loss, constant):
    told, _, _ = trained(monkeypatch, training__loss=loss)
    points = [event.point for event in told]
    assert [point.epoch for point in points] == [1, 2, 3]
    assert [point.seconds for point in points] == SECONDS
    assert [point.train_loss + constant for point in points] == pytest.approx([4.0, 2.0, 1.5])
    assert [point.test_loss + constant for point in points] == pytest.approx([7.2, 6.2, 6.7])  # 51/255 is 0.2
    assert told[0].first_epoch_losses == pytest.approx([loss - constant for loss in LOSSES[0]])
    assert [event.first_epoch_losses for event in told[1:]] == [[], []]


NOISY = {"pixels__training_noise": 0.25, "pixels__evaluation_noise": 0.5}


def test_what_is_selected_on_is_evaluated_by_the_average_with_the_runs_noise_in_the_models_precision(monkeypatch):
    model = Trained()
    trained(monkeypatch, model, **NOISY)
    expected = pixels_to_x(np.full((4, 12), SELECT, np.uint8), Pixels(1 / 255, 0.5), 3).astype(np.float32)
    assert len(model.seen) == 3
    for is_average, x in model.seen:
        assert is_average
        assert x.dtype == np.float32
        assert np.array_equal(x, expected)


@pytest.mark.parametrize(
    ("test_losses", "before", "best"),
    [
        ((7.0, 6.0, 6.5), None, 2),
        ((7.0, 6.0, 6.0 + 1e-6), None, 2),
        ((7.0, 6.0, 6.0), None, 2),
        ((7.0, 6.0, 6.0 - 1e-6), None, 3),
        ((5.0, np.nan, 6.0), None, 1),
        ((7.0, -np.inf, 6.5), None, 3),
        ((7.0, 6.0, 6.5), 6.1, None),  # 6.2 with the pixel: a round before was better
        ((7.0, 6.0, 6.5), 6.3, 2),
    ],
)
def test_the_best_weights_are_those_of_the_first_lowest_loss_of_all_rounds(monkeypatch, test_losses, before, best):
    options = {"training__keep": "best", "best_loss": before}
    assert trained(monkeypatch, Trained(test_losses), **options)[2] == (best and {"epoch": best})


def test_no_weights_are_the_best_where_the_last_are_kept(monkeypatch):
    assert trained(monkeypatch)[2] is None


# Which images


@pytest.mark.parametrize("select", ["validation", "test"])
def test_training_takes_the_first_images_and_validation_the_last(select):
    rule = {"data__train": 300, "data__validation": 64, "data__select": select}
    found, whole = worker.Images.of(protocol.load("smoke", **rule)), data.load("mnist-subset")
    assert np.array_equal(found.train, whole.train_images[:300])
    assert np.array_equal(found.select, whole.train_images[448:] if select == "validation" else whole.test_images)
    assert np.array_equal(found.test, whole.test_images)
    assert found.digest == whole.digest


def test_what_is_validated_on_is_never_trained_on():
    rule = {"data__train": 449, "data__validation": 64, "data__select": "validation"}
    with pytest.raises(data.DataError, match=r"ask for 449 \+ 64 images; mnist-subset has 512"):
        worker.Images.of(protocol.load("smoke", **rule))


@pytest.fixture
def seen(monkeypatch):
    """Name of a measure → what it was last called with; nothing is measured. The model's weights come last."""
    calls = {}
    for name in (
        "agreement.compare",
        "agreement.trajectory",
        "invertibility.measure",
        "invertibility.measure_couplings",
        "likelihood.measure",
        "sampling.measure",
        "floor.measure_forward",
    ):

        def call(model, *arguments, name=name):
            calls[name] = (*arguments, model.parameters()["log_scale"][0])
            return iter(())

        monkeypatch.setattr(f"bench.measures.{name}", call)
    return calls


def by_level():
    """Images that tell by their grey level what they are for: 1 to train on, 2 to select on, 3 to test."""
    return worker.Images(*(np.full((200, 784), level, np.uint8) for level in (1, 2, 3)), digest="")


MEASURE = {"measure__invertibility_images": 7, "measure__agreement_images": 5, "measure__agreement_steps": 2}


def measured_on(x):
    return x.shape, set((x * 255).round(6).ravel().tolist())


def test_trained_weights_are_measured_on_the_test_set(seen):
    plan = plan_of(**MEASURE)
    list(worker._at_the_end(worker.model_of(plan)[0], by_level(), plan))
    assert measured_on(seen["agreement.compare"][0]) == ((5, 784), {3.0})
    assert measured_on(seen["invertibility.measure"][0]) == ((7, 784), {3.0})
    assert measured_on(seen["invertibility.measure_couplings"][0]) == ((7, 784), {3.0})
    assert np.array_equal(seen["likelihood.measure"][0], by_level().test)
    stages = ("agreement.compare", "invertibility.measure", "invertibility.measure_couplings")
    assert [seen[name][1] for name in stages] == ["trained"] * 3
    assert seen["likelihood.measure"][1] is plan.protocol
    assert [seen[name][0] for name in ("sampling.measure", "floor.measure_forward")] == [plan.protocol] * 2


def test_initial_weights_are_measured_on_the_test_set_and_trained_ones_come_back(seen):
    plan = plan_of(training__batch=64, **MEASURE)
    model, initial = worker.model_of(plan)
    moved = parameters.rounded(initial, "float32") | {"log_scale": initial["log_scale"] + np.float32(1)}
    model.resume(worker.TrainingState(moved))
    given = by_level()
    given.train[:, 0] = np.arange(200)
    list(worker._at_the_start(model, given, plan))
    assert measured_on(seen["agreement.compare"][0]) == ((5, 784), {3.0})
    assert measured_on(seen["invertibility.measure"][0]) == ((7, 784), {3.0})
    start, few, *_ = seen["agreement.trajectory"]
    assert_same_bits(start, parameters.rounded(initial, "float32"))
    assert np.array_equal(few.reshape(128, 784), given.train[:128])
    for name in ("agreement.compare", "invertibility.measure"):
        assert seen[name][1] == "initial"
        assert seen[name][-1] == initial["log_scale"][0]
    assert np.array_equal(model.parameters()["log_scale"], moved["log_scale"])


def test_all_that_is_found_at_the_start_is_told_and_held_against_its_rounding(monkeypatch, seen):
    found = {name: Measurement.of("agreement", name, 0.0, "relative") for name in ("compare", "trajectory")}
    for name, measurement in found.items():
        monkeypatch.setattr(worker.agreement, name, lambda *_, measurement=measurement: iter([measurement]))
    held = []
    monkeypatch.setattr(worker.agreement, "refuse", lambda *given: held.append(given))
    plan = plan_of(training__batch=64)
    assert list(worker._at_the_start(worker.model_of(plan)[0], by_level(), plan)) == [*found.values()]
    architecture = plan.protocol.make_architecture()
    assert held == [([*found.values()], worker.Rounding(architecture, "float32", 64))]


DATA_DEPENDENT = {
    "architecture__output": "linear",
    "architecture__permutation": "shuffle",
    "architecture__permute": "before",
    "architecture__reorder": "none",
    "architecture__split": "halves",
    "initial__kernels": "he_normal",
    "initial__log_scale": "data",
    "initial__permutations": "patterns",
    "pixels__training_noise": 1 / 256,
}


@pytest.mark.parametrize("permutations", ["patterns", "shuffled"])
def test_initial_weights_are_those_of_the_protocols_rules_and_training_images(permutations):
    plan = plan_of(**DATA_DEPENDENT | {"initial__permutations": permutations})
    given = data.load("mnist-subset").train_images, plan.protocol.training_pixels()
    architecture = plan.protocol.make_architecture()
    assert_same_bits(
        worker.model_of(plan)[1], initial_parameters(architecture, 3, "he_normal", "data", permutations, given)
    )


def test_a_model_is_made_for_the_devices_and_nodes_of_the_plan(monkeypatch):
    monkeypatch.setattr(WorkerPlan, "model", lambda self, architecture, initial, **given: given)
    nodes = Nodes(("a:1", "b:2"), 1)
    made, _ = worker.model_of(plan_of().model_copy(update={"devices": 4, "nodes": nodes}))
    assert made == {"replicas": 4, "nodes": nodes}


def test_both_are_measured_with_the_noise_of_the_protocol_and_the_run(seen):
    plan = plan_of(**MEASURE, **NOISY)
    model = worker.model_of(plan)[0]
    x = pixels_to_x(by_level().test, Pixels(1 / 255, 0.5), 3)
    for stage in (worker._at_the_start, worker._at_the_end):
        list(stage(model, by_level(), plan))
        assert np.array_equal(seen["agreement.compare"][0], x[:5])
        assert np.array_equal(seen["invertibility.measure"][0], x[:7])
        assert seen["invertibility.measure"][2] == 3
    _, _, optimiser, pixels, seed, _ = seen["agreement.trajectory"]
    assert (optimiser, pixels, seed) == (plan.protocol.make_optimiser(), Pixels(1 / 255, 0.25), 3)
    assert seen["likelihood.measure"][2] == 3


def test_the_start_is_held_in_the_precision_of_the_model(seen):
    plan = plan_of().model_copy(update={"precision": "float64"})
    list(worker._at_the_start(worker.model_of(plan)[0], by_level(), plan))
    assert {array.dtype for array in seen["agreement.trajectory"][0].values()} == {np.dtype("float64")}


def test_a_few_steps_take_no_more_images_than_there_are(seen):
    plan = plan_of(training__batch=150, measure__agreement_steps=2)
    list(worker._at_the_start(worker.model_of(plan)[0], by_level(), plan))
    assert seen["agreement.trajectory"][1].shape == (1, 150, 784)


# What the device is asked to do


@pytest.mark.parametrize(("operation", "expected"), [("encode", 0), ("log_prob", None)])
def test_a_workload_is_the_operation_on_a_batch(operation, expected):
    model = create("numpy")
    found = model.workload(operation, 5)()
    x = np.linspace(-0.5, 0.5, 60).reshape(5, 12)
    whole = getattr(model, operation)(x)
    pair = (found, whole) if expected is None else (found[expected], whole[expected])
    assert np.array_equal(*pair)


@pytest.mark.parametrize("options", [{}, {"training_only": True}])
def test_a_worker_serves_the_plan_that_it_is_given(monkeypatch, options):
    monkeypatch.setattr(worker, "serve", lambda kind, carry_out: (kind, carry_out("a plan")))
    monkeypatch.setattr(worker, "carry_out", lambda plan, *, training_only: (plan, training_only))
    assert worker.main(**options) == (WorkerPlan, ("a plan", bool(options)))
