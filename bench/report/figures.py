"""The figures of runs: loss curves, time and its floor, sampling, invertibility, agreement, the spread over seeds.

And those of sweeps: throughput against batch size, time against width, depth and couplings.

Every function takes the rows of one group out of the prepared frame, and sums up with what the tables sum up with, so
that a figure can't show another number than its table.
"""

import math
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from bench.figures.palette import colour_of
from bench.report.panels import OUTLINE, Group, Panel, axis, error_bars, line, look, panel, thinned, ticks
from bench.tables import CURVES, KINDS, final_losses, largest_difference
from bench.tables.device_tables import devices
from bench.tables.frame import PRECISIONS, rank
from bench.tables.labels import SECTION, disturbances, groups, place, said, section_label
from bench.tables.pivot import RECORD, over_rounds, pick
from bench.tables.render import MISSING, number
from bench.tables.series_tables import round_trips_of, worst_of
from bench.tables.sweep_tables import AXIS_NAMES, OPERATION_NAMES, Curve, curves, sweeps

BAND = {"fill": "toself", "opacity": 0.18, "line": {"width": 0}, "mode": "lines"}
BAND |= {"hoverinfo": "skip", "showlegend": False}
GREY = {"color": "#888888"}
HALF_LEVEL = GREY | {"width": 1, "dash": "dash"}
LABEL_CHARACTERS = 26  # of a line of a heat map's label


def run_groups(data: pd.DataFrame) -> Iterator[Group]:
    """The panels of each group in a prepared frame of runs."""
    for key, rows in groups(data, SECTION):
        beside = data[(data["machine"] == key["machine"]) & (data["protocol"] == key["protocol"])]
        panels = [*losses(rows), *epoch_times(rows), *sampling(rows), *invertibility(beside), *agreement(rows)]
        panels += [*seeds(rows), *side_by_side(data, rows)]
        yield Group(section_label(key), panels)


def series_of(rows: pd.DataFrame) -> list[str]:
    """The series in reading order."""
    return sorted(set(rows["series"]), key=lambda name: place("series", name))


def losses(rows: pd.DataFrame) -> Iterator[Panel]:
    """A panel for the losses of training, one for those of what is selected on, and one for how far apart they are."""
    points = rows[rows["measure"] == "curve"]
    if points.empty or points["loss"].nunique() != 1:
        return
    kind, names = KINDS[str(points["loss"].iloc[0])], series_of(rows)
    apart = []
    for part, said_part in (("train", "Training"), ("test", "Selection")):
        its = pick(points, "curve", f"{part}_loss")
        if its["value"].notna().sum() == 0:
            continue
        epochs, left_out = thinned(sorted({int(epoch) for epoch in its["at_epoch"]}))
        its = its[its["at_epoch"].isin(epochs)]
        traces = []
        for key, found in groups(its, ["series"]):
            by_epoch = {int(at["at_epoch"]): over_rounds(some) for at, some in groups(found, ["at_epoch"])}
            series = str(key["series"])
            if found["seed"].nunique() > 1:
                ends = [*(s.high for s in by_epoch.values()), *(s.low for s in reversed(by_epoch.values()))]
                name, colour = f"{said(series)}, lowest to highest", colour_of(series, names)
                x = [*by_epoch, *reversed(by_epoch)]
                traces.append(go.Scatter(x=x, y=ends, name=name, legendgroup=series, fillcolor=colour, **BAND))
            middles = [s.middle for s in by_epoch.values()]
            traces.append(line(series, names, list(by_epoch), middles, legendgroup=series))
        several = its["seed"].nunique() > 1
        spread = f"Median over rounds{' and seeds, the band from lowest to highest' if several else '; one seed'}."
        table = f"curves-{rows['plan_protocol'].iloc[0]}"
        layout = {"xaxis": axis("epoch", rangemode="tozero"), "yaxis": axis(f"{said_part.lower()} {kind}")}
        yield panel(f"loss-{part}", f"{said_part} loss", f"{spread} {left_out}", table, traces, layout)
        apart += _differences(its, names, part)
    if apart:
        caption = (
            "Largest difference over seeds and rounds, between runs of the same seed and round. Grey: between any two. "
            "Identical inputs make it start at rounding; training then amplifies it. Exact zeros are not drawn."
        )
        layout = {"xaxis": axis("epoch", rangemode="tozero"), "yaxis": axis("difference of the losses, nats", log=True)}
        table = f"curves-{rows['plan_protocol'].iloc[0]}"
        yield panel("loss-difference", "How far apart the losses are", caption, table, apart, layout)


def _differences(its: pd.DataFrame, names: list[str], part: str) -> list:
    """Lines of the largest difference between any two series, and of each to the first."""
    here = series_of(its)
    if len(here) < 2:
        return []
    # With more series than that, pairs would hide each other: then the largest difference alone.
    pairs = [[here[0], other] for other in here[1:]] if 2 < len(here) <= 5 else []
    dash = {"train": "solid", "test": "dot"}[part]
    traces = []
    for pair in [here, *pairs]:
        some = its[its["series"].isin(pair)]
        by_epoch = {int(at["at_epoch"]): largest_difference(its)[0] for at, its in groups(some, ["at_epoch"])}
        two = len(pair) == 2
        style = look(pair[1], names) if two else {"line": GREY, "marker": GREY}
        style = {
            "marker": style["marker"] | {"size": 6},
            "line": style["line"] | {"dash": dash, "width": 2 if two else 4},
        }
        name = f"{CURVES[part]}: {f'{said(pair[1])} to {said(pair[0])}' if two else 'any two'}"
        heights = [value if value > 0 else None for value in by_epoch.values()]
        traces.append(go.Scatter(x=list(by_epoch), y=heights, name=name, mode="lines+markers", **style))
    return traces


def epoch_times(rows: pd.DataFrame) -> Iterator[Panel]:
    """Seconds an epoch: every round, the median, and the floor."""
    rows = rows[rows["status"] == "ok"]  # the table has what the others did until they ended
    timed, floor = pick(rows, "training", "seconds_per_epoch"), pick(rows, "floor", "train_epoch_seconds")
    names = [name for name in series_of(rows) if timed[timed["series"] == name]["value"].notna().any()]
    if not names:
        return
    measured = [over_rounds(timed[timed["series"] == name]) for name in names]
    floors = [over_rounds(floor[floor["series"] == name]).middle for name in names]
    points = timed[timed["series"].isin(names)].dropna(subset=["value"])
    colours = [colour_of(name, series_of(rows)) for name in names]
    found = pd.DataFrame(measured)
    spreads = {"error_x": error_bars(found["middle"], found["low"], found["high"]) | GREY}
    ring = GREY | {"symbol": "circle-open", "size": 7}
    diamond = {"color": colours, "size": 13, "symbol": "diamond", "line": {"color": OUTLINE, "width": 1}}
    bar = GREY | {"symbol": "line-ns-open", "size": 20, "line": {"width": 3}}

    def markers(name: str, x: list[float], series: Iterable[object], marker: dict[str, Any], **more: Any) -> go.Scatter:
        return go.Scatter(x=x, y=[said(str(s)) for s in series], name=name, mode="markers", marker=marker, **more)

    traces = [
        markers("a round", points["value"].tolist(), points["series"], ring),
        markers("median [lowest–highest]", found["middle"].tolist(), names, diamond, **spreads),
    ]
    if any(math.isfinite(value) for value in floors):
        traces.append(markers("floor", floors, names, bar))
    caption = "The floor is the least time that the products and bytes of an epoch take on this machine, in the median."
    caption = " ".join([*disturbances(rows), caption])
    layout = {
        "xaxis": axis("seconds an epoch", rangemode="tozero"),
        "yaxis": axis("", autorange="reversed", type="category"),
    }
    height = max(260, 130 + 44 * len(names))
    yield panel("epoch", "Time per epoch and its floor", caption, "speed", traces, layout, height)


def sampling(rows: pd.DataFrame) -> Iterator[Panel]:
    """Throughput of sampling against batch size."""
    its = pick(rows, "sampling", "samples_per_second").dropna(subset=["value"])
    if its.empty:
        return
    traces = []
    for name, found in groups(its, ["series"]):
        by_batch = {int(at["at_batch"]): over_rounds(some) for at, some in groups(found, ["at_batch"])}
        spreads = pd.DataFrame(list(by_batch.values()))
        bars = error_bars(spreads["middle"], spreads["low"], spreads["high"])
        heights = spreads["middle"].tolist()
        traces.append(line(str(name["series"]), series_of(rows), list(by_batch), heights, error_y=bars))
    caption = "Median [95 % interval]; over several rounds or seeds, their median [lowest–highest]."
    batches = sorted({int(batch) for batch in its["at_batch"]})
    layout = {"xaxis": axis("batch", log=True, **ticks(batches)), "yaxis": axis("samples a second", log=True)}
    yield panel("sampling", "Sampling throughput against batch size", caption, "sampling", traces, layout)


def invertibility(rows: pd.DataFrame) -> Iterator[Panel]:
    """Worst error of one round trip by precision, of one machine and protocol."""
    its = round_trips_of(rows)
    if its["value"].isna().all():
        return
    precisions = sorted(set(its["precision"]), key=lambda name: rank(str(name).split(" ")[0], PRECISIONS))
    traces = []
    for key, found in groups(its, ["series", "at_weights"]):
        worst = {at["precision"]: worst_of(some)[0] for at, some in groups(found, ["precision"])}
        style = look(str(key["series"]), series_of(rows))
        if key["at_weights"] == "initial":
            style["marker"]["symbol"] += "-open"
            style["marker"]["line"] = {"width": 2}
            style["line"]["width"] = 1
        shown = {name: worst[name] if worst[name] > 0 else None for name in precisions if name in worst}
        name = f"{said(str(key['series']))}, {key['at_weights']}"
        traces.append(go.Scatter(x=[*shown], y=[*shown.values()], name=name, mode="lines+markers", **style))
    caption = (
        "Largest error of x → z → x over the test images, a round trip of the whole flow; the worst over seeds and "
        "rounds. One grey level is 1/255; below half a level, pixels without noise come back byte for byte. "
        "Open symbols: at initial weights. An error of exactly 0, or one that isn't finite, is not drawn."
    )
    layout = {
        "xaxis": axis("precision", type="category", categoryorder="array", categoryarray=precisions),
        "yaxis": axis("largest error, grey levels", log=True, dtick=1, exponentformat="power"),
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5, "line": HALF_LEVEL}],
    }
    yield panel("invertibility", "Invertibility by precision", caption, "invertibility", traces, layout)


def agreement(rows: pd.DataFrame) -> Iterator[Panel]:
    """The errors against the float64 reference as a heat map: a row per quantity, a column per series."""
    its = rows[rows["measure"] == "agreement"]
    names, lines = series_of(its), []
    for key, found in groups(its, ["at_weights", "quantity"] if its["at_weights"].notna().any() else ["quantity"]):
        label = " · ".join(str(value) for value in key.values())
        lines.append((label, [worst_of(found[found["series"] == name]) for name in names]))
    if lines:
        caption = "Greatest relative error against the float64 reference at the same weights; worst over seeds, rounds."
        yield heat_map("agreement", "Agreement", caption, "agreement", names, lines, span=(-16, 0))


def heat_map(
    name: str,
    title: str,
    caption: str,
    table: str,
    columns: list[str],
    rows: list[tuple[str, list[tuple[float, str]]]],
    span: tuple[float, float],
) -> Panel:
    """A heat map of log₁₀ of values over `span`; a row is its label and a value and text for each column.

    What isn't finite has the last colour.
    """

    def level(value: float, text: str) -> float | None:
        if math.isnan(value):
            return None if text == MISSING else span[1]
        return span[0] if value <= 0 else min(max(math.log10(value), span[0]), span[1])

    # Light enough everywhere for dark text; orange begins where log₁₀ is 0: at an error as large as what it may be.
    end = -span[0] / (span[1] - span[0])
    blues = [[0.0, "#f4f9fd"], [min(end, 0.999), "#6fb4e3"]]
    lines = [textwrap.wrap(label, LABEL_CHARACTERS) for label, _ in rows]
    trace = go.Heatmap(
        x=[said(column.replace(":", " ")) for column in columns],
        y=["<br>".join(each) for each in lines],
        z=[[level(*cell) for cell in cells] for _, cells in rows],
        text=[["" if text == MISSING else text for _, text in cells] for _, cells in rows],
        texttemplate="%{text}",
        textfont={"color": "#111111"},
        hovertemplate="%{y}<br>%{x}: %{text}<extra></extra>",
        colorscale=[*blues, [min(end, 0.999), "#E69F00"], [1.0, "#E69F00"]],
        showscale=False,
        zmin=span[0],
        zmax=span[1],
        xgap=1,
        ygap=1,
    )
    layout = {
        "xaxis": axis("", side="top", type="category", showgrid=False),
        "yaxis": axis("", autorange="reversed", type="category", showgrid=False),
    }
    height = 110 + 18 * max(sum(len(each) + 0.5 for each in lines), 8)
    return panel(name, title, caption, table, [trace], layout, height=round(height))


def seeds(rows: pd.DataFrame) -> Iterator[Panel]:
    """The final losses of each seed; nothing where there is one seed only."""
    if rows["seed"].nunique() < 2 or rows["loss"].nunique() != 1:
        return
    kind, names, traces = KINDS[str(rows["loss"].iloc[0])], series_of(rows), []
    for part, symbol in (("train", "circle"), ("test", "circle-open")):
        for name in names:
            final = final_losses(rows[rows["series"] == name], part).dropna(subset=["value"])
            values = final.groupby([*RECORD, "seed"])["value"].median().reset_index()
            if len(values):
                colour, label = colour_of(name, names), f"{said(name)}, {part}"
                marker = {"color": colour, "symbol": symbol, "size": 10, "line": {"color": colour, "width": 2}}
                at = {"x": [label] * len(values), "y": values["value"].tolist()}
                seeds_of = [f"seed {seed}" for seed in values["seed"]]
                traces.append(go.Scatter(**at, text=seeds_of, name=label, mode="markers", marker=marker))
    caption = "The final loss of every record; records differ in their seed."
    layout = {"xaxis": axis("", type="category"), "yaxis": axis(f"final {kind}"), "showlegend": False}
    if traces:
        yield panel("seeds", "Spread over seeds", caption, "accuracy", traces, layout)


def side_by_side(data: pd.DataFrame, rows: pd.DataFrame) -> Iterator[Panel]:
    """Speed-up and efficiency by the number of devices, over a single one as these rows are of; nothing without."""
    raw, alike = devices(data).raw, rows.iloc[0]
    if raw.empty:
        return
    protocol = alike["plan_protocol"]
    of_protocol = raw["protocol"].isin([protocol, f"{protocol} (network {alike['network'][:8]})"])
    here = raw[of_protocol & (raw["machine"] == alike["machine"]) & (raw["precision"] == alike["precision"])]
    here = here[here["devices"] > 1]
    for scaling, batches in (("strong", alike["batch"]), ("weak", alike["batch"] * here["devices"])):
        its = here[here["batch"] == batches].dropna(subset=[f"{scaling}_efficiency"])
        if its.empty:
            continue
        its = its.assign(nodes=[f"on {count} nodes" for count in its["nodes"]])
        keys = [name for name in ("backend", "mode", "nodes") if name == "backend" or its[name].nunique() > 1]
        found = {" ".join(map(str, key.values())): some for key, some in groups(its, keys)}
        counts = [1, *sorted({int(count) for count in its["devices"]})]
        traces = [go.Scatter(x=counts, y=counts, name="N times as fast", mode="lines", line=HALF_LEVEL)]
        for name, some in found.items():
            efficiency = some[f"{scaling}_efficiency"]
            made = line(name, [*found], some["devices"].tolist(), (efficiency * some["devices"]).tolist())
            labels = [number(value, 2) for value in efficiency]
            traces.append(made.update(text=labels, textposition="bottom right", mode="lines+markers+text"))
        of_each = {"strong": "they share the batch of one", "weak": "each has the batch of one"}[scaling]
        caption = (
            f"Images a second over those of one device; {of_each}. At the points the efficiency, that over the number "
            "of devices. Devices of a CPU are guises of the same cores, and can gain nothing."
        )
        layout = {"xaxis": axis("devices", log=True, **ticks(counts)), "yaxis": axis("speed-up", log=True)}
        title = f"Speed-up by several devices, {scaling} scaling"
        yield panel(f"devices-{scaling}", title, caption, "devices", traces, layout)


# Sweeps


def sweep_groups(data: pd.DataFrame) -> Iterator[Group]:
    """The panels of each group in a prepared frame of sweeps."""
    for key, rows in groups(sweeps(data), SECTION):
        found = [curve for curve in curves(rows) if not curve.points.empty]
        panels = []
        for axis_name in AXIS_NAMES:
            for operation in OPERATION_NAMES:
                its = [curve for curve in found if (curve.axis, curve.operation) == (axis_name, operation)]
                if its:
                    panels.append(_sweep_panel(axis_name, operation, its))
        yield Group(section_label(key), panels)


def _sweep_panel(size: str, operation: str, found: list[Curve]) -> Panel:
    names, traces = [str(curve.key["series"]) for curve in found], []
    throughput = size == "batch"
    for curve in found:
        points, series = curve.points, str(curve.key["series"])
        bars = {} if throughput else {"error_y": error_bars(points["seconds"], points["low"], points["high"])}
        heights = points["examples_per_second" if throughput else "seconds"]
        traces.append(line(series, names, points["size"].tolist(), heights.tolist(), **bars))
    what = "throughput" if throughput else "time"
    name = OPERATION_NAMES[operation]
    title = f"{name[0].upper()}{name[1:]}: {what} against {'batch size' if throughput else size}"
    left_out = [
        f"{said(str(curve.key['series']))} at {', '.join(map(str, sorted(curve.left_out)))}"
        for curve in found
        if curve.left_out
    ]
    caption = "Medians." if throughput else "Median [95 % interval]; of several records their lowest and highest."
    if left_out:
        caption += f" Not measured: {'; '.join(left_out)}; the table has the reasons."
    sizes = sorted({int(point) for curve in found for point in curve.points["size"]})
    unit = "examples a second" if throughput else "seconds"
    layout = {"xaxis": axis(AXIS_NAMES[size], log=True, **ticks(sizes)), "yaxis": axis(unit, log=True)}
    return panel(f"sweep-{size}-{operation}", title, caption, "scaling", traces, layout)
