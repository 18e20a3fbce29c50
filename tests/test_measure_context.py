"""What figures are called and are of: tables and comparisons find them by measure, quantity, unit and context."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from factories import SMALL, create, images, rows, shared, weights

from backends import Adam, Pixels
from backends.numpy_backend import NumpyBackend
from bench.inputs import protocol
from bench.inputs.protocol import Point
from bench.measures import agreement, calibration, floor, invertibility, likelihood, resources, sampling, sweep
from bench.measures.floor import numpy_workloads
from bench.measures.timing import Timing

QUICK = protocol.load("smoke", measure__dequantisation_draws=4, measure__seconds_per_timing=1e-9)
BLOCKS = 3  # of a timing that has no time


def named(measurements):
    """Quantity → measure, unit, number of observations and context; each quantity is there once."""
    listed = [*measurements]
    found = {m.quantity: (m.measure, m.unit, m.n, m.context) for m in listed}
    assert len(found) == len(listed)
    return found


def test_errors_against_the_reference():
    found = named(agreement.compare(shared("numpy"), rows(SMALL), "trained"))
    of = ("agreement", "relative", None, {"weights": "trained"})
    assert found == dict.fromkeys(("z", "log_det", "log_prob", "decode", "gradient"), of)


def test_errors_of_a_few_steps():
    bytes_ = images(12).reshape(3, 4, 12)
    found = named(agreement.trajectory(create("numpy"), weights(SMALL), bytes_, Adam(), Pixels(1 / 255), 0))
    of = ("agreement", "relative", 3, {"weights": "initial"})
    assert found == dict.fromkeys(("trajectory_loss", "trajectory_update"), of)


def test_calibration():
    found = named(calibration.measure(SimpleNamespace(device="cpu", synchronise=lambda *_: None), 1e-9, 4))
    assert found == {"product_seconds": ("calibration", "s", None, {"round": 4})}


def test_round_trips():
    found = [*invertibility.measure(shared("numpy"), rows(SMALL), "trained", 0)]
    units = {(m.measure, m.quantity, m.unit) for m in found}
    assert units == {
        ("invertibility", "max_error", "grey levels"),
        ("invertibility", "rms_error", "grey levels"),
        ("invertibility", "ulp_error", "ULP"),
        ("invertibility", "log_prob_change", "nats"),
    }
    starts = ("test", "uniform noise", "10 times out of range", "100 times out of range")
    ways = [(direction, trips) for direction in ("x-z-x", "z-x-z") for trips in (1, 3, 9)]
    expected = [
        {"weights": "trained", "inputs": start, "direction": direction, "trips": trips}
        for start in starts
        for direction, trips in ways
    ]
    assert [m.context for m in found if m.quantity == "rms_error"] == expected
    changes = [m.context for m in found if m.quantity == "log_prob_change"]
    assert changes == [context for context in expected if (context["direction"], context["trips"]) == ("x-z-x", 1)]


class Made(NumpyBackend):
    """The reference, which keeps how each is made."""

    asked: list[dict] = []  # noqa: RUF012 (emptied by the test)

    def __init__(self, architecture, parameters, **options):
        self.asked.append(options)
        super().__init__(architecture, parameters, **options | {"device": "cpu", "mode": None})
        self.device, self.mode = options["device"], options["mode"]


def test_couplings_alone_are_of_the_models_own_device_precision_and_mode():
    as_the_model = {"device": "gpu", "precision": "float64", "mode": "compiled"}
    model = Made(SMALL, weights(SMALL), **as_the_model)
    Made.asked.clear()
    found = [*invertibility.measure_couplings(model, rows(SMALL), "trained")]
    assert Made.asked == [as_the_model] * 3
    of = {"weights": "trained", "inputs": "test", "direction": "x-z-x", "trips": 1}
    assert [m.context for m in found if m.quantity == "ulp_error"] == [of | {"coupling": k} for k in range(3)]


def test_a_coupling_starts_from_what_its_precision_can_hold():
    def perfect(x):
        return np.asarray(x, np.float32)

    alone = SimpleNamespace(dtype=np.dtype("float32"), encode=lambda x: (perfect(x), None), decode=perfect)
    found = invertibility.measure_coupling(alone, np.full((2, 4), 0.1), "trained", 1)
    assert {m.value for m in found} == {0.0}


def test_likelihoods():
    assert named(likelihood.measure(shared("numpy"), images(), QUICK, 5)) == {
        "test_loss": ("likelihood", "nats", None, {}),
        "dequantised_log_likelihood": ("likelihood", "nats", 4, {}),
        "bits_per_dim": ("likelihood", "bits", 4, {}),
        "images_per_second": ("likelihood", "images/s", BLOCKS, {"batch": 22}),
    }


def test_floors(monkeypatch):
    monkeypatch.setattr(floor, "MEMORY_BYTES", 2**10)
    model = create("numpy")
    units = {"product_rate": "FLOP/s", "bandwidth": "B/s", "products_seconds": "s", "bytes_seconds": "s"}
    units |= {"train_step_seconds": "s", "train_epoch_seconds": "s", "chain_seconds": "s"}
    found = named(floor.measure(model, QUICK, 8, 4))
    assert found == {quantity: ("floor", unit, None, {"round": 4}) for quantity, unit in units.items()}
    model.replicas = 2
    monkeypatch.setattr(numpy_workloads, "reducing", lambda *_: contextlib.nullcontext(lambda: None), raising=False)
    shared_out = named(floor.measure(model, QUICK, 8, 4))
    assert shared_out == found | {"reduction_seconds": ("floor", "s", None, {"round": 4})}
    passes = [(m.measure, m.quantity, m.unit, m.context) for m in floor.measure_forward(model, QUICK)]
    assert passes == [("floor", "forward_seconds", "s", {"batch": batch}) for batch in (1, 64)]


def test_a_backend_that_names_no_bare_products_has_no_floor():
    model = create("numpy")
    model.workloads = None
    (found,) = floor.measure(model, QUICK, 8, 4)
    assert (found.measure, found.quantity, found.value, found.unit, found.context) == (
        "floor",
        "train_step_seconds",
        None,
        "s",
        {"round": 4},
    )
    assert found.note
    assert [*floor.measure_forward(model, QUICK)] == []


def test_memory():
    found = named(resources.memory(SimpleNamespace(peak_memory=lambda: 3000), before=0, least=1000, round_=4))
    of = {"peak_memory": "bytes", "training_memory": "bytes", "training_memory_ratio": "1"}
    assert found == {quantity: ("training", unit, None, {"round": 4}) for quantity, unit in of.items()}


@pytest.mark.parametrize(("longest", "n"), [(60.0, BLOCKS), (1e-12, None)])
def test_samples_that_were_timed_and_that_were_left_out(longest, n):
    loaded = QUICK.model_copy(update={"measure": QUICK.measure.model_copy(update={"longest_call_seconds": longest})})
    found = [m for m in sampling.measure(create("numpy"), loaded) if m.context == {"batch": 64}]
    assert named(found) == {
        "samples_per_second": ("sampling", "samples/s", n, {"batch": 64}),
        "latency": ("sampling", "s", n, {"batch": 64}),
    }


@pytest.mark.parametrize("operation", ["log_prob", "train"])
def test_points_of_a_sweep(operation):
    model = create("numpy", QUICK.make_architecture())
    at = {"axis": "batch", "value": 16, "operation": operation}
    found = named(sweep.measure(model, QUICK, Point(**at), rate=None, seconds=1e-9))
    units = {"seconds": "s", "examples_per_second": "examples/s", "flop_rate": "FLOP/s"}
    assert found == {quantity: ("sweep", unit, BLOCKS, at) for quantity, unit in units.items()}
    left_out = sweep.left_out(Point(**at), "why")
    assert (left_out.measure, left_out.quantity, left_out.unit, left_out.value) == ("sweep", "seconds", "s", None)
    assert (left_out.note, left_out.context) == ("why", at)


def test_what_a_point_takes_of_memory_is_its_numbers_and_its_activations():
    numbers = SMALL.trainable_count
    assert sweep.memory(SMALL, 5, "train", 4) == 4 * (10 * numbers + 5 * (3 * 2 * 7 + 6 * 12))
    assert sweep.memory(SMALL, 5, "sample", 8) == 8 * (4 * numbers + 5 * (2 * 7 + 6 * 12))


def test_the_work_of_a_point_is_that_of_its_products():
    forward = 3 * (6 * 7 + 7 * 7 + 7 * 6)
    assert sweep.cost(SMALL, 5, "log_prob") == 2 * 5 * forward
    assert sweep.cost(SMALL, 5, "train") == 2 * 5 * (3 * forward - 6 * 7)


def test_a_trained_point_is_of_random_images_that_use_every_byte(monkeypatch):
    seen = []
    monkeypatch.setattr(
        NumpyBackend, "train", lambda self, given, *rest: seen.append((given, *rest)) or (_ for _ in ())
    )
    model = create("numpy")
    with sweep._training(model, QUICK, 64, 30):
        pass
    given, optimiser, stream, _ = seen[0]
    assert (given.shape, given.dtype) == ((1920, 12), np.uint8)
    assert len(np.unique(given)) == 256
    assert (optimiser, stream.batch, stream.steps, stream.dim) == (QUICK.make_optimiser(), 64, 30, 12)
    assert stream.pixels == QUICK.training_pixels()


@pytest.mark.parametrize(
    ("expected", "steps"), [(0.05, 4), (0.2, 1), (9.0, 1), (1e-9, sweep.MOST_STEPS), (0.2 / 512, sweep.MOST_STEPS)]
)
def test_a_call_has_steps_for_a_fifth_of_a_second_after_a_trial_that_is_as_short_as_can_be(
    monkeypatch, expected, steps
):
    asked = []

    def time_calls(model, call, budget):
        asked.append((len(call().losses), budget))
        return Timing(expected, 0.5 * expected, 2 * expected, 5, 0.25 * expected)

    monkeypatch.setattr(sweep, "time_calls", time_calls)
    tiny = QUICK.model_copy(update={"training": QUICK.training.model_copy(update={"batch": 2})})
    found = sweep._time_training(create("numpy"), tiny, 2, None, 7.0)
    assert asked == [(1, 0.0), (steps, 7.0)]
    assert found == Timing(expected / steps, 0.5 * expected / steps, 2 * expected / steps, 5, 0.25 * expected / steps)
