"""The regression check, step by step: identical inputs leave rounding as the only reason for two losses to differ.

The reference is NumPy's in float64. How far rounding takes a backend from it is measured: the spread at a step is the
largest distance that any backend, on one thread or on more, had reached up to there, and no less than the rounding of
the loss itself. Trajectories part exponentially, so the tolerance has to grow as they do: early steps, where the spread
is smallest, see errors that a late step would take for rounding.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.measures.rounding import PRODUCT_BITS
from bench.records import Record
from bench.regression.reference import Made, Speed, Trajectory
from bench.regression.verdicts import Verdict

FACTOR = 5.0
"""How many times the spread is allowed: of other processors and versions there are more than the few that it is of."""

NOTE = (
    "losses: by NumPy in float64. spread: largest distance of any run up to a step, at least one rounding of the loss. "
    "Allowed at a step: factor × spread."
)


def make(runs: Sequence[Record], precision: str, made: Made, speed: list[Speed]) -> Trajectory:
    """A reference from runs of one protocol: NumPy's in float64, and at least two backends in the precision.

    Raises:
        BenchError: a run is missing, failed, or had other inputs.
    """
    usable = [run for run in runs if run.status == "ok"]
    oracle = next((r for r in usable if r.plan.backend == "numpy" and r.plan.precision == "float64"), None)
    compared = [run for run in usable if run.plan.backend != "numpy" and run.plan.precision == precision]
    if oracle is None or len({run.plan.backend for run in compared}) < 2:
        raise BenchError(
            "a trajectory's reference takes a run by numpy in float64 and runs of two backends or more; "
            f"found {', '.join(sorted({f'{r.plan.backend} in {r.plan.precision}' for r in usable})) or 'none'}"
        )
    losses = np.array(oracle.first_epoch_losses, float)
    apart = np.max([np.abs(_losses(run, len(losses)) - losses) for run in compared], axis=0)
    constant = 0.5 * oracle.plan.architecture["dim"] * math.log(2 * math.pi)  # the float holds −log p with it
    rounding = 2.0 ** -PRODUCT_BITS[precision] * (np.abs(losses) + constant)
    spread = np.maximum(np.maximum.accumulate(apart), rounding)
    if not np.isfinite(spread).all():
        raise BenchError("a run has a loss that is not a number: no reference can be made of it")
    digits = 3 - math.floor(math.log10(FACTOR * float(spread.min())))
    inputs = {(r.digests["data"], r.digests["initial_parameters"], r.plan.seed) for r in (oracle, *compared)}
    if len(inputs) != 1:
        raise BenchError("the runs had different data, initial weights or seeds: no reference can be made of them")
    plan = oracle.plan
    return Trajectory(
        protocol=plan.protocol,
        protocol_digest=plan.protocol_digest,
        device=compared[0].plan.device,
        precision=precision,
        data=oracle.digests["data"],
        made=made,
        speed=speed,
        note=NOTE,
        seed=plan.seed,
        initial_parameters=oracle.digests["initial_parameters"],
        arms=sorted({f"{r.plan.backend} {r.plan.mode}, cores: {r.environment.get('cores')}" for r in compared}),
        factor=FACTOR,
        losses=[round(float(loss), digits) for loss in losses],
        spread=[float(f"{value:.2g}") for value in spread],
    )


def judge(run: Record, reference: Trajectory) -> Verdict:
    """Hold one run, which ended well, against the reference."""

    def verdict(found: str, allowed: str, share: float | None) -> Verdict:
        outcome = "ok" if share is not None and share <= 1 else "regression"
        who = (run.plan.protocol, run.plan.precision, run.plan.backend)
        return Verdict("trajectory", *who, "loss by step", found, allowed, outcome, share)

    for name, expected in (("data", reference.data), ("initial_parameters", reference.initial_parameters)):
        if run.digests.get(name) != expected:
            return verdict(f"other {name.replace('_', ' ')}", "those of the reference", None)
    if len(run.first_epoch_losses) != len(reference.losses):
        return verdict(f"{len(run.first_epoch_losses)} steps", f"{len(reference.losses)} steps", None)
    lost = [step for step, loss in enumerate(run.first_epoch_losses, 1) if loss is None]
    if lost:
        return verdict(f"not a number at step {lost[0]}", "a number", None)
    expected_losses, spread = np.array(reference.losses), np.array(reference.spread)
    apart = np.abs(_losses(run, len(expected_losses)) - expected_losses)
    shares = apart / (reference.factor * spread)
    worst = int(np.argmax(shares))
    first = int(np.argmax(shares > 1)) + 1
    beyond = f"; beyond from step {first}" if shares[worst] > 1 else ""
    return verdict(
        f"{apart[worst]:.2g} nats off at step {worst + 1}{beyond}",
        f"{reference.factor * spread[worst]:.2g} nats there",
        float(shares[worst]),
    )


def _losses(run: Record, steps: int) -> NDArray[np.float64]:
    """Loss of each step; NaN where it was no number."""
    found = np.array(run.first_epoch_losses, float)
    if len(found) != steps:
        raise BenchError(f"{run.plan.backend}: {len(found)} steps; expected {steps}")
    return found
