"""Synthetic runs for the tests of the regression check, and the references that they make."""

from functools import cache
from pathlib import Path

import numpy as np
from record_factories import measurement

from bench.records import EpochPoint, Plan, Record
from bench.regression import check
from bench.regression.verdicts import Verdict

NAMES = ("torch", "tensorflow", "jax")
REFERENCES = Path(__file__).parent.parent / "results" / "references"
STEPS = 30


class Silent:
    """A listener that hears nothing."""

    def begin(self, *_): ...

    def event(self, *_): ...

    def end(self, *_): ...


# Synthetic runs: a loss that falls from 300, and per backend a deviation that grows tenfold in ten steps


def run_of(
    backend,
    *,
    seed=0,
    cores=1,
    losses=(),
    curve=(),
    status="ok",
    seconds=2.0,
    floor=1.0,
    product=0.01,
    digests=None,
    **plan,
):
    entries = {"protocol": "trajectory-narrow", "protocol_digest": "p", "precision": "float32", "epochs": len(curve)}
    entries |= {"device": "cpu", "mode": "eager", "batch": 128, "rounds": 1, "architecture": {"dim": 784}}
    entries |= {"optimiser": {"name": "adam"}, "loss": "article"}
    points = [
        EpochPoint(epoch=i, train_loss=train, test_loss=test, seconds=seconds, round=1)
        for i, (train, test) in enumerate(curve or [(0.0, 0.0)], 1)
    ]
    return Record(
        run=f"{backend}-{seed}",
        status=status,
        reason=None if status == "ok" else "it broke",
        plan=Plan(**entries | {"backend": backend, "seed": seed} | plan),
        environment={"cpu": "AMD EPYC", "cores": cores, "python": "3.11", "packages": {"torch": "2.13"}},
        digests={"data": "d", "initial_parameters": "i"} | (digests or {}),
        curve=points,
        first_epoch_losses=list(losses),
        measurements=[
            measurement("floor", "train_epoch_seconds", floor, "s", round=1),
            measurement("calibration", "product_seconds", product, "s", round=1),
        ],
    )


def falling():
    return 300 - 20 * np.arange(STEPS)


def apart(size):
    return falling() + size * 10 ** (np.arange(STEPS) / 10)


def runs_of_all():
    oracle = run_of("numpy", precision="float64", losses=falling())
    return [oracle, *(run_of(name, losses=apart(s * 1e-4)) for name, s in zip(NAMES, (1, -2, 0.5), strict=True))]


@cache
def steps_reference():
    """A trajectory's reference."""
    return check.make(runs_of_all(), margin=1.0)


def seeded(backend, seed, shift=0.0, own=0.02, **changes):
    """A run whose loss depends on the seed (by about a nat) and, very little, on the backend."""
    generator = np.random.default_rng([seed, 7])
    common = generator.standard_normal(4)
    noise = own * np.random.default_rng([seed, len(backend)]).standard_normal(4)
    curve = [(-100.0 * e + x + shift, -90.0 * e + x + shift) for e, x in enumerate(common + noise, 1)]
    return run_of(backend, seed=seed, curve=curve, **{"protocol": "recipe-narrow"} | changes)


@cache
def seeds_reference():
    """A convergence's reference of ten seeds, at epochs 1, 2 and 4."""
    return check.make([seeded(name, seed) for name in NAMES for seed in range(10)], margin=1.0)


def timed(times, **parts):
    return [run_of("torch", losses=apart(1e-4), seconds=2.0 * t, **parts) for t in times]


@cache
def usual_reference():
    """A reference whose ratios have a noise of a few percent."""
    return check.make([*runs_of_all(), *timed([0.97, 1.02, 1.0, 1.03, 0.99])], margin=1.0)


def outcomes(verdicts, kind):
    return [verdict.outcome for verdict in verdicts if verdict.check == kind]


def verdict_of(kind, outcome):
    return Verdict(kind, "p", "float32", "torch", "q", "f", "a", outcome, 2.0)
