"""One point of a sweep: an operation of one network at one batch, in seconds, examples and FLOPs a second.

Training is what `Backend.train` really does, on random images that lie on the device, many steps to a call so that what
an epoch costs once doesn't count. FLOPs are those of the matrix products alone.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np

from backends import Architecture, Backend
from backends.architecture import flops
from bench.inputs.protocol import Operation, Point, Protocol
from bench.inputs.streams import TrainingStream, noise_words
from bench.measures.timing import Timing, time_calls
from bench.records import Measurement

FIELDS = {"width": "hidden_units", "depth": "hidden_layers", "couplings": "couplings"}
"""Axes that change the network: the field of `Architecture`."""

CALL_SECONDS = 0.2
MOST_STEPS = 512
ENDLESS = 10**9


def setting(protocol: Protocol, point: Point) -> tuple[Architecture, int]:
    """Return the network and the batch at a point: the protocol's, but for what is swept."""
    architecture = protocol.make_architecture()
    if point.axis == "batch":
        return architecture, point.value
    sizes = architecture.to_dict() | {FIELDS[point.axis]: point.value}
    return Architecture.from_dict(sizes), protocol.training.batch


def cost(architecture: Architecture, batch: int, operation: Operation) -> int:
    """Return the FLOPs of the products of one operation; of training, of one step."""
    training = operation == "train"
    return flops(architecture.training_products(batch) if training else architecture.forward_products(batch))


def memory(architecture: Architecture, batch: int, operation: Operation, itemsize: int) -> int:
    """Return an upper estimate of the bytes that a point takes.

    Training holds parameters, gradients and two moments, the copies that undo the first step, and the weights that it
    starts from; and every activation.
    """
    copies, layers = (10, architecture.couplings * architecture.hidden_layers) if operation == "train" else (4, 2)
    a_row = layers * architecture.hidden_units + 6 * architecture.dim
    return itemsize * (copies * architecture.trainable_count + batch * a_row)


def measure(
    model: Backend, protocol: Protocol, point: Point, *, rate: float | None, seconds: float
) -> list[Measurement]:
    """Time a point on its network, not trained, in about so many seconds.

    The rate, seconds a FLOP as far as known, says how many training steps make a call.
    """
    _, batch = setting(protocol, point)
    work = cost(model.architecture, batch, point.operation)
    if point.operation == "train":
        timing = _time_training(model, protocol, batch, None if rate is None else rate * work, seconds)
    else:
        call = model.workload(point.operation, batch, temperature=protocol.measure.temperature)
        timing = time_calls(model, call, seconds)
    at = point.model_dump()
    return [
        timing.seconds("sweep", "seconds", **at),
        timing.rate("sweep", "examples_per_second", batch, "examples/s", **at),
        timing.rate("sweep", "flop_rate", work, "FLOP/s", **at),
    ]


def left_out(point: Point, note: str) -> Measurement:
    """Return the measurement of a point without figures, with the reason as its note."""
    return Measurement.of("sweep", "seconds", None, "s", note=note, **point.model_dump())


def _time_training(model: Backend, protocol: Protocol, batch: int, expected: float | None, budget: float) -> Timing:
    """Return seconds a step; single steps are tried first where the duration of one is unknown."""
    if expected is None:
        with _training(model, protocol, batch, 1) as call:
            expected = time_calls(model, call, 0.0).median
    steps = int(np.clip(CALL_SECONDS / expected, 1, MOST_STEPS))
    with _training(model, protocol, batch, steps) as call:
        timing = time_calls(model, call, budget)
    each = {name: getattr(timing, name) / steps for name in ("median", "low", "high", "least")}
    return replace(timing, **each)


@contextmanager
def _training(model: Backend, protocol: Protocol, batch: int, steps: int) -> Iterator[Callable[[], Any]]:
    """Return a call that makes `steps` training steps and then restores the model."""
    before = model.training_state()
    stream = TrainingStream(0, steps * batch, model.architecture.dim, batch, protocol.training_pixels())
    images = noise_words(0, "inputs", 0, (stream.examples, model.architecture.dim)).astype(np.uint8)
    reports = cast(Generator, model.train(images, protocol.make_optimiser(), stream, ENDLESS))
    try:
        yield lambda: next(reports)
    finally:
        reports.close()
        model.resume(before)
