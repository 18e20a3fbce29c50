"""The table of sweeps: how cost grows with each size, and from which size on launches no longer matter."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.inputs.protocol import AXES, OPERATIONS
from bench.tables.labels import ROW, SECTION, Row, Source, groups, prepare
from bench.tables.pivot import Rows
from bench.tables.render import MISSING, Table, number
from bench.tables.scaling import GROWTH, Scaling, fit

OPERATION_NAMES = {"log_prob": "log p", "sample": "sampling", "train": "training step"}
"""The names of operations in tables and plots."""

QUANTITIES = ["size", "seconds", "examples_per_second", "flop_rate", "low", "high"]

AXIS_NAMES = {
    "batch": "batch, examples",
    "width": "width, units of a hidden layer",
    "depth": "depth, hidden layers of a coupling",
    "couplings": "couplings",
}
"""The names of the axes of plots."""


@dataclass(frozen=True)
class Curve:
    """One line of a plot: one operation of one backend along one axis.

    Attributes:
        key: machine, protocol, precision, backend, mode and series, as in `bench.tables.labels`.
        axis: "batch", "width", "depth" or "couplings".
        operation: "log_prob", "sample" or "train".
        points: by size; seconds, low, high, examples_per_second and flop_rate, of several records the median and the
            lowest and highest.
        left_out: size → why there is no time.
        scaling: the fit.
    """

    key: Row
    axis: str
    operation: str
    points: pd.DataFrame
    left_out: dict[int, str]
    scaling: Scaling


def sweeps(data: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a prepared frame that belong to sweeps."""
    return data[data["measure"] == "sweep"]


def curves(used: pd.DataFrame) -> Iterator[Curve]:
    """Yield the curves in the rows of `sweeps`, those of the backends to be compared next to each other."""
    for _, section in groups(used, SECTION):
        for axis in AXES:
            for operation in OPERATIONS:
                rows = section[(section["at_axis"] == axis) & (section["at_operation"] == operation)]
                for key, its in groups(rows, [*ROW, "series"]):
                    yield _curve(key, axis, operation, its)


def scaling(records: Source) -> Table:
    """Return exponent, knee, least time and best throughput: a row an axis, operation, backend and mode."""
    data = prepare(records)
    used, table = sweeps(data), Rows()
    for curve in curves(used):
        figures, cells = _figures(curve)
        table.add({name: curve.key[name] for name in ROW}, figures, cells, used[:0], ROW)
    notes = [
        "One size is swept at a time. Fitted: t = fixed cost + c · sizeᵖ, by least squares of log t over all points;",
        f"p ± standard error, where the largest time is at least {GROWTH:g} × the least.",
        "Knee: the size at which the growing part equals the fixed cost; launches stop mattering well above it.",
        "Best: over the points. FLOP/s: of the matrix products alone.",
    ]
    return table.table("scaling", "How cost grows", data, notes, used=used)


def _curve(key: Row, axis: str, operation: str, rows: pd.DataFrame) -> Curve:
    """Return the curve in the rows of one operation of one backend along one axis."""
    measured = rows.dropna(subset=["value"])
    found: dict[int, dict[str, float]] = {}
    for at, its in groups(measured, ["at_value", "quantity"]):
        several, size = len(its) > 1, int(at["at_value"])
        point = found.setdefault(size, {"size": size})
        point[at["quantity"]] = float(its["value"].median())
        if at["quantity"] == "seconds":
            point["low"] = float((its["value"] if several else its["low"]).min())
            point["high"] = float((its["value"] if several else its["high"]).max())
    points = pd.DataFrame(list(found.values()), columns=QUANTITIES, dtype=float)
    points = points.dropna(subset=["seconds"])
    missing = rows[rows["value"].isna() & ~rows["at_value"].isin(points["size"])]
    left_out = {int(size): str(note) for size, note in zip(missing["at_value"], missing["note"], strict=True)}
    points = points.sort_values("size", ignore_index=True)
    return Curve(key, axis, operation, points, left_out, fit(points["size"].to_numpy(), points["seconds"].to_numpy()))


def _figures(curve: Curve) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the row of a curve with all its digits, and as it is shown."""
    points, law = curve.points, curve.scaling
    smallest, largest = points["size"].min(), points["size"].max()
    fitted = ("exponent", "exponent_error", "fixed", "knee")
    figures = {
        "axis": curve.axis,
        "operation": curve.operation,
        # To the digits that a fit has on every processor: its last ones are those of the library that solves it.
        **{f"{name}{'_seconds' * (name == 'fixed')}": float(f"{getattr(law, name):.6g}") for name in fitted},
        "least_seconds": points["seconds"].min(),
        "best_examples_per_second": points["examples_per_second"].max(),
        "best_flop_rate": points["flop_rate"].max(),
        "smallest": smallest,
        "largest": largest,
        "points": law.points,
        "left_out": "; ".join(f"{size}: {note}" for size, note in curve.left_out.items()),
    }
    cells = {
        "axis": curve.axis,
        "operation": OPERATION_NAMES[curve.operation],
        "exponent p": exponent(law) or law.note,
        "knee": knee(law, smallest) or MISSING,
        "fixed cost, ms": number(1e3 * law.fixed, 3),
        "least time, ms": number(1e3 * figures["least_seconds"]),
        "best examples/s": number(figures["best_examples_per_second"]),
        "best GFLOP/s": number(1e-9 * figures["best_flop_rate"]),
        "sizes": MISSING if points.empty else f"{smallest:.0f}–{largest:.0f}",
        "not measured": _left_out(curve),
    }
    return figures, cells


def exponent(law: Scaling) -> str:
    """Return the exponent ± its standard error, with two decimals or as many as the error needs; "" without a fit."""
    if np.isnan(law.exponent):
        return ""
    digits = 2 if law.exponent_error >= 0.01 else 3
    return f"{law.exponent:.{digits}f} ± {law.exponent_error:.{digits}f}"


def knee(law: Scaling, smallest: float) -> str:
    """Return the knee; below the smallest measured size it is extrapolated, and only a bound is given; "" for none."""
    if np.isnan(law.knee):
        return ""
    return f"< {number(smallest, 3)}" if law.knee < smallest else number(law.knee, 3)


def _left_out(curve: Curve) -> str:
    """Return the sizes without a time, and why the first of them has none."""
    if not curve.left_out:
        return MISSING
    sizes = sorted(curve.left_out)
    beyond = len(sizes) > 1 and (curve.points.empty or sizes[0] > curve.points["size"].max())
    listed = f"{sizes[0]} and larger" if beyond else ", ".join(map(str, sizes))
    return f"{listed}: {curve.left_out[sizes[0]].removeprefix('left out: ')}"
