"""Comparisons of synthetic records: what is put together, what isn't, and what follows."""

import math

import numpy as np
import pytest
from compare_factories import a_and_b, compared, only, times, within
from record_factories import EPYC, XEON, likelihood, measurement, points, record, seconds

from bench.comparison.compare import ALL, DRIFT, Margins, compare
from bench.comparison.compare_tables import figure, plain, table, word
from bench.comparison.matching import by, sides
from bench.comparison.observations import observations
from bench.errors import BenchError
from bench.tables.render import render

# Speed


@pytest.mark.parametrize("limit", [{"cpu_quota": 1.0}, {"variables": {"OMP_NUM_THREADS": "1"}}])
def test_fewer_threads_or_a_quota_are_another_machine(limit):
    free = EPYC | {"cpu_quota": None}
    a, b = a_and_b(2.0, machine=free | limit)
    row = only(compared(a.model_copy(update={"environment": free}), b))
    assert row.pair.reason.startswith("another machine (AMD EPYC, 2 cores; AMD EPYC, 2 cores, ")


def test_ten_percent_more_is_slower_and_the_other_way_round_faster():
    a, b = a_and_b(1.1)
    slower, faster = only(compared(a, b)), only(compared(b, a))
    assert (word(slower), word(faster)) == ("slower", "faster")
    assert math.exp(slower.estimate.value) == pytest.approx(1.1)
    assert math.exp(faster.estimate.value) == pytest.approx(1 / 1.1)
    low, high = np.exp(slower.bounds())
    assert 1.08 < low < 1.1 < high < 1.12


def test_the_same_again_is_the_same_within_noise():
    assert word(only(compared(*a_and_b(1.003)))) == "same within noise"


def test_a_certain_change_too_small_to_be_seen_in_the_figures_is_none():
    a, b = (record(run=run, measurements=seconds(*[value] * 5)) for run, value in (("a", 1.0), ("b", 1.004)))
    assert only(compared(a, b)).verdict == "same"


def test_two_noisy_rounds_cannot_tell_and_say_how_many_would():
    a, b = (record(run=run, measurements=seconds(*values)) for run, values in (("a", (10, 10.8)), ("b", (10.5, 11.4))))
    row = only(compared(a, b))
    assert word(row) == "can't tell"
    assert 3 < row.rounds < 30
    assert f"2 rounds, {row.rounds} needed" in render(table([row]), "text").replace("\n", " ")


def test_within_a_wider_margin_it_is_the_same():
    pairs = [*sides(observations([a_and_b()[0]]), observations([a_and_b(1.02, (10, 11, 9, 10.5, 9.5))[1]]))]
    assert [row.verdict for row in compare(pairs, Margins(ratio=0.05))] == ["unclear"]
    assert [row.verdict for row in compare(pairs, Margins(ratio=0.3))] == ["same"]


def test_a_run_is_the_same_as_itself():
    a = record(measurements=seconds(10, 20))  # whose rounds alone could tell nothing
    assert only(compared(a, a)).verdict == "same"
    assert math.exp(only(compared(a, a)).estimate.value) == 1


def test_a_run_that_is_on_both_sides_is_told():
    a, b = a_and_b(1.1)
    assert only(compared(a, [a, b])).note == f"{DRIFT}; a run that is on both sides hides part of a change"
    assert only(compared(a, b)).note == DRIFT


def test_throughput_counts_the_other_way_round():
    def made(side, *rates):
        figures = [measurement("likelihood", "images_per_second", rate, "images/s", batch=8) for rate in rates]
        return [record(run=f"{side}{i}", measurements=[figure]) for i, figure in enumerate(figures)]

    row = only(compared(made("a", 100.0, 101.0, 99.0), made("b", 50.0, 51.0, 49.0)), "log p")
    assert word(row) == "slower"
    assert math.exp(row.estimate.value) == pytest.approx(2, rel=0.01)
    assert row.noise == "runs"


def test_one_process_decides_nothing_however_sure_it_is_of_itself():
    def made(run, value):
        timed = measurement("sampling", "latency", value, "s", 0.999 * value, 1.001 * value, 31, batch=1)
        return record(run=run, measurements=[timed])

    row = only(compared(made("a", 1.0), made("b", 2.0)), "sampling")
    assert (row.verdict, row.noise) == ("unclear", "one process")
    assert np.exp(row.bounds()) == pytest.approx([2.0, 2.0], rel=0.01)


def test_three_runs_on_either_side_are_the_unit_so_that_drift_between_them_counts():
    def made(side, *factors):
        return [record(run=f"{side}{i}", measurements=times(factor)) for i, factor in enumerate(factors)]

    a, b = made("a", 1.0, 1.2, 0.9), made("b", 1.1, 1.3, 1.0)
    assert only(compared(a[:2], b[:2])).noise == "rounds"
    row = only(compared(a, b))
    assert (row.n, row.noise, row.verdict) == ((3, 3), "runs", "unclear")


def test_separate_runs_say_that_drift_between_them_is_not_in_the_interval():
    rows = compared(*a_and_b(1.1))
    assert word(only(rows)) == "slower"
    assert f"5 rounds; {DRIFT}" in " ".join(render(table(rows), "markdown").split())
    assert plain(only(rows))["note"] == DRIFT


def test_the_rounds_of_one_run_are_pairs_and_those_of_two_runs_are_not():
    drifting = (10.0, 13.0, 9.0, 12.0)  # which both have in common

    def made(run):
        own = zip(drifting, (1.10, 1.11, 1.09, 1.10), strict=True)
        return [
            record("torch", run="a", measurements=seconds(*drifting)),
            record("jax", run=run, measurements=seconds(*(value * factor for value, factor in own))),
        ]

    (row,) = within(made("a"), "backend")
    assert (word(row), row.noise, row.n, row.note) == ("slower", "paired rounds", (4, 4), "")
    (row,) = within(made("b"), "backend")
    assert (word(row), row.noise, row.note) == ("can't tell", "rounds", DRIFT)


def test_a_record_given_twice_counts_once():
    a, b = a_and_b(1.1)
    assert only(compared([a, a], b)).n == (5, 5)
    a, b = (record(run=run, measurements=likelihood(1900.0, 0.1)) for run in "ab")
    assert only(compared([a, a], b), "test log-likelihood").noise == "noise draws"


def test_all_backends_of_a_run_are_a_figure_of_their_own():
    def made(run, factor):
        return [
            record(name, run=run, measurements=times(factor * size)) for name, size in (("torch", 1.0), ("jax", 3.0))
        ]

    (whole,) = [row for row in compared(made("a", 1.0), made("b", 1.1)) if row.whole]
    assert whole.pair.context == ALL
    assert (whole.pair.a_name, whole.pair.b_name) == ("A", "B")
    assert math.exp(whole.estimate.value) == pytest.approx(1.1)
    assert word(whole) == "slower"


def test_all_backends_bear_no_frameworks_version():
    def made(version):
        packages = dict.fromkeys(("torch", "jax"), version)
        return [
            record(name, run=version, packages=packages, measurements=times(size))
            for name, size in (("torch", 1.0), ("jax", 3.0))
        ]

    rows = [row for row in compared(made("1.0"), made("2.0")) if row.pair.quantity.topic == "speed"]
    names = {(row.whole, row.pair.a_name, row.pair.b_name) for row in rows}
    own = {(False, f"{name} 1.0", f"{name} 2.0") for name in ("torch", "jax")}
    assert names == own | {(True, "A", "B")}


def test_all_backends_are_a_figure_of_training_alone_and_of_each_group_that_has_several():
    def made(run, factor):
        rounds = [10.0, 10.1, 9.9]
        more = [measurement("sampling", "latency", factor * t, "s", batch=8, round=i) for i, t in enumerate(rounds, 1)]
        its = [record(name, run=run, measurements=[*times(factor, rounds), *more]) for name in ("torch", "jax")]
        return [record("torch", run=run, precision="bfloat16", measurements=times(factor, rounds)), *its]

    (whole,) = [row for row in compared(made("a", 1.0), made("b", 1.2)) if row.whole]
    assert (whole.pair.quantity.topic, whole.pair.about.precision) == ("speed", "float32")
    assert (whole.pair.a_name, whole.pair.b_name) == ("A", "B")


def test_two_rounds_that_were_interleaved_are_pairs():
    made = [record("torch", measurements=seconds(10.0, 20.0)), record("jax", measurements=seconds(11.0, 22.0))]
    (row,) = within(made, "backend")
    assert (row.noise, row.n) == ("paired rounds", (2, 2))


def test_what_changed_most_by_its_own_margin_comes_first():
    a, b = (
        record(run=run, measurements=[*times(factor), *likelihood(1900.0 - lost, 0.1)])
        for run, factor, lost in (("a", 1.0, 0.0), ("b", 1.5, 3.0))
    )
    rows = [row.pair.quantity.topic for row in compared(a, b) if row.verdict == "worse"]
    assert rows == ["speed", "likelihood"]


def test_among_many_figures_one_small_p_is_no_finding():
    noisy = (10.0, 10.9, 9.2, 10.4, 9.6)
    shifted = [value * 1.085 for value in noisy]
    names = [f"backend{i}" for i in range(20)]

    def made(run, values):
        return [record(name, run=run, measurements=seconds(*(values if name == names[0] else noisy))) for name in names]

    a = made("a", noisy)
    alone = only(compared(a[:1], made("b", shifted)[:1]))
    assert alone.p == pytest.approx(float(alone.estimate.p))
    among = only(compared(a, made("b", shifted)), backend=names[0])
    assert among.p > 5 * alone.p


# What doesn't belong together


def test_another_machine_is_said_and_not_divided():
    def with_floor(run, machine, floor):
        ratios = [measurement("floor", "training_ratio", floor + 0.01 * i, "1", round=i) for i in range(1, 6)]
        return record(run=run, machine=machine, measurements=[*times(), *ratios])

    rows = compared(with_floor("a", EPYC, 1.1), with_floor("b", XEON, 1.5))
    time, floor = only(rows), only(rows, "s/epoch × floor")
    assert word(time) == "not comparable"
    assert np.isnan(time.estimate.value)
    assert "another machine (AMD EPYC, 2 cores; Intel Xeon, 4 cores)" in time.pair.reason
    assert word(floor) == "farther from it"
    assert "another machine" in floor.note
    assert "another machine: how near" in " ".join(render(table(rows), "markdown").split())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"precision": "bfloat16"}, "another precision (float32; bfloat16)"),
        ({"seen": "tf32"}, "another precision (float32; float32 (seen tf32))"),
        ({"protocol": "paper"}, "another protocol (article; paper)"),
        ({"protocol_digest": "f" * 16}, "another protocol of this name"),
        ({"epochs": 4, "protocol_digest": "f" * 16}, "another network, optimiser, batch, epochs or loss"),
    ],
)
def test_what_makes_figures_incomparable_is_told(change, told):
    row = only(compared(*a_and_b(1.1, **change)))
    assert (row.verdict, row.pair.reason) == ("incomparable", told)
    assert np.isnan(row.estimate.value)


def test_the_digest_can_be_ignored_and_the_network_can_not():
    assert only(compared(*a_and_b(1.1, protocol_digest="f" * 16), ignore_digest=True)).verdict == "worse"
    row = only(compared(*a_and_b(1.1, batch=64), ignore_digest=True))
    assert row.verdict == "incomparable"


def test_a_missing_counterpart_is_told():
    a = [record(name, run="a", measurements=times()) for name in ("torch", "jax")]
    b = [record("torch", run="b", measurements=times())]
    assert only(compared(a, b), backend="jax").pair.reason == "only in A"
    assert only(compared(b, a), backend="jax").pair.reason == "only in B"


def test_a_failed_record_gives_no_figures():
    a, b = a_and_b(1.1, status="diverged", reason="loss is nan")
    assert only(compared(a, b)).pair.reason == "only in A"


def test_two_single_records_are_compared_whatever_their_backends():
    a, b = record("torch", run="a", measurements=times()), record("jax", run="a", measurements=times(0.8))
    row = only(compared(a, b))
    assert word(row) == "faster"
    assert (row.pair.a_name, row.pair.b_name) == ("torch torch 2.13.0", "jax jax 0.10.2")


def test_another_mode_is_another_thing_among_several_backends():
    a = [record("torch", mode="eager", run="a", measurements=times()), record("jax", run="a", measurements=times())]
    b = [record("torch", mode="compile", run="b", measurements=times()), record("jax", run="b", measurements=times())]
    assert only(compared(a, b), backend="torch").pair.reason == "another mode (eager; compile)"


def test_versions_are_compared_where_each_side_has_one_and_never_mixed():
    def made(run, version, factor=1.0):
        return record(run=run, packages={"torch": version}, measurements=times(factor))

    row = only(compared(made("a", "2.12"), made("b", "2.13", 1.1)))
    assert (word(row), row.pair.a_name, row.pair.b_name) == ("slower", "torch 2.12", "torch 2.13")
    rows = compared([made("a", "2.12"), made("a2", "2.13", 2.0)], made("b", "2.13", 2.0))
    assert sorted(row.verdict for row in rows) == ["incomparable", "same"]


# Losses


def losses(*finals, run="a", first_seed=0):
    return [
        record(run=run, seed=seed, curve=points(-1.0, final, test=[-2.0, -3.0]))
        for seed, final in enumerate(finals, first_seed)
    ]


def test_losses_differ_by_nats_and_have_no_ratio():
    row = only(compared(losses(-100.0), losses(-99.0, run="b")), "final train loss")
    assert figure(row) == "+1.00 nats"
    assert (row.verdict, plain(row)["compared"], plain(row)["value"]) == ("unclear", "difference", 1.0)
    assert only(compared(losses(-100.0), losses(-100.0, run="b")), "best selection loss").verdict == "same"


def test_seeds_in_common_are_pairs():
    a = (-100.0, -120.0, -90.0, -110.0)
    b = [loss + 0.05 + 0.001 * i for i, loss in enumerate(a)]
    row = only(compared(losses(*a), losses(*b, run="b")), "final train loss")
    assert (row.noise, row.n, word(row)) == ("seeds", (4, 4), "worse")
    assert row.estimate.value == pytest.approx(0.0515)
    other = losses(*b, run="b", first_seed=9)
    assert only(compared(losses(*a), other), "final train loss").verdict == "unclear"


def test_noise_draws_speak_of_these_weights_and_more_likelihood_is_better():
    a, b = (record(run=run, measurements=likelihood(value, 0.1)) for run, value in (("a", 1900.0), ("b", 1890.0)))
    row = only(compared(a, b), "test log-likelihood")
    assert (row.noise, row.n, word(row)) == ("noise draws", (10, 10), "worse")
    assert figure(row).startswith("-10.0 nats [-10.3 to -9.7")
    assert plain(row)["value"] == -10.0
    assert plain(row)["low"] < -10 < plain(row)["high"] < 0


def test_losses_of_another_machine_are_comparable():
    a, b = record(run="a", curve=points(-5.0)), record(run="b", machine=XEON, curve=points(-5.0))
    assert only(compared(a, b), "final train loss").verdict == "same"


@pytest.mark.parametrize(("error", "verdict"), [(3e-7, "same"), (9.9e-7, "same"), (1.01e-6, "worse"), (1e-9, "better")])
def test_errors_of_rounding_are_compared_by_their_magnitude(error, verdict):
    a, b = (
        record(run=run, measurements=[measurement("agreement", "z", value, "relative", weights="initial")])
        for run, value in (("a", 1e-7), ("b", error))
    )
    assert only(compared(a, b), "error of z").verdict == verdict


# Within one set


def backends_of_one_run():
    return [
        record(name, mode=mode, run="a", measurements=times(factor))
        for name, mode, factor in (("jax", "scan", 0.8), ("torch", "compile", 1.0), ("torch", "eager", 1.2))
    ]


def test_by_backend_each_is_held_against_the_first():
    rows = within(backends_of_one_run(), "backend")
    assert [(row.pair.a_name, row.pair.b_name, word(row)) for row in rows] == [
        ("torch compile", "jax", "faster"),
        ("torch compile", "torch eager", "slower"),
    ]
    rows = within(backends_of_one_run(), "backend", "jax")
    assert {row.pair.b_name: word(row) for row in rows} == {"torch compile": "slower", "torch eager": "slower"}


def test_by_mode_stays_within_a_backend():
    (row,) = within(backends_of_one_run(), "mode")
    assert (row.pair.about.backend, row.pair.a_name, row.pair.b_name) == ("torch", "compile", "eager")


def test_by_version_the_oldest_comes_first():
    made = [record(packages={"torch": version}, measurements=times()) for version in ("2.10.0", "2.9.1")]
    (row,) = within(made, "version")
    assert (row.pair.a_name, row.pair.b_name) == ("torch 2.9.1", "torch 2.10.0")


def test_by_precision_float32_comes_first():
    made = [record(precision=name, measurements=times()) for name in ("float64", "bfloat16", "float32")]
    assert {(row.pair.a_name, row.pair.b_name) for row in within(made, "precision")} == {
        ("float32", "float64"),
        ("float32", "bfloat16"),
    }


def test_by_device_the_machine_is_the_computer():
    gpu = {"gpus": [{"name": "H100"}]}
    made = [
        record(device="cpu", measurements=times(), machine=EPYC | gpu),
        record(device="gpu", measurements=times(0.1), machine=EPYC | gpu),
    ]
    (row,) = within(made, "device")
    assert (row.pair.a_name, row.pair.b_name, word(row)) == ("cpu", "gpu", "faster")
    made[1] = record(device="gpu", measurements=times(0.1), machine=XEON | gpu)
    (row,) = within(made, "device")
    assert row.pair.reason == "another machine (AMD EPYC, 2 cores; Intel Xeon, 4 cores)"


def test_by_backend_across_machines_is_no_comparison():
    (row,) = within(
        [record("torch", measurements=times()), record("jax", machine=XEON, measurements=times())], "backend"
    )
    assert row.pair.reason == "another machine (AMD EPYC, 2 cores; Intel Xeon, 4 cores)"


def test_by_backend_losses_of_two_machines_are_not_thrown_together():
    made = [record("torch", curve=points(-5.0)), record("jax", curve=points(-5.0))]
    made.append(record("jax", machine=XEON, curve=points(-105.0)))
    rows = [row for row in within(made, "backend") if row.pair.quantity.label == "final train loss"]
    assert {row.pair.reason and row.pair.reason.split(" (")[0] for row in rows} == {None, "another machine"}
    assert [word(row) for row in rows if row.pair.reason is None] == ["same within noise"]


def test_nothing_to_compare_by_is_refused():
    with pytest.raises(BenchError, match="--by mode: needs two at least, found –"):
        by(observations([record(measurements=times())]), "mode")
    with pytest.raises(BenchError, match="--baseline 'nobody': expected one of torch compile, torch eager, jax"):
        by(observations(backends_of_one_run()), "backend", "nobody")
