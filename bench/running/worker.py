"""One round of one backend, in a process of its own: a plan comes in on standard input, events go out as JSON lines.

Whatever a framework prints goes to standard error, so that nothing but events is on the line. Every failure ends in a
`Finished` event that says what it was; the runner tells the rest (killed, silent) from the outside.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

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
from bench.measures.precision import probe
from bench.measures.rounding import Rounding
from bench.records import EpochPoint, Measurement, Status
from bench.records.environment import fingerprint, gpu_state
from bench.running.messages import EpochDone, Event, Finished, Measured, Started, StateLeft, WorkerPlan
from bench.running.worker_io import begin, tell


def main(*, training_only: bool = False) -> int:
    """Read a plan from standard input, work, and write events to what standard output was."""
    plan, events = begin(WorkerPlan)
    return 0 if work(plan, events, training_only=training_only) == "ok" else 1


def work(plan: WorkerPlan, out: TextIO, *, training_only: bool = False) -> Status:
    """Carry a plan out; every event is written and flushed as it happens.

    Args:
        plan: what to do.
        out: where events go.
        training_only: leave out what is measured of the model before and after its training.
    """
    return tell(_to_the_end(plan, training_only), out)


def _to_the_end(plan: WorkerPlan, training_only: bool) -> Iterator[Event]:
    gpu_after = yield from _round(plan, training_only)
    yield Finished(status="ok", digests=_final_digests(plan), environment={"gpu_after": gpu_after})


def model_of(plan: WorkerPlan) -> tuple[Backend, Parameters]:
    """The model that a plan asks for, and the initial weights before they are rounded to its dtype."""
    initial = _initial(plan)
    held = parameters.rounded(initial, plan.precision)
    architecture = plan.protocol.make_architecture()
    model = backends.create(
        plan.backend,
        architecture,
        held,
        device=plan.device,
        precision=plan.precision,
        mode=plan.mode,
        replicas=plan.devices,
        nodes=plan.nodes,
    )
    return model, initial


def _initial(plan: WorkerPlan) -> Parameters:
    protocol, rule = plan.protocol, plan.protocol.initial
    images = (Images.of(protocol).train, protocol.training_pixels()) if rule.log_scale == "data" else None
    architecture = protocol.make_architecture()
    return initial_parameters(architecture, plan.seed, rule.kernels, rule.log_scale, rule.permutations, images)


def _round(plan: WorkerPlan, training_only: bool = False) -> Generator[Event, None, dict[str, Any]]:
    """Returns the GPU's state at the end of the training."""
    protocol = plan.protocol
    start = time.perf_counter()
    backends.backend_class(plan.backend)
    import_seconds, before = time.perf_counter() - start, resources.resident()
    model, initial = model_of(plan)
    digests = {"initial_parameters": parameters.digest(initial)}
    del initial  # it would be held, as float64, while the model trains
    images = Images.of(protocol)
    yield Started(
        environment=fingerprint() | {"framework": model.versions(), "gpu_before": gpu_state()},
        mode=model.mode,
        precision=probe(model),
        digests={"data": images.digest} | digests,
    )
    if not plan.resumed:
        yield _measured("startup", "import_seconds", import_seconds, "s", round=plan.round)
    if plan.round > 1 or plan.resumed:
        model.resume(state.load(plan.state)[1])
    rule, dim = protocol.training, model.architecture.dim
    stream = TrainingStream(
        plan.seed, protocol.data.train, dim, rule.batch, protocol.training_pixels(), parts=rule.parts
    )
    least = resources.needed(model.architecture, protocol.make_optimiser(), stream, model.dtype.itemsize)
    leaving = _Leaving(model, plan, lambda: resources.memory(model, before, least, plan.round))
    yield from _train(model, images, stream, plan, leaving)
    gpu_after = gpu_state()
    yield from leaving.memory()
    leaving.save_best()
    left = list(leaving.files()) if plan.round < plan.rounds else []
    yield from _wrap(floor.measure(model, protocol, stream.steps * stream.parts, plan.round))
    yield from _wrap(calibration.measure(model, protocol.measure.seconds_per_timing / 2, plan.round))
    if plan.round == 1 and not training_only:
        yield from _at_the_start(model, images, plan)
    if plan.round < plan.rounds:
        yield from left  # now that all of the round has been measured
        return gpu_after
    averaged = AVERAGE in protocol.make_optimiser().moments
    if averaged:
        raw = likelihood.mean_log_prob(model, pixels_to_x(images.test, likelihood.DEQUANTISED, plan.seed))
        yield _measured("likelihood", "log_likelihood_without_average", raw, "nats")
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
    return gpu_after


def _at_the_end(model: Backend, images: Images, plan: WorkerPlan) -> Iterator[Event]:
    """What is measured at the trained weights."""
    protocol = plan.protocol
    x = pixels_to_x(images.test, protocol.evaluation_pixels(), plan.seed)
    few_images = x[: protocol.measure.invertibility_images]
    yield from _wrap(agreement.compare(model, x[: protocol.measure.agreement_images], "trained"))
    yield from _wrap(invertibility.measure(model, few_images, "trained", plan.seed))
    yield from _wrap(likelihood.measure(model, images.test, protocol, plan.seed))
    yield from _wrap(invertibility.measure_couplings(model, few_images, "trained"))
    yield from _wrap(sampling.measure(model, protocol))
    yield from _wrap(floor.measure_forward(model, protocol))


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

    def memory(self) -> Iterator[Event]:
        """Measure memory once, before the first copies are made to leave something."""
        if not self._measured:
            self._measured = True
            yield from _wrap(self._memory())

    def between_epochs(self) -> Iterator[Event]:
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
) -> Iterator[Event]:
    protocol, dim = plan.protocol, model.architecture.dim
    select = pixels_to_x(images.select, protocol.evaluation_pixels(), plan.seed).astype(model.dtype)
    best_loss = math.inf if plan.best_loss is None else plan.best_loss
    epochs_seconds, waits = [], []
    apart, begun = 0.0, time.perf_counter()  # apart: what is neither an epoch nor the harness' own
    others, shares = disturbance.Others(plan.device), []
    for report in model.train(images.train, protocol.make_optimiser(), stream, plan.epochs):
        shares.append(others.share())
        if report.first_call_seconds:
            which = "resumed_" if plan.resumed else "warm_" if plan.round > 1 else ""
            yield _measured("startup", f"{which}first_call_seconds", report.first_call_seconds, "s", round=plan.round)
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
        yield EpochDone(
            point=EpochPoint(
                epoch=epoch + 1,
                train_loss=train_loss,
                test_loss=test_loss,
                seconds=report.seconds,
                others=shares[-1],
                round=plan.round,
            ),
            part=part + 1,
            first_epoch_losses=[loss if np.isfinite(loss) else None for loss in per_step] if epoch == 0 else [],
        )
        if not np.isfinite(losses).all():
            step = int(np.argmin(np.isfinite(losses)))
            raise DivergedError(f"loss is {losses[step]} at step {part * stream.steps + step + 1} of epoch {epoch + 1}")
        if (
            len(waits) < plan.epochs and plan.nodes.rank == 0
        ):  # a process that goes on has an epoch to make before it measures
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
        yield _measured("training", quantity, value, unit, round=plan.round, n=len(epochs_seconds))
    known = [(share, seconds) for share, seconds in zip(shares, epochs_seconds, strict=True) if share is not None]
    if known:
        mean = float(np.average([share for share, _ in known], weights=[seconds for _, seconds in known]))
        yield _measured("training", "others_share", mean, "1", round=plan.round, n=len(known))
    if len(waits) > 1:  # the first epoch's inputs are there before its clock starts
        fraction = sum(waits[1:]) / sum(epochs_seconds[1:])
        yield _measured("training", "wait_fraction", fraction, "1", round=plan.round, n=len(waits) - 1)
    if model.replicas > 1:
        gradients = model.architecture.trainable_count * model.dtype.itemsize
        yield _measured("training", "reduced_bytes", gradients, "bytes", round=plan.round)


def _at_the_start(model: Backend, images: Images, plan: WorkerPlan) -> Iterator[Event]:
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
    yield from _wrap(found)
    agreement.refuse(found, Rounding(model.architecture, plan.precision, batch))
    few_images = x[: protocol.measure.invertibility_images]
    yield from _wrap(invertibility.measure(model, few_images, "initial", plan.seed))
    model.resume(trained)


def _final_digests(plan: WorkerPlan) -> dict[str, str]:
    if plan.round < plan.rounds:
        return {}
    return {"final_parameters": parameters.digest(parameters.load(plan.weights)[1])}


def _wrap(measurements: Iterable[Measurement]) -> Iterator[Event]:
    for measurement in measurements:
        yield Measured(measurement=measurement)


def _measured(measure: str, quantity: str, value: float, unit: str, n: int | None = None, **context: Any) -> Measured:
    return Measured(
        measurement=Measurement(measure=measure, quantity=quantity, value=value, unit=unit, n=n, context=context)
    )


class Images:
    """The images of a protocol, uint8 [N, D]: to train on, to select on each epoch, to test on at the end."""

    def __init__(self, train: NDArray[np.uint8], select: NDArray[np.uint8], test: NDArray[np.uint8], digest: str):
        self.train, self.select, self.test, self.digest = train, select, test, digest

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
