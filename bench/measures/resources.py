"""Resources: the memory that a training run takes, and the share of its time that goes to the harness itself."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from backends import Architecture, Backend, Optimiser
from bench.inputs.streams import TrainingStream
from bench.records import Measurement

STATUS = Path("/proc/self/status")


def most_held() -> int:
    """Return the most bytes of main memory that this process has held.

    On Linux `getrusage` counts what the process that started this one held, so the kernel's own figure goes first.
    """
    with suppress(OSError):
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Return the bytes of main memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def needed(architecture: Architecture, optimiser: Optimiser, stream: TrainingStream, itemsize: int) -> int:
    """Return the bytes that training can't do without: parameters, moments, gradients, and the inputs of one epoch.

    The inputs are the images as bytes, the order as int32, and the noise, where there is any, as uint16.
    """
    arrays = 2 + len(optimiser.moments)
    drawn = stream.steps * stream.batch * (4 + (2 * architecture.dim if stream.pixels.noise else 0))
    return arrays * architecture.trainable_count * itemsize + stream.examples * architecture.dim + drawn


def memory(model: Backend, before: int, least: int, round_: int) -> Iterator[Measurement]:
    """Yield the peak so far: of the device's memory or, on a CPU, of the process and of its growth over `before`.

    `before` are the bytes that the process held when it had imported its framework and nothing else, `least` those that
    training can't do without.
    """
    on_device = model.peak_memory()
    peak = on_device or most_held()
    taken = on_device or peak - before
    yield Measurement.of("training", "peak_memory", peak, "bytes", round=round_)
    yield Measurement.of("training", "training_memory", taken, "bytes", round=round_)
    yield Measurement.of("training", "training_memory_ratio", taken / least, "1", round=round_)
