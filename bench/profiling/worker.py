"""A profile of one backend, in a process of its own; it speaks with the runner as `bench.running.worker` does.

The plan on standard input says what to train; the arguments say how many steps to trace and where to leave the trace.
Four epochs of that many steps: the first one warms up, the second one is timed, the third one is traced, and the fourth
one never runs, so that its inputs are on their way during the third, as they are in the midst of any training.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

import backends
from backends import UnavailableError, parameters
from bench.inputs import data
from bench.inputs.streams import TrainingStream
from bench.profiling import hlo, summary
from bench.profiling.events import checked
from bench.records import Measurement
from bench.running.messages import Event, Finished, WorkerPlan
from bench.running.worker import model_of
from bench.running.worker_io import serve, started

EPOCHS = 4


def main(steps: int, folder: Path) -> int:
    """Carry out the plan on standard input, into a folder; its events go to what standard output was."""
    # Read when torch is imported: code that it compiles for a CPU stands in a trace only if it says when it runs.
    os.environ["TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE"] = "1"
    with tempfile.TemporaryDirectory() as dump:
        hlo.dump_into(Path(dump))
        return serve(WorkerPlan, lambda plan: profile(plan, steps, folder, Path(dump)))


def profile(plan: WorkerPlan, steps: int, folder: Path, dump: Path) -> Iterator[Event | Measurement]:
    """Train a little and trace it.

    Args:
        plan: what to train, how.
        steps: to trace.
        folder: where the framework's trace is left.
        dump: the folder into which XLA writes its modules.
    """
    tracer = _tracer(plan.backend)
    protocol = plan.protocol
    model, initial = model_of(plan)
    yield started(model, initial_parameters=parameters.digest(initial))
    shape = (steps * protocol.training.batch, model.architecture.dim)
    images = np.resize(data.load("mnist-subset").train_images, shape)  # the first ones, repeated where there are fewer
    pixels = protocol.training_pixels()
    stream = TrainingStream(plan.seed, len(images), model.architecture.dim, protocol.training.batch, pixels)
    reports = model.train(images, protocol.make_optimiser(), stream, EPOCHS)
    next(reports)
    untraced = next(reports).seconds / steps
    folder.mkdir(parents=True, exist_ok=True)
    trace = tracer.trace(folder, lambda: model.synchronise(next(reports)), lambda: hlo.categories(dump))
    yield from summary.measurements(checked(trace, plan.device), steps, untraced)
    yield Finished(status="ok")


def _tracer(backend: str) -> ModuleType:
    """Return the module that switches a framework's profiler on.

    Raises:
        UnavailableError: the framework can't be imported here, or the backend names no profiler.
    """
    profiler = backends.backend_class(backend).profiler
    if profiler is None:
        raise UnavailableError(f"{backend}: has no profiler of its own")
    return importlib.import_module(profiler)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
