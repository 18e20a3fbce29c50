"""Options that commands share: what they are called, how they are read, and what is refused: always a BenchError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import backends
from bench import records
from bench.commands.progress import LiveProgress
from bench.errors import BenchError
from bench.records import collection
from bench.running import runner
from bench.tables.frame import PRECISIONS

errors = Console(stderr=True)

Verbose = Annotated[bool, typer.Option("--verbose", help="Show the traceback of an error.")]
Chosen = Annotated[
    str | None, typer.Option("--backends", help=f"Comma-separated. [default: {','.join(runner.DEFAULT_BACKENDS)}]")
]
Device = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
Precision = Annotated[str, typer.Option(help="float64, float32, tf32 or bfloat16.")]
Modes = Annotated[
    list[str] | None,
    typer.Option(help="BACKEND=MODE, repeatable; several modes of a backend take turns. [default: its usual one]"),
]
Mode = Annotated[list[str] | None, typer.Option(help="BACKEND=MODE, repeatable. [default: its usual one]")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of weights, order and noise.")]
Interpreters = Annotated[
    list[str] | None, typer.Option(help="BACKEND=INTERPRETER, repeatable: the Python that has its framework.")
]
Folders = Annotated[list[Path] | None, typer.Argument(help="Records, or folders of records. [default: results]")]


@contextmanager
def interruptible() -> Iterator[None]:
    """An interruption ends the command with a word on what is kept."""
    try:
        yield
    except KeyboardInterrupt:  # typer would end with the same code, and say nothing
        errors.print("nice-bench: interrupted; what was measured until then is kept", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def measured(measure: Callable[[LiveProgress], list[records.Record]]) -> list[records.Record]:
    """The records of a run or a sweep, with live progress."""
    with interruptible(), LiveProgress() as progress:
        return measure(progress)


def refuse_failures(made: list[records.Record], *, asked: bool) -> None:
    """A backend that failed is an error; one that isn't there only if it was asked for, or if none is."""
    absent = [record for record in made if record.status == "unavailable"]
    failed = [record for record in made if record.status not in ("ok", "unavailable")]
    if failed or (absent and asked) or len(absent) == len(made):
        told = "; ".join(f"{record.plan.backend}: {record.status}: {record.reason}" for record in [*failed, *absent])
        raise BenchError(told)


def loaded_records(folders: list[Path] | None) -> list[records.Record]:
    """The records that are named, or those of the folder `results`."""
    where: list[Path] = folders or [Path("results")]
    loaded = collection.load_all([*where])
    if not loaded:
        raise BenchError(f"no records in {', '.join(map(str, where))}; `nice-bench run` makes some")
    return loaded


def check_precision(precision: str) -> None:
    """Refuse what is no precision."""
    if precision not in PRECISIONS:
        raise BenchError(f"--precision is {precision!r}; expected float64, float32, tf32 or bfloat16")


def check_device(device: str) -> None:
    """Refuse what is no device."""
    if device not in ("auto", "cpu", "gpu"):
        raise BenchError(f"--device is {device!r}; expected auto, cpu or gpu")


def backend_names(chosen: str | None) -> list[str]:
    """The backends of --backends, each once; without it the usual ones."""
    if chosen is None:
        return list(runner.DEFAULT_BACKENDS)
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    unknown = [name for name in names if name not in backends.REGISTRY]
    if unknown or not names:
        raise BenchError(f"--backends {chosen!r}: expected some of {', '.join(backends.REGISTRY)}, with commas between")
    return list(dict.fromkeys(names))


def modes_of(given: list[str] | None) -> dict[str, list[str]]:
    """What the --mode options say, by backend: each mode once."""
    found: dict[str, list[str]] = {}
    for entry in given or []:
        for name, modes in pairs([entry], "--mode").items():
            found[name] = list(dict.fromkeys([*found.get(name, []), *listed([modes])]))
    return found


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """What BACKEND=VALUE says, by backend; `option` is the option's name, for the error."""
    found = {}
    for entry in given or []:
        name, equals, value = entry.partition("=")
        if not equals or not value or name not in backends.REGISTRY:
            raise BenchError(
                f"{option} {entry!r}: expected BACKEND=VALUE, BACKEND one of {', '.join(backends.REGISTRY)}"
            )
        found[name] = value
    return found


def listed(given: list[str] | None) -> list[str]:
    """The names in an option that is repeatable and takes commas."""
    return [name.strip() for entry in given or [] for name in entry.split(",") if name.strip()]


def sizes(given: list[str] | None) -> dict[str, list[int]]:
    """What AXIS=N,N,… says, by axis."""
    found = {}
    for entry in given or []:
        axis, _, numbers = entry.partition("=")
        each = listed([numbers])
        if not each or not all(number.isdecimal() and int(number) for number in each):
            raise BenchError(f"--values {entry!r}: expected AXIS=N,N,… with positive integers")
        found[axis] = [int(number) for number in each]
    return found
