"""The runner: puts each backend through a protocol, round by round, one fresh process at a time, and keeps the records.

Within a round the backends, each in every mode asked for, take turns, so that a drift of the machine hits all alike. A
backend that fails becomes a row that says how and the others go on. Records are written after every epoch, so that
nothing measured is lost.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import backends
from bench import records
from bench.errors import BenchError
from bench.inputs import data
from bench.inputs.protocol import Protocol as BenchProtocol
from bench.records import Kind, Measurement, Plan, Record, Status, environment
from bench.running.messages import EpochDone, Event, Finished, Measured, Started, WorkerPlan
from bench.running.supervisor import End, converse, each
from bench.running.worker_environment import cache_environment, worker_environment

DEFAULT_BACKENDS = tuple(name for name in backends.REGISTRY if name != backends.REFERENCE)
T = TypeVar("T")


class Listener(Protocol):
    """Who wants to know how it goes; see `bench.commands.progress`."""

    def begin(self, backend: str, round_: int, epochs: int) -> None:
        """A backend's turn begins."""

    def event(self, backend: str, event: Event) -> None:
        """Something happened."""

    def end(self, backend: str, status: Status, reason: str | None) -> None:
        """The turn is over."""


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        protocol: what each backend is put through.
        backends: whose turn it is, in this order.
        device: "auto", "cpu" or "gpu".
        precision: of products.
        modes: backend → its modes, each of which has turns of its own; the default one where a backend isn't named.
        seed: of weights, order and noise.
        folder: where records and weights are written.
        interpreters: backend → the Python that has its framework; this one where a backend isn't named.
        timeout: most seconds for one backend's turn.
        kind: of its records.
        stopped: whether the command was interrupted, for a run in a thread, which no signal reaches.
    """

    protocol: BenchProtocol
    backends: Sequence[str] = DEFAULT_BACKENDS
    device: str = "auto"
    precision: str = "float32"
    modes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    folder: Path = Path("results/runs")
    interpreters: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 6 * 3600.0
    kind: Kind = "run"
    stopped: Callable[[], bool] = lambda: False


def run(request: Request, listener: Listener, command: Callable[[str, str], list[str]] | None = None) -> list[Record]:
    """Run a protocol.

    Args:
        request: what to run.
        listener: told of every event.
        command: (label of a turn, interpreter) → the command line of a worker, in place of `bench.running.worker`.

    Returns:
        One record a backend and mode, as written to the request's folder.

    Raises:
        BenchError: nothing can be run: no images, a folder that can't be written, no GPU where one is asked for.
    """
    device = resolve_device(request.device)
    data.load(request.protocol.data.dataset)  # one clear error now, rather than one for each backend
    epochs = _epochs_by_round(request.protocol)
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".scratch-", dir=request.folder))
    except OSError as error:
        raise BenchError(f"{request.folder}: can't be written ({error.strerror})") from error
    run_id = new_run_id()
    turns = [
        Turn(request, label, backend, mode, device, run_id, scratch, command or worker_command)
        for label, (backend, mode) in arms(request).items()
    ]
    try:
        for round_, epochs_now in enumerate(epochs, start=1):
            for turn in rotated(turns, round_ - 1):
                if turn.status == "ok":
                    listener.begin(turn.label, round_, epochs_now)
                    turn.make_round(round_, len(epochs), epochs_now, listener)
                    listener.end(turn.label, turn.status, turn.reason)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [turn.record() for turn in turns]


def arms(request: Request) -> dict[str, tuple[str, str | None]]:
    """Label → backend and mode of everyone who takes turns; the label names the mode where a backend has several."""
    found: dict[str, tuple[str, str | None]] = {}
    for backend in request.backends:
        modes: Sequence[str | None] = request.modes.get(backend) or (None,)
        found |= {f"{backend}-{mode}" if len(modes) > 1 else backend: (backend, mode) for mode in modes}
    return found


def new_run_id() -> str:
    """A name for a run: when it began, and something that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"


def rotated(turns: Sequence[T], by: int) -> list[T]:
    """The turns, each round beginning with another, so that none is always the first on a cold machine."""
    shift = by % len(turns)
    return [*turns[shift:], *turns[:shift]]


def resolve_device(device: str) -> str:
    """Turn "auto" into "gpu" where the driver shows one, else into "cpu".

    Raises:
        BenchError: a GPU is asked for and none is visible.
    """
    gpus = environment.gpus()
    if device == "gpu" and not gpus:
        raise BenchError(
            "no GPU is visible to the NVIDIA driver here; use --device cpu, or look at `nice-bench doctor`"
        )
    return ("gpu" if gpus else "cpu") if device == "auto" else device


def worker_command(label: str, interpreter: str) -> list[str]:
    """The command line of a worker."""
    return [interpreter, "-m", "bench.running.worker"]


def _epochs_by_round(protocol: BenchProtocol) -> list[int]:
    """The protocol's epochs, spread over its rounds as evenly as can be."""
    epochs, rounds = protocol.training.epochs, protocol.training.rounds
    return [epochs // rounds + (i < epochs % rounds) for i in range(rounds)]


class Turn:
    """One backend's way through the rounds in one mode, and its record as it grows."""

    def __init__(
        self,
        request: Request,
        label: str,
        backend: str,
        mode: str | None,
        device: str,
        run_id: str,
        scratch: Path,
        command: Callable[[str, str], list[str]],
    ) -> None:
        self.request, self.label, self.backend, self.device = request, label, backend, device
        self.run_id, self.scratch, self.command = run_id, scratch, command
        self.status: Status = "ok"
        self.reason: str | None = None
        self._mode = mode
        self._created = records.now()
        self._parts: dict[str, Any] = {
            "curve": [],
            "measurements": [],
            "digests": {},
            "environment": environment.fingerprint(),  # until a worker tells its own
        }
        self._path: Path | None = None
        self._finished: Finished | None = None
        self._rounds_left = ""

    def record(self) -> Record:
        """The record as it stands; one that lacks rounds has failed, should nobody come back to make them."""
        protocol = self.request.protocol
        status: Status = self.status
        reason = self.reason
        if status == "ok" and self._rounds_left:
            status, reason = "failed", self._rounds_left
        plan = Plan(
            kind=self.request.kind,
            protocol=protocol.name,
            protocol_digest=protocol.digest(),
            backend=self.backend,
            device=self.device,
            precision=self.request.precision,
            mode=self._mode,
            seed=self.request.seed,
            epochs=protocol.training.epochs,
            batch=protocol.training.batch,
            rounds=protocol.training.rounds,
            architecture=protocol.make_architecture().to_dict(),
            optimiser=protocol.make_optimiser().to_dict(),
            loss=protocol.training.loss,
            target_loss=protocol.training.target_loss,
            caption=protocol.caption,
        )
        return Record(run=self.run_id, created=self._created, status=status, reason=reason, plan=plan, **self._parts)

    def make_round(self, round_: int, rounds: int, epochs: int, listener: Listener) -> None:
        """Start a worker for a round, take in its events and judge its end."""
        request = self.request
        plan = WorkerPlan(
            protocol=request.protocol,
            backend=self.backend,
            device="gpu" if self.device == "gpu" else "cpu",
            precision=request.precision,
            mode=self._mode,
            seed=request.seed,
            round=round_,
            rounds=rounds,
            epochs=epochs,
            state=str(self.scratch / f"{self.label}-state.safetensors"),
            best=str(self.scratch / f"{self.label}-best.safetensors"),
            weights=str(self.scratch / f"{self.label}-weights.safetensors"),
        )
        # Until the worker says otherwise, this is what a reader of the record should know.
        self.status, self.reason = "failed", f"ended in round {round_} without saying why"
        self._save()
        try:
            end = self._work(plan, listener)
        except KeyboardInterrupt:
            self.reason = f"interrupted in round {round_}"
            self._save()
            raise
        self._rounds_left = f"ended after round {round_} of {rounds}" if round_ < rounds else ""
        told = self._finished
        if told is not None:
            self.status, self.reason = told.status, told.reason
            self._parts["digests"] |= told.digests
            self._parts["environment"] |= told.environment
        else:
            self.status, self.reason = end
        if self.status == "ok" and round_ == rounds:
            self._conclude(Path(plan.weights))
        self._save()

    def _work(self, plan: WorkerPlan, listener: Listener) -> End:
        """Run a worker to its end; how it ended, for when it didn't say so itself."""
        interpreter = self.request.interpreters.get(self.backend, sys.executable)
        variables = worker_environment(self.backend, interpreter, self.device)
        variables |= cache_environment(self.scratch / f"{self.label}-cache", variables)
        self._finished = None

        def take(event: Event) -> None:
            self._take(event)
            listener.event(self.label, event)

        end = converse(
            self.command(self.label, interpreter),
            plan.model_dump_json(),
            variables,
            self.request.timeout,
            each(take),
            self.request.stopped,
        )
        if end.status == "timeout":
            self._finished = None
        return end

    def _take(self, event: Event) -> None:
        parts = self._parts
        match event:
            case Started():
                self._mode = event.mode
                parts["environment"] = event.environment
                parts["precision"] = event.precision
                parts["digests"] |= event.digests
            case EpochDone():
                parts["curve"].append(event.point)
                if event.first_epoch_losses:
                    parts["first_epoch_losses"] = event.first_epoch_losses
                self._save()
            case Measured():
                parts["measurements"].append(event.measurement)
            case Finished():
                self._finished = event

    def _conclude(self, weights: Path) -> None:
        """What follows from the whole curve; and the weights find their place beside the record."""
        protocol, curve, measurements = self.request.protocol, self._parts["curve"], self._parts["measurements"]
        if curve and curve[-1].train_loss is not None:
            measurements.append(_figure("training", "final_train_loss", curve[-1].train_loss, "nats"))
        target = protocol.training.target_loss
        if target is not None:
            of_training = protocol.training.target_of == "training"
            losses = [p.train_loss if of_training else p.test_loss for p in curve]
            reached = next((i for i, loss in enumerate(losses) if loss is not None and loss <= target), None)
            seconds = None if reached is None else sum(point.seconds for point in curve[: reached + 1])
            epochs = None if reached is None else curve[reached].epoch
            measurements.append(_figure("training", "epochs_to_target", epochs, "epochs"))
            measurements.append(_figure("training", "seconds_to_target", seconds, "s"))
        for round_ in range(1, protocol.training.rounds + 1):
            floors = [m for m in measurements if m.quantity == "train_epoch_seconds" and m.context["round"] == round_]
            times = [m for m in measurements if m.quantity == "seconds_per_epoch" and m.context["round"] == round_]
            if floors and times:
                ratio = times[0].value / floors[0].value
                measurements.append(_figure("floor", "training_ratio", ratio, "1", round=round_))
        if weights.is_file():
            path = self._save()
            weights.replace(path.with_suffix(".safetensors"))

    def _save(self) -> Path:
        path = records.save(self.record(), self.request.folder)
        if self._path is not None and self._path != path:
            self._path.unlink(missing_ok=True)  # the name has the mode in it, which the worker chose meanwhile
        self._path = path
        return path


def _figure(measure: str, quantity: str, value: float | None, unit: str, **context: Any) -> Measurement:
    return Measurement(measure=measure, quantity=quantity, value=value, unit=unit, context=context)
