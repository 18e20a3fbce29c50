"""The figures of a comparison, each worked out by hand: means, intervals, margins, units."""

import math

import numpy as np
import pytest
from record_factories import XEON, measurement, points, record, seconds
from scipy import stats

from bench.comparison.compare import compare
from bench.comparison.matching import sides
from bench.comparison.observations import observations

PATTERN = np.array([1.0, -1.0, 2.0, -2.0, 0.0])


def row_of(a, b, label):
    (row,) = [
        row for row in compare(sides(observations(a), observations(b)), runs=False) if label in row.pair.quantity.label
    ]
    return row


@pytest.mark.parametrize(("share", "verdict"), [(0.999, "same"), (1.001, "unclear")])
def test_times_are_the_same_where_ten_percent_more_is_ruled_out(share, verdict):
    unit = stats.t.ppf(0.95, 8) * PATTERN.std(ddof=1) * math.sqrt(2 / 5)
    logs = PATTERN * share * math.log(1.1) / unit
    a, b = (record(run=run, measurements=seconds(*np.exp(logs * sign))) for run, sign in (("a", 1), ("b", -1)))
    assert row_of([a], [b], "s/epoch").verdict == verdict


@pytest.mark.parametrize(("share", "verdict"), [(0.999, "same"), (1.001, "unclear")])
def test_losses_are_the_same_where_a_nat_more_is_ruled_out(share, verdict):
    unit = stats.t.ppf(0.95, 4) * PATTERN.std(ddof=1) / math.sqrt(5)
    apart = 0.1 + PATTERN * (share * 1.0 - 0.1) / unit
    a = [record(run="a", seed=seed, curve=points(-100.0)) for seed in range(5)]
    b = [record(run="b", seed=seed, curve=points(-100.0 + more)) for seed, more in enumerate(apart)]
    assert row_of(a, b, "final train loss").verdict == verdict


def test_the_rounds_of_a_run_have_a_geometric_mean():
    a = [record(run=f"a{i}", measurements=seconds(1.0, 1.0, 8.0)) for i in range(3)]
    b = [record(run=f"b{i}", measurements=seconds(*[value] * 3)) for i, value in enumerate((2.0, 2.2, 1.8))]
    row = row_of(a, b, "s/epoch")
    assert (row.a, row.noise) == (pytest.approx(2.0), "runs")
    assert math.exp(row.estimate.value) == pytest.approx((2.2 * 1.8 / 4) ** (1 / 3))


def test_what_cannot_be_compared_has_geometric_means_of_its_own():
    a, b = (
        record(run="a", measurements=seconds(1.0, 4.0)),
        record(run="b", machine=XEON, measurements=seconds(2.0, 18.0)),
    )
    row = row_of([a], [b], "s/epoch")
    assert (row.a, row.b) == pytest.approx((2.0, 6.0))
    assert row.verdict == "incomparable"


def test_the_intervals_of_two_processes_add_up_in_squares():
    a, b = (
        record(run=run, measurements=[measurement("sampling", "latency", v, "s", v / ratio, v * ratio, 31, batch=1)])
        for run, v, ratio in (("a", 1.0, 1.1), ("b", 2.0, 1.2))
    )
    half = math.hypot(math.log(1.1), math.log(1.2))  # both are 95 % intervals
    assert row_of([a], [b], "sampling").bounds() == pytest.approx((math.log(2) - half, math.log(2) + half), rel=1e-3)


def test_what_a_process_repeats_has_the_error_of_its_mean():
    def made(run, *logs):
        steps = [
            measurement("peers", "step_seconds", math.exp(log), "s", peer="p", round=i) for i, log in enumerate(logs)
        ]
        return [record(run=run, kind="peers", measurements=steps)]

    row = row_of(made("a", 0.0, 0.1, 0.2), made("b", 0.5, 0.7), "peer")
    assert row.estimate.value == pytest.approx(0.5)
    assert row.estimate.error == pytest.approx(math.sqrt(0.01 / 3 + 0.02 / 2))
