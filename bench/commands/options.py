"""Options that commands share: what they are called, how they are read, and what is refused: always a BenchError."""

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

import backends
from bench import records
from bench.commands.progress import LiveProgress, errors
from bench.errors import BenchError
from bench.records import RecordError, collection
from bench.records.fields import MOST_COUNTED, MOST_SEED, printable
from bench.running.variant import DEFAULT_BACKENDS
from bench.tables.render import WIDTH, Table, render, said_once

Chosen = Annotated[
    str | None, typer.Option("--backends", help=f"Comma-separated. [default: {','.join(DEFAULT_BACKENDS)}]")
]
Device = Literal["auto", "cpu", "gpu"]
Precision = Literal["float64", "float32", "tf32", "bfloat16"]
Modes = Annotated[
    list[str] | None,
    typer.Option(help="BACKEND=MODE, repeatable; several modes of a backend alternate. [default: its usual one]"),
]
Seed = Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of weights, order and noise.")]
Interpreters = Annotated[
    list[str] | None, typer.Option(help="BACKEND=INTERPRETER, repeatable: the Python that has its framework.")
]
Output = Annotated[Path | None, typer.Option(help="Folder for what is made. [default: a new one in results/runs]")]
Folders = Annotated[list[Path] | None, typer.Argument(help="Records, or folders of records. [default: results]")]


Made = TypeVar("Made")


def say(message: str) -> None:
    """Print one line on standard error, without what would steer the terminal."""
    errors.print(printable(message), soft_wrap=True, highlight=False, markup=False)


@contextmanager
def interruptible() -> Iterator[None]:
    """An interruption ends the command with a word on what is kept."""
    try:
        yield
    except KeyboardInterrupt:  # typer would end with the same code, and say nothing
        say("nice-bench: interrupted; what was measured until then is kept")
        raise typer.Exit(130) from None


def measured(measure: Callable[[LiveProgress], Made]) -> Made:
    """The records of a run or a sweep, with live progress."""
    with interruptible(), LiveProgress() as progress:
        return measure(progress)


def refuse_failures(made: list[records.Record], *, asked: bool) -> None:
    """A backend that failed is an error; one that isn't there only if it was asked for, or if none is."""
    absent = [record for record in made if record.status == "unavailable"]
    failed = [record for record in made if record.status not in ("ok", "unavailable")]
    if failed or (absent and asked) or len(absent) == len(made):
        raise BenchError("; ".join(f"{r.plan.backend}: {r.status}: {r.reason}" for r in [*failed, *absent]))


def loaded_records(folders: list[Path] | None, skipped: list[RecordError] | None = None) -> list[records.Record]:
    """Read the records that are named, or those in `results`; a file that is no valid record is named and left out.

    Its error is added to the list `skipped`. Raises BenchError where no record is left.
    """
    where: list[Path] = folders or [Path("results")]
    skipped = [] if skipped is None else skipped
    loaded = collection.load_all(where, skipped)
    if not loaded and skipped:
        raise BenchError(f"{skipped[0]}{f' (and {len(skipped) - 1} more files)' if len(skipped) > 1 else ''}")
    if not loaded:
        runs = Path("results/runs")
        there = not folders and runs.is_dir() and collection.load_all(runs, [])
        advice = f"name the folder of a run, or {runs} for all runs" if there else "`nice-bench run` makes some"
        raise BenchError(f"no records in {', '.join(map(str, where))}; {advice}")
    for error in skipped:
        say(f"nice-bench: left out: {error}")
    return loaded


def folder(output: Path | None, kind: str) -> Path:
    """Return the folder that is named, or a new one called after the time and the kind of run."""
    return output or Path("results/runs", f"{time.strftime('%Y%m%d-%H%M%S')}-{kind}")


def say_which(made: list[records.Record], there: list[records.Record]) -> None:
    """Say which records were shown, where the folder holds others than the run has made."""
    if len(there) > len(made):
        typer.echo(f"\nAbove: the {len(made)} records of this run; in the files: all {len(there)} in its folder.")


def columns() -> int:
    """The columns that printed tables may have: the terminal's, if there is one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH


def show(made: Sequence[Table] | Table, style: str = "text") -> None:
    """Print tables; as text, what two captions in a row say is in the first alone."""
    several = [made] if isinstance(made, Table) else made
    typer.echo(render(said_once(several) if style == "text" else several, style, columns()))


def on_command_line(context: typer.Context) -> set[str]:
    """The names of the parameters that the command line gives, rather than a default."""
    return {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}


def device_counts(given: str, batch: int | None, nodes: int = 1) -> list[int]:
    """The numbers of devices in an option, each once; each must divide the batch, if there is one.

    They are those of all nodes together, which have as many each; a single device is the first node's.
    """
    names = listed([given])
    if not names or not all(name.isdecimal() and int(name) > 0 for name in names):
        raise BenchError(f"--devices {given!r}: expected numbers from 1 up, with commas between")
    counts = list(dict.fromkeys(int(name) for name in names))
    if uneven := [count for count in counts if batch and batch % count]:
        raise BenchError(f"--devices {given}: {uneven[0]} devices can't share a batch of {batch} evenly")
    if uneven := [count for count in counts if count > 1 and count % nodes]:
        raise BenchError(f"--devices {given}: {nodes} nodes can't have as many each of {uneven[0]} devices")
    return counts


def backend_names(chosen: str | None) -> list[str]:
    """The backends of --backends, each once; without it the usual ones."""
    if chosen is None:
        return list(DEFAULT_BACKENDS)
    return among("--backends", chosen, backends.REGISTRY)


def among(option: str, given: str, known: Collection[str]) -> list[str]:
    """The names in an option that takes commas, each once, all of which must be `known`."""
    names = listed([given])
    if not names or not set(names) <= set(known):
        raise BenchError(f"{option} {given!r}: expected some of {', '.join(known)}, with commas between")
    return list(dict.fromkeys(names))


def modes_of(given: list[str] | None, chosen: Collection[str]) -> dict[str, list[str]]:
    """What the --mode options say, by backend: each mode once; of backends that are `chosen`."""
    found: dict[str, list[str]] = {}
    for entry in given or []:
        for name, modes in pairs([entry], "--mode").items():
            if name not in chosen:
                raise BenchError(
                    f"--mode {entry!r}: {name} is not among the backends that are run: {', '.join(chosen)}"
                )
            found[name] = list(dict.fromkeys([*found.get(name, []), *listed([modes])]))
    return found


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """What BACKEND=VALUE says, by backend; `option` is the option's name, for the error."""
    found: dict[str, str] = {}
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
    found: dict[str, list[int]] = {}
    for entry in given or []:
        axis, _, numbers = entry.partition("=")
        each = listed([numbers])
        if not each or not all(number.isdecimal() and 0 < int(number) <= MOST_COUNTED for number in each):
            raise BenchError(f"--values {entry!r}: expected AXIS=N,N,… with positive integers")
        found[axis] = list(dict.fromkeys([*found.get(axis, []), *map(int, each)]))
    return found
