"""The tables with a column per backend: agreement, sampling and density, invertibility, micro-benchmarks."""

import math
from collections.abc import Iterable

import pandas as pd

from bench.records import Record
from bench.tables.labels import SECTION, Row, Source, groups, prepare
from bench.tables.pivot import Rows, clean, contexts_of, labels_of, over_rounds, pick
from bench.tables.render import MISSING, Table, number


def agreement(records: Source) -> Table:
    """Return the greatest relative errors against the float64 reference: a row per quantity, a column per backend."""
    data = prepare(records)
    used = data[data["measure"] == "agreement"]
    notes = ["Greatest relative error against the float64 reference; the worst over seeds and rounds."]
    return _by_series("agreement", "Agreement", data, used, ["at_weights", "quantity"], notes, worst=True)


FEW = "; of fewer than six timings the lowest and the highest"


def sampling(records: Source) -> Table:
    """Return throughput and latency of sampling, and throughput of log p, by batch: a column per backend."""
    data = prepare(records)
    density = (data["measure"] == "likelihood") & (data["quantity"] == "images_per_second")
    used = data[(data["measure"] == "sampling") | density].copy()
    names = {"samples_per_second": "samples/s", "latency": "latency, s", "images_per_second": "log p, images/s"}
    used["quantity"] = [names.get(name, name) for name in used["quantity"]]
    notes = [f"Median [95 % interval{FEW}]; over several rounds or seeds, their median [lowest–highest]."]
    return _by_series("sampling", "Sampling and density throughput", data, used, ["quantity", "at_batch"], notes)


def micro(records: Iterable[Record]) -> Table:
    """Return the time of single operations: a row per operation and batch, a column per backend."""
    data = prepare(records)
    # The batch is in a column of its own here, and no other protocol.
    several = data.groupby("plan_protocol")["protocol_digest"].transform("nunique") > 1
    digests = " (digest " + data["protocol_digest"].str.slice(0, 8) + ")"
    data["protocol"] = data["plan_protocol"].where(~several, data["plan_protocol"] + digests)
    used = data[data["measure"] == "micro"].copy()
    used[["value", "low", "high"]] *= 1e6
    notes = [f"µs a call: median [95 % interval within one process{FEW}]; of several runs, their median and range."]
    return _by_series("micro", "Micro-benchmarks, µs", data, used, ["at_operation", "at_batch"], notes)


INVERTIBILITY = {
    "max_error": "max, grey levels",
    "rms_error": "RMS, grey levels",
    "ulp_error": "max, ULP",
    "log_prob_change": "change of log p, nats",
}


def invertibility(records: Source, *, brief: bool = False) -> Table:
    """Return errors of round trips: a row per weights, inputs, direction, trips and unit, a column per backend.

    The brief form keeps the greatest errors of the whole flow on test images, in grey levels.
    """
    data = prepare(records)
    used = data[data["measure"] == "invertibility"].copy()
    contexts = ["at_weights", "at_inputs", "at_direction", "at_coupling", "at_trips"]
    notes = ["One grey level is 1/255; an ULP is that of the input's largest value. The worst over seeds and rounds."]
    if brief:
        whole = (used["at_inputs"] == "test") & (used["quantity"] == "max_error") & used["at_coupling"].isna()
        used = used[whole.fillna(False)]
        notes.append("Other inputs, single couplings, RMS and ULP: in the CSV file.")
    used["quantity"] = [INVERTIBILITY.get(name, name) for name in used["quantity"]]
    return _by_series("invertibility", "Invertibility", data, used, [*contexts, "quantity"], notes, worst=True)


def round_trips_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the largest errors of one round trip x → z → x of test images through the whole flow."""
    found = pick(rows, "invertibility", "max_error")
    once = (found["at_inputs"] == "test") & (found["at_direction"] == "x-z-x") & (found["at_trips"] == 1)
    return found[once.fillna(False) & found["at_coupling"].isna()]


def _by_series(
    name: str,
    title: str,
    data: pd.DataFrame,
    used: pd.DataFrame,
    keys: list[str],
    notes: list[str],
    *,
    worst: bool = False,
) -> Table:
    """Return a table with a column per backend, its rows by `keys` and every other context that is there."""
    contexts = [key for key in keys if key in used and used[key].notna().any()] + contexts_of(used, keys)
    table = Rows()
    for key, rows in groups(used, [*SECTION, *contexts]):
        figures: Row = {}
        cells: dict[str, str] = {}
        for series, its in groups(rows, ["series"]):
            heading = str(series["series"])
            if worst:
                figures[heading], cells[heading] = worst_of(its)
            else:
                found = over_rounds(its)
                figures |= {heading: found.middle, f"{heading} low": found.low, f"{heading} high": found.high}
                cells[heading] = found.text()
        table.add(clean(key), figures, labels_of(key) | cells, rows, ())
    return table.table(name, title, data, notes)


def worst_of(rows: pd.DataFrame) -> tuple[float, str]:
    """Return the greatest error as a number and as it is shown; one that was not finite is worse than any other."""
    if rows.empty:
        return math.nan, MISSING
    if rows["value"].isna().any():
        return math.nan, "not finite" if rows["note"].str.contains("value was").fillna(False).any() else MISSING
    value = float(rows["value"].max())
    return value, number(value, 3)
