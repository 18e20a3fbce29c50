"""Verdicts of the regression check: what was found, what is allowed, and what that means."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.comparison.compare import INCOMPARABLE, SAME, UNCLEAR
from bench.tables.render import Table, number

ORDER = ("regression", *("slower", "faster", UNCLEAR, INCOMPARABLE, SAME), "ok")
"""What may come of it, the worst first: of losses the first and the last, of speed the words of `compare`."""


@dataclass(frozen=True)
class Verdict:
    """One comparison with a reference, of a backend or a pair of them; found and allowed are for people, with units.

    Attributes:
        check: "run", "trajectory", "convergence", "equivalence" or "speed".
        outcome: what it means, one of `ORDER`. Only a regression fails; a "slower" does where that is asked for.
        share: how much of what is allowed is used up; above 1 is too much. None where there is no such number.
    """

    check: str
    protocol: str
    precision: str
    backend: str
    quantity: str
    found: str
    allowed: str
    outcome: str
    share: float | None = None


def table(verdicts: Sequence[Verdict]) -> Table:
    """A row for each verdict, those that fail first."""
    rows = sorted(verdicts, key=lambda verdict: ORDER.index(verdict.outcome))
    raw = pd.DataFrame([vars(row) for row in rows], columns=list(Verdict.__dataclass_fields__))
    shown = raw.drop(columns=["outcome", "share"])
    shown["× allowed"] = [number(share, 3) for share in raw["share"].astype(float)]
    shown["verdict"] = raw["outcome"]
    caption = (
        "Against the references of `nice-bench check`. Trajectory: the step that comes nearest to its tolerance, or is "
        "furthest beyond. Convergence: mean of the runs, against the two-sided t interval for such a mean. "
        "Equivalence: mean difference of runs of one seed with its 90 % interval, which must lie within the margin "
        "(two one-sided tests at 5 %). Speed: a training epoch over its floor, and over a product by NumPy in the same "
        "process, against the runs of the reference, the mean over the parts of the check; × allowed above 1 is slower "
        "than their noise explains (all ratios together in 1 % of checks, by Holm's procedure). Drift of the machine "
        "between a check and its reference is in neither but for what the ratios take out."
    )
    return Table("check", "Regression check", caption, shown, raw, ("check", "protocol", "precision", "backend"))
