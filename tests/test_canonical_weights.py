"""Canonical weights go into every backend and come out bit for bit, and share no memory with it."""

import numpy as np
import pytest
from factories import (
    ARTICLE,
    PAPER,
    SHUFFLED,
    SMALL,
    Stream,
    assert_same_bits,
    backend_names,
    covering_architectures,
    create,
    images,
    label,
    rows,
    weights,
)

import backends
from backends import Adam, ParameterError, parameters

names = pytest.mark.parametrize("name", backend_names())
ALL = [ARTICLE, PAPER, SHUFFLED]
TRAINED: dict[str, backends.Backend] = {}


def make(name, architecture, given, precision):
    return backends.create(name, architecture, given, device="cpu", precision=precision)


def aligned(array):
    """Return a copy at an address that a framework could take over without copying."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("second", backend_names())
@pytest.mark.parametrize("first", backend_names())
@pytest.mark.parametrize("architecture", ALL, ids=["article", "paper", "shuffle"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_weights_go_through_two_backends_bit_for_bit(first, second, architecture, precision):
    given = weights(architecture, precision)
    between = make(first, architecture, given, precision).parameters()
    assert_same_bits(make(second, architecture, between, precision).parameters(), given)


@names
@pytest.mark.parametrize("architecture", covering_architectures(), ids=label)
def test_every_option_gives_its_weights_back_bit_for_bit(name, architecture):
    given = weights(architecture, "float32")
    assert_same_bits(make(name, architecture, given, "float32").parameters(), given)


@pytest.mark.parametrize("second", backend_names())
@pytest.mark.parametrize("first", backend_names())
def test_trained_weights_go_through_a_file_into_another_backend_bit_for_bit(tmp_path, first, second):
    model = TRAINED.get(first) or TRAINED.setdefault(first, create(first, SHUFFLED, precision="float32"))
    if model.training_state().step == 0:
        list(model.train(images(), Adam(), Stream(), 1))
    parameters.save(tmp_path / "w.safetensors", SHUFFLED, model.parameters())
    architecture, loaded = parameters.load(tmp_path / "w.safetensors")
    ported = make(second, architecture, loaded, "float32").parameters()
    assert parameters.digest(ported) == parameters.digest(model.parameters())
    assert parameters.digest(ported) != parameters.digest(weights(SHUFFLED, "float32"))


@names
def test_float32_weights_come_back_from_a_float64_model_bit_for_bit(name):
    given = weights(SMALL, "float32")
    assert_same_bits(make(name, SMALL, given, "float64").parameters(), given)


@names
def test_float64_weights_that_float32_can_hold_come_back_bit_for_bit(name):
    given = weights(SMALL, "float64")
    assert_same_bits(make(name, SMALL, given, "float32").parameters(), given)


@names
@pytest.mark.parametrize("entry", ["coupling.0.dense.0.kernel", "coupling.1.dense.1.bias", "log_scale"])
@pytest.mark.parametrize("value", [0.1, 1e300, 1e-300, 1 + 2.0**-24])
def test_a_weight_that_float32_cannot_hold_is_refused_by_name(name, entry, value):
    given = weights(SMALL)
    given[entry].flat[-1] = value
    with pytest.raises(ParameterError, match=rf"{entry} has float64 values that float32 can't hold.*astype"):
        make(name, SMALL, given, "float32")


@names
@pytest.mark.parametrize("value", [-0.0, 2.0**-149, np.finfo(np.float32).max], ids=["-0", "subnormal", "largest"])
def test_a_weight_at_the_edge_of_float32_comes_back_bit_for_bit(name, value):
    given = weights(SMALL, "float32")
    for array in given.values():
        array.flat[0] = value
    assert_same_bits(make(name, SMALL, given, "float32").parameters(), given)


@names
def test_weights_that_are_not_contiguous_are_read_as_they_are(name):
    given = weights(SHUFFLED)
    views = {n: np.asfortranarray(np.repeat(a, 2, axis=0))[::2] for n, a in given.items()}
    assert_same_bits(make(name, SHUFFLED, views, "float64").parameters(), given)


@names
def test_bad_weights_are_refused_by_name(name):
    given = weights(SMALL) | {"log_scale": np.full(12, np.inf)}
    with pytest.raises(ParameterError, match="log_scale has 12 values that are not finite"):
        make(name, SMALL, given, "float64")


# Whose memory it is


@names
def test_changing_the_arrays_given_does_not_change_the_model(name):
    given = {n: aligned(a) for n, a in weights(SHUFFLED).items()}
    model = make(name, SHUFFLED, given, "float64")
    expected = make(name, SHUFFLED, weights(SHUFFLED), "float64").encode(rows(SHUFFLED))[0]
    for array in given.values():
        array[...] = array[::-1].copy()
    assert_same_bits(model.parameters(), weights(SHUFFLED))
    assert np.array_equal(model.encode(rows(SHUFFLED))[0], expected)


@names
def test_training_does_not_change_the_arrays_given(name):
    given = {n: aligned(a) for n, a in weights(SMALL, "float32").items()}
    list(make(name, SMALL, given, "float32").train(images(), Adam(), Stream(), 1))
    assert_same_bits(given, weights(SMALL, "float32"))


@names
@pytest.mark.parametrize("take", [lambda model: model.parameters(), lambda model: model.training_state().parameters])
def test_changing_the_arrays_taken_does_not_change_the_model(name, take):
    model = create(name, SHUFFLED, precision="float32")
    for array in take(model).values():
        array[...] = 0
    assert_same_bits(model.parameters(), weights(SHUFFLED, "float32"))


@names
def test_results_are_the_callers_to_change(name):
    model, x = create(name, precision="float32"), rows(SMALL)
    z, log_det = model.encode(x)
    for array in (z, log_det, model.decode(x), model.log_prob(x)):
        last = array[-1].copy()
        array[0] = 7
        assert np.array_equal(array[-1], last)
    assert np.array_equal(x, rows(SMALL))
