"""Everything random that a backend is handed: initial weights, the order of examples, noise, latents.

All of it is made here, in NumPy, from the raw 64-bit words of the counter-based generator Philox, keyed by (seed,
purpose, index). NumPy guarantees that the raw words never change; what it makes of them may, so that is done here too.
The same bits reach every backend, on every device, with every version of a framework.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

import backends
from backends import Architecture, EpochInputs, Pixels
from backends.architecture import permutation_name
from backends.parameters import Parameters

PURPOSES = {"weights": 1, "permutation": 2, "order": 3, "noise": 4, "dequantisation": 5, "latents": 6, "inputs": 7}
PURPOSES |= {"masks": 8, "start": 9, "ascent": 10}  # of inpainting
PURPOSES |= {"initial_scale": 11}

Kernels = Literal["glorot_uniform", "small_uniform", "he_normal"]
LogScale = Literal["glorot_normal", "zeros", "data"]
Permutations = Literal["shuffled", "patterns"]

# Keras truncates its normal at two deviations and widens it so that the deviation is what was asked for.
TRUNCATED_DEVIATION = 0.87962566103423978

SCALE_IMAGES = 5000


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


def initial_parameters(
    architecture: Architecture,
    seed: int,
    kernels: Kernels,
    log_scale: LogScale,
    permutations: Permutations = "shuffled",
    images: tuple[NDArray[np.uint8], Pixels] | None = None,
) -> Parameters:
    """Initial weights, float32 in every precision, so that all precisions start at the same point.

    Args:
        architecture: what to make them for.
        seed: of the run.
        kernels: "glorot_uniform" (the article), "small_uniform", U(−0.01, 0.01) (the paper), or "he_normal", N(0, 2/in)
            with the last layer of each network 0. Biases are 0.
        log_scale: "glorot_normal" of shape (1, D), truncated at two deviations as Keras does (the article), "zeros", or
            "data": each latent begins with the deviation that the prior has.
        permutations: where the architecture stores some: "shuffled", or "patterns", see `patterns`.
        images: training images uint8 [N, D] and how bytes become x, for "data", which looks at `SCALE_IMAGES` of them.
    """
    made: Parameters = {}
    for index, (name, shape) in enumerate(architecture.trainable_shapes.items()):
        values = np.zeros(shape)
        if name.endswith(".kernel"):
            limit = np.sqrt(6 / sum(shape)) if kernels == "glorot_uniform" else 0.01
            if kernels != "he_normal":
                values = limit * (2 * uniforms(seed, "weights", index, shape) - 1)
            elif not name.endswith(f".{architecture.hidden_layers}.kernel"):
                values = np.sqrt(2 / shape[0]) * normals(seed, "weights", index, shape)
        elif name == "log_scale" and log_scale == "glorot_normal":
            deviation = np.sqrt(2 / (1 + architecture.dim)) / TRUNCATED_DEVIATION
            low, high = ndtr(-2.0), ndtr(2.0)
            values = deviation * ndtri(low + (high - low) * uniforms(seed, "weights", index, shape))
        made[name] = values.astype(np.float32)
    if architecture.permutation == "shuffle":
        couplings, dim = range(architecture.couplings), architecture.dim
        drawn = permutations == "shuffled"
        orders = [shuffled(seed, "permutation", k, dim) for k in couplings] if drawn else patterns(architecture)
        made |= {permutation_name(k): order for k, order in zip(couplings, orders, strict=True)}
    if log_scale == "data":
        if images is None:
            raise ValueError("images is None; expected some, since log_scale is 'data'")
        made["log_scale"] = _scale_of_data(architecture, made, seed, *images).astype(np.float32)
    return made


def _scale_of_data(
    architecture: Architecture, made: Parameters, seed: int, images: NDArray[np.uint8], pixels: Pixels
) -> NDArray[np.float64]:
    """s [D] that gives each latent the prior's deviation (1, or π/√3 of the logistic) while all networks give 0."""
    few = images[:SCALE_IMAGES]
    u = (noise_words(seed, "initial_scale", 0, few.shape) + 0.5) * 2.0**-16
    without = replace(architecture, hidden_layers=1, hidden_units=1)  # of any size: a network that gives 0
    zeros = {name: np.zeros(shape) for name, shape in without.trainable_shapes.items()}
    fixed = {name: array for name, array in made.items() if name.endswith(".permutation")}
    flow = backends.create("numpy", without, zeros | fixed, device="cpu", precision="float64")
    deviation = flow.encode(few * np.float64(pixels.scale) + pixels.noise * u)[0].std(axis=0)
    return np.log((np.pi / np.sqrt(3) if architecture.prior == "logistic" else 1.0) / deviation)


def patterns(architecture: Architecture) -> list[NDArray[np.int32]]:
    """Permutations [D] after which a coupling reads one half of a pattern on the square image and changes the other.

    Even and odd columns for two couplings, the second with the halves exchanged; then rows, then the fields of a
    chessboard, and again. Each permutation starts from the order that the one before left.

    Raises:
        ArchitectureError: the images aren't square, or the flow reorders them otherwise.
    """
    side = round(np.sqrt(architecture.dim))
    if side * side != architecture.dim or side % 2:
        raise backends.ArchitectureError(f"architecture: dim is {architecture.dim}; patterns need an even square")
    if (architecture.reorder, architecture.permute, architecture.split) != ("none", "before", "halves"):
        raise backends.ArchitectureError("architecture: patterns need reorder none, permute before and split halves")
    row, column = np.divmod(np.arange(architecture.dim), side)
    order, made = np.arange(architecture.dim), []
    for k in range(architecture.couplings):
        half = (column, row, row + column)[k // 2 % 3] % 2 == k % 2
        wanted = np.concatenate([np.flatnonzero(half), np.flatnonzero(~half)])
        made.append(np.argsort(order)[wanted].astype(np.int32))
        order = wanted
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
        parts: how many parts of equally many steps an epoch is made in; the backends take each part for an epoch.
    """

    seed: int
    examples: int
    dim: int
    batch: int
    pixels: Pixels
    parts: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch, or of a part of one."""
        return self.examples // self.batch // self.parts

    def epoch(self, epoch: int) -> EpochInputs:
        """Order int32 [steps, batch] and, where the pixels take noise, words uint16 [steps, batch, D]."""
        whole, part = divmod(epoch - 1, self.parts)
        steps, rows = self.steps * self.parts, slice(part * self.steps, (part + 1) * self.steps)
        order = shuffled(self.seed, "order", whole + 1, self.examples)[: steps * self.batch].reshape(steps, self.batch)
        if not self.pixels.noise:
            return EpochInputs(order[rows], None)
        noise = noise_words(self.seed, "noise", whole + 1, (steps, self.batch, self.dim))
        return EpochInputs(order[rows], noise[rows])


def pixels_to_x(images: NDArray[np.uint8], pixels: Pixels, seed: int = 0, draw: int = 0) -> NDArray[np.float64]:
    """x for evaluation, [N, D]: scale · byte + noise · u, with the draw's own noise."""
    x: NDArray[np.float64] = images * np.float64(pixels.scale)
    if not pixels.noise:
        return x
    u = (noise_words(seed, "dequantisation", draw, images.shape) + 0.5) * 2.0**-16
    return x + pixels.noise * u
