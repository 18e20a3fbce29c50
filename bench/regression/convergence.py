"""The regression check over seeds: do full runs still end where they did, and do the backends end at one place?

The idea is that of MLPerf's reference convergence points: a set of reference runs says how far seeds lie apart, and new
runs are held against it. Here both ends count (a loss that is suddenly too good is an error, too), the deviation is the
sample's (ddof = 1), and that the reference is itself a small sample widens the interval as a t distribution says.

That the backends do not differ significantly would say nothing: with few runs nothing is significant. They are called
equal if two one-sided tests (TOST; Schuirmann, 1987) exclude a difference of a margin that is declared. Runs of one
seed have weights, order and noise in common, so their differences are compared, which no spread of seeds blurs.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.comparison.statistics import Estimate, paired
from bench.errors import BenchError
from bench.records import Record
from bench.regression.reference import Convergence, Made, Speed
from bench.regression.verdicts import Verdict

LEAST_SEEDS = 10
FALSE_ALARMS = 0.01
EQUIVALENCE_LEVEL = 0.05
MARGIN = 2.0
"""Nats: 0.004 bits a dimension of MNIST, and about twice the deviation between seeds. Rounding, grown over a run of the
narrow network, moves the loss of one seed by up to a nat, so that four seeds can exclude a difference of two."""
MEASURES = ("train_loss", "test_loss")
DIGITS = 3

NOTE = (
    "Losses in nats, a list a checkpoint with one for each seed. Allowed of the mean of m runs: "
    "mean ± t s √(1/n + 1/m), s with ddof = 1, t two-sided with n − 1 degrees of freedom at false_alarms over the "
    "number of comparisons. Allowed between backends: margin, for the 90 % interval of the mean difference by seed."
)


def by_seed(runs: Sequence[Record]) -> dict[str, dict[int, Record]]:
    """Backend → seed → the last run of it."""
    found: dict[str, dict[int, Record]] = {}
    for run in sorted(runs, key=lambda run: run.created):
        found.setdefault(run.plan.backend, {})[run.plan.seed] = run
    return found


def make(runs: Sequence[Record], margin: float, made: Made, speed: list[Speed]) -> Convergence:
    """A reference from runs of one protocol, at a quarter, half and all of its epochs.

    Raises:
        BenchError: fewer than 10 seeds, a seed that a backend lacks, a run that failed, a loss that is no number.
    """
    found, plan = by_seed(runs), runs[0].plan
    seeds = sorted({run.plan.seed for run in runs})
    if len(seeds) < LEAST_SEEDS:
        raise BenchError(f"{plan.protocol}: {len(seeds)} seeds; a reference takes {LEAST_SEEDS} or more")
    for backend, its in found.items():
        bad = [seed for seed in seeds if seed not in its or its[seed].status != "ok"]
        if bad:
            raise BenchError(f"{plan.protocol}: {backend} has no good run of seed {bad[0]}")
    checkpoints = sorted({max(1, round(plan.epochs * part)) for part in (0.25, 0.5, 1)})
    losses = {
        backend: {
            measure: [[round(_loss(its[seed], measure, epoch), DIGITS) for seed in seeds] for epoch in checkpoints]
            for measure in MEASURES
        }
        for backend, its in found.items()
    }
    if not np.isfinite(np.concatenate([np.ravel(of) for its in losses.values() for of in its.values()])).all():
        raise BenchError(f"{plan.protocol}: a run has a loss that is not a number: no reference can be made of it")
    return Convergence(
        protocol=plan.protocol,
        protocol_digest=plan.protocol_digest,
        device=plan.device,
        precision=plan.precision,
        data=runs[0].digests["data"],
        made=made,
        speed=speed,
        note=NOTE,
        seeds=seeds,
        checkpoints=checkpoints,
        false_alarms=FALSE_ALARMS,
        margin=margin,
        losses=losses,
    )


def judge(runs: Sequence[Record], reference: Convergence) -> list[Verdict]:
    """Hold runs, all of which ended well, against the reference; then against each other."""
    where = (reference.protocol, reference.precision)
    found = by_seed(runs)
    every = list(itertools.product(MEASURES, enumerate(reference.checkpoints)))
    confidence = 1 - reference.false_alarms / (len(every) * len(found))
    verdicts = []
    for backend, its in found.items():
        if backend not in reference.losses:
            verdicts.append(Verdict("convergence", *where, backend, "losses", "no reference", "one", "regression"))
            continue
        for measure, (i, epoch) in every:
            quantity = f"{measure.replace('_', ' ')}, epoch {epoch}"
            losses = np.array([_loss(run, measure, epoch) for run in its.values()])
            sample = np.array(reference.losses[backend][measure][i])
            verdicts.append(_converged(losses, sample, confidence, reference, backend, quantity))
    for (first, second), (measure, (_, epoch)) in itertools.product(itertools.combinations(found, 2), every):
        quantity = f"{measure.replace('_', ' ')}, epoch {epoch}"
        seeds = sorted(found[first].keys() & found[second].keys())
        pair = [[_loss(found[name][seed], measure, epoch) for seed in seeds] for name in (first, second)]
        verdicts.append(_equivalent(np.subtract(pair[0], pair[1]), reference, f"{first} − {second}", quantity))
    return verdicts


def interval(sample: NDArray[np.float64], runs: int, confidence: float) -> tuple[float, float]:
    """Where the mean of so many new runs lies with this probability, if they are of the sample's distribution."""
    n = len(sample)
    error = float(sample.std(ddof=1)) * math.sqrt(1 / n + 1 / runs)
    low, high = Estimate(float(sample.mean()), error, n - 1).interval(confidence)
    return float(low), float(high)


def equivalence(apart: NDArray[np.float64], level: float = EQUIVALENCE_LEVEL) -> tuple[float, float]:
    """Where the mean of paired differences lies; within ±margin, both one-sided tests at `level` exclude the margin."""
    low, high = paired(apart).interval(1 - 2 * level)
    return float(low), float(high)


def _converged(
    losses: NDArray, sample: NDArray, confidence: float, reference: Convergence, backend: str, quantity: str
) -> Verdict:
    where = (reference.protocol, reference.precision)
    low, high = interval(sample, len(losses), confidence)
    mean = float(losses.mean())
    middle, half = (low + high) / 2, (high - low) / 2
    share = abs(mean - middle) / half if half else (0.0 if mean == middle else math.inf)
    outcome = "ok" if share <= 1 else "regression"  # also if it is not a number
    found = f"{mean:.2f} nats ({len(losses)} runs)" if math.isfinite(mean) else "not a number"
    allowed = f"{low:.2f} to {high:.2f} nats"
    return Verdict("convergence", *where, backend, quantity, found, allowed, outcome, share)


def _equivalent(apart: NDArray, reference: Convergence, pair: str, quantity: str) -> Verdict:
    where = (reference.protocol, reference.precision)
    allowed = f"±{reference.margin:g} nats"
    if len(apart) < 2:
        found = f"{len(apart)} seeds in common; 2 or more could show it"
        return Verdict("equivalence", *where, pair, quantity, found, allowed, "not comparable")
    low, high = equivalence(apart)
    share = max(abs(low), abs(high)) / reference.margin
    outcome = "ok" if share <= 1 else "regression"
    found = f"{apart.mean():+.3f} [{low:+.3f} to {high:+.3f}] nats"
    return Verdict("equivalence", *where, pair, quantity, found, allowed, outcome, share)


def _loss(run: Record, measure: str, epoch: int) -> float:
    losses = (getattr(point, measure) for point in run.curve if point.epoch == epoch)
    return math.nan if (loss := next(losses, None)) is None else loss
