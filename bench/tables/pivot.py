"""Pivot: what tables made from the tidy frame have in common, from rows to figures and from figures to a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.tables.labels import ROW, SECTION, Row, incomplete, provenance
from bench.tables.render import MISSING, Table

RECORD = ["run", "seed"]  # what tells the records of one row apart


@dataclass(frozen=True)
class Spread:
    """The median over records of each record's median over rounds, and the lowest and highest; NaN for none."""

    middle: float = math.nan
    low: float = math.nan
    high: float = math.nan


def over_rounds(rows: pd.DataFrame, missing: float | None = None) -> Spread:
    """Summarise the values of one quantity; `missing` stands in for those recorded as having no value."""
    values = rows[[*RECORD, "value", "low", "high"]].copy()
    if missing is not None:
        values["value"] = values["value"].fillna(missing)
    values = values.dropna(subset=["value"])
    if values.empty:
        return Spread()
    by_record: dict[tuple[Any, ...], list[float]] = {}  # (a groupby would take most of the time of all tables)
    for run, seed, value in zip(values["run"], values["seed"], values["value"], strict=True):
        by_record.setdefault((run, seed), []).append(value)
    per_record = [float(np.median(part)) for part in by_record.values()]
    low, high = float(values["value"].min()), float(values["value"].max())
    if len(values) == 1 and values[["low", "high"]].notna().all(axis=None):
        low, high = float(values["low"].iloc[0]), float(values["high"].iloc[0])
    return Spread(float(np.median(per_record)), low, high)


def pick(rows: pd.DataFrame, measure: str, quantity: str) -> pd.DataFrame:
    """Return the rows of one quantity."""
    return rows[(rows["measure"] == measure) & (rows["quantity"] == quantity)]


def first_round(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a run's first round, and those of no round."""
    return rows[rows["at_round"].isna() | (rows["at_round"] == 1)] if "at_round" in rows else rows


def contexts_of(rows: pd.DataFrame, known: Sequence[str]) -> list[str]:
    """Return the context columns that hold something and are neither `known` nor the round."""
    others = (name for name in rows.columns if name.startswith("at_") and name not in (*known, "at_round"))
    return [name for name in others if rows[name].notna().any()]


def clean(key: Row) -> Row:
    """Return keys as they stand in a raw table: no context prefix, plain missing values."""
    return {name.removeprefix("at_"): None if pd.isna(value) else value for name, value in key.items()}


def labels_of(key: Row) -> dict[str, str]:
    """Return keys as they are shown."""
    return {name: MISSING if value in (None, "") else str(value) for name, value in clean(key).items()}


def numbers_of(rows: pd.DataFrame) -> dict[str, int]:
    """Return how many runs and seeds rows sum up."""
    return {"runs": int(rows["run"].nunique()), "seeds": int(rows["seed"].nunique())}


def assemble(
    name: str,
    title: str,
    data: pd.DataFrame,
    used: pd.DataFrame,
    raw: Sequence[Mapping[str, Any]],
    shown: Sequence[Mapping[str, str]],
    told: Sequence[str],
    *,
    failures: bool = True,
) -> Table:
    """Put a table together; what is the same in every row goes to the caption instead."""
    columns = pd.DataFrame(list(shown)).fillna(MISSING).astype(object)
    constant = [
        column for column in (*SECTION, "runs", "seeds") if column in columns and columns[column].nunique() == 1
    ]
    empty = [column for column in columns if (columns[column] == MISSING).all()]
    columns = columns.drop(columns=[*constant, *empty])
    scope = data[data["protocol"].isin(used["protocol"])]
    caption = " ".join([*provenance(used), *told, *(incomplete(scope) if failures else ())])
    own = {*ROW, "status", "runs", "seeds", "quantity"}
    labels = tuple(str(column) for column in columns if column in own or f"at_{column}" in used)
    return Table(name, title, caption, columns, pd.DataFrame(list(raw)), labels)
