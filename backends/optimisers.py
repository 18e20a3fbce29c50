"""The optimisers, as values, and their schedules: what every step multiplies by, worked out once in float64.

The update formulas stand in each backend, in its own idiom; the scalars that vary from step to step come from here, so
that no two backends can disagree on a schedule.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from annotated_types import Ge, Gt, Lt
from numpy.typing import NDArray

AVERAGE = "average"
"""The moment that is an average of the weights: it starts at them, the other moments at zero."""

# The ranges are for pydantic, where values come from a file; nothing else checks them.
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class _Values:
    """What the optimisers have in common."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    def to_dict(self) -> dict[str, Any]:
        """All fields and the name, as plain values."""
        return asdict(self)

    def rounded(self, dtype: np.dtype) -> Self:
        """With the betas, where there are some, as `dtype` holds them.

        A kernel that takes β₂ as float32 and subtracts it from 1 is off by 1.3e-5 from 1 − β₂ in float64, and the bias
        corrections have to be those of the β₂ that it really uses. No backend takes 1 − ρ from a rounded ρ.
        """
        return replace(self, **{n: float(dtype.type(v)) for n, v in vars(self).items() if n in ("beta1", "beta2")})


@dataclass(frozen=True)
class Adam(_Values):
    """Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1): θ ← θ − lr · m̂ / (√v̂ + ε), ε after bias correction.

    Attributes:
        learning_rate: lr.
        beta1: decay of the mean of gradients m.
        beta2: decay of the mean of squared gradients v.
        epsilon: ε.
    """

    name: Literal["adam"] = field(default="adam", kw_only=True)
    learning_rate: Positive = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.999
    epsilon: Positive = 1e-7

    moments = ("mean", "mean_square")

    def schedule(self, first_step: int, steps: int, steps_per_epoch: int) -> NDArray[np.float64]:
        """[steps, 2] factors 1/(1 − β₁ᵗ) and 1/(1 − β₂ᵗ) with t = first_step + 1 for the first row."""
        t = np.arange(first_step + 1, first_step + steps + 1, dtype=np.float64)
        return np.stack([1 / (1 - self.beta1**t), 1 / (1 - self.beta2**t)], axis=1)


@dataclass(frozen=True)
class RMSProp(_Values):
    """The paper's optimiser (the released configuration of arXiv 1410.8516): RMSProp with a floor, then momentum.

        r ← ρ r + (1 − ρ) g²,   v ← μ v − lr · g / max(√r, floor),   θ ← θ + v

    Attributes:
        learning_rate: lr of the first step.
        rho: ρ.
        floor: lower bound of the root mean square.
        decay: lr is divided by this after each step,
        minimum_learning_rate: but doesn't fall below this.
        momentum: μ from epoch `momentum_epoch` on; 0 before.
        momentum_epoch: counted from 1.
    """

    name: Literal["rmsprop"] = field(default="rmsprop", kw_only=True)
    learning_rate: Positive = 1e-3
    rho: Share = 0.95
    floor: Positive = 1e-2
    decay: Annotated[float, Ge(1)] = 1.0005
    minimum_learning_rate: NotNegative = 1e-4
    momentum: Share = 0.5
    momentum_epoch: Annotated[int, Gt(0)] = 6

    moments = ("mean_square", "velocity")

    def schedule(self, first_step: int, steps: int, steps_per_epoch: int) -> NDArray[np.float64]:
        """[steps, 2] learning rate and momentum of each step, the first of which is step `first_step` (from 0)."""
        step = np.arange(first_step, first_step + steps, dtype=np.float64)
        rate = np.maximum(self.learning_rate / self.decay**step, self.minimum_learning_rate)
        epoch = step // steps_per_epoch + 1
        return np.stack([rate, np.where(epoch >= self.momentum_epoch, self.momentum, 0.0)], axis=1)


@dataclass(frozen=True)
class AdamW(_Values):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), and averaged weights.

        θ ← θ − η λ θ − η · m̂ / (√v̂ + ε),   a ← a + (1 − α)(θ − a),   λ on kernels alone

    η rises to the learning rate in a straight line over the warm-up, and falls to 0 with half a cosine after it.

    Attributes:
        learning_rate: the largest η.
        epochs: after how many η is 0; has to be given before there is a schedule.
        beta1: decay of the mean of gradients m.
        beta2: decay of the mean of squared gradients v.
        epsilon: ε.
        decay: λ.
        warmup_steps: until η is the learning rate.
        average: α of the exponential moving average a, which starts at the initial weights.
    """

    name: Literal["adamw"] = field(default="adamw", kw_only=True)
    learning_rate: Positive = 1e-3
    epochs: Annotated[int, Gt(0)] | None = None
    beta1: Share = 0.9
    beta2: Share = 0.99
    epsilon: Positive = 1e-8
    decay: NotNegative = 0.8
    warmup_steps: Annotated[int, Ge(0)] = 500
    average: Share = 0.999

    moments = ("mean", "mean_square", AVERAGE)

    def schedule(self, first_step: int, steps: int, steps_per_epoch: int) -> NDArray[np.float64]:
        """[steps, 3] η and the factors 1/(1 − β₁ᵗ) and 1/(1 − β₂ᵗ); t = first_step + 1 for the first row.

        η is a float32 number in every precision: torch's fused kernel takes no other on a GPU.
        """
        t = np.arange(first_step + 1, first_step + steps + 1, dtype=np.float64)
        if self.epochs is None:
            raise ValueError("adamw: epochs is None; expected after how many the learning rate is 0")
        total = self.epochs * steps_per_epoch
        progress = np.clip((t - 1 - self.warmup_steps) / max(total - self.warmup_steps, 1), 0, 1)
        rate = self.learning_rate * np.minimum(t / max(self.warmup_steps, 1), (1 + np.cos(np.pi * progress)) / 2)
        rounded = rate.astype(np.float32).astype(np.float64)
        return np.stack([rounded, 1 / (1 - self.beta1**t), 1 / (1 - self.beta2**t)], axis=1)


Optimiser = Adam | RMSProp | AdamW
