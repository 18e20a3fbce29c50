"""History: what `nice-bench history` says of figures that have two revisions or more, as plots and tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

import pandas as pd
import plotly.graph_objects as go

from bench.comparison import history
from bench.comparison.revisions import Side
from bench.report.panels import Group, Panel, axis, error_bars, line, panel
from bench.tables.render import Table

MARKS = {"step": "circle-open", "disturbed": "x-thin-open"}
"""What is marked at a revision, and how; plotly's names of symbols."""

CAPTION = (
    "Mean of the rounds that a revision added, with its 95 % interval where it has one. A ring is a step, from "
    "which on the figure has changed; a cross is a figure that other processes disturbed."
)


@dataclass(frozen=True)
class History:
    """The sentences, plots and tables of a history; all empty where no figure has two revisions."""

    sentences: list[str]
    groups: list[Group]
    tables: list[Table]


def over_revisions(revisions: Sequence[Side]) -> History:
    """The section of the figures over `revisions`, the oldest first."""
    found = [series for series in history.history(revisions, history.SHOWN) if len(series) > 1]
    if not found:
        return History([], [], [])
    groups, tables = [], []
    made = zip(history.by_section(found).items(), history.tables(found), strict=True)
    for number, ((title, rows), table) in enumerate(made, 1):
        name, data = f"history-{number}", pd.DataFrame(rows)
        tables.append(replace(table, name=name, caption=history.CAPTION))
        figures = data.groupby(["figure", "of"], sort=False)
        panels = [
            _panel(f"{name}-{place}", " ".join(map(str, key)).strip(), name, its, [each.name for each in revisions])
            for place, (key, its) in enumerate(figures, 1)
        ]
        groups.append(Group(title, panels))
    return History(history.sentences(found), groups, tables)


def _panel(name: str, title: str, table: str, rows: pd.DataFrame, order: Iterable[str]) -> Panel:
    """One figure: a line for each backend and mode, and what is marked on it."""
    names = [*dict.fromkeys(rows["backend"])]
    traces = []
    for backend, its in rows.groupby("backend", sort=False):
        bars = error_bars(its["value"], its["low"], its["high"])
        heights = its["value"].tolist()
        traces.append(line(str(backend), names, its["revision"].tolist(), heights, error_y=bars, text=_said(its)))
    for mark, symbol in MARKS.items():
        its = rows[rows[mark]]
        look = {"symbol": symbol, "size": 18, "color": "#777777", "line": {"width": 2}}
        at = {"x": its["revision"].tolist(), "y": its["value"].tolist(), "text": _said(its)}
        traces += [go.Scatter(name=mark, mode="markers", marker=look, **at)] if len(its) else []
    there = set(rows["revision"])
    shown = axis("", type="category", categoryorder="array", categoryarray=[at for at in order if at in there])
    layout = {"xaxis": shown, "yaxis": axis(rows["unit"].iloc[0])}
    return panel(name, title, CAPTION, table, traces, layout)


def _said(rows: pd.DataFrame) -> list[str]:
    """What stands at each point while the pointer is on it: its date, its commit's subject and its change."""
    points = zip(rows["date"], rows["subject"], rows["change"], strict=True)
    return [escape(" · ".join(filter(None, each))) for each in points]
