"""The regression check's verdicts on the losses of synthetic runs: what passes, and what is found by which of them."""

import math
import os

import numpy as np
import pytest
from check_factories import (
    NAMES,
    STEPS,
    falling,
    outcomes,
    run_of,
    runs_of_all,
    seeded,
)
from scipy import stats

from bench.errors import BenchError
from bench.regression import check, check_worker, convergence
from bench.regression import trajectory as trajectories
from bench.regression.reference import save
from bench.running import worker

# Trajectories


def test_what_a_reference_is_made_of_passes_by_a_factor_of_five(steps):
    verdicts = check.judge_losses(runs_of_all()[1:], steps, NAMES)
    assert outcomes(verdicts, "trajectory") == ["ok"] * 3
    assert max(verdict.share for verdict in verdicts if verdict.check == "trajectory") == pytest.approx(0.2, rel=0.05)


def test_the_tolerance_grows_as_the_spread_does_and_is_no_less_than_rounding(steps):
    spread = np.array(steps.spread)
    assert (np.diff(spread) >= 0).all()
    assert spread[20] / spread[0] == pytest.approx(100, rel=0.02)
    exact = [runs_of_all()[0], *(run_of(name, losses=falling()) for name in NAMES)]
    rounding = check.make(exact, margin=1.0).spread
    assert rounding[0] == pytest.approx(2**-24 * (300 + 392 * math.log(2 * math.pi)), rel=0.05)


def test_a_difference_that_is_within_the_late_tolerance_is_found_at_an_early_step(steps):
    losses = falling().astype(float)
    losses[1] += 0.02
    assert steps.factor * steps.spread[-1] > 0.02
    verdict = trajectories.judge(run_of("torch", losses=losses), steps)
    assert verdict.outcome == "regression"
    assert "at step 2; beyond from step 2" in verdict.found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": [*falling()[:-1], math.nan]}, "not a number at step 30"),
        ({"losses": falling()[:-1]}, "29 steps"),
        ({"losses": falling(), "digests": {"initial_parameters": "other"}}, "other initial parameters"),
    ],
)
def test_a_run_that_cannot_be_compared_is_a_regression(steps, changes, message):
    verdict = trajectories.judge(run_of("torch", **changes), steps)
    assert (verdict.outcome, verdict.found) == ("regression", message)


def later(*losses, off=0.0, **options):
    """A run of several epochs, of which these are the mean losses; `off` is how far rounding has taken its steps."""
    return run_of(losses=falling() + off, curve=[(loss, 0.0) for loss in losses], **options)


@pytest.fixture(scope="module")
def epochs():
    """A reference of three epochs, of which rounding leaves 0.01 and 0.03 nats of those after the first."""
    oracle = later(100.0, 50.0, 20.0, backend="numpy", precision="float64")
    return check.make([oracle, later(100.0, 50.01, 20.0, backend="torch"), later(1, 50, 19.97, backend="jax")], 1.0)


@pytest.mark.parametrize(
    ("losses", "outcome", "found"),
    [
        ((100.0, 50.049, 20.0), "ok", "0.049 nats off in epoch 2"),
        ((100.0, 50.051, 20.0), "regression", "0.051 nats off in epoch 2; beyond from epoch 2"),
        ((100.0, 50.0, 20.16), "regression", "0.16 nats off in epoch 3; beyond from epoch 3"),
        ((100.0, 50.0), "regression", "1 epochs after the first"),
        ((100.0, math.nan, 20.0), "regression", "not a number in epoch 2"),
    ],
)
def test_epochs_after_the_first_are_judged_by_their_mean_losses(epochs, losses, outcome, found):
    verdict = trajectories.judge(later(*losses, backend="torch"), epochs)
    assert (verdict.outcome, verdict.found) == (outcome, found)


def test_a_reference_of_before_later_epochs_were_judged_still_judges_the_first(epochs):
    old = epochs.model_copy(update={"later_losses": [], "later_spread": []})
    assert trajectories.judge(later(100.0, 0.0, 0.0, backend="torch"), old).outcome == "ok"
    assert trajectories.judge(later(100.0, 0.0, 0.0, backend="torch", off=1.0), old).outcome == "regression"


@pytest.mark.parametrize(("share", "outcome"), [(0.99, "ok"), (1.01, "regression")])
@pytest.mark.parametrize("step", [0, 17, STEPS - 1])
def test_a_loss_may_be_off_by_five_times_the_spread_at_its_step(steps, step, share, outcome):
    losses = np.array(steps.losses)
    losses[step] -= share * 5 * steps.spread[step]
    verdict = trajectories.judge(run_of("torch", losses=losses), steps)
    assert (verdict.outcome, verdict.share) == (outcome, pytest.approx(share, rel=1e-3))
    assert f"at step {step + 1}" in verdict.found


def test_rounding_to_the_file_costs_nothing_of_the_tolerance(steps):
    lost = np.abs(np.array(steps.losses) - falling())
    assert lost.max() < 1e-3 * steps.factor * min(steps.spread)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs[1:], "takes a run by numpy in float64"),
        (lambda runs: runs[:2], "two backends or more"),
        (lambda runs: [*runs, run_of("jax", losses=falling(), digests={"data": "x"})], "different data"),
        (lambda runs: [*runs, run_of("jax", losses=[*falling()[:-1], math.nan])], "not a number"),
    ],
)
def test_no_trajectory_is_made_of_runs_that_do_not_fit(change, message):
    with pytest.raises(BenchError, match=message):
        check.make(change(runs_of_all()), margin=1.0)


# Convergence


def test_new_seeds_of_the_same_distribution_converge_and_are_equivalent(seeds):
    runs = [seeded(name, seed) for name in NAMES for seed in (20, 21, 22)]
    verdicts = check.judge_losses(runs, seeds, NAMES)
    assert seeds.checkpoints == [1, 2, 4]
    assert outcomes(verdicts, "convergence") == ["ok"] * 18
    assert outcomes(verdicts, "equivalence") == ["ok"] * 18


@pytest.mark.parametrize("shift", [-8.0, 8.0])
def test_a_loss_that_is_worse_or_better_than_seeds_explain_is_a_regression(seeds, shift):
    runs = [seeded(name, seed, shift * (name == "jax")) for name in NAMES for seed in (20, 21, 22)]
    verdicts = check.judge_losses(runs, seeds, NAMES)
    assert {v.backend for v in verdicts if v.check == "convergence" and v.outcome == "regression"} == {"jax"}
    pairs = {v.backend for v in verdicts if v.check == "equivalence" and v.outcome == "regression"}
    assert pairs == {"torch − jax", "tensorflow − jax"}


def test_backends_that_differ_by_less_than_their_seeds_are_not_called_equal(seeds):
    """1.5 nats are within the interval over seeds, and beyond the margin of 1."""
    runs = [seeded(name, seed, 1.5 * (name == "jax")) for name in NAMES for seed in (20, 21, 22)]
    verdicts = check.judge_losses(runs, seeds, NAMES)
    assert "regression" not in outcomes(verdicts, "convergence")
    assert {v.backend for v in verdicts if v.outcome == "regression"} == {"torch − jax", "tensorflow − jax"}


def test_what_is_too_noisy_to_tell_is_not_called_equal(seeds):
    runs = [seeded(name, seed, own=1.0 if name == "jax" else 0.02) for name in ("torch", "jax") for seed in (20, 21)]
    assert "regression" in outcomes(check.judge_losses(runs, seeds, ["torch", "jax"]), "equivalence")


@pytest.mark.parametrize("sign", [1, -1])
def test_both_ends_of_the_interval_must_lie_within_the_margin(seeds, sign):
    runs = [
        seeded(name, seed, sign * 0.95 * (name == "jax"), own=0.1) for name in ("torch", "jax") for seed in (20, 21)
    ]
    apart = [runs[seed].curve[0].test_loss - runs[seed + 2].curve[0].test_loss for seed in (0, 1)]
    low, high = convergence.equivalence(np.array(apart))
    (verdict,) = (
        v
        for v in check.judge_losses(runs, seeds, ["torch", "jax"])
        if v.check == "equivalence" and v.quantity == "test loss, epoch 1"
    )
    assert min(abs(low), abs(high)) < 1 < max(abs(low), abs(high))
    assert (verdict.outcome, verdict.share) == ("regression", pytest.approx(max(abs(low), abs(high))))


def test_of_two_runs_of_a_seed_the_later_counts(seeds):
    old, new = (
        seeded("torch", 20, shift).model_copy(update={"created": f"2026-01-0{day}T00:00:00+00:00"})
        for shift, day in ((50.0, 1), (0.0, 2))
    )
    for runs in ([old, new], [new, old]):
        assert convergence.by_seed(runs) == {"torch": {20: new}}


def test_one_seed_can_show_no_equivalence_and_is_not_judged(seeds):
    runs = [seeded(name, 20) for name in NAMES]
    assert set(outcomes(check.judge_losses(runs, seeds, NAMES), "equivalence")) == {"not comparable"}


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([seeded("torch", 20), seeded("torch", 21), seeded("jax", 20)], "no run"),
        ([seeded("torch", 20), seeded("jax", 20, status="failed")], "failed: it broke"),
        ([seeded("torch", 20), seeded("jax", 20, protocol_digest="q")], "the protocol is not that of the reference"),
        ([seeded("torch", 20), seeded("jax", 20, digests={"data": "e"})], "the images are not those of the reference"),
    ],
    ids=["missing", "failed", "another protocol", "other data"],
)
def test_a_run_that_is_missing_failed_or_of_something_else_is_a_regression(seeds, runs, message):
    found = [v for v in check.judge_losses(runs, seeds, ["torch", "jax"]) if v.check == "run"]
    assert [(v.backend, v.outcome) for v in found] == [("jax", "regression")]
    assert found[0].found.startswith(message)


@pytest.mark.parametrize(("day", "faults"), [("02", []), ("01", ["failed: it broke"])])
def test_a_run_that_failed_counts_no_more_once_it_was_made_again(seeds, day, faults):
    def at(day, run):
        return run.model_copy(update={"created": f"2026-01-{day}"})

    failed = at("01T12:00:00+00:00", seeded("jax", 20, status="failed"))
    made = [at(f"{day}T00:00:00+00:00", seeded("jax", seed)) for seed in (20, 21)]
    judged = check.judge_losses([seeded("torch", 20), failed, *made], seeds, ["torch", "jax"])
    assert [v.found for v in judged if v.backend == "jax" and v.check == "run"] == faults


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_regression(seeds, lost):
    runs = [seeded(name, seed, lost if name == "jax" else 0.0) for name in NAMES for seed in (20, 21)]
    verdicts = check.judge_losses(runs, seeds, NAMES)
    assert [v.outcome for v in verdicts if v.check == "convergence" and v.backend == "jax"] == ["regression"] * 6
    assert all(v.outcome == "regression" for v in verdicts if v.check == "equivalence" and "jax" in v.backend)


@pytest.mark.parametrize("names", [NAMES, NAMES[:2]])
def test_a_mean_may_be_off_by_what_the_t_distribution_says_for_all_comparisons_together(seeds, names):
    runs = [seeded(name, seed) for name in names for seed in (20, 21, 22)]
    judged = {(v.backend, v.quantity): v.share for v in check.judge_losses(runs, seeds, names)}
    for name in names:
        sample = seeds.losses[name]["test_loss"][1]  # of epoch 2
        mean = np.mean([run.curve[1].test_loss for run in runs if run.plan.backend == name])
        level = 0.01 / (6 * len(names))
        half = stats.t.ppf(1 - level / 2, 9) * np.std(sample, ddof=1) * math.sqrt(1 / 10 + 1 / 3)
        assert judged[name, "test loss, epoch 2"] == pytest.approx(abs(mean - np.mean(sample)) / half)


def test_a_reference_takes_ten_seeds_of_every_backend():
    nine = [seeded(name, seed) for name in NAMES for seed in range(9)]
    with pytest.raises(BenchError, match="9 seeds; a reference takes 10 or more"):
        check.make(nine, margin=1.0)
    with pytest.raises(BenchError, match="torch has no good run of seed 9"):
        check.make([*nine, seeded("jax", 9), seeded("tensorflow", 9)], margin=1.0)


def test_no_reference_is_made_of_backends_that_are_not_equal():
    runs = [seeded(name, seed, 2.0 * (name == "jax")) for name in NAMES for seed in range(10)]
    with pytest.raises(BenchError, match="its own runs would not pass: equivalence, "):
        check.make(runs, margin=1.0)


def test_the_interval_holds_new_means_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples, fresh = generator.standard_normal((4000, 10)), generator.standard_normal((4000, 3)).mean(axis=1)
    ends = np.array([convergence.interval(sample, 3, 0.9) for sample in samples])
    inside = np.mean((ends[:, 0] <= fresh) & (fresh <= ends[:, 1]))
    assert inside == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(("shift", "least", "most"), [(1.0, 0.03, 0.07), (-1.0, 0.03, 0.07), (0.0, 0.9, 1.0)])
def test_equivalence_is_claimed_at_the_margin_in_one_of_twenty_and_within_it_nearly_always(shift, least, most):
    samples = np.random.default_rng(1).normal(shift, 0.5, (2000, 10))
    claimed = np.mean([max(map(abs, convergence.equivalence(sample))) <= 1.0 for sample in samples])
    assert least < claimed <= most


def test_equivalence_is_that_of_two_t_tests():
    sample = np.random.default_rng(2).normal(0.3, 0.8, 8)
    low, high = convergence.equivalence(sample)
    assert stats.ttest_1samp(sample, low, alternative="greater").pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(sample, high, alternative="less").pvalue == pytest.approx(0.05)


# By hand


@pytest.fixture
def known(seeds):
    """The losses of three runs of two backends after one epoch, mean 2 and deviation 1."""
    losses = {name: {part: [[1.0, 2.0, 3.0]] for part in ("train_loss", "test_loss")} for name in ("torch", "jax")}
    changes = {"seeds": [0, 1, 2], "checkpoints": [1], "false_alarms": 0.05, "margin": 0.5, "losses": losses}
    return seeds.model_copy(update=changes)


def ended(backend, loss, seed=0):
    return run_of(backend, seed=seed, losses=falling(), curve=[(loss, loss)])


@pytest.mark.parametrize(
    ("share", "outcome"), [(-1.001, "regression"), (-0.999, "ok"), (0.999, "ok"), (1.001, "regression")]
)
def test_a_run_is_within_the_interval_of_one_more(known, share, outcome):
    half = stats.t.ppf(1 - 0.05 / 2 / 2, 2) * math.sqrt(1 / 3 + 1)  # two comparisons share the false alarms
    loss = 2 + share * half
    verdicts = convergence.judge([ended("torch", loss)], known)
    where = ("convergence", known.protocol, known.precision, "torch")
    for verdict, part in zip(verdicts, ("train", "test"), strict=True):
        assert (verdict.check, verdict.protocol, verdict.precision, verdict.backend) == where
        assert (verdict.quantity, verdict.found) == (f"{part} loss, epoch 1", f"{loss:.2f} nats (1 runs)")
        assert (verdict.allowed, verdict.outcome) == (f"{2 - half:.2f} to {2 + half:.2f} nats", outcome)
        assert verdict.share == pytest.approx(abs(share))


def test_a_loss_that_is_no_number_or_not_there_is_a_regression(known):
    other = ended("torch", 2.0).model_copy(update={"curve": []})
    for run in (ended("torch", math.nan), other):
        verdicts = convergence.judge([run], known)
        assert {(verdict.outcome, verdict.found) for verdict in verdicts} == {("regression", "not a number")}


def test_a_backend_without_a_reference_is_a_regression_and_the_others_are_judged(known):
    verdicts = [each for each in convergence.judge([ended("mine", 2.0), ended("torch", 2.0)], known) if each.found]
    first, *rest = (verdict for verdict in verdicts if verdict.check == "convergence")
    assert (first.backend, first.quantity, first.found, first.allowed, first.outcome) == (
        "mine",
        "losses",
        "no reference",
        "one",
        "regression",
    )
    assert [(verdict.backend, verdict.outcome) for verdict in rest] == [("torch", "ok")] * 2


@pytest.mark.parametrize(("apart", "outcome"), [(0.1, "ok"), (0.4, "regression"), (-0.4, "regression")])
def test_two_backends_are_equivalent_within_the_margin(known, apart, outcome):
    values = (apart - 0.1, apart, apart + 0.1)
    runs = [ended("torch", 2 + value, seed) for seed, value in enumerate(values)]
    runs += [ended("jax", 2.0, seed) for seed in range(3)]
    half = stats.t.ppf(1 - convergence.EQUIVALENCE_LEVEL, 2) * 0.1 / math.sqrt(3)
    for verdict in convergence.judge(runs, known)[-2:]:
        assert (verdict.check, verdict.backend, verdict.outcome) == ("equivalence", "torch − jax", outcome)
        assert verdict.found == f"{apart:+.3f} [{apart - half:+.3f} to {apart + half:+.3f}] nats"
        assert verdict.allowed == "±0.5 nats"
        assert verdict.share == pytest.approx((abs(apart) + half) / 0.5)


def test_one_seed_shows_no_equivalence(known):
    verdict = convergence.judge([ended("torch", 2.0), ended("jax", 2.0), ended("jax", 2.0, 1)], known)[-1]
    assert (verdict.check, verdict.backend, verdict.quantity) == ("equivalence", "torch − jax", "test loss, epoch 1")
    assert (verdict.found, verdict.allowed) == ("1 seeds in common; 2 or more could show it", "±0.5 nats")
    assert (verdict.outcome, verdict.share) == ("not comparable", None)


def test_without_names_the_backends_are_those_of_each_protocol(steps, known, tmp_path):
    for each in (steps, known.model_copy(update={"protocol": "other"})):
        save(each, tmp_path)
    oracle, torch, *_ = runs_of_all()
    other = ended("jax", 2.0)
    other = other.model_copy(update={"plan": other.plan.model_copy(update={"protocol": "other"})})
    verdicts = check.judge([oracle, torch, other], tmp_path)
    judged = {(verdict.check, verdict.protocol, verdict.backend) for verdict in verdicts if verdict.check != "speed"}
    assert judged == {("trajectory", steps.protocol, "torch"), ("convergence", "other", "jax")}
    assert {verdict.outcome for verdict in verdicts if verdict.check != "speed"} == {"ok"}
    with pytest.raises(BenchError, match="for nothing; `nice-bench check --update` makes references"):
        check.judge([], tmp_path)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="without a choice of cores")
def test_a_worker_of_the_check_has_its_cores_and_as_many_threads(monkeypatch):
    taken = []
    monkeypatch.setattr(os, "sched_getaffinity", {0: {3, 5, 8}}.__getitem__)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *what: taken.append(what))
    monkeypatch.setattr(worker, "main", lambda *, training_only: (training_only, os.environ["OMP_NUM_THREADS"]))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert check_worker.main([0, 2]) == (True, "2")
    assert taken == [(0, {3, 8})]
