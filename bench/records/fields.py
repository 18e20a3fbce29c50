"""Fields: the types of what is in a record, each of them finite, bounded and printable."""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, GetPydanticSchema, ValidationInfo
from typing_extensions import TypedDict

LARGEST = 1e40
"""The largest magnitude of a figure: beyond what any float32 holds, and far from where float64 overflows."""

LEAST_POSITIVE = 1e-12
"""The least time in seconds, or rate per second, that can be measured."""

MOST_COUNTED = 2**53
"""The largest count: a float holds every whole number up to it."""

MOST_SEED = 2**63 - 1
"""The largest that the columns of tables hold."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that steer a terminal or reverse the direction of a text, and halves of characters."""


def printable(text: str) -> str:
    """Return `text` with "�" in place of every control character but tabs and line breaks."""
    return CONTROL.sub("�", text)


def plural(number: int | str, noun: str) -> str:
    """Return "1 round", "2 rounds"."""
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value as JSON, whose keys may stand in any order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Turn `value` into what JSON can hold; numbers that are not finite become their names ("nan", "inf", "-inf")."""
    value = unwrapped(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {printable(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise ValueError(f"{type(value).__name__} has no place in JSON")


def unwrapped(value: Any) -> Any:
    """Unwrap a NumPy scalar, so that both `int` and `float` fields take one."""
    return value.item() if isinstance(value, np.generic) else value


def finite(value: Any, info: ValidationInfo) -> Any:
    """Return None in place of a measured number that is not finite, or beyond `LARGEST`; a file must have none."""
    value = unwrapped(value)
    return None if info.mode == "python" and isinstance(value, float) and not abs(value) <= LARGEST else value


def note_non_finite(data: Any, info: ValidationInfo, fields: Iterable[str]) -> Any:
    """Replace numbers among `fields` that were measured as not finite by None, and say in `note` what they were."""
    if not isinstance(data, dict):
        return data
    data = {key: unwrapped(value) for key, value in data.items()}
    lost = {name: data[name] for name in fields if data.get(name) is not None and finite(data[name], info) is None}
    if lost:
        sentence = ", ".join(f"{name} was {number}" for name, number in lost.items())
        note = data.get("note")
        data |= dict.fromkeys(lost) | {"note": f"{note}; {sentence}" if note else sentence}
    return data


Text = Annotated[str, AfterValidator(printable)]
Name = Annotated[Text, Field(min_length=1)]
Json = Annotated[dict[str, Any], BeforeValidator(plain)]
Figure = Annotated[float, BeforeValidator(unwrapped), Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Seconds = Annotated[float, BeforeValidator(unwrapped), Field(ge=LEAST_POSITIVE, le=LARGEST)]
Count = Annotated[int, BeforeValidator(unwrapped), Field(ge=0, le=MOST_COUNTED)]
Positive = Annotated[int, BeforeValidator(unwrapped), Field(ge=1, le=MOST_COUNTED)]
Seed = Annotated[int, BeforeValidator(unwrapped), Field(ge=0, le=MOST_SEED)]


class _Git(TypedDict):
    """A state of the source: the commit, and whether the code differed from it."""

    commit: Text | None
    dirty: bool | None


class _Gpu(TypedDict):
    """A GPU, of which the tables read the name."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    name: Text


class _Environment(TypedDict, total=False):
    """The entries of `environment.fingerprint`, and of a worker, that are read; others are kept as they are."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    python: Text
    machine: Text
    cpu: Text | None
    cores: Positive
    packages: dict[Text, Text]
    framework: dict[Text, Text]
    git: _Git | None
    gpus: list[_Gpu]


Environment = Annotated[
    dict[str, Any], GetPydanticSchema(lambda _, handler: handler(_Environment)), BeforeValidator(plain)
]
