"""Campaigns: the commands that a whole comparison takes, the most worthwhile first, in one TOML file.

A campaign is a list of steps, each a `nice-bench` command and the folder that its records are kept in.
`bench.running.engines` carries campaigns out.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import BenchError, explain

COMMANDS = ("run", "agree", "sweep", "peers", "profile")
"""Those that take --device and --output."""


class Strict(BaseModel):
    """What is read from a campaign's file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(Strict):
    """One command.

    Attributes:
        name: unique within the campaign.
        folder: below the campaign's output, for what is kept; several steps may share one.
        command: arguments of `nice-bench`, without --device and --output.
    """

    name: str = Field(min_length=1)
    folder: str = Field(pattern=r"^[\w\-]+$")
    command: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        """Refuse a command that is unknown."""
        name = self.command[0]
        if name not in COMMANDS:
            raise ValueError(f"the command begins with {name!r}; expected one of {', '.join(COMMANDS)}")
        return self


class Campaign(Strict):
    """What to do, the most worthwhile first."""

    device: Literal["cpu", "gpu"]
    step: tuple[Step, ...] = Field(min_length=1)

    @field_validator("step")
    @classmethod
    def _unique(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """Refuse names that occur twice."""
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
