"""What rounding may do: the tolerance of each quantity, derived from unit roundoff, depth, width and batch.

Rounding errors of a long computation behave as independent, zero-mean numbers (Higham and Mary, *A new approach to
probabilistic rounding error analysis*, SIAM J. Sci. Comput. 41 (2019)): where a worst-case bound says n·u, they reach
√n·u, times a small λ that is exceeded with a probability below exp(−λ²/2). Hence, relative to the size of the terms
that are added up,

    a product with inner length n            λ √n u
    a chain of L such products               λ √(L n) u
    operands and results rounded to u_p      λ √(3 L) u_p, each result being a mean over n roundings of its own

and, in gradients, ReLUs whose input is so near zero that rounding changes its sign (below),

with L = couplings · (hidden layers + 1), n the longest sum, u the unit roundoff of sums and u_p that of products.
Nothing here was fitted to what a backend happens to give.
"""

import math
from dataclasses import dataclass

from backends import Architecture

LAMBDA = 6.0  # exceeded once in 6 · 10⁷ roundings
SUM_BITS = {"float64": 53, "float32": 24, "tf32": 24, "bfloat16": 24}
PRODUCT_BITS = {"float64": 53, "float32": 24, "tf32": 11, "bfloat16": 8}


@dataclass(frozen=True)
class Rounding:
    """Tolerances for one architecture, precision and batch (rows that a gradient sums over).

    Each is relative to the size of what is added up.
    """

    architecture: Architecture
    precision: str
    batch: int

    @property
    def chain(self) -> float:
        """The tolerance of a pass through the flow: z, decode."""
        architecture = self.architecture
        depth = architecture.couplings * (architecture.hidden_layers + 1)
        longest = max(architecture.half, architecture.hidden_units)
        sums = math.sqrt(depth * longest) * 2.0 ** -SUM_BITS[self.precision]
        if not self.coarse:
            return LAMBDA * sums
        return LAMBDA * (sums + math.sqrt(3 * depth) * 2.0 ** -PRODUCT_BITS[self.precision])

    @property
    def log_det(self) -> float:
        """The tolerance of Σ s, relative to Σ |s|: a sum of D numbers, and no product."""
        return LAMBDA * math.sqrt(self.architecture.dim) * 2.0 ** -SUM_BITS[self.precision]

    @property
    def log_prob(self) -> float:
        """The tolerance of log p, relative to its terms' magnitudes: twice that of z, and of two sums."""
        return 2 * self.chain + 2 * self.log_det

    @property
    def coarse(self) -> bool:
        """Whether products are of a coarser precision than sums."""
        return PRODUCT_BITS[self.precision] < SUM_BITS[self.precision]

    @property
    def gradient(self) -> float:
        """The tolerance of a gradient in float64 or float32, relative to its largest entry, away from ReLUs' kinks.

        The chain is passed twice and summed over the batch, where terms of either sign leave about 1/√batch of their
        size. A single ReLU whose input rounding carries across zero would change an entry by its whole size, so the
        gradient is compared at rows where every input is farther from zero than `chain`, relative to its terms.
        """
        return 2 * self.chain * math.sqrt(self.batch)

    @property
    def score(self) -> float:
        """The tolerance of the gradient of log p by x, relative to its largest entry over all rows."""
        return 2 * self.chain

    @property
    def gradient_norm(self) -> float:
        """The tolerance of a gradient by coarse products: the norm of its error over its norm, as one vector.

        Rounding switches some ReLU in every row there, so the largest error says nothing. A norm is a mean over so many
        roundings that it needs no λ. The chain is passed twice. Besides, an input of a ReLU that has a relative error
        of e, as one after l layers has with e = √(3 l) u_p, is on the wrong side of zero with a probability of e/π if
        it is normal and centred; each ReLU so switched adds or removes a part of the gradient that half of them pass,
        hence 2e/π of its square for each layer of a coupling's network. Beside that network the coupling passes the
        gradient on as it is.
        """
        architecture = self.architecture
        layers = architecture.hidden_layers + 1
        product = math.sqrt(3) * 2.0 ** -PRODUCT_BITS[self.precision]
        switched = sum(2 * math.sqrt(layer) * product / math.pi for layer in range(1, layers + 1))
        return math.sqrt(2 * architecture.couplings * layers) * product + math.sqrt(switched)
