import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import PAPER, SHUFFLED, SMALL, assert_same_bits, weights
from safetensors import safe_open

from backends import Architecture, ParameterError, parameters

NAMES = list(SHUFFLED.parameter_shapes)
architectures = pytest.mark.parametrize("architecture", [SMALL, PAPER, SHUFFLED], ids=["article", "paper", "shuffle"])
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def flip_a_bit(array):
    """Return the array with the lowest bit of its last number flipped."""
    flipped = array.copy()
    flipped.reshape(-1).view(np.uint8)[-array.itemsize] ^= 1
    return flipped


# Checking


@architectures
@dtypes
def test_parameters_that_fit_are_accepted(architecture, dtype):
    parameters.check(architecture, weights(architecture, dtype))


def test_permutations_are_refused_where_the_architecture_has_none():
    with pytest.raises(ParameterError, match=r"coupling\.0\.permutation is not a parameter"):
        parameters.check(SMALL, weights(SHUFFLED))


@pytest.mark.parametrize("bad", [[0] * 12, range(1, 13), [-1, *range(11)]])
def test_a_permutation_that_is_not_one_is_refused(bad):
    given = weights(SHUFFLED) | {"coupling.1.permutation": np.array(bad, np.int32)}
    with pytest.raises(ParameterError, match=r"coupling\.1\.permutation is not a permutation of 0 … 11"):
        parameters.check(SHUFFLED, given)


# Digest


@pytest.mark.parametrize("name", NAMES)
def test_digest_changes_with_one_bit(name):
    given = weights(SHUFFLED)
    changed = given | {name: flip_a_bit(given[name])}
    assert parameters.digest(changed) != parameters.digest(given)


def test_digest_tells_minus_zero_from_zero():
    assert parameters.digest({"a": np.array([0.0])}) != parameters.digest({"a": np.array([-0.0])})


def test_digest_changes_with_a_name():
    assert parameters.digest({"a": np.ones(2)}) != parameters.digest({"b": np.ones(2)})


def test_digest_changes_with_the_dtype_of_the_same_bytes():
    given = np.zeros(2, np.float32)
    assert parameters.digest({"a": given}) != parameters.digest({"a": given.view(np.int32)})


def test_digest_changes_with_the_shape_of_the_same_bytes():
    given = np.arange(6.0)
    assert parameters.digest({"a": given.reshape(2, 3)}) != parameters.digest({"a": given.reshape(3, 2)})


def test_digest_changes_when_two_entries_are_exchanged():
    a, b = np.zeros(2), np.ones(2)
    assert parameters.digest({"a": a, "b": b}) != parameters.digest({"a": b, "b": a})


@pytest.mark.parametrize(
    "same",
    [
        lambda given: {name: array.copy() for name, array in given.items()},
        lambda given: dict(reversed(given.items())),
        lambda given: {name: np.asfortranarray(array) for name, array in given.items()},
        lambda given: {name: array.astype(array.dtype.newbyteorder(">")) for name, array in given.items()},
    ],
    ids=["copy", "order of entries", "order in memory", "byte order"],
)
def test_digest_is_the_same_for_the_same_values(same):
    given = weights(SHUFFLED)
    assert parameters.digest(same(given)) == parameters.digest(given)


def test_digest_is_the_sha256_of_names_dtypes_shapes_and_bytes():
    given = {"b": np.array([[1, 2]], np.int32), "a": np.array([0.5], np.float32)}
    expected = b"a float32 (1,)\n" + bytes.fromhex("0000003f") + b"b int32 (1, 2)\n" + bytes.fromhex("0100000002000000")
    assert parameters.digest(given) == hashlib.sha256(expected).hexdigest()


# Rounding


def test_astype_rounds_numbers_and_leaves_permutations():
    given = weights(SHUFFLED) | {"log_scale": np.full(12, 0.1)}
    rounded = parameters.astype(given, "float32")
    assert rounded["log_scale"].tolist() == [np.float32(0.1)] * 12
    assert rounded["coupling.0.dense.0.kernel"].dtype == np.float32
    assert rounded["coupling.0.permutation"].dtype == np.int32


# Saving and loading


@architectures
@dtypes
def test_loading_gives_back_what_was_saved_bit_for_bit(tmp_path, architecture, dtype):
    given = weights(architecture, dtype)
    parameters.save(tmp_path / "w.safetensors", architecture, given)
    loaded_architecture, loaded = parameters.load(tmp_path / "w.safetensors")
    assert loaded_architecture == architecture
    assert_same_bits(loaded, given)


@pytest.mark.parametrize(
    "scatter",
    [np.asfortranarray, lambda array: np.repeat(array, 2, axis=0)[::2], lambda array: array[::-1].copy()[::-1]],
    ids=["transposed", "strided", "backwards"],
)
def test_arrays_that_are_not_contiguous_are_saved_as_they_read(tmp_path, scatter):
    given = weights(SMALL)
    scattered = {name: scatter(array) for name, array in given.items()}
    assert not scattered["coupling.0.dense.0.kernel"].flags.c_contiguous
    parameters.save(tmp_path / "w.safetensors", SMALL, scattered)
    assert_same_bits(parameters.load(tmp_path / "w.safetensors")[1], given)


def test_the_header_holds_format_version_and_architecture(tmp_path):
    parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL))
    with safe_open(tmp_path / "w.safetensors", framework="numpy") as file:
        header = file.metadata()
    assert header["format"] == "nice-bench-parameters"
    assert header["format_version"] == "1"
    assert json.loads(header["architecture"]) == SMALL.to_dict()


def test_the_file_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL))
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_replaces_an_older_file(tmp_path):
    parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL, seed=1))
    parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL, seed=2))
    assert_same_bits(parameters.load(tmp_path / "w.safetensors")[1], weights(SMALL, seed=2))


def crash_while_writing(arrays, path, metadata=None):
    """Write half a file, then fail as a full disk does."""
    Path(path).write_bytes(b"half a file")
    raise OSError("No space left on device")


def test_a_crash_while_saving_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL))
    monkeypatch.setattr(parameters, "save_file", crash_while_writing)
    with pytest.raises(OSError, match="No space left"):
        parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL, seed=1))
    assert_same_bits(parameters.load(tmp_path / "w.safetensors")[1], weights(SMALL))
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_parameters_that_do_not_fit_are_not_saved(tmp_path):
    with pytest.raises(ParameterError, match="log_scale"):
        parameters.save(tmp_path / "w.safetensors", SMALL, weights(SMALL) | {"log_scale": np.full(12, np.nan)})
    assert list(tmp_path.iterdir()) == []


def test_a_full_size_header_is_read_back(tmp_path):
    architecture = replace(Architecture.paper(), hidden_units=1)
    parameters.save(tmp_path / "w.safetensors", architecture, weights(architecture, "float32"))
    assert parameters.load(tmp_path / "w.safetensors")[0] == architecture
