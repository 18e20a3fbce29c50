"""Weights files that are not what they should be: each is refused with the file, the entry and what was expected."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import SHUFFLED, SMALL, weights
from safetensors.numpy import save_file

from backends import ParameterError, parameters

ROOT = Path(__file__).parent.parent
HEADER = {"format": "nice-bench-parameters", "format_version": "1", "architecture": json.dumps(SHUFFLED.to_dict())}
KERNEL = "coupling.1.dense.1.kernel"


def write(path, arrays=None, **header):
    """Write a safetensors file, without checking anything. A header entry of None is left out."""
    header = {name: value for name, value in (HEADER | header).items() if value is not None}
    save_file(weights(SHUFFLED) if arrays is None else arrays, path, metadata=header)
    return path


def without(name):
    return {n: a for n, a in weights(SHUFFLED).items() if n != name}


def refusal(path):
    """The message with which a file is refused, which has to begin with its name."""
    with pytest.raises(ParameterError) as caught:
        parameters.load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message.removeprefix(str(path)).splitlines()) == 1
    return message.removeprefix(str(path))


def test_the_file_that_the_others_are_changed_from_is_accepted(tmp_path):
    architecture, _ = parameters.load(write(tmp_path / "w"))
    assert architecture == SHUFFLED


# Entries


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        pytest.param(without(KERNEL), [KERNEL, "missing"], id="missing kernel"),
        pytest.param(without("log_scale"), ["log_scale", "missing"], id="missing log_scale"),
        pytest.param(without("coupling.2.permutation"), ["coupling.2.permutation", "missing"], id="no permutation"),
        pytest.param({}, ["missing"], id="no entries"),
        pytest.param(weights(SHUFFLED) | {"extra": np.zeros(1)}, ["extra", "not a parameter"], id="extra"),
        pytest.param(weights(SHUFFLED) | {KERNEL: np.zeros((7, 6))}, [KERNEL, "(7, 6)", "(7, 7)"], id="misshapen"),
        pytest.param(weights(SHUFFLED) | {KERNEL: np.zeros(49)}, [KERNEL, "(49,)", "(7, 7)"], id="flat"),
        pytest.param(weights(SHUFFLED) | {"log_scale": np.zeros((1, 12))}, ["(1, 12)", "(12,)"], id="rank"),
        pytest.param(
            weights(SHUFFLED) | {KERNEL: np.full((7, 7), np.nan)}, [KERNEL, "49", "not finite"], id="not a number"
        ),
        pytest.param(
            weights(SHUFFLED) | {"log_scale": np.array([*[0] * 11, -np.inf])},
            ["log_scale", "1 ", "not finite"],
            id="inf",
        ),
        pytest.param(weights(SHUFFLED, "float16"), ["F16", "expected float32 or float64"], id="float16"),
        pytest.param(
            weights(SHUFFLED) | {KERNEL: np.zeros((7, 7), np.int64)}, [KERNEL, "I64", "float32 or float64"], id="int64"
        ),
        pytest.param(
            weights(SHUFFLED) | {KERNEL: np.zeros((7, 7), np.float32)}, ["float32 and float64", "mixed"], id="mixed"
        ),
        pytest.param(
            weights(SHUFFLED) | {"coupling.0.permutation": np.arange(12)},
            ["coupling.0.permutation", "I64", "expected int32"],
            id="int64 permutation",
        ),
        pytest.param(
            weights(SHUFFLED) | {"coupling.0.permutation": np.array([*range(11), 0], np.int32)},
            ["coupling.0.permutation", "not a permutation of 0 … 11"],
            id="not a permutation",
        ),
    ],
)
def test_a_bad_entry_is_refused_by_name_with_what_was_expected(tmp_path, arrays, expected):
    message = refusal(write(tmp_path / "w", arrays))
    assert all(text in message for text in expected), message


# Header


def architecture_json(**changes):
    return json.dumps(SHUFFLED.to_dict() | changes)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param({"format": "other"}, ["format 'other'", "'nice-bench-parameters'"], id="format"),
        pytest.param({"format": None}, ["format None", "'nice-bench-parameters'"], id="no format"),
        pytest.param({"format_version": "2"}, ["format_version '2'", "expected '1'"], id="newer version"),
        pytest.param({"format_version": None}, ["format_version None", "expected '1'"], id="no version"),
        pytest.param({"architecture": None}, ["architecture"], id="no architecture"),
        pytest.param({"architecture": "{"}, ["architecture"], id="not JSON"),
        pytest.param({"architecture": "[" * 100_000}, ["architecture"], id="JSON too deep"),
        pytest.param({"architecture": "[1]"}, ["architecture", "not a mapping"], id="not an object"),
        pytest.param({"architecture": "{}"}, ["dim is missing"], id="no fields"),
        pytest.param({"architecture": architecture_json(dim=13)}, ["dim is 13", "even"], id="odd dim"),
        pytest.param({"architecture": architecture_json(dim=12.0)}, ["dim is 12.0", "integer"], id="float dim"),
        pytest.param({"architecture": architecture_json(split=["halves"])}, ["split is ['halves']"], id="list"),
        pytest.param({"architecture": architecture_json(depth=1)}, ["unknown field 'depth'"], id="unknown field"),
        pytest.param(
            {"architecture": architecture_json(dim=12).replace("12", "9" * 5000)}, ["architecture"], id="huge number"
        ),
        pytest.param({"architecture": architecture_json(hidden_units=8)}, ["shape", "expected"], id="other sizes"),
        pytest.param(
            {"architecture": json.dumps(SMALL.to_dict())}, ["permutation is not a parameter"], id="other options"
        ),
    ],
)
def test_a_bad_header_is_refused_with_what_was_expected(tmp_path, header, expected):
    message = refusal(write(tmp_path / "w", **header))
    assert all(text in message for text in expected), message


@pytest.mark.timeout(60)
@pytest.mark.parametrize("field", ["couplings", "hidden_layers"])
def test_a_header_that_claims_a_giant_network_is_refused_at_once(tmp_path, field):
    path = write(tmp_path / "w", architecture=json.dumps(replace(SHUFFLED, **{field: 10**12}).to_dict()))
    code = (
        "import resource, sys; from backends import parameters;"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 10)); resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33));"
        "parameters.load(sys.argv[1])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT)
    assert "ParameterError" in found.stderr


def test_a_file_without_metadata_is_refused(tmp_path):
    save_file(weights(SHUFFLED), tmp_path / "w")
    assert "format None" in refusal(tmp_path / "w")


# Not such a file at all


def content(tmp_path):
    return write(tmp_path / "good").read_bytes()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda good: good[:-1], id="truncated by a byte"),
        pytest.param(lambda good: good[: len(good) // 2], id="truncated"),
        pytest.param(lambda good: good[:100], id="truncated in the header"),
        pytest.param(lambda good: good[:7], id="truncated in the length"),
        pytest.param(lambda good: good + b"\0", id="a byte too long"),
        pytest.param(lambda good: b"", id="empty"),
        pytest.param(lambda good: struct.pack("<Q", 2**63) + good[8:], id="giant header"),
        pytest.param(lambda good: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.", id="pickle"),
        pytest.param(lambda good: b"PK\x03\x04" + good, id="zip, as torch.save makes"),
        pytest.param(lambda good: b"\x89HDF\r\n\x1a\n" + good, id="HDF5"),
    ],
)
def test_what_is_not_a_safetensors_file_is_refused(tmp_path, make):
    (tmp_path / "w").write_bytes(make(content(tmp_path)))
    assert "not a safetensors file" in refusal(tmp_path / "w")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        parameters.load(tmp_path / "absent")


def test_a_directory_is_named(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="folder"):
        parameters.load(tmp_path / "folder")
