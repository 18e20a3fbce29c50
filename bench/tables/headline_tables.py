"""The tables that answer first: how fast, how near to what the machine allows, and when a likelihood is reached."""

import math

import pandas as pd

from bench.tables.floor_tables import machine_floors
from bench.tables.labels import (
    LOSS_DIGITS,
    PAPER,
    ROW,
    Row,
    Source,
    disturbed,
    disturbed_note,
    groups,
    prepare,
    targets,
)
from bench.tables.pivot import (
    RECORD,
    Rows,
    Spread,
    fastest_epochs,
    numbers_of,
    over_rounds,
    pick,
    section_of,
    with_error,
)
from bench.tables.render import MISSING, Table, number

MARKS = (1900.0, PAPER, 2100.0)
"""The log-likelihoods in nats that have a column, as a protocol's own target has."""

CLOCK = "To target: training and the first call."


def passing(rows: pd.DataFrame, mark: float) -> tuple[Spread, Spread]:
    """The first epoch after which a log-likelihood is had, and the seconds until then, over the seeds of a row.

    It is that of the images that are selected on; the first call is included, evaluations are not. What a run doesn't
    reach, it reaches after infinitely many; one that was cut off before it could, and one without losses, are left out.
    """
    epochs, seconds = [], []
    for _, its in rows[rows["measure"].isin(["curve", "startup"])].groupby(RECORD):
        curve, first_call = pick(its, "curve", "test_loss"), pick(its, "startup", "first_call_seconds")["value"].sum()
        if curve["value"].isna().all():
            continue
        passed = curve[curve["value"] <= -mark]["at_epoch"]
        if passed.empty and not its["status"].isin(["ok", "diverged"]).all():
            continue
        spent = pick(its, "curve", "seconds")
        epochs.append(float(passed.min()) if len(passed) else math.inf)
        until = float(spent[spent["at_epoch"] <= epochs[-1]]["value"].sum() + first_call)
        seconds.append(until if len(passed) else math.inf)
    return Spread.of(epochs), Spread.of(seconds)


def target_of(rows: pd.DataFrame) -> float | None:
    """The log-likelihood in nats that counts as a row's target: its protocol's or the paper's; None of other losses."""
    if set(rows["loss"]) != {"nll"}:
        return None
    own = rows["target_loss"].dropna().unique()
    return -float(own[0]) if len(own) else PAPER


def to_target(rows: pd.DataFrame) -> tuple[Spread, Spread]:
    """The epochs and the seconds to a row's target, infinite where it was not reached, NaN where there is none.

    The seconds are of training and the first call, whatever the target is of; evaluations are left out.
    """
    mark = target_of(rows)
    if mark is not None:
        return passing(rows, mark)
    # A target that was not reached counts as reached after an infinite time: leaving it out would flatter.
    epochs, seconds = (pick(rows, "training", f"{what}_to_target") for what in ("epochs", "seconds"))
    first_calls = pick(rows, "startup", "first_call_seconds").groupby(RECORD)["value"].sum()
    seconds = seconds.merge(first_calls.rename("first_call"), how="left", left_on=RECORD, right_index=True)
    seconds["value"] += seconds["first_call"].fillna(0)
    return over_rounds(epochs, missing=math.inf), over_rounds(seconds, missing=math.inf)


def when(epochs: Spread, seconds: Spread, digits: int = 4) -> str:
    """In words when something is reached, with the lowest and highest over seeds; "" where it isn't known."""
    if math.isnan(epochs.middle):
        return ""
    if math.isinf(epochs.middle):
        return "not reached"
    ends = f" [{epochs.low:g}–{epochs.high:g}]".replace("inf", "∞") if epochs.low < epochs.high else ""
    return f"{seconds.text(digits)} s, epoch {epochs.middle:g}{ends}"


def headline(records: Source) -> Table:
    """Return an epoch's time with its multiples, the first call, the target and the likelihood: a row a backend."""
    data = prepare(records)
    floors, fastest, table = machine_floors(data), fastest_epochs(data), Rows()
    for key, rows in groups(data, [*ROW, "status", "reason"]):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch"))
        if math.isnan(epoch.middle):
            continue
        section, share = section_of(key), disturbed(rows)
        comparable = key["status"] == "ok" and share is None
        epochs, seconds = to_target(rows)
        likelihood = pick(rows[rows["loss"] == "nll"], "likelihood", "dequantised_log_likelihood")
        figures: Row = {
            "seconds_per_epoch": epoch.middle,
            "times_fastest": epoch.middle / fastest.get(section, math.nan) if comparable else math.nan,
            "times_machine_floor": epoch.middle / floors.get(section, math.nan),
            "first_call_seconds": over_rounds(pick(rows, "startup", "first_call_seconds")).middle,
            "epochs_to_target": epochs.middle,
            "seconds_to_target": seconds.middle,
            "log_likelihood": over_rounds(likelihood).middle,
        }
        cells = {
            "s/epoch [min–max]": epoch.text() + disturbed_note(share),
            "× fastest": number(figures["times_fastest"], 3),
            "× machine's floor": number(figures["times_machine_floor"], 3),
            "first call, s": number(figures["first_call_seconds"], 3),
            "to target": when(epochs, seconds, 3) or MISSING,
            "test log-likelihood, nats": with_error(likelihood, LOSS_DIGITS),
        }
        table.add(key, figures, cells, rows, ROW)
    notes = [
        "s/epoch: median over rounds [lowest–highest], without the first call.",
        "× fastest: of what is complete and undisturbed. × machine's floor: of an epoch's products, or its memory",
        "traffic if slower, by the fastest library here.",
        *targets(data),
        CLOCK,
    ]
    title = f"In short: {', '.join(sorted({str(key['protocol']) for key in table.raw}))}"
    return table.table("headline", title, data, notes)


def likelihood_times(records: Source) -> Table:
    """Return when the log-likelihood of what is selected on passes some marks, in epochs and seconds, over seeds."""
    data = prepare(records)
    data = data[data["loss"] == "nll"]
    marks = sorted({*MARKS, *(-data["target_loss"].dropna().unique())})
    table = Rows()
    for key, rows in groups(data, ROW):
        curve = pick(rows, "curve", "test_loss").dropna(subset=["value"])
        if curve.empty:
            continue
        first_call = over_rounds(pick(rows, "startup", "first_call_seconds"))
        figures: Row = numbers_of(rows) | {"first_call_seconds": first_call.middle}
        cells = {"seeds": str(figures["seeds"]), "first call, s": first_call.text(3)}
        for mark in marks:
            epochs, seconds = passing(rows, mark)
            figures |= {f"epochs_to_{mark:g}": epochs.middle, f"seconds_to_{mark:g}": seconds.middle}
            figures |= {f"least_seconds_to_{mark:g}": seconds.low, f"most_seconds_to_{mark:g}": seconds.high}
            cells[f"to {mark:g} nats"] = when(epochs, seconds) or MISSING
        best = Spread.of([float(-its["value"].min()) for _, its in curve.groupby(RECORD)])
        figures["best"] = best.middle
        cells["best, nats"] = best.text(LOSS_DIGITS)
        table.add(key, figures, cells, rows, ROW)
    notes = [
        "The first epoch after which the images that are selected on have that log-likelihood, and the seconds until",
        "then, first call included and evaluations left out; of several seeds the median [lowest–highest]. The paper's",
        "test log-likelihood is 1980.5 nats.",
    ]
    return table.table("likelihood-times", "Time to a likelihood", data, notes)
