"""The points of a sweep, one after the other: measured, or a row that says why not, and the rest go on."""

import gc
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil

from backends import Architecture, Backend, UnavailableError
from bench.inputs.protocol import Point
from bench.inputs.streams import initial_parameters
from bench.measures import sweep
from bench.records import Measurement
from bench.running.messages import Event, Finished, PointBegun, SweepPlan
from bench.running.worker_io import reason_of, serve, started, status_of


def events(plan: SweepPlan) -> Iterator[Event | Measurement]:
    """Carry a plan out.

    Raises:
        UnavailableError: no such framework, device, precision or mode here.
    """
    smallest = replace(plan.protocol.make_architecture(), couplings=1, hidden_layers=1, hidden_units=1)
    yield started(_make(plan, smallest))
    sweeper = _Sweeper(plan)
    for point in plan.points:
        yield PointBegun(point=point)
        yield from sweeper.measure(point)
    yield Finished(status="ok")


class _Sweeper:
    """Holds one model at a time, and what was learnt from the points before."""

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        self._model: Backend | None = None
        self._rates = dict(plan.rates)
        self._exhausted: dict[str, Point] = {}

    def measure(self, point: Point) -> list[Measurement]:
        """The figures of a point, or its row."""
        architecture, batch = sweep.setting(self.plan.protocol, point)
        if note := self._reason_to_leave_out(point, architecture, batch):
            return [sweep.left_out(point, f"left out: {note}")]
        rate = self._rates.get(point.operation)
        try:
            figures = sweep.measure(
                self._at(architecture), self.plan.protocol, point, rate=rate, seconds=self.plan.seconds
            )
        except UnavailableError:
            raise
        except Exception as error:
            self._model = None
            gc.collect()
            if status_of(error) == "out_of_memory":
                self._exhausted[point.operation] = point
            return [sweep.left_out(point, f"{status_of(error).replace('_', ' ')}: {reason_of(error)}")]
        seconds = figures[0].value
        assert seconds is not None
        self._rates[point.operation] = seconds / sweep.cost(architecture, batch, point.operation)
        return figures

    def _reason_to_leave_out(self, point: Point, architecture: Architecture, batch: int) -> str | None:
        operation = point.operation
        expected = self._rates.get(operation, 0.0) * sweep.cost(architecture, batch, operation)
        if expected > self.plan.longest_call:
            return f"a call would take about {expected:.2g} s"
        before = self._exhausted.get(operation)
        if before is not None and before.axis == point.axis and before.value < point.value:
            return f"out of memory at {before.value}"
        itemsize = 8 if self.plan.precision == "float64" else 4
        needed, free = sweep.memory(architecture, batch, operation, itemsize), psutil.virtual_memory().available
        # A GPU says so itself when its memory is full. A CPU's kernel kills a process, and not always the right one.
        if self.plan.device == "cpu" and needed > free:
            return f"needs about {needed / 2**30:.2g} GiB of memory; {free / 2**30:.2g} are free"
        return None

    def _at(self, architecture: Architecture) -> Backend:
        if self._model is None or self._model.architecture != architecture:
            self._model = None  # let go of before another one is made: two may not fit
            gc.collect()
            self._model = _make(self.plan, architecture)
        return self._model


def _make(plan: SweepPlan, architecture: Architecture) -> Backend:
    rule = plan.protocol.initial
    log_scale = "zeros" if rule.log_scale == "data" else rule.log_scale  # no images are read here
    initial = initial_parameters(architecture, 0, rule.kernels, log_scale, rule.permutations)
    return plan.model(architecture, initial)


if __name__ == "__main__":
    sys.exit(serve(SweepPlan, events))
