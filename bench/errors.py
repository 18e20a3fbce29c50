"""Errors meant for the person at the keyboard: one or two lines that say what, where and what was expected."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from backends.parameters import atomically

MOST_PROBLEMS = 10


class BenchError(Exception):
    """Something the user can mend; the command line prints it without a traceback and exits with 1."""


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


class DisagreesError(RuntimeError):
    """The model isn't the reference's: whatever else was measured of it is of something else."""


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to; what is written there becomes `path`, whole or not at all. Its folder is made if need be.

    Raises:
        BenchError: it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomically(path) as temporary:
            yield temporary
    except OSError as error:
        raise BenchError(f"{path}: can't be written ({error.strerror or error})") from error


def explain(error: ValidationError, model: Any = None) -> str:
    """The first problems as `field: found …, expected …`, and how many more there are.

    Args:
        error: what pydantic says.
        model: of what was validated, where its keys are to be named beside one that it hasn't.
    """
    found = error.errors(include_url=False)
    places = [each["loc"] for each in found]
    # That a list is too short follows from what is wrong inside it.
    problems = [one for one in found if not any(place[: len(one["loc"])] == one["loc"] != place for place in places)]
    sentences = [_problem(each, model) for each in problems[:MOST_PROBLEMS]]
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    return "; ".join([*sentences, *more])


def _problem(problem: Any, model: Any) -> str:
    where, keys = _place(model, problem["loc"])
    at = f"{where}: " if where else ""
    found = json.dumps(problem["input"], default=str, ensure_ascii=False)
    found = found if len(found) <= 60 else found[:57] + "…"
    message = re.sub(r"^(Value error, |Input should be )", "", " ".join(problem["msg"].split()))
    match problem["type"]:
        case "missing":
            return f"{at}found nothing, expected this field"
        case "extra_forbidden" | "unexpected_keyword_argument":
            known = ", ".join(keys)
            return f"{at}found {found}, expected " + (f"one of the keys {known}" if known else "no such field")
        case "value_error" if not message.startswith("expected"):
            return at + message
    return f"{at}found {found}, expected {message.removeprefix('expected ')}"


def _place(model: Any, path: Sequence[str | int]) -> tuple[str, list[str]]:
    """Where a problem is, without the tags that name the members of unions, and the keys that there are beside it."""
    names: list[str] = []
    keys: list[str] = []
    for part in path:
        tagged = [member for member in get_args(model) if getattr(member, "name", None) == part]
        if tagged:
            (model,) = tagged
            continue
        fields = getattr(model, "model_fields", {})
        keys = [field.alias or name for name, field in fields.items()]
        if dataclasses.is_dataclass(model):
            keys = [field.name for field in dataclasses.fields(model)]
        model = fields[part].annotation if part in fields else next(iter(get_args(model)), None)
        names.append(str(part))
    return ".".join(names), keys
