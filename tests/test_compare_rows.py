"""What follows from a pair of figures: units, noise, verdicts and their order, by hand."""

import math

import numpy as np
import pytest
from compare_factories import compared, only, times, within
from record_factories import EPYC, XEON, likelihood, measurement, points, record, seconds

from bench.comparison.compare import ITSELF, WITHIN, Margins, compare
from bench.comparison.matching import by, sides
from bench.comparison.observations import observations
from bench.comparison.statistics import rounds_needed


def error_of(run, *values):
    return [record(run=f"{run}{i}", measurements=[measurement("agreement", "z", v, "1")]) for i, v in enumerate(values)]


@pytest.mark.parametrize(("error", "verdict"), [(0.0, "same"), (1e-16, "same"), (1e-15, "same"), (2e-15, "worse")])
def test_an_error_below_a_rounding_counts_as_one(error, verdict):
    row = only(compared(error_of("a", 0.0), error_of("b", error)), "error of z")
    assert (row.verdict, row.a, row.b, row.n) == (verdict, 0.0, error, (1, 1))
    assert math.isnan(row.p)
    assert only(compared(error_of("a", error), error_of("b", 0.0)), "error of z").verdict in (verdict, "better")


def test_the_same_observations_on_both_sides_are_the_same_run():
    made = record(measurements=times())
    row = only(compared(made, made))
    assert (row.noise, row.verdict, float(row.estimate.value)) == (ITSELF, "same", 0.0)
    assert math.isnan(row.p)
    assert math.isnan(row.bounds()[0])


@pytest.mark.parametrize(("factor", "verdict"), [(1.004, "same"), (1.006, "worse"), (1 / 1.006, "better")])
def test_half_a_percent_is_the_least_change_of_a_time_however_sure(factor, verdict):
    a, b = (record(run=run, measurements=seconds(*[value] * 3)) for run, value in (("a", 1.0), ("b", factor)))
    assert only(compared(a, b)).verdict == verdict


def test_a_loss_has_no_least_change():
    a = [record(run="a", seed=seed, curve=points(-100.0)) for seed in range(3)]
    b = [record(run="b", seed=seed, curve=points(-100.0 + 1e-6)) for seed in range(3)]
    assert only(compared(a, b), "final train loss").verdict == "worse"


def test_margins_are_of_ratios_and_of_nats():
    noise = (0.0, 0.4, -0.4, 0.1)
    a = [record(run="a", seed=i, measurements=times(), curve=points(-100.0)) for i in range(4)]
    b = [
        record(run="b", seed=i, measurements=times(1.0, (10, 11, 9, 10, 10)), curve=points(-100.0 + x))
        for i, x in enumerate(noise)
    ]
    for margins, loss, speed in (
        (Margins(ratio=0.5, nats=5.0), "same", "same"),
        (Margins(ratio=0.001, nats=5.0), "same", "unclear"),
        (Margins(ratio=0.5, nats=0.01), "unclear", "same"),
    ):
        rows = compare(sides(observations(a[:1] + a[1:]), observations(b)), margins, runs=False)
        assert only(rows, "final train loss").verdict == loss
        assert only(rows).verdict == speed


def test_the_largest_change_in_margins_comes_first_whatever_its_unit():
    def made(run, nats, ratio, more):
        memory = [measurement("training", "peak_memory", more + i * 1e-6, "bytes", round=i) for i in (1, 2, 3)]
        return [
            record(run=run, seed=i, measurements=[*times(ratio), *memory], curve=points(-100.0 + nats + i * 1e-4))
            for i in range(3)
        ]

    rows = compare(sides(observations(made("a", 0.0, 1.0, 100.0)), observations(made("b", 3.0, 1.2, 90.0))), runs=False)
    labels = [row.pair.quantity.label for row in rows]
    assert labels.index("final train loss") < labels.index("s/epoch") < labels.index("peak memory")  # 3, 1.9, 1.1
    assert [row.verdict for row in rows][-1] == "better"
    a, b = (
        [*error_of(run, z), record(run=run, measurements=times(t))] for run, z, t in (("a", 1e-7, 1), ("b", 2e-6, 1.2))
    )
    labels = [row.pair.quantity.label for row in compared(a, b)]
    assert labels == ["s/epoch", "error of z"]  # 1.9 margins and, of an order of magnitude each, 1.3


def test_rounds_that_are_needed_go_by_the_deviation_of_a_round():
    a = [record(run="a", measurements=seconds(10.0, 12.0, 9.0, 11.0, 10.5))]
    b = [record(run="b", measurements=seconds(10.4, 11.4, 9.9))]
    row = only(compared(a, b))
    deviation = float(row.estimate.error) / math.sqrt(1 / 5 + 1 / 3)
    assert (row.n, row.verdict) == ((5, 3), "unclear")
    assert row.rounds == rounds_needed(deviation, math.log(1.1)) > 5
    wide = [record(run="a", seed=i, curve=points(-100.0 - 9 * i)) for i in range(3)]
    other = [record(run="b", seed=i + 5, curve=points(-100.0 - 7 * i)) for i in range(3)]
    assert only(compared(wide, other), "final train loss").rounds is None


def test_one_small_p_among_many_is_said_to_be_chance():
    noisy = (10.0, 10.9, 9.2, 10.4, 9.6)

    def judged(count, factor):
        a, b = ([noisy if i else [f * v for v in noisy] for i in range(count)] for f in (1.0, factor))
        sides = (
            [record(f"b{i}", run=run, measurements=seconds(*v)) for i, v in enumerate(its)]
            for run, its in (("a", a), ("b", b))
        )
        row = only(compared(*sides), backend="b0")
        return row.verdict, "chance" in row.note

    assert judged(1, 1.12) == ("worse", False)
    assert judged(20, 1.12) == ("unclear", True)  # 2.7 % alone
    assert judged(20, 1.1) == ("unclear", False)  # 5.3 % alone


def test_the_noise_within_a_process_gives_an_interval_and_no_verdict():
    def made(run, value, low, high):
        timed = measurement("sampling", "latency", value, "s", low, high, 31, batch=1)
        return record(run=run, measurements=[timed])

    row = only(compared(made("a", 1.0, 0.9, 1.2), made("b", 2.0, 1.8, 2.4)), "sampling")
    error = math.hypot(math.log(1.2 / 0.9), math.log(2.4 / 1.8)) / (2 * 1.96)
    assert (row.noise, row.verdict, row.n) == (WITHIN, "unclear", (1, 1))
    assert row.estimate.error == pytest.approx(error)
    for low, high in ((None, None), (None, 2.4), (1.8, None), (0.0, 2.4)):
        row = only(compared(made("a", 1.0, 0.9, 1.2), made("b", 2.0, low, high)), "sampling")
        assert math.isnan(row.estimate.error)


def test_runs_of_one_seed_are_compared_as_runs_and_those_of_several_as_seeds():
    def made(run, *losses, seeds=None):
        seeds = seeds or [0] * len(losses)
        return [
            record(run=f"{run}{i}", seed=s, curve=points(x)) for i, (x, s) in enumerate(zip(losses, seeds, strict=True))
        ]

    row = only(compared(made("a", -5.0, -6.0), made("b", -4.0, -4.5, -5.0)), "final train loss")
    assert (row.noise, row.n, row.a, row.b) == ("runs", (2, 3), -5.5, -4.5)
    row = only(compared(made("a", -5.0, -6.0, seeds=[1, 2]), made("b", -4.0, -4.5, seeds=[3, 4])), "final train loss")
    assert (row.noise, row.n) == ("seeds", (2, 2))
    row = only(compared(made("a", -5.0), made("b", -4.0, -4.6)), "final train loss")
    assert (row.noise, row.n, row.verdict) == ("runs", (1, 2), "unclear")
    assert row.rounds is None  # rounds of a run have one loss


def test_the_unit_is_the_run_where_a_figure_is_of_a_whole_run():
    def made(run, *values):
        return [
            record(run=f"{run}{i}", measurements=[measurement("sampling", "latency", v, "s", batch=1)])
            for i, v in enumerate(values)
        ]

    assert only(compared(made("a", 1.0, 1.1), made("b", 1.2, 1.3)), "sampling").noise == "runs"
    a, b = ([record(run=f"{run}{i}", measurements=seconds(v)) for i, v in enumerate((1.0, 1.1))] for run in "ab")
    assert only(compared(a, b)).noise == "rounds"


def test_a_loss_that_two_records_of_a_run_have_is_one():
    a, b = ([record(run=run, epochs=n, curve=points(*[-5.0] * n)) for n in (3, 3)] for run in "ab")
    row = only(compared(a, b), "final train loss")
    assert (row.n, row.noise) == ((1, 1), "")


def test_rounds_are_pairs_only_where_both_sides_have_two_of_them():
    a = record("torch", measurements=seconds(10.0, 12.0, 9.0))
    later = [m.model_copy(update={"context": {"round": i}}) for i, m in enumerate(seconds(11.0, 10.0, 13.0), 3)]
    (row,) = within([a, record("jax", measurements=later)], "backend")
    assert (row.noise, row.n) == ("rounds", (3, 3))


def test_what_is_not_compared_says_why_and_a_floor_of_another_machine_what_it_is():
    a, b = (record(run=run, machine=machine, measurements=times()) for run, machine in (("a", EPYC), ("b", XEON)))
    assert only(compared(a, b)).note.startswith("another machine (")

    def note(machine):
        floors = (
            record(run=run, machine=where, measurements=[measurement("floor", "training_ratio", 2.0, "1", round=1)])
            for run, where in (("a", EPYC), ("b", machine))
        )
        return only(compared(*floors), "s/epoch × floor").note

    assert note(XEON).startswith("another machine: how near")
    assert note(EPYC) == ""


def test_draws_are_the_noise_only_of_one_evaluation_on_either_side():
    def made(run, *values, draws=10):
        some = [likelihood(value, 0.5) for value in values]
        figures = [m.model_copy(update={"n": draws}) for its in some for m in its]
        return [record(run=run, measurements=figures)]

    row = only(compared(made("a", 1900.0), made("b", 1899.0, draws=20)), "test log-likelihood")
    assert (row.noise, row.n, row.a, row.b) == ("noise draws", (10, 20), 1900.0, 1899.0)
    assert float(row.estimate.value) == 1.0  # worse
    assert float(row.estimate.error) == pytest.approx(math.sqrt(0.5))
    for a, b in ((made("a", 1.0, draws=1), made("b", 2.0)), (made("a", 1.0), made("b", 2.0, draws=None))):
        row = only(compared(a, b), "test log-likelihood")
        assert (row.noise, row.verdict) == ("", "unclear")
        assert math.isnan(row.estimate.error)
    half = made("b", 2.0)
    half[0].measurements[0] = half[0].measurements[0].model_copy(update={"high": None})
    assert only(compared(made("a", 1.0), half), "test log-likelihood").noise == ""
    two = made("a", 1.0, draws=2)
    assert only(compared(two, made("b", 2.0)), "test log-likelihood").noise == "noise draws"


# All backends together


def several(run, factor, machine=EPYC, names=("torch", "jax"), values=(10.0, 10.1, 9.9), **about):
    return [record(n, run=run, machine=machine, measurements=times(factor, values), **about) for n in names]


def wholes(a, b):
    return [row for row in compared(a, b) if row.whole]


def test_each_machine_and_precision_has_all_its_backends_together():
    a = [*several("a", 1.0), *several("c", 1.0, XEON), *several("e", 1.0, precision="tf32")]
    b = [*several("b", 1.5), *several("d", 2.0, XEON), *several("f", 3.0, precision="tf32")]
    found = {(row.pair.about.machine, row.pair.about.precision): math.exp(row.estimate.value) for row in wholes(a, b)}
    assert found == {
        ("AMD EPYC, 2 cores", "float32"): pytest.approx(1.5),
        ("Intel Xeon, 4 cores", "float32"): pytest.approx(2.0),
        ("AMD EPYC, 2 cores", "tf32"): pytest.approx(3.0),
    }


def test_one_backend_or_one_round_is_no_whole():
    assert wholes(several("a", 1.0, names=("torch",)), several("b", 2.0, names=("torch",))) == []
    assert wholes(several("a", 1.0, values=(10.0,)), several("b", 2.0, values=(11.0,))) == []
    (row,) = wholes(several("a", 1.0, values=(10.0, 11.0)), several("b", 2.0, values=(10.0, 11.0)))
    assert (row.n, row.noise) == ((2, 2), "rounds")
    (row,) = wholes(several("a", 1.0, values=(10.0,)), several("b", 2.0, values=(10.0, 11.0)))
    assert (row.n, row.noise) == ((1, 2), "rounds")
    of_losses = [
        [record(name, run=f"{run}{i}", curve=points(-5.0 - i)) for name in ("torch", "jax") for i in range(3)]
        for run in "ab"
    ]
    assert wholes(*of_losses) == []


def test_a_whole_is_of_the_rounds_that_all_backends_have():
    def made(run, first):
        later = [m.model_copy(update={"context": {"round": i}}) for i, m in enumerate(seconds(10.0, 11.0), first)]
        return [record("torch", run=run, measurements=seconds(10.0, 11.0)), record("jax", run=run, measurements=later)]

    assert wholes(made("a", 3), made("b", 1)) == []  # none of A's
    assert wholes(made("a", 2), made("b", 2)) == []  # one of each
    (row,) = wholes(made("a", 2), made("b", 1))
    assert row.n == (1, 2)


def test_a_whole_of_interleaved_variants_is_of_pairs_and_has_their_names():
    drift = np.exp([0.0, 0.3, -0.2])
    noise = np.exp([0.01, 0.0, -0.01])
    records = [
        record(name, mode=mode, measurements=seconds(*values))
        for name in ("torch", "jax")
        for mode, values in (("eager", 10 * drift), ("compile", 11 * drift * noise))
    ]
    (row,) = [row for row in compare(by(observations(records), "mode")) if row.whole]
    assert (row.noise, row.n) == ("paired rounds", (3, 3))
    assert (row.pair.a_name, row.pair.b_name) == ("compile", "eager")
    assert float(row.estimate.error) == pytest.approx(0.01 / math.sqrt(3))


def test_backends_of_a_round_are_slow_together_so_that_the_noise_is_that_of_rounds():
    drift = np.exp([0.0, 0.3, -0.2])
    a = several("a", 1.0, values=10 * drift)
    b = several("b", 1.1, values=10 * drift)
    (row,) = wholes(a, b)
    assert float(row.estimate.error) == pytest.approx(np.std(np.log(drift), ddof=1) * math.sqrt(2 / 3))
    assert "drift" in row.note


def test_three_runs_make_runs_the_unit_of_the_whole_too():
    a = [each for i in range(3) for each in several(f"a{i}", 1.0 + 0.1 * i)]
    b = [each for i in range(3) for each in several(f"b{i}", 2.0 + 0.2 * i)]
    (row,) = wholes(a, b)
    assert (row.noise, row.n) == ("runs", (3, 3))
    assert math.exp(row.estimate.value) == pytest.approx(2.0)
