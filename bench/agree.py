"""The agreement suite: do the backends run the same mathematics? Every check has a derived tolerance and can fail.

    matrix      parameters through every ordered pair of backends bit for bit; then z, log_det, log p, decode and all
                gradients against the float64 reference, at initial and at trained weights
    lockstep    training from one start with the same order and noise: the whole parameter vector and the loss compared
                with the reference after every step
    resume      training stopped, carried to another backend and resumed, against training that was not stopped
    sampling    what the device's own generator draws, encoded again, has the prior's moments times the temperature

What is compared is an arm: a backend's name, which stands for its fastest mode, or name and mode, as "torch:compile".
`bench.determinism` and `bench.round_trips` add suites of their own; `bench.mutations` plants faults in the backends and
demands that this suite finds every one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import backends
from backends import (
    Adam,
    Architecture,
    Backend,
    EpochInputs,
    Optimiser,
    Pixels,
    RMSProp,
    TrainingState,
    UnavailableError,
    parameters,
)
from backends.parameters import Parameters
from bench.measures.likelihood import DEQUANTISED
from bench.streams import initial_parameters, noise_words, pixels_to_x, shuffled
from bench.tolerances import Rounding

ARTICLE = Pixels(1 / 255)
ARTICLE_NOISE = Pixels(1 / 255, -0.01)

LOCKSTEP_TOLERANCE = 1e-11
"""Of the relative difference in float64 after any of 100 steps, of losses and of the whole parameter vector (norm)."""

LARGEST_TOLERANCE = 1e-9
"""Of the largest difference of one parameter over the largest parameter. Adam divides by √v̂ + ε: where a gradient is
below ε = 10⁻⁷, its rounding error is multiplied by lr/ε = 10⁴ in every step. A sum of terms of size 10 has an error of
10⁻¹⁵, so that 100 steps may move such a parameter 10⁻⁹ apart, while the vector as a whole stays together."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        suite: "matrix", "lockstep", "resume" or "sampling".
        case: which architecture, optimiser or pair.
        backend: the arm that was compared with the reference, or the pair of arms.
        precision: of the backend.
        weights: "initial" or "trained"; where it makes no difference, "".
        quantity: what was compared.
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
    """What the suite runs on.

    Attributes:
        images: uint8 [N, D], real ones.
        architectures: case → architecture.
        steps: of lockstep training.
        batch: of lockstep training, and rows of the matrix.
        seed: of weights, order, noise.
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


def make(arm: str, architecture: Architecture, given: Parameters, device: str, precision: str) -> Backend:
    """The model of an arm, with weights rounded to the precision's dtype. The reference is on the CPU.

    Raises:
        UnavailableError: the arm lacks the device, the precision or the mode.
    """
    name, _, mode = arm.partition(":")
    device = "cpu" if name == "numpy" else device
    held = parameters.astype(given, _dtype(precision))
    return backends.create(name, architecture, held, device=device, precision=precision, mode=mode or None)


def every_mode(name: str, device: str) -> list[str]:
    """A backend's arms: its default mode under its bare name, then the others that it has on a device."""
    kind = backends.backend_class(name)
    if name == "numpy":
        return [name]
    default = kind.default_mode(device)
    return [name, *(f"{name}:{mode}" for mode in kind.modes_on(device) if mode != default)]


# The matrix


def matrix(setting: Setting, chosen: Sequence[str], precisions: Sequence[str], device: str) -> Iterator[Check]:
    """Every backend, precision, architecture, at initial and trained weights."""
    for case, architecture in setting.architectures.items():
        weights = weights_of(setting, case, architecture)
        x = pixels_to_x(setting.images[: setting.batch], DEQUANTISED, setting.seed)
        for name, given in weights.items():
            yield from _ported(case, architecture, name, given, chosen, device)
        expected = {name: Expected(architecture, given, x) for name, given in weights.items()}
        for arm in chosen:
            for precision in precisions:
                try:
                    model = make(arm, architecture, weights["initial"], device, precision)
                except UnavailableError:
                    continue
                yield from expected["initial"].compare(model, case, arm, "initial")
                # Into the same model, since a new one would compile everything anew.
                model.resume(TrainingState(parameters.astype(weights["trained"], _dtype(precision))))
                yield from expected["trained"].compare(model, case, arm, "trained")


def weights_of(setting: Setting, case: str, architecture: Architecture) -> dict[str, Parameters]:
    """Initial weights, and weights that the reference has trained for a while; float32, so that all hold them."""
    initial = initial_weights(setting, case, architecture)
    model = make("numpy", architecture, initial, "cpu", "float64")
    stream = Stream(setting, DEQUANTISED if case.startswith("paper") else ARTICLE, steps=20)
    for _ in model.train(stream.images, Adam(), stream, 1):
        pass
    return {"initial": initial, "trained": parameters.astype(model.parameters(), "float32")}


def initial_weights(setting: Setting, case: str, architecture: Architecture) -> Parameters:
    """Initial weights as the case's namesake draws them."""
    if case.startswith("paper"):
        return initial_parameters(architecture, setting.seed, "small_uniform", "zeros")
    return initial_parameters(architecture, setting.seed, "glorot_uniform", "glorot_normal")


def _ported(
    case: str, architecture: Architecture, weights: str, given: Parameters, chosen: Sequence[str], device: str
) -> Iterator[Check]:
    """Every ordered pair of backends: given to the first, asked back, given to the second, asked back.

    In float64 every number is one that float32 can't hold, so that a passage through it would show.
    """
    for precision in ("float64", "float32"):
        held = parameters.astype(given, precision)
        if precision == "float64":
            held = {name: _beyond_float32(array) for name, array in held.items()}
        expected = parameters.digest(held)
        models = {name: make(name, architecture, held, device, precision) for name in chosen}
        for first in chosen:
            asked_back = models[first].parameters()
            for second in chosen:
                again = make(second, architecture, asked_back, device, precision)
                differ = parameters.digest(again.parameters()) != expected or parameters.digest(asked_back) != expected
                error = float(differ)
                yield Check("matrix", case, f"{first} → {second}", precision, weights, "parameters", error, np.nan, 0.0)


def _beyond_float32(array: NDArray) -> NDArray:
    """Float64 numbers that float32 holds → numbers beside them that it doesn't."""
    return array if array.dtype.kind != "f" else np.where(array == 0, 2.0**-20, array) * (1 + 2.0**-40)


class Expected:
    """What the reference says at given weights and inputs, and how large the terms are that it adds up."""

    def __init__(self, architecture: Architecture, given: Parameters, x: NDArray[np.float64]) -> None:
        self.architecture, self.x = architecture, x
        reference = backends.create("numpy", architecture, parameters.astype(given, "float64"), precision="float64")
        self.z, self.log_det = reference.encode(x)
        self.log_prob, self.decoded = reference.log_prob(x), reference.decode(self.z)
        self.loss, self.gradients = reference.gradients(x)
        s = given["log_scale"].astype(np.float64)
        # z = exp(s) · h: where h is a small difference of larger terms, exp(s) makes its rounding error large too.
        h = float(np.abs(self.z * np.exp(-s)).max())
        self.size_z = float(np.exp(s).max()) * max(1.0, h)
        self.size_decoded = max(1.0, h)
        self.size_log_det = float(np.abs(s).sum()) or 1.0
        slope = self.z if architecture.prior == "gaussian" else np.tanh(self.z / 2)
        squares = np.sqrt(((slope * np.exp(s)) ** 2).sum(axis=1)) * max(1.0, h)
        constant = architecture.dim * (0.5 * np.log(2 * np.pi) if architecture.prior == "gaussian" else 2 * np.log(2))
        self.size_log_prob = float(squares.max() + np.abs(self.log_prob).max() + self.size_log_det + constant)
        self.amplified = max(1.0, self.size_z / float(np.abs(self.z).max()))

    def compare(self, model: Backend, case: str, arm: str, weights: str) -> Iterator[Check]:
        """Each quantity of a model at the same weights."""
        rounding = Rounding(self.architecture, model.precision, len(self.x))

        def check(quantity: str, error: NDArray, size: float, tolerance: float) -> Check:
            relative = np.abs(error.astype(np.float64)) / size
            return Check(
                "matrix",
                case,
                arm,
                model.precision,
                weights,
                quantity,
                float(relative.max()),
                float(np.sqrt((relative**2).mean())),
                tolerance,
            )

        z, log_det = model.encode(self.x)
        yield check("z", z - self.z, self.size_z, rounding.chain)
        yield check("log_det", log_det - self.log_det, self.size_log_det, rounding.log_det)
        yield check("log_prob", model.log_prob(self.x) - self.log_prob, self.size_log_prob, rounding.log_prob)
        yield check("decode", model.decode(self.z) - self.decoded, self.size_decoded, rounding.chain)
        loss, gradients = model.gradients(self.x)
        yield check("loss", np.asarray(loss - self.loss), self.size_log_prob, rounding.log_prob)
        if rounding.precision == "float64":
            errors = [(gradients[n] - exact) / (np.abs(exact).max() or 1.0) for n, exact in self.gradients.items()]
            flat = np.concatenate([error.ravel() for error in errors])
            yield check("gradient", flat, self.amplified, rounding.gradient)
            return
        norm = np.sqrt(sum(float((exact**2).sum()) for exact in self.gradients.values()))
        off = np.sqrt(sum(float(((gradients[n] - exact) ** 2).sum()) for n, exact in self.gradients.items()))
        yield check("gradient norm", np.asarray(off), self.amplified * norm, rounding.gradient_norm)


# Lockstep


class Stream:
    """Order and noise for training on the first images, in epochs of `steps` steps; `backends.Stream`."""

    def __init__(self, setting: Setting, pixels: Pixels, steps: int) -> None:
        self.seed, self.batch, self.steps, self.pixels = setting.seed, setting.batch, steps, pixels
        self.images = np.array(setting.images)
        self.examples = len(self.images)

    def epoch(self, epoch: int) -> EpochInputs:
        """As `bench.streams.TrainingStream`, but of as many steps as one likes."""
        orders = [shuffled(self.seed, "order", epoch * self.steps + i, self.examples) for i in range(self.steps)]
        order = np.stack(orders)[:, : self.batch]
        shape = (*order.shape, self.images.shape[1])
        return EpochInputs(order, noise_words(self.seed, "noise", epoch, shape) if self.pixels.noise else None)


LOCKSTEPS: dict[str, tuple[str, Optimiser, Pixels, int]] = {
    # case: architecture, optimiser, pixels, steps an epoch. Steps of one epoch each let every step be looked at; longer
    # epochs are what shows a schedule that runs by the epoch instead of by the step.
    "article, Adam": ("article", Adam(), ARTICLE, 1),
    "paper, RMSProp": ("paper", RMSProp(), DEQUANTISED, 1),
    "article, noise, Adam, epochs of 4": ("article", Adam(), ARTICLE_NOISE, 4),
    "paper, RMSProp, epochs of 4": ("paper", RMSProp(), DEQUANTISED, 4),
}


def lockstep(
    setting: Setting, chosen: Sequence[str], precision: str, device: str, cases: Sequence[str] = tuple(LOCKSTEPS)
) -> Iterator[Check]:
    """Train each backend beside the reference; one check a case, backend and quantity, the worst step standing for all.

    In float64 the tolerance is the project's; in other precisions trajectories part, and the check, without a tolerance
    (infinite), is a record of how far.
    """
    for case in cases:
        name, optimiser, pixels, steps = LOCKSTEPS[case]
        architecture = setting.architectures[name]
        initial = initial_weights(setting, name, architecture)
        stream = Stream(setting, pixels, steps)
        epochs = setting.steps // steps
        arms = {
            arm: make(arm, architecture, initial, device, precision)
            for arm in chosen
            if arm != "numpy" or precision != "float64"
        }
        reference = backends.create("numpy", architecture, parameters.astype(initial, "float64"), precision="float64")
        losses: dict[str, list[float]] = {arm: [] for arm in arms}
        vectors: dict[str, list[float]] = {arm: [] for arm in arms}
        largest: dict[str, list[float]] = {arm: [] for arm in arms}
        runs = {arm: model.train(stream.images, optimiser, stream, epochs) for arm, model in arms.items()}
        for expected in reference.train(stream.images, optimiser, stream, epochs):
            vector = _vector(reference)
            size = float(np.abs(vector).max())
            for arm, run in runs.items():
                found = next(run).losses
                losses[arm].append(float(np.abs(found / expected.losses - 1).max()))
                apart = _vector(arms[arm]) - vector
                vectors[arm].append(float(np.linalg.norm(apart) / np.linalg.norm(vector)))
                largest[arm].append(float(np.abs(apart).max()) / size)
        for arm in arms:
            for quantity, series, allowed in (
                ("loss", losses[arm], LOCKSTEP_TOLERANCE),
                ("parameters", vectors[arm], LOCKSTEP_TOLERANCE),
                ("largest parameter", largest[arm], LARGEST_TOLERANCE),
            ):
                tolerance = allowed if precision == "float64" else np.inf
                rms = float(np.sqrt(np.mean(np.square(series))))
                yield Check("lockstep", case, arm, precision, "", quantity, float(np.max(series)), rms, tolerance)
                for epoch, error in enumerate(series, start=1) if steps == 1 else ():
                    yield Check("lockstep", case, arm, precision, "", quantity, error, np.nan, tolerance, epoch)


def _vector(model: Backend) -> NDArray[np.float64]:
    state = model.training_state().parameters
    return np.concatenate([state[name].ravel() for name in model.architecture.trainable_shapes]).astype(np.float64)


def _dtype(precision: str) -> str:
    return "float64" if precision == "float64" else "float32"


# Resume and sampling


RESUMED: dict[str, Optimiser] = {"article": Adam(), "paper": RMSProp(momentum_epoch=2)}


def resume(
    setting: Setting, chosen: Sequence[str], device: str, cases: Sequence[str] = tuple(RESUMED)
) -> Iterator[Check]:
    """Six steps by the reference; or three by one backend, whose state another one resumes for three more."""
    for case in cases:
        optimiser = RESUMED[case]
        architecture = setting.architectures[case]
        initial = parameters.astype(initial_weights(setting, case, architecture), "float64")
        stream = Stream(setting, DEQUANTISED, steps=3)

        def start(arm: str, start: Parameters = initial, architecture: Architecture = architecture) -> Backend:
            return make(arm, architecture, start, device, "float64")

        def train(model: Backend, epochs: int, optimiser: Optimiser = optimiser, stream: Stream = stream) -> Backend:
            for _ in model.train(stream.images, optimiser, stream, epochs):
                pass
            return model

        vector = _vector(train(start("numpy"), 2))
        for first, second in zip(chosen, [*chosen[1:], *chosen[:1]], strict=True):
            resumed = start(second)
            train(resumed, 2)  # so that parameters, moments and step count are stale, none of them the state's
            resumed.resume(train(start(first), 1).training_state())
            error = np.abs(_vector(train(resumed, 1)) - vector) / np.abs(vector).max()
            rms = float(np.sqrt((error**2).mean()))
            pair = f"{first} → {second}"
            yield Check("resume", case, pair, "float64", "", "parameters", float(error.max()), rms, LOCKSTEP_TOLERANCE)


def sampling(setting: Setting, chosen: Sequence[str], device: str) -> Iterator[Check]:
    """Mean and mean square of the latents of samples, against the prior's, in standard errors (tolerance 5)."""
    temperature, count = 0.5, 400
    for case in ("article", "paper"):
        architecture = setting.architectures[case]
        given = parameters.astype(weights_of(setting, case, architecture)["trained"], "float64")
        # Second and fourth moments of the standard normal, and of the logistic density with scale 1.
        second, fourth = (1.0, 3.0) if architecture.prior == "gaussian" else (np.pi**2 / 3, 7 * np.pi**4 / 15)
        for name in chosen:
            model = make(name, architecture, given, device, "float64")
            z = model.encode(model.sample(count, temperature=temperature, seed=1))[0] / temperature
            for quantity, off, deviation in (
                ("mean of latents", z.mean(), np.sqrt(second)),
                ("mean square of latents", (z**2).mean() - second, np.sqrt(fourth - second**2)),
            ):
                error = abs(float(off)) * np.sqrt(z.size) / deviation
                yield Check("sampling", case, name, "float64", "trained", quantity, float(error), np.nan, 5.0)
