"""Every backend against the float64 reference: same weights, same points, same numbers."""

from dataclasses import replace

import numpy as np
import pytest
from factories import (
    ARTICLE,
    PAPER,
    SHUFFLED,
    cases,
    covering_architectures,
    create,
    error,
    errors,
    every_architecture,
    frameworks,
    label,
    requires,
    rows,
    shared,
)

NAMED = [ARTICLE, PAPER, SHUFFLED]
NAMED_IDS = ["article", "paper", "shuffle"]
SHALLOW = replace(ARTICLE, couplings=1, hidden_layers=1)

# torch runs in every architecture. The others compile, which takes most of the time: in a covering few, or three.
ARCHITECTURES = {
    "torch-eager": every_architecture(),
    "tensorflow-graph": covering_architectures(),
    "jax-scan": covering_architectures(),
}
CASES = [
    pytest.param(*case.values, architecture, id=f"{case.id}-{label(architecture)}")
    for case in frameworks()
    for architecture in ARCHITECTURES.get(case.id, NAMED)
]
everywhere = pytest.mark.parametrize(("name", "mode", "architecture"), CASES)
QUANTITIES = {
    "z": lambda model, x: model.encode(x)[0],
    "log_det": lambda model, x: model.encode(x)[1],
    "log_prob": lambda model, x: model.log_prob(x),
    "decode": lambda model, x: model.decode(x),
}


@everywhere
@pytest.mark.parametrize("quantity", list(QUANTITIES))
def test_float64_agrees_with_the_reference(name, mode, architecture, quantity):
    compute, x = QUANTITIES[quantity], rows(architecture)
    found = compute(shared(name, architecture, mode), x)
    assert found.dtype == np.float64
    assert error(found, compute(shared("numpy", architecture), x)) < 1e-13


@everywhere
def test_float64_loss_and_every_gradient_agree_with_the_reference(name, mode, architecture):
    x = rows(architecture)
    loss, gradients = shared(name, architecture, mode).gradients(x)
    expected_loss, expected = shared("numpy", architecture).gradients(x)
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    assert max(errors(gradients, expected).values()) < 1e-12


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize("architecture", NAMED, ids=NAMED_IDS)
@pytest.mark.parametrize("quantity", list(QUANTITIES))
def test_float32_agrees_with_the_reference_to_its_precision(name, mode, architecture, quantity):
    compute, x = QUANTITIES[quantity], rows(architecture)
    found = compute(shared(name, architecture, mode, "float32"), x)
    assert found.dtype == np.float32
    assert error(found, compute(shared("numpy", architecture), x)) < 1e-5


@pytest.mark.parametrize(("name", "mode"), cases())
@pytest.mark.parametrize("architecture", NAMED, ids=NAMED_IDS)
def test_float32_gradients_agree_with_the_reference_to_their_precision(name, mode, architecture):
    x = rows(architecture)
    loss, gradients = shared(name, architecture, mode, "float32").gradients(x)
    expected_loss, expected = shared("numpy", architecture).gradients(x)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert {gradient.dtype for gradient in gradients.values()} == {np.dtype("float32")}
    assert max(errors(gradients, expected).values()) < 1e-5


# bfloat16 has 8 significant bits. Each product rounds both factors and the result, by 2⁻⁸ at most; z is 9 products deep
# (3 couplings of 3 layers), so a first-order bound is 3 · 9 · 2⁻⁸ = 0.11 of the largest value. A gradient is as deep
# again. Below 1e-4 the products would have had more than 8 bits.
BFLOAT16_BOUND = 3 * 9 * 2.0**-8


@pytest.mark.parametrize(("name", "mode"), frameworks())
@pytest.mark.parametrize("quantity", ["z", "decode"])
def test_bfloat16_differs_from_float32_as_much_as_8_bits_must(name, mode, quantity):
    compute, x = QUANTITIES[quantity], rows(PAPER)
    found = compute(shared(name, PAPER, mode, "bfloat16"), x)
    assert found.dtype == np.float32
    assert 1e-4 < error(found, compute(shared("numpy", PAPER, precision="float32"), x)) < BFLOAT16_BOUND


@pytest.mark.parametrize(("name", "mode"), frameworks())
def test_bfloat16_gradients_differ_from_float32_as_much_as_8_bits_must(name, mode):
    x = rows(PAPER)
    _, gradients = shared(name, PAPER, mode, "bfloat16").gradients(x)
    _, expected = shared("numpy", PAPER, precision="float32").gradients(x)
    found = errors(gradients, expected)
    assert max(found.values()) < 2 * BFLOAT16_BOUND
    assert min(error for name, error in found.items() if name.endswith("kernel")) > 1e-4


@pytest.mark.parametrize(("name", "mode"), frameworks())
def test_bfloat16_is_invertible_to_float32(name, mode):
    # m is computed of the same half both ways, so its rounding cancels.
    model, x = shared(name, ARTICLE, mode, "bfloat16"), rows(ARTICLE)
    assert error(model.decode(model.encode(x)[0]), x) < 1e-5


@requires("torch")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_torch_compile_agrees_with_the_reference():
    x = rows(SHALLOW)
    loss, gradients = create("torch", SHALLOW, mode="compile").gradients(x)
    expected_loss, expected = shared("numpy", SHALLOW).gradients(x)
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    assert max(errors(gradients, expected).values()) < 1e-12
