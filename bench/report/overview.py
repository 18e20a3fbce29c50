"""Overview: what the whole set of records comes to, before anything is compared; and what did not end well."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.inputs.peer_registry import OURS
from bench.records import Record
from bench.tables.frame import machine_of
from bench.tables.labels import SECTION, groups, prepare, said, section_label
from bench.tables.pivot import Rows, contexts_of
from bench.tables.render import MISSING, Table, listed, number, spread
from bench.tables.sweep_tables import OPERATION_NAMES, curves, sweeps

KINDS = {
    "run": "runs",
    "sweep": "sweeps",
    "profile": "profiles",
    "peers": "comparisons with other libraries",
    "micro": "micro-benchmarks",
}


def overall(records: Sequence[Record]) -> Iterator[str]:
    """How many records there are, of what, how many ended well, and on which machines."""
    well = sum(record.status == "ok" for record in records)
    counts = {kind: sum(record.plan.kind == kind for record in records) for kind in KINDS}
    kinds = listed([f"{count} of {KINDS[kind]}" for kind, count in counts.items() if count])
    ended = "all ended well" if well == len(records) else f"{len(records) - well} did not end well (see below)"
    yield f"{len(records)} {'record' if len(records) == 1 else 'records'} ({kinds}); {ended}."
    lost = int(missing_figures(records).raw.get("figures", pd.Series(dtype=int)).sum())
    if lost:
        yield f"{lost} figures could not be taken: the table of missing figures has the reasons."
    machines = sorted({machine_of(record) for record in records})
    if len(machines) > 1:
        yield f"{len(machines)} machines: {'; '.join(machines)}. Their figures are nowhere compared with each other."
    absent = [name for kind, name in KINDS.items() if not counts[kind]]
    if absent:
        yield f"Not in these records: {listed(absent)}."


def failures(records: Sequence[Record]) -> list[str]:
    """A sentence for each record that did not end well, those that say the same together."""
    found = Counter(_failure(record) for record in records if record.status != "ok")
    return [f"{sentence}{f' ({count} records)' if count > 1 else ''}" for sentence, count in found.items()]


def _failure(record: Record) -> str:
    """What did not end well, where, and why."""
    plan = record.plan
    what = " ".join(filter(None, (said(plan.backend), plan.mode))) + ("" if plan.kind == "run" else f" ({plan.kind})")
    reason = " ".join((record.reason or "no reason recorded").split())
    where = f"{machine_of(record)}, {plan.protocol}, {plan.precision}"
    return f"{what} on {where}: {record.status.replace('_', ' ')}: {reason}"


def missing_figures(records: Sequence[Record]) -> Table:
    """Figures that were to be taken and could not: a row per reason, whatever the status of the record."""
    data = prepare(records)
    lost = data[data["measure"].notna() & data["value"].isna() & data["note"].notna()]
    # A target that was not reached is no failure to measure: the speed table says so.
    lost = lost[~lost["quantity"].isin(["epochs_to_target", "seconds_to_target"])].copy()
    contexts = contexts_of(lost, [])
    lost["of"] = [_context(row) for _, row in lost[contexts].iterrows()]
    table = Rows()
    for key, its in groups(lost, [*SECTION, "series", "measure", "of", "note"]):
        row = key | {"quantities": ", ".join(sorted(set(its["quantity"]))), "figures": len(its)}
        table.add(row, {}, {}, its, [*row])
    notes = ["Figures that were to be taken and have no value, by reason."]
    return table.table("missing", "Figures that are missing", data, notes, used=lost, failures=False)


def _context(row: pd.Series) -> str:
    """What a measurement was of, in words: "batch 16384"."""
    return ", ".join(f"{str(name).removeprefix('at_')} {value}" for name, value in row.dropna().items())


def sweep_sentences(records: Sequence[Record]) -> dict[str, list[str]]:
    """The best throughput over batch sizes, by the label of a group."""
    sentences: dict[str, list[str]] = {}
    for key, rows in groups(sweeps(prepare(records)), SECTION):
        found = [curve for curve in curves(rows) if curve.axis == "batch" and not curve.points.empty]
        for operation, name in OPERATION_NAMES.items():
            parts = []
            for curve in found:
                if curve.operation == operation:
                    rates, sizes = (curve.points[column].tolist() for column in ("examples_per_second", "size"))
                    rate, size = max(zip(rates, sizes, strict=True))
                    parts.append(f"{said(str(curve.key['series']))} {number(rate)} at batch {size:.0f}")
            if parts:
                sentence = f"Swept over batch sizes, most examples a second ({name}): {listed(parts)}."
                sentences.setdefault(section_label(key), []).append(sentence)
    return sentences


def peer_sentences(table: Table) -> list[str]:
    """What the usual libraries take for the step that this harness takes, by machine, precision, size and framework."""
    raw, sentences = table.raw, []
    if raw.empty:
        return []
    keys = ["machine", "precision", "size", "batch", "run", "framework"]
    for key, rows in groups(raw, keys):
        others = rows[~rows["peer"].astype(str).str.startswith(OURS)]
        timed = others[others["times_ours"].notna()].sort_values("times_ours")
        ratios = timed[["times_ours", "times_ours_low", "times_ours_high"]].to_numpy(float).tolist()
        named = zip(timed["peer"], ratios, strict=True)
        parts = [f"{peer} {spread(middle, low, high, 3)} ×" for peer, (middle, low, high) in named]
        where = f"On {key['machine']}, {key['precision']}, {key['size']}, batch {key['batch']}"
        where += f", {said(str(key['framework']))}"
        if parts:
            sentences.append(f"{where}: times the step of this harness: {listed(parts)}.")
        lost = others[others["times_ours"].isna()]
        for peer, status in lost[["peer", "status"]].values:
            why = "no ratio, since this harness has no time" if status == "ok" else status
            sentences.append(f"{where}: {peer}: {why}.")
    return sentences


def environments(records: Sequence[Record]) -> tuple[Table, list[tuple[str, str]]]:
    """A row per record, and the environments that they name: each once, as text."""
    texts: dict[str, str] = {}
    rows = []
    for record in records:
        plan, about = record.plan, record.environment
        text = json.dumps(about, indent=1, ensure_ascii=False)
        name = texts.setdefault(text, f"E{len(texts) + 1}")
        commit = about.get("git") or {}
        gpu: dict[str, Any] = next(iter(about.get("gpus") or []), {})
        rows.append(
            {
                "kind": plan.kind,
                "machine": machine_of(record),
                "protocol": plan.protocol,
                "backend": plan.backend,
                "mode": plan.mode,
                "precision": record.precision.seen if record.precision else None,
                "asked": plan.precision,
                "seed": plan.seed,
                "status": record.status,
                "created": record.created.removesuffix("+00:00").replace("T", " "),
                "versions": ", ".join(f"{n} {v}" for n, v in (about.get("framework") or {}).items()),
                "python": about.get("python"),
                "driver": gpu.get("driver"),
                "commit": f"{str(commit.get('commit', ''))[:10]}{' + changes' if commit.get('dirty') else ''}",
                "initial weights": record.digests.get("initial_parameters", "")[:10],
                "data": record.digests.get("data", "")[:10],
                "run": record.run,
                "environment": name,
            }
        )
    raw = pd.DataFrame(rows, dtype=object)
    shown = raw.map(lambda value: MISSING if value in (None, "") else str(value))
    shown = shown.drop(columns=[column for column in shown if (shown[column] == MISSING).all()])
    caption = (
        "Precision: as a probe product showed it, beside the one asked for. Created: UTC. Equal digests of weights and "
        "data mean equal bits."
    )
    return Table("records", "Records", caption, shown, raw), [(name, text) for text, name in texts.items()]
