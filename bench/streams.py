"""Everything random that a backend is handed: initial weights, the order of examples, noise, latents.

All of it is made here, in NumPy, from the raw 64-bit words of the counter-based generator Philox, keyed by (seed,
purpose, index). NumPy guarantees that the raw words never change; what it makes of them may, so that is done here too.
The same bits reach every backend, on every device, with every version of a framework.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from backends import Architecture, EpochInputs, Pixels
from backends.architecture import permutation_name
from backends.parameters import Parameters

PURPOSES = {"weights": 1, "permutation": 2, "order": 3, "noise": 4, "dequantisation": 5, "latents": 6, "inputs": 7}
PURPOSES |= {"masks": 8, "start": 9, "ascent": 10}  # of inpainting

Kernels = Literal["glorot_uniform", "small_uniform"]
LogScale = Literal["glorot_normal", "zeros"]

# Keras truncates its normal at two deviations and widens it so that the deviation is what was asked for.
TRUNCATED_DEVIATION = 0.87962566103423978


def words(seed: int, purpose: str, index: int, count: int) -> NDArray[np.uint64]:
    """The first `count` raw words [count] of the stream (seed, purpose, index); 0 ≤ seed < 2⁶⁴, 0 ≤ index < 2⁴⁸."""
    if not (0 <= seed < 2**64 and 0 <= index < 2**48):
        raise ValueError(f"seed is {seed}, index {index}; expected 0 ≤ seed < 2**64 and 0 ≤ index < 2**48")
    key = np.array([seed, (PURPOSES[purpose] << 48) | index], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(count)


def uniforms(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Uniforms in (0, 1), from the upper 53 bits of each word, at the middle of each of 2⁵³ cells (never 0 or 1)."""
    raw = words(seed, purpose, index, int(np.prod(shape)))
    return np.minimum(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53, 1 - 2.0**-53).reshape(shape)


def normals(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normals: the inverse of the distribution function at `uniforms`."""
    return ndtri(uniforms(seed, purpose, index, shape))


def noise_words(seed: int, purpose: str, index: int, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """16-bit words k, four to a raw word, lowest first; u = (k + ½) / 2¹⁶."""
    count = int(np.prod(shape))
    raw = words(seed, purpose, index, -(-count // 4)).astype("<u8", copy=False)
    return raw.view("<u2")[:count].astype(np.uint16, copy=False).reshape(shape)


def initial_parameters(architecture: Architecture, seed: int, kernels: Kernels, log_scale: LogScale) -> Parameters:
    """Initial weights, float32 in every precision, so that all precisions start at the same point.

    Args:
        architecture: what to make them for.
        seed: of the run.
        kernels: "glorot_uniform" (the article) or "small_uniform", U(−0.01, 0.01) (the paper). Biases are 0.
        log_scale: "glorot_normal" of shape (1, D), truncated at two deviations as Keras does (the article), or "zeros".
    """
    made: Parameters = {}
    for index, (name, shape) in enumerate(architecture.trainable_shapes.items()):
        values = np.zeros(shape)
        if name.endswith(".kernel"):
            limit = np.sqrt(6 / sum(shape)) if kernels == "glorot_uniform" else 0.01
            values = limit * (2 * uniforms(seed, "weights", index, shape) - 1)
        elif name == "log_scale" and log_scale == "glorot_normal":
            deviation = np.sqrt(2 / (1 + architecture.dim)) / TRUNCATED_DEVIATION
            low, high = ndtr(-2.0), ndtr(2.0)
            values = deviation * ndtri(low + (high - low) * uniforms(seed, "weights", index, shape))
        made[name] = values.astype(np.float32)
    if architecture.permutation == "shuffle":
        for k in range(architecture.couplings):
            made[permutation_name(k)] = shuffled(seed, "permutation", k, architecture.dim)
    return made


def shuffled(seed: int, purpose: str, index: int, count: int) -> NDArray[np.int32]:
    """A permutation of 0 … count − 1: stable argsort of raw words."""
    return np.argsort(words(seed, purpose, index, count), kind="stable").astype(np.int32)


@dataclass(frozen=True)
class TrainingStream:
    """Order and noise of every epoch of a training run; `backends.interface.Stream`.

    Attributes:
        seed: of the run.
        examples: size N of the training set.
        dim: D.
        batch: examples a step; the remainder of N is left out, so that every step has one shape.
        pixels: how bytes and noise become x.
    """

    seed: int
    examples: int
    dim: int
    batch: int
    pixels: Pixels

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.examples // self.batch

    def epoch(self, epoch: int) -> EpochInputs:
        """Order int32 [steps, batch] and, where the pixels take noise, words uint16 [steps, batch, D]."""
        used = self.steps * self.batch
        order = shuffled(self.seed, "order", epoch, self.examples)[:used].reshape(self.steps, self.batch)
        if not self.pixels.noise:
            return EpochInputs(order, None)
        return EpochInputs(order, noise_words(self.seed, "noise", epoch, (self.steps, self.batch, self.dim)))


def pixels_to_x(images: NDArray[np.uint8], pixels: Pixels, seed: int = 0, draw: int = 0) -> NDArray[np.float64]:
    """x for evaluation, [N, D]: scale · byte + noise · u, with the draw's own noise."""
    x: NDArray[np.float64] = images * np.float64(pixels.scale)
    if not pixels.noise:
        return x
    u = (noise_words(seed, "dequantisation", draw, images.shape) + 0.5) * 2.0**-16
    return x + pixels.noise * u
