"""What a reference of the regression check holds, and of which records; figures worked out by hand."""

import math

import numpy as np
import pytest
from check_factories import NAMES, Silent, apart, falling, run_of, runs_of_all, seeded, timed, verdict_of
from record_factories import measurement

from bench.errors import BenchError
from bench.inputs import protocol as protocols
from bench.regression import check, check_runs, check_speed, convergence, trajectory
from bench.regression.check_runs import Job, Part
from bench.regression.reference import made_of, name_of, save
from bench.regression.verdicts import ORDER, Verdict, table
from bench.running.variant import Request


def test_a_trajectorys_reference_says_what_it_is_of(steps):
    assert (steps.protocol, steps.protocol_digest, steps.device, steps.precision) == (
        "trajectory-narrow",
        "p",
        "cpu",
        "float32",
    )
    assert (steps.data, steps.initial_parameters, steps.seed, steps.factor) == ("d", "i", 0, 5.0)
    assert steps.arms == [f"{name} eager, cores: 1" for name in sorted(NAMES)]
    assert (steps.later_losses, steps.later_spread) == ([], [])


def test_a_convergences_reference_says_what_it_is_of(seeds):
    assert (seeds.protocol, seeds.protocol_digest, seeds.device, seeds.precision) == (
        "recipe-narrow",
        "p",
        "cpu",
        "float32",
    )
    assert (seeds.data, seeds.seeds, seeds.false_alarms, seeds.margin) == ("d", [*range(10)], 0.01, 1.0)
    assert list(seeds.losses) == list(NAMES)
    for name in NAMES:
        curves = [seeded(name, seed).curve for seed in range(10)]
        for measure in ("train_loss", "test_loss"):
            expected = [[round(getattr(curve[epoch - 1], measure), 3) for curve in curves] for epoch in (1, 2, 4)]
            assert seeds.losses[name][measure] == expected


@pytest.mark.parametrize(("epochs", "checkpoints"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (10, [2, 5, 10])])
def test_checkpoints_are_a_quarter_half_and_all_of_the_epochs_but_never_before_the_first(epochs, checkpoints):
    def made(seed):
        return run_of("torch", seed=seed, curve=[(-float(seed), 1.0 * seed)] * epochs, protocol="recipe-narrow")

    assert convergence.make([made(seed) for seed in range(10)], 1.0, made_of([made(0)]), []).checkpoints == checkpoints


def test_losses_are_rounded_to_a_thousandth_of_the_least_tolerance():
    runs = [run_of("numpy", precision="float64", losses=falling() + 1 / 3)]
    runs += [run_of(name, losses=apart(size) + 1 / 3) for name, size in (("torch", 3e-4), ("jax", 4e-4))]
    made = check.make(runs, margin=1.0)
    lost = np.abs(np.array(made.losses) - falling() - 1 / 3).max()
    assert made.spread[0] == pytest.approx(4e-4)
    assert 1e-4 < lost / (made.factor * made.spread[0]) < 1e-3


def test_a_spread_is_the_largest_of_any_run_up_to_a_step():
    off = np.zeros(30)
    off[[3, 7]] = 0.5, -0.25
    runs = [run_of("numpy", precision="float64", losses=falling())]
    runs += [run_of(name, losses=falling() + sign * off) for name, sign in (("torch", 1), ("jax", -0.5))]
    spread = check.make(runs, margin=1.0).spread
    assert spread[3:] == [0.5] * 27
    assert max(spread[:3]) < 1e-3


def test_of_the_oracle_only_the_run_in_float64_counts_and_of_backends_those_in_the_precision():
    others = [run_of("numpy", losses=falling() + 9), run_of("torch", losses=falling() + 9, precision="float64")]
    failed = run_of("torch", losses=falling() + 9, status="failed")
    made, usual = (check.make([*more, *runs_of_all()], 1.0) for more in ([others[0]], []))
    assert (made.losses, made.spread) == (usual.losses, usual.spread)
    with pytest.raises(BenchError, match="two backends or more"):
        check.make([runs_of_all()[0], runs_of_all()[1], others[1], failed], 1.0)


def test_who_made_a_reference_is_told_by_its_records():
    def made(name, **environment):
        return run_of(name).model_copy(update={"environment": environment})

    git = {"commit": "abc", "dirty": False}
    found = made_of(
        [
            made("torch", cpu="AMD EPYC", cores=2, python="3.12", packages={"torch": "2.13", "numpy": "2"}, git=git),
            made("jax", cpu="Intel Xeon", cores=2, python="3.11", packages={"jax": "0.10"}, git=git | {"dirty": True}),
            made("jax", cpu="Intel Xeon", cores=2, python="3.11", packages={"jax": "0.9"}),
        ]
    )
    assert found.machines == ["AMD EPYC, 2 cores", "Intel Xeon, 2 cores"]
    assert (found.python, found.records) == (["3.11", "3.12"], 3)
    assert found.packages == {"jax": ["0.10", "0.9"], "numpy": ["2"], "torch": ["2.13"]}
    assert found.commits == ["abc", "abc, edited"]


def test_a_reference_of_a_gpu_names_the_gpu_and_packages_where_they_are_known():
    environment = {"cpu": "AMD EPYC", "cores": 2, "gpus": [{"name": "NVIDIA H100"}]}
    found = made_of([run_of("torch", device="gpu").model_copy(update={"environment": environment})])
    assert (found.machines, found.packages) == (["NVIDIA H100"], {})


# Trajectories


@pytest.fixture
def halves(steps):
    """A reference of two losses of 0, from which a run may be 5/8 and 5/4 nats off: numbers that a float holds."""
    return steps.model_copy(update={"losses": [0.0, 0.0], "spread": [0.125, 0.25], "factor": 5.0})


@pytest.mark.parametrize(
    ("losses", "found", "allowed", "share"),
    [
        ((0.625, 0.0), "0.62 nats off at step 1", "0.62 nats there", 1.0),
        ((0.0, -1.25), "1.2 nats off at step 2", "1.2 nats there", 1.0),
        ((0.625, 2.5), "2.5 nats off at step 2; beyond from step 2", "1.2 nats there", 2.0),
        ((1.25, 5.0), "5 nats off at step 2; beyond from step 1", "1.2 nats there", 4.0),
    ],
)
def test_a_run_may_be_as_far_off_as_is_allowed_and_no_further(halves, losses, found, allowed, share):
    verdict = trajectory.judge(run_of("torch", losses=losses), halves)
    assert (verdict.found, verdict.allowed, verdict.share) == (found, allowed, share)
    assert verdict.outcome == ("ok" if share <= 1 else "regression")


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"losses": (0.0, 0.0), "digests": {"data": "other"}}, "those of the reference"),
        ({"losses": (0.0,)}, "2 steps"),
        ({"losses": (0.0, math.nan)}, "a number"),
    ],
)
def test_of_a_run_that_cannot_be_compared_it_is_said_what_would_be(halves, changes, allowed):
    verdict = trajectory.judge(run_of("torch", **changes), halves)
    assert (verdict.allowed, verdict.outcome, verdict.share) == (allowed, "regression", None)


def test_what_no_trajectory_can_be_made_of_is_named():
    oracle, torch, *_ = runs_of_all()
    for runs, found in (([oracle, torch], "found numpy in float64, torch in float32"), ([], "found none")):
        with pytest.raises(BenchError, match=f"{found}$"):
            trajectory.make(runs, "float32", made_of([oracle]), [])
    with pytest.raises(BenchError, match="jax: 29 steps and 0 epochs after the first; expected 30 and 0"):
        check.make([oracle, torch, run_of("jax", losses=falling()[1:])], margin=1.0)


# Speed


def test_the_ratios_of_a_reference_are_those_of_its_good_runs_by_backend_and_cores():
    runs = [*timed([1.0, 2.0]), *timed([1.5], cores=2), run_of("jax", seconds=3.0, floor=2.0, product=0.7)]
    left_out = [run_of("torch", status="failed", seconds=9.0), run_of("numpy", seconds=9.0)]
    found = check_speed.make([*runs, *left_out])
    assert [(each.backend, each.cores, each.floor, each.calibration) for each in found] == [
        ("jax", 1, [1.5], [4.286]),
        ("torch", 1, [2.0, 4.0], [200.0, 400.0]),
        ("torch", 2, [3.0], [300.0]),
    ]


def test_a_ratio_takes_a_floor_of_a_round_that_has_epochs():
    more = [
        measurement("floor", "train_epoch_seconds", None, "s", round=1),
        measurement("floor", "train_epoch_seconds", 1e9, "s", round=7),
        measurement("floor", "train_step_seconds", 1e9, "s", round=1),
    ]
    run = run_of("torch", seconds=3.0, floor=2.0)
    run = run.model_copy(update={"measurements": [*more, *run.measurements, *more]})
    assert check_speed.ratios(run) == {"floor": 1.5, "calibration": pytest.approx(300.0)}


def test_a_run_without_a_floor_has_no_ratio_to_it():
    run = run_of("torch")
    assert check_speed.ratios(run.model_copy(update={"measurements": run.measurements[1:]})) == {"calibration": 200.0}
    found = check_speed.make([run.model_copy(update={"measurements": run.measurements[1:]})])
    assert [(each.floor, each.calibration) for each in found] == [([], [200.0])]


# Convergence


def test_where_all_seeds_agree_a_mean_must_be_that_of_the_reference():
    def made(backend, loss):
        return [run_of(backend, seed=seed, curve=[(loss, 5.0)], protocol="recipe-narrow") for seed in range(10)]

    known = check.make([*made("torch", 4.0), *made("jax", 4.0)], margin=1.0)
    for loss, outcome, share in ((4.0, "ok", 0.0), (4.001, "regression", math.inf)):
        runs = [*made("torch", loss), *made("jax", 4.0)]
        found = [v for v in check.judge_losses(runs, known, ["torch", "jax"]) if v.check == "convergence"]
        assert [(v.backend, v.quantity) for v in found[:2]] == [
            ("torch", f"{m} loss, epoch 1") for m in ("train", "test")
        ]
        assert (found[0].outcome, found[0].share) == (outcome, share)
        assert [(v.outcome, v.share) for v in found[1:]] == [("ok", 0.0)] * 3


def test_a_backend_that_the_reference_lacks_is_a_regression():
    known = check.make([seeded("torch", seed) for seed in range(10)], margin=1.0)
    found = check.judge_losses([seeded(name, 20) for name in ("torch", "jax")], known, ["torch", "jax"])
    assert [(v.backend, v.found) for v in found if v.outcome == "regression"] == [("jax", "no reference")]


@pytest.mark.parametrize(("apart_by", "outcome"), [(0.999, "ok"), (1.0, "ok"), (1.001, "regression")])
def test_two_backends_may_differ_by_the_margin_and_no_more(seeds, apart_by, outcome):
    runs = [
        run_of(name, seed=seed, curve=[(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, by)], protocol="recipe-narrow")
        for name, by in (("torch", 0.0), ("jax", -apart_by))
        for seed in (20, 21)
    ]
    (verdict,) = (
        v
        for v in check.judge_losses(runs, seeds, ["torch", "jax"])
        if v.check == "equivalence" and v.quantity == "test loss, epoch 4"
    )
    assert (verdict.backend, verdict.outcome, verdict.share) == ("torch − jax", outcome, pytest.approx(apart_by))


# What is judged


def test_records_are_grouped_by_protocol_device_and_precision_and_only_those_of_runs():
    runs = [run_of("jax"), run_of("torch"), run_of("jax", device="gpu"), run_of("jax", precision="tf32")]
    found = check.grouped([*runs, run_of("jax", kind="sweep")])
    assert list(found) == [
        ("trajectory-narrow", *each) for each in (("cpu", "float32"), ("gpu", "float32"), ("cpu", "tf32"))
    ]
    assert found["trajectory-narrow", "cpu", "float32"] == runs[:2]
    assert name_of("p", "gpu", "tf32") == "p-gpu-tf32.json"


def test_of_a_trajectory_only_runs_of_the_references_seed_and_of_the_named_backends_count(steps):
    far = [run_of("torch", seed=5, losses=falling() + 50), run_of("numpy", losses=falling() + 50)]
    found = check.judge_losses([*runs_of_all()[1:], *far], steps, NAMES)
    assert [(v.check, v.backend, v.outcome) for v in found] == [("trajectory", name, "ok") for name in NAMES]
    missing = check.judge_losses([run_of("torch", seed=5, losses=falling())], steps, ["torch"])
    assert [(v.check, v.backend, v.quantity, v.outcome) for v in missing] == [("run", "torch", "seed 0", "regression")]


def test_verdicts_say_what_they_are_of(steps, seeds):
    (verdict,) = check.judge_losses([runs_of_all()[1]], steps, ["torch"])
    assert (verdict.protocol, verdict.precision, verdict.backend) == ("trajectory-narrow", "float32", "torch")
    runs = [seeded(name, seed) for name in ("torch", "jax") for seed in (20, 21)]
    found = check.judge_losses(runs, seeds, ["torch", "jax"])
    assert {(v.protocol, v.precision) for v in found} == {("recipe-narrow", "float32")}
    quantities = [f"{part} loss, epoch {epoch}" for part in ("train", "test") for epoch in (1, 2, 4)]
    for name, check_ in (("torch", "convergence"), ("jax", "convergence"), ("torch − jax", "equivalence")):
        assert [v.quantity for v in found if (v.backend, v.check) == (name, check_)] == quantities


def test_without_any_run_the_seed_that_is_missing_is_that_of_the_reference_or_the_first(steps, seeds):
    third = steps.model_copy(update={"seed": 3})
    for known, seed in ((third, 3), (seeds, 0)):
        (verdict,) = check.judge_losses([], known, ["torch"])
        assert (verdict.check, verdict.quantity, verdict.found) == ("run", f"seed {seed}", "no run")


def test_a_run_that_failed_is_named_by_its_seed(seeds):
    failed = seeded("jax", 21, status="failed")
    found = check.judge_losses([seeded("jax", 20), failed], seeds, ["jax"])
    assert [(v.quantity, v.found) for v in found if v.check == "run"] == [("seed 21", "failed: it broke")]


def test_every_good_run_counts_and_a_failed_one_that_no_good_one_followed(steps):
    first, second, failed = (
        run_of("torch", losses=apart(1e-4), status=status).model_copy(
            update={"created": f"2026-01-0{day}T00:00:00+00:00"}
        )
        for day, status in ((1, "ok"), (2, "ok"), (2, "failed"))
    )
    for runs in ([first, second], [second, first]):
        found = check.judge_losses(runs, steps, ["torch"])
        assert [(v.check, v.outcome) for v in found] == [("trajectory", "ok")] * 2
    (fault, *rest) = check.judge_losses([second, failed], steps, ["torch"])  # at the same time: none followed
    assert (fault.check, fault.found, len(rest)) == ("run", "failed: it broke", 1)


def test_the_speed_of_a_trajectory_is_that_of_the_references_seed(usual, tmp_path):
    save(usual, tmp_path)
    (same,), (slow,) = timed([1.0]), timed([4.0], seed=5)
    found = check.judge([same, slow], tmp_path, ["torch"])
    assert [v.outcome for v in found if v.check == "speed"] == ["same within noise"] * 2


def test_numpy_is_judged_where_it_is_named_and_else_is_no_backend(steps, tmp_path):
    save(steps, tmp_path)
    runs = [run_of(name, losses=falling()) for name in ("torch", "numpy")]
    for names, judged in ((None, ["torch"]), (["numpy"], ["numpy"])):
        found = check.judge(runs, tmp_path, names)
        assert [(v.backend, v.outcome) for v in found if v.check == "trajectory"] == [(name, "ok") for name in judged]


def test_a_reference_that_is_not_made_says_what_was_found_first(monkeypatch):
    found = [
        Verdict(*(f"{which} {what}" for what in ("check", "protocol", "precision", "backend")), *rest, "regression")
        for which, *rest in (("first", "loss 1", "found 1", "this 1"), ("second", "loss 2", "found 2", "this 2"))
    ]
    monkeypatch.setattr(check, "judge_losses", lambda *_: found)
    message = "would not pass: first check, first backend, loss 1: found 1, allowed is this 1; no reference is made"
    with pytest.raises(BenchError, match=message):
        check.make(runs_of_all(), margin=1.0)


def test_the_worst_verdicts_come_first():
    made = table([verdict_of("speed", outcome) for outcome in reversed(ORDER)])
    assert made.shown["verdict"].tolist() == list(ORDER) == made.raw["outcome"].tolist()
    assert (made.name, made.labels) == ("check", ("check", "protocol", "precision", "backend"))
    assert list(made.shown) == [
        "check",
        "protocol",
        "precision",
        "backend",
        "quantity",
        "found",
        "allowed",
        "× allowed",
        "verdict",
    ]
    nothing = table([])
    assert (len(nothing.raw), list(nothing.shown), list(nothing.raw)) == (0, list(made.shown), list(made.raw))


# What is run


def test_a_check_runs_its_seeds_the_backends_alternating():
    part = Part("convergence", "p", "tf32", 1, seeds=(3, 4), reference_seeds=(0, 1))
    assert part.name == "p-tf32"
    assert check_runs.check_jobs(part, ["a", "b"]) == [Job("p", n, "tf32", seed, 1) for seed in (3, 4) for n in "ab"]
    assert check_runs.reference_jobs(part, ["a", "b"]) == [
        Job("p", n, "tf32", seed, 1) for seed in (0, 1) for n in "ab"
    ]


@pytest.mark.parametrize(("threads", "other"), [(None, 1), (1, 2), (4, 2)])
def test_a_trajectorys_reference_takes_the_oracle_other_threads_and_repeats(threads, other):
    part = Part("trajectory", "p", "tf32", threads, repeats=2)
    assert check_runs.reference_jobs(part, ["a", "b"]) == [
        Job("p", "numpy", "float64", 0, 1),
        *(Job("p", name, "tf32", 0, other) for name in "ab"),
        *(Job("p", name, "tf32", 0, threads) for _ in range(2) for name in "ab"),
    ]


def test_a_job_takes_the_cores_that_there_are(monkeypatch):
    monkeypatch.setattr(check_runs.environment, "cores", lambda: 4)
    assert [Job("p", "a", "tf32", 0, threads).cores for threads in (None, 1, 4, 9)] == [4, 1, 4, 4]


def test_a_job_is_run_as_it_says_on_its_cores(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(check_runs.environment, "cores", lambda: 3)
    monkeypatch.setattr(check_runs.runner, "run", lambda request, listener: asked.append(request) or [run_of("jax")])
    where = Request(folder=tmp_path / "new", device="cpu", interpreters={"jax": "python9"}, timeout=7.0)
    check_runs.run([Job("smoke", "jax", "float64", 5, 2), Job("smoke", "numpy", "float32", 0, None)], where, Silent())
    first, second = asked
    assert first.protocol == protocols.load("smoke")
    assert (first.backends, first.device, first.precision, first.seed) == (["jax"], "cpu", "float64", 5)
    assert (first.folder, first.interpreters, first.timeout) == (tmp_path / "new", {"jax": "python9"}, 7.0)
    assert first.stopped() is False
    assert first.command("jax", "python9")[-1] == "0,1"
    assert second.command("numpy", "python")[-1] == "0,1,2"
