"""The measures: each figure against one worked out by hand, on models whose faults are known."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from factories import PAPER, SHUFFLED, SMALL, backend_names, create, images, rows, shared, weights
from scipy.stats import multivariate_normal

from backends import Adam, Pixels
from backends.numpy_backend import NumpyBackend
from bench.errors import DisagreesError
from bench.inputs import protocol
from bench.inputs.streams import pixels_to_x, uniforms
from bench.measures import agreement, calibration, invertibility, likelihood, precision
from bench.measures.rounding import PRODUCT_BITS
from bench.measures.timing import Timing
from bench.records import Measurement

SMOKE = protocol.load("smoke", measure__dequantisation_draws=3, measure__seconds_per_timing=1e-9)


def values(measurements):
    """quantity → value, of measurements that name each quantity once."""
    listed = [(m.quantity, m.value) for m in measurements]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


# Likelihood


def test_bits_per_dim_of_the_papers_figure():
    assert likelihood.bits_per_dim(1980.50, 784) == pytest.approx(4.35554, abs=5e-6)


def test_uniform_noise_takes_8_bits_a_dimension():
    assert likelihood.bits_per_dim(0.0, 784) == pytest.approx(8)


def test_the_articles_loss_leaves_a_constant_out():
    assert likelihood.reported_loss(0.0, 784, "article") == pytest.approx(-720.4478, abs=1e-4)


def test_the_papers_loss_is_the_negative_log_likelihood():
    assert likelihood.reported_loss(-1980.5, 784, "nll") == -1980.5


@pytest.mark.parametrize("count", [1, likelihood.CHUNK - 1, likelihood.CHUNK + 7])
def test_the_mean_over_chunks_is_the_mean_over_all(count):
    model, x = shared("numpy"), rows(SMALL, count)
    assert likelihood.mean_log_prob(model, x) == pytest.approx(model.log_prob(x).mean(), rel=1e-13)


@pytest.mark.parametrize(("loss", "constant"), [("article", 6 * math.log(2 * math.pi)), ("nll", 0.0)])
def test_the_test_loss_is_reported_as_the_protocol_says(loss, constant):
    model, x = shared("numpy"), images() / 255
    found = likelihood.test_loss(model, x, protocol.load("smoke", training__loss=loss, training__target_of="selection"))
    assert found == pytest.approx(-model.log_prob(x).mean() - constant)


def test_the_test_loss_is_evaluated_on_the_protocols_own_pixels():
    model = shared("numpy")
    loaded = protocol.load("smoke", pixels__evaluation_noise=0.5, measure__seconds_per_timing=1e-9)
    expected = likelihood.test_loss(model, pixels_to_x(images(), Pixels(1 / 255, 0.5), seed=5), loaded)
    found = {m.quantity: m.value for m in likelihood.measure(model, images(), loaded, 5)}
    assert found["test_loss"] == pytest.approx(expected, rel=1e-14)


def test_dequantised_log_likelihood_is_a_mean_over_draws_with_its_standard_error():
    model = shared("numpy")
    draws = [model.log_prob(pixels_to_x(images(), Pixels(1 / 256, 1 / 256), 5, draw)).mean() for draw in range(3)]
    mean = sum(draws) / 3
    error = math.sqrt(sum((draw - mean) ** 2 for draw in draws) / 2 / 3)
    found = {m.quantity: m for m in likelihood.measure(model, images(), SMOKE, 5)}
    figure = found["dequantised_log_likelihood"]
    assert (figure.value, figure.low, figure.high) == pytest.approx((mean, mean - error, mean + error), rel=1e-13)
    assert (figure.n, figure.unit) == (3, "nats")
    assert found["bits_per_dim"].value == pytest.approx(8 - mean / 12 / math.log(2))


def test_log_likelihood_of_a_flow_that_only_scales_is_that_of_a_normal():
    architecture = replace(SMALL, permutation="none")
    arrays = {name: np.zeros_like(array) for name, array in weights(architecture).items()}
    arrays["log_scale"] = np.linspace(-1, 1, 12)
    model, x = NumpyBackend(architecture, arrays, precision="float64"), rows(architecture)
    normal = multivariate_normal(np.zeros(12), np.diag(np.exp(-2 * arrays["log_scale"])))
    assert likelihood.mean_log_prob(model, x) == pytest.approx(normal.logpdf(x).mean(), rel=1e-12)


# Invertibility


class Doubling:
    """z = 2x, with a generator that is off by what a test wants."""

    dtype = np.dtype("float32")

    def __init__(self, offset=0.0):
        self.offset = np.asarray(offset, np.float32)

    def encode(self, x):
        return 2 * x, np.zeros(len(x))

    def decode(self, z):
        return z / 2 + self.offset

    def log_prob(self, x):
        return x.sum(axis=1)


def test_a_perfect_inverse_has_no_error_anywhere():
    found = list(invertibility.measure(Doubling(), rows(SMALL), "initial", 0))
    assert len(found) == 4 * (2 * 3 * 3 + 1)
    assert {m.value for m in found} == {0.0}


@pytest.mark.parametrize("trips", invertibility.TRIPS)
@pytest.mark.parametrize(("direction", "levels"), [("x-z-x", 1), ("z-x-z", 2)])
def test_a_generator_that_is_off_by_a_grey_level_is_off_by_one_more_each_trip(direction, levels, trips):
    found = {
        m.quantity: m.value
        for m in invertibility.measure(Doubling(1 / 255), np.full((2, 4), 0.5), "initial", 0)
        if m.context.get("direction") == direction and m.context["trips"] == trips and m.context["inputs"] == "test"
    }
    assert found["max_error"] == pytest.approx(levels * trips, rel=1e-4)
    assert found["rms_error"] == pytest.approx(levels * trips, rel=1e-4)
    assert found["ulp_error"] == pytest.approx(trips / 255 * 2**24, rel=1e-4)  # of 0.5 and of 1


def test_the_change_of_log_p_is_that_of_the_images_which_came_back():
    found = invertibility.measure(Doubling(1 / 255), np.full((2, 4), 0.5), "initial", 0)
    change = [m.value for m in found if m.quantity == "log_prob_change" and m.context["inputs"] == "test"]
    assert change == [pytest.approx(4 / 255, rel=1e-4)]


def test_an_ulp_is_that_of_the_largest_value_wherever_it_stands():
    x = np.array([[0.01, 0.02, 0.9, 0.03], [0.01, 0.02, 0.04, 0.03]])
    found = {
        (m.quantity, m.context["direction"], m.context["trips"]): m.value
        for m in invertibility.measure(Doubling(1 / 255), x, "initial", 0)
        if m.context["inputs"] == "test"
    }
    assert found["ulp_error", "x-z-x", 1] == pytest.approx(2**24 / 255, rel=1e-4)  # that of 0.9 is 2⁻²⁴
    assert found["ulp_error", "z-x-z", 1] == pytest.approx(2 * 2**23 / 255, rel=1e-4)  # that of 1.8


def test_a_change_of_log_p_is_the_largest_of_either_sign():
    class Uneven(Doubling):
        def log_prob(self, x):
            return np.array([[-3.0], [1.0]], np.float32)[:, 0] * x.sum(axis=1)

    found = invertibility.measure(Uneven(1 / 255), np.full((2, 4), 0.5), "initial", 0)
    change = [m.value for m in found if m.quantity == "log_prob_change" and m.context["inputs"] == "test"]
    assert change == [pytest.approx(12 / 255, rel=1e-4)]


def test_round_trips_begin_from_the_images_and_from_noise_1_10_and_100_times_their_range():
    class Listening(Doubling):
        def encode(self, x):
            seen.append(x)
            return super().encode(x)

    seen, x = [], rows(SMALL, 6)
    list(invertibility.measure(Listening(), x, "initial", 7))
    starts = seen[:: len(seen) // 4]
    noise = uniforms(7, "inputs", 0, x.shape)
    for found, expected in zip(starts, (x, noise, 10 * noise, 100 * noise), strict=True):
        assert np.array_equal(found, expected.astype(np.float32))


def test_one_wrong_pixel_counts_in_full_for_the_maximum_and_in_part_for_the_rms():
    model = Doubling(np.eye(1, 16) * 4 / 255)
    found = {
        m.quantity: m.value
        for m in invertibility.measure(model, np.full((3, 16), 0.5), "initial", 0)
        if m.context["inputs"] == "test" and m.context["trips"] == 1 and m.context["direction"] == "x-z-x"
    }
    assert (found["max_error"], found["rms_error"]) == pytest.approx((4, 1), rel=1e-4)


@pytest.mark.parametrize("inputs", ["test", "uniform noise", "10 times out of range", "100 times out of range"])
def test_the_reference_inverts_itself_to_the_last_bits(inputs):
    found = invertibility.measure(shared("numpy", PAPER), rows(PAPER), "initial", 0)
    its = [m for m in found if m.context["inputs"] == inputs and m.quantity == "ulp_error"]
    assert sorted(m.context["trips"] for m in its) == [1, 1, 3, 3, 9, 9]
    assert all(0 < m.value < 8 * m.context["trips"] for m in its), [m.value for m in its]


@pytest.mark.parametrize("architecture", [SMALL, PAPER, SHUFFLED], ids=["article", "paper", "shuffled"])
def test_a_broken_coupling_is_distinguished_from_the_others(monkeypatch, architecture):
    model = create("numpy", architecture)
    broken = model.parameters()["coupling.1.dense.0.kernel"]
    decode = NumpyBackend._decode

    def off_by_two_levels(self, z):
        wrong = np.array_equal(self._weights["coupling.0.dense.0.kernel"], broken)
        return decode(self, z) + (2 / 255 if wrong else 0)

    monkeypatch.setattr(NumpyBackend, "_decode", off_by_two_levels)
    found = invertibility.measure_couplings(model, rows(architecture), "trained")
    errors = {m.context["coupling"]: m.value for m in found if m.quantity == "max_error"}
    assert errors == pytest.approx({0: 0, 1: 2, 2: 0}, abs=1e-9)


def test_the_rms_is_over_all_pixels_of_all_images():
    offset = np.zeros((3, 16))
    offset[1, 2] = 4 / 255
    found = {
        m.quantity: m.value
        for m in invertibility.measure(Doubling(offset), np.full((3, 16), 0.5), "initial", 0)
        if (m.context["inputs"], m.context["trips"], m.context.get("direction")) == ("test", 1, "x-z-x")
    }
    assert (found["max_error"], found["rms_error"]) == pytest.approx((4, 4 / math.sqrt(48)), rel=1e-4)


@pytest.mark.parametrize("k", range(3))
def test_a_coupling_alone_has_its_own_layers_and_no_scale(k):
    given = weights(SHUFFLED)
    architecture, alone = invertibility.coupling_alone(SHUFFLED, given, k)
    assert architecture == replace(SHUFFLED, couplings=1)
    assert alone.keys() == architecture.parameter_shapes.keys()
    assert not alone["log_scale"].any()
    for name in alone.keys() - {"log_scale"}:
        assert np.array_equal(alone[name], given[name.replace("coupling.0.", f"coupling.{k}.")])


# Agreement


@pytest.mark.parametrize(
    ("found", "reference", "expected"),
    [([1.0, 2.0], [1.0, 4.0], 0.5), ([0.0], [0.0], 0.0), ([1.0], [0.0], math.inf), ([-3.0, 0.1], [-3.0, 0.4], 0.1)],
)
def test_relative_is_the_largest_difference_over_the_largest_value(found, reference, expected):
    assert agreement.relative(np.array(found), np.array(reference)) == pytest.approx(expected)


def test_the_reference_agrees_with_itself():
    found = values(agreement.compare(shared("numpy"), rows(SMALL), "initial"))
    assert set(found) == {"z", "log_det", "log_prob", "decode", "gradient"}
    assert max(found.values()) < 1e-15


@pytest.mark.parametrize("quantity", ["z", "log_prob", "decode", "gradient"])
def test_a_perturbed_weight_shows_in_every_figure(quantity):
    model = create("numpy")
    model._weights["coupling.0.dense.0.bias"][:] += 1e-3
    stated, model.parameters = weights(SMALL), lambda: stated
    found = values(agreement.compare(model, rows(SMALL), "initial"))
    assert 1e-6 < found[quantity] < 1


def test_a_wrong_log_det_shows():
    model = create("numpy")
    encode, model.encode = model.encode, lambda x: (encode(x)[0], encode(x)[1] * 1.01)
    assert values(agreement.compare(model, rows(SMALL), "initial"))["log_det"] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["coupling.0.dense.0.kernel", "coupling.1.dense.1.bias", "log_scale"])
def test_a_gradient_that_is_not_a_number_shows_wherever_it_is(name):
    model = create("numpy")
    loss, gradients = model.gradients(rows(SMALL))
    gradients[name] = np.full_like(gradients[name], np.nan)
    model.gradients = lambda x: (loss, gradients)
    found = {m.quantity: m for m in agreement.compare(model, rows(SMALL), "initial")}
    assert found["gradient"].value is None
    assert "nan" in found["gradient"].note


@pytest.mark.parametrize("quantity", ["trajectory_loss", "trajectory_update"])
@pytest.mark.parametrize(("wrong", "low", "high"), [(False, 0, 1e-15), (True, 1e-4, 10)], ids=["right", "wrong"])
def test_a_training_step_that_differs_shows(monkeypatch, quantity, wrong, low, high):
    make, model = NumpyBackend._training, create("numpy")
    made = []

    def faulty(self, images, optimiser, pixels):
        made.append(self)
        factor = 1.5 if wrong and len(made) == 1 else 1  # the first of the two trainings takes longer steps
        return make(self, images, replace(optimiser, learning_rate=factor * optimiser.learning_rate), pixels)

    monkeypatch.setattr(NumpyBackend, "_training", faulty)
    bytes_ = images(12).reshape(3, 4, 12)
    found = agreement.trajectory(model, weights(SMALL), bytes_, Adam(), Pixels(1 / 255), 0)
    assert low <= values(found)[quantity] <= high


def test_the_gradients_error_is_that_of_its_worst_array():
    model = create("numpy")
    loss, gradients = model.gradients(rows(SMALL))
    gradients["coupling.1.dense.1.bias"] = gradients["coupling.1.dense.1.bias"] * 1.01
    model.gradients = lambda x: (loss, gradients)
    assert values(agreement.compare(model, rows(SMALL), "initial"))["gradient"] == pytest.approx(0.01)


class Watched(NumpyBackend):
    """The reference that says how it is made and trained; the first to train takes steps half as long again."""

    def __init__(self, *arguments, replicas=1, **options):
        told.append({"replicas": replicas, **options})
        super().__init__(*arguments, **options)

    def train(self, images, optimiser, stream, epochs):
        told[-1] |= {"seed": stream.seed, "pixels": stream.pixels}
        yield from super().train(images, replace(optimiser, learning_rate=1.5e-3), stream, epochs)
        told[-1]["ended"] = True  # by its own last line: left before it, ranks on other nodes lose their connections


told: list[dict] = []


def test_the_error_of_an_update_is_relative_to_the_update_and_the_model_is_made_as_the_one_measured():
    told.clear()
    model = Watched(SMALL, weights(SMALL, "float32"), precision="float32")
    model.replicas = 4
    pixels = Pixels(1 / 256, 1 / 256)
    found = values(agreement.trajectory(model, weights(SMALL, "float32"), images(4)[None], Adam(), pixels, 5))
    assert found["trajectory_update"] == pytest.approx(0.5, rel=1e-4)  # Adam's first step is as long as its rate
    assert found["trajectory_loss"] < 1e-6
    as_it_is = {"device": "cpu", "precision": "float32", "mode": "eager", "replicas": 4, "nodes": model.nodes}
    assert told[-1] == as_it_is | {"seed": 5, "pixels": pixels, "ended": True}


class Bounds:
    """What rounding explains."""

    chain, coarse = 1e-5, False


@pytest.mark.parametrize(
    ("quantity", "value", "coarse", "refused"),
    [
        ("z", 0.99e-5, False, False),
        ("z", 1e-5, False, False),
        ("z", 1.01e-5, False, True),
        ("decode", 1.01e-5, True, True),
        ("log_prob", 1.0, False, False),
        ("trajectory_update", 0.019, False, False),
        ("trajectory_update", 0.021, False, True),
        ("trajectory_update", 0.021, True, False),
        ("z", math.nan, False, True),
    ],
)
def test_a_model_that_is_farther_off_than_rounding_explains_is_refused(quantity, value, coarse, refused):
    bounds = Bounds()
    bounds.coarse = coarse
    found = [Measurement(measure="agreement", quantity=quantity, value=value, unit="relative", context={})]
    with pytest.raises(DisagreesError, match=quantity) if refused else nullcontext():
        agreement.refuse(found, bounds)


# Calibration


def test_a_calibration_is_the_fastest_product_of_two_matrices_of_1024_by_numpy(monkeypatch):
    made = []

    def time_calls(model, call, budget):
        made.append((call(), budget))
        assert call() is made[0][0]  # no memory is asked for inside the clock
        return Timing(median=2.0, low=1.5, high=3.0, blocks=7, least=1.0)

    monkeypatch.setattr(calibration, "time_calls", time_calls)
    (found,) = calibration.measure(SimpleNamespace(device="cpu"), 0.25, 2)
    assert (found.quantity, found.value, found.context) == ("product_seconds", 1.0, {"round": 2})
    [(product, budget)] = made
    assert (product.shape, product.dtype, budget) == ((1024, 1024), np.float32, 0.25)
    assert (product == 256).all()
    assert [*calibration.measure(SimpleNamespace(device="gpu"), 0.25, 2)] == []


# The probe


@pytest.mark.parametrize("asked", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("name", backend_names())
def test_the_probe_sees_the_precision_that_was_asked_for(name, asked):
    if asked == "bfloat16" and name == "numpy":
        return
    found = precision.probe(shared(name, precision=asked))
    assert (found.asked, found.seen, found.mantissa_bits) == (asked, asked, PRODUCT_BITS[asked] - 1)


@pytest.mark.parametrize(("bits", "seen"), [(10, "tf32"), (7, "bfloat16"), (15, "15 bits")])
def test_the_probe_sees_what_the_hardware_makes_of_float32(bits, seen):
    model = create("numpy", precision="float32")

    def product(a, b):  # of operands with so many bits after the leading one
        significand, exponent = np.frexp(a)
        return (np.ldexp(np.round(significand * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent) @ b).astype(np.float32)

    model.product = product
    found = precision.probe(model)
    assert (found.asked, found.seen, found.mantissa_bits) == ("float32", seen, bits)
