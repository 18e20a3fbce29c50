"""Palette: the colours of backends in every figure, which the colour-blind can distinguish too (Okabe and Ito)."""

from collections.abc import Sequence

from bench.tables.frame import BACKENDS

COLOURS = ("#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9")  # of its list, seen on white and on black


def colour_of(series: str, all_series: Sequence[str]) -> str:
    """The colour of a series: its backend's own, which for one from outside is the next that no other has there."""
    names = dict.fromkeys([*BACKENDS, *(each.split(" ")[0] for each in all_series)])
    return COLOURS[list(names).index(series.split(" ")[0]) % len(COLOURS)]
