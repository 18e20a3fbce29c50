"""The regression check of speed: by ratios of what was measured in one process, so that it holds on another machine.

An epoch's time over its floor says what a backend adds to its own products; over a product by NumPy, whether those
products became slower. Of the epochs the fastest counts, as of the floor: other work only adds to a time.
The noise of a ratio is what the runs of the reference show: a new one that lies above what their logarithms lead to
expect (one-sided t interval of a single further run) is slower. That is reported; whether it fails, is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bench.comparison.statistics import Estimate
from bench.records import Plan, Record
from bench.regression.reference import Reference, Speed
from bench.regression.verdicts import Outcome, Verdict

CONFIDENCE = 0.99
LEAST_RUNS = 3
NAMES = {"floor": "epoch over its floor", "calibration": "epoch over NumPy's product"}
MEASURED = {"floor": ("floor", "train_epoch_seconds"), "calibration": ("calibration", "product_seconds")}


def ratios(run: Record) -> dict[str, float]:
    """What stands in `NAMES` → the fastest epoch over it, within a round; the least of all rounds."""
    found = {}
    for name, (measure, quantity) in MEASURED.items():
        each = [
            min(point.seconds for point in run.curve if point.round == m.context.get("round")) / m.value
            for m in run.measurements
            if m.measure == measure
            and m.quantity == quantity
            and m.value
            and any(point.round == m.context.get("round") for point in run.curve)
        ]
        if each:
            found[name] = min(each)
    return found


def make(runs: Sequence[Record]) -> list[Speed]:
    """The ratios of these runs, by backend and cores; without NumPy's, which is the oracle and no backend to time."""
    groups: dict[tuple[str, int], list[dict[str, float]]] = {}
    for run in runs:
        if run.status == "ok" and run.plan.backend != "numpy":
            key = (run.plan.backend, int(run.environment.get("cores", 0)))
            groups.setdefault(key, []).append(ratios(run))
    return [
        Speed(backend=backend, cores=cores, **{name: [_rounded(r[name]) for r in its if name in r] for name in NAMES})
        for (backend, cores), its in sorted(groups.items())
    ]


def judge(runs: Sequence[Record], reference: Reference) -> list[Verdict]:
    """Hold good runs of one backend on so many cores against the reference: the median of each ratio."""
    plan, cores = runs[0].plan, runs[0].environment.get("cores")
    known = next((s for s in reference.speed if s.backend == plan.backend and s.cores == cores), None)
    verdicts = []
    for name, quantity in NAMES.items():
        found = [ratio[name] for ratio in map(ratios, runs) if name in ratio]
        sample = np.log(getattr(known, name)) if known else np.array([])
        if not found or len(sample) < LEAST_RUNS:
            reason = "not measured" if not found else f"{len(sample)} runs of it on {cores} cores in the reference"
            verdicts.append(_verdict(plan, quantity, reason, f"{LEAST_RUNS} or more", "not judged", None))
            continue
        usual, noise = _expected(sample)
        times = float(np.median(found)) / math.exp(usual)
        outcome: Outcome = "slower" if times > noise else "faster" if times < 1 / noise else "ok"
        told = f"{float(np.median(found)):.3g}, × {times:.2f} of the reference"
        verdicts.append(_verdict(plan, quantity, told, f"× {noise:.2f}", outcome, times / noise))
    return verdicts


def _expected(logarithms: np.ndarray) -> tuple[float, float]:
    """The mean logarithm, and the factor above it that a further run stays below."""
    n = len(logarithms)
    error = float(logarithms.std(ddof=1)) * math.sqrt(1 + 1 / n)
    _, above = Estimate(0.0, error, n - 1).interval(2 * CONFIDENCE - 1)  # one of its sides
    return float(logarithms.mean()), math.exp(above)


def _verdict(plan: Plan, quantity: str, found: str, allowed: str, outcome: Outcome, share: float | None) -> Verdict:
    return Verdict("speed", plan.protocol, plan.precision, plan.backend, quantity, found, allowed, outcome, share)


def _rounded(ratio: float) -> float:
    return float(f"{ratio:.4g}")
