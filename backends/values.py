"""The plain values that go in and out of a backend: pixels, an epoch's inputs, training states, reports."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends.parameters import Parameters


@dataclass(frozen=True)
class Nodes:
    """The machines that train together, each with as many devices.

    Attributes:
        addresses: "host:port" of each, of which a framework uses the first or all.
        rank: on which of them this process is.
    """

    addresses: tuple[str, ...] = ("127.0.0.1:0",)
    rank: int = 0

    @property
    def several(self) -> bool:
        """Whether there are more than this one."""
        return len(self.addresses) > 1


THIS_NODE = Nodes()


@dataclass(frozen=True)
class Pixels:
    """How a byte of an image becomes a coordinate of x: x = scale · byte + noise · u, with u in (0, 1)."""

    scale: float
    noise: float = 0.0


@dataclass(frozen=True)
class EpochInputs:
    """What one epoch needs from outside.

    Attributes:
        order: int32 [steps, batch], which images each step sees.
        noise: uint16 [steps, batch, D] words k, for u = (k + ½) / 2¹⁶; None where the pixels take no noise.
    """

    order: NDArray[np.int32]
    noise: NDArray[np.uint16] | None


class Stream(Protocol):
    """Where the order of the examples and the noise come from; the same bits for every backend."""

    @property
    def examples(self) -> int:
        """Size N of the training set."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""

    @property
    def pixels(self) -> Pixels:
        """How bytes and noise become x."""

    def epoch(self, epoch: int) -> EpochInputs:
        """Inputs of one epoch, counted from 1."""


@dataclass(frozen=True)
class TrainingState:
    """All that training needs to go on as if it had not stopped, in any backend.

    Attributes:
        parameters: canonical parameters, in the dtype that the backend holds them in.
        moments: name of the moment → canonical name → array; empty before the first step.
        step: how many steps have been made.
    """

    parameters: Parameters
    moments: dict[str, Parameters] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True)
class EpochReport:
    """One epoch of training.

    Attributes:
        epoch: counted from 1, over all of the model's training.
        losses: float64 [steps], mean over the batch of −log p, in nats, before each step's update.
        seconds: wall-clock time of the epoch, synchronised at both ends, without the first call.
        first_call_seconds: what came before the first epoch: tracing, compilation, capture; else 0.
        wait_seconds: part of `seconds` in which nothing ran since the epoch's inputs weren't ready.
    """

    epoch: int
    losses: NDArray[np.float64]
    seconds: float
    first_call_seconds: float
    wait_seconds: float
