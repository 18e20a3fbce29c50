"""Records: what one backend did in one run, as one JSON file.

A record is the only thing that passes from measuring to reading: tables, comparisons, checks and reports start from
these files and from nothing else. Hence the rules. A file is whole or absent (written beside its place, then moved),
it is never overwritten by another run, and it is valid JSON: a number that is not finite becomes `null`, and the
`note` beside it says what it was.

A file may come from anybody. So the models below are strict: every figure is finite, bounded and of its type, a time or
a rate is positive, an interval holds its value, and control characters become "�". What has passed them can be
tabulated, plotted and compared without another check.
"""

import itertools
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bench.errors import BenchError, explain
from bench.records.fields import (
    LARGEST,
    LEAST_POSITIVE,
    MOST_COUNTED,
    Count,
    Environment,
    Figure,
    Json,
    Name,
    Positive,
    Seconds,
    Seed,
    Text,
    finite,
    note_non_finite,
    plain,
)

SCHEMA_VERSIONS = (1,)
"""The versions of the file format that `load` reads; the last one is what `save` writes."""

ROW_WIDTH = 320
"""Characters of a line in a file, at most, that holds a row of a list: one measurement, one epoch."""

MOST_BYTES = 64 * 2**20
"""The largest file that is read; a record of twenty epochs with every measure has 64 KiB."""

Status = Literal["ok", "failed", "unavailable", "timeout", "out_of_memory", "diverged"]


Kind = Literal["run", "sweep", "profile", "peers", "micro"]
"""What was done: each kind has tables of its own."""


class RecordError(BenchError):
    """A record that cannot be read or written; the message names the file, what was found and what was expected."""


def now() -> str:
    """Return the present time as records write it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Value(BaseModel):
    """A model that takes no unknown fields and can't be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plan(_Value):
    """What was to be done: the protocol as it was resolved for one backend."""

    kind: Kind = "run"
    protocol: Name
    protocol_digest: Text
    backend: Name
    device: Name
    precision: Name
    mode: Text | None = None
    devices: Positive = 1
    nodes: Positive = 1
    seed: Seed
    epochs: Count
    batch: Positive
    rounds: Positive
    architecture: Json
    optimiser: Json
    loss: Literal["article", "nll"]
    target_loss: Figure | None = None
    caption: Text = ""


class PrecisionSeen(_Value):
    """The precision of products: asked for, and what a probe product showed."""

    asked: Text
    seen: Text
    mantissa_bits: Count


class EpochPoint(_Value):
    """One epoch of one round: mean training loss, test loss (nats, as the protocol reports them) and seconds.

    `others` is the share of the machine that others used meanwhile (`bench.measures.disturbance`).
    """

    epoch: Positive
    train_loss: Figure | None
    test_loss: Figure | None = None
    seconds: Seconds
    others: Annotated[Figure, Field(ge=0, le=1)] | None = None
    round: Count
    note: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_non_finite(cls, data: Any, info: ValidationInfo) -> Any:
        return note_non_finite(data, info, ("train_loss", "test_loss"))


COUNTED = ("round", "epoch", "batch", "value", "trips", "coupling")
NAMED = ("axis", "operation", "peer", "weights", "inputs", "direction")
"""The contexts that tables know: whole numbers and texts."""

NEEDED = {
    "curve": ("epoch", "round"),
    "micro": ("operation", "batch"),
    "peers": ("peer",),
    "sampling": ("batch",),
    "sweep": ("axis", "value", "operation"),
}
"""Measure → the contexts without which its figures mean nothing."""

SIGNED = ("nats", "bits")
"""Units in which a figure may be negative; every other unit that is measured has a zero."""


class Measurement(_Value):
    """One figure: what, how much, in which unit, how sure (`low` and `high`, of `n` observations), and of what.

    `value` is None where there is no figure; `note` then says why. `context` tells apart figures of one quantity:
    the batch, the round, the weights they were taken at.
    """

    measure: Name
    quantity: Name
    value: Figure | None
    unit: Name
    low: Figure | None = None
    high: Figure | None = None
    n: Count | None = None
    note: Text | None = None
    context: Annotated[dict[Name, str | int | float], BeforeValidator(plain)] = Field(default_factory=dict)

    @classmethod
    def of(cls, measure: str, quantity: str, value: float | None, unit: str, /, **details: Any) -> Self:
        """A figure; `low`, `high`, `n` and `note` among the details are its fields, all else is its context."""
        fields = {name: details.pop(name) for name in ("low", "high", "n", "note") if name in details}
        return cls(measure=measure, quantity=quantity, value=value, unit=unit, **fields, context=details)

    @model_validator(mode="before")
    @classmethod
    def _name_non_finite(cls, data: Any, info: ValidationInfo) -> Any:
        return note_non_finite(data, info, ("value", "low", "high"))

    @model_validator(mode="after")
    def _is_sensible(self) -> Self:
        """Check that the figure is one that its unit can have, and lies in its interval."""
        timed = (self.unit == "s" or self.unit.endswith("/s")) and self.measure != "profile"  # parts of it may be 0
        least = -LARGEST if self.unit in SIGNED else LEAST_POSITIVE if timed else 0.0
        if self.value is not None and self.value < least:
            raise ValueError(f"expected a value of {least:g} {self.unit} or more")
        ends = [end for end in (self.low, self.value, self.high) if end is not None]
        if ends != sorted(ends):
            raise ValueError("expected low ≤ value ≤ high")
        return self

    @field_validator("context")
    @classmethod
    def _is_known(cls, context: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Check that contexts that tables use are there, of their types and bounded."""
        for name in NEEDED.get(info.data.get("measure", ""), ()):
            if name not in context:
                raise ValueError(f"expected the context {name!r}")
        for name, value in context.items():
            if isinstance(value, int | float) and abs(value) > MOST_COUNTED:
                raise ValueError(f"expected {name} to be {MOST_COUNTED} at most")
            if name in COUNTED and not (isinstance(value, int) and value >= 0):
                raise ValueError(f"expected {name} to be a count")
            if name in NAMED and not isinstance(value, str):
                raise ValueError(f"expected {name} to be a text")
        return context


class Record(_Value):
    """One backend's part in one run, failed or not. `first_epoch_losses` has None where a loss was not finite."""

    schema_version: Literal[1] = 1
    run: Name
    created: str = Field(default_factory=now)
    status: Status
    reason: Text | None = None
    plan: Plan
    environment: Environment = Field(default_factory=dict)
    precision: PrecisionSeen | None = None
    digests: dict[Text, Text] = Field(default_factory=dict)
    curve: list[EpochPoint] = Field(default_factory=list)
    first_epoch_losses: list[Annotated[Figure | None, BeforeValidator(finite)]] = Field(default_factory=list)
    measurements: list[Measurement] = Field(default_factory=list)

    @field_validator("created")
    @classmethod
    def _is_utc(cls, created: str) -> str:
        """Check that a time is in UTC."""
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
    # Lists inside a record may have grown since it was made: check it again, as `load` will.
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
    """Rename a written file to the name of its record, and return that."""
    stem, folder = "-".join(slug(part) for part in _named_by(record.plan) if part), temporary.parent
    of_this_name = re.compile(re.escape(stem) + r"(-\d+)?\.json")
    for path in sorted(path for path in folder.glob(f"{stem}*.json") if of_this_name.fullmatch(path.name)):
        with suppress(RecordError):  # a file that can't be read is never replaced
            found = load(path)
            if found.run == record.run and _named_by(found.plan) == _named_by(record.plan):
                return temporary.replace(path)
    for name in numbered(stem):
        path = folder / f"{name}.json"
        try:
            os.link(temporary, path)  # unlike a move, fails if another process took the name in the meantime
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            if path.exists():
                continue
            temporary.replace(path)
        return path
    raise AssertionError("unreachable: names never run out")


def _named_by(plan: Plan) -> tuple[str | None, ...]:
    """Return what sets a record apart from the others of its run."""
    kind = plan.kind if plan.kind != "run" else None
    devices = f"x{plan.devices}" if plan.devices > 1 else None
    return plan.protocol, kind, plan.backend, plan.device, plan.precision, plan.mode, devices, f"seed{plan.seed}"


def numbered(name: str) -> Iterator[str]:
    """Yield `name`, and for where that is taken `name`-2, `name`-3, …."""
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def slug(text: str) -> str:
    """Return `text` in lower case with everything but letters, digits, `_` and inner `.` turned into `-`."""
    return re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-.") or "x"


def _brief(row: BaseModel) -> dict[str, Any]:
    """Return the fields of `row` without those that are None by default and are None."""
    fields = type(row).model_fields.items()
    return row.model_dump(exclude={name for name, field in fields if field.default is None is getattr(row, name)})


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
        RecordError: no such file, no JSON, or more than `MOST_BYTES`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise RecordError(f"{path}: larger than {MOST_BYTES >> 20} MiB, which no record is")
        text = content.decode("utf-8")
        return text, json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, nested without end
        raise RecordError(f"{path}: not a record: expected JSON, found {' '.join(str(error).split())}") from error


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
    """Refuse NaN and Infinity, which Python's parser takes for JSON."""
    raise ValueError(f"{token}, which is not JSON")
