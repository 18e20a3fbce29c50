"""The agreement suite: do the backends run the same mathematics? Every check has a derived tolerance and can fail.

    matrix      parameters through every ordered pair of backends bit for bit; then z, log_det, log p, decode, the score
                and all gradients against the float64 reference, at initial and at trained weights
    lockstep    training from one start with the same order and noise: the whole parameter vector and the loss compared
                with the reference after every step
    resume      training stopped, carried to another backend and resumed, against training that was not stopped
    sampling    what the device's own generator draws, encoded again, has the prior's moments times the temperature

The first and the last are in `agree_matrix`, the others in `agree_training`; this file has what all share.
What is compared is a variant: a backend's name, which stands for its fastest mode, or name and mode, as
"torch:compile"; "torch×2" trains on two devices.
`determinism` and `round_trips` add suites of their own. `tests/faults` plants faults in the backends and demands that
this suite finds every one.
"""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Adam, Architecture, Backend, EpochInputs, Optimiser, Pixels, parameters
from backends.parameters import Parameters
from bench.inputs.streams import initial_parameters, noise_words, shuffled
from bench.measures.likelihood import DEQUANTISED

ARTICLE = Pixels(1 / 255)
ARTICLE_NOISE = Pixels(1 / 255, -0.01)


@dataclass(frozen=True)
class Check:
    """One comparison of a variant with the reference, or of a pair of variants.

    Attributes:
        suite: "matrix", "lockstep", "resume", "sampling", "determinism" or "invertibility".
        case: which architecture or optimiser.
        weights: "initial" or "trained"; where it makes no difference, "".
        error: the largest error, relative as `Rounding` says.
        rms: the root mean square error over the same scale; NaN where there is one number only.
        tolerance: what the error must not exceed; infinite for a record of how it is.
        step: the step after which it was looked at; None for the worst of all.
    """

    suite: str
    case: str
    backend: str
    precision: str
    weights: str
    quantity: str
    error: float
    rms: float
    tolerance: float
    step: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; one that is not a number isn't."""
        return bool(self.error <= self.tolerance)


@dataclass(frozen=True)
class Setting:
    """What the suite runs on: real images uint8 [N, D], and case → architecture.

    Steps are those of lockstep training; the batch is also the number of rows of the matrix.
    """

    images: NDArray[np.uint8]
    architectures: dict[str, Architecture]
    steps: int = 100
    batch: int = 32
    seed: int = 0


def architectures(dim: int, hidden_layers: int, hidden_units: int) -> dict[str, Architecture]:
    """Both named architectures at this size, and each option that neither has."""
    article, paper = (
        replace(named, dim=dim, hidden_layers=hidden_layers, hidden_units=hidden_units)
        for named in (Architecture.article(), Architecture.paper())
    )
    return {
        "article": article,
        "paper": paper,
        "article, shuffle": replace(article, permutation="shuffle"),
        "article, halves, add": replace(article, split="halves", sign="add", permute="after"),
        "paper, none, interleaved": replace(paper, permutation="none", split="interleaved", sign="subtract"),
        "paper, shuffle, gaussian": replace(paper, permutation="shuffle", prior="gaussian", output="relu"),
    }


def make(variant: str, architecture: Architecture, given: Parameters, device: str, precision: str) -> Backend:
    """The model of a variant, with weights rounded to the precision's dtype. The reference is on the CPU.

    Raises:
        UnavailableError: the variant lacks the device, the precision or the mode.
    """
    name, replicas, mode = parts(variant)
    device = "cpu" if name == "numpy" else device
    held = parameters.rounded(given, precision)
    return backends.create(name, architecture, held, device=device, precision=precision, mode=mode, replicas=replicas)


def parts(variant: str) -> tuple[str, int, str | None]:
    """The backend of a variant, its number of devices and its mode, None for the default one."""
    backend, _, mode = variant.partition(":")
    backend, _, devices = backend.partition("×")
    return backend, int(devices or 1), mode or None


def every_mode(name: str, device: str) -> list[str]:
    """A backend's variants: its default mode under its bare name, then the others that it has on a device."""
    kind = backends.backend_class(name)
    default = kind.default_mode(device)
    return [name, *(f"{name}:{mode}" for mode in kind.modes_on(device) if mode != default)]


def weights_of(setting: Setting, case: str, architecture: Architecture) -> dict[str, Parameters]:
    """Initial weights, and weights that the reference has trained for a while; float32, so that all hold them."""
    initial = initial_weights(setting, case, architecture)
    model = make("numpy", architecture, initial, "cpu", "float64")
    train(model, Adam(), Stream(setting, DEQUANTISED if case.startswith("paper") else ARTICLE, steps=20))
    return {"initial": initial, "trained": parameters.astype(model.parameters(), "float32")}


def initial_weights(setting: Setting, case: str, architecture: Architecture) -> Parameters:
    """Initial weights as the case's namesake draws them."""
    if case.startswith("paper"):
        return initial_parameters(architecture, setting.seed, "small_uniform", "zeros")
    return initial_parameters(architecture, setting.seed, "glorot_uniform", "glorot_normal")


class Stream:
    """Order and noise for training on the first images, in epochs of `steps` steps; `backends.Stream`."""

    def __init__(self, setting: Setting, pixels: Pixels, steps: int) -> None:
        self.seed, self.batch, self.steps, self.pixels = setting.seed, setting.batch, steps, pixels
        self.images = np.array(setting.images)
        self.examples = len(self.images)

    def epoch(self, epoch: int) -> EpochInputs:
        """As `bench.inputs.streams.TrainingStream`, but of as many steps as one likes."""
        orders = [shuffled(self.seed, "order", epoch * self.steps + i, self.examples) for i in range(self.steps)]
        order = np.stack(orders)[:, : self.batch]
        shape = (*order.shape, self.images.shape[1])
        return EpochInputs(order, noise_words(self.seed, "noise", epoch, shape) if self.pixels.noise else None)


def train(model: Backend, optimiser: Optimiser, stream: Stream, epochs: int = 1) -> Backend:
    """Train a model, and return it."""
    deque(model.train(stream.images, optimiser, stream, epochs), maxlen=0)
    return model
