"""Disturbance: how much of this process' cores others used while it was timed.

One other process made PyTorch eleven times slower on two cores, and nothing in the figures said so. Where more than
`LIMIT` of the cores' time went elsewhere, the figures of speed are called disturbed: shown, and never compared.
"""

import os
import time
from pathlib import Path

LIMIT = 0.1

STAT = Path("/proc/stat")
IDLE_FIELDS = (3, 4)  # idle and iowait, of user nice system idle iowait irq softirq steal
FIELDS = 8  # what a guest uses is counted as user, too


class Others:
    """A watch on what other processes use of the cores that this one may run on; only Linux shows that."""

    def __init__(self) -> None:
        self._start = _now()

    def share(self) -> float | None:
        """Return the share of the cores' time, 0 to 1, that others used since the last call; None if not known."""
        start, self._start = self._start, _now()
        if start is None or self._start is None:
            return None
        seconds, busy, own = (now - then for now, then in zip(self._start, start, strict=True))
        return min(1.0, max(0.0, (busy - own) / (seconds * len(os.sched_getaffinity(0))))) if seconds > 0 else None


def _now() -> tuple[float, float, float] | None:
    """Return wall-clock seconds, seconds that the cores were busy (with steal), and seconds of this process."""
    try:
        lines = STAT.read_text(encoding="ascii").splitlines()
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = 0
    for line in lines:
        name, *numbers = line.split()
        if name in cores:
            ticks += sum(int(n) for i, n in enumerate(numbers[:FIELDS]) if i not in IDLE_FIELDS)
    own = os.times()
    return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), sum(own[:4])
