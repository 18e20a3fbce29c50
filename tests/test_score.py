"""The score ∇ₓ log p: what it is by definition, and in every backend."""

from dataclasses import replace

import numpy as np
import pytest
from factories import (
    ARTICLE,
    PAPER,
    SMALL,
    TOO_SLOW_FOR_EVERY_TEST,
    cases,
    covering_architectures,
    create,
    every_mode,
    frameworks,
    label,
    rows,
    shared,
    weights,
)

import backends
from backends import Architecture
from bench.agreement.rounding_model import RoundingModel
from bench.measures.rounding import Rounding

COMPARED = [  # the agreement suite has the others; most of the time is spent compiling
    pytest.param(ARTICLE, "float64", id="article-float64"),
    pytest.param(PAPER, "float32", id="paper-float32"),
]
UNCOMPILED = [case for case in cases() if case.values[0] in ("torch", "numpy")]
covering = pytest.mark.parametrize("architecture", covering_architectures(), ids=label)


@covering
def test_the_reference_is_that_of_central_differences(architecture):
    model, x, h = shared("numpy", architecture), rows(architecture), 1e-6
    steps = h * np.eye(architecture.dim)
    slopes = [(model.log_prob(row + steps) - model.log_prob(row - steps)) / (2 * h) for row in x]
    # Rounding of log p, about 50, gives 50 · 2⁻⁵³ / 1e-6 = 6e-9.
    assert model.score(x) == pytest.approx(np.stack(slopes), abs=1e-7 * np.abs(slopes).max())


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize(
    ("prior", "slope"), [("gaussian", lambda z: -z), ("logistic", lambda z: -np.tanh(z / 2))], ids=lambda p: str(p)[:8]
)
def test_without_networks_it_is_the_priors_slope_times_the_scale(name, mode, prior, slope):
    architecture = Architecture(dim=4, couplings=1, hidden_layers=1, hidden_units=1, permutation="none", prior=prior)
    given = {n: np.zeros(shape) for n, shape in architecture.parameter_shapes.items()}
    scale = np.array([1.0, 2.0, 3.0, 0.5])
    given["log_scale"] = np.log(scale)
    model = backends.create(name, architecture, given, device="cpu", precision="float64", mode=mode)
    x = np.array([[0.5, -1.0, 2.0, 0.0], [100.0, -100.0, 1e-3, -4.0]])
    assert model.score(x) == pytest.approx(slope(scale * x) * scale, rel=1e-12)


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_it_is_bounded_far_out_where_the_prior_is_logistic(name, mode, precision):
    architecture = Architecture(dim=2, couplings=1, hidden_layers=1, hidden_units=1, prior="logistic")
    zeros = {n: np.zeros(shape, np.float32) for n, shape in architecture.parameter_shapes.items()}
    model = backends.create(name, architecture, zeros, device="cpu", precision=precision, mode=mode)
    assert model.score([[1000.0, -1000.0]])[0] == pytest.approx([-1, 1], abs=1e-6)


def compared(name, mode, architecture, precision):
    """Largest error against the reference over the largest entry, where rounding turns no ReLU; and its tolerance."""
    x = rows(architecture, 40)
    rounding = Rounding(architecture, precision, len(x))
    turned = RoundingModel(architecture, weights(architecture), "float64", seed=0)
    turned.encode(x)
    x = x[turned.nearest_zero > rounding.chain]
    assert len(x) > 20
    expected = shared("numpy", architecture).score(x)
    found = shared(name, architecture, mode, precision).score(x)
    assert found.dtype == precision
    return np.abs(found - expected).max() / np.abs(expected).max(), rounding.score


@pytest.mark.parametrize(("name", "mode"), [case for case in cases() if case.values[0] != "numpy"])
@pytest.mark.parametrize(("architecture", "precision"), COMPARED)
def test_every_backend_agrees_with_the_reference(name, mode, architecture, precision):
    error, tolerance = compared(name, mode, architecture, precision)
    assert error <= tolerance


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
@pytest.mark.parametrize(("name", "mode"), sorted(TOO_SLOW_FOR_EVERY_TEST & set(every_mode())))
def test_so_does_a_mode_that_takes_long_to_compile(name, mode):
    error, tolerance = compared(name, mode, replace(PAPER, couplings=1, hidden_layers=1, hidden_units=64), "float32")
    assert error <= tolerance


@covering
@pytest.mark.parametrize("name", sorted({case.values[0] for case in frameworks()} & {"torch"}))
def test_torch_agrees_in_every_architecture(name, architecture):
    error, tolerance = compared(name, None, architecture, "float64")
    assert error <= tolerance


@pytest.mark.parametrize(("name", "mode"), UNCOMPILED)
def test_a_row_does_not_depend_on_its_neighbours(name, mode):
    model, x = shared(name, SMALL, mode), rows(SMALL, 5)
    assert model.score(x)[2:3] == pytest.approx(model.score(x[2:3]), rel=1e-12)


@pytest.mark.parametrize(("name", "mode"), UNCOMPILED)
def test_asking_for_it_changes_nothing(name, mode):
    model, x = create(name, SMALL, mode=mode), rows(SMALL)
    given, kept = model.parameters(), x.copy()
    loss, gradients = model.gradients(x)
    model.score(x)
    assert np.array_equal(x, kept)
    again_loss, again = model.gradients(x)
    assert again_loss == loss
    for key in gradients:
        assert again[key].tobytes() == gradients[key].tobytes()
        assert model.parameters()[key].tobytes() == given[key].tobytes()
