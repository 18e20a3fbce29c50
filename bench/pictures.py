"""Pictures of samples: the article's grid of digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import backends
from bench.errors import BenchError
from bench.streams import normals, uniforms

SIDE = 28


def grid(images: NDArray, rows: int) -> NDArray[np.uint8]:
    """[rows², 784] in units of white → one grey picture [28 · rows, 28 · rows]; what is out of [0, 1] is cut off."""
    levels = np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return levels.reshape(rows, rows, SIDE, SIDE).swapaxes(1, 2).reshape(rows * SIDE, rows * SIDE)


def sample_grid(
    weights: Path, output: Path, *, backend: str | None, device: str, temperature: float, seed: int, rows: int
) -> Path:
    """Decode rows² latents and write the picture; the latents come from `streams`, so every backend draws the same one.

    Raises:
        BenchError: the weights are not of 28 × 28 images, or the picture can't be written.
    """
    architecture, loaded = backends.parameters.load(weights)
    if architecture.dim != SIDE * SIDE:
        raise BenchError(f"{weights}: dim is {architecture.dim}; expected {SIDE * SIDE}, images of {SIDE} × {SIDE}")
    if output.suffix.lower() != ".png":
        raise BenchError(f"{output}: expected a name that ends in .png")
    name = backend or first_available()
    precision = "float64" if loaded["log_scale"].dtype == np.float64 else "float32"
    model = backends.create(name, architecture, loaded, device=device, precision=precision)
    shape = (rows * rows, architecture.dim)
    if architecture.prior == "gaussian":
        latents = normals(seed, "latents", 0, shape)
    else:
        u = uniforms(seed, "latents", 0, shape)
        latents = np.log(u) - np.log1p(-u)
    picture = Image.fromarray(grid(model.decode(temperature * latents), rows))
    try:
        picture.save(output)
    except OSError as error:
        raise BenchError(f"{output}: can't be written ({error.strerror or error})") from error
    return output


def first_available() -> str:
    """The first backend whose framework can be imported here."""
    for name in backends.REGISTRY:
        try:
            backends.backend_class(name)
        except backends.UnavailableError:
            continue
        return name
    raise BenchError("no backend can be used here")
