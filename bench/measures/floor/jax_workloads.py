"""The workloads of a floor in JAX: products, a chain of them, memory that is moved, and gradients reduced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from backends import Backend
from backends.jax_backend import JaxBackend
from bench.measures.floor.chain import chain, sizes


def products(model: Backend, shapes: Sequence[tuple[int, int, int]]) -> Callable[[], Any]:
    """Return a call that makes products of the shapes (m, k, n), each on operands of its own."""
    operands = [[_full(model, shape, 0.5) for shape in ((m, k), (k, n))] for m, k, n in shapes]
    multiply = _multiply(model)
    run = jax.jit(lambda pairs: [multiply(a, b) for a, b in pairs])
    return lambda: run(operands)


def chained(model: Backend, batch: int) -> Callable[[], Any]:
    """Return a call that makes the products of a training step as a chain."""
    kernels = [_full(model, size, 1 / size[0]) for size in sizes(model.architecture)]
    x = _full(model, (batch, model.architecture.half), 0.5)
    run = jax.jit(lambda x, kernels: chain(x, kernels, _multiply(model), jnp.transpose))
    return lambda: run(x, kernels)


def memory(model: Backend, size: int) -> Callable[[], Any]:
    """Return a call that moves 2 · `size` bytes, adding to float32 numbers in place."""
    add = jax.jit(lambda numbers: numbers + 1, donate_argnums=0)
    numbers = jax.device_put(jnp.zeros(size // 4, jnp.float32), jax.local_devices(backend=model.device)[0])

    def call() -> Array:
        nonlocal numbers
        numbers = add(numbers)
        return numbers

    return call


@contextmanager
def reducing(model: JaxBackend, calls: int) -> Iterator[Callable[[], Any]]:
    """Within it, a call that sums a step's gradients, in one array, over the devices; it is made `calls` times."""
    ones = np.broadcast_to(np.ones((), model.dtype), (model.replicas, model.architecture.trainable_count))
    apart, whole = model.placed("batch", everywhere=True), model.placed(everywhere=True)
    gradients = jax.make_array_from_callback(ones.shape, apart, lambda index: ones[index])
    run = jax.jit(partial(jnp.sum, axis=0), out_shardings=whole)
    yield lambda: run(gradients)


def _multiply(model: Backend) -> Callable[[Array, Array], Array]:
    lower = model.precision in ("tf32", "bfloat16")
    return partial(jnp.matmul, precision=jax.lax.Precision.DEFAULT if lower else jax.lax.Precision.HIGHEST)


def _full(model: Backend, shape: tuple[int, int], value: float) -> Array:
    dtype = jnp.bfloat16 if model.precision == "bfloat16" else model.dtype
    return jax.device_put(jnp.full(shape, value, dtype), jax.local_devices(backend=model.device)[0])
