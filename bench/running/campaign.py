"""Campaigns: the commands that a whole comparison takes, in order of worth, as one command that can be cut off.

A campaign is a TOML file of steps, each a `nice-bench` command and the folder for what it makes. What is done is noted
after every step, so that the next call goes on where this one ended: a machine that is lent by the hour, or ten minutes
at a time, gets through it nevertheless. What was cut off or failed is done again when nothing else is left.

A step works in a folder of its own below `runs`, which tables and reports leave out. Its records, not the weights and
traces, are copied from there to where they are kept once it has ended; one that was cut off and is begun again thus
leaves no failed record beside the good one, and what it had measured until then can still be found.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench.errors import BenchError, explain
from bench.records import slug

COMMANDS = ("run", "agree", "sweep", "peers", "profile")
"""Those that take --device and --output."""

STATE = "campaign.state"
ATTEMPTS = "runs"
WEIGHTS = ".safetensors"
GRACE_SECONDS = 30.0
"""For an interrupted command to write what it has measured."""


class Step(BaseModel):
    """One command.

    Attributes:
        name: unique within the campaign.
        folder: below the campaign's output, for what is kept; several steps may share one.
        command: arguments of `nice-bench`, without --device and --output.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    folder: str = Field(pattern=r"^[\w\-]+$")
    command: tuple[str, ...] = Field(min_length=1)

    @field_validator("command")
    @classmethod
    def _known(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command[0] not in COMMANDS:
            raise ValueError(f"begins with {command[0]!r}; expected one of {', '.join(COMMANDS)}")
        return command


class Campaign(BaseModel):
    """What to do, the most worthwhile first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["cpu", "gpu"]
    step: tuple[Step, ...] = Field(min_length=1)

    @field_validator("step")
    @classmethod
    def _unique(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        names = [step.name for step in steps]
        if len(set(names)) < len(names):
            raise ValueError(f"names are not unique: {', '.join(names)}")
        return steps


class Outcome(BaseModel):
    """How a step ended; one that was cut off is begun again."""

    status: Literal["done", "failed", "cut off"]
    command: tuple[str, ...]
    exit_code: int | None = None
    seconds: float


class State(BaseModel):
    """What has been done, by the names of the steps."""

    steps: dict[str, Outcome] = {}


def names() -> list[str]:
    """The campaigns that come with the package."""
    folder = resources.files("bench.running") / "campaigns"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name: str) -> Campaign:
    """Read a campaign: one that comes with the package, or a .toml file.

    Raises:
        BenchError: there is none, or it isn't one.
    """
    packaged = resources.files("bench.running") / "campaigns" / f"{name}.toml"
    path = Path(name) if name.endswith(".toml") else packaged
    if not path.is_file():
        raise BenchError(f"campaign {name!r}: expected one of {', '.join(names())}, or a .toml file")
    try:
        return Campaign.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"campaign {name}: no TOML ({error})") from error
    except ValidationError as error:
        raise BenchError(f"campaign {name}: {explain(error, Campaign)}") from error


def carry_out(
    campaign: Campaign,
    output: Path,
    budget: float,
    tell: Callable[[str], None],
    interpreters: Sequence[str] = (),
    program: Sequence[str] = (sys.executable, "-m", "bench"),
) -> State:
    """Do what has not been done yet, for as long as the budget lasts.

    Args:
        campaign: what to do.
        output: folder for everything; its `campaign.state` says what has been done. A record that lies there under the
            name of a new one is replaced.
        budget: seconds; a command that is still at work then is interrupted.
        tell: told what begins and how it ended.
        interpreters: BACKEND=INTERPRETER, for commands that take them.
        program: what the commands are arguments of.

    Raises:
        BenchError: the folder can't be written, or holds something else under that name.
    """
    state, deadline = _read(output), time.monotonic() + budget
    for step in _in_turn(campaign, state):
        if time.monotonic() >= deadline:
            break
        attempt = _new_folder(output / ATTEMPTS, slug(step.name))
        command = _command(step, campaign, attempt, interpreters)
        tell(f"{step.name}: {' '.join(command)}")
        start = time.monotonic()
        code = _run([*program, *command], deadline)
        seconds = time.monotonic() - start
        if code is not None:
            _keep(attempt, output / step.folder)
        status: Literal["done", "failed", "cut off"] = "cut off" if code is None else "done" if code == 0 else "failed"
        state.steps[step.name] = Outcome(status=status, command=step.command, exit_code=code, seconds=seconds)
        _write(state, output)
        tell(f"{step.name}: {status} after {seconds:.0f} s")
    return state


def _in_turn(campaign: Campaign, state: State) -> list[Step]:
    """The steps to do: those that were not begun, then those that were cut off or failed, lest one keep all others."""
    ends = [(step, _outcome(step, state)) for step in campaign.step]
    again = [step for step, end in ends if end is not None and end.status != "done"]
    return [*(step for step, end in ends if end is None), *again]


def remaining(campaign: Campaign, state: State) -> dict[str, str]:
    """Steps that are not done, and how it stands with them."""
    told = {step.name: "not begun" if (end := _outcome(step, state)) is None else end.status for step in campaign.step}
    return {name: status for name, status in told.items() if status != "done"}


def _outcome(step: Step, state: State) -> Outcome | None:
    """How a step ended, if it was this very command that did."""
    end = state.steps.get(step.name)
    return end if end is not None and end.command == step.command else None


def _new_folder(parent: Path, name: str) -> Path:
    """A folder below `parent` that isn't there yet: NAME, else NAME-2, and so on."""
    number = 1
    while (folder := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def _keep(attempt: Path, folder: Path) -> None:
    """Copy what a step made to where it is kept: its files, not those in subfolders, and no weights."""
    made = sorted(attempt.iterdir()) if attempt.is_dir() else []
    for path in made:
        if path.is_file() and path.suffix != WEIGHTS:
            folder.mkdir(parents=True, exist_ok=True)
            beside = folder / f".{path.name}.new"  # whole or not at all, should the disk be full or this process end
            shutil.copy2(path, beside)
            beside.replace(folder / path.name)


def _command(step: Step, campaign: Campaign, output: Path, interpreters: Sequence[str]) -> list[str]:
    chosen = [part for given in interpreters for part in ("--python", given)] if step.command[0] != "agree" else []
    return [*step.command, *chosen, "--device", campaign.device, "--output", str(output)]


def _run(command: Sequence[str], deadline: float) -> int | None:
    """The exit code of a command, or None if it was interrupted at the deadline."""
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(process)
        return None
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):  # Ctrl-C tells it too; a signal to this process alone does not
            process.wait(timeout=GRACE_SECONDS)
        _end(process)
        raise


def _end(process: subprocess.Popen) -> None:
    """Ask a process to end, if it hasn't yet, and make it."""
    process.terminate()
    try:
        process.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(output: Path) -> State:
    path = output / STATE
    try:
        output.mkdir(parents=True, exist_ok=True)
        return State.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else State()
    except OSError as error:
        raise BenchError(f"{output}: can't be used ({error.strerror})") from error
    except ValidationError as error:
        raise BenchError(f"{path}: not the state of a campaign; choose another --output") from error


def _write(state: State, output: Path) -> None:
    path = output / STATE
    beside = path.with_suffix(".new")
    beside.write_text(state.model_dump_json(indent=1), encoding="utf-8")
    beside.replace(path)
