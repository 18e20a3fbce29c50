"""A pure chain of a training step's products, against which the floor of its products is validated.

Forward through every coupling's layers one after the other, then backward: each kernel's gradient and each input's.
The shapes and their number are those of `Architecture.training_products`, no more and no less; there is no bias, no
ReLU, no coupling, no optimiser. Unlike separate products these wait for each other, and half
of the backward ones read a transposed operand.
"""

from collections.abc import Callable, Sequence
from typing import Any

from backends.architecture import Architecture

Size = tuple[int, int]


def sizes(architecture: Architecture) -> list[Size]:
    """Return (in, out) of every kernel of the flow, in encoder order."""
    return [size for _ in range(architecture.couplings) for size in architecture.layer_sizes]


def chain(x: Any, kernels: Sequence[Any], multiply: Callable, transposed: Callable) -> list[Any]:
    """Return the kernels' gradients [in, out], the last layer's first.

    Args:
        x: [batch, in] of the first layer.
        kernels: [in, out] each; with entries of 1/in all numbers stay of the size of x.
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
