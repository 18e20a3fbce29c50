"""The floor: the least time that a training step could take on this machine, by rates measured in this very process.

The products of a step, at their very shapes and in the framework's own routine, but with nothing between them; and the
bytes that parameters, gradients and moments must move, at the bandwidth of adding to an array in place. The larger of
the two is the floor; their sum is what remains when nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Iterator

from backends import Backend
from backends.architecture import flops
from bench.measures.timing import time_calls
from bench.protocol import Protocol
from bench.records import Measurement

MEMORY_BYTES = 2**28


def measure(model: Backend, protocol: Protocol, steps: int, round_: int) -> Iterator[Measurement]:
    """Rates, and the floor of a training step and of an epoch of `steps` steps."""
    batch, budget = protocol.training.batch, protocol.measure.seconds_per_timing
    products = model.architecture.training_products(batch)
    by_products = time_calls(model, model.products_workload(products), budget).median
    memory = time_calls(model, model.memory_workload(MEMORY_BYTES), budget / 2).median
    bandwidth = 2 * MEMORY_BYTES / memory
    by_bytes = model.architecture.training_bytes(model.dtype.itemsize) / bandwidth
    step = max(by_products, by_bytes)
    for quantity, value, unit in (
        ("product_rate", flops(products) / by_products, "FLOP/s"),
        ("bandwidth", bandwidth, "B/s"),
        ("products_seconds", by_products, "s"),
        ("bytes_seconds", by_bytes, "s"),
        ("train_step_seconds", step, "s"),
        ("train_epoch_seconds", step * steps, "s"),
    ):
        yield Measurement(measure="floor", quantity=quantity, value=value, unit=unit, context={"round": round_})
