"""The table of the peers: what the usual libraries take for the step that this harness' own backend takes.

A ratio is taken within a round, where the two stood next to each other in time; the spread is that over rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from bench.inputs.peer_registry import OURS, of_framework, our_mode
from bench.records import Record
from bench.tables.frame import BACKENDS, machine_of, rank
from bench.tables.labels import prepare, provenance
from bench.tables.render import Table, number, spread

ABOUT = ("machine", "precision", "size", "batch", "run")
"""Labels that are left to the caption where all rows have the same."""

TOLD = (
    "ms/step: median over rounds [lowest–highest], all peers of a framework in turns in one process.",
    "× this harness: median [lowest–highest] of the ratios within a round.",
    "log p error: at the same weights, against the float64 reference, relative to its largest.",
    "training error: of the change of log p by the first steps, against this harness', relative to its largest.",
)


def peers(records: Iterable[Record]) -> Table:
    """A row a peer: seconds a step, and as a multiple of the harness' own; or why there are none."""
    chosen = sorted(records, key=lambda r: (machine_of(r), r.created, rank(r.plan.backend, BACKENDS)))
    raw = [row for record in chosen for row in _rows(record)]
    shown = pd.DataFrame([_shown(row) for row in raw], dtype=object)
    constant = [name for name in ABOUT if name in shown and shown[name].nunique() == 1]
    told = [*provenance(prepare(chosen)), *TOLD] if chosen else []
    return Table(
        name="peers",
        title="Other libraries on the same work",
        caption=" ".join(told),
        shown=shown.drop(columns=constant),
        raw=pd.DataFrame(raw),
        labels=(*ABOUT, "framework", "peer"),
    )


def _rows(record: Record) -> Iterable[dict[str, Any]]:
    """The harness' own backend, then its peers; those that weren't asked for have no row."""
    plan, packages = record.plan, record.environment.get("packages", {})
    layers, units = plan.architecture.get("hidden_layers"), plan.architecture.get("hidden_units")
    about = {
        "machine": machine_of(record),
        "precision": plan.precision,
        "size": f"{plan.architecture.get('couplings')} × {layers} × {units}",
        "batch": plan.batch,
        "run": record.run,
        "framework": plan.backend,
    }
    ours = _by_round(record, OURS)
    told = dict.fromkeys(str(m.context.get("peer")) for m in record.measurements)
    names = [(OURS, None), *((name, None) for name in told if name.startswith(our_mode("")))]
    for name, package in (*names, *((entry.name, entry.package) for entry in of_framework(plan.backend))):
        if record.status == "ok" and not any(m.context.get("peer") == name for m in record.measurements):
            continue
        seconds = _by_round(record, name)
        ratios = [seconds[round_] / ours[round_] for round_ in seconds if round_ in ours]
        yield {
            **about,
            "peer": our_mode(plan.mode) if name == OURS and plan.mode else name,
            "version": packages.get(package),
            "status": _status(record, name),
            **_summary("step_seconds", list(seconds.values())),
            **_summary("times_ours", ratios),
            "log_prob_error": _figure(record, "log_prob_error", name),
            "trained_error": _figure(record, "trained_error", name),
        }


def _by_round(record: Record, peer: str) -> dict[Any, float]:
    """Round → seconds a step; none of one that failed in a later round."""
    rows = [m for m in record.measurements if m.quantity == "step_seconds" and m.context.get("peer") == peer]
    if any(m.value is None for m in rows):
        return {}
    return {m.context.get("round"): m.value for m in rows if m.value is not None}


def _status(record: Record, peer: str) -> str:
    """How it went with a peer, with the reason if not well; as with the whole record where it never had a turn."""
    rows = [m for m in record.measurements if m.quantity == "step_seconds" and m.context.get("peer") == peer]
    notes = [m.note for m in rows if m.value is None and m.note]
    if notes:
        return notes[0]
    if record.status != "ok":
        return f"{record.status}: {record.reason or 'no reason recorded'}"
    return "ok"


def _figure(record: Record, quantity: str, peer: str) -> float:
    found = [m.value for m in record.measurements if m.quantity == quantity and m.context.get("peer") == peer]
    return float("nan") if not found or found[0] is None else found[0]


def _summary(name: str, values: list[float]) -> dict[str, float]:
    if not values:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    return {name: float(np.median(values)), f"{name}_low": min(values), f"{name}_high": max(values)}


def _shown(row: dict[str, Any]) -> dict[str, str]:
    milliseconds = [1000 * row[name] for name in ("step_seconds", "step_seconds_low", "step_seconds_high")]
    return {
        **{name: str(row[name]) for name in (*ABOUT, "framework")},
        "peer": " ".join(filter(None, (row["peer"], row["version"]))),
        "status": row["status"],
        "ms/step [min–max]": spread(*milliseconds),
        f"× {OURS}": spread(row["times_ours"], row["times_ours_low"], row["times_ours_high"], 3),
        "log p error": number(row["log_prob_error"], 2),
        "training error": number(row["trained_error"], 2),
    }
