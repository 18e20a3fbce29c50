"""The base of all that is measured in processes of its own: `run`, `profile`, `sweep` and `peers`.

A variant is a backend in a mode. It has a record, which is saved whenever something was measured, and before a listener
hears of it: however the runner ends, what was shown lies on disk. Rounds are interleaved: within one the
variants follow each other, a fresh process each, so that a drift of the machine hits all alike. One that fails becomes
a row that says how, and the others go on.
"""

import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel

import backends
from bench import records
from bench.errors import BenchError
from bench.records import EpochPoint, Measurement, Plan, Record, Status, environment
from bench.running.messages import EpochDone, Event, Finished, Measured, Started
from bench.running.supervisor import End, supervise
from bench.running.worker_environment import worker_environment

DEFAULT_BACKENDS = tuple(name for name in backends.REGISTRY if name != backends.REFERENCE)
Device = Literal["cpu", "gpu"]
Command = Callable[[str, str], list[str]]
"""(label of a variant, interpreter) → the command line of a worker."""

T = TypeVar("T")
WorkerPlanT = TypeVar("WorkerPlanT", bound=BaseModel)


class Listener(Protocol):
    """What is called as a run proceeds; see `bench.commands.progress`."""

    def begin(self, label: str, round_: int, total: int | None) -> None:
        """A variant's round begins; `total` is how many epochs or points it has, if that is known."""

    def event(self, label: str, event: Event) -> None:
        """Something happened; what was measured is on disk by now."""

    def end(self, label: str, status: Status, reason: str | None) -> None:
        """The round is over."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to measure, as far as all commands share it.

    Attributes:
        backends: which, in this order.
        device: "auto", "cpu" or "gpu".
        precision: of products.
        modes: backend → its modes, each of which is a variant; the default one where a backend isn't named.
        seed: of weights, order and noise.
        folder: where records and weights are written.
        interpreters: backend → the Python that has its framework; this one where a backend isn't named.
        timeout: most seconds for one process.
        command: the worker's command line, in place of the usual one.
        stopped: whether the command was interrupted, for a run in a thread, which no signal reaches.
        supervise: runs a worker to its end, in place of `supervisor.supervise`.
    """

    backends: Sequence[str] = DEFAULT_BACKENDS
    device: str = "auto"
    precision: str = "float32"
    modes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seed: int = 0
    folder: Path = Path("results/runs")
    interpreters: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 3600.0
    command: Command | None = None
    stopped: Callable[[], bool] = lambda: False
    supervise: Callable[..., End] | None = None

    def variants(self) -> dict[str, tuple[str, str | None]]:
        """Label → backend and mode of each variant; the label names the mode where a backend has several."""
        found: dict[str, tuple[str, str | None]] = {}
        for backend in self.backends:
            modes: Sequence[str | None] = self.modes.get(backend) or (None,)
            found |= {f"{backend}-{mode}" if len(modes) > 1 else backend: (backend, mode) for mode in modes}
        return found


class Variant(ABC, Generic[WorkerPlanT]):
    """One variant's record as it grows, and the workers that make it grow.

    What is measured differs in the methods below: what a worker is asked for in a round, what else its events mean,
    what goes on after it has died, and what follows at the end.
    """

    worker: ClassVar[str]
    """The module that a worker runs."""

    def __init__(self, request: Request, label: str, plan: Plan, run_id: str) -> None:
        self.request, self.label = request, label
        self.going, self.first_round = True, 1
        self.record = Record(
            run=run_id,
            status="failed",
            reason="not begun",
            plan=plan,
            environment=environment.fingerprint(),  # until a worker sends its own
        )
        self._path: Path | None = None

    @abstractmethod
    def worker_plan(self, round_: int) -> WorkerPlanT:
        """What the first worker of a round is asked for; rounds count from 1."""

    def after_death(self, plan: WorkerPlanT, end: Finished) -> WorkerPlanT | Finished:
        """What another worker is asked for after one has died without a word, or how the round has ended."""
        return end

    def take(self, event: Event) -> None:
        """Take in what is this kind's own."""

    def on_disk(self, event: Event) -> None:
        """Do what an event asks for once it and all before it are in the record on disk."""

    def conclude(self) -> Finished:
        """What follows at the end of a variant that made all of its rounds, and how it has ended."""
        return Finished(status="ok")

    def variables(self) -> dict[str, str]:
        """The worker's environment variables."""
        return worker_environment(self.record.plan.backend, self.interpreter, self.device)

    @property
    def device(self) -> Device:
        """Where it runs."""
        return "gpu" if self.record.plan.device == "gpu" else "cpu"

    @property
    def interpreter(self) -> str:
        """The Python that has its framework."""
        return self.request.interpreters.get(self.record.plan.backend, sys.executable)

    def make_round(self, round_: int, rounds: int, listener: Listener) -> Finished:
        """Make a round, in as many processes as it takes; the record says how it ended, and is on disk."""
        self.save("failed", f"ended in round {round_} without saying why")  # what is true should this process be killed
        outcome: WorkerPlanT | Finished = self.worker_plan(round_)
        try:
            while not isinstance(outcome, Finished):
                outcome = self._work(outcome, listener)
        except KeyboardInterrupt:
            self.save("failed", f"interrupted in round {round_}")
            raise
        self.going = outcome.status == "ok"
        if self.going and round_ < rounds:
            self.save("failed", f"ended after round {round_} of {rounds}")  # unless the others are made
        else:
            outcome = self.conclude() if self.going else outcome
            self.save(outcome.status, outcome.reason)
        return outcome

    def _work(self, plan: WorkerPlanT, listener: Listener) -> WorkerPlanT | Finished:
        """Run a worker to its end."""

        def take(events: list[Event]) -> None:
            for event in events:
                self._take(event)
            if any(isinstance(event, Started | EpochDone | Measured) for event in events):
                self.save()
            for event in events:
                self.on_disk(event)
                listener.event(self.label, event)

        request, interpreter = self.request, self.interpreter
        command = (request.command or partial(worker_command, self.worker))(self.label, interpreter)
        run = request.supervise or supervise
        finished, said = run(command, plan, self.variables(), request.timeout, take, request.stopped)
        self._change(
            digests=self.record.digests | finished.digests,
            environment=self.record.environment | finished.environment,
        )
        return finished if said else self.after_death(plan, finished)

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._change(
                    plan=self.record.plan.model_copy(update={"mode": event.mode}),
                    environment=event.environment,
                    precision=event.precision,
                    digests=self.record.digests | event.digests,
                )
            case EpochDone():
                self.record.curve.append(event.point if event.part == 1 else self._joined(event))
                if event.first_epoch_losses:
                    self._change(first_epoch_losses=[*self.record.first_epoch_losses, *event.first_epoch_losses])
            case Measured():
                self.add(event.measurement)
        self.take(event)

    def _joined(self, event: EpochDone) -> EpochPoint:
        """The epoch so far: the last point of the curve, which is taken off it, and another part of the epoch."""
        before, point = self.record.curve.pop(), event.point
        mean = None
        if before.train_loss is not None and point.train_loss is not None:
            mean = before.train_loss + (point.train_loss - before.train_loss) / event.part
        seconds, others = before.seconds + point.seconds, None
        if before.others is not None and point.others is not None:
            others = (before.others * before.seconds + point.others * point.seconds) / seconds
        return point.model_copy(update={"train_loss": mean, "seconds": seconds, "others": others})

    def add(self, measurement: Measurement) -> None:
        """Add a figure to the record."""
        self.record.measurements.append(measurement)

    def _change(self, **fields: object) -> None:
        self.record = self.record.model_copy(update=fields)

    def save(self, status: Status | None = None, reason: str | None = None) -> Path:
        """Write the record as it is, with another status and reason if they are given; where it lies."""
        if status is not None:
            self._change(status=status, reason=reason)
        path = records.save(self.record, self.request.folder)
        if self._path is not None and self._path != path:
            self._path.unlink(missing_ok=True)  # the name has the mode in it, which the worker chose meanwhile
        self._path = path
        return path


def worker_command(module: str, label: str, interpreter: str) -> list[str]:
    """The usual command line of a worker."""
    return [interpreter, "-m", module]


def carry_out(variants: Sequence[Variant], totals: Sequence[int | None], listener: Listener) -> list[Record]:
    """Make all rounds of all variants, interleaved; one that has failed is left out of the rounds that follow.

    Args:
        variants: each round begins with another one, so that none is always the first on a cold machine.
        totals: how many epochs or points each round has, where it is known.
        listener: is called with every event.
    """
    for round_, total in enumerate(totals, start=1):
        for variant in rotated(variants, round_ - 1):
            if variant.going and round_ >= variant.first_round:
                listener.begin(variant.label, round_, total)
                outcome = variant.make_round(round_, len(totals), listener)
                listener.end(variant.label, outcome.status, outcome.reason)
    return [variant.record for variant in variants]


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The items, from the one at `by` on, and then those before it."""
    shift = by % len(items)
    return [*items[shift:], *items[:shift]]


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder in `folder`, which is made if need be, for what passes from one process to the next; it is removed.

    Raises:
        BenchError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=".scratch-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise BenchError(f"{folder}: can't be written ({error.strerror})") from error
    with temporary as path:
        yield Path(path)


def new_run_id() -> str:
    """A name for a run: when it began, and something that no other run has."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"


def resolve_device(device: str) -> Device:
    """Turn "auto" into "gpu" where the driver shows one, else into "cpu".

    Raises:
        BenchError: a GPU is asked for and none is visible.
    """
    gpus = environment.gpus()
    if device == "gpu" and not gpus:
        raise BenchError(f"no GPU is visible to the NVIDIA driver here ({environment.why_no_gpus()}); use --device cpu")
    return "gpu" if device == "gpu" or (device == "auto" and gpus) else "cpu"
