"""A worker's side of its supervision: it ends with its runner, reads its plan, and sends events as JSON lines.

However it ends, that is an event too. The runner's side of this is `bench.running.supervisor`.
"""

import ctypes
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Thread
from typing import TextIO, TypeVar

from pydantic import BaseModel

from backends import Backend, UnavailableError
from bench.errors import DisagreesError, DivergedError
from bench.measures.precision import probe
from bench.records import Measurement, Status
from bench.records.environment import fingerprint, gpu_state
from bench.running.messages import Event, Finished, Measured, Started

Plan = TypeVar("Plan", bound=BaseModel)

RUNNER = "NICE_BENCH_RUNNER"
"""The variable that gives a worker the process id of its runner."""

PR_SET_PDEATHSIG = 1

# Lines of a log: what stands before the words, and what says that no GPU can be used.
PREFIX = re.compile(r"^[A-Z]\d{4} \S+ +\d+ \S+\] |^(\S+:\d+: )?\w+(Error|Warning): ")
NO_GPU = re.compile(
    "(?i)(?=.*(cuda|gpu|driver|dlopen|library|plugin))(?=.*(could not|cannot|fail|unable|not compatible))"
)
LOG_BYTES = 2**18

OUT_OF_MEMORY = ("out of memory", "out_of_memory", "resource_exhausted", "bad_alloc", "not enough memory")


def serve(plan: type[Plan], carry_out: Callable[[Plan], Iterable[Event | Measurement]]) -> int:
    """Read the plan that the runner sends, send what comes of it, and return the exit code.

    From here on the process ends with the runner. Events go to what standard output was, and whatever is printed goes
    to standard error.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    text = sys.stdin.readline()
    end_with_runner()
    return 0 if send(carry_out(plan.model_validate_json(text)), events) == "ok" else 1


def end_with_runner(platform: str = sys.platform) -> None:
    """Have this process killed when the one that started it is gone; to be called once its plan has been read.

    Linux does it, whatever this process is busy with then. Elsewhere a thread waits until standard input is closed; so
    it does on Linux where the runner isn't the parent, since it is gone already or has started a script around this.
    """
    runner = os.environ.get(RUNNER)
    if runner is None:  # started by hand
        return
    if platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() == int(runner):
            return
    Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    """Wait until standard input is closed, then end this process."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def send(events: Iterable[Event | Measurement], out: TextIO) -> Status:
    """Write events as they happen, the last one a `Finished`; an exception becomes one that says what it was."""

    def emit(event: Event | Measurement) -> None:
        message = Measured(measurement=event) if isinstance(event, Measurement) else event
        out.write(message.model_dump_json() + "\n")
        out.flush()

    try:
        for event in events:
            emit(event)
        return "ok"
    except Exception as error:
        status = status_of(error)
        if status == "failed":
            traceback.print_exc()
        reason = reason_of(error)
        if status == "unavailable" and "no gpu is visible" in reason:  # why not stands in the framework's log
            reason = ": ".join([reason, *said_of_gpus()[-1:]])
        emit(Finished(status=status, reason=reason))
        return status


def started(model: Backend, **digests: str) -> Started:
    """The event that a model has been made, with what it runs on and the precision of its products."""
    return Started(
        environment=fingerprint() | {"framework": model.versions(), "gpu_before": gpu_state()},
        mode=model.mode,
        precision=probe(model),
        digests=digests,
    )


def status_of(error: Exception) -> Status:
    """The status of what ended in this exception."""
    if isinstance(error, UnavailableError):
        return "unavailable"
    if isinstance(error, DivergedError):
        return "diverged"
    text = f"{type(error).__name__} {error}".lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return "out_of_memory"
    return "failed"


def reason_of(error: Exception) -> str:
    """Its first line; headed by its type, unless its message was written for people to read."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    expected = isinstance(error, UnavailableError | DivergedError | DisagreesError)
    return first if expected else f"{type(error).__name__}: {first}"[:500]


def said_of_gpus() -> list[str]:
    """Return what standard error, which the runner keeps in a file, says of why no GPU can be used: 3 lines at most."""
    text = ""
    with suppress(OSError):  # a terminal or a pipe, where this isn't a worker
        text = os.pread(2, LOG_BYTES, 0).decode(errors="replace")
    lines = [line for line in text.splitlines() if line[:1].strip() and NO_GPU.match(line)]
    return list(dict.fromkeys(PREFIX.sub("", line).strip() for line in lines))[-3:]
