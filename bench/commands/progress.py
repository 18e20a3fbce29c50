"""Live progress on standard error: a bar with loss, epoch time and time left, or plain lines off a terminal."""

import io
import os
import sys
import threading
from typing import IO, Self, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.records import Measurement, Status
from bench.running.messages import EpochDone, Event, Measured, PeerBegun, PointBegun


class StandardError(io.TextIOBase):
    """Standard error as it is when something is written; that it breaks (a closed terminal) is no reason to stop."""

    def write(self, text: str) -> int:
        """Write and flush, or write nowhere from here on."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        return len(text)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """Its descriptor."""
        return sys.stderr.fileno()


errors = Console(file=cast("IO[str]", StandardError()))


class LiveProgress:
    """A `bench.running.variant.Listener` that shows what happens; use it in a `with` statement."""

    def __init__(self, console: Console = errors) -> None:
        self.console = console
        self._here = threading.local()  # runs side by side have a thread and a bar each
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]:<44}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, label: str, round_: int, total: int | None) -> None:
        """A variant's round begins."""
        self._here.task = self._progress.add_task(f"{label}, round {round_}", total=total, state="starting")

    def event(self, label: str, event: Event) -> None:
        """An epoch, a point of a sweep or a peer moves the bar; a measurement is named."""
        if isinstance(event, EpochDone):
            point = event.point
            part = point.test_loss is None and point.note is None  # of an epoch: what is selected on is not looked at
            state = f"loss {_nats(point.train_loss)}, " + ("" if part else f"selection {_nats(point.test_loss)}, ")
            state += f"{point.seconds:.1f} s"
            self._progress.update(self._here.task, advance=1, state=state)
            if not self.console.is_terminal:
                self.console.print(f"{label}: epoch {point.epoch}: {state}", soft_wrap=True, highlight=False)
        elif isinstance(event, PointBegun):
            at = event.point
            self._progress.update(self._here.task, advance=1, state=f"{at.operation} at {at.axis} {at.value}")
        elif isinstance(event, PeerBegun):
            self._progress.update(self._here.task, advance=1, state=f"{event.peer}: {event.stage}")
        elif isinstance(event, Measured):
            self._measured(label, event.measurement)

    def end(self, label: str, status: Status, reason: str | None) -> None:
        """The round is over."""
        self._progress.update(self._here.task, state=status)
        if status != "ok":
            self.console.print(f"{label}: {status}: {reason}", soft_wrap=True, highlight=False, markup=False)

    def _measured(self, label: str, m: Measurement) -> None:
        """A figure is named; off a terminal a point of a sweep and a peer have a line with their time."""
        if m.measure not in ("sweep", "peers"):
            self._progress.update(self._here.task, state=f"{m.measure}: {m.quantity}")
        elif m.quantity in ("seconds", "step_seconds") and not self.console.is_terminal:
            at = " ".join(f"{key} {value}" for key, value in m.context.items())
            line = f"{label}: {at}: {m.note or f'{m.value:.4g} {m.unit}'}"
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _nats(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.2f}"
