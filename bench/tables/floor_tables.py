"""The tables of floors: what this machine allows, whether that is right, and how near each backend comes to it."""

import math

import numpy as np
import pandas as pd

from bench.tables.labels import ROW, SECTION, Row, Source, disturbed, disturbed_note, groups, prepare
from bench.tables.pivot import RECORD, Rows, over_rounds, pick, section_of
from bench.tables.render import Table, number

RATES = (  # quantity, heading, factor from the recorded unit to the shown one
    ("product_rate", "products, GFLOP/s", 1e-9),
    ("bandwidth", "memory, GB/s", 1e-9),
    ("products_seconds", "products, ms", 1e3),
    ("bytes_seconds", "bytes, ms", 1e3),
    ("reduction_seconds", "reduction, ms", 1e3),
)
NOTES = (
    "Medians over rounds, ratios within a round; products, bytes and chain: the fastest of each round.",
    "Floor: the larger of the products of a step, at their shapes and with nothing between them, and the bytes of a",
    "step, at the bandwidth of adding to an array in place.",
    "Chain: the same products waiting for each other, written by hand in the framework; between 1 and 1.3 × the floor",
    "where the floor is right. †: outside that: the floor, and what is called its multiple, is off by as much.",
)
LEAST_CHAIN, MOST_CHAIN = 1.0, 1.3
FORWARD_NOTES = (
    "Floor: the products of one pass at that batch, or the bytes that it moves, whichever takes longer,",
    "measured in the same process.",
)


def times_floor(rows: pd.DataFrame) -> float:
    """Return the median of training time over its floor, both of one round; NaN where it wasn't recorded."""
    return over_rounds(pick(rows, "floor", "training_ratio")).middle


def machine_floors(data: pd.DataFrame) -> dict[tuple[str, ...], float]:
    """Return section → the least seconds of an epoch, by the fastest products of any library there.

    A library's own products needn't be the fastest that the machine can: of the three frameworks on one GPU those of
    one took 0.53 ms, those of the others 0.72 to 1.28 ms, and a whole step of theirs less than that.
    """
    found = {}
    for key, rows in groups(data[data["measure"] == "floor"], SECTION):
        parts = ("products", "bytes", "reduction")
        times = [pick(rows, "floor", f"{part}_seconds")["value"].min() for part in parts]
        epoch, step = (pick(rows, "floor", f"train_{part}_seconds")["value"].median() for part in ("epoch", "step"))
        if pd.notna([*times[:2], epoch, step]).all():
            found[section_of(key)] = float(np.nanmax(times) * round(epoch / step))
    return found


def floors(records: Source) -> Table:
    """Return rates and floor of a training step, chain and step as multiples of it: a row a backend and mode."""
    whole = prepare(records)
    data = whole[whole["status"] == "ok"]
    table, without = Rows(), []
    for key, rows in groups(data[data["measure"].isin(["floor", "training"])], ROW):
        by_round = rows[rows["at_round"].notna()].pivot_table(
            index=[*RECORD, "at_round"], columns="quantity", values="value", aggfunc="median"
        )
        if not {"train_step_seconds", "train_epoch_seconds", "seconds_per_epoch"} <= set(by_round):
            why = pick(rows, "floor", "train_step_seconds")["note"].dropna().unique()
            without += [f"{key['backend']}: {note}." for note in why]
            continue
        by_round = by_round.reindex(columns=by_round.columns.union([*(rate for rate, *_ in RATES), "chain_seconds"]))
        floor = by_round["train_step_seconds"]
        step = by_round["seconds_per_epoch"] / (by_round["train_epoch_seconds"] / floor)
        figures: Row = {quantity: float(by_round[quantity].median()) for quantity, *_ in RATES}
        figures |= {"step_seconds": float(step.median()), "step_over_floor": times_floor(rows)}
        figures["chain_over_floor"] = float((by_round["chain_seconds"] / floor).median())
        cells = {heading: number(figures[quantity] * factor, 3) for quantity, heading, factor in RATES}
        chain = figures["chain_over_floor"]
        wrong = not math.isnan(chain) and not LEAST_CHAIN <= chain <= MOST_CHAIN
        cells["chain × floor"] = number(chain, 3) + " †" * wrong
        cells["step, ms"] = number(figures["step_seconds"] * 1e3) + disturbed_note(disturbed(rows))
        cells["step × floor"] = number(figures["step_over_floor"], 3)
        table.add(key, figures, cells, rows, ROW)
    return table.table("floor", "The floor of a training step", whole, (*NOTES, *without))


def forward_floors(records: Source) -> Table:
    """Return sampling and density as multiples of the floor of a pass: a row a backend, operation and batch."""
    whole = prepare(records)
    data = whole[whole["status"] == "ok"]
    density = (data["measure"] == "likelihood") & (data["quantity"] == "images_per_second")
    table = Rows()
    for key, rows in groups(data[data["quantity"].isin(["forward_seconds", "latency"]) | density], ROW):
        floor, latency, rates = (
            _by_batch(rows[rows["quantity"] == name]) for name in ("forward_seconds", "latency", "images_per_second")
        )
        found = [("sample", batch, seconds) for batch, seconds in latency.items()]
        found += [("log p", batch, batch / rate) for batch, rate in rates.items()]
        for operation, batch, seconds in found:
            if batch in floor:
                figures: Row = {"operation": operation, "batch": batch, "seconds": seconds}
                figures |= {"floor_seconds": floor[batch], "over_floor": seconds / floor[batch]}
                cells = {"operation": operation, "batch": f"{batch:g}", "ms": number(seconds * 1e3)}
                cells |= {"floor, ms": number(floor[batch] * 1e3), "× floor": number(figures["over_floor"], 3)}
                table.add(key, figures, cells, rows, ROW)
    title = "Sampling and density against the floor"
    return table.table("floor-forward", title, whole, FORWARD_NOTES)


def _by_batch(rows: pd.DataFrame) -> dict[float, float]:
    """Return batch → median of its values."""
    kept = rows.dropna(subset=["value", "at_batch"])
    return {float(str(batch)): float(its["value"].median()) for batch, its in kept.groupby("at_batch")}
