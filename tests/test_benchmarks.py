"""Micro-benchmarks of every operation in every mode of every backend; `nox -s bench-micro` runs them.

Each result is compared with the float64 reference before it is timed, and no time is asserted. The network is small
unless NICE_BENCH_BENCHMARK_SIZE=full; NICE_BENCH_BENCHMARK_BATCH=64,4096 sets the batches,
NICE_BENCH_BENCHMARK_DEVICE=gpu the device, and NICE_BENCH_TEST_BACKENDS the backends. A usual run of the tests leaves
them out. What pytest-benchmark saves of them, `bench.records.micro` reads.
"""

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from factories import error, every_mode

import backends
from backends import Adam, Architecture, Pixels, parameters
from bench.inputs.streams import TrainingStream, initial_parameters
from bench.measures.precision import probe
from bench.measures.timing import summarise

SIZES = {"small": replace(Architecture.article(), hidden_layers=2, hidden_units=64), "full": Architecture.article()}
SIZE = os.environ.get("NICE_BENCH_BENCHMARK_SIZE", "small")
BATCHES = [int(batch) for batch in os.environ.get("NICE_BENCH_BENCHMARK_BATCH", "1,128,1024").split(",")]
DEVICE = os.environ.get("NICE_BENCH_BENCHMARK_DEVICE", "cpu")
MODES = every_mode(DEVICE)
TEMPERATURE = 0.8
STEPS = 4
ROUNDS = 5
TOLERANCE = 2e-5  # float32, with products of up to a thousand terms

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # compilers warn as they like, and nothing of theirs is tested here
    pytest.mark.benchmark(min_rounds=3, max_time=0.5, warmup=False),
]


@cache
def initial(dtype):
    return parameters.astype(initial_parameters(architecture(), 0, "glorot_uniform", "glorot_normal"), dtype)


def architecture():
    if SIZE not in SIZES:
        raise pytest.UsageError(f"NICE_BENCH_BENCHMARK_SIZE is {SIZE!r}; expected one of {', '.join(SIZES)}")
    return SIZES[SIZE]


@cache
def reference():
    """The float64 reference. Not to be trained."""
    return backends.create("numpy", architecture(), initial("float64"), device="cpu", precision="float64")


def create(name, mode):
    """A model in float32."""
    device = "cpu" if name == "numpy" else DEVICE
    return backends.create(name, architecture(), initial("float32"), device=device, mode=mode)


def rows(batch):
    """What `Backend.workload` computes on."""
    dim = architecture().dim
    return np.linspace(-0.5, 0.5, batch * dim, dtype=np.float32).reshape(batch, dim).astype(np.float64)


def tell(benchmark, model, operation, batch, calls=1):
    """Leave in pytest-benchmark's JSON what `bench.records.micro` makes a record of; `calls` to each timed round."""
    if benchmark.disabled:
        return
    timing = summarise(benchmark.stats.stats.data)
    benchmark.extra_info |= {
        "backend": model.name,
        "mode": model.mode,
        "device": model.device,
        "precision": probe(model).model_dump(),
        "operation": operation,
        "batch": batch,
        "size": SIZE,
        "architecture": architecture().to_dict(),
        "optimiser": Adam().to_dict(),
        "calls": calls,
        "interval": [timing.low, timing.high],
    }


def check(operation, model, result, batch):
    """Fail unless the result of a workload, still on the device, is that of the reference."""
    if operation == "sample":
        samples = model._to_numpy(result).astype(np.float64)
        assert samples.shape == (batch, architecture().dim)
        z = reference().encode(samples)[0] / TEMPERATURE
        assert abs(z.mean()) < 5 / np.sqrt(z.size)
        assert abs((z**2).mean() - 1) < 5 * np.sqrt(2 / z.size)
        return
    found = [model._to_numpy(part) for part in (result if isinstance(result, tuple) else (result,))]
    expected = getattr(reference(), operation)(rows(batch))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for part, right in zip(found, expected, strict=True):
        # Against 1 where all is smaller: log_det is a sum that cancels to nearly 0.
        assert np.abs(part - right).max() < TOLERANCE * max(1.0, np.abs(right).max())


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("operation", ["encode", "decode", "log_prob", "sample"])
def test_operation(benchmark, operation, batch, name, mode):
    model = create(name, mode)
    call = model.workload(operation, batch, temperature=TEMPERATURE)
    check(operation, model, call(), batch)

    def synchronised():
        model.synchronise(call())

    benchmark.group = f"{operation}, {SIZE}, batch {batch}, {DEVICE}"
    benchmark(synchronised)
    tell(benchmark, model, operation, batch)


@cache
def expected_losses(batch):
    model = backends.create("numpy", architecture(), initial("float64"), device="cpu", precision="float64")
    images, stream = training_set(batch)
    return next(iter(model.train(images, Adam(), stream, 1))).losses


def training_set(batch):
    dim = architecture().dim
    images = np.random.default_rng(0).integers(0, 256, (STEPS * batch, dim), dtype=np.uint8)
    return images, TrainingStream(0, len(images), dim, batch, Pixels(1 / 255))


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("batch", BATCHES)
def test_training_step(benchmark, batch, name, mode):
    """Each round is an epoch of a few steps, synchronised at its ends; the time that is shown is that of the epoch."""
    images, stream = training_set(batch)
    model = create(name, mode)
    reports = model.train(images, Adam(), stream, 1 + ROUNDS)
    assert error(next(reports).losses, expected_losses(batch)) < TOLERANCE

    benchmark.group = f"{STEPS} training steps, {SIZE}, batch {batch}, {DEVICE}"
    benchmark.pedantic(lambda: next(reports), rounds=ROUNDS)
    tell(benchmark, model, "training step", batch, calls=STEPS)
