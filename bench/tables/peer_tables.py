"""The table of the peers: what the usual libraries take for the step that this harness' own backend takes.

A ratio is taken within a round, where the two stood next to each other in time; the spread is that over rounds.
"""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from bench.inputs.peer_registry import OURS, of_framework, our_mode
from bench.records import Measurement, Record
from bench.tables.frame import BACKENDS, machine_of, rank
from bench.tables.labels import prepare, provenance
from bench.tables.pivot import Spread
from bench.tables.render import Table, number, spread

ABOUT = ("machine", "precision", "size", "batch", "run")
"""Labels that are left to the caption where all rows have the same."""

ERRORS = {"log_prob_error": "log p error", "trained_error": "training error"}
NOTES = (
    "ms/step: median over rounds [lowest–highest], all peers of a framework alternating in one process.",
    "× this harness: median [lowest–highest] of the ratios within a round.",
    "log p error: at the same weights, against the float64 reference, relative to its largest.",
    "training error: of the change of log p by the first steps, against this harness', relative to its largest.",
)


def peers(records: Iterable[Record]) -> Table:
    """Return seconds a step, as they are and as a multiple of this harness' own: a row a peer, or why it has none."""
    chosen = sorted(records, key=lambda r: (machine_of(r), r.created, rank(r.plan.backend, BACKENDS)))
    raw = [row for record in chosen for row in _rows(record)]
    shown = pd.DataFrame([_shown(row) for row in raw], dtype=object)
    constant = [name for name in ABOUT if name in shown and shown[name].nunique() == 1]
    caption = " ".join([*provenance(prepare(chosen)), *NOTES] if chosen else [])
    shown = shown.drop(columns=constant)
    labels = tuple(name for name in (*ABOUT, "framework", "peer") if name in shown)
    return Table("peers", "Other libraries on the same work", caption, shown, pd.DataFrame(raw), labels)


def _rows(record: Record) -> Iterable[dict[str, Any]]:
    """Yield the harness' own backend, then its peers; those that weren't asked for have no row."""
    plan, network = record.plan, record.plan.architecture
    about = {
        "machine": machine_of(record),
        "precision": plan.precision,
        "size": " × ".join(str(network.get(name)) for name in ("couplings", "hidden_layers", "hidden_units")),
        "batch": plan.batch,
        "run": record.run,
        "framework": plan.backend,
    }
    found: dict[str, list[Measurement]] = {}
    for measurement in record.measurements:
        found.setdefault(str(measurement.context.get("peer")), []).append(measurement)
    ours = _by_round(found.get(OURS, []))
    names = {OURS: None} | {name: None for name in found if name.startswith(our_mode(""))}
    for name, package in (names | {entry.name: entry.package for entry in of_framework(plan.backend)}).items():
        if record.status == "ok" and name not in found:
            continue
        its = found.get(name, [])
        seconds, first = _by_round(its), {m.quantity: m.value for m in reversed(its)}
        yield {
            **about,
            "peer": our_mode(plan.mode) if name == OURS and plan.mode else name,
            "version": record.environment.get("packages", {}).get(package),
            "status": _status(record, its),
            **_summary("step_seconds", list(seconds.values())),
            **_summary("times_ours", [seconds[round_] / ours[round_] for round_ in seconds if round_ in ours]),
            **{name: math.nan if (value := first.get(name)) is None else value for name in ERRORS},
        }


def _by_round(measured: Iterable[Measurement]) -> dict[Any, float]:
    """Return round → seconds a step; nothing of a peer that failed in a later round."""
    seconds = {m.context.get("round"): m.value for m in measured if m.quantity == "step_seconds"}
    return {} if None in seconds.values() else seconds  # type: ignore[return-value]


def _status(record: Record, measured: Iterable[Measurement]) -> str:
    """Return why a peer has no time, or how the record ended where it has none at all."""
    notes = [m.note for m in measured if m.quantity == "step_seconds" and m.value is None and m.note]
    if notes or record.status == "ok":
        return notes[0] if notes else "ok"
    return f"{record.status}: {record.reason or 'no reason recorded'}"


def _summary(name: str, values: list[float]) -> dict[str, float]:
    """Return the median of the values, the lowest and the highest."""
    found = Spread.of(values)
    return {name: found.middle, f"{name}_low": found.low, f"{name}_high": found.high}


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row as it is shown."""
    milliseconds = [1000 * row[name] for name in ("step_seconds", "step_seconds_low", "step_seconds_high")]
    return {
        **{name: str(row[name]) for name in (*ABOUT, "framework")},
        "peer": " ".join(filter(None, (row["peer"], row["version"]))),
        "status": row["status"],
        "ms/step [min–max]": spread(*milliseconds),
        f"× {OURS}": spread(row["times_ours"], row["times_ours_low"], row["times_ours_high"], 3),
        **{heading: number(row[name], 2) for name, heading in ERRORS.items()},
    }
