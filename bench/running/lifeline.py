"""The lifeline of a worker: it ends when its runner is gone, however that ended, and never outlives it."""

import ctypes
import os
import signal
import sys
from threading import Thread

RUNNER = "NICE_BENCH_RUNNER"
"""The variable that tells a worker the process id of its runner."""

PR_SET_PDEATHSIG = 1


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
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
