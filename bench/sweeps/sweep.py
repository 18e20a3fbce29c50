"""Sweeps: how the cost of training, density and sampling grows with batch, width, depth and couplings.

Every axis is a round. A process that dies takes one point with it, which becomes a row that says so; another process
goes on with the rest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.errors import BenchError
from bench.inputs.points import AXES, OPERATIONS, Axis, Operation, Point
from bench.inputs.protocol import Protocol
from bench.measures.sweep import left_out
from bench.records import Plan, Record
from bench.running import variant
from bench.running.messages import Event, Finished, Measured, PointBegun, SweepPlan
from bench.running.runner import plan_of
from bench.running.variant import Listener, Variant, carry_out, new_run_id, resolve_device, scratch

VALUES: dict[Axis, tuple[int, ...]] = {
    "batch": tuple(2**i for i in range(17)),
    "width": (125, 250, 500, 1000, 2000, 4000),
    "depth": (1, 2, 3, 5, 8, 12),
    "couplings": (1, 2, 4, 8, 16),
}
TRAINING_BATCHES = (32, 8192)
"""Smallest and largest batch of `VALUES` at which training is measured."""


@dataclass(frozen=True, kw_only=True)
class Request(variant.Request):
    """What to sweep.

    Attributes:
        protocol: the network, batch and optimiser around which it is swept.
        values: axis → the values on it.
        operations: what to time at each.
        longest_call: most seconds that one call, or one training step, may take.
        seconds: to spend on a point, about.
    """

    protocol: Protocol
    values: Mapping[Axis, Sequence[int]]
    operations: Sequence[Operation] = OPERATIONS
    longest_call: float = 2.0
    seconds: float = 0.5


def choose(axes: Sequence[str], values: Mapping[str, Sequence[int]]) -> dict[Axis, tuple[int, ...]]:
    """The values on each axis: those given, else the usual ones.

    Raises:
        BenchError: no such axis, or values of an axis that isn't swept.
    """
    if not axes:
        raise BenchError(f"no axis is named; expected some of {', '.join(AXES)}")
    for axis in (*axes, *values):
        if axis not in AXES:
            instead = "; `nice-bench run --devices 1,2,4` is the sweep over devices" if axis == "devices" else ""
            raise BenchError(f"axis {axis!r}: expected some of {', '.join(AXES)}{instead}")
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


def run(request: Request, listener: Listener) -> list[Record]:
    """Make a sweep, and return one record a variant, as written to the request's folder.

    Raises:
        BenchError: no GPU where one is asked for, or a folder that can't be written.
    """
    device, run_id, protocol = resolve_device(request.device), new_run_id(), request.protocol
    rounds = [points(axis, values, request.operations) for axis, values in request.values.items()]
    plan = partial(plan_of, request, protocol, device, kind="sweep", epochs=0, rounds=1, caption=caption(protocol))
    with scratch(request.folder):
        variants = [
            Sweep(request, label, plan(backend, mode), run_id, rounds)
            for label, (backend, mode) in request.variants().items()
        ]
        return carry_out(variants, [len(wanted) for wanted in rounds], listener)


class Sweep(Variant[SweepPlan]):
    """A variant's way through the axes."""

    worker = "bench.sweeps.sweep_worker"

    def __init__(
        self, request: Request, label: str, plan: Plan, run_id: str, rounds: Sequence[Sequence[Point]]
    ) -> None:
        super().__init__(request, label, plan, run_id)
        self.sweep, self.rounds = request, rounds
        self._rates: dict[str, float] = {}
        self._at: Point | None = None

    def worker_plan(self, round_: int) -> SweepPlan:
        """The points of an axis."""
        return self._plan(self.rounds[round_ - 1])

    def _plan(self, wanted: Sequence[Point]) -> SweepPlan:
        self._at = None
        return SweepPlan(
            protocol=self.sweep.protocol,
            backend=self.record.plan.backend,
            device=self.device,
            precision=self.record.plan.precision,
            mode=self.record.plan.mode,
            points=[*wanted],
            rates=self._rates,
            seconds=self.sweep.seconds,
            longest_call=self.sweep.longest_call,
        )

    def take(self, event: Event) -> None:
        """Keep the point that is at work, and the best rate: one at a small size is mostly launches."""
        if isinstance(event, PointBegun):
            self._at = event.point
        elif isinstance(event, Measured) and event.measurement.quantity == "flop_rate":
            operation, rate = str(event.measurement.context["operation"]), 1 / (event.measurement.value or math.inf)
            self._rates[operation] = min(rate, self._rates.get(operation, math.inf))

    def after_death(self, plan: SweepPlan, end: Finished) -> SweepPlan | Finished:
        """A row for the point that the worker died at, and for those that ask more of it; the others remain."""
        at = self._at
        if at is None:
            return end
        self.add(left_out(at, f"{end.status}: {end.reason}"))
        after = plan.points[plan.points.index(at) + 1 :]
        for point in after:
            if point.operation == at.operation:
                self.add(left_out(point, f"left out: at {at.value} the process ended"))
        remaining = [point for point in after if point.operation != at.operation]
        return self._plan(remaining) if remaining else Finished(status="ok")

    def conclude(self) -> Finished:
        """A sweep without a single figure has failed."""
        measurements = self.record.measurements
        if any(m.value is not None for m in measurements):
            return Finished(status="ok")
        return Finished(status="failed", reason=next((m.note for m in measurements), "no points"))


def caption(protocol: Protocol) -> str:
    """What is swept around, for people."""
    a = protocol.make_architecture()
    return (
        f"One size at a time around {a.couplings} couplings of {a.hidden_layers} hidden layers of {a.hidden_units}, "
        f"{a.dim} dimensions, batch {protocol.training.batch}"
    )
