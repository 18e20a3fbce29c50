"""Pivot: from rows of the tidy frame to figures, and from figures to a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd

from bench.tables.labels import ROW, SECTION, Row, disturbed, groups, incomplete, provenance
from bench.tables.render import MISSING, Table, number, spread

RECORD = ["record"]  # the column in which the records of one row differ


@dataclass(frozen=True)
class Spread:
    """The median over records of each record's median over rounds, and the lowest and highest; NaN for none."""

    middle: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """The median, the lowest and the highest of one value a record."""
        return cls(float(np.median(values)), min(values), max(values)) if values else cls()

    def text(self, digits: int = 4) -> str:
        """Return "middle [low–high]", or the middle alone where the ends say no more."""
        return spread(self.middle, self.low, self.high, digits)


def over_rounds(rows: pd.DataFrame, missing: float | None = None) -> Spread:
    """Summarise the values of one quantity; `missing` stands in for those recorded as having no value."""
    values = rows[["record", "value", "low", "high"]].copy()
    if missing is not None:
        values["value"] = values["value"].fillna(missing)
    values = values.dropna(subset=["value"])
    if values.empty:
        return Spread()
    by_record: dict[int, list[float]] = {}  # (a groupby would take most of the time of all tables)
    for record, value in zip(values["record"], values["value"], strict=True):
        by_record.setdefault(record, []).append(value)
    per_record = [float(np.median(part)) for part in by_record.values()]
    low, high = float(values["value"].min()), float(values["value"].max())
    if len(values) == 1 and values[["low", "high"]].notna().all(axis=None):
        low, high = float(values["low"].iloc[0]), float(values["high"].iloc[0])
    return Spread(float(np.median(per_record)), low, high)


def with_error(rows: pd.DataFrame, digits: int) -> str:
    """Return the value of a quantity "± its standard error" where one record has it, else as `over_rounds` sums it up.

    In the rows `low` and `high` are the ends of value ± standard error.
    """
    found = over_rounds(rows)
    if len(rows) != 1 or not found.high > found.low:
        return found.text(digits)
    return f"{number(found.middle, digits)} ± {number((found.high - found.low) / 2, 2)}"


def pick(rows: pd.DataFrame, measure: str, quantity: str) -> pd.DataFrame:
    """Return the rows of one quantity."""
    return rows[(rows["measure"] == measure) & (rows["quantity"] == quantity)]


def first_round(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a run's first round, and those of no round."""
    return rows[rows["at_round"].isna() | (rows["at_round"] == 1)]


def contexts_of(rows: pd.DataFrame, known: Sequence[str]) -> list[str]:
    """Return the context columns that hold something and are neither `known` nor the round."""
    others = (name for name in rows.columns if name.startswith("at_") and name not in (*known, "at_round"))
    return [name for name in others if rows[name].notna().any()]


def clean(key: Row) -> Row:
    """Return keys as a raw table has them: without the prefix of contexts, and None for what is missing."""
    return {name.removeprefix("at_"): None if pd.isna(value) else value for name, value in key.items()}


def labels_of(key: Row) -> dict[str, str]:
    """Return keys as a shown table has them."""
    return {name: MISSING if value in (None, "") else str(value) for name, value in clean(key).items()}


def numbers_of(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of runs and of seeds among the rows."""
    return {"runs": int(rows["run"].nunique()), "seeds": int(rows["seed"].nunique())}


@dataclass
class Rows:
    """The rows of a table in the making: their numbers, what is shown of them, and the measurements behind them."""

    raw: list[Row] = field(default_factory=list)
    shown: list[dict[str, str]] = field(default_factory=list)
    used: list[pd.DataFrame] = field(default_factory=list)
    labels: dict[str, None] = field(default_factory=dict)

    def add(self, key: Row, figures: Row, cells: Mapping[str, str], used: pd.DataFrame, labels: Sequence[str]) -> None:
        """Add a row; of its keys it shows those named in `labels`."""
        self.labels |= dict.fromkeys(labels)
        self.raw.append(key | figures)
        self.shown.append({name: str(key[name]) or MISSING for name in labels} | dict(cells))
        self.used.append(used)

    def table(
        self,
        name: str,
        title: str,
        data: pd.DataFrame,
        notes: Sequence[str],
        *,
        used: pd.DataFrame | None = None,
        failures: bool = True,
    ) -> Table:
        """Return the rows as a table without empty columns, and without what the caption says of all rows at once.

        The caption says which records in `data` did not end well, unless the table itself shows such `failures`, then
        where the rows `used` are from (by default those that were added), then the `notes`.
        """
        used = pd.concat([data[:0], *self.used]) if used is None else used
        shown = pd.DataFrame(self.shown).fillna(MISSING).astype(object)
        same = [name for name in (*SECTION, "runs", "seeds") if name in shown and shown[name].nunique() == 1]
        shown = shown.drop(columns=[*same, *(column for column in shown if (shown[column] == MISSING).all())])
        failed = incomplete(data[data["protocol"].isin(used["protocol"])]) if failures else []
        own = {*self.labels, "status", "runs", "seeds"}
        labels = tuple(str(column) for column in shown if column in own)
        caption = " ".join([*failed, *provenance(used), *notes])
        return Table(name, title, caption, shown, pd.DataFrame(self.raw), labels)


def fastest_epochs(data: pd.DataFrame) -> dict[tuple[str, ...], float]:
    """Return section → the least median of seconds an epoch in it, of runs that ended well and undisturbed."""
    found: dict[tuple[str, ...], float] = {}
    for key, rows in groups(data[data["status"] == "ok"], ROW):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch")).middle
        if disturbed(rows) is None and not math.isnan(epoch):
            found[section_of(key)] = min(epoch, found.get(section_of(key), math.inf))
    return found


def section_of(key: Row) -> tuple[str, ...]:
    """Return the machine, protocol and precision of a row."""
    return tuple(str(key[name]) for name in SECTION)
