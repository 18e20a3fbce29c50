"""Protocols: what a run does, as a TOML file that is checked before anything starts; and the points of a sweep."""

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backends import Adam, AdamW, Architecture, ArchitectureError, Optimiser, Pixels
from bench.errors import BenchError, explain
from bench.inputs.streams import Kernels, LogScale, Permutations, patterns
from bench.records.fields import digest_of


class ProtocolError(BenchError):
    """A protocol that can't be used; the message names the file, the key, what was found and what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(_Section):
    """Which images. The training set is the first `train` of them; `select` is what is evaluated each epoch."""

    dataset: Literal["mnist", "mnist-subset"]
    train: int = Field(gt=0)
    select: Literal["test", "validation"] = "test"
    validation: int = Field(default=0, ge=0, description="how many of the training images' last ones are set apart")


class PixelRule(_Section):
    """x = byte / divisor + noise · u: `training_noise` in training, `evaluation_noise` in the reported test loss."""

    divisor: float = Field(gt=0)
    training_noise: float = 0.0
    evaluation_noise: float = 0.0


class ArchitectureRule(_Section):
    """A named architecture and what differs from it."""

    preset: Literal["article", "paper"]
    dim: int | None = None
    couplings: int | None = None
    hidden_layers: int | None = None
    hidden_units: int | None = None
    reorder: str | None = None
    permutation: str | None = None
    permute: str | None = None
    split: str | None = None
    sign: str | None = None
    output: str | None = None
    prior: str | None = None


class Initial(_Section):
    """The initial weights; see `streams.initial_parameters`."""

    kernels: Kernels
    log_scale: LogScale
    permutations: Permutations = "shuffled"


class Training(_Section):
    """Batches, epochs, rounds; `loss` is how losses are reported: "article" leaves ½ D log 2π out.

    The target is reached in the first epoch whose loss, of training or of what is selected on, isn't above it. An epoch
    is made in `parts` of equally many steps, which rounds divide among them as they do epochs.
    """

    batch: int = Field(gt=0)
    epochs: int = Field(gt=0)
    parts: int = Field(default=1, gt=0)
    rounds: int = Field(default=1, gt=0)
    loss: Literal["article", "nll"]
    target_loss: float | None = None
    target_of: Literal["training", "selection"] = "training"
    keep: Literal["last", "best"] = "last"


class Measure(_Section):
    """What is measured beside training, and on how much."""

    dequantisation_draws: int = Field(default=5, gt=1)
    temperature: float = Field(default=1.0, ge=0)
    sampling_batches: list[Annotated[int, Field(gt=0)]] = Field(default=[1, 16, 256, 4096], min_length=1)
    likelihood_batch: int = Field(default=2000, gt=0)
    seconds_per_timing: float = Field(default=2.0, gt=0)
    longest_call_seconds: float = Field(default=3.0, gt=0)
    invertibility_images: int = Field(default=256, gt=0)
    agreement_images: int = Field(default=64, gt=0)
    agreement_steps: int = Field(default=3, gt=0)


ADDED_LATER = (
    ("initial", "permutations", "shuffled"),
    ("training", "target_of", "training"),
    ("training", "parts", 1),
)
"""Section, key and default of what protocols didn't have when the first records were made: their digests still hold."""


class Protocol(_Section):
    """What is trained and measured, on what."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    caption: str
    source: str
    data: Data
    pixels: PixelRule
    architecture: ArchitectureRule
    initial: Initial
    optimiser: Optimiser = Field(discriminator="name")
    training: Training
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            architecture = self.make_architecture()
            if self.initial.permutations == "patterns":
                patterns(architecture)
        except ArchitectureError as error:
            raise ValueError(str(error)) from error
        if self.training.batch > self.data.train:
            raise ValueError(f"training.batch is {self.training.batch}; expected at most data.train, {self.data.train}")
        rule = self.training
        if rule.rounds > rule.epochs * rule.parts:
            raise ValueError(f"training.rounds is {rule.rounds}; expected at most training.epochs times training.parts")
        if (steps := self.data.train // rule.batch) % rule.parts:
            raise ValueError(f"training.parts is {rule.parts}; expected a divisor of the {steps} steps of an epoch")
        if rule.parts > 1 and not isinstance(self.optimiser, Adam):
            raise ValueError("training.parts: expected 1 with an optimiser whose schedule goes by epochs")
        if self.initial.kernels == "he_normal" and architecture.output != "linear":
            raise ValueError(
                f"architecture.output is {architecture.output!r}; expected 'linear' with initial.kernels 'he_normal': "
                "last layers begin at 0, where ReLU passes no gradient on"
            )
        if self.initial.log_scale == "data" and (self.initial.kernels != "he_normal" or not self.pixels.training_noise):
            raise ValueError(
                "initial.log_scale is 'data'; expected initial.kernels 'he_normal', so that latents begin as pixels, "
                "and pixels.training_noise, so that each of them varies"
            )
        if rule.loss == "nll" and rule.target_loss is not None and rule.target_of == "training":
            raise ValueError("training.target_of is 'training'; expected 'selection' where the loss is a likelihood's")
        if self.data.select == "validation" and not self.data.validation:
            raise ValueError("data.validation is 0; expected a number of images, since data.select is 'validation'")
        return self

    def make_architecture(self) -> Architecture:
        """Return the architecture: the preset with what differs."""
        preset = Architecture.article() if self.architecture.preset == "article" else Architecture.paper()
        differing = self.architecture.model_dump(exclude={"preset"}, exclude_none=True)
        return Architecture.from_dict(preset.to_dict() | differing)

    def make_optimiser(self) -> Optimiser:
        """The optimiser; AdamW's learning rate is 0 at the end of training where the protocol doesn't say when."""
        chosen = self.optimiser
        if isinstance(chosen, AdamW) and chosen.epochs is None:
            return replace(chosen, epochs=self.training.epochs)
        return chosen

    def training_pixels(self) -> Pixels:
        """Return how bytes become x in training."""
        return Pixels(1 / self.pixels.divisor, self.pixels.training_noise)

    def evaluation_pixels(self) -> Pixels:
        """Return how bytes become x where the protocol's own test loss is evaluated."""
        return Pixels(1 / self.pixels.divisor, self.pixels.evaluation_noise)

    def digest(self) -> str:
        """Return the SHA-256 of the protocol; keys of `ADDED_LATER` are part of it where they are used."""
        entries = self.model_dump()
        for section, key, default in ADDED_LATER:
            if entries[section][key] == default:
                del entries[section][key]
        if entries["optimiser"].get("epochs", 0) is None:
            del entries["optimiser"]["epochs"]
        return digest_of(entries)


def names() -> list[str]:
    """Return the protocols that come with the package."""
    return sorted(Path(str(p)).stem for p in resources.files("bench.inputs").joinpath("protocols").iterdir())


def load(name_or_path: str, **overrides: Any) -> Protocol:
    """Read a protocol by its name, or by a path that ends in .toml.

    What it leaves out, but its name and caption, is as in the protocol that it names as its `base`.

    Overrides are dotted keys with `__` for the dot (training__epochs=3); None leaves the file's value.

    Raises:
        ProtocolError: no such protocol, not TOML, an unknown key or a bad value.
    """
    entries = _entries(name_or_path)
    for key, value in overrides.items():
        if value is not None:
            section, _, entry = key.partition("__")
            if isinstance(entries.setdefault(section, {}), dict):  # else `validate` says what is wrong with it
                entries[section][entry] = value
    return validate(entries, source=name_or_path)


def _entries(name_or_path: str) -> dict[str, Any]:
    """What a protocol's file says, and what it leaves out as its base has it."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise ProtocolError(f"{path}: no such file; protocols that come with nice-bench: {', '.join(names())}")
        content = path.read_bytes()
    elif name_or_path in names():
        content = resources.files("bench.inputs").joinpath("protocols", f"{name_or_path}.toml").read_bytes()
    else:
        raise ProtocolError(f"protocol {name_or_path!r}: expected one of {', '.join(names())}, or a .toml file")
    try:
        entries = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{name_or_path}: not TOML ({error})") from error
    if "base" not in entries:
        return entries
    if (base := entries.pop("base")) not in names():
        raise ProtocolError(f"{name_or_path}: base is {base!r}; expected one of {', '.join(names())}")
    whole = _entries(base)
    del whole["name"], whole["caption"]  # which say what is its own
    for section, its in entries.items():
        usual = whole.get(section)
        if isinstance(its, dict) and isinstance(usual, dict):
            if its.get("name", usual.get("name")) != usual.get("name"):  # another optimiser, whose settings are its own
                usual = {}
            if its.get("loss", usual.get("loss")) != usual.get(
                "loss"
            ):  # another loss, of which the target says nothing
                usual = {key: value for key, value in usual.items() if key not in ("target_loss", "target_of")}
            its = {**usual, **its}
        whole[section] = its
    return whole


def validate(entries: Any, *, source: str) -> Protocol:
    """Check a protocol's entries.

    Raises:
        ProtocolError: an unknown key or a bad value, all of them in one message.
    """
    try:
        return Protocol.model_validate(entries)
    except ValidationError as error:
        raise ProtocolError(f"{source}: {explain(error, Protocol)}") from error


# Of sweeps: which operations are timed, over which sizes

Axis = Literal["batch", "width", "depth", "couplings"]
Operation = Literal["log_prob", "sample", "train"]

AXES: tuple[Axis, ...] = get_args(Axis)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Point(_Section):
    """One point of a sweep: an operation, with one size of the protocol's network or batch in place of its own."""

    axis: Axis
    value: int = Field(gt=0)
    operation: Operation
