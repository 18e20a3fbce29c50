"""What roundoff predicts of a round trip: near to what is found, and exceeded by what is not rounding."""

from dataclasses import replace

import numpy as np
import pytest
from factories import PAPER, SHUFFLED, SMALL, covering_architectures, create, error, label, rows, shared, weights

import backends
from bench.agreement import round_trips
from bench.agreement.round_trips import SLACK, Trip
from bench.agreement.rounding_model import RoundingModel

WIDE = replace(SMALL, dim=64, hidden_units=48)


def trip(architecture=WIDE):
    return Trip("article", architecture, weights(architecture), "initial", rows(architecture, 16), seed=3)


def found(chosen, precisions, architecture=WIDE):
    return list(round_trips.round_trips(trip(architecture), chosen, precisions, "cpu"))


@pytest.mark.parametrize("architecture", covering_architectures(), ids=label)
def test_without_much_rounding_the_model_is_the_reference(architecture):
    model, x = RoundingModel(architecture, weights(architecture), "float64", seed=0), rows(architecture)
    reference = shared("numpy", architecture)
    z, log_det = reference.encode(x)
    assert error(model.encode(x)[0], z) < 1e-13
    assert error(model.encode(x)[1], log_det) < 1e-13
    assert error(model.decode(z), x) < 1e-13
    assert error(model.log_prob(x), reference.log_prob(x)) < 1e-13


@pytest.mark.parametrize(("precision", "digits"), [("float32", 24), ("tf32", 11), ("bfloat16", 8)])
def test_operands_are_rounded_to_the_bits_of_the_precision(precision, digits):
    model = RoundingModel(SMALL, weights(SMALL), precision, seed=0)
    numbers = 1 + 2.0 ** -np.arange(1, 30)
    kept = model._operand(numbers) == numbers
    assert kept[: digits - 1].all()
    assert kept[digits:].all() == (precision == "float32")


@pytest.mark.parametrize("architecture", [WIDE, replace(PAPER, dim=64), replace(SHUFFLED, dim=64)], ids=label)
def test_the_prediction_for_float32_is_near_what_is_found(architecture):
    checks = [
        c for c in found(["numpy"], ["float32"], architecture) if "RMS" in c.quantity and "alone" not in c.quantity
    ]
    assert len(checks) == 4 * 2 * 3
    for check in checks:
        assert 1 / 3 < check.error / (check.tolerance / SLACK) < 3, check


def test_round_trips_of_float32_in_a_float64_model_are_a_breach(monkeypatch):
    assert all(check.passed for check in found(["numpy"], ["float64"]))
    kind = backends.backend_class("numpy")
    right = kind.decode
    monkeypatch.setattr(kind, "decode", lambda self, z: right(self, z.astype("f4").astype(z.dtype)))
    assert not all(check.passed for check in found(["numpy"], ["float64"]))


def test_a_decoder_that_is_not_the_inverse_is_a_breach(monkeypatch):
    kind = backends.backend_class("numpy")
    right = kind.decode
    monkeypatch.setattr(kind, "decode", lambda self, z: right(self, 1.01 * z))
    assert not any(c.passed for c in found(["numpy"], ["float32"]) if c.quantity.startswith("test, x-z-x: RMS"))


def test_a_precision_that_a_variant_lacks_is_passed_over():
    assert {check.precision for check in found(["numpy"], ["float32", "tf32", "bfloat16"])} == {"float32"}


def test_each_check_says_what_and_is_there_once():
    quantities = [check.quantity for check in found(["numpy"], ["float32"])]
    assert len(set(quantities)) == len(quantities)
    assert "100 times out of range, z-x-z × 9: max, grey levels" in quantities
    assert "test, x-z-x, coupling 0 alone: RMS, grey levels" in quantities
    assert create("numpy", WIDE).architecture.couplings == sum("alone: RMS" in quantity for quantity in quantities)
