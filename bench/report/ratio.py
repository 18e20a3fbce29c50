"""Ratio: how many times as fast one backend is as another, and whether that is more than noise.

The unit of observation is a round: a process of its own, in turns with the other backends'. One is called faster only
if the 95 % interval of the ratio excludes 1. That their ranges over rounds don't overlap is worth a word, but not that
one: of two rounds each they miss each other by chance in one case of three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.comparison.statistics import welch

MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""The standard error of a median as a multiple of the mean's, of many normal values; of two they are the same."""


Verdict = Literal["apart", "unsettled", "noise", "unknown"]


@dataclass(frozen=True)
class Ratio:
    """`value` [low, high]: seconds of the one over seconds of the other; NaN ends where there is no interval.

    `verdict`: "apart": the interval excludes 1; "unsettled": it holds 1, but the ranges don't overlap; "noise": it
    holds 1, and they do; "unknown": one of them has a single observation.
    """

    value: float
    low: float
    high: float
    verdict: Verdict


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Return the ratio of the medians of positive times, with Welch's interval on the logarithms."""
    samples = [np.asarray(values, np.float64) for values in (numerator, denominator)]
    if any(values.size == 0 or (values <= 0).any() or not np.isfinite(values).all() for values in samples):
        raise ValueError(f"times {numerator} and {denominator}: expected at least one of each, positive and finite")
    value = float(np.median(samples[0]) / np.median(samples[1]))
    if min(values.size for values in samples) < 2:
        return Ratio(value, math.nan, math.nan, "unknown")
    overlap = samples[0].min() <= samples[1].max() and samples[1].min() <= samples[0].max()
    of_means = welch(np.log(samples[1]), np.log(samples[0]))
    if of_means.error == 0:
        return Ratio(value, value, value, "noise" if overlap else "apart")
    margin = float(of_means.interval()[1] - of_means.value)
    margin *= MEDIAN_ERROR if max(values.size for values in samples) > 2 else 1.0
    low, high = value * math.exp(-margin), value * math.exp(margin)
    verdict: Verdict = "apart" if not low <= 1 <= high else "noise" if overlap else "unsettled"
    return Ratio(value, low, high, verdict)
