"""What the tests of foreign weights check: `port` makes the very flow that the program says, or refuses."""

import numpy as np
import pytest
from foreign_models import points

import backends
from backends import ParameterError, parameters
from bench.errors import BenchError
from bench.weights import porting

UNTOUCHED = b"what was there before"
FRESH = points(rows=40, seed=77) * 3  # inputs that no probe has


def port(source, target, options=(), probe=None):
    """What `port` says; its own table compares with the reference alone, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "available", lambda: {"numpy": None})
        return porting.port(source, target, list(options), probe)


def saved_probe(folder, says, x=None, holds=("z", "log_prob"), dtype="float32"):
    """A probe of what a model says, by its `says`."""
    x = points() if x is None else x
    values = {name: np.asarray(value, dtype) for name, value in says(x).items() if name in holds}
    np.savez(folder / "probe.npz", x=x, **values)
    return folder / "probe.npz"


def assert_same_flow(source, says, options=(), probe=None, *, names=("numpy",)):
    """Fail unless z and log p of fresh inputs are those of the model; returns the architecture and what `port` says."""
    target = source.parent / "ported.safetensors"
    text = port(source, target, options, probe)
    architecture, arrays = parameters.load(target)
    expected = says(FRESH)
    for name in names:
        model = backends.create(name, architecture, arrays, device="cpu", precision="float32")
        z, log_prob = model.encode(FRESH)[0], model.log_prob(FRESH)
        np.testing.assert_allclose(z, expected["z"], rtol=0, atol=3e-6 * np.abs(expected["z"]).max(), err_msg=name)
        np.testing.assert_allclose(log_prob, expected["log_prob"], rtol=1e-4, err_msg=name)
    return architecture, text


def refused(source, options=(), probe=None, kind=(ParameterError, BenchError)):
    """The message; the target is as it was, and nothing lies beside it."""
    target = source.parent / "target.safetensors"
    target.write_bytes(UNTOUCHED)
    before = set(target.parent.iterdir())
    with pytest.raises(kind) as caught:
        port(source, target, options, probe)
    assert target.read_bytes() == UNTOUCHED
    assert set(target.parent.iterdir()) == before
    assert any(name in str(caught.value) for name in (str(source), str(probe), "--"))
    return str(caught.value)
