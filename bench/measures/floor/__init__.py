"""The floor: the least time that a piece of work could take on this machine, by rates measured in this process.

The products of a training step (or of one pass through the flow), at their own shapes and in the framework's own
routine, but with nothing between them; the bytes that the parameters at least must move, at the bandwidth of adding
to an array in place; and where several devices train side by side, the reduction of a step's gradients, by the
framework's own collective: of each the fastest that was seen, as other work on the machine only adds to a time. The
largest is the floor: each can overlap with the others, and none can be left out. A pure chain of the same products
(`chain`) takes as long or a little longer; one that is faster, or takes more than 1.3 times as long, says that the
floor is wrong. Each framework's products are in a file of its own.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from backends import Architecture, Backend
from backends.architecture import flops
from bench.inputs.protocol import Protocol
from bench.measures.timing import time_calls, time_each
from bench.records import Measurement

MEMORY_BYTES = 2**28
REDUCTIONS = 16
"""How often gradients are reduced by themselves: all processes make as many, so that no clock can decide it."""


def workloads(model: Backend) -> ModuleType | None:
    """The module that has a backend's `products`, `chained` and `memory`, as those beside this one have them.

    Where several devices train side by side, it may have `reducing`, too.
    """
    return importlib.import_module(model.workloads) if model.workloads else None


def measure(model: Backend, protocol: Protocol, steps: int, round_: int) -> Iterator[Measurement]:
    """Yield rates, and the floors of a training step and of an epoch of `steps` steps."""
    batch, budget = protocol.training.batch // model.replicas, protocol.measure.seconds_per_timing
    made = workloads(model)
    if made is None:
        note = "no floor, as the backend names no module of bare products"
        yield Measurement.of("floor", "train_step_seconds", None, "s", note=note, round=round_)
        return
    reduction = 0.0
    if model.replicas > 1 and hasattr(made, "reducing"):
        with made.reducing(model, 1 + REDUCTIONS) as call:
            reduction = time_each(model, call, REDUCTIONS).least
        yield Measurement.of("floor", "reduction_seconds", reduction, "s", round=round_)
    products = model.architecture.training_products(batch)
    by_products = time_calls(model, made.products(model, products), budget).least
    bandwidth = _bandwidth(model, made, budget / 2)
    moments = len(protocol.make_optimiser().moments)
    by_bytes = model.architecture.training_bytes(model.dtype.itemsize, moments) / bandwidth
    step = max(by_products, by_bytes, reduction)
    for quantity, value, unit in (
        ("product_rate", flops(products) / by_products, "FLOP/s"),
        ("bandwidth", bandwidth, "B/s"),
        ("products_seconds", by_products, "s"),
        ("bytes_seconds", by_bytes, "s"),
        ("train_step_seconds", step, "s"),
        ("train_epoch_seconds", step * steps, "s"),
    ):
        yield Measurement.of("floor", quantity, value, unit, round=round_)
    chain = time_calls(model, made.chained(model, batch), budget).least
    yield Measurement.of("floor", "chain_seconds", chain, "s", round=round_)


def measure_forward(model: Backend, protocol: Protocol) -> Iterator[Measurement]:
    """Yield the floor of one pass through the flow at each batch at which sampling and density are timed."""
    rule, made = protocol.measure, workloads(model)
    if made is None:
        return
    bandwidth = _bandwidth(model, made, rule.seconds_per_timing / 2)
    rate = 0.0
    for batch in sorted({*rule.sampling_batches, rule.likelihood_batch}):
        products = model.architecture.forward_products(batch)
        if rate and flops(products) / rate > rule.longest_call_seconds:
            continue
        by_products = time_calls(model, made.products(model, products), rule.seconds_per_timing / 2).least
        rate = flops(products) / by_products
        by_bytes = model.architecture.forward_bytes(batch, model.dtype.itemsize) / bandwidth
        yield Measurement.of("floor", "forward_seconds", max(by_products, by_bytes), "s", batch=batch)


def _bandwidth(model: Backend, made: ModuleType, budget: float) -> float:
    """Return the bytes read and written a second while numbers are added to an array in place."""
    return 2 * MEMORY_BYTES / time_calls(model, made.memory(model, MEMORY_BYTES), budget).least


# Of each framework's chain


def sizes(architecture: Architecture) -> list[tuple[int, int]]:
    """Return (in, out) of every kernel of the flow, in encoder order."""
    return [size for _ in range(architecture.couplings) for size in architecture.layer_sizes]


def chain(x: Any, kernels: Sequence[Any], multiply: Callable, transposed: Callable) -> list[Any]:
    """Return the kernels' gradients [in, out], the last layer's first, by a pure chain of a training step's products.

    Forward through every coupling's layers one after the other, then backward: each kernel's gradient and each input's.
    The shapes and their number are those of `Architecture.training_products`, no more and no less; there is no bias, no
    ReLU, no coupling, no optimiser. Unlike separate products these wait for each other, and half of the backward ones
    read a transposed operand.

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
