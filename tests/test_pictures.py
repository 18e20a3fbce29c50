"""Pictures of a model: what is where in each kind, and that every backend draws the same one."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from factories import SMALL, backend_names, weights
from PIL import Image
from record_factories import record
from rich.console import Console

from backends import Architecture, create, parameters
from bench import pictures, records
from bench.errors import BenchError
from bench.inputs import data, protocol
from bench.pictures import DEFAULTS, inpaint, picture_source
from bench.pictures.picture_files import GAP, levels, tiled
from bench.records import collection

DIGITS = Architecture(dim=784, couplings=2, hidden_layers=1, hidden_units=9)
SQUARE = Architecture(dim=16, couplings=2, hidden_layers=1, hidden_units=9)
DRAWN = ("grid", "interpolation", "traversal", "inpainting")
FEW = {
    "grid": {"rows": 3, "temperatures": (0.5, 1.0)},
    "interpolation": {"rows": 2, "protocol": "article"},
    "traversal": {"rows": 3},
    "inpainting": {"steps": 5, "protocol": "paper"},
}


def draw(folder, kind="grid", architecture=DIGITS, *, given=None, name="picture.png", **options):
    """The path of the picture."""
    given = weights(architecture, "float32") if given is None else given
    parameters.save(folder / "weights.safetensors", architecture, given)
    options = ({} if kind == "spectrum" else {"backend": "numpy", "device": "cpu"}) | options
    return pictures.draw(kind, folder / "weights.safetensors", folder / name, options)


def grey(path):
    """The picture as an array of levels of 255."""
    return np.asarray(Image.open(path).convert("L"))


def scaling(factor, prior="gaussian"):
    """A model whose x is `factor` · z, and its weights."""
    architecture = replace(DIGITS, prior=prior, permutation="none")
    arrays = {name: np.zeros_like(array) for name, array in weights(architecture, "float32").items()}
    arrays["log_scale"] -= np.log(factor).astype(np.float32)
    return architecture, arrays


# Every kind


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("backend", [name for name in backend_names() if name != "numpy"])
def test_every_backend_draws_the_same_picture(tmp_path, backend, kind, prior):
    architecture = replace(DIGITS, prior=prior)
    mine, reference = (
        grey(draw(tmp_path, kind, architecture, greys=64, backend=name, **FEW[kind])).astype(int)
        for name in (backend, "numpy")
    )
    assert len(np.unique(reference)) > 32
    assert np.abs(mine - reference).max() <= np.ceil(255 / 63)  # one of 64 levels
    assert (mine != reference).mean() < 1e-3


@pytest.mark.parametrize("kind", ["grid", "traversal", "inpainting"])
def test_another_seed_draws_another_picture(tmp_path, kind):
    drawn = [grey(draw(tmp_path, kind, seed=seed, **FEW[kind])) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("kind", DEFAULTS)
def test_a_caption_lies_beside_the_picture_and_in_it(tmp_path, kind):
    path = draw(tmp_path, kind, **FEW.get(kind, {}))
    message = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert set(message) == {"title", "caption"}
    assert parameters.digest(weights(DIGITS, "float32"))[:12] in message["caption"]
    assert ("Drawn with numpy on cpu, float32" in message["caption"]) == (kind != "spectrum")
    assert ("seed 0" in message["caption"]) == (kind in ("grid", "traversal", "inpainting"))
    with Image.open(path) as image:
        assert image.text == {"Title": message["title"], "Description": message["caption"], "Software": "nice-bench"}


@pytest.mark.parametrize(
    ("kind", "said"), [("grid", "0.5 and 1"), ("inpainting", "5 steps"), ("interpolation", "protocol article")]
)
def test_a_caption_says_what_was_asked_for(tmp_path, kind, said):
    assert said in draw(tmp_path, kind, **FEW[kind]).with_suffix(".json").read_text(encoding="utf-8")


def test_a_caption_is_no_record(tmp_path):
    draw(tmp_path)
    assert collection.load_all(tmp_path) == []
    (tmp_path / "picture.png").unlink()
    with pytest.raises(records.RecordError):
        collection.load_all(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("grid", {"protocol": "paper"}, "--protocol doesn't go with --kind grid, but with interpolation, inpainting"),
        ("interpolation", {"temperatures": (1.0,)}, "--temperature doesn't go with --kind interpolation"),
        ("interpolation", {"seed": 1}, "--seed doesn't go with --kind interpolation"),
        ("spectrum", {"rows": 3}, "--rows doesn't go with --kind spectrum"),
        ("spectrum", {"backend": "numpy"}, "--backend doesn't go with --kind spectrum"),
        ("traversal", {"temperatures": (0.5, 1.0)}, "traversal takes one --temperature"),
        ("inpainting", {"greys": 256}, "--greys 256: inpainting has 255 at most"),
        ("interpolation", {"rows": 200, "protocol": "article"}, "400 test digits .* has 256"),
        ("inpainting", {"steps": 1}, "weights.safetensors: no record .* give --protocol"),
        ("interpolation", {"protocol": "none"}, "protocol 'none': expected one of"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, kind, options, message):
    with pytest.raises(BenchError, match=message):
        draw(tmp_path, kind, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("kind", ["grid", "traversal"])
def test_images_of_any_square_size_are_drawn(tmp_path, kind):
    columns = {"grid": 2, "traversal": 11}[kind]
    assert grey(draw(tmp_path, kind, SQUARE, rows=2)).shape == (8, 4 * columns)


@pytest.mark.parametrize("kind", ["grid", "traversal"])
def test_weights_of_no_square_are_refused(tmp_path, kind):
    with pytest.raises(BenchError, match=r"weights.safetensors: dim is 12; expected a square"):
        draw(tmp_path, kind, SMALL)


@pytest.mark.parametrize("kind", ["interpolation", "inpainting"])
def test_mnists_digits_are_drawn_by_models_of_their_size_only(tmp_path, kind):
    with pytest.raises(BenchError, match=r"weights.safetensors: dim is 16; expected 784"):
        draw(tmp_path, kind, SQUARE, protocol="article")


@pytest.mark.parametrize("name", ["digits.jpg", "digits", "png"])
def test_a_name_that_is_not_of_a_png_is_refused(tmp_path, name):
    with pytest.raises(BenchError, match=r"expected a name that ends in .png"):
        draw(tmp_path, name=name)
    assert not (tmp_path / name).exists()


def test_a_caption_takes_the_place_of_another_caption_alone(tmp_path):
    draw(tmp_path, name="weights.png", rows=1)
    draw(tmp_path, name="weights.png", rows=2)  # beside the weights: it isn't read as their record
    assert "2 × 2" in (tmp_path / "weights.json").read_text(encoding="utf-8")
    path = records.save(record(), tmp_path / "run")
    kept = path.read_bytes()
    for content in (kept, b"[]", b"no JSON", b'{"title": "one of another program"}'):
        path.write_bytes(content)
        with pytest.raises(BenchError, match=f"its caption would replace {path.name}"):
            draw(tmp_path, name=f"run/{path.stem}.png")
        assert path.read_bytes() == content
        assert not path.with_suffix(".png").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "nowhere").touch()
    with pytest.raises(BenchError, match="can't be written"):
        draw(tmp_path, name="nowhere/digits.png", rows=1)


def test_inpainting_shows_its_progress_on_a_terminal(tmp_path):
    parameters.save(tmp_path / "w.safetensors", DIGITS, weights(DIGITS, "float32"))
    options = {"backend": "numpy", "device": "cpu", "steps": 3, "protocol": "paper"}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        pictures.draw("inpainting", tmp_path / "w.safetensors", tmp_path / "p.png", options, console)
        message = console.file.getvalue()
        assert ("inpainting" in message and "100%" in message) if terminal else message == ""


# Levels and tiles


def test_tiles_go_row_by_row():
    images = np.zeros((4, 784))
    images[1] = 1.0
    images[2, 28] = 0.2  # second row, first column
    expected = np.zeros((56, 56), np.uint8)
    expected[:28, 28:] = 255
    expected[29, 0] = 51
    found = tiled(levels(images), 2, 28)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("value", "level"), [(-0.1, 0), (1.2, 255), (0.5 / 255 + 1e-6, 1), (1.49 / 255, 1)])
def test_grey_levels_are_rounded_and_cut_off(value, level):
    assert levels(np.array([value])).tolist() == [level]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_makes_no_picture(value):
    with pytest.raises(BenchError, match="values that are not finite"):
        levels(np.array([0.5, value]))


def test_fewer_greys_are_the_nearest_ones_and_a_smaller_file(tmp_path):
    fine, coarse = (draw(tmp_path, name=f"{greys}.png", greys=greys) for greys in (256, 16))
    assert np.abs(grey(fine).astype(int) - grey(coarse)).max() <= 255 / 15 / 2 + 1
    assert len(np.unique(grey(coarse))) == 16
    assert coarse.stat().st_size < 0.7 * fine.stat().st_size


# A grid


def test_fifteen_rows_are_420_pixels_wide_and_grey(tmp_path):
    with Image.open(draw(tmp_path)) as image:
        assert (image.size, image.mode) == ((420, 420), "L")


def test_digits_of_one_picture_differ(tmp_path):
    picture = grey(draw(tmp_path, rows=2))
    assert not np.array_equal(picture[:28, :28], picture[:28, 28:])


def test_temperature_0_draws_one_digit_over_and_over(tmp_path):
    picture = grey(draw(tmp_path, temperatures=(0.0,)))
    assert np.array_equal(picture, np.tile(picture[:28, :28], (15, 15)))


def test_several_temperatures_are_panels_from_left_to_right(tmp_path):
    several = grey(draw(tmp_path, rows=2, temperatures=(0.5, 0.8, 1.0)))
    assert several.shape == (56, 3 * 56 + 2 * GAP)
    for place, temperature in enumerate((0.5, 0.8, 1.0)):
        start = place * (56 + GAP)
        one = grey(draw(tmp_path, rows=2, temperatures=(temperature,)))
        assert np.array_equal(several[:, start : start + 56], one)
    assert np.unique(several[:, 56 : 56 + GAP]).tolist() == [128]


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_temperature_scales_the_latents(tmp_path, prior):
    # x is z / 16: a latent of 4 is a pixel of 1/4.
    architecture, given = scaling(1 / 16, prior)
    spreads = []
    for temperature in (0.5, 1.0):
        picture = grey(draw(tmp_path, "grid", architecture, given=given, rows=5, temperatures=(temperature,)))
        spreads.append(np.median(picture[picture > 0].astype(float)))  # half of the latents are positive
    # The medians of |z|, 0.674 and log 3, in grey levels.
    median = {"gaussian": 0.6745, "logistic": np.log(3)}[prior] / 16 * 255
    assert spreads == pytest.approx([0.5 * median, median], abs=1)


# Inpainting


def test_inpainting_shows_the_digits_what_is_hidden_in_blue_and_the_completion(tmp_path):
    path = draw(tmp_path, "inpainting", steps=2, protocol="article", greys=128)
    with Image.open(path) as image:
        assert image.size == (3 * 280 + 2 * GAP, 280)
        colours = np.asarray(image.convert("RGB"))
    starts = [place * (280 + GAP) for place in range(3)]
    given, masked, completed = (
        colours[:, start : start + 280].reshape(10, 28, 10, 28, 3).swapaxes(1, 2).reshape(100, 784, 3)
        for start in starts
    )
    hidden = inpaint.hidden_pixels(0)
    digits = data.load("mnist-subset").test_images[:100]
    assert np.abs(given[..., 0].astype(int) - digits).max() <= 1
    assert (masked[hidden] == (0, 114, 178)).all()
    assert np.array_equal(masked[~hidden], given[~hidden])
    assert np.array_equal(completed[~hidden], given[~hidden])
    assert np.array_equal(completed[..., 0], completed[..., 2])
    assert not np.array_equal(completed[hidden], given[hidden])


# An interpolation


@pytest.mark.parametrize("protocol", ["article", "paper"])
def test_an_interpolation_goes_from_one_test_digit_to_another(tmp_path, protocol):
    picture = grey(draw(tmp_path, "interpolation", rows=3, protocol=protocol))
    assert picture.shape == (84, 28 * 11)
    digits = data.load("mnist-subset").test_images[:6].reshape(3, 2, 28, 28)
    assert np.array_equal(picture[:, :28].reshape(3, 28, 28), digits[:, 0])
    assert np.array_equal(picture[:, -28:].reshape(3, 28, 28), digits[:, 1])


def test_its_points_are_on_the_straight_line_between_the_encodings(tmp_path):
    picture = grey(draw(tmp_path, "interpolation", rows=1, protocol="article"))
    model = create("numpy", DIGITS, weights(DIGITS, "float32"), precision="float32")
    z = model.encode(data.load("mnist-subset").test_images[:2] / 255)[0]
    at_three_tenths = levels(model.decode(0.7 * z[:1] + 0.3 * z[1:])).reshape(28, 28)
    assert np.abs(picture[:, 84:112].astype(int) - at_three_tenths).max() <= 1


# A traversal


@pytest.mark.parametrize(("prior", "deviation"), [("gaussian", 1.0), ("logistic", np.pi / np.sqrt(3))])
def test_a_traversal_changes_one_dimension_a_row_in_order_of_sigma(tmp_path, prior, deviation):
    architecture, given = scaling(0.1, prior)
    sigma = 0.1 * np.exp(-np.random.default_rng(0).permutation(784) / 400).astype(np.float32)
    given["log_scale"] = -np.log(sigma)
    picture = grey(draw(tmp_path, "traversal", architecture, given=given, rows=4, temperatures=(0.0,)))
    expected = np.zeros((4, 11, 784))
    for row, rank in enumerate((1, 9, 85, 784)):
        place = np.argsort(-sigma)[rank - 1]
        expected[row, :, place] = sigma[place] * deviation * np.linspace(-3, 3, 11)
    assert picture.shape == (4 * 28, 11 * 28)
    assert np.abs(picture.astype(int) - tiled(levels(expected.reshape(-1, 784)), 4, 28)).max() <= 1
    assert (picture > 0).sum() == 4 * 5  # the other half is below black


def test_what_is_not_traversed_is_held_at_the_first_latent_of_the_grid(tmp_path):
    architecture, given = scaling(0.1)
    row = grey(draw(tmp_path, "traversal", architecture, given=given, rows=1, temperatures=(0.8,)))
    first = grey(draw(tmp_path, "grid", architecture, given=given, rows=1, temperatures=(0.8,)))
    for column in range(11):
        assert (row[:, 28 * column : 28 * (column + 1)] != first).sum() <= 1


# The spectrum


def test_the_spectrum_tells_its_ends(tmp_path):
    architecture, given = scaling(1.0)
    given["log_scale"] = -np.log(np.geomspace(1e-4, 0.5, 784)).astype(np.float32)
    path = draw(tmp_path, "spectrum", architecture, given=given)
    assert "0.5 to 0.0001, median 0.0071" in path.with_suffix(".json").read_text(encoding="utf-8")
    with Image.open(path) as image:
        assert image.width >= 500
        assert len(np.unique(np.asarray(image.convert("L")))) > 4


def test_a_spectrum_needs_no_square(tmp_path):
    path = draw(tmp_path, "spectrum", SMALL)
    assert f"The {SMALL.dim} deviations" in path.with_suffix(".json").read_text(encoding="utf-8")


# Where the weights come from


def leave_record(folder, digest, **changes):
    run = {"epochs": 2, "batch": 128, "rounds": 1}
    used = protocol.load("paper", **{f"training__{name}": value for name, value in run.items()})
    about = {"protocol": "paper", "protocol_digest": used.digest(), "seed": 4} | run | changes
    made = record("jax", **about).model_copy(update={"digests": {"final_parameters": digest}})
    (folder / "weights.json").write_text(made.model_dump_json())


def test_the_record_beside_the_weights_says_protocol_and_origin(tmp_path):
    leave_record(tmp_path, parameters.digest(weights(DIGITS, "float32")))
    message = draw(tmp_path, "interpolation", rows=1).with_suffix(".json").read_text(encoding="utf-8")
    assert "pixels as in protocol paper" in message
    assert "(protocol paper, 2 epochs, jax on cpu, float32, seed 4)" in message


def test_pixels_of_a_protocol_that_was_edited_are_not_guessed(tmp_path):
    leave_record(tmp_path, parameters.digest(weights(DIGITS, "float32")), protocol_digest="0" * 64)
    with pytest.raises(BenchError, match="trained by another protocol paper than the one here; give --protocol"):
        draw(tmp_path, "interpolation", rows=1)
    draw(tmp_path, "interpolation", rows=1, protocol="paper")


def test_pixels_of_a_protocol_of_ones_own_are_asked_for(tmp_path):
    leave_record(tmp_path, parameters.digest(weights(DIGITS, "float32")), protocol="mine")
    with pytest.raises(BenchError, match=r"weights\.safetensors: trained by the protocol 'mine'.* as --protocol"):
        draw(tmp_path, "interpolation", rows=1)
    draw(tmp_path, "interpolation", rows=1, protocol="paper")


def test_a_record_of_other_weights_is_left_alone(tmp_path):
    leave_record(tmp_path, "of others")
    with pytest.raises(BenchError, match="give --protocol"):
        draw(tmp_path, "interpolation", rows=1)


def test_the_first_backend_that_can_be_used_is_the_registrys_first(monkeypatch):
    monkeypatch.setattr(
        "backends.REGISTRY", {"none": "no_such_module:X", "numpy": "backends.numpy_backend:NumpyBackend"}
    )
    assert picture_source.first_available() == "numpy"
