"""Frame: any set of records as one tidy table, a row per measurement.

Nothing is rounded, chosen or averaged here; a record without measurements still has its row, with status and reason.
What a measurement was of (its context: round, batch, weights, …) becomes columns named `at_…`.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import pandas as pd

import backends
from bench.records import Measurement, Record
from bench.records.environment import BEGUN_WITH, machine

TEXT: Final = "string"
ABOUT = ("run", "created", "status", "reason", "protocol", "protocol_digest", "backend", "device", "machine")
SETTING = ("precision", "precision_seen", "mode", "devices", "nodes", "seed", "epochs", "batch", "rounds")
AIM = ("loss", "target_loss")
MEASURED = ("versions", "measure", "quantity", "value", "unit", "low", "high", "n", "note")
COLUMNS: Final = (
    dict.fromkeys((*ABOUT, *SETTING, *AIM, *MEASURED), TEXT)
    | dict.fromkeys(("devices", "nodes", "seed", "epochs", "batch", "rounds", "n"), "Int64")
    | dict.fromkeys(("target_loss", "value", "low", "high"), "float64")
)
"""The columns of every frame, and their types; the `at_…` columns follow in alphabetical order."""

BACKENDS = tuple(backends.BUILT_IN)
PRECISIONS = ("float64", "float32", "tf32", "bfloat16")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Return a row per measurement and, as measure "curve", a row per point of the loss curves.

    Columns: `COLUMNS`, then one `at_<key>` per key of any measurement's context. The order of rows depends on the
    records alone, not on the order they come in.
    """
    return numbered(records).drop(columns="record")


def numbered(records: Iterable[Record]) -> pd.DataFrame:
    """Return the same with a number for each record, in the column `record`."""
    columns = COLUMNS | {"record": "int64"}
    rows = [row | {"record": i} for i, each in enumerate(sorted(records, key=order)) for row in _rows(each)]
    contexts = sorted({name for row in rows for name in row} - set(columns))
    data = pd.DataFrame(rows, columns=[*columns, *contexts], dtype=object).astype(columns)
    for name in contexts:
        data[name] = _context_column(data[name])
    return data


def rank(value: str, order: tuple[str, ...]) -> tuple[int, str]:
    """Return a sort key: those in `order` first, in that order, then the others by name."""
    return (order.index(value) if value in order else len(order), value)


def machine_of(record: Record) -> str:
    """Return the label of the machine of a record, and how many devices of how many such trained together."""
    label = record.environment.get("machine") or machine(record.plan.device, record.environment)
    plan = record.plan
    label += f", {plan.devices} devices" if plan.devices > 1 else ""
    return label + (f" on {plan.nodes} nodes" if plan.nodes > 1 else "")


def versions_of(record: Record) -> str:
    """Return the framework's version, as "jax 0.10.2, jaxlib 0.10.2"; empty where it is not installed.

    The packages of a backend that isn't built in are not known here, so its own word is taken. Of a run that went on
    under another version it is both.
    """
    known = backends.BUILT_IN.get(record.plan.backend)
    part = "packages" if known else "framework"
    all_found = [each.get(part, {}) for each in (record.environment.get(BEGUN_WITH, {}), record.environment)]
    named = [
        ", ".join(f"{name} {found[name]}" for name in (known.packages if known else found) if name in found)
        for found in all_found
    ]
    return ", then ".join(dict.fromkeys(filter(None, named)))


def order(record: Record) -> tuple[Any, ...]:
    """Return the sort key of a record: what it is of, then when it was made."""
    plan = record.plan
    return (
        plan.protocol,
        machine_of(record),
        rank(plan.precision, PRECISIONS),
        rank(plan.backend, BACKENDS),
        plan.mode or "",
        plan.seed,
        record.created,
        record.run,
        record.model_dump_json(),
    )


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield the rows of one record, at least one."""
    plan = record.plan
    about: dict[str, Any] = {
        "run": record.run,
        "created": record.created,
        "status": record.status,
        "reason": record.reason,
        "machine": machine_of(record),
        "precision_seen": record.precision.seen if record.precision else None,
        "versions": versions_of(record) or None,
    }
    about |= {name: getattr(plan, name) for name in COLUMNS if name in type(plan).model_fields}
    measurements = [*record.measurements, *_curve(record)]
    for measurement in measurements:
        row = about | measurement.model_dump(exclude={"context"})
        yield row | {f"at_{key}": value for key, value in measurement.context.items()}
    if not measurements:
        yield about


def _curve(record: Record) -> Iterator[Measurement]:
    """Yield the points of a record's curves as measurements."""
    for point in record.curve:
        for quantity, unit in (("train_loss", "nats"), ("test_loss", "nats"), ("seconds", "s")):
            value = getattr(point, quantity)
            lost = point.note is not None and f"{quantity} was" in point.note
            if value is not None or lost:
                note = point.note if lost else None
                at = {"epoch": point.epoch, "round": point.round}
                yield Measurement.of("curve", quantity, value, unit, note=note, **at)


def _context_column(column: pd.Series) -> pd.Series:
    """Give a context column one type, as Parquet demands: integers, else numbers, else text."""
    values = column.dropna()
    if values.map(lambda value: isinstance(value, int)).all():
        return column.astype("Int64")
    if values.map(lambda value: isinstance(value, int | float)).all():
        return column.astype("float64")
    return column.map(str, na_action="ignore").astype(TEXT)
