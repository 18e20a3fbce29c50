"""The probe: how many bits of a product's operands the hardware really used, whatever was asked for."""

import numpy as np
from numpy.typing import NDArray

from backends import Backend
from bench.measures.rounding import PRODUCT_BITS
from bench.records import PrecisionSeen

SIZE = 128


def probe(model: Backend) -> PrecisionSeen:
    """Multiply rows that hold 1 + 2⁻ᵏ by the unit matrix; the largest k that survives is the number of bits kept.

    The matrices are large enough for the hardware's matrix units to take part.
    """
    most = np.finfo(model.dtype).nmant
    a = np.zeros((SIZE, SIZE))
    a[:most, 0] = 1 + 2.0 ** -np.arange(1, most + 1)
    kept = model.product(a, np.eye(SIZE))[:most, 0] == a[:most, 0].astype(model.dtype)
    return seen(model.precision, kept)


def seen(asked: str, kept: NDArray[np.bool_]) -> PrecisionSeen:
    """Name the precision in which 1 + 2⁻ᵏ was kept for these k, from 1 up."""
    bits = int(np.argmin(kept)) if not kept.all() else len(kept)
    name = {kept_bits - 1: name for name, kept_bits in PRODUCT_BITS.items()}.get(bits, f"{bits} bits")
    return PrecisionSeen(asked=asked, seen=name, mantissa_bits=bits)
