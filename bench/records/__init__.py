"""Records: what one backend did in one run, as one JSON file.

A record is the only thing that passes from measuring to reading: tables, comparisons, checks and reports start from
these files and from nothing else. Hence the rules. A file is whole or absent (written beside its place, then moved),
it is never overwritten by another run, and it is valid JSON: a number that is not finite becomes `null`, and the
`note` beside it says what it was.
"""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import BenchError, explain

SCHEMA_VERSIONS = (1,)
"""The versions of the file format that `load` reads; the last one is what `save` writes."""

ROW_WIDTH = 320
"""Characters of a line in a file, at most, that holds a row of a list: one measurement, one epoch."""

Status = Literal["ok", "failed", "unavailable", "timeout", "out_of_memory", "diverged"]


Kind = Literal["run", "sweep", "profile", "peers", "micro"]
"""What was done: each kind has tables of its own."""


class RecordError(BenchError):
    """A record that cannot be read or written; the message names the file, what was found and what was expected."""


def now() -> str:
    """Return the present time as records write it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """Turn `value` into what JSON can hold; numbers that are not finite become their names ("nan", "inf", "-inf")."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise ValueError(f"{type(value).__name__} has no place in JSON")


def _number(value: Any) -> Any:
    """Unwrap a NumPy scalar, so that both `int` and `float` fields take one."""
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: Any) -> Any:
    """Return None in place of a number that is not finite."""
    value = _number(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _note_non_finite(data: Any, fields: Iterable[str]) -> Any:
    """Replace non-finite numbers among `fields` by None and say in `note` what they were."""
    if not isinstance(data, dict):
        return data
    data = {key: _number(value) for key, value in data.items()}
    lost = {name: data[name] for name in fields if isinstance(data.get(name), float) and not math.isfinite(data[name])}
    if lost:
        told = ", ".join(f"{name} was {number}" for name, number in lost.items())
        note = data.get("note")
        data |= dict.fromkeys(lost) | {"note": f"{note}; {told}" if note else told}
    return data


Json = Annotated[dict[str, Any], BeforeValidator(_plain)]
Finite = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_number), Field(ge=0)]
Positive = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]


class _Value(BaseModel):
    """A plain value: no unknown fields, no change after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plan(_Value):
    """What was to be done: the protocol as it was resolved for one backend."""

    kind: Kind = "run"
    protocol: Name
    protocol_digest: str
    backend: Name
    device: Name
    precision: Name
    mode: str | None = None
    seed: Count
    epochs: Count
    batch: Positive
    rounds: Positive
    architecture: Json
    optimiser: Json
    loss: Literal["article", "nll"]
    target_loss: Finite | None = None
    caption: str = ""


class PrecisionSeen(_Value):
    """The precision of products: asked for, and what a probe product showed."""

    asked: str
    seen: str
    mantissa_bits: Count


class EpochPoint(_Value):
    """One epoch of one round: mean training loss, test loss (nats, as the protocol reports them) and seconds."""

    epoch: Positive
    train_loss: float | None
    test_loss: float | None = None
    seconds: Finite
    round: Count
    note: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_non_finite(cls, data: Any) -> Any:
        return _note_non_finite(data, ("train_loss", "test_loss"))


class Measurement(_Value):
    """One figure: what, how much, in which unit, how sure (`low` and `high`, of `n` observations), and of what.

    `value` is None where there is no figure; `note` then says why. `context` tells apart figures of one quantity:
    the batch, the round, the weights they were taken at.
    """

    measure: Name
    quantity: Name
    value: float | None
    unit: Name
    low: float | None = None
    high: float | None = None
    n: Count | None = None
    note: str | None = None
    context: Annotated[dict[str, str | int | float], BeforeValidator(_plain)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_non_finite(cls, data: Any) -> Any:
        return _note_non_finite(data, ("value", "low", "high"))


class Record(_Value):
    """One backend's part in one run, failed or not. `first_epoch_losses` has None where a loss was not finite."""

    schema_version: Literal[1] = 1
    run: Name
    created: str = Field(default_factory=now)
    status: Status
    reason: str | None = None
    plan: Plan
    environment: Json = Field(default_factory=dict)
    precision: PrecisionSeen | None = None
    digests: dict[str, str] = Field(default_factory=dict)
    curve: list[EpochPoint] = Field(default_factory=list)
    first_epoch_losses: list[Annotated[float | None, BeforeValidator(_finite)]] = Field(default_factory=list)
    measurements: list[Measurement] = Field(default_factory=list)

    @field_validator("created")
    @classmethod
    def _is_utc(cls, created: str) -> str:
        if datetime.fromisoformat(created).utcoffset() != timedelta(0):
            raise ValueError("expected an ISO 8601 time in UTC, as 2026-01-31T12:00:00+00:00")
        return created


# Writing


def save(record: Record, folder: str | Path) -> Path:
    """Write `record` into `folder` (made if need be) and return the file's path.

    The file is named after protocol, kind (unless it is a run), backend, device, precision, mode and seed. It appears
    whole or not at all. A record that the same run wrote is replaced; one of another run stays, and this one's name
    gets -2, -3, …

    Raises:
        RecordError: the folder or the file cannot be written.
    """
    folder = Path(folder)
    # Lists inside a record may have grown since it was made: check it again, as whoever reads the file will.
    record = Record.model_validate(record.model_dump())
    rows = {name: [_brief(row) for row in getattr(record, name)] for name in ("curve", "measurements")}
    text = layout(record.model_dump() | rows) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return _move_into_place(temporary, record)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RecordError(f"{folder}: cannot write a record here: {error.strerror or error}") from error


def _move_into_place(temporary: Path, record: Record) -> Path:
    stem = _stem(record.plan)
    folder = temporary.parent
    for path in sorted(folder.glob(f"{stem}*.json")):
        if re.fullmatch(re.escape(stem) + r"(-\d+)?", path.stem) and _is_same(path, record):
            temporary.replace(path)
            return path
    for path in _free_names(folder, stem):
        try:
            os.link(temporary, path)  # unlike a move, fails if another process took the name in the meantime
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            temporary.replace(path)
        return path
    raise AssertionError("unreachable: names never run out")


def _free_names(folder: Path, stem: str) -> Iterator[Path]:
    number = 1
    while True:
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        if not path.exists():
            yield path
        number += 1


def _stem(plan: Plan) -> str:
    kind = plan.kind if plan.kind != "run" else None
    parts = (plan.protocol, kind, plan.backend, plan.device, plan.precision, plan.mode, f"seed{plan.seed}")
    return "-".join(slug(part) for part in parts if part)


def slug(text: str) -> str:
    """Return `text` in lower case with everything but letters, digits, `_` and inner `.` turned into `-`."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-.") or "x"


def _is_same(path: Path, record: Record) -> bool:
    """Whether `path` holds an earlier state of `record`; a file that cannot be read is not ours to replace."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        plan = found["plan"]
        same_plan = all(
            plan.get(name, "run") == getattr(record.plan, name)
            for name in ("kind", "protocol", "backend", "device", "precision", "mode", "seed")
        )
        return found["run"] == record.run and same_plan
    return False


def _brief(row: BaseModel) -> dict[str, Any]:
    """Return the fields of `row` without those that are None, and would be if they weren't there."""
    absent = {name for name, field in type(row).model_fields.items() if field.default is None}
    return {name: value for name, value in row.model_dump().items() if value is not None or name not in absent}


def layout(value: Any, indent: int = 0, width: int = 110) -> str:
    """Return `value` as JSON: what fits a line, lists of numbers, and each row of a list on one; the rest indented."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    scalars = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
    if scalars or not isinstance(value, dict | list) or (indent and len(line) + indent <= width):
        return line
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        rows = [f"{json.dumps(key, ensure_ascii=False)}: {layout(item, indent + 1)}" for key, item in value.items()]
        return "{\n" + pad + f",\n{pad}".join(rows) + "\n" + " " * indent + "}"
    rows = [layout(item, indent + 1, ROW_WIDTH) for item in value]
    return "[\n" + pad + f",\n{pad}".join(rows) + "\n" + " " * indent + "]"


# Reading


def load(path: str | Path) -> Record:
    """Read one record.

    Raises:
        RecordError: no such file, no JSON, no record, an unknown version, a field that is not as it should be.
    """
    return validated(Path(path), *parsed(Path(path)))


def parsed(path: Path) -> tuple[str, Any]:
    """A file's text, and the JSON in it.

    Raises:
        RecordError: no such file or no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return text, json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        raise RecordError(f"{path}: not a record: expected JSON, found {_one_line(error)}") from error


def validated(path: Path, text: str, data: Any) -> Record:
    """The record that a text, and the JSON in it, are.

    Raises:
        RecordError: they are none.
    """
    if not isinstance(data, dict) or "schema_version" not in data:
        other = " (this is pytest-benchmark output)" if isinstance(data, dict) and "benchmarks" in data else ""
        raise RecordError(f"{path}: not a record: expected an object with schema_version, found none{other}")
    version = data["schema_version"]
    if isinstance(version, bool) or version not in SCHEMA_VERSIONS:
        known = ", ".join(map(str, SCHEMA_VERSIONS))
        raise RecordError(f"{path}: schema_version: found {json.dumps(version)}, this program reads {known}")
    try:
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise RecordError(f"{path}: {explain(error)}") from error


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token}, which is not JSON")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
