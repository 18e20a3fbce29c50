"""A command in a process of its own, which is asked to end as soon as this one is.

`python -m bench.running.job FOLDER COMMAND…` is what a SLURM job runs: the command, once, and a note of how it ended.
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from pydantic import BaseModel

from bench.errors import writing

GRACE_SECONDS = 30.0
"""For an interrupted command to write what it has measured."""

INTERRUPTED = 130
"""The exit code of a `nice-bench` that was interrupted."""


class Ending(BaseModel):
    """How a command ended.

    Attributes:
        exit_code: INTERRUPTED if it was asked to end. (Its own is not known then: Python may lose it where a signal
            comes while the process is waited for, and says 0.)
        stopped: why it was asked to end, or None: "budget" or "signal".
    """

    exit_code: int
    seconds: float
    stopped: str | None = None


def interrupt_on_signals() -> None:
    """Make the first SIGTERM or SIGHUP a KeyboardInterrupt, and ignore later ones while what was measured is written.

    A batch system sends SIGTERM to all processes of a job, so that one which is passed on comes twice.
    """
    came = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, interrupt)


def carry_out(command: Sequence[str], seconds: float | None = None, keep_open: Sequence[int] = ()) -> Ending:
    """Run a command to its end, or until the seconds are over or this process is interrupted.

    Args:
        command: what to run, in a session of its own: Ctrl-C reaches it from here, once, as every signal does.
        seconds: after which it is asked to end, and made to if it doesn't.
        keep_open: file descriptors that it inherits.
    """
    start, stopped = time.monotonic(), None
    process = subprocess.Popen(command, start_new_session=True, pass_fds=keep_open)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        stopped = "budget"
    except KeyboardInterrupt:
        stopped = "signal"
    if stopped:
        process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE_SECONDS)
        finally:  # also if this process is interrupted again
            process.kill()
            process.wait()
    code = INTERRUPTED if stopped or process.returncode == -signal.SIGTERM else process.returncode
    return Ending(exit_code=code, seconds=time.monotonic() - start, stopped=stopped)


def beside(folder: Path, suffix: str) -> Path:
    """The file of that suffix beside a folder of the same name."""
    return folder.with_name(folder.name + suffix)


def main(arguments: Sequence[str]) -> int:
    """Run a command unless another job has begun it, and write FOLDER.ended when it has ended."""
    interrupt_on_signals()
    folder, command = Path(arguments[0]), arguments[1:]
    try:
        with beside(folder, ".job").open("x", encoding="utf-8") as file:
            file.write(f"job {os.environ.get('SLURM_JOB_ID')} on {platform.node()}\n")
    except FileExistsError:
        print(f"{folder}: another job has begun this; nothing is done twice", file=sys.stderr)
        return 0
    ending = carry_out(command)
    with writing(beside(folder, ".ended")) as temporary:
        temporary.write_text(ending.model_dump_json(), encoding="utf-8")
    return ending.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
