"""Tables: the tidy frame pivoted into what people read.

One rule above all: figures that do not belong together are not put together. Rows are kept apart by machine,
protocol (an edited or shortened one is another protocol), precision as seen, backend, version and mode; records that
agree in all of these and differ in seed or run are one row, their median with the range. The article's loss and
−log p have columns of their own. What failed is in sight: as a row, or in the caption.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from bench.errors import BenchError
from bench.records import Kind, Record, slug
from bench.tables.floor_tables import floors, forward_floors, times_floor
from bench.tables.frame import frame
from bench.tables.headline_tables import headline, likelihood_times
from bench.tables.labels import (
    LOSS_DIGITS,
    ROW,
    SECTION,
    Row,
    Source,
    disturbed,
    groups,
    kinds_told,
    prepare,
    targets,
)
from bench.tables.peer_tables import peers
from bench.tables.pivot import RECORD, Spread, assemble, clean, first_round, numbers_of, over_rounds, pick
from bench.tables.profile_tables import profile
from bench.tables.render import MISSING, SUFFIXES, Table, number, render, spread, to_csv
from bench.tables.series_tables import agreement, invertibility, micro, sampling
from bench.tables.sweep_tables import scaling

__all__ = [
    "Table",
    "accuracy",
    "agreement",
    "all_tables",
    "curves",
    "frame",
    "invertibility",
    "micro",
    "peers",
    "profile",
    "render",
    "sampling",
    "speed",
    "write",
]

KINDS = {"article": "article loss", "nll": "−log p, nats"}


def all_tables(records: Iterable[Record], *, brief: bool = False) -> list[Table]:
    """Return every table that has something to say, in the order they are read; `brief` is for people."""
    kinds: dict[Kind, list[Record]] = {kind: [] for kind in get_args(Kind)}
    for record in records:
        kinds[record.plan.kind].append(record)
    runs = kinds["run"]
    protocols = sorted({record.plan.protocol for record in runs})
    per_protocol = [curves([record for record in runs if record.plan.protocol == name]) for name in protocols]
    data = prepare(runs)
    tables = [headline(data), likelihood_times(data), speed(data), accuracy(data), *per_protocol]
    tables += [agreement(data), invertibility(data, brief=brief), sampling(data), floors(data), forward_floors(data)]
    tables += [profile(kinds["profile"]), scaling(kinds["sweep"]), peers(kinds["peers"]), micro(kinds["micro"])]
    return [table for table in tables if not table.raw.empty]


def write(records: Iterable[Record], folder: str | Path, formats: Sequence[str] = ("markdown", "csv")) -> list[Path]:
    """Write every table into `folder`, one file a table and format, and return the files' paths; only CSV is not brief.

    With "csv" or "parquet" among the formats the tidy frame is written too, as measurements.csv.gz or
    measurements.parquet. The same records give the same texts.

    Raises:
        BenchError: an unknown format, or a folder that cannot be written.
    """
    allowed = [*SUFFIXES, "parquet"]
    for name in formats:
        if name not in allowed:
            raise BenchError(f"format {name!r}: expected one of {', '.join(allowed)}")
    records, folder, paths = list(records), Path(folder), []
    every, brief, tidy = all_tables(records), all_tables(records, brief=True), frame(records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in formats:
            if name == "parquet":
                paths.append(folder / "measurements.parquet")
                tidy.to_parquet(paths[-1], index=False)
                continue
            for table in every if name == "csv" else brief:
                paths.append(folder / f"{table.name}.{SUFFIXES[name]}")
                paths[-1].write_text(render(table, name), encoding="utf-8", newline="\n")
            if name == "csv":
                paths.append(folder / "measurements.csv.gz")
                paths[-1].write_bytes(gzip.compress(to_csv(tidy).encode(), mtime=0))
    except OSError as error:
        raise BenchError(f"{folder}: cannot write tables here: {error.strerror or error}") from error
    return paths


# The tables

SPEED = (  # measure, quantity, heading, factor from the recorded unit to the shown one, digits
    ("training", "images_per_second", "images/s", 1, 4),
    ("startup", "first_call_seconds", "first call cold, s", 1, 4),
    ("startup", "warm_first_call_seconds", "first call warm, s", 1, 4),
    ("startup", "import_seconds", "start-up, s", 1, 4),
    ("training", "peak_memory", "peak MiB", 2**-20, 4),
    ("training", "training_memory_ratio", "memory × needed", 1, 3),
    ("training", "wait_fraction", "waits for input, %", 100, 2),
    ("training", "harness_fraction", "harness, %", 100, 2),
)
MEMORY = ("peak_memory", "training_memory_ratio")
"""Of the first round: a later one also reads the state that it goes on from."""

TARGETS = (("epochs_to_target", "epochs to target"), ("seconds_to_target", "s to target"))


def speed(records: Source) -> Table:
    """Time, memory and time to the target loss: a row per machine, protocol, precision, backend and mode."""
    data = prepare(records)
    raw, shown, used = [], [], []
    for key, rows in groups(data, [*ROW, "status", "reason"]):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch"))
        figures: Row = {"seconds_per_epoch": epoch.middle, "fastest_epoch": epoch.low, "slowest_epoch": epoch.high}
        cells: Row = {"s/epoch [min–max]": spread(epoch.middle, epoch.low, epoch.high)}
        figures["times_fastest"], cells["× fastest"] = math.nan, MISSING  # known only when all rows are
        figures["disturbed"] = disturbed(rows)
        figures["times_floor"] = times_floor(rows)
        cells["× floor"] = number(figures["times_floor"], 3)
        for measure, quantity, heading, factor, digits in SPEED:
            picked = pick(rows, measure, quantity)
            figures[quantity] = over_rounds(first_round(picked) if quantity in MEMORY else picked).middle
            cells[heading] = number(figures[quantity] * factor, digits)
        for quantity, heading in TARGETS:
            # A target that was not reached counts as reached after an infinite time: leaving it out would flatter.
            reached = over_rounds(pick(rows, "training", quantity), missing=math.inf).middle
            figures[quantity] = reached
            cells[heading] = "not reached" if math.isinf(reached) else number(reached)
        if key["status"] == "ok" and all(value is None or math.isnan(value) for value in figures.values()):
            continue
        raw.append(key | numbers_of(rows) | figures)
        shown.append(_row_labels(key, rows) | cells)
        used.append(rows)
    best = _fastest(raw)
    for figures, cells in zip(raw, shown, strict=True):
        section = tuple(figures[name] for name in SECTION)
        if figures["status"] == "ok" and figures["disturbed"] is None and section in best:
            figures["times_fastest"] = figures["seconds_per_epoch"] / best[section]
            cells["× fastest"] = number(figures["times_fastest"], 3)
    told = [
        "s/epoch: median over rounds [lowest–highest], first call apart (within the round where there was one).",
        "First call: cold in a run's first process, warm in later ones, which find what that one left in caches.",
        "× fastest: against the fastest of the same machine, protocol and precision that nothing disturbed.",
        "× floor: against the least time that the products and bytes of a step take on this machine.",
        "Memory × needed: what the process takes on top of its framework (on a GPU: of the device's memory), against",
        "parameters, moments, gradients and one epoch's inputs, in the first round, as the peak is. Harness: the share",
        "of training's time that is neither an epoch nor an evaluation: streams, progress, records.",
        *targets(data),
    ]
    return assemble("speed", "Training speed", data, pd.concat([data[:0], *used]), raw, shown, told, failures=False)


def accuracy(records: Source) -> Table:
    """Losses as the protocol reports them, and the comparable figure: the dequantised test log-likelihood."""
    data = prepare(records)
    raw, shown, used, anything = [], [], [], False
    for key, rows in groups(data, [*ROW, "loss", "status", "reason"]):
        kind = KINDS[str(key["loss"])]
        figures: dict[str, float] = {}
        cells: dict[str, str] = {}
        for part in ("train", "test"):
            final, best, epochs = _losses(rows, part)
            heading = f"{part} {kind}"
            figures |= {f"final {heading}": final.middle, f"best {heading}": best.middle}
            cells[f"final {heading}"] = spread(final.middle, final.low, final.high, LOSS_DIGITS)
            at = f" (epoch {'–'.join(map(str, sorted({min(epochs), max(epochs)})))})" if epochs else ""
            cells[f"best {heading}"] = spread(best.middle, best.low, best.high, LOSS_DIGITS) + at
        for quantity, heading, digits in (
            ("dequantised_log_likelihood", "test log-likelihood, nats", LOSS_DIGITS),
            ("bits_per_dim", "bits/dim", 4),
        ):
            picked = trained(pick(rows, "likelihood", quantity))
            found = over_rounds(picked)
            figures |= {quantity: found.middle, f"{quantity} low": found.low, f"{quantity} high": found.high}
            single = len(picked) == 1 and found.high > found.low
            error = f" ± {number((found.high - found.low) / 2, 2)}" if single else ""
            cells[heading] = (
                number(found.middle, digits) + error if single else spread(found.middle, found.low, found.high, digits)
            )
        found_any = not all(math.isnan(value) for value in figures.values())
        anything |= found_any
        if key["status"] == "ok" and not found_any:
            continue
        raw.append(key | numbers_of(rows) | figures)
        shown.append(_row_labels(key, rows) | cells)
        used.append(rows)
    if not anything:
        raw, shown = [], []  # nothing but failures, and those are rows of the speed table
    told = [
        *kinds_told(data),
        "Best: the lowest over the epochs, for the test loss a choice made on the test set.",
        "Log-likelihood: dequantised test images, mean ± standard error over noise draws.",
    ]
    return assemble("accuracy", "Accuracy", data, pd.concat([data[:0], *used]), raw, shown, told, failures=False)


def curves(records: Iterable[Record]) -> Table:
    """Losses by epoch, a column per backend, and how far apart the backends are."""
    data = prepare(records)
    used = data[(data["measure"] == "curve") & data["quantity"].isin(["train_loss", "test_loss"])]
    raw, shown = [], []
    for key, rows in groups(used, [*SECTION, "at_epoch"]):
        figures: Row = {}
        cells: Row = {}
        for part in ("train", "test"):
            for loss, some in groups(pick(rows, "curve", f"{part}_loss"), ["loss"]):
                kind = KINDS[str(loss["loss"])]
                for series, its in groups(some, ["series"]):
                    found = over_rounds(its)
                    figures[f"{series['series']} {part} {kind}"] = found.middle
                    cells[f"{series['series']} {part} {kind}"] = number(found.middle, LOSS_DIGITS)
                apart, relative = largest_difference(some)
                figures |= {f"max difference {part} {kind}": apart, f"relative difference {part} {kind}": relative}
                cells[f"max difference {part} {kind}"] = number(apart, 3)
                cells[f"relative difference {part} {kind}"] = number(relative, 3)
        raw.append(clean(key) | figures)
        shown.append({name: str(key[name]) for name in SECTION} | {"epoch": str(key["at_epoch"])} | cells)
    protocols = sorted(set(data["plan_protocol"]))
    name = slug(f"curves-{'-'.join(protocols)}")
    told = [
        *kinds_told(used),
        "Losses: median over rounds and seeds.",
        "Differences: largest less smallest backend of the same seed and round, the worst over seeds and rounds;",
        "relative: divided by the largest loss.",
    ]
    return assemble(name, f"Loss by epoch: {', '.join(protocols)}", data, used, raw, shown, told)


# From the frame to figures


def _losses(rows: pd.DataFrame, part: str) -> tuple[Spread, Spread, list[int]]:
    """Return final and best loss, the latter with its epochs, one a record."""
    curve = pick(rows, "curve", f"{part}_loss")
    final = final_losses(rows, part)
    finite = curve.dropna(subset=["value"])
    best = finite.loc[[its["value"].idxmin() for _, its in finite.groupby(RECORD, dropna=False)]]
    return over_rounds(final), over_rounds(best), [int(epoch) for epoch in best["at_epoch"]] if len(best) else []


def final_losses(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the rows of final losses, `part` "train" or "test": as measured or, without that, where the curves end."""
    measured = pick(rows, "training", "final_train_loss") if part == "train" else pick(rows, "likelihood", "test_loss")
    final, curve = trained(measured), pick(rows, "curve", f"{part}_loss")
    if final.empty and not curve.empty:
        ends = curve.groupby([*RECORD, "at_round"], dropna=False)["at_epoch"].transform("max")
        final = curve[curve["at_epoch"] == ends]
    return final


def largest_difference(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the greatest difference between backends that share seed and round, absolute and relative."""
    apart, relative = [], []
    for _, some in rows.dropna(subset=["value"]).groupby(["seed", "at_round"], dropna=False):
        values = some.groupby("series")["value"].median()
        if len(values) > 1:
            apart.append(float(values.max() - values.min()))
            scale = float(values.abs().max())
            relative.append(apart[-1] / scale if scale else 0.0)
    return max(apart, default=math.nan), max(relative, default=math.nan)


def _fastest(rows: list[Row]) -> dict[tuple[Any, ...], float]:
    best: dict[tuple[Any, ...], float] = {}
    for row in rows:
        if row["status"] == "ok" and row["disturbed"] is None and not math.isnan(row["seconds_per_epoch"]):
            section = tuple(row[name] for name in SECTION)
            best[section] = min(row["seconds_per_epoch"], best.get(section, math.inf))
    return best


def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out figures taken at initial weights."""
    return rows[(rows["at_weights"] != "initial").fillna(True)] if "at_weights" in rows else rows


def _row_labels(key: Row, rows: pd.DataFrame) -> dict[str, str]:
    """Return the shown keys of a row of the speed and accuracy tables: how many it sums up, status with reason."""
    labels = {name: str(key[name]) or MISSING for name in ROW}
    told = str(key["reason"]) or ("" if key["status"] == "ok" else "no reason recorded")
    if (share := disturbed(rows)) is not None:
        told = ", ".join(filter(None, [told, f"disturbed, others used {number(100 * share, 2)} % of the cores"]))
    told = told if len(told) <= 200 else told[:199] + "…"
    numbers = numbers_of(rows)
    return (
        labels
        | {"status": ": ".join(part for part in (str(key["status"]), told) if part)}
        | {name: str(value) for name, value in numbers.items()}
    )
