"""Supervision of a worker: a plan goes in, events come out, and however the process ends, there is a word for it.

The worker's side of this is `bench.running.worker_io`.
"""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from pydantic import BaseModel, ValidationError

from bench.errors import explain
from bench.records import Status
from bench.running.messages import EVENT, Event, Finished
from bench.running.worker_io import RUNNER

LONGEST_MESSAGE = 4 * 2**20
"""Bytes. The longest that a worker sends are the losses of an epoch's steps: 1.2 MB for 60,000 steps."""

CHUNK = 2**16
TAIL = 2**14


class End(NamedTuple):
    """How a worker ended, and whether it said so itself or died without a word."""

    finished: Finished
    said: bool


class _MessageTooLongError(Exception):
    """The worker writes without end."""


def supervise(
    command: Sequence[str],
    plan: BaseModel,
    environment: Mapping[str, str],
    timeout: float,
    take: Callable[[list[Event]], None],
    stopped: Callable[[], bool] = lambda: False,
) -> End:
    """Run a worker to its end, and end whatever it started.

    Args:
        command: its command line.
        plan: what it reads from standard input.
        environment: its variables.
        timeout: most seconds.
        take: called with the events, as they come; several where they came at once.
        stopped: asked twice a second whether the command was interrupted, for a thread that no signal reaches.

    Raises:
        KeyboardInterrupt: the command was interrupted; the worker has been ended.
    """
    said: Finished | None = None
    code: int | None = None
    status: Status = "failed"
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment, RUNNER: str(os.getpid())},
                start_new_session=True,
            )
        except OSError as error:
            return _died("unavailable", f"{command[0]} can't be started ({error.strerror})")
        assert process.stdin is not None
        deadline = time.monotonic() + timeout
        try:
            with suppress(BrokenPipeError):  # it died at once; how it ended says more than this
                process.stdin.write(plan.model_dump_json().encode() + b"\n")
                process.stdin.flush()  # and left open: that it closes tells the worker that the runner is gone
            for lines in _lines(process, deadline, stopped):
                events = [event for line in lines if (event := _event(line)) is not None]
                if said is None or said.status == "ok":  # what isn't understood stays so, whatever comes at the end
                    said = next((event for event in events if isinstance(event, Finished)), said)
                if events:
                    take(events)
            code = process.wait(timeout=max(0.1, deadline - time.monotonic()))
            reason = _ending(code)
        except subprocess.TimeoutExpired:
            status, reason = "timeout", f"no end after {timeout:g} s"
        except _MessageTooLongError:
            reason = f"wrote a message of more than {LONGEST_MESSAGE >> 20} MiB"
        finally:
            _kill(process)
        return End(said, said=True) if said and code is not None else _died(status, reason, log)


def _event(line: bytes) -> Event | None:
    """The event in a line; None where it is none, but what a library has written to the descriptor itself.

    One of a known kind that isn't as it should be, as a worker of another revision may send it, ends in failure.
    """
    try:
        return EVENT.validate_json(line)
    except ValidationError as error:
        kind = error.errors()[0]["loc"]
        return Finished(status="failed", reason=f"a message isn't understood: {explain(error)}") if kind else None


def _died(status: Status, reason: str, log: IO[bytes] | None = None) -> End:
    tail = "" if log is None else _tail(log)
    return End(Finished(status=status, reason=f"{reason}: {tail}" if tail else reason), said=False)


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as the kernel does to a process when memory runs out"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _lines(process: subprocess.Popen, deadline: float, stopped: Callable[[], bool]) -> Iterator[list[bytes]]:
    """What a worker writes, until it closes the pipe or has ended, though what it started may hold the pipe open.

    Raises:
        subprocess.TimeoutExpired: the deadline has passed.
        KeyboardInterrupt: it is to stop.
    """
    assert process.stdout is not None
    pipe, rest = process.stdout.fileno(), bytearray()
    while (remaining := deadline - time.monotonic()) > 0:
        if stopped():
            raise KeyboardInterrupt
        ended = process.poll() is not None  # asked before the wait: what it wrote last may still be on its way
        if not select.select([pipe], [], [], min(remaining, 0.5))[0]:
            if ended:
                return
            continue
        chunk = os.read(pipe, CHUNK)
        rest += chunk
        if b"\n" in chunk:
            *lines, rest = rest.split(b"\n")
            yield [bytes(line) for line in lines]
        if len(rest) > LONGEST_MESSAGE:
            raise _MessageTooLongError
        if not chunk:
            yield [bytes(rest)]
            return
    raise subprocess.TimeoutExpired(process.args, 0)


def _kill(process: subprocess.Popen) -> None:
    """End a worker and whatever it started, and close its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            pipe.close()  # type: ignore[union-attr]


def _tail(log: IO[bytes]) -> str:
    """The last line that a worker wrote to standard error, for the record."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
