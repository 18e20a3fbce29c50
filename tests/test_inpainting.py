"""The paper's inpainting: which pixels are hidden, and the ascent by hand."""

from dataclasses import replace

import numpy as np
import pytest
from factories import weights

import backends
from backends import Architecture, Pixels
from bench.errors import BenchError
from bench.inputs import data
from bench.inputs.streams import noise_words, normals, uniforms
from bench.pictures import inpaint
from bench.pictures.inpaint import ascent, hidden_pixels

PLAIN, NOISY = Pixels(1 / 255), Pixels(1 / 256, 1 / 256)


def flat(x):
    """A score that is nothing."""
    return np.zeros_like(x)


def pictures(count=2):
    return data.load("mnist-subset").test_images[:count]


def run(score, hidden, *, images=None, pixels=PLAIN, seed=0, steps=3):
    """The state after each step, an array of them."""
    images = pictures() if images is None else images
    return np.stack(list(ascent(score, images, hidden, pixels, seed, steps)))


# What is hidden


@pytest.mark.parametrize(
    ("row", "hidden"),
    [
        (0, np.s_[:14, :]),
        (1, np.s_[14:, :]),
        (2, np.s_[:, ::2]),
        (3, np.s_[:, 1::2]),
        (4, np.s_[:, :14]),
        (5, np.s_[:, 14:]),
        (6, np.s_[7:21, :]),
        (7, np.s_[:, 7:21]),
    ],
)
def test_each_row_of_ten_has_its_part_hidden(row, hidden):
    expected = np.zeros((28, 28), bool)
    expected[hidden] = True
    found = hidden_pixels(0).reshape(10, 10, 28, 28)[row]
    assert np.array_equal(found, np.broadcast_to(expected, found.shape))


@pytest.mark.parametrize(("row", "share"), [(8, 0.75), (9, 0.9)])
def test_the_last_two_rows_have_pixels_hidden_at_random(row, share):
    found = hidden_pixels(3)[10 * row : 10 * row + 10]
    assert found.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / found.size))
    assert len({digit.tobytes() for digit in found}) == 10
    assert not np.array_equal(found, hidden_pixels(4)[10 * row : 10 * row + 10])


def test_the_paper_makes_111895_steps():
    assert inpaint.STEPS == 111_895


# The ascent

HALF = np.tile(np.arange(784) < 392, (2, 1))


def test_hidden_pixels_start_uniform_and_walk_by_the_noise_times_the_step():
    states = run(flat, HALF, seed=5)
    v = uniforms(5, "start", 0, (2, 784))
    for i in range(3):
        v = np.clip(v + 10 / (100 + i) * normals(5, "ascent", i, (2, 784)), 0, 1)
        assert np.array_equal(states[i][HALF], v[HALF])


def test_observed_pixels_are_as_they_were_after_every_step():
    states = run(lambda x: 100 * np.ones_like(x), HALF, steps=4)
    assert np.array_equal(states[:, ~HALF], np.tile((pictures() / 255)[~HALF], (4, 1)))


def test_what_is_hidden_is_not_looked_at():
    images = np.where(HALF, np.uint8(99), pictures())
    assert np.array_equal(run(flat, HALF), run(flat, HALF, images=images))


def test_each_step_adds_a_hundredth_of_the_score_times_the_step():
    (still,), (moved,) = (run(score, HALF, steps=1) for score in (flat, lambda x: np.full_like(x, 30.0)))
    inside = HALF & (still > 0) & (still < 1) & (moved < 1)
    assert inside.sum() > 300
    assert (moved - still)[inside] == pytest.approx(0.1 * 30 / 100, rel=1e-9)


def test_the_score_is_by_the_models_pixels_and_is_taken_where_they_are():
    seen = []

    def score(x):
        seen.append(x)
        return np.full_like(x, 30.0)

    still, moved = run(flat, HALF, steps=2), run(score, HALF, pixels=NOISY, steps=2)
    start = np.where(HALF, uniforms(0, "start", 0, (2, 784)), pictures() / 255)
    for step, v in enumerate((start, moved[0])):
        u = (noise_words(0, "dequantisation", step, (2, 784)) + 0.5) / 2**16
        assert seen[step] == pytest.approx((255 * v + u) / 256, rel=1e-12)
    inside = HALF & (still[0] > 0) & (still[0] < 1) & (moved[0] < 1)
    assert (moved[0] - still[0])[inside] == pytest.approx(255 / 256 * 0.1 * 30 / 100, rel=1e-9)


def test_hidden_pixels_are_kept_between_black_and_white():
    for slope in (-1e6, 1e6):
        states = run(lambda x, slope=slope: np.full_like(x, slope), HALF)
        assert np.unique(states[:, HALF]).tolist() == [float(slope > 0)]


def test_a_score_that_is_not_finite_is_an_error_that_names_the_step():
    scores = iter([0.0, np.nan])
    with pytest.raises(BenchError, match="not finite at step 1"):
        run(lambda x: np.full_like(x, next(scores)), HALF)


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_the_ascent_raises_the_likelihood_and_comes_near_what_is_hidden(prior):
    # x = z/16 about the digit itself: the digit is the mode.
    architecture = Architecture(dim=784, couplings=1, hidden_layers=1, hidden_units=1, permutation="none")
    architecture = replace(architecture, prior=prior)
    given = {name: np.zeros_like(array) for name, array in weights(architecture).items()}
    given["log_scale"] += np.log(16)
    model = backends.create("numpy", architecture, given, precision="float64")
    images, hidden = pictures(4), np.tile(HALF, (2, 1))
    digits = images / 255
    states = run(lambda x: model.score(x - digits), hidden, images=images, steps=600)
    first, last = states[0], states[-1]
    assert (model.log_prob(last - digits) > model.log_prob(first - digits) + 50).all()
    assert np.abs(last - digits).mean() < 0.3 * np.abs(first - digits).mean()
