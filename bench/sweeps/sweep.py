"""Sweeps: how the cost of training, density and sampling grows with batch, width, depth and couplings.

Every axis is a round: the backends take turns, one fresh process each, so that a drift of the machine hits all alike. A
process that dies takes one point with it, which becomes a row that says so; another process goes on with the rest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import records
from bench.errors import BenchError
from bench.inputs.points import AXES, OPERATIONS, Axis, Operation, Point
from bench.inputs.protocol import Protocol
from bench.measures.sweep import left_out
from bench.records import Measurement, Plan, Record, Status, environment
from bench.running import runner
from bench.running.messages import Event, Finished, Measured, PointBegun, Started, SweepPlan
from bench.running.runner import Listener
from bench.running.supervisor import End, converse, each
from bench.running.worker_environment import worker_environment

VALUES: dict[Axis, tuple[int, ...]] = {
    "batch": tuple(2**i for i in range(17)),
    "width": (125, 250, 500, 1000, 2000, 4000),
    "depth": (1, 2, 3, 5, 8, 12),
    "couplings": (1, 2, 4, 8, 16),
}
TRAINING_BATCHES = (32, 8192)
"""Smallest and largest batch of `VALUES` at which training is measured."""


@dataclass(frozen=True)
class Request:
    """What to sweep.

    Attributes:
        protocol: the network, batch and optimiser around which it is swept.
        values: axis → the values on it.
        operations: what to time at each.
        backends: whose turn it is, in this order.
        device: "auto", "cpu" or "gpu".
        precision: of products.
        modes: backend → mode; the default one where a backend isn't named.
        folder: where records are written.
        interpreters: backend → the Python that has its framework; this one where a backend isn't named.
        timeout: most seconds for one process.
        longest_call: most seconds that one call, or one training step, may take.
        seconds: to spend on a point, about.
    """

    protocol: Protocol
    values: Mapping[Axis, Sequence[int]]
    operations: Sequence[Operation] = OPERATIONS
    backends: Sequence[str] = runner.DEFAULT_BACKENDS
    device: str = "auto"
    precision: str = "float32"
    modes: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path("results/runs")
    interpreters: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 3600.0
    longest_call: float = 2.0
    seconds: float = 0.5


def choose(axes: Sequence[str], values: Mapping[str, Sequence[int]]) -> dict[Axis, tuple[int, ...]]:
    """The values on each axis: those given, else the usual ones.

    Raises:
        BenchError: no such axis, or values of an axis that isn't swept.
    """
    for axis in (*axes, *values):
        if axis not in AXES:
            raise BenchError(f"axis {axis!r}: expected some of {', '.join(AXES)}")
    unused = [axis for axis in values if axis not in axes]
    if unused:
        raise BenchError(f"values of {unused[0]}, which isn't swept; the axes are {', '.join(axes)}")
    return {axis: tuple(sorted(set(values.get(axis, VALUES[axis])))) for axis in AXES if axis in axes}


def choose_operations(names: Sequence[str]) -> list[Operation]:
    """The operations of these names.

    Raises:
        BenchError: none, or no such operation.
    """
    chosen = [operation for operation in OPERATIONS if operation in names]
    if not chosen or len(chosen) < len(set(names)):
        raise BenchError(f"operations {','.join(names)!r}: expected some of {', '.join(OPERATIONS)}")
    return chosen


def points(axis: Axis, values: Sequence[int], operations: Sequence[Operation]) -> list[Point]:
    """The points on an axis, smallest first; all operations of one network together.

    Of the usual batches training has a range of its own; it has all of those that are asked for.
    """
    smallest, largest = TRAINING_BATCHES if tuple(values) == VALUES["batch"] else (min(values), max(values))
    return [
        Point(axis=axis, value=value, operation=operation)
        for value in values
        for operation in operations
        if not (axis == "batch" and operation == "train" and not smallest <= value <= largest)
    ]


def run(request: Request, listener: Listener, command: Callable[[str, str], list[str]] | None = None) -> list[Record]:
    """Make a sweep.

    Args:
        request: what to sweep.
        listener: told of every event.
        command: (backend, interpreter) → the worker's command line, in place of `python -m bench.sweeps.sweep_worker`.

    Returns:
        One record a backend, as written to the request's folder.

    Raises:
        BenchError: no GPU where one is asked for, or a folder that can't be written.
    """
    device = runner.resolve_device(request.device)
    run_id = runner.new_run_id()
    turns = {b: _Turn(request, b, device, run_id, command or worker_command) for b in request.backends}
    for round_, (axis, values) in enumerate(request.values.items()):
        wanted = points(axis, values, request.operations)
        left = list(request.values)[round_ + 1 :]
        for backend in runner.rotated(request.backends, round_):
            turn = turns[backend]
            if turn.status == "ok":
                listener.begin(backend, round_ + 1, len(wanted))
                turn.sweep(wanted, listener, f"ended before {', '.join(left)}" if left else "")
                listener.end(backend, turn.status, turn.reason)
    return [turn.conclude() for turn in turns.values()]


def worker_command(backend: str, interpreter: str) -> list[str]:
    """The command line of a sweep's worker."""
    return [interpreter, "-m", "bench.sweeps.sweep_worker"]


class _Turn:
    """One backend's way through the axes, and its record as it grows."""

    def __init__(
        self, request: Request, backend: str, device: str, run_id: str, command: Callable[[str, str], list[str]]
    ) -> None:
        self.request, self.backend, self.device, self.run_id, self.command = request, backend, device, run_id, command
        self.status: Status = "ok"
        self.reason: str | None = None
        self._mode = request.modes.get(backend)
        self._created = records.now()
        self._started: dict[str, Any] = {"environment": environment.fingerprint()}  # until a worker tells its own
        self._measurements: list[Measurement] = []
        self._rates: dict[str, float] = {}
        self._left = ""
        self._at: Point | None = None
        self._finished: Finished | None = None
        self._path: Path | None = None

    def sweep(self, wanted: Sequence[Point], listener: Listener, axes_left: str) -> None:
        """Measure points, in as many processes as it takes; should nobody come back for the other axes, say so."""
        left, self._left = list(wanted), axes_left
        try:
            while left and self.status == "ok":
                left = self._after(self._work(left, listener), left)
        except KeyboardInterrupt:
            self.status, self.reason = "failed", "interrupted"
            raise
        finally:
            self._save()

    def conclude(self) -> Record:
        """The record; a sweep without a single figure has failed."""
        if self.status == "ok" and all(m.value is None for m in self._measurements):
            self.status = "failed"
            self.reason = next((m.note for m in self._measurements), "no points")
            self._save()
        return self._record()

    def _work(self, left: list[Point], listener: Listener) -> End:
        """Start a worker on points and take in its events; how it ended, for when it didn't say so itself."""
        request = self.request
        interpreter = request.interpreters.get(self.backend, sys.executable)
        plan = SweepPlan(
            protocol=request.protocol,
            backend=self.backend,
            device="gpu" if self.device == "gpu" else "cpu",
            precision=request.precision,
            mode=self._mode,
            points=left,
            rates=self._rates,
            seconds=request.seconds,
            longest_call=request.longest_call,
        )
        self._at, self._finished = None, None

        def take(event: Event) -> None:
            self._take(event)
            listener.event(self.backend, event)

        variables = worker_environment(self.backend, interpreter, self.device)
        return converse(
            self.command(self.backend, interpreter), plan.model_dump_json(), variables, request.timeout, each(take)
        )

    def _after(self, end: End, left: list[Point]) -> list[Point]:
        """The points that remain: none, unless the worker died at one of them."""
        if self._finished is not None:
            self.status, self.reason = self._finished.status, self._finished.reason
            return []
        if self._at is None:
            self.status, self.reason = end
            return []
        return self._give_up(self._at, left, f"{end.status}: {end.reason}")

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self._mode = event.mode
                self._started = {"environment": event.environment, "precision": event.precision}
            case PointBegun():
                self._at = event.point
            case Measured():
                self._measurements.append(event.measurement)
                if event.measurement.quantity == "flop_rate":
                    self._keep_best_rate(event.measurement)
            case Finished():
                self._finished = event

    def _keep_best_rate(self, m: Measurement) -> None:
        """The best seen is the one to go by on another axis: a rate at a small size is mostly launches."""
        operation, rate = str(m.context["operation"]), 1 / (m.value or math.inf)
        self._rates[operation] = min(rate, self._rates.get(operation, math.inf))

    def _give_up(self, at: Point, left: list[Point], reason: str) -> list[Point]:
        """A row for the point that a worker died at, and for those that ask more of it; the others remain."""
        self._measurements.append(left_out(at, reason))
        after = left[left.index(at) + 1 :]
        larger = [point for point in after if point.operation == at.operation]
        self._measurements += [left_out(point, f"left out: at {at.value} the process ended") for point in larger]
        return [point for point in after if point not in larger]

    def _record(self) -> Record:
        protocol, request = self.request.protocol, self.request
        status, reason = self.status, self.reason
        if status == "ok" and self._left:
            status, reason = "failed", self._left
        plan = Plan(
            kind="sweep",
            protocol=protocol.name,
            protocol_digest=protocol.digest(),
            backend=self.backend,
            device=self.device,
            precision=request.precision,
            mode=self._mode,
            seed=0,
            epochs=0,
            batch=protocol.training.batch,
            rounds=1,
            architecture=protocol.make_architecture().to_dict(),
            optimiser=protocol.make_optimiser().to_dict(),
            loss=protocol.training.loss,
            caption=caption(protocol),
        )
        return Record(
            run=self.run_id,
            created=self._created,
            status=status,
            reason=reason,
            plan=plan,
            measurements=self._measurements,
            **self._started,
        )

    def _save(self) -> None:
        path = records.save(self._record(), self.request.folder)
        if self._path is not None and self._path != path:
            self._path.unlink(missing_ok=True)  # the name has the mode in it, which the worker chose meanwhile
        self._path = path


def caption(protocol: Protocol) -> str:
    """What is swept around, for people."""
    a = protocol.make_architecture()
    return (
        f"One size at a time around {a.couplings} couplings of {a.hidden_layers} hidden layers of {a.hidden_units}, "
        f"{a.dim} dimensions, batch {protocol.training.batch}"
    )
