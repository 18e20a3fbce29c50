"""Small flows, weights and streams for the tests, and which backends and modes there are to test."""

import itertools
import os
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import get_args, get_type_hints

import numpy as np
import pytest

import backends
from backends import Architecture, EpochInputs, Pixels, UnavailableError

SMALL = Architecture(dim=12, couplings=3, hidden_layers=2, hidden_units=7)
ARTICLE = SMALL
PAPER = replace(SMALL, reorder="tile", permute="after", split="halves", sign="add", output="linear", prior="logistic")
SHUFFLED = replace(SMALL, permutation="shuffle")
TINY = replace(SMALL, couplings=2, hidden_layers=1)  # where it's the training that takes the time to compile

TOO_SLOW_FOR_EVERY_TEST = {("torch", "compile")}  # has a test of its own
TRAINING_ONLY = {("jax", "jit")}  # another way to train; the rest is the same as in scan


# Architectures


def options():
    """Name of each option of an architecture → its values."""
    hints = get_type_hints(Architecture)
    return {f.name: get_args(hints[f.name]) for f in fields(Architecture) if get_args(hints[f.name])}


def every_architecture():
    """SMALL with each combination of options."""
    choices = options()
    return [
        replace(SMALL, **dict(zip(choices, values, strict=True))) for values in itertools.product(*choices.values())
    ]


def covering_architectures():
    """A few of `every_architecture` that hold each pair of values of any two options, the two named ones first."""

    def pairs(architecture):
        return set(itertools.combinations([(name, getattr(architecture, name)) for name in options()], 2))

    everything = every_architecture()
    chosen = [ARTICLE, PAPER, SHUFFLED]
    missing = set().union(*map(pairs, everything)) - set().union(*map(pairs, chosen))
    while missing:
        chosen.append(max(everything, key=lambda a: len(pairs(a) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


def label(architecture):
    """A short test id."""
    return "-".join(str(getattr(architecture, name)) for name in options())


# Weights and data


def weights(architecture, dtype="float64", seed=0):
    """Canonical parameters of a size that keeps every activation near 1; exact in float32, whatever the dtype."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in architecture.parameter_shapes.items():
        if name.endswith("permutation"):
            arrays[name] = generator.permutation(architecture.dim).astype(np.int32)
        else:
            size = shape[0] ** -0.5 if name.endswith("kernel") else 0.3
            arrays[name] = (size * generator.standard_normal(shape)).astype(np.float32).astype(dtype)
    return arrays


def rows(architecture, count=5, seed=1):
    """[count, D] points about 1 in size, exact in float32."""
    points = np.random.default_rng(seed).standard_normal((count, architecture.dim))
    return points.astype(np.float32).astype(np.float64)


def images(examples=22, dim=SMALL.dim):
    """[examples, D] random bytes."""
    return np.random.default_rng(2).integers(0, 256, (examples, dim), dtype=np.uint8)


PLAIN = Pixels(1 / 255)


@dataclass(frozen=True)
class Stream:
    """A stream of epochs as `backends.interface.Stream` describes it: 22 examples, so 2 are left out of each epoch."""

    examples: int = 22
    batch: int = 4
    pixels: Pixels = PLAIN
    dim: int = SMALL.dim

    @property
    def steps(self):
        return self.examples // self.batch

    def epoch(self, epoch):
        generator = np.random.default_rng([3, epoch])
        order = generator.permutation(self.examples)[: self.steps * self.batch].reshape(self.steps, self.batch)
        words = generator.integers(0, 2**16, (self.steps, self.batch, self.dim), dtype=np.uint16)
        return EpochInputs(order.astype(np.int32), words if self.pixels.noise else None)


# Backends


def backend_names():
    """The backends to test: those of NICE_BENCH_TEST_BACKENDS and the reference, or all."""
    asked = os.environ.get("NICE_BENCH_TEST_BACKENDS")
    if not asked:
        return list(backends.REGISTRY)
    names = [*asked.split(","), "numpy"]
    if not set(names) <= set(backends.REGISTRY):
        raise pytest.UsageError(
            f"NICE_BENCH_TEST_BACKENDS is {asked!r}; expected some of {', '.join(backends.REGISTRY)}"
        )
    return [name for name in backends.REGISTRY if name in names]  # in the registry's order, which matters for imports


def requires(name):
    """Skip the test where a backend is not to be tested."""
    return pytest.mark.skipif(name not in backend_names(), reason=f"NICE_BENCH_TEST_BACKENDS leaves {name} out")


def every_mode(device="cpu"):
    """(backend, mode) of each mode of each backend on a device."""
    found = []
    for name in backend_names():
        try:
            modes = backends.backend_class(name).modes_on(device)
        except UnavailableError:
            modes = (None,)  # so that each of its tests fails, saying why
        found += [(name, mode) for mode in modes]
    return found


def cases(*, training=False):
    """The modes on a CPU that compile in a moment; also those only `training` knows."""
    left_out = TOO_SLOW_FOR_EVERY_TEST | (set() if training else TRAINING_ONLY)
    found = [case for case in every_mode() if case not in left_out]
    return [pytest.param(*case, id="-".join(map(str, case))) for case in found]


def frameworks(*, training=False):
    """The `cases` of each backend but the reference."""
    return [case for case in cases(training=training) if case.values[0] != "numpy"]


def create(name, architecture=SMALL, *, mode=None, precision="float64", dtype=None, seed=0, replicas=1):
    """A model with the weights above, on the CPU."""
    dtype = dtype or ("float64" if precision == "float64" else "float32")
    given = weights(architecture, dtype, seed)
    options = {"device": "cpu", "precision": precision, "mode": mode, "replicas": replicas}
    return backends.create(name, architecture, given, **options)


@cache
def shared(name, architecture=SMALL, mode=None, precision="float64"):
    """The same, made once for all tests. Not to be trained."""
    return create(name, architecture, mode=mode, precision=precision)


# Comparing


def error(found, expected):
    """Largest difference, as a fraction of the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    difference, size = np.abs(found - expected).max(), np.abs(expected).max()
    return difference / size if size else difference


def errors(found, expected):
    """`error` of each entry; both have the same names."""
    assert found.keys() == expected.keys()
    return {name: error(found[name], expected[name]) for name in expected}


def assert_same_bits(found, expected):
    """Fail unless names, dtypes, shapes and bytes are equal."""
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].shape == expected[name].shape, name
        assert found[name].tobytes() == expected[name].tobytes(), name
