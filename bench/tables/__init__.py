"""Tables: the tidy frame pivoted into what people read.

One rule above all: figures that do not belong together are not put together. Rows are kept apart by machine,
protocol (an edited or shortened one is another protocol), precision as seen, backend, version and mode; records that
agree in all of these and differ in seed or run are one row, their median with the range. The article's loss and
−log p have columns of their own. What failed is in sight: as a row, or in the caption.
"""

import gzip
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from bench.errors import BenchError, writing
from bench.records import Kind, Record, slug
from bench.tables.device_tables import devices
from bench.tables.floor_tables import floors, forward_floors, times_floor
from bench.tables.frame import frame
from bench.tables.headline_tables import CLOCK, headline, likelihood_times, to_target
from bench.tables.labels import (
    LOSS_DIGITS,
    ROW,
    SECTION,
    Row,
    Source,
    disturbed,
    groups,
    kinds_of_loss,
    prepare,
    targets,
)
from bench.tables.peer_tables import peers
from bench.tables.pivot import (
    RECORD,
    Rows,
    Spread,
    clean,
    fastest_epochs,
    first_round,
    numbers_of,
    over_rounds,
    pick,
    section_of,
    with_error,
)
from bench.tables.profile_tables import profile
from bench.tables.render import SUFFIXES, Table, number, render, to_csv
from bench.tables.series_tables import agreement, invertibility, micro, sampling
from bench.tables.sweep_tables import scaling

LIKELIHOOD = (  # quantity, heading, digits
    ("dequantised_log_likelihood", "test log-likelihood, nats", LOSS_DIGITS),
    ("bits_per_dim", "bits/dim", 4),
)
KINDS = {"article": "article loss", "nll": "−log p, nats"}
CURVES = {"train": "train", "test": "selection"}
"""Which losses a curve has, and what they are called: the second are of the images that the protocol selects on."""


def all_tables(records: Iterable[Record], *, brief: bool = False) -> list[Table]:
    """Return every table that isn't empty, in reading order; `brief` ones leave out what a terminal has no room for."""
    kinds: dict[Kind, list[Record]] = {kind: [] for kind in get_args(Kind)}
    for record in records:
        kinds[record.plan.kind].append(record)
    runs = kinds["run"]
    protocols = sorted({record.plan.protocol for record in runs})
    per_protocol = [curves([record for record in runs if record.plan.protocol == name]) for name in protocols]
    data = prepare(runs)
    tables = [headline(data), likelihood_times(data), speed(data), accuracy(data), *per_protocol]
    tables += [agreement(data), invertibility(data, brief=brief), sampling(data), floors(data), forward_floors(data)]
    tables += [devices(data), profile(kinds["profile"]), scaling(kinds["sweep"])]
    tables += [peers(kinds["peers"]), micro(kinds["micro"])]
    return [table for table in tables if not table.raw.empty]


def in_short(records: Iterable[Record]) -> list[Table]:
    """Return of runs the tables of speed and accuracy, and all tables of other kinds of records."""
    records = list(records)
    runs, others = ([each for each in records if (each.plan.kind == "run") == wanted] for wanted in (True, False))
    made = [table for table in all_tables(runs, brief=True) if table.name in ("speed", "accuracy")]
    return [*made, *all_tables(others, brief=True)]


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
    records, folder = list(records), Path(folder)
    every, brief, tidy = all_tables(records), all_tables(records, brief=True), frame(records)
    files: dict[str, bytes] = {}
    for name in formats:
        if name == "parquet":
            files["measurements.parquet"] = tidy.to_parquet(index=False)
            continue
        for table in every if name == "csv" else brief:
            files[f"{table.name}.{SUFFIXES[name]}"] = render(table, name).encode()
        if name == "csv":
            files["measurements.csv.gz"] = gzip.compress(to_csv(tidy).encode(), mtime=0)
    for name, content in files.items():
        with writing(folder / name) as temporary:
            temporary.write_bytes(content)
    return [folder / name for name in files]


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
"""The quantities that are shown of the first round: a later one also reads the state that it goes on from."""


def speed(records: Source) -> Table:
    """Return time, memory and time to the target loss: a row a machine, protocol, precision, backend and mode."""
    data = prepare(records)
    best, table = fastest_epochs(data), Rows()
    for key, rows in groups(data, [*ROW, "status", "reason"]):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch"))
        figures: Row = {"seconds_per_epoch": epoch.middle, "fastest_epoch": epoch.low, "slowest_epoch": epoch.high}
        comparable = key["status"] == "ok" and disturbed(rows) is None
        figures["times_fastest"] = epoch.middle / best.get(section_of(key), math.nan) if comparable else math.nan
        figures |= {"disturbed": disturbed(rows), "times_floor": times_floor(rows)}
        cells = {"s/epoch [min–max]": epoch.text(), "× fastest": number(figures["times_fastest"], 3)}
        cells["× floor"] = number(figures["times_floor"], 3)
        for measure, quantity, heading, factor, digits in SPEED:
            picked = pick(rows, measure, quantity)
            figures[quantity] = over_rounds(first_round(picked) if quantity in MEMORY else picked).middle
            cells[heading] = number(figures[quantity] * factor, digits)
        measured = any(value is not None and not math.isnan(value) for value in figures.values())
        for unit, reached in zip(("epochs", "seconds"), to_target(rows), strict=True):
            figures[f"{unit}_to_target"] = reached.middle
            heading = f"{unit.replace('seconds', 's')} to target"
            cells[heading] = "not reached" if math.isinf(reached.middle) else reached.text()
        if key["status"] != "ok" or measured:
            table.add(key, numbers_of(rows) | figures, _labels(key, rows) | cells, rows, ROW)
    notes = [
        "s/epoch: median over rounds [lowest–highest], first call apart (within the round where there was one).",
        "First call: cold in a run's first process, warm in later ones, which find what that one left in caches. On a",
        "GPU it holds an epoch's work where an epoch is one call (scan, xla), else a few steps'.",
        "× fastest: against the fastest of the same machine, protocol and precision that nothing disturbed.",
        "× floor: against the least time that the products and bytes of a step take on this machine.",
        "Memory × needed: what the process takes on top of its framework (on a GPU: of the device's memory), against",
        "parameters, moments, gradients and one epoch's inputs, in the first round, as the peak is; of a GPU torch's",
        "is what its allocator has reserved, the others' what was in use. Harness: the share of training's time that",
        "is neither an epoch nor an evaluation: streams, progress, records.",
        *targets(data),
        CLOCK,
    ]
    return table.table("speed", "Training speed", data, notes, failures=False)


def accuracy(records: Source) -> Table:
    """Return losses as the protocol reports them, and the comparable figure: the dequantised test log-likelihood."""
    data = prepare(records)
    table, anything = Rows(), False
    for key, rows in groups(data, [*ROW, "loss", "status", "reason"]):
        figures: Row = {}
        cells: dict[str, str] = {}
        for part in ("train", "test"):
            final, best, epochs = _losses(rows, part)
            kind = KINDS[str(key["loss"])]
            last, lowest = f"final {part} {kind}", f"best {CURVES[part]} {kind}"
            figures |= {last: final.middle, lowest: best.middle}
            at = f" (epoch {'–'.join(map(str, sorted({min(epochs), max(epochs)})))})" if epochs else ""
            cells |= {last: final.text(LOSS_DIGITS), lowest: best.text(LOSS_DIGITS) + at}
        for quantity, heading, digits in LIKELIHOOD:
            picked = trained(pick(rows, "likelihood", quantity))
            found = over_rounds(picked)
            figures |= {quantity: found.middle, f"{quantity} low": found.low, f"{quantity} high": found.high}
            cells[heading] = with_error(picked, digits)
        measured = not all(math.isnan(value) for value in figures.values())
        anything |= measured
        if key["status"] != "ok" or measured:
            table.add(key, numbers_of(rows) | figures, _labels(key, rows) | cells, rows, ROW)
    notes = [
        *kinds_of_loss(data),
        "Best: the lowest over the epochs. Selection: of the images that are evaluated after each epoch, which are set",
        "apart from the training images or, where a protocol says so as the article's does, are the test set.",
        "Log-likelihood: dequantised test images, mean ± standard error over noise draws.",
    ]
    if not anything:
        table = Rows()  # nothing but failures, and those are rows of the speed table
    return table.table("accuracy", "Accuracy", data, notes, failures=False)


def curves(records: Iterable[Record]) -> Table:
    """Return losses by epoch, a column a backend, and how far apart the backends are."""
    data = prepare(records)
    used = data[(data["measure"] == "curve") & data["quantity"].isin(["train_loss", "test_loss"])]
    table = Rows()
    for key, rows in groups(used, [*SECTION, "at_epoch"]):
        figures: Row = {}
        for part, said in CURVES.items():
            for loss, some in groups(pick(rows, "curve", f"{part}_loss"), ["loss"]):
                kind = f"{said} {KINDS[str(loss['loss'])]}"
                for series, its in groups(some, ["series"]):
                    figures[f"{series['series']} {kind}"] = over_rounds(its).middle
                apart, relative = largest_difference(some)
                figures |= {f"max difference {kind}": apart, f"relative difference {kind}": relative}
        digits = {name: 3 if " difference " in name else LOSS_DIGITS for name in figures}
        cells = {"epoch": str(key["at_epoch"])} | {name: number(figures[name], digits[name]) for name in figures}
        table.add(clean(key), figures, cells, rows, SECTION)
    protocols = sorted(set(data["plan_protocol"]))
    notes = [
        *kinds_of_loss(used),
        "Losses: median over rounds and seeds.",
        "Differences: largest less smallest backend of the same seed and round, the worst over seeds and rounds;",
        "relative: divided by the largest loss.",
    ]
    name, title = slug(f"curves-{'-'.join(protocols)}"), f"Loss by epoch: {', '.join(protocols)}"
    return table.table(name, title, data, notes)


# From the frame to figures


def _losses(rows: pd.DataFrame, part: str) -> tuple[Spread, Spread, list[int]]:
    """Return the final loss, the best one, and the epoch of the best loss in each record."""
    curve = pick(rows, "curve", f"{part}_loss")
    final = final_losses(rows, part)
    finite = curve.dropna(subset=["value"])
    best = finite.loc[[its["value"].idxmin() for _, its in finite.groupby(RECORD)]]
    return over_rounds(final), over_rounds(best), [int(epoch) for epoch in best["at_epoch"]] if len(best) else []


def final_losses(rows: pd.DataFrame, part: str) -> pd.DataFrame:
    """Return the rows of final losses, `part` "train" or "test": as measured; of training else where its curve ends."""
    measured = pick(rows, "training", "final_train_loss") if part == "train" else pick(rows, "likelihood", "test_loss")
    final, curve = trained(measured), pick(rows, "curve", "train_loss")
    if part == "train" and final.empty and not curve.empty:
        ends = curve.groupby(RECORD)["at_epoch"].transform("max")
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


def trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows but for those that were measured at initial weights."""
    return rows[(rows["at_weights"] != "initial").fillna(True)]


def _labels(key: Row, rows: pd.DataFrame) -> dict[str, str]:
    """Return the status of a row with its reason, and how many runs and seeds it sums up."""
    reason = str(key["reason"]) or ("" if key["status"] == "ok" else "no reason recorded")
    if (share := disturbed(rows)) is not None:
        reason = ", ".join(filter(None, [reason, f"disturbed, others used {number(100 * share, 2)} % of the machine"]))
    reason = reason if len(reason) <= 200 else reason[:199] + "…"
    status = ": ".join(filter(None, [str(key["status"]), reason]))
    return {"status": status} | {name: str(value) for name, value in numbers_of(rows).items()}
