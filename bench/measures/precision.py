"""The probe: how many bits of a product's operands the hardware really used, whatever was asked for."""

from __future__ import annotations

import numpy as np

from backends import Backend
from bench.records import PrecisionSeen

MANTISSA_BITS = {"float64": 52, "float32": 23, "tf32": 10, "bfloat16": 7}
SIZE = 128


def probe(model: Backend) -> PrecisionSeen:
    """Multiply rows that hold 1 + 2⁻ᵏ by the unit matrix; the largest k that survives is the number of bits kept.

    The matrices are large enough for the hardware's matrix units to take part.
    """
    most = np.finfo(model.dtype).nmant
    a = np.zeros((SIZE, SIZE))
    a[:most, 0] = 1 + 2.0 ** -np.arange(1, most + 1)
    kept = model.product(a, np.eye(SIZE))[:most, 0] == a[:most, 0].astype(model.dtype)
    bits = int(np.argmin(kept)) if not kept.all() else most
    seen = {bits_: name for name, bits_ in MANTISSA_BITS.items()}.get(bits, f"{bits} bits")
    return PrecisionSeen(asked=model.precision, seen=seen, mantissa_bits=bits)
