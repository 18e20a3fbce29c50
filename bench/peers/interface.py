"""The interface that every peer implements, and the flow in the form in which most libraries can hold it.

The article reverses all dimensions before each coupling and splits them into even and odd ones. Most libraries couple
halves instead, or take a mask. The two differ in the order of dimensions alone, so the columns of x are put in order
once, as data, and the canonical weights with them; nothing is left out of the work, and log p is the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends import Adam, Architecture
from backends.architecture import Index, bias_name, kernel_name
from backends.layout import make_layout, to_layout
from bench.errors import BenchError

Dense = tuple[NDArray, NDArray]
"""A dense layer: kernel [in, out] and bias [out]."""


class InexpressibleError(BenchError):
    """A library's building blocks can't make this network; the message says what is missing."""


@dataclass(frozen=True)
class Halves:
    """The article's flow on two halves of the dimensions, concat(a, b).

    Coupling k reads a and changes b where k is even, and the other way round where it is odd: changed − m(read).

    Attributes:
        entry: [D] positions in x of the dimensions of concat(a, b).
        networks: for each coupling the dense layers of its m, all followed by ReLU, the last one too.
        log_scale: [D], z = concat(a, b) · exp(log_scale) after the last coupling.
    """

    entry: Index
    networks: tuple[tuple[Dense, ...], ...]
    log_scale: NDArray

    @property
    def dim(self) -> int:
        """D."""
        return len(self.entry)

    @property
    def hidden_units(self) -> list[int]:
        """Width of each hidden layer of an m."""
        return [len(bias) for _, bias in self.networks[0][:-1]]


def halves(architecture: Architecture, parameters: Mapping[str, NDArray]) -> Halves:
    """The flow on halves.

    Args:
        architecture: of the article, of any size.
        parameters: canonical.

    Raises:
        InexpressibleError: an option of the architecture isn't the article's.
    """
    check_article(architecture)
    layout = make_layout(architecture, parameters)
    arrays = to_layout(architecture, layout, parameters)
    layers = range(architecture.hidden_layers + 1)
    networks = tuple(
        tuple((arrays[kernel_name(k, i)], arrays[bias_name(k, i)]) for i in layers)
        for k in range(architecture.couplings)
    )
    return Halves(layout.entry, networks, arrays["log_scale"])


def check_article(architecture: Architecture) -> None:
    """Refuse an architecture that differs from the article's in more than size.

    Raises:
        InexpressibleError: it does; the message names the field.
    """
    sizes = ("dim", "couplings", "hidden_layers", "hidden_units")
    expected = Architecture.article().to_dict()
    for name, value in architecture.to_dict().items():
        if name not in sizes and value != expected[name]:
            raise InexpressibleError(f"peers: {name} is {value!r}; they are written for {expected[name]!r} only")


class Peer(ABC):
    """A NICE flow in some library, and its training, as the library's documentation shows it.

    The library is imported here: making an instance raises ImportError where it is missing. The device is the one that
    the framework sees.
    """

    @abstractmethod
    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        """Build the flow with these canonical float32 weights, and its optimiser.

        Raises:
            InexpressibleError: the library can't make this network.
        """

    @abstractmethod
    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        """log p(x) in nats, [B, D] → [B]."""

    @abstractmethod
    def arrays(self) -> Iterable[NDArray]:
        """What is trained: the weights given, each with its numbers in any order and with any sign, until it moves."""

    @abstractmethod
    def load(self, batches: NDArray[np.float32]) -> None:
        """Take the batches [K, B, D] of `train`, and put them where the library's users would have them."""

    @abstractmethod
    def train(self) -> None:
        """Make a training step on each of the batches, and return when the device has made the last one."""
