"""The figures of a comparison, each worked out by hand: means, intervals, margins, units."""

import math

import numpy as np
import pytest
from record_factories import XEON, measurement, points, record, seconds
from scipy import stats

from bench.comparison.compare import compare
from bench.comparison.matching import by, sides
from bench.comparison.observations import observations
from bench.comparison.statistics import rounds_needed

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


def test_runs_of_one_seed_count_by_their_mean():
    a = [record(run="a", seed=seed, curve=points(-100.0)) for seed in (0, 1)]
    b = [record(run=f"b{i}", seed=i % 2, curve=points(loss)) for i, loss in enumerate((-99.0, -96.0, -97.0, -98.0))]
    row = row_of(a, b, "final train loss")
    assert (row.b, row.estimate.value, row.noise) == (-97.5, 2.5, "seeds")  # −98 of seed 0, −97 of seed 1
    assert row.estimate.error == pytest.approx(0.5)


def test_of_rounding_errors_the_largest_of_a_side_counts():
    def made(run, *values):
        return [
            record(run=f"{run}{i}", measurements=[measurement("agreement", "z", v, "1")]) for i, v in enumerate(values)
        ]

    row = row_of(made("a", 1e-7, 3e-7, 2e-7), made("b", 1e-9, 6e-7), "error of z")
    assert (row.a, row.b) == (3e-7, 6e-7)
    assert math.exp(row.estimate.value) == pytest.approx(2.0)


def test_the_final_loss_is_the_last_and_the_best_the_lowest():
    a, b = record(run="a", curve=points(-4.0, -9.0, -8.0)), record(run="b", curve=points(-5.0, -7.0, -6.0))
    assert [row_of([a], [b], name).estimate.value for name in ("final train loss", "best train loss")] == [2.0, 2.0]
    assert row_of([a], [b], "best train loss").a == -9.0


def test_the_family_of_a_figure_are_those_of_its_topic():
    noisy, shifted = (10.0, 10.9, 9.2, 10.4, 9.6), (11.0, 11.9, 10.2, 11.4, 10.6)

    def made(run, values):
        memory = [measurement("training", "peak_memory", 100.0 + v, "bytes", round=i) for i, v in enumerate(noisy, 1)]
        return [record(name, run=run, measurements=[*seconds(*values), *memory]) for name in ("torch", "jax")]

    rows = [*compare(sides(observations(made("a", noisy)), observations(made("b", shifted))), runs=False)]
    speed = [row for row in rows if row.pair.quantity.topic == "speed"]
    assert len(speed) == 2
    assert len(rows) == 4
    for row in speed:  # two that are equal stay as they are; among the four they would be twice as large
        assert row.p == pytest.approx(float(row.estimate.p))


def test_all_backends_together_are_the_mean_of_their_logarithms():
    def made(run, *factors):
        values = zip(("torch", "jax", "tensorflow"), factors, strict=True)
        return [record(name, run=run, measurements=seconds(*(f * v for v in (1.0, 1.1, 0.9)))) for name, f in values]

    rows = compare(sides(observations(made("a", 1.0, 2.0, 3.0)), observations(made("b", 1.0, 2.0, 24.0))))
    (whole,) = [row for row in rows if row.whole]
    assert math.exp(whole.estimate.value) == pytest.approx(2.0)


def test_one_disturbed_round_is_enough_and_rounds_of_a_sweep_are_none():
    shares = [measurement("training", "others_share", v, "1", round=i) for i, v in ((1, 0.0), (2, 0.5))]
    (run,) = {each.disturbed for each in observations([record(measurements=[*seconds(1.0, 2.0), *shares])])}
    assert run
    step = measurement("peers", "step_seconds", 1.0, "s", peer="p", round=3)
    assert [each.round for each in observations([record(kind="peers", measurements=[step])])] == [0]


def test_the_rounds_that_are_needed_go_by_the_noise_within_pairs():
    drifting, own = np.array([0.0, 0.5, -0.5, 0.2]), np.array([0.1, -0.1, 0.05, 0.0])
    a = record("torch", run="a", measurements=seconds(*np.exp(drifting)))
    b = record("jax", run="a", measurements=seconds(*np.exp(drifting + own)))
    (row,) = compare(by(observations([a, b]), "backend"), runs=False)
    assert (row.noise, row.verdict) == ("paired rounds", "unclear")
    assert row.rounds == rounds_needed(own.std(ddof=1), math.log(1.1), pairs=True)
