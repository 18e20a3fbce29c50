"""The tables that answer first: how fast, how near to what the machine allows, and when a likelihood is reached."""

from __future__ import annotations

import math

from bench.tables.floor_tables import machine_floors
from bench.tables.labels import LOSS_DIGITS, ROW, Row, Source, disturbed, groups, prepare, targets
from bench.tables.pivot import Rows, fastest_epochs, over_rounds, pick, section_of
from bench.tables.render import MISSING, Table, number

MARKS = (1900.0, 1980.5, 2100.0)
"""The log-likelihoods in nats that have a column; the second is the paper's (arXiv 1410.8516, table 1)."""


def headline(records: Source) -> Table:
    """Return an epoch's time with its multiples, the first call, the target and the likelihood: a row a backend."""
    data = prepare(records)
    floors, fastest, table = machine_floors(data), fastest_epochs(data), Rows()
    for key, rows in groups(data, [*ROW, "status", "reason"]):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch"))
        if math.isnan(epoch.middle):
            continue
        section, share = section_of(key), disturbed(rows)
        # A target that was not reached counts as reached after an infinite time; NaN is no target.
        seconds, epochs = (
            over_rounds(pick(rows, "training", f"{what}_to_target"), missing=math.inf).middle
            for what in ("seconds", "epochs")
        )
        likelihood = over_rounds(pick(rows[rows["loss"] == "nll"], "likelihood", "dequantised_log_likelihood"))
        figures: Row = {
            "seconds_per_epoch": epoch.middle,
            "times_fastest": math.nan if share is not None else epoch.middle / fastest.get(section, math.nan),
            "times_machine_floor": epoch.middle / floors.get(section, math.nan),
            "first_call_seconds": over_rounds(pick(rows, "startup", "first_call_seconds")).middle,
            "epochs_to_target": epochs,
            "seconds_to_target": seconds,
            "log_likelihood": likelihood.middle,
        }
        note = f", disturbed: others used {number(100 * share, 2)} % of the cores" if share is not None else ""
        target = MISSING if math.isnan(epochs) else "not reached"
        error = f" ± {number((likelihood.high - likelihood.low) / 2, 2)}" if likelihood.high > likelihood.low else ""
        cells = {
            "s/epoch [min–max]": epoch.text() + note,
            "× fastest": number(figures["times_fastest"], 3),
            "× machine's floor": number(figures["times_machine_floor"], 3),
            "first call, s": number(figures["first_call_seconds"], 3),
            "to target": f"{seconds:.3g} s, epoch {epochs:g}" if math.isfinite(epochs) else target,
            "test log-likelihood, nats": number(likelihood.middle, LOSS_DIGITS) + error,
        }
        table.add(key, figures, cells, rows, ROW)
    notes = [
        "s/epoch: median over rounds [lowest–highest], without the first call.",
        "× machine's floor: against the products of a step by the fastest library here, or its bytes if those take",
        "longer.",
        *targets(data),
    ]
    title = f"In short: {', '.join(sorted({str(key['protocol']) for key in table.raw}))}"
    return table.table("headline", title, data, notes)


def likelihood_times(records: Source) -> Table:
    """Return when the log-likelihood of what is selected on passes some marks, in epochs and seconds."""
    data = prepare(records)
    data = data[(data["loss"] == "nll") | (data["measure"] == "startup")]
    table = Rows()
    for key, rows in groups(data, [*ROW, "seed"]):
        curve = pick(rows, "curve", "test_loss").dropna(subset=["value"]).sort_values("at_epoch")
        seconds = pick(rows, "curve", "seconds").sort_values("at_epoch")
        if curve.empty or (curve["run"].nunique() > 1):
            continue
        first_call = float(pick(rows, "startup", "first_call_seconds")["value"].sum())
        figures: Row = {"first_call_seconds": first_call}
        cells = {"first call, s": number(first_call, 3)}
        for mark in MARKS:
            passed = curve[curve["value"] <= -mark]
            epoch = int(passed["at_epoch"].iloc[0]) if len(passed) else None
            spent = math.inf if epoch is None else float(seconds[seconds["at_epoch"] <= epoch]["value"].sum())
            figures |= {f"epochs_to_{mark:g}": epoch, f"seconds_to_{mark:g}": spent + first_call}
            when = "not reached" if epoch is None else f"{spent + first_call:.4g} s, epoch {epoch}"
            cells[f"to {mark:g} nats"] = when
        figures["best"] = float(-curve["value"].min())
        cells["best, nats"] = number(figures["best"], LOSS_DIGITS)
        table.add(key, figures, cells, rows, [*ROW, "seed"])
    notes = [
        "The first epoch after which the images that are selected on have that log-likelihood, and the seconds until",
        "then, first call included and evaluations left out. The paper's test log-likelihood is 1980.5 nats.",
    ]
    return table.table("likelihood-times", "Time to a likelihood", data, notes)
