"""The figures of sweeps: throughput against batch size, time against width, depth and couplings."""

from collections.abc import Iterator

import pandas as pd

from bench.report.panels import Group, Panel, axis, error_bars, line, panel, ticks
from bench.tables.labels import SECTION, groups, said, section_label
from bench.tables.sweep_tables import SAID, SIZES, Curve, curves, sweeps


def sweep_groups(data: pd.DataFrame) -> Iterator[tuple[str, Group]]:
    """The panels of each group in a prepared frame of sweeps."""
    for key, rows in groups(sweeps(data), SECTION):
        found = [curve for curve in curves(rows) if not curve.points.empty]
        panels = []
        for axis_name in SIZES:
            for operation in SAID:
                its = [curve for curve in found if (curve.axis, curve.operation) == (axis_name, operation)]
                if its:
                    panels.append(_panel(axis_name, operation, its))
        yield section_label(key), Group(section_label(key), panels)


def _panel(size: str, operation: str, found: list[Curve]) -> Panel:
    names, traces = [str(curve.key["series"]) for curve in found], []
    throughput = size == "batch"
    for curve in found:
        points, series = curve.points, str(curve.key["series"])
        bars = {} if throughput else {"error_y": error_bars(points["seconds"], points["low"], points["high"])}
        heights = points["examples_per_second" if throughput else "seconds"]
        traces.append(line(series, names, points["size"].tolist(), heights.tolist(), **bars))
    what = "throughput" if throughput else "time"
    title = f"{SAID[operation][0].upper()}{SAID[operation][1:]}: {what} against {'batch size' if throughput else size}"
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
    layout = {"xaxis": axis(SIZES[size], log=True, **ticks(sizes)), "yaxis": axis(unit, log=True)}
    return panel(f"sweep-{size}-{operation}", title, caption, "scaling", traces, layout)
