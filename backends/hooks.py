"""What a framework's file makes for `Backend`: the functions of the flow, and its training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from backends.values import EpochInputs

DeviceArray = Any
DeviceArrays = dict[str, DeviceArray]  # by canonical name, kernels [in, out]


@dataclass(frozen=True)
class Functions:
    """What a flow computes, as calls on device arrays with the weights that the model has at the time.

    Attributes:
        encode: x [B, D] → z [B, D], log|det ∂z/∂x| [B].
        decode: z [B, D] → x [B, D].
        log_prob: x [B, D] → log p(x) [B], in nats.
        score: x [B, D] → ∇ₓ log p(x) [B, D].
        gradients: x [B, D] → the loss, and its gradient by every trainable array.
        product: a [m, k], b [k, n] → [m, n], multiplied as the layers of the flow multiply.
        sample: n, temperature, seed → samples [n, D]; without a seed (None) others at every call.
    """

    encode: Callable[[DeviceArray], tuple[DeviceArray, DeviceArray]]
    decode: Callable[[DeviceArray], DeviceArray]
    log_prob: Callable[[DeviceArray], DeviceArray]
    score: Callable[[DeviceArray], DeviceArray]
    gradients: Callable[[DeviceArray], tuple[DeviceArray, DeviceArrays]]
    product: Callable[[DeviceArray, DeviceArray], DeviceArray]
    sample: Callable[[int, float, int | None], DeviceArray]


class Training(ABC):
    """The training step of a model, with the images on the device; it changes the model's weights and moments.

    Attributes:
        trial_step: whether a step is made and undone before the clock starts, so that what happens only at the first
            execution falls into the first call.
    """

    trial_step: bool = True

    @abstractmethod
    def upload(self, inputs: EpochInputs, schedule: NDArray) -> Any:
        """An epoch's inputs, on the device; called in the background while the device trains."""

    def compile(self, inputs: Any) -> None:  # noqa: B027 - some frameworks compile at the first execution
        """Compile or capture the step for inputs of this shape; weights and moments are the same afterwards."""

    @abstractmethod
    def run(self, inputs: Any, steps: int) -> DeviceArray:
        """Make the first `steps` steps of an epoch; the loss of each, [steps]."""
