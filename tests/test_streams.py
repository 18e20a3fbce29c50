"""The streams: what must never change, what must not depend on what, and how the values are distributed.

The literal values were computed once. A test that finds other ones says that a run can no longer be repeated.
"""

import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import SMALL, images

import backends
from backends import Architecture, Pixels, parameters
from bench.inputs import streams
from bench.inputs.streams import (
    TrainingStream,
    initial_parameters,
    noise_words,
    normals,
    pixels_to_x,
    shuffled,
    uniforms,
)

TINY = Architecture(dim=12, couplings=2, hidden_layers=1, hidden_units=7)
FULL = Architecture(dim=784, couplings=1, hidden_layers=1, hidden_units=100)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# The bits never change


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ((0, "weights", 0), [615374635750745907, 12469478121706349775, 4963474064716879937, 6867822212793236399]),
        ((7, "latents", 3), [14525531809124814310, 5065462611518174238, 14453865110822503022, 3564704570918786356]),
    ],
)
def test_words_are_those_of_philox_at_the_key(key, expected):
    assert streams.words(*key, 4).tolist() == expected


def test_many_words_at_a_large_seed_are_the_same_bits():
    expected = "6aeccd481c38025edeb0910faaad9fa172bc7a1b2188304cfeda8e52421bb120"
    assert digest(streams.words(1234567890123, "noise", 20, 1000)) == expected


def test_order_of_a_small_epoch():
    assert shuffled(0, "order", 1, 12).tolist() == [6, 7, 0, 10, 9, 4, 11, 2, 3, 8, 5, 1]


def test_order_of_the_articles_first_epoch():
    expected = "24d28cdb02e6df4a5838b210edb10db57d25849c7353cc0c478113085cddb529"
    assert digest(shuffled(0, "order", 1, 60000)) == expected


def test_uniforms_are_the_same_bits():
    first = [0.9750546267999316, 0.5685082819604523, 0.6973287301015847, 0.06582117578459529]
    assert uniforms(0, "inputs", 0, (4,)).tolist() == first
    expected = "f2e6b5c086cf11a9990af429a37a4cf4922016db16814c23b1dc88311020cb35"
    assert digest(uniforms(5, "inputs", 2, (100, 7))) == expected


def test_normals_are_the_same():
    expected = [-2.627019821663405, 1.1875764943819138, -0.49781800655242414, 0.2660422265587627]
    assert normals(0, "latents", 0, (4,)) == pytest.approx(expected, rel=1e-14, abs=0)


def test_noise_words_are_the_same_bits():
    assert noise_words(0, "noise", 1, (8,)).tolist() == [24401, 4863, 36418, 4446, 50003, 33668, 6567, 850]
    expected = "5f475a722d2fe1877c0cc96f450a9210193b94f9967066685157636e73d28fd7"
    assert digest(noise_words(0, "noise", 1, (3, 5, 7))) == expected


@pytest.mark.parametrize(
    ("kernels", "log_scale", "expected"),
    [
        ("glorot_uniform", "glorot_normal", "1da5b34ce90a67ad042f96b590dcecf84cda97526fc3dacc698ad7e0d3603b66"),
        ("small_uniform", "zeros", "c4d423cb7a3c468e8cdc618410eaea49893fa272601093afa2af0266a7325bfe"),
    ],
)
def test_initial_weights_are_the_same_bits(kernels, log_scale, expected):
    assert parameters.digest(initial_parameters(TINY, 0, kernels, log_scale)) == expected


def test_permutations_of_the_couplings_are_the_same():
    made = initial_parameters(replace(TINY, permutation="shuffle"), 0, "glorot_uniform", "glorot_normal")
    assert made["coupling.0.permutation"].tolist() == [8, 11, 0, 10, 4, 9, 1, 5, 7, 3, 2, 6]
    assert made["coupling.1.permutation"].tolist() == [9, 5, 4, 2, 1, 0, 6, 8, 11, 10, 7, 3]


# Streams don't depend on each other, nor on how much of them is asked for


def test_each_seed_purpose_and_index_has_a_stream_of_its_own():
    keys = itertools.product((0, 1, 2**63), streams.PURPOSES, (0, 1, 2**47))
    made = [streams.words(*key, 2).tobytes() for key in keys]
    assert len(set(made)) == len(made) == 3 * len(streams.PURPOSES) * 3


def test_a_longer_stream_begins_with_the_shorter_one():
    assert np.array_equal(streams.words(3, "noise", 4, 100)[:37], streams.words(3, "noise", 4, 37))


def test_streams_of_two_epochs_are_not_correlated():
    a, b = (normals(0, "latents", index, (100_000,)) for index in (1, 2))
    assert abs((a * b).mean()) < 5 / math.sqrt(100_000)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**48)])
def test_a_seed_or_index_that_would_wrap_around_is_refused(seed, index):
    with pytest.raises(ValueError, match="expected 0 ≤ seed < 2"):
        streams.words(seed, "order", index, 1)


def test_the_largest_seed_and_index_are_taken():
    assert len(streams.words(2**64 - 1, "order", 2**48 - 1, 1)) == 1


# Distributions


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_order_is_a_permutation(count):
    assert sorted(shuffled(4, "order", 2, count)) == list(range(count))


@pytest.mark.parametrize("word", [0, 2**64 - 1])
def test_uniforms_never_reach_0_or_1(monkeypatch, word):
    monkeypatch.setattr(streams, "words", lambda *key: np.full(3, word, np.uint64))
    assert ((uniforms(0, "inputs", 0, (3,)) > 0) & (uniforms(0, "inputs", 0, (3,)) < 1)).all()
    assert np.isfinite(normals(0, "inputs", 0, (3,))).all()


def test_equal_words_keep_their_order(monkeypatch):
    monkeypatch.setattr(streams, "words", lambda *key: np.arange(key[-1], dtype=np.uint64) % np.uint64(3))
    expected = [*range(0, 1000, 3), *range(1, 1000, 3), *range(2, 1000, 3)]
    assert shuffled(0, "order", 1, 1000).tolist() == expected


def test_uniforms_fill_the_unit_interval_evenly():
    # 1000 values expected in each of 100 cells; chi-squared with 99 degrees of freedom is below 173 in 99.9995 %.
    counts, _ = np.histogram(uniforms(1, "inputs", 0, (100_000,)), bins=100, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 173


def test_normals_have_the_moments_of_a_standard_normal():
    # Bounds are 5 standard errors of each moment's estimate: variances 1, 2, 6 and 24 over n.
    n = 1_000_000
    z = normals(0, "latents", 1, (n,))
    estimates = np.array([z.mean(), z.var() - 1, (z**3).mean() - 3 * z.mean(), (z**4).mean() - 6 * z.var() + 3])
    assert (np.abs(estimates) < 5 * np.sqrt(np.array([1, 2, 6, 24]) / n)).all()


def test_noise_words_use_all_16_bits():
    # 16 words expected in each of 65,536 cells; the bound is 5 standard deviations of chi-squared.
    counts = np.bincount(noise_words(2, "noise", 1, (2**20,)), minlength=2**16)
    assert abs(((counts - 16) ** 2 / 16).sum() - (2**16 - 1)) < 5 * math.sqrt(2 * 2**16)


# Initial weights


@pytest.mark.parametrize(
    ("kernels", "limit"), [("glorot_uniform", math.sqrt(6 / (392 + 100))), ("small_uniform", 0.01)]
)
def test_kernels_are_uniform_up_to_the_limit(kernels, limit):
    kernel = initial_parameters(FULL, 0, kernels, "zeros")["coupling.0.dense.0.kernel"]
    assert 0.999 * limit < np.abs(kernel).max() <= np.float32(limit)
    assert kernel.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert abs(kernel.mean()) < 5 * limit / math.sqrt(3 * kernel.size)


def test_log_scale_is_a_normal_cut_at_two_deviations_and_widened_to_the_glorot_deviation():
    made = (initial_parameters(replace(FULL, hidden_units=1), s, "small_uniform", "glorot_normal") for s in range(40))
    many = np.concatenate([parameters["log_scale"] for parameters in made])
    asked = math.sqrt(2 / (1 + 784))
    assert many.std() == pytest.approx(asked, rel=0.02)
    assert 0.99 < np.abs(many).max() / (2 * asked / 0.87962566103423978) <= 1 + 1e-6


def test_log_scale_may_start_at_0():
    assert not initial_parameters(FULL, 0, "glorot_uniform", "zeros")["log_scale"].any()


def test_biases_start_at_0():
    made = initial_parameters(SMALL, 3, "glorot_uniform", "glorot_normal")
    biases = [array for name, array in made.items() if name.endswith(".bias")]
    assert len(biases) == SMALL.couplings * (SMALL.hidden_layers + 1)
    assert not any(array.any() for array in biases)


@pytest.mark.parametrize("permutation", ["reverse", "shuffle"])
def test_initial_weights_fit_the_architecture_and_are_float32(permutation):
    architecture = replace(SMALL, permutation=permutation)
    made = initial_parameters(architecture, 0, "glorot_uniform", "glorot_normal")
    parameters.check(architecture, made)
    assert {made[name].dtype for name in architecture.trainable_shapes} == {np.dtype("float32")}


def test_no_two_kernels_are_alike():
    made = initial_parameters(replace(SMALL, hidden_units=SMALL.half), 0, "glorot_uniform", "zeros")
    kernels = [array.tobytes() for name, array in made.items() if name.endswith(".kernel")]
    assert len(set(kernels)) == len(kernels)


# Epochs


def test_an_epoch_leaves_the_remainder_out_and_repeats_no_example():
    inputs = TrainingStream(0, examples=22, dim=3, batch=4, pixels=Pixels(1 / 255)).epoch(1)
    assert inputs.order.shape == (5, 4)
    assert inputs.order.dtype == np.int32
    assert len(set(inputs.order.ravel().tolist())) == 20
    assert inputs.order.min() >= 0
    assert inputs.order.max() < 22


def test_an_epoch_brings_a_word_for_each_pixel_that_takes_noise():
    inputs = TrainingStream(0, examples=22, dim=3, batch=4, pixels=Pixels(1 / 256, 1 / 256)).epoch(1)
    assert inputs.noise.shape == (5, 4, 3)
    assert inputs.noise.dtype == np.uint16


def test_an_epoch_brings_no_noise_where_none_is_used():
    assert TrainingStream(0, examples=22, dim=3, batch=4, pixels=Pixels(1 / 255)).epoch(1).noise is None


@pytest.mark.parametrize("part", ["order", "noise"])
def test_each_epoch_has_another_order_and_noise_and_both_can_be_had_again(part):
    stream = TrainingStream(0, examples=22, dim=3, batch=4, pixels=Pixels(1 / 256, 1 / 256))
    first, again, second = (getattr(stream.epoch(epoch), part) for epoch in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


# Pixels


def test_article_pixels_are_bytes_over_255():
    x = pixels_to_x(np.array([[0, 51, 255]], np.uint8), Pixels(1 / 255))
    assert x.tolist() == [[0.0, pytest.approx(0.2, abs=1e-16), 1.0]]


U = [k / 65536 for k in (34363.5, 4494.5, 45460.5)]  # of seed 9, draw 0


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (Pixels(1 / 255, -0.01), [0 - 0.01 * U[0], 51 / 255 - 0.01 * U[1], 1 - 0.01 * U[2]]),
        (Pixels(1 / 256, 1 / 256), [U[0] / 256, (51 + U[1]) / 256, (255 + U[2]) / 256]),
    ],
    ids=["article-noise in training", "paper"],
)
def test_pixels_with_noise(pixels, expected):
    x = pixels_to_x(np.array([[0, 51, 255]], np.uint8), pixels, seed=9)
    assert x[0] == pytest.approx(expected, rel=1e-15, abs=0)


def test_each_draw_has_another_noise():
    pixels = Pixels(1 / 256, 1 / 256)
    assert np.array_equal(pixels_to_x(images(), pixels), pixels_to_x(images(), pixels, seed=0, draw=0))
    drawn = [pixels_to_x(images(), pixels, seed=0, draw=draw) for draw in (0, 1)]
    assert not np.array_equal(*drawn)


# What recipe starts from


SQUARE = replace(FULL, hidden_units=1, permutation="shuffle", split="halves", sign="add", output="linear")


def read_by(architecture, made):
    """Which pixels each coupling reads, as sets: what a position of h holds is followed through the permutations."""
    held, found = np.arange(architecture.dim), []
    for k in range(architecture.couplings):
        held = held[made[f"coupling.{k}.permutation"]]
        found.append(set(held[: architecture.half].tolist()))
    return found


def test_patterns_are_columns_rows_and_fields_of_a_chessboard_each_read_both_ways_round():
    architecture = replace(SQUARE, couplings=7)
    made = initial_parameters(architecture, 0, "he_normal", "zeros", "patterns")
    row, column = np.divmod(np.arange(784), 28)
    even = [set(np.flatnonzero(pattern % 2 == 0).tolist()) for pattern in (column, row, row + column)]
    odd = [set(range(784)) - half for half in even]
    assert read_by(architecture, made) == [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[0]]


@pytest.mark.parametrize(
    "differing", [{"dim": 10}, {"dim": 6}, {"permute": "after"}, {"split": "interleaved"}, {"reorder": "tile"}]
)
def test_patterns_are_refused_where_they_would_not_be_what_they_say(differing):
    with pytest.raises(backends.ArchitectureError, match="patterns need"):
        streams.patterns(replace(SQUARE, **differing))


def test_he_kernels_have_the_deviation_of_their_inputs_and_last_layers_are_0():
    made = initial_parameters(replace(FULL, couplings=2, hidden_layers=2, hidden_units=1000), 0, "he_normal", "zeros")
    for k in range(2):
        assert made[f"coupling.{k}.dense.0.kernel"].std() == pytest.approx(math.sqrt(2 / 392), rel=0.01)
        assert made[f"coupling.{k}.dense.1.kernel"].std() == pytest.approx(math.sqrt(2 / 1000), rel=0.01)
        assert not made[f"coupling.{k}.dense.2.kernel"].any()
    assert abs(float(made["coupling.1.dense.1.kernel"].mean())) < 1e-4


@pytest.mark.parametrize(("prior", "deviation"), [("gaussian", 1.0), ("logistic", math.pi / math.sqrt(3))])
def test_latents_begin_with_the_deviation_that_the_prior_has(prior, deviation):
    architecture = replace(SQUARE, couplings=3, prior=prior)
    images = np.random.default_rng(0).integers(0, 256, (6000, 784), dtype=np.uint8) // np.arange(1, 785)[:, None].T
    images[5000:] = 255  # the scale looks at the first 5,000 alone
    pixels = Pixels(1 / 256, 1 / 256)
    made = initial_parameters(architecture, 0, "he_normal", "data", "patterns", (images.astype(np.uint8), pixels))
    assert made["log_scale"].dtype == np.float32
    model = backends.create("numpy", architecture, parameters.astype(made, "float64"), precision="float64")
    noise = (noise_words(0, "initial_scale", 0, (5000, 784)) + 0.5) / 2**16
    z, _ = model.encode(images[:5000] / 256 + noise / 256)
    assert z.std(axis=0) == pytest.approx(np.full(784, deviation), rel=6e-7)  # of s no more is lost than float32 must


def test_a_scale_of_data_without_data_is_refused():
    with pytest.raises(ValueError, match="images is None"):
        initial_parameters(SQUARE, 0, "he_normal", "data", "patterns")
