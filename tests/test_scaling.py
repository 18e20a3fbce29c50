"""The fit of the cost model, on times whose exponent, fixed cost and knee are known."""

import math

import numpy as np
import pytest

from bench.tables.scaling import fit

BATCHES = 2.0 ** np.arange(14)


def noisy(times, seed, size=0.03):
    return times * np.exp(size * np.random.default_rng(seed).standard_normal(len(times)))


@pytest.mark.parametrize(
    ("exponent", "fixed", "coefficient"),
    [(1.0, 8e-3, 3e-4), (2.0, 1e-3, 1e-9), (1.7, 1e-2, 1e-6), (0.5, 1e-4, 1e-3)],
)
def test_exact_times_give_the_model_back(exponent, fixed, coefficient):
    found = fit(BATCHES, fixed + coefficient * BATCHES**exponent)
    assert found.exponent == pytest.approx(exponent, rel=1e-3)
    assert found.fixed == pytest.approx(fixed, rel=1e-2)
    assert found.coefficient == pytest.approx(coefficient, rel=1e-2)
    assert found.knee == pytest.approx((fixed / coefficient) ** (1 / exponent), rel=1e-2)
    assert (found.points, found.note) == (14, "")


def test_at_the_knee_the_asymptote_is_the_fixed_cost():
    found = fit(BATCHES, noisy(8e-3 + 3e-4 * BATCHES, 1))
    assert found.asymptote(found.knee) == pytest.approx(found.fixed)


def test_what_is_left_of_the_fixed_cost_at_the_largest_sizes_is_not_taken_for_a_smaller_exponent():
    sizes = BATCHES[:8]  # up to 128, a fivefold growth: a straight line through the upper points has a slope of 0.7
    assert fit(sizes, 8e-3 + 3e-4 * sizes).exponent == pytest.approx(1, abs=0.01)


def test_without_a_fixed_cost_there_is_no_knee():
    found = fit(BATCHES, 1e-3 * BATCHES)
    assert (found.fixed, found.knee) == (0, 0)
    assert (found.exponent, found.coefficient) == (pytest.approx(1), pytest.approx(1e-3))
    assert (found.points, found.note) == (14, "")


def test_without_a_fixed_cost_the_standard_error_is_that_of_a_straight_line_through_the_logarithms():
    checked = 0
    for seed in range(10):
        times = noisy(1e-3 * BATCHES, seed, 0.003)  # so little that the robust loss is that of least squares
        (slope, _), covariance = np.polyfit(np.log(BATCHES), np.log(times), 1, cov=True)
        if (found := fit(BATCHES, times)).fixed == 0:
            assert found.exponent == pytest.approx(slope, abs=1e-4)
            assert found.exponent_error == pytest.approx(math.sqrt(covariance[0, 0]), rel=0.02)
            checked += 1
    assert checked > 2


def test_noise_leaves_the_exponent_unbiased_and_the_standard_error_is_its_scatter():
    found = [fit(BATCHES, noisy(8e-3 + 3e-4 * BATCHES, seed)) for seed in range(60)]
    exponents = [law.exponent for law in found]
    assert np.mean(exponents) == pytest.approx(1, abs=0.005)
    assert np.mean([law.exponent_error for law in found]) == pytest.approx(np.std(exponents), rel=0.2)


@pytest.mark.parametrize(("place", "factor"), [(13, 3), (12, 0.5), (4, 3), (0, 0.5)])
def test_one_odd_point_pulls_little(place, factor):
    times = 8e-3 + 3e-4 * BATCHES
    times[place] *= factor
    assert fit(BATCHES, times).exponent == pytest.approx(1, abs=0.03)  # 0.15 off without a robust loss


@pytest.mark.parametrize(
    ("sizes", "times", "note"),
    [
        ([], [], "too few points (0)"),
        ([1, 2, 3], [1, 2, 3], "too few points (3)"),
        ([1, 2, 3, 4], [1, 1.1, 1.2, 1.3], "0 of 4 times ≥ 3 × the least"),
        ([1, 2, 4, 8, 16], [1, 1, 1, 1, 9], "1 of 5 times ≥ 3 × the least"),
        ([1, 2, 4, 8, 16], [1, 1, 1, 1, 3], "1 of 5 times ≥ 3 × the least"),
        ([1, 2, 4, 8, 16], [1, 9, 8, 7, 6], "too uncertain"),  # it falls again
        ([1, 2, 4, 8, 16], [1, 2**8, 4**8, 8**8, 16**8], "too uncertain"),  # beyond any model
        ([1, 2, 4, 8, 16], [1, 2**6.01, 4**6.01, 8**6.01, 16**6.01], "too uncertain"),
        ([1, 2, 4, 8, 16, 32], [1, 9, 2, 20, 1, 30], "too uncertain"),
        ([1, 2, 4, 8, 16, 32], [9, 9, 9, 1, 1, 1], "0 of 6 times ≥ 3 × the least"),
    ],
)
def test_what_the_points_do_not_determine_is_said(sizes, times, note):
    found = fit(sizes, times)
    assert found.note.endswith(note)
    assert found.points == len(sizes)
    assert all(math.isnan(value) for value in (found.exponent, found.exponent_error, found.fixed, found.knee))


@pytest.mark.parametrize(("sizes", "times"), [([1, 2], [1]), ([0, 1, 2, 3], [1] * 4), ([1, 2, 3, 4], [1, 1, 1, 0])])
def test_nonsense_is_refused(sizes, times):
    with pytest.raises(ValueError, match="expected positive numbers"):
        fit(sizes, times)
