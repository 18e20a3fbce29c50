"""The clock: synchronised at both ends of a block of calls, warmed up before, never inside.

A median comes with a nonparametric interval: the order statistics that hold it with a probability of 95 %, whatever
the distribution of the noise. Blocks that follow each other are alike where a machine drifts, so n of them are worth
fewer: n (1 − r) / (1 + r) for a correlation r of neighbours (Bayley and Hammersley, J. R. Statist. Soc. Supp. 8
(1946)), which is estimated, and freed of its bias as Marriott and Pope do (Biometrika 41 (1954)). With r = 0.8 the
interval of 31 blocks then holds the median in 95 % rather than 60 %, that of 12 in 82 %; what drifts for longer than
all blocks together is in no interval of theirs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr

from backends import Backend
from bench.records import Measurement

BLOCK_SECONDS = 0.02
MOST_BLOCKS = 31
CONFIDENCE = 0.95
LEAST = 6  # of fewer values not even the extremes hold the median in 95 %


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median, its 95 % interval, the number of blocks that it comes from, and the fastest of them."""

    median: float
    low: float
    high: float
    blocks: int
    least: float

    def seconds(self, measure: str, quantity: str, **context: Any) -> Measurement:
        """Return the time of a call as a measurement."""
        ends = {"low": self.low, "high": self.high}
        return Measurement.of(measure, quantity, self.median, "s", **ends, n=self.blocks, **context)

    def rate(self, measure: str, quantity: str, amount: float, unit: str, **context: Any) -> Measurement:
        """Return how much a second is done, of which a call does `amount`, as a measurement."""
        ends = {"low": amount / self.high, "high": amount / self.low}
        return Measurement.of(measure, quantity, amount / self.median, unit, **ends, n=self.blocks, **context)


def time_calls(model: Backend, call: Callable[[], Any], budget: float) -> Timing:
    """Time a call of a workload, spending about `budget` seconds.

    It is called once or twice to warm up, then in blocks long enough for the clock (`BLOCK_SECONDS`), at least 3 of
    them and at most `MOST_BLOCKS`, until the budget is spent.
    """
    _block(model, call, 1)
    once = _block(model, call, 1)
    calls = max(1, round(BLOCK_SECONDS / max(once, 1e-7)))
    blocks = int(np.clip(budget / (once * calls), 3, MOST_BLOCKS))
    return summarise([_block(model, call, calls) for _ in range(blocks)])


def time_each(model: Backend, call: Callable[[], Any], count: int) -> Timing:
    """Time each of `count` calls after the first, which warms up: as many as the others in a collective make."""
    return summarise([_block(model, call, 1) for _ in range(1 + count)][1:])


def _block(model: Backend, call: Callable[[], Any], calls: int) -> float:
    """Return the seconds that each of some calls takes."""
    model.synchronise()
    start = time.perf_counter()
    result = None
    for _ in range(calls):
        result = call()
    model.synchronise(result)
    return (time.perf_counter() - start) / calls


def summarise(seconds: list[float]) -> Timing:
    """Return the median of values in the order of their measurement, and its interval: the extremes of fewer than 6."""
    values = np.sort(seconds)
    n, worth = len(values), _worth(seconds)
    # The median lies between the k-th smallest and the k-th largest unless fewer than k values fall on one side.
    k = max((k for k in range(1, worth // 2 + 1) if 2 * bdtr(k - 1, worth, 0.5) <= 1 - CONFIDENCE), default=1)
    k = k * n // worth if worth >= LEAST else 1
    return Timing(float(np.median(values)), float(values[k - 1]), float(values[n - k]), n, float(values[0]))


def _worth(values: list[float]) -> int:
    """Return how many independent values these are worth, by the autocorrelation of their ranks at lag 1."""
    n, ranks = len(values), np.unique(values, return_inverse=True)[1].astype(float)
    ranks -= ranks.mean()
    if n < LEAST or not ranks.any():
        return n
    found = (n * float(ranks[1:] @ ranks[:-1]) / float(ranks @ ranks) + 1) / (n - 3)  # free of bias to order 1/n
    correlation = min(max(found, 0.0), 1.0)
    return max(1, int(n * (1 - correlation) / (1 + correlation)))
