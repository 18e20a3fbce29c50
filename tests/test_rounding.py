"""What rounding may do, worked out by hand for one architecture: 9 layers, whose longest sum is of 7 products."""

import math

import pytest
from factories import SMALL

from bench.measures.rounding import Rounding


@pytest.mark.parametrize(("precision", "unit"), [("float64", 2.0**-53), ("float32", 2.0**-24)])
def test_of_fine_products_only_their_sums_round(precision, unit):
    found = Rounding(SMALL, precision, 16)
    assert not found.coarse
    assert found.chain == pytest.approx(6 * math.sqrt(9 * 7) * unit)
    assert found.log_det == pytest.approx(6 * math.sqrt(12) * unit)
    assert found.log_prob == pytest.approx(2 * (6 * math.sqrt(63) + 6 * math.sqrt(12)) * unit)
    assert found.score == pytest.approx(12 * math.sqrt(63) * unit)
    assert found.gradient == pytest.approx(12 * math.sqrt(63) * 4 * unit)  # of 16 rows, whose signs differ


@pytest.mark.parametrize(("precision", "unit"), [("tf32", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_of_coarse_products_the_operands_and_results_round_too(precision, unit):
    found = Rounding(SMALL, precision, 16)
    assert found.coarse
    assert found.chain == pytest.approx(6 * (math.sqrt(63) * 2**-24 + math.sqrt(3 * 9) * unit))
    turned = sum(2 * math.sqrt(3 * layer) * unit / math.pi for layer in (1, 2, 3))
    assert found.gradient_norm == pytest.approx(math.sqrt(2 * 9 * 3) * unit + math.sqrt(turned))
