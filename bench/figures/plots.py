"""Plots: figures made from records and from nothing else; the same records give the same bytes.

`canvas`, `look` and `save` are what the figures have in common: a new kind of figure is a function from records to
(name, figure), and a line in `figures`. No pyplot: it keeps figures in a global state.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.errors import BenchError, writing
from bench.figures.palette import colour_of
from bench.records import Record, numbered, slug
from bench.tables.floor_tables import machine_floors
from bench.tables.labels import SECTION, disturbances, groups, incomplete, prepare, provenance
from bench.tables.pivot import over_rounds, pick
from bench.tables.sweep_tables import AXIS_NAMES, OPERATION_NAMES, Curve, curves, exponent, knee, sweeps

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is there on every machine
    "font.size": 9.0,
    "grid.alpha": 0.25,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "svg.fonttype": "none",  # text as text: small, and it can be searched
    "svg.hashsalt": "nice-bench",
}
METADATA = {"svg": {"Date": None, "Creator": "nice-bench"}, "png": {"Software": "nice-bench"}}
"""The formats, and their metadata: nothing that differs from day to day."""

PANEL = 4.0, 3.6
CAPTION_CHARACTERS = 68
"""The length of a caption's line for each panel above it."""
CAPTION_LINE = 0.15


def figures(records: Iterable[Record]) -> Iterator[tuple[str, Figure]]:
    """Yield every figure that isn't empty, with the name of its file without suffix."""
    records = list(records)
    yield from training_figures([record for record in records if record.plan.kind == "run"])
    yield from sweep_figures(records)


def write(records: Iterable[Record], folder: str | Path, style: str = "svg") -> list[Path]:
    """Write every figure into `folder` and return the files' paths.

    Raises:
        BenchError: an unknown format or a folder that cannot be written.
    """
    if style not in METADATA:
        raise BenchError(f"format {style!r}: expected one of {', '.join(METADATA)}")
    folder, paths = Path(folder), []
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        for name, figure in figures(records):
            named = (folder / f"{each}.{style}" for each in numbered(name))
            paths.append(next(path for path in named if path not in paths))
            save(figure, paths[-1])
    return paths


def canvas(panels: int, title: str, caption: str) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with panels side by side, a title above and a caption below, to be called in `write`'s style."""
    lines = textwrap.wrap(caption, CAPTION_CHARACTERS * panels)
    below = CAPTION_LINE * (len(lines) + 1)
    width, height = PANEL[0] * panels, PANEL[1] + below
    layout = ConstrainedLayoutEngine(rect=(0, below / height, 1, 1 - below / height))
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontsize="large")
    figure.text(0.08 / width, 0.08 / height, "\n".join(lines), fontsize=7, va="bottom", linespacing=1.35)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def look(series: str, all_series: Sequence[str]) -> dict[str, Any]:
    """Return the colour of a series' backend and a marker of its own; it is named as in `bench.tables.labels`."""
    place = list(all_series).index(series)
    return {"color": colour_of(series, all_series), "marker": MARKERS[place % len(MARKERS)]}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, in the format of the path's suffix.

    Raises:
        BenchError: it can't be written.
    """
    kind = path.suffix.removeprefix(".")
    with writing(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=METADATA[kind])


# Training

TRAINING_CAPTION = (
    "Left: the training loss of every backend, each over the one before. Right: seconds an epoch, median over rounds, "
    "with the lowest and highest. Dashed: the machine's floor, the products of an epoch by the fastest library there."
)


def training_figures(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Yield loss by epoch beside the time of an epoch with its floor: a figure per machine, protocol and precision."""
    if not records:
        return
    data = prepare(records)
    floors = machine_floors(data)
    for section, rows in groups(data, SECTION):
        name = "-".join(str(section[key]) for key in SECTION)
        series = [str(key["series"]) for key, _ in groups(rows, ["series"])]
        timed = {one: over_rounds(pick(rows[rows["series"] == one], "training", "seconds_per_epoch")) for one in series}
        if not any(spread.middle > 0 for spread in timed.values()):
            continue
        caption = " ".join([*incomplete(rows), *disturbances(rows), *provenance(rows), TRAINING_CAPTION])
        figure, (losses, seconds) = canvas(2, "Loss by epoch, and the time of an epoch", caption)
        for place, one in enumerate(series):
            curve = pick(rows[rows["series"] == one], "curve", "train_loss").groupby("at_epoch")["value"].median()
            style = look(one, series)
            widest = 2.0 * (len(series) - place)  # the first the widest, so that those above don't hide it
            losses.plot(curve.index, curve, label=one, color=style["color"], linewidth=widest, alpha=0.8)
            middle = timed[one].middle
            around = [[middle - timed[one].low], [timed[one].high - middle]]
            seconds.barh(one, middle, xerr=around, color=style["color"], height=0.6, capsize=2)
        losses.set(xlabel="epoch", ylabel="training loss, nats")
        losses.legend()
        seconds.invert_yaxis()
        seconds.set(xlabel="seconds an epoch")
        seconds.grid(axis="y", visible=False)
        floor = floors.get(tuple(str(section[key]) for key in SECTION))
        if floor is not None:
            seconds.axvline(floor, color="black", linestyle="--", linewidth=1)
        yield slug(f"training-{name}"), figure


# Sweeps

TICKS = 7
SWEEP_CAPTION = (
    "Median with its 95 % interval (mostly smaller than the marker). Dashed: the growing part c · sizeᵖ of the fit "
    "t = fixed cost + c · sizeᵖ. Star: the knee, where it equals the fixed cost; launches stop mattering well above it."
)


def sweep_figures(records: Sequence[Record]) -> Iterator[tuple[str, Figure]]:
    """Yield time over size, log-log: a figure per axis (and machine, protocol, precision), a panel per operation."""
    used = sweeps(prepare(records))
    sections = list(groups(used, SECTION))
    for section, rows in sections:
        found = [curve for curve in curves(rows) if not curve.points.empty]
        apart = "" if len(sections) == 1 else slug(f"-{'-'.join(str(section[name]) for name in SECTION)}")
        for axis in AXIS_NAMES:
            its = [curve for curve in found if curve.axis == axis]
            if its:
                name = f"sweep-{axis}" + (f"-{apart}" if apart else "")
                yield name, _sweep_figure(axis, its, rows[rows["at_axis"] == axis])


def _sweep_figure(axis: str, found: Sequence[Curve], rows: pd.DataFrame) -> Figure:
    """Return the figure of one axis, a panel an operation."""
    operations = [operation for operation in OPERATION_NAMES if any(curve.operation == operation for curve in found)]
    series = list(dict.fromkeys(str(curve.key["series"]) for curve in found))
    figure, panels = canvas(len(operations), f"Time by {axis}", " ".join([*provenance(rows), SWEEP_CAPTION]))
    for panel, operation in zip(panels, operations, strict=True):
        panel.set(xscale="log", yscale="log", title=OPERATION_NAMES[operation], xlabel=AXIS_NAMES[axis])
        its = [curve for curve in found if curve.operation == operation]
        for curve in its:
            _draw(panel, curve, look(str(curve.key["series"]), series))
        _mark_sizes(panel, sorted({int(size) for curve in its for size in curve.points["size"]}))
        panel.legend()
    panels[0].set_ylabel("time, s")
    return figure


def _draw(panel: Axes, curve: Curve, style: dict[str, Any]) -> None:
    """Draw the points of a curve with their intervals, and its fit."""
    points, law = curve.points, curve.scaling
    middle = points["seconds"]
    around = [middle - points["low"], points["high"] - middle]
    power, bend = exponent(law), knee(law, points["size"].min())
    fitted = ", ".join(filter(None, [power and f"p = {power}", bend and f"knee {bend}"]))
    label = f"{curve.key['series']}: {fitted or law.note}"
    panel.errorbar(points["size"], middle, yerr=around, label=label, capsize=2, **style)
    if not law.note:
        # Down to the knee, and below it no further than is measured.
        start = max(law.knee, points["size"].min())
        ends = [start, points["size"].max()]
        panel.plot(ends, law.asymptote(ends), color=style["color"], linestyle="--", linewidth=0.9)
        if law.knee >= points["size"].min():
            panel.plot([law.knee], [law.fixed], color=style["color"], marker="*", markersize=9, linestyle="none")


def _mark_sizes(panel: Axes, sizes: Sequence[int]) -> None:
    """Set ticks at sizes that were measured, at most `TICKS` of them."""
    shown = sizes[:: -(-len(sizes) // TICKS)]
    panel.set_xticks(shown, [f"{size:,}" for size in shown])
    panel.set_xticks([], minor=True)
