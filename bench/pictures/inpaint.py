"""Inpainting: digits of which a part is hidden, completed by climbing the model's log-likelihood.

The procedure is that of Dinh, Krueger, Bengio (arXiv 1410.8516, section 5.2), in the details of its public code
(pylearn2/scripts/reconstruct_mnist_gif.py of the repository laurent-dinh/nice). From that code:

- the first 100 test digits in rows of ten, each row with a part hidden: rows 0–13 (top), rows 14–27 (bottom), even
  pixels, odd pixels (counted along the rows, which makes them columns), columns 0–13 (left), columns 14–27 (right), the
  middle rows 7–20, the middle columns 7–20, each pixel with a probability of 75 %, and of 90 %;
- hidden pixels start uniform in (0, 1), in units of white;
- step i, from 0, adds α (g + ε) to them, with α = 10/(100 + i) and ε a standard normal number of each pixel. g is the
  gradient of the mean of log p over the 100 digits, that is, a hundredth of each digit's own;
- each step evaluates log p at pixels dequantised anew, if the protocol evaluates on such ones;
- observed pixels are as they were, after each step;
- 111,895 steps (Σ i² for i < 70).

From the paper, hidden pixels are kept in their interval, [0, 1]: "projected gradient ascent". The code leaves that
out, which goes well with a logistic prior, whose slope is bounded; a gaussian one drives them to infinity where
σ = exp(−s) is small, as 10/100 · exp(2s)/100 exceeds 2 there.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from backends import Pixels
from bench.errors import BenchError
from bench.inputs.streams import noise_words, normals, uniforms

DIGITS = 100
STEPS = sum(i * i for i in range(70))
HALVES = ("top", "bottom", "even pixels", "odd pixels", "left", "right", "middle rows 7–20", "middle columns 7–20")
ROWS = (*HALVES, "random 75 %", "random 90 %")
"""What is hidden in each row of ten."""

Score = Callable[[NDArray[np.float64]], NDArray]


def hidden_pixels(seed: int) -> NDArray[np.bool_]:
    """Which pixels of the 100 digits are hidden, [100, 784]."""
    hidden = np.zeros((len(ROWS), 10, 28, 28), np.bool_)
    rows, columns = np.indices((28, 28))
    parts = [rows < 14, rows >= 14, columns % 2 == 0, columns % 2 == 1, columns < 14, columns >= 14]
    parts += [(rows >= 7) & (rows < 21), (columns >= 7) & (columns < 21)]
    for row, part in enumerate(parts):
        hidden[row] = part
    u = uniforms(seed, "masks", 0, (2, 10, 28, 28))
    hidden[8], hidden[9] = u[0] < 0.75, u[1] < 0.9
    return hidden.reshape(DIGITS, 784)


def ascent(
    score: Score, images: NDArray[np.uint8], hidden: NDArray[np.bool_], pixels: Pixels, seed: int, steps: int
) -> Iterator[NDArray[np.float64]]:
    """The digits after each step, [N, D] in units of white.

    Args:
        score: ∇ₓ log p of each row, of the model.
        images: bytes [N, D]; those of hidden pixels are not looked at.
        hidden: which pixels are hidden, [N, D].
        pixels: how the model's x is made of bytes.
        seed: of start, noise and dequantisation.
        steps: how many to make.

    Raises:
        BenchError: the score is not finite.
    """
    observed = images / 255
    v = np.where(hidden, uniforms(seed, "start", 0, images.shape), observed)
    white = 255 * pixels.scale  # x of a white pixel, without noise
    for i in range(steps):
        x = white * v
        if pixels.noise:
            x += pixels.noise * (noise_words(seed, "dequantisation", i, images.shape) + 0.5) * 2.0**-16
        gradient = white * score(x) / DIGITS
        if not np.isfinite(gradient).all():
            raise BenchError(f"inpainting: the gradient of log p is not finite at step {i}")
        moved = v + 10 / (100 + i) * (gradient + normals(seed, "ascent", i, images.shape))
        v = np.where(hidden, np.clip(moved, 0, 1), observed)
        yield v
