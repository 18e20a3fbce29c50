"""Scaling: the cost model t(n) = t₀ + c · nᵖ, fitted to the times of a sweep.

t₀ is what a call costs whatever its size: launches, dispatch, parameters read once. The knee is the size at which the
part that grows has reached it, c · nᵖ = t₀: well above it, launches no longer matter.

All three are fitted together, by least squares of log t (relative errors count alike, large times don't drown small
ones), with a loss that lets a single odd point pull little. A straight line through the logarithms of the largest times
alone would take what is left of t₀ there for a smaller exponent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

GROWTH = 3.0
"""A time this many times the least one belongs to the part that grows."""

FEWEST_POINTS = 4
FEWEST_GROWN = 2
LARGEST_EXPONENT = 6.0
LARGEST_ERROR = 0.15
"""The largest standard error of an exponent that is shown."""
ODD = 0.1
"""Relative error above which a point counts as odd."""


@dataclass(frozen=True)
class Scaling:
    """A fit; NaN for what the points don't determine, and `note` says why.

    Attributes:
        exponent: p.
        exponent_error: its standard error.
        fixed: t₀, s; 0 where the times show none.
        coefficient: c, s.
        knee: the n at which c · nᵖ = t₀; 0 where there is no t₀.
        points: how many were fitted.
        note: why there is no fit.
    """

    exponent: float = math.nan
    exponent_error: float = math.nan
    fixed: float = math.nan
    coefficient: float = math.nan
    knee: float = math.nan
    points: int = 0
    note: str = ""

    def asymptote(self, n: ArrayLike) -> NDArray[np.float64]:
        """Return c · nᵖ."""
        return self.coefficient * np.asarray(n, np.float64) ** self.exponent


def fit(n: Sequence[float] | NDArray, seconds: Sequence[float] | NDArray) -> Scaling:
    """Fit the cost model to sizes n [N], positive and each once, and the time at each [N] in seconds, positive."""
    sizes, times = np.asarray(n, np.float64), np.asarray(seconds, np.float64)
    if sizes.shape != times.shape or sizes.ndim != 1 or (sizes <= 0).any() or (times <= 0).any():
        raise ValueError(f"sizes {sizes.shape} and times {times.shape}; expected positive numbers, as many of each")
    count = len(sizes)
    if count < FEWEST_POINTS:
        return Scaling(points=count, note=f"too few points ({count})")
    grown = (times >= GROWTH * times.min()) & (sizes > sizes[times.argmin()])
    if grown.sum() < FEWEST_GROWN:
        return Scaling(points=count, note=f"{grown.sum()} of {count} times ≥ {GROWTH:g} × the least")
    from scipy.optimize import least_squares  # here, since it would slow every command's start down

    log_n, log_t = np.log(sizes), np.log(times)
    slope, intercept = np.polyfit(log_n[grown], log_t[grown], 1)

    def misfit(parameters: NDArray) -> NDArray:
        log_fixed, log_coefficient, exponent = parameters
        return np.logaddexp(log_fixed, log_coefficient + exponent * log_n) - log_t

    start = [log_t.min(), intercept, np.clip(slope, 0.1, LARGEST_EXPONENT - 0.1)]
    bounds = [-np.inf, -np.inf, 0.0], [np.inf, np.inf, LARGEST_EXPONENT]
    found = least_squares(misfit, start, bounds=bounds, loss="soft_l1", f_scale=ODD)
    log_fixed, log_coefficient, exponent = map(float, found.x)
    # Without a trace of t₀ its logarithm runs off to −∞, and the matrix loses a rank: then two parameters were fitted.
    negligible = log_fixed < log_t.min() - math.log(1e3)
    jacobian = np.asarray(found.jac)[:, 1:] if negligible else np.asarray(found.jac)
    variance = 2 * float(found.cost) / (count - jacobian.shape[1])
    error = math.sqrt(np.linalg.pinv(jacobian.T @ jacobian)[-1, -1] * variance)
    log_knee = (log_fixed - log_coefficient) / max(exponent, 1e-9)
    at_the_bound = exponent > 0.999 * LARGEST_EXPONENT  # which the search comes near and never reaches
    if error > LARGEST_ERROR or log_knee > log_n.max() or at_the_bound:
        return Scaling(points=count, note="p too uncertain")
    if negligible:
        return Scaling(exponent, error, 0.0, math.exp(log_coefficient), 0.0, count)
    return Scaling(exponent, error, math.exp(log_fixed), math.exp(log_coefficient), math.exp(log_knee), count)
