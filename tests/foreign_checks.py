"""What the tests of foreign weights check: `port` makes a flow with the right log p, or refuses and writes nothing."""

import numpy as np
import pytest
from factories import error
from foreign_models import points

import backends
from backends import ParameterError, parameters
from bench.errors import BenchError
from bench.weights import porting

UNTOUCHED = b"what was there before"
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def port(source, target, base=None, options=()):
    """What `port` tells; its own table compares with the reference alone, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "available", lambda: {"numpy": None})
        return porting.port(source, target, base, list(options))


def ported(source, base=None, options=()):
    """The architecture and weights that `port` writes, and what it tells."""
    target = source.parent / "ported.safetensors"
    told = port(source, target, base, options)
    return *parameters.load(target), told


def assert_density(source, expected, base=None, options=(), *, names=("numpy",), dtype="float64", order=None):
    """Fail unless z and log p are those of the foreign library; the architecture, what `port` tells."""
    architecture, arrays, told = ported(source, base, options)
    assert arrays["log_scale"].dtype == dtype
    z, log_p = expected
    for name in names:
        model = backends.create(name, architecture, arrays, device="cpu", precision=dtype)
        x = points(dtype)
        assert error(model.log_prob(x), log_p) < TOLERANCE[dtype], name
        np.testing.assert_allclose(model.log_prob(x), log_p, rtol=TOLERANCE[dtype])
        assert error(model.encode(x)[0], z if order is None else z[:, order]) < TOLERANCE[dtype], name
    return architecture, told


def refused(source, base=None, options=(), kind=(ParameterError, BenchError)):
    """The message, of one line; the target is as it was, and nothing lies beside it."""
    target = source.parent / "target.safetensors"
    target.write_bytes(UNTOUCHED)
    before = set(target.parent.iterdir())
    with pytest.raises(kind) as caught:
        port(source, target, base, options)
    assert target.read_bytes() == UNTOUCHED
    assert set(target.parent.iterdir()) == before
    assert str(source) in str(caught.value) or "--" in str(caught.value)
    return str(caught.value)
