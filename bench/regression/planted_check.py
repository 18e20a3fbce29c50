"""Planted faults: whether the regression check would see what it is there for, asked of the check itself.

Each fault is planted in each backend's own file (see `mutants_check`), the narrow trajectory is run with it, and the
verdict must be the right one: a regression of the loss for those that change a number, a slow-down and nothing else for
the one that only costs time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bench.regression import check, check_runs
from bench.regression.check_runs import PARTS, Where
from bench.regression.mutants_check import FAULTS, SLOW
from bench.regression.verdicts import Verdict
from bench.running.runner import Listener
from bench.tables.render import MISSING, Table, number

PART = next(part for part in PARTS if part.name == "trajectory-narrow-float32")


@dataclass(frozen=True)
class Result:
    """What the check said of one fault in one backend; `verdict` is the one that found it, or None."""

    fault: str
    backend: str
    verdict: Verdict | None

    @property
    def caught(self) -> bool:
        """Whether it was found."""
        return self.verdict is not None


def run(
    backends: Sequence[str],
    where: Where,
    references: Path,
    listener: Listener,
    faults: Sequence[str] = tuple(FAULTS),
) -> Iterator[Result]:
    """Plant each fault in each backend that can have it: side by side, but for the one that its time gives away."""
    jobs = [
        replace(job, fault=fault)
        for fault in faults
        for job in check_runs.check_jobs(PART, [name for name in backends if name in FAULTS[fault].changes])
    ]
    timed = [job for job in jobs if job.fault == SLOW.name]
    for together, abreast in (([job for job in jobs if job not in timed], 2), (timed, 1)):
        for job, run in zip(together, check_runs.run(together, where, listener, abreast), strict=True):
            fault, judged = str(job.fault), check.judge([run], references, [job.backend])
            yield Result(fault, job.backend, caught_by(fault, judged))


def caught_by(fault: str, judged: Sequence[Verdict]) -> Verdict | None:
    """The verdict that found a fault. A run that failed has found nothing, nor has a slow one if its loss is off."""
    regressions = [verdict for verdict in judged if verdict.outcome == "regression"]
    if fault != SLOW.name:
        return next((verdict for verdict in regressions if verdict.check == "trajectory"), None)
    slower = [verdict for verdict in judged if verdict.outcome == "slower"]
    return slower[0] if slower and not regressions else None


def table(results: Sequence[Result]) -> Table:
    """A row for each fault, a column for each backend: how many times what is allowed it was off."""
    names = list(dict.fromkeys(result.backend for result in results))
    found = {(result.fault, result.backend): result for result in results}

    def cell(fault: str, backend: str) -> str:
        result = found.get((fault, backend))
        if result is None:
            return MISSING
        return f"× {number(result.verdict.share, 3)}" if result.verdict else "NOT FOUND"

    rows = [
        {"fault": fault, "description": FAULTS[fault].description} | {name: cell(fault, name) for name in names}
        for fault in dict.fromkeys(result.fault for result in results)
    ]
    raw = [
        {"fault": r.fault, "backend": r.backend, "caught": r.caught, "share": r.verdict.share if r.verdict else None}
        for r in results
    ]
    caption = (
        f"Faults planted in each backend's own file, one at a time, and what the regression check made of the narrow "
        f"trajectory in float32: the worst verdict, in multiples of what is allowed. {MISSING}: the backend can't have "
        f"this fault."
    )
    return Table("check-planted", "Planted faults", caption, pd.DataFrame(rows), pd.DataFrame(raw), ("fault",))
