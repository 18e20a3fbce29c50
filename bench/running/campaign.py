"""Campaigns: the commands that a whole comparison takes, the most worthwhile first, in one TOML file.

A campaign is a list of steps, each a `nice-bench` command and the folder that its records are kept in. A step with a
matrix stands for one step for each combination of what is listed there. `bench.running.engines` carries campaigns out.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

import backends
from bench.errors import BenchError, explain
from bench.inputs import protocol
from bench.records.fields import MOST_SEED

COMMANDS = ("run", "agree", "sweep", "peers", "profile")
"""Those that take --device and --output."""

TIME = r"^(\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2})$"
"""SLURM's: minutes, minutes:seconds, hours:minutes:seconds, or days before hours."""

AXES = {
    "run": {"--protocol", "--precision", "--backends", "--mode", "--seed"},
    "sweep": {"--protocol", "--precision", "--backends", "--mode"},
    "profile": {"--protocol", "--precision", "--backends", "--mode"},
}
"""The options that a matrix can choose, by command."""

T = TypeVar("T")


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    """Refuse a value that is listed twice: its steps would have the same name."""
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ValueError(f"{twice[0]!r} is listed twice")
    return values


def _backend(name: str) -> str:
    """Refuse what is no backend."""
    if name not in backends.REGISTRY:
        raise ValueError(f"{name!r} is no backend; expected one of {', '.join(backends.REGISTRY)}")
    return name


def _protocol(name: str) -> str:
    """Refuse what is no protocol."""
    try:
        protocol.load(name)
    except BenchError as error:
        raise ValueError(str(error)) from error
    return name


Axis = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_each_once)]
Backend = Annotated[str, AfterValidator(_backend)]
Word = Annotated[str, Field(pattern=r"^\S+$")]


class Strict(BaseModel):
    """What is read from a campaign's file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Strict):
    """What a SLURM job asks for, under the names of `sbatch`'s options."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    partition: Word | None = None
    gres: Word | None = None
    time: Annotated[str, Field(pattern=TIME)] | None = None
    constraint: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    mem: Word | None = None
    cpus_per_task: Annotated[int, Field(gt=0)] | None = None
    exclusive: bool | None = None

    def over(self, other: Resources) -> Resources:
        """These and, where they say nothing, the other ones."""
        return Resources.model_validate(other._given() | self._given())

    def options(self) -> list[str]:
        """Arguments of `sbatch`."""
        given = self._given().items()
        return [f"--{key}" if value is True else f"--{key}={value}" for key, value in given if value is not False]

    def _given(self) -> dict[str, str | int]:
        """The resources that are asked for, by option."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Matrix(Strict):
    """What a command is repeated for: every combination of what is listed.

    Attributes:
        modes: of each backend; one that is not among them runs in its usual mode.
    """

    protocols: Axis[Annotated[str, AfterValidator(_protocol)]] | None = None
    precisions: Axis[Literal["float64", "float32", "tf32", "bfloat16"]] | None = None
    backends: Axis[Backend] | None = None
    modes: dict[Backend, Axis[Word]] = {}
    seeds: Axis[Annotated[int, Field(ge=0, le=MOST_SEED, strict=True)]] | None = None

    @model_validator(mode="after")
    def _modes_of_its_backends(self) -> Self:
        """Refuse modes of a backend that is not run."""
        for name in self.modes:
            if name not in (self.backends or ()):
                raise ValueError(f"it has modes of {name}, which is not among its backends")
        return self

    def combinations(self) -> list[dict[str, str]]:
        """The options of each combination; backends and modes vary fastest, since they are what is compared."""
        chosen = [
            {"--backends": name} | ({"--mode": f"{name}={mode}"} if mode else {})
            for name in self.backends or ()
            for mode in self.modes.get(name, ("",))
        ]
        axes: list[list[dict[str, str]]] = [
            [{"--protocol": name} for name in self.protocols or ()],
            [{"--precision": name} for name in self.precisions or ()],
            [{"--seed": str(seed)} for seed in self.seeds or ()],
            chosen,
        ]
        found = itertools.product(*[axis for axis in axes if axis])
        return [{key: value for part in parts for key, value in part.items()} for parts in found]


class Step(Strict):
    """One command, or with a matrix one for each combination.

    Attributes:
        name: unique within the campaign.
        folder: below the campaign's output, for what is kept; several steps may share one.
        command: arguments of `nice-bench`, without --device and --output.
        slurm: what its job asks for, in place of what all jobs of the campaign do.
    """

    name: str = Field(min_length=1)
    folder: str = Field(pattern=r"^[\w\-]+$")
    command: tuple[str, ...] = Field(min_length=1)
    matrix: Matrix | None = None
    slurm: Resources = Resources()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse a command that is unknown, or that the matrix does not go with."""
        name = self.command[0]
        if name not in COMMANDS:
            raise ValueError(f"the command begins with {name!r}; expected one of {', '.join(COMMANDS)}")
        given = {part.partition("=")[0] for part in self.command}
        if own := sorted(given & {"--device", "--output", "--resume"}):
            raise ValueError(f"{own[0]} is in the command; the campaign itself says that")
        for option in sorted({key for each in self.combinations() for key in each}):
            if option not in AXES.get(name, ()):
                raise ValueError(f"its matrix sets {option}, which `{name}` does not take from a matrix")
            if option in given:
                raise ValueError(f"{option} is in the command and in its matrix")
        return self

    def combinations(self) -> list[dict[str, str]]:
        """The options that its matrix adds to the command, for each step that it stands for."""
        return self.matrix.combinations() if self.matrix else [{}]

    def expanded(self) -> list[Step]:
        """The steps that it stands for; what the matrix chose follows in their names."""
        return [
            Step(
                name=", ".join([self.name, *(_label(*option) for option in options.items())]),
                folder=self.folder,
                command=(*self.command, *itertools.chain(*options.items())),
                slurm=self.slurm,
            )
            for options in self.combinations()
        ]


def _label(option: str, value: str) -> str:
    """How a choice reads in the name of a step."""
    return {"--seed": f"seed {value}", "--mode": value.partition("=")[2]}.get(option, value)


class Campaign(Strict):
    """What to do, the most worthwhile first; no step has a matrix any more.

    Attributes:
        slurm: what the job of every step asks for.
    """

    device: Literal["cpu", "gpu"]
    slurm: Resources = Resources()
    step: tuple[Step, ...] = Field(min_length=1)

    @field_validator("step")
    @classmethod
    def _expanded(cls, given: tuple[Step, ...]) -> tuple[Step, ...]:
        """Put what a matrix stands for in its place, and refuse names that occur twice."""
        steps = tuple(each for step in given for each in step.expanded())
        names = [step.name for step in steps]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"names are not unique: {'; '.join(sorted(twice))}")
        return steps


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


def resources_of(given: Sequence[str]) -> Resources:
    """What `--slurm KEY=VALUE` options ask for.

    Raises:
        BenchError: an unknown key or a bad value.
    """
    pairs = [entry.partition("=") for entry in given]
    for entry, (_, equals, _) in zip(given, pairs, strict=True):
        if not equals:
            raise BenchError(f"--slurm {entry!r}: expected KEY=VALUE")
    try:
        return Resources.model_validate({key: value for key, _, value in pairs})
    except ValidationError as error:
        raise BenchError(f"--slurm: {explain(error, Resources)}") from error
