"""One round of one backend, in a process of its own: a plan comes in on standard input, events go out as JSON lines.

Whatever a framework prints goes to standard error, so that standard output has nothing but events. Every failure ends
in a `Finished` event that says what it was; that a worker was killed or is silent, the runner sees from the outside.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Backend, TrainingState, parameters, state
from backends.optimisers import AVERAGE
from backends.parameters import Parameters
from bench.errors import DivergedError
from bench.inputs import data
from bench.inputs.protocol import Protocol
from bench.inputs.streams import TrainingStream, initial_parameters, pixels_to_x
from bench.measures import agreement, calibration, disturbance, floor, invertibility, likelihood, resources, sampling
from bench.measures.rounding import Rounding
from bench.records import EpochPoint, Measurement
from bench.records.environment import gpu_state
from bench.running.messages import EpochDone, Event, Finished, StateLeft, WorkerPlan
from bench.running.worker_io import serve, started


def main(*, training_only: bool = False) -> int:
    """Carry out the plan on standard input; its events go to what standard output was."""
    return serve(WorkerPlan, lambda plan: carry_out(plan, training_only=training_only))


def model_of(plan: WorkerPlan) -> tuple[Backend, Parameters]:
    """The model that a plan asks for, and the initial weights before they are rounded to its dtype."""
    architecture, initial = plan.protocol.make_architecture(), _initial(plan)
    return plan.model(architecture, initial, replicas=plan.devices, nodes=plan.nodes), initial


def _initial(plan: WorkerPlan) -> Parameters:
    protocol, rule = plan.protocol, plan.protocol.initial
    images = (Images.of(protocol).train, protocol.training_pixels()) if rule.log_scale == "data" else None
    architecture = protocol.make_architecture()
    return initial_parameters(architecture, plan.seed, rule.kernels, rule.log_scale, rule.permutations, images)


def carry_out(plan: WorkerPlan, *, training_only: bool = False) -> Iterator[Event | Measurement]:
    """Train, and measure what there is to measure in this round.

    Args:
        plan: what to do.
        training_only: leave out what is measured of the model before and after its training.
    """
    protocol = plan.protocol
    start = time.perf_counter()
    backends.backend_class(plan.backend)
    import_seconds, before = time.perf_counter() - start, resources.resident()
    model, initial = model_of(plan)
    initial_digest = parameters.digest(initial)
    del initial  # it would be held, as float64, while the model trains
    images = Images.of(protocol)
    yield started(model, data=images.digest, initial_parameters=initial_digest)
    if not plan.resumed:
        yield Measurement.of("startup", "import_seconds", import_seconds, "s", round=plan.round)
    if plan.round > 1 or plan.resumed:
        model.resume(state.load(plan.state)[1])
    rule, dim = protocol.training, model.architecture.dim
    stream = TrainingStream(
        plan.seed, protocol.data.train, dim, rule.batch, protocol.training_pixels(), parts=rule.parts
    )
    least = resources.needed(model.architecture, protocol.make_optimiser(), stream, model.dtype.itemsize)
    leaving = _Leaving(model, plan, lambda: resources.memory(model, before, least, plan.round))
    yield from _train(model, images, stream, plan, leaving)
    environment = {"gpu_after": gpu_state()}
    yield from leaving.memory()
    leaving.save_best()
    left = list(leaving.files()) if plan.round < plan.rounds else []
    yield from floor.measure(model, protocol, stream.steps * stream.parts, plan.round)
    yield from calibration.measure(model, protocol.measure.seconds_per_timing / 2, plan.round)
    if plan.round == 1 and not training_only:
        yield from _at_the_start(model, images, plan)
    if plan.round < plan.rounds:
        yield from left  # now that all of the round has been measured
        yield Finished(status="ok", environment=environment)
        return
    averaged = AVERAGE in protocol.make_optimiser().moments
    if averaged:
        raw = likelihood.mean_log_prob(model, pixels_to_x(images.test, likelihood.DEQUANTISED, plan.seed))
        yield Measurement.of("likelihood", "log_likelihood_without_average", raw, "nats")
    kept = None
    if protocol.training.keep == "best":
        if not Path(plan.best).is_file():
            raise DivergedError("no test loss was a number, so that no weights are the best")
        kept = parameters.load(plan.best)[1]
    elif averaged:
        with model.averaged():
            kept = model.parameters()
    if kept is not None:
        model.resume(TrainingState(parameters.rounded(kept, plan.precision)))
    parameters.save(plan.weights, model.architecture, parameters.astype(model.parameters(), "float32"))
    if not training_only:
        yield from _at_the_end(model, images, plan)
    final = parameters.digest(parameters.load(plan.weights)[1])
    yield Finished(status="ok", digests={"final_parameters": final}, environment=environment)


def _at_the_end(model: Backend, images: Images, plan: WorkerPlan) -> Iterator[Measurement]:
    """What is measured at the trained weights."""
    protocol = plan.protocol
    x = pixels_to_x(images.test, protocol.evaluation_pixels(), plan.seed)
    few_images = x[: protocol.measure.invertibility_images]
    yield from agreement.compare(model, x[: protocol.measure.agreement_images], "trained")
    yield from invertibility.measure(model, few_images, "trained", plan.seed)
    yield from likelihood.measure(model, images.test, protocol, plan.seed)
    yield from invertibility.measure_couplings(model, few_images, "trained")
    yield from sampling.measure(model, protocol)
    yield from floor.measure_forward(model, protocol)


class _Leaving:
    """Leaves on disk what training needs to go on, between epochs and so rarely that it adds a twentieth to their time.

    Attributes:
        best: weights with a lower test loss than any before, where the protocol keeps these, until they are on disk.
    """

    def __init__(self, model: Backend, plan: WorkerPlan, memory: Callable[[], Iterator[Measurement]]) -> None:
        self.model, self.plan, self._memory = model, plan, memory
        self.best: Parameters | None = None
        self._measured = plan.resumed  # the process that was cut off has measured it
        self._next = 0.0

    def memory(self) -> Iterator[Measurement]:
        """Measure memory once, before the first copies are made to leave something."""
        if not self._measured:
            self._measured = True
            yield from self._memory()

    def between_epochs(self) -> Iterator[Event | Measurement]:
        """Leave the state if it is time to."""
        start = time.perf_counter()
        if start >= self._next:
            yield from self.memory()
            with suppress(parameters.ParameterError):  # weights that aren't finite: the next epoch will say so
                yield from self.files()
            end = time.perf_counter()
            self._next = end + 20 * (end - start)

    def save_best(self) -> None:
        """Leave the best weights so far."""
        if self.best is not None:
            parameters.save(self.plan.best, self.model.architecture, self.best)
            self.best = None

    def files(self) -> Iterator[Event]:
        """Leave the best weights so far, and the state."""
        self.save_best()
        left = self.model.training_state()
        path = Path(self.plan.state).with_suffix(f".{left.step}.safetensors")
        state.save(path, self.model.architecture, left)
        yield StateLeft(path=str(path))


def _train(
    model: Backend, images: Images, stream: TrainingStream, plan: WorkerPlan, leaving: _Leaving
) -> Iterator[Event | Measurement]:
    protocol, dim = plan.protocol, model.architecture.dim
    select = pixels_to_x(images.select, protocol.evaluation_pixels(), plan.seed).astype(model.dtype)
    best_loss = math.inf if plan.best_loss is None else plan.best_loss
    epochs_seconds, waits = [], []
    apart, begun = 0.0, time.perf_counter()  # apart: what is neither an epoch nor the harness' own
    others, shares = disturbance.Others(plan.device, plan.devices), []
    for report in model.train(images.train, protocol.make_optimiser(), stream, plan.epochs):
        shares.append(others.share())
        if report.first_call_seconds:
            which = "resumed_" if plan.resumed else "warm_" if plan.round > 1 else ""
            quantity = f"{which}first_call_seconds"
            yield Measurement.of("startup", quantity, report.first_call_seconds, "s", round=plan.round)
        losses = report.losses
        train_loss = likelihood.reported_loss(float(losses.mean()), dim, protocol.training.loss)
        start = time.perf_counter()
        epoch, part = divmod(report.epoch - 1, stream.parts)
        test_loss = None
        if part + 1 == stream.parts:
            with model.averaged():
                test_loss = likelihood.test_loss(model, select, protocol)
                if protocol.training.keep == "best" and np.isfinite(test_loss) and test_loss < best_loss:
                    best_loss, leaving.best = test_loss, model.parameters()
        apart += time.perf_counter() - start + report.first_call_seconds
        epochs_seconds.append(report.seconds)
        waits.append(report.wait_seconds)
        per_step = [likelihood.reported_loss(float(loss), dim, protocol.training.loss) for loss in losses]
        first_epoch_losses = [loss if np.isfinite(loss) else None for loss in per_step] if epoch == 0 else []
        at: dict[str, Any] = {"epoch": epoch + 1, "round": plan.round, "seconds": report.seconds, "others": shares[-1]}
        point = EpochPoint(**at, train_loss=train_loss, test_loss=test_loss)
        yield EpochDone(point=point, part=part + 1, first_epoch_losses=first_epoch_losses)
        if not np.isfinite(losses).all():
            step = int(np.argmin(np.isfinite(losses)))
            raise DivergedError(f"loss is {losses[step]} at step {part * stream.steps + step + 1} of epoch {epoch + 1}")
        # Not after the last epoch: a process that goes on has one to make before it measures.
        if len(waits) < plan.epochs and plan.nodes.rank == 0:
            start = time.perf_counter()
            yield from leaving.between_epochs()
            apart += time.perf_counter() - start
        others.share()  # from here on: what is evaluated between epochs doesn't count
    whole = time.perf_counter() - begun - apart
    images_a_second = stream.steps * stream.batch / float(np.median(epochs_seconds))
    for quantity, value, unit in (
        ("seconds_per_epoch", stream.parts * float(np.median(epochs_seconds)), "s"),
        ("images_per_second", images_a_second, "images/s"),
        ("harness_fraction", 1 - sum(epochs_seconds) / whole, "1"),
    ):
        yield Measurement.of("training", quantity, value, unit, round=plan.round, n=len(epochs_seconds))
    known = [(share, seconds) for share, seconds in zip(shares, epochs_seconds, strict=True) if share is not None]
    if known:
        mean = float(np.average([share for share, _ in known], weights=[seconds for _, seconds in known]))
        yield Measurement.of("training", "others_share", mean, "1", round=plan.round, n=len(known))
    if len(waits) > 1:  # the first epoch's inputs are there before its clock starts
        fraction = sum(waits[1:]) / sum(epochs_seconds[1:])
        yield Measurement.of("training", "wait_fraction", fraction, "1", round=plan.round, n=len(waits) - 1)
    if model.replicas > 1:
        gradients = model.architecture.trainable_count * model.dtype.itemsize
        yield Measurement.of("training", "reduced_bytes", gradients, "bytes", round=plan.round)


def _at_the_start(model: Backend, images: Images, plan: WorkerPlan) -> Iterator[Measurement]:
    """What is measured at the initial weights, first of all whether this is the model that was to be measured.

    It comes after training, since training's first call must find nothing compiled in this process; the model goes back
    to the start for it, and returns.
    """
    protocol, trained = plan.protocol, model.training_state()
    initial = parameters.rounded(_initial(plan), plan.precision)
    model.resume(TrainingState(initial))
    x = pixels_to_x(images.test, protocol.evaluation_pixels(), plan.seed)
    found = list(agreement.compare(model, x[: protocol.measure.agreement_images], "initial"))
    batch = protocol.training.batch
    steps = min(protocol.measure.agreement_steps, len(images.train) // batch)
    few = images.train[: steps * batch].reshape(-1, batch, model.architecture.dim)
    optimiser, pixels = protocol.make_optimiser(), protocol.training_pixels()
    found += agreement.trajectory(model, initial, few, optimiser, pixels, plan.seed)
    yield from found
    agreement.refuse(found, Rounding(model.architecture, plan.precision, batch))
    few_images = x[: protocol.measure.invertibility_images]
    yield from invertibility.measure(model, few_images, "initial", plan.seed)
    model.resume(trained)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a protocol, uint8 [N, D]: to train on, to select on each epoch, to test on at the end."""

    train: NDArray[np.uint8]
    select: NDArray[np.uint8]
    test: NDArray[np.uint8]
    digest: str

    @classmethod
    def of(cls, protocol: Protocol) -> Images:
        """Load and divide the dataset that a protocol names.

        Raises:
            DataError: it can't be had here, or has fewer images than the protocol asks for.
        """
        dataset, rule = data.load(protocol.data.dataset), protocol.data
        count = len(dataset.train_images)
        if rule.train + rule.validation > count:
            raise data.DataError(
                f"protocol {protocol.name}: data.train and data.validation ask for {rule.train} + {rule.validation} "
                f"images; {rule.dataset} has {count}"
            )
        select = dataset.train_images[count - rule.validation :] if rule.select == "validation" else dataset.test_images
        return cls(dataset.train_images[: rule.train], select, dataset.test_images, dataset.digest)


if __name__ == "__main__":
    sys.exit(main())
