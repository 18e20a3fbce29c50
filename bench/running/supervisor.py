"""A conversation with a worker: a plan goes in, events come out, and however the process ends, there is a word for it.

The runners of protocols and of sweeps have this in common: see `bench.running.runner` and `bench.sweeps.sweep`.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from pydantic import ValidationError

from bench.records import Status
from bench.running.messages import EVENT, Event


class End(NamedTuple):
    """How a process ended, for when it didn't say so itself in a `Finished` event."""

    status: Status
    reason: str


def converse(
    command: Sequence[str],
    plan: str,
    environment: Mapping[str, str],
    timeout: float,
    take: Callable[[bytes], None],
    stopped: Callable[[], bool] = lambda: False,
) -> End:
    """Run a worker to its end, and end whatever it started.

    Args:
        command: its command line.
        plan: what it reads from standard input.
        environment: its variables.
        timeout: most seconds.
        take: told of every line, as it comes; `each` makes one of what is told of events.
        stopped: asked twice a second whether the command was interrupted, for a thread that no signal reaches.

    Raises:
        KeyboardInterrupt: the command was interrupted; the worker has been ended.
    """
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return End("unavailable", f"{command[0]} can't be started ({error.strerror})")
        end = _talk(process, plan, timeout, take, stopped)
        tail = _tail(log)
    return end._replace(reason=f"{end.reason}: {tail}") if tail else end


def each(take: Callable[[Event], None]) -> Callable[[bytes], None]:
    """From what takes events to what takes lines."""

    def line(text: bytes) -> None:
        try:
            event = EVENT.validate_json(text)
        except ValidationError:
            return  # not ours: a library that writes to the descriptor itself
        take(event)

    return line


def _talk(
    process: subprocess.Popen,
    plan: str,
    timeout: float,
    take: Callable[[bytes], None],
    stopped: Callable[[], bool],
) -> End:
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
    reader.start()
    deadline = time.monotonic() + timeout
    try:
        with suppress(BrokenPipeError):  # it died at once; how it ended says more than this
            process.stdin.write(plan.encode())
        with suppress(BrokenPipeError):
            process.stdin.close()
        for line in _until_ended(process, lines, deadline, stopped):
            take(line)
        code = process.wait(timeout=max(0.1, deadline - time.monotonic()))
    except (queue.Empty, subprocess.TimeoutExpired):
        return End("timeout", f"no end after {timeout:g} s")
    finally:
        _kill(process)
        reader.join(timeout=5)
        if not reader.is_alive():
            process.stdout.close()
    if code == -signal.SIGKILL:
        return End("failed", "killed by SIGKILL, as the kernel does to a process when memory runs out")
    return End("failed", f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}")


def _read_lines(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _until_ended(
    process: subprocess.Popen, lines: queue.Queue[bytes | None], deadline: float, stopped: Callable[[], bool]
) -> Iterator[bytes]:
    """The lines of a worker, until it closes the line or has ended, though what it started may hold the line open.

    Raises:
        queue.Empty: the deadline has passed.
        KeyboardInterrupt: it is to stop.
    """
    while (remaining := deadline - time.monotonic()) > 0:
        if stopped():
            raise KeyboardInterrupt
        ended = process.poll() is not None  # asked before the wait: what it wrote last may still be on its way
        try:
            line = lines.get(timeout=min(remaining, 0.5))
        except queue.Empty:
            if ended:
                return
            continue
        if line is None:
            return
        yield line
    raise queue.Empty


def _kill(process: subprocess.Popen) -> None:
    """End a worker and whatever it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: IO[bytes]) -> str:
    """The last line that a worker wrote to standard error, for the record."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
