"""References of the regression check: what a loss was, and how far two good runs may lie apart.

A file under results/references for each protocol, device and precision, made by `nice-bench check --update` from
records and by nothing else: its digest says whether it has been edited since. Its kind tells it apart from a record.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bench import records
from bench.errors import BenchError, explain, writing
from bench.records import Record, environment
from bench.records.fields import digest_of

FOLDER = Path("results/references")


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Made(_Value):
    """Who made it: when, on which machines (as `environment.machine` calls them), with what, from which code."""

    created: str
    machines: list[str]
    python: list[str]
    packages: dict[str, list[str]]
    commits: list[str]
    records: int


class Speed(_Value):
    """How fast one backend was on so many cores: ratios of an epoch's time, one of each run; see `check_speed`."""

    backend: str
    cores: int
    floor: list[float] = Field(default_factory=list)
    calibration: list[float] = Field(default_factory=list)


class _Reference(_Value):
    schema_version: Literal[1] = 1
    kind: Literal["reference"] = "reference"
    protocol: str
    protocol_digest: str
    device: str
    precision: str
    data: str
    made: Made
    speed: list[Speed]
    note: str


class Trajectory(_Reference):
    """The loss of each step by NumPy in float64, and how far from it the backends were.

    Attributes:
        seed: of weights, order and noise.
        initial_parameters: digest of the weights that it starts from.
        arms: the runs that the spread is of; called so in the files.
        losses: nats, as the protocol reports them.
        spread: the largest distance from `losses` that any of them had reached up to a step, nats; see `trajectory`.
        factor: how many times the spread is allowed.
        later_losses, later_spread: the same of the mean loss of each epoch after the first, whose steps aren't kept;
            empty in references of before they were judged.
    """

    check: Literal["trajectory"] = "trajectory"
    seed: int
    initial_parameters: str
    arms: list[str]
    factor: float
    losses: list[float]
    spread: list[float]
    later_losses: list[float] = Field(default_factory=list)
    later_spread: list[float] = Field(default_factory=list)


class Convergence(_Reference):
    """Losses of several seeds at some epochs.

    Attributes:
        seeds: in the order of the losses.
        checkpoints: epochs.
        false_alarms: the probability that a set of good runs is found outside, all comparisons together.
        margin: nats; what two backends may differ by and be called equal.
        losses: backend → "train_loss" or "test_loss" → a list a checkpoint, with a loss for each seed, nats.
    """

    check: Literal["convergence"] = "convergence"
    seeds: list[int]
    checkpoints: list[int]
    false_alarms: float
    margin: float
    losses: dict[str, dict[str, list[list[float]]]]


Reference = Trajectory | Convergence
REFERENCE: TypeAdapter[Reference] = TypeAdapter(Annotated[Reference, Field(discriminator="check")])


def name_of(protocol: str, device: str, precision: str) -> str:
    """The name of a reference's file."""
    return f"{protocol}-{device}-{precision}.json"


def made_of(runs: Iterable[Record]) -> Made:
    """Who made these records."""
    environments = [(run.environment, run.plan.device) for run in runs]
    packages: dict[str, set[str]] = {}
    for found, _ in environments:
        for name, version in found.get("packages", {}).items():
            packages.setdefault(name, set()).add(version)
    commits = {
        f"{git['commit']}{', edited' if git['dirty'] else ''}" for found, _ in environments if (git := found.get("git"))
    }
    return Made(
        created=records.now(),
        machines=sorted({environment.machine(device, found) for found, device in environments}),
        python=sorted({str(found.get("python")) for found, _ in environments}),
        packages={name: sorted(versions) for name, versions in sorted(packages.items())},
        commits=sorted(commits),
        records=len(environments),
    )


def save(reference: Reference, folder: Path) -> Path:
    """Write a reference with the digest of its content; the one that was there is replaced.

    Raises:
        BenchError: the file can't be written.
    """
    content = reference.model_dump()
    path = folder / name_of(reference.protocol, reference.device, reference.precision)
    text = records.layout(content | {"sha256": digest_of(content)}) + "\n"
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def load(path: Path) -> Reference:
    """Read a reference.

    Raises:
        BenchError: no such file, no reference, or one that was edited.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: no reference: {error.strerror}; `nice-bench check --update` makes it") from error
    except ValueError as error:
        raise BenchError(f"{path}: not a reference: expected JSON ({error})") from error
    if not isinstance(content, dict) or content.get("kind") != "reference":
        raise BenchError(f"{path}: not a reference: expected an object of kind 'reference'")
    digest = content.pop("sha256", None)
    if digest != digest_of(content):
        raise BenchError(f"{path}: edited since it was made; `nice-bench check --update` makes it anew")
    try:
        return REFERENCE.validate_json(json.dumps(content))
    except ValidationError as error:
        raise BenchError(f"{path}: {explain(error)}; `nice-bench check --update` makes it anew") from error
