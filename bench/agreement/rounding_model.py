"""What roundoff predicts: the flow in float64, with the roundings of another precision put in at random.

Sums and the multiplications by exp(±s) are off by a random relative error within u, drawn afresh each time. A product's
result is off by what adding up n rounded terms one after the other leaves (Higham and Mary 2019, as in
`rounding`): a normal number of standard deviation u √(n/6) · √Σ (a w)². That is an upper estimate, since BLAS
sums in blocks, and since two passes that are given the same half of x make the same error, which cancels.
Operands of a coarse precision (tf32, bfloat16) are rounded as they are there: two inputs that differ in their last bit
may then fall on either side of a boundary, and m jumps.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backends import Architecture
from backends.architecture import bias_name, kernel_name, permutation_name
from backends.layout import tile
from backends.numpy_backend import merge, split
from bench.measures.rounding import PRODUCT_BITS, SUM_BITS


class RoundingModel:
    """Encodes, decodes and evaluates as a backend of some precision would, its rounding errors drawn at random.

    Attributes:
        nearest_zero: [N], after a pass over N rows: the least |input| of any ReLU, relative to √Σ (a w)² of its terms.
    """

    def __init__(
        self, architecture: Architecture, parameters: Mapping[str, NDArray], precision: str, seed: int
    ) -> None:
        self.architecture, self.dtype = architecture, np.dtype("float64")
        self.parameters = {n: a.astype(np.float64) if a.dtype.kind == "f" else a.copy() for n, a in parameters.items()}
        self.u = 2.0 ** -SUM_BITS[precision]
        self.product_bits = PRODUCT_BITS[precision] if PRODUCT_BITS[precision] < SUM_BITS[precision] else None
        self.rounds_results = precision == "bfloat16"
        self.generator = np.random.default_rng(seed)
        self._sign = -1 if architecture.sign == "subtract" else 1
        self._kernels = {n: self._operand(a) for n, a in self.parameters.items() if n.endswith(".kernel")}
        self._squares = {n: a * a for n, a in self._kernels.items()}
        self.nearest_zero: float | NDArray[np.float64] = np.inf

    def encode(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """z [N, D] and log|det ∂z/∂x| [N] of x [N, D]."""
        h = x[:, tile(self.architecture.dim)] if self.architecture.reorder == "tile" else x
        for k in range(self.architecture.couplings):
            before, after = self._orders(k)
            x1, x2 = split(self.architecture, h[:, before])
            h = merge(self.architecture, x1, self._rounded(x2 + self._sign * self._network(k, x1)))[:, after]
        z = self._rounded(h * self._rounded(np.exp(self.parameters["log_scale"])))
        return z, np.full(len(x), self._sum(self.parameters["log_scale"]))

    def decode(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """x = f⁻¹(z), [N, D] → [N, D]."""
        h = self._rounded(z * self._rounded(np.exp(-self.parameters["log_scale"])))
        for k in reversed(range(self.architecture.couplings)):
            before, after = self._orders(k)
            x1, x2 = split(self.architecture, h[:, np.argsort(after)])
            h = merge(self.architecture, x1, self._rounded(x2 - self._sign * self._network(k, x1)))
            h = h[:, np.argsort(before)]
        return h[:, np.argsort(tile(self.architecture.dim))] if self.architecture.reorder == "tile" else h

    def log_prob(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """log p(x) in nats, [N, D] → [N]."""
        z, log_det = self.encode(x)
        if self.architecture.prior == "gaussian":
            terms = -0.5 * (z * z + np.log(2 * np.pi))
        else:
            terms = -(np.logaddexp(0, z) + np.logaddexp(0, -z))
        return self._rounded(self._sum(self._rounded(terms)) + log_det)

    def _network(self, k: int, x1: NDArray[np.float64]) -> NDArray[np.float64]:
        h, last = x1, self.architecture.hidden_layers
        for i in range(last + 1):
            a, name = self._operand(h), kernel_name(k, i)
            terms = np.sqrt((a * a) @ self._squares[name])
            deviation = self.u * np.sqrt(a.shape[1] / 6) * terms
            product = a @ self._kernels[name] + deviation * self.generator.standard_normal(deviation.shape)
            product = self._operand(product) if self.rounds_results else product
            h = self._rounded(product + self.parameters[bias_name(k, i)])
            if i < last or self.architecture.output == "relu":
                relative = np.divide(np.abs(h), terms, out=np.full_like(h, np.inf), where=terms > 0)
                self.nearest_zero = np.minimum(self.nearest_zero, relative.min(axis=1))
                h = np.maximum(h, 0)
        return h

    def _orders(self, k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The permutations before and after coupling k."""
        here = np.arange(self.architecture.dim)
        order = here
        if self.architecture.permutation == "shuffle":
            order = self.parameters[permutation_name(k)].astype(np.intp)
        elif self.architecture.permutation == "reverse":
            order = here[::-1]
        return (order, here) if self.architecture.permute == "before" else (here, order)

    def _rounded(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return numbers * (1 + self.u * self.generator.uniform(-1, 1, numbers.shape))

    def _sum(self, terms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the last axis."""
        deviation = self.u * np.sqrt(terms.shape[-1] / 6 * (terms * terms).sum(axis=-1))
        return terms.sum(axis=-1) + deviation * self.generator.standard_normal(deviation.shape)

    def _operand(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.product_bits is None:
            return numbers
        mantissa, exponent = np.frexp(numbers)
        return np.ldexp(np.round(mantissa * 2.0**self.product_bits), exponent - self.product_bits)
