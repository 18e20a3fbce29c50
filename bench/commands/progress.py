"""Live progress on standard error: a bar with loss, epoch time and time left, or plain lines off a terminal."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.records import Measurement, Status
from bench.running.messages import EpochDone, Event, Measured, PointBegun


class LiveProgress:
    """A `runner.Listener` that shows what happens; use it in a `with` statement."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._here = threading.local()  # runs side by side have a thread and a bar each
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]:<44}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> LiveProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, backend: str, round_: int, epochs: int) -> None:
        """A backend's turn begins."""
        self._here.task = self._progress.add_task(f"{backend}, round {round_}", total=epochs, told="starting")

    def event(self, backend: str, event: Event) -> None:
        """An epoch or a point of a sweep moves the bar; a measurement is named."""
        if isinstance(event, EpochDone):
            point = event.point
            told = f"loss {_nats(point.train_loss)}, test {_nats(point.test_loss)}, {point.seconds:.1f} s an epoch"
            self._progress.update(self._here.task, advance=1, told=told)
            if not self.console.is_terminal:
                self.console.print(f"{backend}: epoch {point.epoch}: {told}", soft_wrap=True, highlight=False)
        elif isinstance(event, PointBegun):
            at = event.point
            self._progress.update(self._here.task, advance=1, told=f"{at.operation} at {at.axis} {at.value}")
        elif isinstance(event, Measured):
            self._measured(event.measurement)

    def end(self, backend: str, status: Status, reason: str | None) -> None:
        """The turn is over."""
        self._progress.update(self._here.task, told=status)
        if status != "ok":
            self.console.print(f"{backend}: {status}: {reason}", soft_wrap=True, highlight=False, markup=False)

    def _measured(self, m: Measurement) -> None:
        """A figure is named; a point of a sweep is told with its time."""
        if m.measure != "sweep":
            self._progress.update(self._here.task, told=f"{m.measure}: {m.quantity}")
        elif m.quantity == "seconds" and not self.console.is_terminal:
            at = f"{m.context['operation']} at {m.context['axis']} {m.context['value']}"
            self.console.print(f"{at}: {m.note or f'{m.value:.4g} s'}", soft_wrap=True, highlight=False, markup=False)


def _nats(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.2f}"
