"""Calibration: how fast this machine multiplies by a library that is none of the frameworks', here and now.

The floor is measured by a framework's own products, so that one whose products became slower looks as near to its floor
as before. Against this product, NumPy's, of one size for all, that shows; and it makes a time comparable with one of
another day or another machine.
"""

from collections.abc import Iterator

import numpy as np

from backends import Backend
from bench.measures.timing import time_calls
from bench.records import Measurement

SIZE = 1024


def measure(model: Backend, budget: float, round_: int) -> Iterator[Measurement]:
    """Yield the least seconds of one product of float32 matrices [1024, 1024] in NumPy; on a GPU nothing."""
    if model.device == "gpu":
        return
    a = np.full((SIZE, SIZE), 0.5, np.float32)
    b, c = a.copy(), np.empty_like(a)
    least = time_calls(model, lambda: np.matmul(a, b, out=c), budget).least
    yield Measurement.of("calibration", "product_seconds", least, "s", round=round_)
