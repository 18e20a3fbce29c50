"""NICE in NumPy: the reference that the other backends are measured against.

It follows the text of the model literally, one dimension order at a time, with gradients and optimisers by hand and no
trick for speed. What it says in float64 is what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from backends.architecture import Architecture, bias_name, kernel_name, permutation_name
from backends.hooks import Functions, Training
from backends.interface import Backend
from backends.layout import tile
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.parameters import Parameters
from backends.values import EpochInputs, Pixels

LOG_TWO_PI = float(np.log(2 * np.pi))


class NumpyBackend(Backend):
    """The float64 reference; float32 too, with the same code."""

    name = "numpy"
    modes = ("eager",)
    workloads = "bench.measures.floor.numpy_workloads"

    # Devices, precision -----------------------------------------------------------------------------------------

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    @classmethod
    def precisions(cls, device: str) -> tuple[str, ...]:
        return ("float64", "float32")

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"numpy": np.__version__}

    def _to_device(self, array: NDArray) -> NDArray:
        return array

    def _to_numpy(self, array: NDArray) -> NDArray:
        return np.asarray(array)

    def synchronise(self, result: Any = None) -> None:
        """Nothing to wait for."""

    # Building, and the values of arrays: in canonical order, no layout ------------------------------------------

    def _laid_out(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        super()._laid_out(arrays)  # for its check
        return {name: arrays[name].astype(self.dtype) for name in self.architecture.trainable_shapes}

    def _canonical(self, arrays: Mapping[str, NDArray]) -> Parameters:
        return {name: array.copy() for name, array in arrays.items()}

    def _build(self) -> tuple[Parameters, Functions]:
        return self._zeros(), Functions(
            encode=self._encode,
            decode=self._decode,
            log_prob=self._log_prob,
            score=self._score,
            gradients=self._gradients,
            product=self._product,
            sample=self._sample,
        )

    def _zeros(self) -> Parameters:
        return {name: np.zeros(shape, self.dtype) for name, shape in self.architecture.trainable_shapes.items()}

    def _assign(self, held: dict[str, NDArray], arrays: Mapping[str, NDArray]) -> None:
        for name, array in arrays.items():
            held[name][...] = array

    # The coupling network ---------------------------------------------------------------------------------------

    def _product(self, a: NDArray, b: NDArray) -> NDArray:
        return a @ b

    def _network(self, k: int, x1: NDArray) -> list[NDArray]:
        """m of coupling k: the activations of every layer, the input first, m(x₁) last."""
        activations = [x1]
        last = self.architecture.hidden_layers
        for i in range(last + 1):
            h = self._product(activations[-1], self._weights[kernel_name(k, i)]) + self._weights[bias_name(k, i)]
            linear = i == last and self.architecture.output == "linear"
            activations.append(h if linear else np.maximum(h, 0))
        return activations

    def _network_gradients(
        self, k: int, activations: list[NDArray], gradient: NDArray
    ) -> tuple[NDArray, dict[str, NDArray]]:
        """From ∂L/∂m to ∂L/∂x₁ and the gradients by the kernels and biases of coupling k."""
        gradients = {}
        last = self.architecture.hidden_layers
        for i in reversed(range(last + 1)):
            if i < last or self.architecture.output == "relu":
                gradient = gradient * (activations[i + 1] > 0)
            gradients[kernel_name(k, i)] = activations[i].T @ gradient
            gradients[bias_name(k, i)] = gradient.sum(axis=0)
            gradient = gradient @ self._weights[kernel_name(k, i)].T
        return gradient, gradients

    # Encode, decode, density ------------------------------------------------------------------------------------

    def _encode(self, x: NDArray) -> tuple[NDArray, NDArray]:
        z, _ = self._forward(x)
        return z, np.full(len(x), self._weights["log_scale"].sum(), self.dtype)

    def _forward(self, x: NDArray) -> tuple[NDArray, list[list[NDArray]]]:
        """z [B, D], and the activations of each coupling's network."""
        architecture = self.architecture
        tape = []
        h = x[:, tile(architecture.dim)] if architecture.reorder == "tile" else x
        for k in range(architecture.couplings):
            if architecture.permute == "before":
                h = h[:, self._permutation(k)]
            x1, x2 = split(architecture, h)
            activations = self._network(k, x1)
            h = merge(architecture, x1, x2 + self._sign * activations[-1])
            tape.append(activations)
            if architecture.permute == "after":
                h = h[:, self._permutation(k)]
        return h * np.exp(self._weights["log_scale"]), tape

    def _decode(self, z: NDArray) -> NDArray:
        architecture = self.architecture
        h = z * np.exp(-self._weights["log_scale"])
        for k in reversed(range(architecture.couplings)):
            if architecture.permute == "after":
                h = h[:, np.argsort(self._permutation(k))]
            x1, x2 = split(architecture, h)
            h = merge(architecture, x1, x2 - self._sign * self._network(k, x1)[-1])
            if architecture.permute == "before":
                h = h[:, np.argsort(self._permutation(k))]
        return h[:, np.argsort(tile(architecture.dim))] if architecture.reorder == "tile" else h

    def _log_prob(self, x: NDArray) -> NDArray:
        z, log_det = self._encode(x)
        return self._log_prior(z) + log_det

    def _log_prior(self, z: NDArray) -> NDArray:
        if self.architecture.prior == "gaussian":
            return -0.5 * ((z * z).sum(axis=1) + self.architecture.dim * LOG_TWO_PI)
        return -(np.logaddexp(0, z) + np.logaddexp(0, -z)).sum(axis=1)

    def _score(self, x: NDArray) -> NDArray:
        z, tape = self._forward(x)
        return self._backward(tape, -self._slope(z))[0]

    def _slope(self, z: NDArray) -> NDArray:
        """−∂ log prior/∂z: z for the gaussian, tanh(z/2) for the logistic density."""
        return z if self.architecture.prior == "gaussian" else 2 * expit(z) - 1

    @property
    def _sign(self) -> int:
        return -1 if self.architecture.sign == "subtract" else 1

    def _permutation(self, k: int) -> NDArray:
        if self.architecture.permutation == "shuffle":
            return self._fixed[permutation_name(k)]
        order = np.arange(self.architecture.dim)
        return order[::-1] if self.architecture.permutation == "reverse" else order

    # Sampling ---------------------------------------------------------------------------------------------------

    def _sample(self, n: int, temperature: float, seed: int | None) -> NDArray:
        generator = np.random.default_rng(seed)
        draw = generator.standard_normal if self.architecture.prior == "gaussian" else generator.logistic
        return self._decode((draw(size=(n, self.architecture.dim)) * temperature).astype(self.dtype))

    # The loss and its gradient ----------------------------------------------------------------------------------

    def _gradients(self, x: NDArray) -> tuple[NDArray, dict[str, NDArray]]:
        z, tape = self._forward(x)
        loss = -(self._log_prior(z) + self._weights["log_scale"].sum()).mean()
        by_z = self._slope(z) / len(x)
        _, gradients = self._backward(tape, by_z)
        gradients["log_scale"] = (by_z * z).sum(axis=0) - 1
        return np.asarray(loss), {name: gradients[name] for name in self.architecture.trainable_shapes}

    def _backward(self, tape: list[list[NDArray]], by_z: NDArray) -> tuple[NDArray, dict[str, NDArray]]:
        """From ∂L/∂z to ∂L/∂x and the gradients by all kernels and biases; `tape` is that of `_forward`."""
        architecture, gradients = self.architecture, {}
        gradient = by_z * np.exp(self._weights["log_scale"])
        for k in reversed(range(architecture.couplings)):
            if architecture.permute == "after":
                gradient = gradient[:, np.argsort(self._permutation(k))]
            by_x1, by_x2 = split(architecture, gradient)
            by_input, by_network = self._network_gradients(k, tape[k], self._sign * by_x2)
            gradients.update(by_network)
            gradient = merge(architecture, by_x1 + by_input, by_x2)
            if architecture.permute == "before":
                gradient = gradient[:, np.argsort(self._permutation(k))]
        if architecture.reorder == "tile":
            gradient = gradient[:, np.argsort(tile(architecture.dim))]
        return gradient, gradients

    # For training -----------------------------------------------------------------------------------------------

    def _training(self, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> NumpyTraining:
        return NumpyTraining(self, images, optimiser, pixels)


class NumpyTraining(Training):
    """The training step, one after the other."""

    trial_step = False

    def __init__(self, model: NumpyBackend, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> None:
        self._model, self._images, self._optimiser, self._pixels = model, images, optimiser, pixels

    def _update(self, gradients: Mapping[str, NDArray], row: NDArray) -> None:
        rules: dict[type, Callable] = {Adam: adam, AdamW: adamw, RMSProp: rmsprop}
        for name, g in gradients.items():
            moments = [self._model._moments[moment][name] for moment in self._optimiser.moments]
            rules[type(self._optimiser)](self._optimiser, self._model._weights[name], g, *moments, row)

    def upload(self, inputs: EpochInputs, schedule: NDArray) -> tuple[EpochInputs, NDArray]:
        return inputs, schedule

    def _pixels_to_x(self, images: NDArray, noise: NDArray | None) -> NDArray:
        dtype = self._model.dtype
        x = images.astype(dtype) * dtype.type(self._pixels.scale)
        if noise is None:
            return x
        u = (noise.astype(dtype) + dtype.type(0.5)) * dtype.type(2**-16)
        return x + dtype.type(self._pixels.noise) * u

    def run(self, inputs: tuple[EpochInputs, NDArray], steps: int) -> NDArray:
        stream, schedule = inputs
        losses = np.empty(steps, self._model.dtype)
        for i in range(steps):
            x = self._pixels_to_x(self._images[stream.order[i]], None if stream.noise is None else stream.noise[i])
            losses[i], gradients = self._model._gradients(x)
            self._update(gradients, schedule[i])
        return losses


def split(architecture: Architecture, h: NDArray) -> tuple[NDArray, NDArray]:
    """[B, D] → x₁, x₂, each [B, D/2]."""
    if architecture.split == "interleaved":
        return h[:, 0::2], h[:, 1::2]
    return h[:, : architecture.half], h[:, architecture.half :]


def merge(architecture: Architecture, x1: NDArray, x2: NDArray) -> NDArray:
    """The inverse of `split`."""
    if architecture.split == "interleaved":
        return np.stack([x1, x2], axis=2).reshape(len(x1), architecture.dim)
    return np.concatenate([x1, x2], axis=1)


def adam(
    optimiser: Adam | AdamW,
    theta: NDArray,
    g: NDArray,
    m: NDArray,
    v: NDArray,
    row: NDArray,
    rate: float | None = None,
) -> None:
    """One parameter and its moments, in place; row holds the two bias corrections; rate is lr where it varies."""
    lr = optimiser.learning_rate if rate is None else rate
    m[...] = optimiser.beta1 * m + (1 - optimiser.beta1) * g
    v[...] = optimiser.beta2 * v + (1 - optimiser.beta2) * g * g
    theta -= lr * (m * row[0]) / (np.sqrt(v * row[1]) + optimiser.epsilon)


def adamw(optimiser: AdamW, theta: NDArray, g: NDArray, m: NDArray, v: NDArray, average: NDArray, row: NDArray) -> None:
    """One parameter, its moments and its average, in place; row holds the learning rate and the bias corrections."""
    decay = optimiser.decay if theta.ndim == 2 else 0.0  # kernels alone
    theta -= row[0] * decay * theta
    adam(optimiser, theta, g, m, v, row[1:], row[0])
    average += (1 - optimiser.average) * (theta - average)


def rmsprop(optimiser: RMSProp, theta: NDArray, g: NDArray, r: NDArray, velocity: NDArray, row: NDArray) -> None:
    """One parameter and its moments, in place; row holds the learning rate and the momentum."""
    r[...] = optimiser.rho * r + (1 - optimiser.rho) * g * g
    velocity[...] = row[1] * velocity - row[0] * g / np.maximum(np.sqrt(r), optimiser.floor)
    theta += velocity
