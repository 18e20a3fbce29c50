"""The tables that answer first: how fast, how near to what the machine allows, and when a likelihood is reached."""

from __future__ import annotations

import math

import pandas as pd

from bench.tables.floor_tables import machine_floors
from bench.tables.labels import LOSS_DIGITS, ROW, SECTION, Row, Source, disturbed, groups, prepare, targets
from bench.tables.pivot import assemble, over_rounds, pick
from bench.tables.render import MISSING, Table, number, spread

MARKS = (1900.0, 1980.5, 2100.0)
"""Log-likelihoods in nats whose time is told: the second is the paper's (arXiv 1410.8516, table 1)."""


def headline(records: Source) -> Table:
    """Time of an epoch with its multiples, first call, time to the target, test log-likelihood: a row a backend."""
    data = prepare(records)
    floors = machine_floors(data)
    fastest: dict[tuple[str, ...], float] = {}
    for key, rows in groups(data[data["status"] == "ok"], ROW):
        if disturbed(rows) is None:
            section, epoch = _section(key), over_rounds(pick(rows, "training", "seconds_per_epoch"))
            fastest[section] = min(fastest.get(section, math.inf), epoch.middle)
    raw, shown, used = [], [], []
    for key, rows in groups(data, [*ROW, "status", "reason"]):
        epoch = over_rounds(pick(rows, "training", "seconds_per_epoch"))
        if math.isnan(epoch.middle):
            continue
        section, share = _section(key), disturbed(rows)
        seconds, epochs = (_reached(rows, f"{what}_to_target") for what in ("seconds", "epochs"))
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
        raw.append(key | figures)
        note = f", disturbed: others used {number(100 * share, 2)} % of the cores" if share is not None else ""
        target = MISSING if math.isnan(epochs) else "not reached"
        error = f" ± {number((likelihood.high - likelihood.low) / 2, 2)}" if likelihood.high > likelihood.low else ""
        shown.append(
            {name: str(key[name]) or MISSING for name in ROW}
            | {
                "s/epoch [min–max]": spread(epoch.middle, epoch.low, epoch.high) + note,
                "× fastest": number(figures["times_fastest"], 3),
                "× machine's floor": number(figures["times_machine_floor"], 3),
                "first call, s": number(figures["first_call_seconds"], 3),
                "to target": f"{seconds:.3g} s, epoch {epochs:g}" if math.isfinite(epochs) else target,
                "test log-likelihood, nats": number(likelihood.middle, LOSS_DIGITS) + error
                if not math.isnan(likelihood.middle)
                else MISSING,
            }
        )
        used.append(rows)
    told = [
        "s/epoch: median over rounds [lowest–highest], without the first call.",
        "× machine's floor: against the products of a step by the fastest library here, or its bytes if those take",
        "longer.",
        *targets(data),
    ]
    title = f"In short: {', '.join(sorted({str(key['protocol']) for key in raw}))}"
    return assemble("headline", title, data, pd.concat([data[:0], *used]), raw, shown, told)


def likelihood_times(records: Source) -> Table:
    """When the log-likelihood of what is selected on passes some marks: epoch and seconds, first call included."""
    data = prepare(records)
    data = data[(data["loss"] == "nll") | (data["measure"] == "startup")]
    raw, shown, used = [], [], []
    for key, rows in groups(data, [*ROW, "seed"]):
        curve = pick(rows, "curve", "test_loss").dropna(subset=["value"]).sort_values("at_epoch")
        seconds = pick(rows, "curve", "seconds").sort_values("at_epoch")
        if curve.empty or (curve["run"].nunique() > 1):
            continue
        first_call = float(pick(rows, "startup", "first_call_seconds")["value"].sum())
        figures: Row = {"first_call_seconds": first_call}
        cells: Row = {"first call, s": number(first_call, 3)}
        for mark in MARKS:
            passed = curve[curve["value"] <= -mark]
            epoch = int(passed["at_epoch"].iloc[0]) if len(passed) else None
            spent = math.inf if epoch is None else float(seconds[seconds["at_epoch"] <= epoch]["value"].sum())
            figures |= {f"epochs_to_{mark:g}": epoch, f"seconds_to_{mark:g}": spent + first_call}
            when = "not reached" if epoch is None else f"{spent + first_call:.4g} s, epoch {epoch}"
            cells[f"to {mark:g} nats"] = when
        best = float(-curve["value"].min())
        figures["best"] = best
        cells["best, nats"] = number(best, LOSS_DIGITS)
        raw.append(key | figures)
        shown.append({name: str(key[name]) or MISSING for name in [*ROW, "seed"]} | cells)
        used.append(rows)
    told = [
        "The first epoch after which the images that are selected on have that log-likelihood, and the seconds until",
        "then, first call included and evaluations left out. The paper's test log-likelihood is 1980.5 nats.",
    ]
    return assemble("likelihood-times", "Time to a likelihood", data, pd.concat([data[:0], *used]), raw, shown, told)


def _section(key: Row) -> tuple[str, ...]:
    return tuple(str(key[name]) for name in SECTION)


def _reached(rows: pd.DataFrame, quantity: str) -> float:
    """Median over rounds and seeds; infinite where it was not reached, NaN where there is no target."""
    return over_rounds(pick(rows, "training", quantity), missing=math.inf).middle
