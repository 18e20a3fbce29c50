"""Statistics: a difference of means with its interval, from few observations on either side.

One round, a fresh process, gives one observation: what varies within a process varies less than from one process to
the next, so that thousands of timed steps of one round say little about the next round. Times are compared by their
logarithms, where a slow-down is a shift and the noise of fast and slow backends is alike; losses as they are.

Welch's test (Biometrika 34 (1947)) makes no assumption that both sides are equally noisy, which a busy machine breaks.
Its degrees of freedom by Satterthwaite (Biometrics Bulletin 2 (1946)) hold for any sum of independent means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Estimate:
    """A difference, its standard error and degrees of freedom; arrays where the samples had leading axes.

    The error is NaN where nothing repeats, and 0 where all repetitions agree; the degrees then mean nothing.
    """

    value: Any
    error: Any = math.nan
    degrees: Any = 1

    def interval(self, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
        """The two-sided interval; NaN where there is no error."""
        from scipy import stats  # here and below: every process's start would pay for it

        half = np.where(self.error == 0, 0.0, stats.t.ppf((1 + confidence) / 2, self.degrees) * self.error)
        return self.value - half, self.value + half

    @property
    def p(self) -> Any:
        """The probability of so large a difference, either way, where there is none; NaN where there is no error."""
        from scipy import stats

        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.value) / self.error
        certain = np.where(np.asarray(self.value) == 0, 1.0, 0.0)
        return np.where(self.error == 0, certain, 2 * stats.t.sf(t, self.degrees))


def welch(a: ArrayLike, b: ArrayLike) -> Estimate:
    """Welch's test of mean(b) − mean(a).

    Each sample is [..., n], n ≥ 1, its last axis the observations. Where one has a single one, its noise is taken to be
    that of the other (Student's test); where both have, there is no error.
    """
    samples = np.asarray(a, float), np.asarray(b, float)
    value = samples[1].mean(-1) - samples[0].mean(-1)
    counts = [sample.shape[-1] for sample in samples]
    if min(counts) > 1:
        variances = [sample.var(-1, ddof=1) / n for sample, n in zip(samples, counts, strict=True)]
        return _sum(value, variances, [n - 1 for n in counts])
    if max(counts) == 1:
        return Estimate(value, np.full(value.shape, np.nan))
    several = samples[0] if counts[0] > 1 else samples[1]
    return _sum(value, [several.var(-1, ddof=1) * (1 / counts[0] + 1 / counts[1])], [max(counts) - 1])


def paired(differences: ArrayLike) -> Estimate:
    """The mean of differences [..., n]; without an error where n is 1."""
    values = np.asarray(differences, float)
    n = values.shape[-1]
    error = values.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return Estimate(values.mean(-1), error, max(n - 1, 1))


def of_means(a: tuple[float, float, int], b: tuple[float, float, int]) -> Estimate:
    """The difference of two means that are given as (mean, standard error, observations)."""
    return _sum(b[0] - a[0], [a[1] ** 2, b[1] ** 2], [a[2] - 1, b[2] - 1])


def _sum(value: Any, variances: Sequence[Any], degrees: Sequence[int]) -> Estimate:
    variance = sum(variances)
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing varies
        satterthwaite = np.square(variance) / sum(np.square(v) / d for v, d in zip(variances, degrees, strict=True))
    return Estimate(value, np.sqrt(variance), satterthwaite)


def adjusted(p: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """P-values of one family, raised so that 5 % of those below 5 % are false, in expectation.

    Benjamini and Hochberg's procedure (J. R. Statist. Soc. B 57 (1995)), which holds for figures that vary together
    as those of one round do. Where nothing differs, the chance of any below 5 % is 5 %, however many figures there are;
    where all differ, next to nothing is lost.
    """
    from scipy import stats

    return np.asarray(stats.false_discovery_control(np.asarray(p, float), axis=axis))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P-values of one family, raised so that the chance of any false one below 5 % is 5 % at most.

    Holm's procedure (Scand. J. Statist. 6 (1979)), which holds however the figures vary together.
    """
    given = np.asarray(p)
    order = np.argsort(given)
    raised = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    return np.minimum(1.0, raised)[np.argsort(order)]


def rounds_needed(deviation: float, effect: float, *, pairs: bool = False, power: float = CONFIDENCE) -> int | None:
    """The least number of rounds on either side at which `effect` is seen `power` of the time, None above 1000.

    Args:
        deviation: standard deviation of one round; of the difference within a round where they make `pairs`.
        effect: difference, in the same unit.
        pairs: whether the rounds of both sides were interleaved.
        power: probability that the two-sided test at 5 % sees it.
    """
    from scipy import stats

    if deviation == 0:
        return 2
    rounds, sides = np.arange(2, MOST_ROUNDS + 1), 1 if pairs else 2
    degrees, shift = sides * (rounds - 1), effect / deviation * np.sqrt(rounds / sides)
    seen = np.asarray(stats.nct.sf(stats.t.ppf((1 + CONFIDENCE) / 2, degrees), degrees, shift) >= power)
    return int(rounds[np.argmax(seen)]) if seen.any() else None
