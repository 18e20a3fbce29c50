"""The regression check, step by step: identical inputs leave rounding as the only reason for two losses to differ.

The reference is NumPy's in float64. How far rounding takes a backend from it is measured: the spread at a step is the
largest distance that any backend, on one thread or on more, had reached up to there, and no less than the rounding of
the loss itself. Trajectories part exponentially, so the tolerance has to grow as they do: early steps, where the spread
is smallest, see errors that a late step would take for rounding. Of the epochs after the first the mean losses are
judged: inputs that repeat those of an earlier epoch are only wrong there.
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
    steps, epochs = len(oracle.first_epoch_losses), len(_later(oracle))
    losses = _losses(oracle, steps, epochs)
    apart = np.max([np.abs(_losses(run, steps, epochs) - losses) for run in compared], axis=0)
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
    rounded = [round(float(loss), digits) for loss in losses]
    widths = [float(f"{value:.2g}") for value in spread]
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
        losses=rounded[:steps],
        spread=widths[:steps],
        later_losses=rounded[steps:],
        later_spread=widths[steps:],
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
    steps, epochs = len(reference.losses), len(reference.later_losses)
    for count, wanted, what in (
        (len(run.first_epoch_losses), steps, "steps"),
        (len(_later(run)), epochs or len(_later(run)), "epochs after the first"),
    ):
        if count != wanted:
            return verdict(f"{count} {what}", f"{wanted} {what}", None)
    losses = _losses(run, steps, epochs)
    if not np.isfinite(losses).all():
        return verdict(f"not a number {_place(int(np.argmin(np.isfinite(losses))), steps)}", "a number", None)
    spread = np.array([*reference.spread, *reference.later_spread])
    apart = np.abs(losses - [*reference.losses, *reference.later_losses])
    shares = apart / (reference.factor * spread)
    worst = int(np.argmax(shares))
    first = _place(int(np.argmax(shares > 1)), steps).split(maxsplit=1)[1]
    beyond = f"; beyond from {first}" if shares[worst] > 1 else ""
    return verdict(
        f"{apart[worst]:.2g} nats off {_place(worst, steps)}{beyond}",
        f"{reference.factor * spread[worst]:.2g} nats there",
        float(shares[worst]),
    )


def _losses(run: Record, steps: int, epochs: int) -> NDArray[np.float64]:
    """Loss of each step of the first epoch, and the mean of so many epochs after it; NaN where it was no number."""
    later = _later(run)[:epochs]
    if (len(run.first_epoch_losses), len(later)) != (steps, epochs):
        found = f"{len(run.first_epoch_losses)} steps and {len(later)} epochs after the first"
        raise BenchError(f"{run.plan.backend}: {found}; expected {steps} and {epochs}")
    return np.array([*run.first_epoch_losses, *later], float)


def _later(run: Record) -> list[float | None]:
    """The mean training loss of each epoch after the first."""
    return [point.train_loss for point in sorted(run.curve, key=lambda point: point.epoch) if point.epoch > 1]


def _place(index: int, steps: int) -> str:
    """Where in a trajectory a loss is."""
    return f"at step {index + 1}" if index < steps else f"in epoch {index - steps + 2}"
