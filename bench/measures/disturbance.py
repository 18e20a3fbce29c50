"""Disturbance: how much of this process' cores, of its quota or of its GPU others used while it was timed.

One other process made PyTorch eleven times slower on two cores, and nothing in the figures said so. Where more than
`LIMIT` of the cores' time went elsewhere, the figures of speed are called disturbed: shown, and never compared.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from bench.records import Record, environment

LIMIT = 0.1

STAT = Path("/proc/stat")
IDLE_FIELDS = (3, 4)  # idle and iowait, of user nice system idle iowait irq softirq steal
FIELDS = 8  # what a guest uses is counted as user, too


def disturbed(record: Record) -> bool:
    """Return whether others used more than `LIMIT` in a round of a record, so that its speed says nothing."""
    return any(m.quantity == "others_share" and (m.value or 0) > LIMIT for m in record.measurements)


class Others:
    """A watch on what other processes use of what this one may use; of cores and quotas only Linux shows it.

    Of the cores: the time that they were busy for others, or stolen. Of the quota of a cgroup: what this process didn't
    have of it, as far as it was used up. Of a GPU: the part of others among the processes that compute on it, which is
    what they have where the device goes round among all.

    Args:
        device: "cpu" or "gpu": what is timed.
        devices: how many are; of several, the processes that this one has started are its own, as the ranks of a
            training are. (Finding them takes long where a machine has thousands.)
    """

    def __init__(self, device: str = "cpu", devices: int = 1) -> None:
        self._gpu, self._several = device == "gpu", devices > 1
        self._start = _now(self._several)

    def share(self) -> float | None:
        """Return the largest share, 0 to 1, that others used since the last call; None if nothing is known."""
        start, self._start = self._start, _now(self._several)
        processes = environment.gpu_state().get("processes") if self._gpu else None  # of which this is one
        shares = [None if processes is None else 1 - 1 / max(1, processes)]
        if start is not None and self._start is not None and (seconds := self._start.seconds - start.seconds) > 0:
            own = self._start.own - start.own
            cores = len(os.sched_getaffinity(0))
            shares += [(self._start.busy - start.busy - own) / (seconds * cores), _of_quota(start, self._start)]
        known = [min(1.0, max(0.0, share)) for share in shares if share is not None]
        return max(known, default=None)


class _Now(NamedTuple):
    """Wall-clock seconds, those that the cores were busy (with steal), those of this process' own, and its quota."""

    seconds: float
    busy: float
    own: float
    quota: float | None
    periods: tuple[int, int] | None


def busy_at_start(device: str) -> str | None:
    """Return what others use now, in words, where it is more than what is timed can bear; it takes a second."""
    others, state = Others(), environment.gpu_state() if device == "gpu" else {}
    time.sleep(1)
    share = others.share()
    found = [f"{100 * share:.0f} % of this machine's cores"] if share is not None and share > LIMIT else []
    if (state.get("utilisation") or 0) > LIMIT or state.get("processes"):
        found.append(f"the GPU ({state.get('processes') or 'hidden'} processes)")
    return " and ".join(found) or None


def _of_quota(start: _Now, end: _Now) -> float | None:
    """Return the part of the quota that others of its cgroup used, of the periods in which it was used up."""
    if not (end.quota and start.periods and end.periods) or end.periods[0] <= start.periods[0]:
        return None
    periods, used_up = (now - then for now, then in zip(end.periods, start.periods, strict=True))
    own = (end.own - start.own) / ((end.seconds - start.seconds) * min(end.quota, len(os.sched_getaffinity(0))))
    return used_up / periods * (1 - own)


def _now(several: bool) -> _Now | None:
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
    busy, quota = ticks / os.sysconf("SC_CLK_TCK"), environment.cpu_quota()
    return _Now(time.perf_counter(), busy, _own(several), quota, environment.quota_periods() if quota else None)


def _own(processes: bool) -> float:
    """Return the CPU seconds of this process, and of the `processes` that it has started if they are to be counted."""
    seconds = sum(os.times()[:4])  # with those of what has ended
    for child in psutil.Process().children(recursive=True) if processes else []:
        with suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:4])
    return seconds
