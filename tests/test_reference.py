"""The NumPy reference against truths that don't come from this project, and all backends against sums done by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import cases, covering_architectures, create, error, every_architecture, label, rows, shared, weights
from scipy import stats

import backends
from backends import Architecture

covering = pytest.mark.parametrize("architecture", covering_architectures(), ids=label)
everywhere = pytest.mark.parametrize("architecture", every_architecture(), ids=label)


# Worked by hand: D = 4, networks of one hidden unit


HAND = {
    # m₀(a, b) = act(h, 2h), h = relu(a + 10b)
    "coupling.0.dense.0.kernel": [[1], [10]],
    "coupling.0.dense.0.bias": [0],
    "coupling.0.dense.1.kernel": [[1, 2]],
    "coupling.0.dense.1.bias": [0, 0],
    # m₁(a, b) = act(h, −2h + 5), h = relu(−a + 3b + 20)
    "coupling.1.dense.0.kernel": [[-1], [3]],
    "coupling.1.dense.0.bias": [20],
    "coupling.1.dense.1.kernel": [[1, -2]],
    "coupling.1.dense.1.bias": [0, 5],
    "log_scale": np.log([1, 2, 3, 4]),
}
HAND_ARTICLE = Architecture(dim=4, couplings=2, hidden_layers=1, hidden_units=1)
HAND_PAPER = replace(
    HAND_ARTICLE, reorder="tile", permute="after", split="halves", sign="add", output="linear", prior="logistic"
)
HAND_SHUFFLE = replace(HAND_ARTICLE, couplings=1, permutation="shuffle")


def by_hand(name, mode, architecture):
    given = {n: np.asarray(a, np.float64) for n, a in HAND.items() if n in architecture.trainable_shapes}
    if architecture.permutation == "shuffle":
        given["coupling.0.permutation"] = np.array([2, 0, 3, 1], np.int32)
    return backends.create(name, architecture, given, device="cpu", precision="float64", mode=mode)


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        # (1 2 3 4) reversed (4 3 2 1); x₁ = (4 2), h = 24, x₂ = (3 1) − (24 48) = (−21 −47); merged (4 −21 2 −47);
        # reversed (−47 2 −21 4); x₁ = (−47 −21), h = 47 − 63 + 20 = 4, m = relu(4, −3), x₂ = (2 4) − (4 0) = (−2 4);
        # merged (−47 −2 −21 4); times (1 2 3 4)
        pytest.param(HAND_ARTICLE, [-47, -4, -63, 16], id="article"),
        # tiled (1 3 2 4); x₁ = (1 3), h = 31, x₂ = (2 4) + (31 62); reversed (66 33 3 1); x₁ = (66 33),
        # h = −66 + 99 + 20 = 53, x₂ = (3 1) + (53 −101) = (56 −100); reversed (−100 56 33 66); times (1 2 3 4)
        pytest.param(HAND_PAPER, [-100, 112, 99, 264], id="paper"),
        # shuffled (3 1 4 2); x₁ = (3 4), h = 43, x₂ = (1 2) − (43 86); merged (3 −42 4 −84); times (1 2 3 4)
        pytest.param(HAND_SHUFFLE, [3, -84, 12, -336], id="shuffle"),
    ],
)
def test_encode_puts_every_dimension_where_the_model_says(name, mode, architecture, expected):
    z, log_det = by_hand(name, mode, architecture).encode([[1.0, 2.0, 3.0, 4.0]])
    assert z[0] == pytest.approx(expected, rel=1e-13)
    assert log_det[0] == pytest.approx(math.log(24), rel=1e-13)


# The density


def test_the_gaussian_prior_is_the_standard_normal_density():
    model = shared("numpy")
    z, log_det = model.encode(rows(model.architecture))
    assert model.log_prob(rows(model.architecture)) - log_det == pytest.approx(stats.norm.logpdf(z).sum(1), rel=1e-13)


def test_the_logistic_prior_is_the_standard_logistic_density():
    model = shared("numpy", replace(shared("numpy").architecture, prior="logistic"))
    z, log_det = model.encode(rows(model.architecture))
    expected = stats.logistic.logpdf(z).sum(1)
    assert model.log_prob(rows(model.architecture)) - log_det == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_logistic_density_is_finite_far_out(name, mode, precision):
    architecture = Architecture(dim=2, couplings=1, hidden_layers=1, hidden_units=1, prior="logistic")
    zeros = {n: np.zeros(shape, np.float32) for n, shape in architecture.parameter_shapes.items()}
    model = backends.create(name, architecture, zeros, device="cpu", precision=precision, mode=mode)
    assert model.log_prob([[1000.0, -1000.0]])[0] == pytest.approx(-2000)


@covering
def test_log_det_is_that_of_the_numerical_jacobian(architecture):
    model, x, h = shared("numpy", architecture), rows(architecture, 1), 1e-6
    steps = h * np.eye(architecture.dim)
    jacobian = (model.encode(x + steps)[0] - model.encode(x - steps)[0]) / (2 * h)  # transposed
    assert np.linalg.slogdet(jacobian)[1] == pytest.approx(model.encode(x)[1][0], abs=1e-7)


@everywhere
def test_decode_is_the_inverse_of_encode(architecture):
    model, x = shared("numpy", architecture), rows(architecture)
    assert error(model.decode(model.encode(x)[0]), x) < 1e-13


@everywhere
def test_encode_is_the_inverse_of_decode(architecture):
    model, z = shared("numpy", architecture), rows(architecture)
    assert error(model.encode(model.decode(z))[0], z) < 1e-13


# The loss and its gradient


@covering
def test_the_loss_is_the_mean_negative_log_likelihood(architecture):
    model, x = shared("numpy", architecture), rows(architecture)
    assert model.gradients(x)[0] == pytest.approx(-model.log_prob(x).mean(), rel=1e-13)


@covering
def test_gradients_are_those_of_central_differences(architecture):
    tiny = replace(architecture, dim=6, couplings=2, hidden_units=4)
    x, h = rows(tiny), 1e-6
    given = weights(tiny, seed=1)
    _, gradients = backends.create("numpy", tiny, given, precision="float64").gradients(x)
    assert gradients.keys() == tiny.trainable_shapes.keys()
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, shape in tiny.trainable_shapes.items():
        for place in np.ndindex(shape):
            losses = []
            for moved in (given[name][place] + h, given[name][place] - h):
                changed = given[name].copy()
                changed[place] = moved
                model = backends.create("numpy", tiny, given | {name: changed}, precision="float64")
                losses.append(-model.log_prob(x).mean())
            # Rounding of the loss, about 20, gives 20 · 2⁻⁵³ / 1e-6 = 2e-9; curvature h² = 1e-12.
            slope = (losses[0] - losses[1]) / (2 * h)
            assert gradients[name][place] == pytest.approx(slope, abs=1e-7 * largest), (name, place)


@covering
def test_no_gradient_is_zero_for_want_of_a_test(architecture):
    _, gradients = create("numpy", architecture).gradients(rows(architecture))
    assert all(np.abs(g).max() > 0 for g in gradients.values())
