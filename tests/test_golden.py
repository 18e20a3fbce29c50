"""Streams and schedules against an independent calculation: Philox by its definition, fractions, decimals, the formula.

The reference gets them from the same place as every backend, so that no comparison of backends can see a fault in them.
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from backends import Adam, AdamW, Pixels, RMSProp
from bench.inputs import protocol, streams
from bench.inputs.streams import TrainingStream, pixels_to_x

WORD = 2**64
WEIGHTS, ORDER, NOISE, DEQUANTISATION, LATENTS, INPUTS = 1, 3, 4, 5, 6, 7


def philox(key, count):
    """The first words of Philox4x64-10 (Salmon et al., SC 2011, section 4), whose counter begins at 1."""
    made = []
    for counter in range(1, -(-count // 4) + 1):
        c, k = [counter, 0, 0, 0], list(key)
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [b // WORD ^ c[1] ^ k[0], b % WORD, a // WORD ^ c[3] ^ k[1], a % WORD]
            k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
        made += c
    return made[:count]


def words(seed, purpose, index, count):
    return philox((seed, purpose * 2**48 + index), count)


def ordered(seed, epoch, count):
    raw = words(seed, ORDER, epoch, count)
    return sorted(range(count), key=lambda i: raw[i])


def quarters(seed, purpose, index, count):
    """16-bit parts of the words, the lowest first."""
    raw = words(seed, purpose, index, -(-count // 4))
    return [word >> shift & 0xFFFF for word in raw for shift in (0, 16, 32, 48)][:count]


# Streams


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5])
def test_the_order_of_every_epoch(seed):
    stream = TrainingStream(seed, examples=22, dim=3, batch=4, pixels=Pixels(1 / 255))
    for epoch in (*range(1, 14), 100, 2000):
        assert stream.epoch(epoch).order.ravel().tolist() == ordered(seed, epoch, 22)[:20]


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5])
def test_the_noise_of_every_epoch(seed):
    stream = TrainingStream(seed, examples=10, dim=3, batch=4, pixels=Pixels(1 / 256, 1 / 256))
    for epoch in (*range(1, 14), 100, 2000):
        assert stream.epoch(epoch).noise.ravel().tolist() == quarters(seed, NOISE, epoch, 24)


def test_the_noise_of_every_draw_of_an_evaluation():
    images = np.arange(0, 210, 10, dtype=np.uint8).reshape(7, 3)
    for seed, draw in ((0, 0), (0, 1), (0, 2), (0, 9), (11, 0), (11, 5)):
        noise = quarters(seed, DEQUANTISATION, draw, 21)
        exact = [
            float((byte + Fraction(2 * k + 1, 2**17)) / 256) for byte, k in zip(range(0, 210, 10), noise, strict=True)
        ]
        assert pixels_to_x(images, Pixels(1 / 256, 1 / 256), seed, draw).ravel().tolist() == exact


def test_uniforms_are_the_middles_of_their_cells():
    exact = [float(Fraction(2 * (word >> 11) + 1, 2**54)) for word in words(3, INPUTS, 2, 40)]
    assert streams.uniforms(3, "inputs", 2, (8, 5)).ravel().tolist() == exact


def test_normals_have_the_distribution_function_of_the_uniforms():
    for z, word in zip(streams.normals(3, "latents", 2, (40,)), words(3, LATENTS, 2, 40), strict=True):
        assert math.erfc(-z / math.sqrt(2)) / 2 == pytest.approx((2 * (word >> 11) + 1) / 2**54, rel=1e-13)


def test_a_glorot_kernel_is_uniform_between_its_limits():
    architecture = protocol.load("smoke", architecture__hidden_units=3).make_architecture()
    made = streams.initial_parameters(architecture, 5, "glorot_uniform", "zeros")
    for index, (name, shape) in enumerate(architecture.trainable_shapes.items()):
        if name.endswith("0.kernel"):
            limit = math.sqrt(6 / sum(shape))
            exact = [limit * ((2 * (word >> 11) + 1) / 2**53 - 1) for word in words(5, WEIGHTS, index, 30)]
            assert made[name].ravel()[:30] == pytest.approx(np.array(exact), rel=1e-6)


# Schedules


def in_pieces(optimiser, steps, per_epoch):
    """Epoch by epoch, as training asks for it."""
    made = [optimiser.schedule(first, per_epoch, per_epoch) for first in range(0, steps, per_epoch)]
    return np.concatenate(made)[:steps]


def corrections(beta, steps):
    """1/(1 − βᵗ) to 50 digits, of the β that a float holds."""
    with localcontext() as context:
        context.prec = 50
        return [float(1 / (1 - Decimal(beta) ** t)) for t in steps]


def test_adams_corrections_of_every_step():
    found = in_pieces(Adam(), 12000, 468)
    steps = [*range(1, 30), *range(30, 12001, 399)]
    for column, beta in enumerate((0.9, 0.999)):
        assert found[[t - 1 for t in steps], column] == pytest.approx(np.array(corrections(beta, steps)), rel=1e-12)


def test_rmsprops_learning_rate_and_momentum_of_every_step():
    found = in_pieces(RMSProp(), 6000, 500)
    with localcontext() as context:
        context.prec = 50
        rate, exact = Decimal("1e-3"), []
        for _ in range(6000):
            exact.append(float(max(rate, Decimal("1e-4"))))
            rate /= Decimal("1.0005")
    assert found[:, 0] == pytest.approx(np.array(exact), rel=1e-12)
    assert found[:, 1].tolist() == [0.0] * 2500 + [0.5] * 3500  # from epoch 6 on


@pytest.mark.parametrize(("warmup", "epochs", "per_epoch"), [(500, 9, 390), (0, 2, 100), (1, 1, 7), (7, 2, 5)])
def test_adamws_learning_rate_of_every_step(warmup, epochs, per_epoch):
    total = epochs * per_epoch
    found = in_pieces(AdamW(3e-3, epochs=epochs, warmup_steps=warmup), total, per_epoch)
    exact = []
    for t in range(1, total + 1):
        done = Fraction(max(t - 1 - warmup, 0), total - warmup)
        exact.append(3e-3 * (t / warmup if t <= warmup else math.cos(math.pi * done / 2) ** 2))
    assert found[:, 0] == pytest.approx(np.array(exact), rel=6e-8, abs=1e-18)
    steps = range(1, total + 1, 13)
    for column, beta in ((1, 0.9), (2, 0.99)):
        assert found[::13, column] == pytest.approx(np.array(corrections(beta, steps)), rel=1e-12)


# How protocols ask for them


@pytest.mark.parametrize("name", protocol.names())
def test_a_learning_rate_ends_with_the_training_and_pixels_are_what_the_file_says(name):
    loaded = protocol.load(name, training__epochs=17, training__rounds=1)
    optimiser, said = loaded.make_optimiser(), loaded.pixels
    assert loaded.training_pixels() == Pixels(1 / said.divisor, said.training_noise)
    assert loaded.evaluation_pixels() == Pixels(1 / said.divisor, said.evaluation_noise)
    if isinstance(optimiser, AdamW):
        rates = optimiser.schedule(0, 17 * 390, 390)[:, 0]
        assert 0 < rates[-1] < 1e-5 * rates.max()
