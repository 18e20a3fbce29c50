"""Palette: the colours of backends in every figure, told apart whatever colours one sees (Okabe and Ito)."""

from bench.tables.frame import BACKENDS

COLOURS = dict(zip(BACKENDS, ("#D55E00", "#E69F00", "#0072B2", "#009E73"), strict=True))
OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#000000")
