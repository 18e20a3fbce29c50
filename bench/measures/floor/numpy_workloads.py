"""The workloads of a floor in NumPy: products, a chain of them, and memory that is moved."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backends import Backend
from bench.measures.floor import chain, sizes


def products(model: Backend, shapes: Sequence[tuple[int, int, int]]) -> Callable[[], Any]:
    """Return a call that makes products of the shapes (m, k, n), each on operands of its own."""
    operands = [(np.full((m, k), 0.5, model.dtype), np.full((k, n), 0.5, model.dtype)) for m, k, n in shapes]
    return lambda: [a @ b for a, b in operands]


def chained(model: Backend, batch: int) -> Callable[[], Any]:
    """Return a call that makes the products of a training step as a chain."""
    kernels = [np.full(size, 1 / size[0], model.dtype) for size in sizes(model.architecture)]
    x = np.full((batch, model.architecture.half), 0.5, model.dtype)
    return lambda: chain(x, kernels, np.matmul, np.transpose)


def memory(model: Backend, size: int) -> Callable[[], Any]:
    """Return a call that moves 2 · `size` bytes, adding to float32 numbers in place."""
    numbers = np.zeros(size // 4, np.float32)
    return lambda: np.add(numbers, np.float32(1), out=numbers)
