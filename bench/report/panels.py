"""Panels: what the report's figures have in common, as plain values that plotly's JavaScript draws.

A panel is drawn in the reader's browser, in the reader's colours (light or dark), and only once it comes into view.
What is drawn doesn't grow with the number of records: a line a backend and mode, seeds as a band around it, and only
the figures of one group (machine, protocol, precision) at a time.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bench.figures.palette import colour_of
from bench.tables.labels import said

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
OUTLINE = "#777777"  # of markers: seen on white and on black

MOST_TICKS = 9
MOST_POINTS = 200
"""The most points of a line; of longer curves every n-th epoch is drawn, and the caption says so."""


@dataclass(frozen=True)
class Panel:
    """One figure.

    Attributes:
        name: its id in the page, unique within its group.
        title: what it shows.
        caption: what has to be known to read it.
        table: the name of the table that has its figures.
        data: plotly's traces.
        layout: plotly's layout, but for colours.
    """

    name: str
    title: str
    caption: str
    table: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """The panels of one machine, protocol and precision."""

    label: str
    panels: list[Panel]


def panel(
    name: str, title: str, caption: str, table: str, traces: Sequence[Any], layout: Mapping[str, Any], height: int = 380
) -> Panel:
    """Return a panel of plotly's graph objects, which check their properties."""
    common = {
        "template": "none",
        "height": height,
        "margin": {"l": 64, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }
    # By way of JSON, in which plotly writes null for what is not finite: one such number and no plot would be drawn.
    figure = json.loads(go.Figure(data=list(traces), layout=common | dict(layout)).to_json())
    figure["layout"].pop("template", None)
    return Panel(name, title, " ".join(caption.split()), table, figure["data"], figure["layout"])


def axis(title: str, *, log: bool = False, **more: Any) -> dict[str, Any]:
    """An axis; on a logarithmic one ticks at powers of ten (and at 2 and 5 where there is room)."""
    scale = {"type": "log", "dtick": "D2"} if log else {}
    return {"title": {"text": title}, "automargin": True, **scale, **more}


def ticks(sizes: Sequence[int]) -> dict[str, Any]:
    """Ticks of an axis of sizes at those that were measured, at most `MOST_TICKS` of them."""
    shown = list(sizes)[:: -(-len(sizes) // MOST_TICKS) or 1]
    return {"tickmode": "array", "tickvals": shown, "ticktext": [f"{size:,}" for size in shown], "dtick": None}


def look(series: str, all_series: Sequence[str]) -> dict[str, Any]:
    """Line and marker of a series: its backend's colour, a dash and a symbol for itself alone."""
    place = list(all_series).index(series)
    colour = colour_of(series, all_series)
    edge = {"color": OUTLINE, "width": 1}
    marker = {"color": colour, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8, "line": edge}
    return {"line": {"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2}, "marker": marker}


def line(series: str, all_series: Sequence[str], x: Sequence[Any], y: Sequence[Any], **more: Any) -> Any:
    """Return the line of a series through its points, in its look."""
    return go.Scatter(x=x, y=y, name=said(series), mode="lines+markers", **look(series, all_series), **more)


def error_bars(middle: pd.Series, low: pd.Series, high: pd.Series) -> dict[str, Any]:
    """Bars from `low` to `high`; none where these are missing."""
    ends = {"array": (high - middle).fillna(0.0).tolist(), "arrayminus": (middle - low).fillna(0.0).tolist()}
    return {"type": "data", "symmetric": False, **ends, "width": 4, "thickness": 1.2}


def thinned(epochs: Sequence[int]) -> tuple[list[int], str]:
    """Return every n-th of many epochs and the last one, and what the caption says of that."""
    step = -(-len(epochs) // MOST_POINTS)
    if step <= 1:
        return list(epochs), ""
    kept = [epoch for place, epoch in enumerate(epochs) if place % step == 0 or place == len(epochs) - 1]
    return kept, f"Of {len(epochs)} epochs one in {step} is drawn."
