"""Suites: the agreement suite's checks (`checks.csv.gz`) in the report."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.agreement import agreement_report
from bench.records.collection import files_below
from bench.report.figures import heat_map
from bench.report.panels import Group, Panel
from bench.tables.render import MISSING, Table, number

TITLES = {
    "matrix": "Weights ported: error over tolerance",
    "lockstep": "Training in lockstep: error over tolerance",
    "invertibility": "Round trips: error over tolerance",
}


@dataclass(frozen=True)
class Suite:
    """One file of checks: where from, what it comes to, and how it is shown."""

    label: str
    sentences: list[str]
    group: Group
    tables: list[Table]


def suites(paths: Iterable[Path]) -> list[Suite]:
    """The suites in files and folders."""
    files = [file for path in paths if path.is_dir() for file in files_below(path, agreement_report.FILE)]
    return [_suite(*agreement_report.load(file.parent), file.parent.name) for file in files]


def _suite(data: pd.DataFrame, head: list[str], folder: str) -> Suite:
    machine = (head[0] if head else "").removeprefix("machine: ").split(";")[0] or "unknown machine"
    label = f"{machine} · {folder}"
    failed = data[~data["passed"]]
    made = f"{len(failed)} of {len(data)} checks FAILED." if len(failed) else f"All {len(data)} checks passed."
    sentences = [made if len(data) else "No check was made."]
    for (suite, backend), rows in failed.groupby(["suite", "backend"], sort=False):
        sentences.append(f"{suite}, {backend}: {len(rows)} failed: {', '.join(sorted(set(rows['quantity'])))}.")
    panels = [panel for suite, title in TITLES.items() for panel in _panels(data[data["suite"] == suite], suite, title)]
    tables = agreement_report.tables(data, head, brief=True)
    return Suite(label, sentences, Group(label, panels), tables)


def _panels(rows: pd.DataFrame, suite: str, title: str) -> list[Panel]:
    """A heat map of the largest error over its tolerance, a row per quantity and precision, a column per backend."""
    rows = rows[np.isfinite(rows["tolerance"]) & ~rows["backend"].str.contains("→")]
    if suite == "invertibility":
        rows = rows[rows["quantity"].isin(agreement_report.IN_BRIEF)]
    if rows.empty:
        return []
    # An error of 0 is within any tolerance; over a tolerance of 0 any other is infinitely far out.
    share = (rows["error"] / rows["tolerance"]).where(rows["error"] != 0, 0.0)
    worst = rows.assign(share=share.fillna(np.inf)).groupby(["quantity", "precision", "backend"], sort=False)
    shares, passed = worst["share"].max(), worst["passed"].all()
    columns, lines = list(dict.fromkeys(rows["backend"])), []
    for quantity, precision in dict.fromkeys(zip(rows["quantity"], rows["precision"], strict=True)):
        keys = [(quantity, precision, backend) for backend in columns]
        cells = [
            (float(shares[key]), number(float(shares[key]), 2) + ("" if passed[key] else " FAILED"))
            if key in shares.index
            else (float("nan"), MISSING)
            for key in keys
        ]
        lines.append((f"{quantity} · {precision}", cells))
    caption = (
        "Largest error as a share of its tolerance, over all architectures, weights and steps; above 1 (orange) it "
        "has failed; empty: not compared."
    )
    name, table = f"suite-{suite}", f"agreement-{suite}"
    return [heat_map(name, title, caption, table, columns, lines, span=(-4, 1))]
