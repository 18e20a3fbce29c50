"""Differences with their intervals: against scipy, against hand calculations, against simulation."""

import numpy as np
import pytest
from scipy import stats

from bench.comparison.compare import concluded
from bench.comparison.statistics import Estimate, adjusted, holm, of_means, paired, rounds_needed, welch

A = [1.0, 1.3, 0.9, 1.1]
B = [1.6, 1.2, 2.4]


@pytest.mark.parametrize(("a", "b"), [(A, B), (A[:2], B), (A[:2], B[1:])])
def test_two_samples_are_welchs_test(a, b):
    found, expected = welch(a, b), stats.ttest_ind(b, a, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(b) - np.mean(a))
    assert found.interval() == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.degrees == pytest.approx(expected.df)


def test_a_single_round_takes_the_noise_of_the_other_side():
    found, expected = welch(A, [1.7]), stats.ttest_ind([1.7], A, equal_var=True)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.value == pytest.approx(1.7 - np.mean(A))
    assert welch([1.7], A).p == pytest.approx(expected.pvalue)
    assert welch(A[:2], [1.7]).p == pytest.approx(stats.ttest_ind([1.7], A[:2], equal_var=True).pvalue)


def test_two_single_rounds_have_a_difference_and_no_error():
    found = welch([1.0], [3.0])
    assert found.value == 2.0
    assert np.isnan(found.error)
    assert np.isnan(found.p)
    assert np.isnan(found.interval()).all()


def test_leading_axes_are_so_many_comparisons():
    many = welch(np.stack([A, A]), np.stack([B, np.add(B, 1)]))
    assert many.value == pytest.approx([welch(A, B).value, welch(A, np.add(B, 1)).value])
    assert many.p == pytest.approx([float(welch(A, B).p), float(welch(A, np.add(B, 1)).p)])
    shifted = welch(np.stack([A, np.add(A, 2)]), np.stack([B, B]))
    assert shifted.value == pytest.approx([welch(A, B).value, welch(np.add(A, 2), B).value])
    single = welch([[1.7], [1.8]], np.stack([A, np.multiply(A, 3)]))
    assert single.p == pytest.approx([float(welch([1.7], A).p), float(welch([1.8], np.multiply(A, 3)).p)])


def test_pairs_of_seeds_are_the_one_sample_test():
    for differences in ([0.4, 0.6, 0.5], [0.4, 0.6]):
        assert paired(differences).p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert np.isnan(paired([0.4]).error)


def test_means_with_errors_are_welchs_test_too():
    def told(x):
        return np.mean(x), np.std(x, ddof=1) / np.sqrt(len(x)), len(x)

    found = of_means(told(A), told(B))
    assert (found.value, float(found.p)) == pytest.approx((welch(A, B).value, float(welch(A, B).p)))


def test_what_never_varies_is_certain():
    assert welch([2.0, 2.0], [3.0, 3.0]).p == 0
    assert welch([2.0, 2.0], [3.0, 3.0]).interval() == (1.0, 1.0)
    assert welch([2.0, 2.0], [2.0, 2.0]).p == 1


def test_intervals_hold_the_difference_as_often_as_they_say():
    noise = np.random.default_rng(0).normal(0, [[1.0], [3.0]], (20_000, 2, 4))
    low, high = welch(noise[:, 0], noise[:, 1]).interval()
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=0.01)


def test_a_family_is_adjusted_by_benjamini_and_hochberg():
    assert adjusted([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04] * 4)
    assert adjusted([0.01, 0.5, 0.9]) == pytest.approx([0.03, 0.75, 0.9])
    families = np.array([[0.01, 0.04, 0.03, 0.02], [0.5, 0.04, 0.9, 0.8]]).T
    each = np.stack([adjusted(its) for its in families.T])
    assert adjusted(families.T) == pytest.approx(each)
    assert pytest.approx(each) == adjusted(families, axis=0).T


def test_the_rounds_needed_are_enough_and_one_less_is_not():
    deviation, effect = 0.04, np.log(1.1)
    rounds = rounds_needed(deviation, effect)

    def seen(rounds):
        noise = np.random.default_rng(1).normal(0, deviation, (2, 40_000, rounds))
        return np.mean(welch(noise[0], noise[1] + effect).p < 0.05)

    assert seen(rounds) > 0.945
    assert seen(rounds - 1) < 0.95
    assert rounds_needed(0.0, effect) == rounds_needed(1e-6, effect) == 2
    assert [rounds_needed(deviation, 1.0) for deviation in (6.2, 6.202)] == [1000, None]  # that would be 1001


@pytest.mark.parametrize(("ratio", "pairs", "rounds"), [(2.25, False, 7), (2.0, True, 6)])
def test_few_rounds_have_few_degrees_of_freedom(ratio, pairs, rounds):
    """By the noncentral t distribution; two degrees more would say a round less."""
    assert rounds_needed(1.0, ratio, pairs=pairs) == rounds


def test_the_rounds_needed_in_pairs_are_enough_and_one_less_is_not():
    rounds = rounds_needed(0.08, 0.1, pairs=True)

    def seen(rounds):
        return np.mean(paired(np.random.default_rng(1).normal(0.1, 0.08, (40_000, rounds))).p < 0.05)

    assert seen(rounds) > 0.945
    assert seen(rounds - 1) < 0.95


@pytest.mark.parametrize(("share", "verdict"), [(0.999, "unclear"), (1.001, "same")])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_same_takes_two_one_sided_tests_at_five_percent(share, verdict, sign):
    margin = share * (0.2 + stats.t.ppf(0.95, 9) * 0.5)
    assert concluded(Estimate(sign * 0.2, 0.5, 9), 1.0, margin) == verdict


def test_a_limit_that_is_reached_decides_nothing():
    for estimate in (Estimate(0.1, 0.5, 9), Estimate(-0.1, 0.5, 9)):
        reached = max(abs(bound) for bound in estimate.interval(0.9))
        assert concluded(estimate, 1.0, reached) == "unclear"
    assert concluded(Estimate(3.0, 1.0, 9), 0.05, 0.1, level=0.05) == "unclear"
    assert concluded(Estimate(3.0, 1.0, 9), 0.01, 0.1, least=3.0) == "unclear"


@pytest.mark.parametrize(
    ("p", "value", "verdict"), [(0.049, 3.0, "worse"), (0.049, -3.0, "better"), (0.051, 3, "unclear")]
)
def test_a_change_is_told_at_five_percent(p, value, verdict):
    assert concluded(Estimate(value, 1.0, 9), p, 0.1) == verdict


def test_holms_procedure_takes_each_by_how_many_are_left():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.01, 0.8]) == pytest.approx([1.0, 0.03, 1.0])


def test_an_estimate_without_error_has_no_interval():
    assert np.isnan(Estimate(1.0, np.nan, 1).interval()).all()


def test_an_interval_is_that_of_students_t():
    half = stats.t.ppf(0.975, 9)
    assert Estimate(5.0, 1.0, 9).interval() == pytest.approx((5 - half, 5 + half))


@pytest.mark.parametrize(("value", "verdict"), [(0.5, "worse"), (-0.5, "better"), (0.0, "unclear")])
def test_any_change_counts_that_is_told_apart(value, verdict):
    assert concluded(Estimate(value, 0.1, 9), 0.01, 0.1) == verdict
