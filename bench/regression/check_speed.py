"""The regression check of speed: by ratios of what was measured in one process, so that it holds on another machine.

An epoch's time over its floor says what a backend adds to its own products; over a product by NumPy, whether those
products became slower. Of the epochs the fastest counts, as of the floor: other work only adds to a time.

The unit is a part of the check: its runs share an hour and are one observation. A backend's figure is the mean over the
parts that it was run in, of how its logarithm differs from that of the reference; its deviation is that of the runs of
the reference, pooled over those parts. The ratios of all backends are one family (Holm), so that a quiet check calls
anything slower in 1 % at most: each ratio of each part by itself, 30 of them at 1 %, did in 16 to 42 %. What that
says is put in the words of `compare`. It is reported; whether it fails, is asked for.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.comparison.compare import INCOMPARABLE, Margins, concluded, worded
from bench.comparison.statistics import Estimate, holm
from bench.measures.disturbance import disturbed
from bench.records import Record
from bench.regression.reference import Reference, Speed
from bench.regression.verdicts import Verdict
from bench.tables.render import MISSING

LEVEL = 0.02
"""The level of the two-sided tests of all ratios together: in 1 % of checks one is called slower which is not."""

LEAST_RUNS = 3
NAMES = {"floor": "epoch over its floor", "calibration": "epoch over NumPy's product"}
MEASURED = {("floor", "train_epoch_seconds"): "floor", ("calibration", "product_seconds"): "calibration"}


@dataclass(frozen=True)
class Part:
    """Logarithms of one ratio of a backend, in the undisturbed runs of a check and in those of its reference."""

    protocol: str
    precision: str
    found: np.ndarray
    usual: np.ndarray
    disturbed: bool = False

    @property
    def fit(self) -> bool:
        """Whether the noise of the reference is known, and there is something to hold against it."""
        return len(self.found) > 0 and len(self.usual) >= LEAST_RUNS


def ratios(run: Record) -> dict[str, float]:
    """What stands in `NAMES` → the fastest epoch over it, within a round; the least of all rounds.

    Of a run that other processes disturbed there is nothing to hold against a reference, nor to make one of.
    """
    if disturbed(run):
        return {}
    fastest: dict[Any, float] = {}
    for point in run.curve:
        fastest[point.round] = min(point.seconds, fastest.get(point.round, math.inf))
    found: dict[str, float] = {}
    for m in run.measurements:
        name, round_ = MEASURED.get((m.measure, m.quantity)), m.context.get("round")
        if name and m.value and round_ in fastest:
            found[name] = min(fastest[round_] / m.value, found.get(name, math.inf))
    return found


def make(runs: Sequence[Record]) -> list[Speed]:
    """The ratios of these runs, by backend and cores; without NumPy's, which is the oracle and no backend to time."""
    groups = defaultdict[tuple[str, int], list[dict[str, float]]](list)
    for run in runs:
        if run.status == "ok" and run.plan.backend != "numpy":
            groups[run.plan.backend, int(run.environment.get("cores", 0))].append(ratios(run))
    return [
        Speed(backend=backend, cores=cores, **{n: [float(f"{r[n]:.4g}") for r in its if n in r] for n in NAMES})
        for (backend, cores), its in sorted(groups.items())
    ]


def judge(groups: Iterable[tuple[Sequence[Record], Reference]]) -> list[Verdict]:
    """Hold the good runs of each protocol and precision against its reference: a verdict a backend and ratio."""
    parts = defaultdict(list)
    for runs, reference in groups:
        by_backend = defaultdict(list)
        for run in runs:
            by_backend[run.plan.backend, run.environment.get("cores")].append(ratios(run))
        for (backend, cores), its in by_backend.items():
            known = next((s for s in reference.speed if (s.backend, s.cores) == (backend, cores)), None)
            for name in NAMES:
                found = np.log([ratio[name] for ratio in its if name in ratio])
                usual = np.log(getattr(known, name) if known else [])
                busy = any(disturbed(run) for run in runs if run.plan.backend == backend)
                parts[backend, name].append(Part(reference.protocol, reference.precision, found, usual, busy))
    fit = {key: [part for part in its if part.fit] for key, its in parts.items()}
    estimates = {key: estimated(its) for key, its in fit.items() if its}
    order = sorted(estimates, key=lambda key: float(estimates[key].p))
    p = dict(zip(order, holm([float(estimates[key].p) for key in order]), strict=True))
    slower_or_faster = sum(each < LEVEL for each in p.values())
    verdicts = [_unfit(*key, its[0]) for key, its in parts.items() if key not in estimates]
    for rank, key in enumerate(order):
        level = LEVEL / (len(order) - min(rank, slower_or_faster))  # at which Holm's procedure has this one
        verdicts.append(_verdict(*key, fit[key], estimates[key], float(p[key]), level))
    return verdicts


def estimated(parts: Sequence[Part]) -> Estimate:
    """The mean over parts of the logarithm of found over usual, by the deviation of the usual, pooled."""
    value = float(np.mean([np.mean(part.found) - np.mean(part.usual) for part in parts]))
    degrees = sum(len(part.usual) - 1 for part in parts)
    variance = sum((len(part.usual) - 1) * np.var(part.usual, ddof=1) for part in parts) / degrees
    return Estimate(value, math.sqrt(variance * sum(1 + 1 / len(part.usual) for part in parts)) / len(parts), degrees)


def _verdict(backend: str, name: str, parts: Sequence[Part], estimate: Estimate, p: float, level: float) -> Verdict:
    noise = math.exp(replace(estimate, value=0.0).interval(1 - level)[1])
    times = math.exp(estimate.value)
    outcome = worded(concluded(estimate, p, math.log1p(Margins().ratio), level=LEVEL))
    where = (parts[0].protocol, parts[0].precision) if len(parts) == 1 else (f"mean of {len(parts)} parts", MISSING)
    found = f"× {times:.2f} of the reference"
    return Verdict("speed", *where, backend, NAMES[name], found, f"× {noise:.2f}", outcome, times / noise)


def _unfit(backend: str, name: str, part: Part) -> Verdict:
    reason = "disturbed by other processes" if part.disturbed else "not measured"
    reason = f"{len(part.usual)} runs on so many cores in the reference" if len(part.found) else reason
    where = (part.protocol, part.precision, backend, NAMES[name])
    return Verdict("speed", *where, reason, f"{LEAST_RUNS} or more", INCOMPARABLE)
