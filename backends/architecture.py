"""The flow as a value: its sizes and options, the names and shapes of its parameters, its FLOPs and bytes.

No framework is imported here. Which pixels each coupling reads and writes is decided in `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.intp]


class ArchitectureError(ValueError):
    """A field of an `Architecture` has a value that it can't have; the message names the field."""


@dataclass(frozen=True)
class Architecture:
    """The architecture of a NICE flow (arXiv 1410.8516, section 3): additive couplings, then a diagonal scaling.

    Attributes:
        dim: number of dimensions D of x and z; even.
        couplings: number of additive couplings.
        hidden_layers: hidden layers of each coupling's network m.
        hidden_units: width of each hidden layer.
        reorder: "tile" puts the even dimensions first, then the odd ones, once, before the first coupling.
        permutation: of all dimensions, at each coupling; "shuffle" is a stored one, h ← h[:, permutation].
        permute: whether the permutation comes before or after each coupling.
        split: x₁, x₂ are the even and odd dimensions ("interleaved") or the first and second half.
        sign: the encoder's x₂ ← x₂ − m(x₁) or x₂ + m(x₁).
        output: activation of m's last layer.
        prior: density of z, per dimension, both with location 0 and scale 1.

    Raises:
        ArchitectureError: a field has a wrong type or value.
    """

    dim: int
    couplings: int
    hidden_layers: int
    hidden_units: int
    reorder: Literal["none", "tile"] = "none"
    permutation: Literal["reverse", "shuffle", "none"] = "reverse"
    permute: Literal["before", "after"] = "before"
    split: Literal["interleaved", "halves"] = "interleaved"
    sign: Literal["subtract", "add"] = "subtract"
    output: Literal["relu", "linear"] = "relu"
    prior: Literal["gaussian", "logistic"] = "gaussian"

    def __post_init__(self) -> None:
        hints = get_type_hints(Architecture)
        for field in fields(self):
            value, allowed = getattr(self, field.name), get_args(hints[field.name])
            if allowed:
                if not isinstance(value, str) or value not in allowed:
                    raise ArchitectureError(f"architecture: {field.name} is {value!r}; expected one of {allowed}")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArchitectureError(f"architecture: {field.name} is {value!r}; expected a positive integer")
        if self.dim % 2:
            raise ArchitectureError(f"architecture: dim is {self.dim}; expected an even number")

    @classmethod
    def article(cls) -> Architecture:
        """The network of the article of 2018-08-13, for MNIST."""
        return cls(dim=784, couplings=4, hidden_layers=5, hidden_units=1000)

    @classmethod
    def paper(cls) -> Architecture:
        """The network of arXiv 1410.8516, section 5.1, for MNIST, as its released configuration has it."""
        return cls(
            dim=784,
            couplings=4,
            hidden_layers=5,
            hidden_units=1000,
            reorder="tile",
            permute="after",
            split="halves",
            sign="add",
            output="linear",
            prior="logistic",
        )

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Architecture:
        """Make one from a mapping such as `to_dict` returns.

        Raises:
            ArchitectureError: an entry is unknown, missing or has a bad value.
        """
        known = [field.name for field in fields(cls)]
        for name in entries:
            if name not in known:
                raise ArchitectureError(f"architecture: unknown field {name!r}; expected some of {known}")
        for name in known[:4]:
            if name not in entries:
                raise ArchitectureError(f"architecture: {name} is missing")
        return cls(**entries)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as plain values."""
        return asdict(self)

    @property
    def half(self) -> int:
        """D/2, the number of inputs and outputs of each coupling's network."""
        return self.dim // 2

    @property
    def layer_sizes(self) -> list[tuple[int, int]]:
        """(in, out) of each dense layer of one coupling's network, first to last."""
        sizes = [self.half, *[self.hidden_units] * self.hidden_layers, self.half]
        return list(pairwise(sizes))

    @property
    def trainable_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of each trainable parameter, in canonical order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for k in range(self.couplings):
            for i, (n_in, n_out) in enumerate(self.layer_sizes):
                shapes[kernel_name(k, i)] = (n_in, n_out)
                shapes[bias_name(k, i)] = (n_out,)
        shapes["log_scale"] = (self.dim,)
        return shapes

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of each canonical parameter: the trainable ones, then the stored permutations."""
        shapes = self.trainable_shapes
        if self.permutation == "shuffle":
            shapes.update({permutation_name(k): (self.dim,) for k in range(self.couplings)})
        return shapes

    @property
    def trainable_count(self) -> int:
        """How many numbers are trained."""
        return sum(int(np.prod(shape)) for shape in self.trainable_shapes.values())

    def forward_products(self, batch: int) -> list[tuple[int, int, int]]:
        """(m, k, n) of each matrix product of one pass through the flow, either way: [m, k] × [k, n]."""
        return [(batch, n_in, n_out) for _ in range(self.couplings) for n_in, n_out in self.layer_sizes]

    def training_products(self, batch: int) -> list[tuple[int, int, int]]:
        """(m, k, n) of each product of a training step: the forward pass, each kernel's gradient, each input's.

        The gradient by the very first layer's input, the data, is not needed and not counted.
        """
        forward = self.forward_products(batch)
        kernels = [(n_in, batch, n_out) for _, n_in, n_out in forward]
        inputs = [(batch, n_out, n_in) for _, n_in, n_out in forward[1:]]
        return forward + kernels + inputs

    def training_bytes(self, itemsize: int, moments: int = 2) -> int:
        """Least bytes that a training step moves to and from memory, parameters alone.

        Kernels are read forward and backward and gradients written (3 ×); the optimiser reads parameter, gradient
        and moments and writes parameter and moments (3 + 2 · moments ×).
        """
        return (3 + 3 + 2 * moments) * self.trainable_count * itemsize

    def forward_bytes(self, batch: int, itemsize: int) -> int:
        """Least bytes that one pass moves: every parameter and the input read once, the output written once."""
        return (self.trainable_count + 2 * batch * self.dim) * itemsize


def flops(products: list[tuple[int, int, int]]) -> int:
    """Floating-point operations of matrix products: 2·m·k·n each."""
    return sum(2 * m * k * n for m, k, n in products)


def kernel_name(coupling: int, layer: int) -> str:
    """Canonical name of a dense kernel, shape [in, out]."""
    return f"coupling.{coupling}.dense.{layer}.kernel"


def bias_name(coupling: int, layer: int) -> str:
    """Canonical name of a dense bias, shape [out]."""
    return f"coupling.{coupling}.dense.{layer}.bias"


def permutation_name(coupling: int) -> str:
    """Canonical name of a stored permutation, shape [D], int32."""
    return f"coupling.{coupling}.permutation"
