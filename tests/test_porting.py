"""Porting: from one form of weights to another and back, and what is refused without touching the target."""

import itertools
import json
import pickle  # noqa: TID251 - to make what must not be read
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import PAPER, SHUFFLED, SMALL, assert_same_bits, backend_names, weights

import backends
from backends import Architecture, ParameterError, parameters
from bench.errors import BenchError
from bench.weights import porting
from bench.weights.porting import port

torch = pytest.importorskip("torch") if "torch" in backend_names() else None
needs_torch = pytest.mark.skipif(torch is None, reason="NICE_BENCH_TEST_BACKENDS leaves torch out")
FORMS = [".npz", pytest.param(".pt", marks=needs_torch)]
ARCHITECTURES = pytest.mark.parametrize("architecture", [SMALL, PAPER, SHUFFLED], ids=["article", "paper", "shuffled"])
UNTOUCHED = b"what was there before"


@pytest.fixture(autouse=True)
def only_the_reference(monkeypatch, request):
    """Compare with the reference alone, except where a test is about the comparison."""
    if "every_backend" not in request.fixturenames:
        monkeypatch.setattr(backends, "available", lambda: {"numpy": None})


@pytest.fixture
def every_backend():
    """Compare with every backend that is tested here."""


def saved(folder, architecture=SMALL, dtype="float32"):
    path = folder / "weights.safetensors"
    parameters.save(path, architecture, weights(architecture, dtype))
    return path


def refused(source, target, kind=ParameterError):
    """The message; the target is as it was, and nothing lies beside it."""
    target.write_bytes(UNTOUCHED)
    before = set(target.parent.iterdir())
    with pytest.raises(kind) as caught:
        port(source, target)
    assert target.read_bytes() == UNTOUCHED
    assert set(target.parent.iterdir()) == before
    return str(caught.value)


# There and back


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@ARCHITECTURES
def test_a_tour_of_all_forms_ends_with_the_same_weights_and_architecture(tmp_path, architecture, dtype):
    source = saved(tmp_path, architecture, dtype)
    tour = [source, *(tmp_path / f"ported{ending}" for ending in (".npz", ".pt", ".safetensors"))]
    for here, there in itertools.pairwise(tour):
        port(here, there)
    found, arrays = parameters.load(tour[-1])
    assert found == architecture
    assert_same_bits(arrays, weights(architecture, dtype))


@ARCHITECTURES
def test_an_npz_holds_the_canonical_names(tmp_path, architecture):
    port(saved(tmp_path, architecture), tmp_path / "ported.npz")
    with np.load(tmp_path / "ported.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert Architecture.from_dict(json.loads(str(arrays.pop("architecture")))) == architecture
    assert_same_bits(arrays, weights(architecture, "float32"))


@needs_torch
def test_a_pt_holds_a_state_dictionary_with_kernels_as_a_linear_layer_has_them(tmp_path):
    port(saved(tmp_path), tmp_path / "ported.pt")
    content = torch.load(tmp_path / "ported.pt", weights_only=True)
    assert content["architecture"] == SMALL.to_dict()
    shapes = [tuple(tensor.shape) for name, tensor in content["state_dict"].items() if name.endswith("weight")]
    assert shapes[:3] == [(7, 6), (7, 7), (6, 7)]


@pytest.mark.parametrize("ending", FORMS)
def test_a_ported_file_can_be_read_by_whoever_can_read_others(tmp_path, ending):
    (tmp_path / "other").write_text("")
    port(saved(tmp_path), tmp_path / f"ported{ending}")
    modes = [(tmp_path / name).stat().st_mode for name in ("other", f"ported{ending}")]
    assert modes[0] == modes[1]


def test_weights_that_read_back_differently_are_not_written(tmp_path, monkeypatch):
    def write(path, architecture, loaded):
        porting._write_npz(path, architecture, loaded | {"log_scale": loaded["log_scale"] + np.float32(1e-6)})

    monkeypatch.setitem(porting.FORMS, ".npz", replace(porting.FORMS[".npz"], write=write))
    assert "reads back differently" in refused(saved(tmp_path), tmp_path / "ported.npz", BenchError)


# The table of agreement


def cells(table):
    """(backend, precision) → the other cells of its row."""
    rows = [line.split() for line in table.splitlines()[2:]]
    return {(row[0], row[1]): row[2:] for row in rows}


def test_every_backend_has_the_weights_bit_for_bit_and_agrees(tmp_path, every_backend, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: dict.fromkeys(backend_names()))
    found = cells(port(saved(tmp_path), tmp_path / "ported.npz"))
    assert set(found) == {(name, precision) for name in backend_names() for precision in ("float64", "float32")}
    for (_, precision), row in found.items():
        assert row[:3] == ["bit", "for", "bit"]
        assert max(map(float, row[3:])) < {"float64": 1e-12, "float32": 1e-5}[precision]


def test_a_backend_that_differs_shows(tmp_path, monkeypatch):
    decode = backends.backend_class("numpy").parameters

    def off(self):
        return {name: array + (name == "log_scale") for name, array in decode(self).items()}

    monkeypatch.setattr("backends.numpy_backend.NumpyBackend.parameters", off)
    assert cells(port(saved(tmp_path), tmp_path / "ported.npz"))["numpy", "float32"][0] == "DIFFER"


def test_a_backend_that_is_not_there_is_a_row_that_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"jax": "jax: can't be imported here", "numpy": None})
    assert "jax: can't be imported here" in port(saved(tmp_path), tmp_path / "ported.npz")


# What is refused


@pytest.mark.parametrize("name", ["weights.onnx", "weights", "weights.pth"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path, name):
    message = refused(saved(tmp_path), tmp_path / name, BenchError)
    assert all(text in message for text in (name, ".safetensors", ".npz", ".pt"))


@pytest.mark.parametrize("ending", [".safetensors", *FORMS])
def test_a_source_that_is_not_there_is_refused(tmp_path, ending):
    assert "no such file" in refused(tmp_path / f"none{ending}", tmp_path / "ported.npz", FileNotFoundError)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_pickle(path, payload):
    path.write_bytes(pickle.dumps(payload))


def write_object_array(path, payload):
    np.savez(path, architecture=np.array(payload, dtype=object))


def write_torch(path, payload):
    torch.save({"architecture": SMALL.to_dict(), "state_dict": {"x": payload}}, path)


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        (".npz", write_pickle),
        (".npz", write_object_array),
        (".safetensors", write_pickle),
        pytest.param(".pt", write_pickle, marks=needs_torch),
        pytest.param(".pt", write_torch, marks=needs_torch),
    ],
)
def test_pickled_code_is_refused_and_not_executed(tmp_path, ending, write):
    executed, source = tmp_path / "executed", tmp_path / f"evil{ending}"
    write(source, Payload(executed))
    assert str(source) in refused(source, tmp_path / "ported.safetensors")
    assert not executed.exists()


def test_the_payload_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


BAD_ENTRIES = {
    "missing": (lambda arrays, name: without(arrays, name), "is missing"),
    "extra": (lambda arrays, name: arrays | {"extra": arrays[name]}, "extra is not a parameter"),
    "misshapen": (lambda arrays, name: arrays | {name: arrays[name][:-1]}, "has shape"),
    "not finite": (lambda arrays, name: arrays | {name: arrays[name] * np.nan}, "not finite"),
    "mixed": (lambda arrays, name: arrays | {name: arrays[name] + np.float64(0).reshape(1)}, "dtype"),
}


@pytest.mark.parametrize("ending", FORMS)
@pytest.mark.parametrize("fault", BAD_ENTRIES)
def test_a_bad_entry_is_refused_with_its_file_and_what_was_expected(tmp_path, ending, fault):
    spoil, message = BAD_ENTRIES[fault]
    source = tmp_path / f"bad{ending}"
    if ending == ".npz":
        arrays = spoil(weights(SMALL, "float32"), "log_scale")
        np.savez(source, architecture=json.dumps(SMALL.to_dict()), **arrays)
    else:
        good = tmp_path / "good.pt"
        port(saved(tmp_path), good)
        content = torch.load(good, weights_only=True)
        arrays = spoil({name: tensor.numpy() for name, tensor in content["state_dict"].items()}, "log_scale")
        content["state_dict"] = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
        torch.save(content, source)
    found = refused(source, tmp_path / "ported.safetensors")
    assert str(source) in found
    assert message in found


@pytest.mark.parametrize("ending", [".safetensors", *FORMS])
@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut off"]
)
def test_a_file_of_something_else_is_refused(tmp_path, ending, content):
    source = tmp_path / f"bad{ending}"
    source.write_bytes(content)
    assert str(source) in refused(source, tmp_path / "ported.npz")


@pytest.mark.parametrize("architecture", ["not JSON", "[1, 2]", '{"dim": 3}', "null"])
def test_an_npz_without_a_usable_architecture_is_refused(tmp_path, architecture):
    source = tmp_path / "bad.npz"
    np.savez(source, architecture=architecture, **weights(SMALL, "float32"))
    assert str(source) in refused(source, tmp_path / "ported.safetensors")
