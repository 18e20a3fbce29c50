"""Pictures of samples."""

from dataclasses import replace

import numpy as np
import pytest
from factories import SMALL, backend_names, weights
from PIL import Image

from backends import Architecture, parameters
from bench.errors import BenchError
from bench.pictures import first_available, grid, sample_grid

DIGITS = Architecture(dim=784, couplings=2, hidden_layers=1, hidden_units=9)


def draw(folder, architecture=DIGITS, *, name="digits.png", **options):
    """The picture as an array."""
    parameters.save(folder / "weights.safetensors", architecture, weights(architecture, "float32"))
    options = {"backend": "numpy", "device": "cpu", "temperature": 0.8, "seed": 0, "rows": 3} | options
    return np.asarray(Image.open(sample_grid(folder / "weights.safetensors", folder / name, **options)))


def test_grid_goes_row_by_row():
    images = np.zeros((4, 784))
    images[1] = 1.0
    images[2, 28] = 0.2  # second row, first column
    expected = np.zeros((56, 56), np.uint8)
    expected[:28, 28:] = 255
    expected[29, 0] = 51
    found = grid(images, 2)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("value", "level"), [(-0.1, 0), (1.2, 255), (0.5 / 255 + 1e-6, 1), (1.49 / 255, 1)])
def test_grey_levels_are_rounded_and_cut_off(value, level):
    assert np.unique(grid(np.full((1, 784), value), 1)).tolist() == [level]


def test_fifteen_rows_are_420_pixels_wide_and_grey(tmp_path):
    picture = draw(tmp_path, rows=15)
    assert (picture.shape, picture.dtype) == ((420, 420), np.uint8)


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("backend", backend_names())
def test_every_backend_draws_the_same_picture(tmp_path, backend, prior):
    drawn = [draw(tmp_path, replace(DIGITS, prior=prior), backend=name) for name in (backend, "numpy")]
    assert len(np.unique(drawn[0])) > 100
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1


def test_another_seed_draws_another_picture(tmp_path):
    assert not np.array_equal(draw(tmp_path, seed=0), draw(tmp_path, seed=1))


def test_digits_of_one_picture_differ(tmp_path):
    picture = draw(tmp_path, rows=2)
    assert not np.array_equal(picture[:28, :28], picture[:28, 28:])


def test_temperature_0_draws_one_digit_over_and_over(tmp_path):
    picture = draw(tmp_path, rows=15, temperature=0.0)
    assert np.array_equal(picture, np.tile(picture[:28, :28], (15, 15)))


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_temperature_scales_the_latents(tmp_path, prior):
    # Without couplings' networks and with s = log 16, x is z / 16: a latent of 4 is a pixel of 1/4.
    architecture = replace(DIGITS, prior=prior, permutation="none")
    arrays = {name: np.zeros_like(array) for name, array in weights(architecture, "float32").items()}
    arrays["log_scale"] += np.log(16).astype(np.float32)
    parameters.save(tmp_path / "scale.safetensors", architecture, arrays)
    options = {"backend": "numpy", "device": "cpu", "seed": 0, "rows": 5}
    spreads = []
    for temperature in (0.5, 1.0):
        path = sample_grid(tmp_path / "scale.safetensors", tmp_path / "p.png", temperature=temperature, **options)
        levels = np.asarray(Image.open(path)).astype(float)
        spreads.append(np.median(levels[levels > 0]))  # half of the latents are positive
    # The medians of |z|, 0.674 and log 3, in grey levels.
    median = {"gaussian": 0.6745, "logistic": np.log(3)}[prior] / 16 * 255
    assert spreads == pytest.approx([0.5 * median, median], abs=1)


def test_weights_of_another_size_are_refused(tmp_path):
    with pytest.raises(BenchError, match=r"weights.safetensors: dim is 12; expected 784"):
        draw(tmp_path, SMALL)


@pytest.mark.parametrize("name", ["digits.jpg", "digits", "png"])
def test_a_name_that_is_not_of_a_png_is_refused(tmp_path, name):
    with pytest.raises(BenchError, match=r"expected a name that ends in .png"):
        draw(tmp_path, name=name)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BenchError, match="can't be written"):
        draw(tmp_path, name="nowhere/digits.png")


def test_the_first_backend_that_can_be_used_is_the_registrys_first(monkeypatch):
    monkeypatch.setattr(
        "backends.REGISTRY", {"none": "no_such_module:X", "numpy": "backends.numpy_backend:NumpyBackend"}
    )
    assert first_available() == "numpy"
