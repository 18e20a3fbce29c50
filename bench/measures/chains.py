"""A pure chain of a training step's products, by hand in each framework, against which the floor is validated.

Forward through every coupling's layers one after the other, then backward: each kernel's gradient and each input's.
The shapes and their number are those of `Architecture.training_products`, no more and no less; there is no bias, no
ReLU, no coupling, no optimiser; kernels of 1/in keep the numbers of one size. Unlike the floor's products these wait
for each other, and half of the backward ones read a transposed operand. So a chain takes as long as the floor or a
little longer; one that is faster, or slower by more than a third, says that the floor's arithmetic is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends import Backend


def chain_workload(model: Backend, batch: int) -> Callable[[], Any] | None:
    """A call that runs the chain of one step on the model's device, in its precision; None for the reference."""
    sizes = [size for _ in range(model.architecture.couplings) for size in model.architecture.layer_sizes]
    make = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}.get(model.name)
    return None if make is None else make(model, sizes, batch)


def backward_and_forward(x: Any, kernels: list, multiply: Callable, transposed: Callable) -> list[Any]:
    """The kernels' gradients, last layer first; written once, since only the product differs between frameworks.

    Args:
        x: [batch, in] of the first layer.
        kernels: [in, out] each.
        multiply: the product of two arrays.
        transposed: an array the other way round.
    """
    h, inputs = x, []
    for kernel in kernels:
        inputs.append(h)
        h = multiply(h, kernel)
    gradient, gradients = h, []
    for i in reversed(range(len(kernels))):
        gradients.append(multiply(transposed(inputs[i]), gradient))
        if i > 0:
            gradient = multiply(gradient, transposed(kernels[i]))
    return gradients


def _torch(model: Any, sizes: list[tuple[int, int]], batch: int) -> Callable[[], Any]:
    import torch

    device = torch.device("cuda" if model.device == "gpu" else "cpu")
    dtype = torch.bfloat16 if model.precision == "bfloat16" else getattr(torch, str(model.dtype))
    # As nn.Linear has them: [out, in], multiplied by their transpose.
    kernels = [torch.full((n_out, n_in), 1 / n_in, dtype=dtype, device=device).T for n_in, n_out in sizes]
    x = torch.full((batch, sizes[0][0]), 0.5, dtype=dtype, device=device)

    return model.one_dispatch(lambda: backward_and_forward(x, kernels, torch.matmul, torch.t))


def _tensorflow(model: Any, sizes: list[tuple[int, int]], batch: int) -> Callable[[], Any]:
    import tensorflow as tf

    dtype = tf.bfloat16 if model.precision == "bfloat16" else tf.as_dtype(model.dtype)
    with tf.device(f"/{model.device.upper()}:0"):
        kernels = [tf.Variable(tf.fill(size, tf.constant(1 / size[0], dtype))) for size in sizes]
        x = tf.fill((batch, sizes[0][0]), tf.constant(0.5, dtype))

    def chain() -> list[Any]:
        return backward_and_forward(x, kernels, tf.matmul, tf.transpose)

    return tf.function(chain, jit_compile=model.mode == "xla", autograph=False)


def _jax(model: Any, sizes: list[tuple[int, int]], batch: int) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    device = jax.devices(model.device)[0]
    dtype = jnp.bfloat16 if model.precision == "bfloat16" else model.dtype
    precision = jax.lax.Precision.DEFAULT if model.precision == "tf32" else jax.lax.Precision.HIGHEST
    kernels = [jax.device_put(jnp.full(size, 1 / size[0], dtype), device) for size in sizes]
    x = jax.device_put(jnp.full((batch, sizes[0][0]), 0.5, dtype), device)

    def multiply(a: Any, b: Any) -> Any:
        return jnp.matmul(a, b, precision=precision)

    chain = jax.jit(lambda x, kernels: backward_and_forward(x, kernels, multiply, jnp.transpose))
    return lambda: chain(x, kernels)
