"""The tables with a column per backend: agreement, sampling and density, invertibility, micro-benchmarks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from bench.records import Record
from bench.tables.labels import SECTION, Row, Source, groups, prepare
from bench.tables.pivot import assemble, clean, contexts_of, labels_of, over_rounds
from bench.tables.render import MISSING, Table, number, spread


def agreement(records: Source) -> Table:
    """Greatest relative errors against the float64 reference: a row per quantity, a column per backend."""
    data = prepare(records)
    used = data[data["measure"] == "agreement"]
    told = ["Greatest relative error against the float64 reference; the worst over seeds and rounds."]
    return _by_series("agreement", "Agreement", data, used, ["at_weights", "quantity"], told, worst=True)


def sampling(records: Source) -> Table:
    """Throughput and latency of sampling, and throughput of log p, by batch: a column per backend."""
    data = prepare(records)
    density = (data["measure"] == "likelihood") & (data["quantity"] == "images_per_second")
    used = data[(data["measure"] == "sampling") | density].copy()
    names = {"samples_per_second": "samples/s", "latency": "latency, s", "images_per_second": "log p, images/s"}
    used["quantity"] = [names.get(name, name) for name in used["quantity"]]
    told = ["Median [95 % interval]; over several rounds or seeds, their median [lowest–highest]."]
    return _by_series("sampling", "Sampling and density throughput", data, used, ["quantity", "at_batch"], told)


def micro(records: Iterable[Record]) -> Table:
    """Time of single operations: a row per operation and batch, a column per backend."""
    data = prepare(records)
    # The batch is in a column of its own here, and no other protocol.
    several = data.groupby("plan_protocol")["protocol_digest"].transform("nunique") > 1
    digests = " (digest " + data["protocol_digest"].str.slice(0, 8) + ")"
    data["protocol"] = data["plan_protocol"].where(~several, data["plan_protocol"] + digests)
    used = data[data["measure"] == "micro"].copy()
    used[["value", "low", "high"]] *= 1e6
    told = ["µs a call: median [95 % interval] within one process; over several runs, their median [lowest–highest]."]
    return _by_series("micro", "Micro-benchmarks, µs", data, used, ["at_operation", "at_batch"], told)


INVERTIBILITY = {
    "max_error": "max, grey levels",
    "rms_error": "RMS, grey levels",
    "ulp_error": "max, ULP",
    "log_prob_change": "change of log p, nats",
}


def invertibility(records: Source, *, brief: bool = False) -> Table:
    """Errors of round trips: a row per weights, inputs, direction, trips and unit, a column per backend.

    The brief form keeps the greatest errors of the whole flow on test images, in grey levels.
    """
    data = prepare(records)
    used = data[data["measure"] == "invertibility"].copy()
    contexts = ["at_weights", "at_inputs", "at_direction", "at_coupling", "at_trips"]
    told = ["One grey level is 1/255; an ULP is that of the input's largest value. The worst over seeds and rounds."]
    if brief and {"at_inputs", "quantity"} <= set(used):
        whole = used["at_coupling"].isna() if "at_coupling" in used else True
        used = used[(used["at_inputs"] == "test") & (used["quantity"] == "max_error") & whole]
        used = used.drop(columns=[name for name in ("at_coupling",) if name in used])
        told.append("Other inputs, single couplings, RMS and ULP: in the CSV file.")
    used["quantity"] = [INVERTIBILITY.get(name, name) for name in used["quantity"]]
    return _by_series("invertibility", "Invertibility", data, used, [*contexts, "quantity"], told, worst=True)


def _by_series(
    name: str,
    title: str,
    data: pd.DataFrame,
    used: pd.DataFrame,
    keys: list[str],
    told: list[str],
    *,
    worst: bool = False,
) -> Table:
    """Make a table with a column per backend; keys that no measurement has are left out, unforeseen ones added."""
    contexts = [key for key in keys if key in used] + contexts_of(used, keys)
    raw, shown = [], []
    for key, rows in groups(used, [*SECTION, *contexts]):
        figures: Row = {}
        cells: Row = {}
        for series, its in groups(rows, ["series"]):
            heading = str(series["series"])
            if worst:
                figures[heading], cells[heading] = worst_of(its)
            else:
                found = over_rounds(its)
                figures |= {heading: found.middle, f"{heading} low": found.low, f"{heading} high": found.high}
                cells[heading] = spread(found.middle, found.low, found.high)
        raw.append(clean(key) | figures)
        shown.append(labels_of(key) | cells)
    return assemble(name, title, data, used, raw, shown, told)


def worst_of(rows: pd.DataFrame) -> tuple[float, str]:
    """Return the greatest magnitude, and how it reads; one that was not finite is worse than any number."""
    if rows.empty:
        return math.nan, MISSING
    if rows["value"].isna().any():
        return math.nan, "not finite" if rows["note"].str.contains("value was").fillna(False).any() else MISSING
    value = float(rows["value"].abs().max())
    return value, number(value, 3)
