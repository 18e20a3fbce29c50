"""The clock, and what is read off it: sampling and the floor, on models that take as long as a test wants."""

import itertools
import math
from contextlib import contextmanager

import numpy as np
import pytest
from factories import create, images
from scipy import stats

from backends.architecture import flops
from bench.inputs import protocol
from bench.measures import floor, likelihood, sampling, timing
from bench.measures.floor import numpy_workloads
from bench.measures.timing import Timing


class Clock:
    """A clock that moves only when somebody works, and a model and a call that say what they did."""

    def __init__(self, monkeypatch, seconds=0.001):
        self.time, self.seconds, self.waiting, self.calls = 0.0, seconds, seconds / 2, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.calls.append("clock") or self.time)

    def synchronise(self, result=None):
        self.calls.append("wait" if result is None else "wait for result")
        self.time += self.waiting  # what is left on the device is part of the time

    def __call__(self):
        self.calls.append("call")
        self.time += self.seconds
        return "result"

    def blocks(self):
        """The story, cut after each reading of the clock that ends a block."""
        calls = " ".join(self.calls)
        return [f"{block} clock".split() for block in calls.split(" wait for result clock")[:-1]]


# Intervals


def independent(n):
    """The numbers from 1 to n, in an order in which neighbours are as far apart as can be."""
    return [float(value) for pair in zip(range(1, n + 1), range(n, 0, -1), strict=True) for value in pair][:n]


def test_few_values_give_the_extremes():
    found = timing.summarise([5.0, 1.0, 4.0, 2.0, 9.0])
    assert (found.median, found.low, found.high, found.blocks) == (4.0, 1.0, 9.0, 5)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (9, 2), (20, 6), (31, 10), (100, 40)])
def test_the_interval_lies_between_the_tabulated_order_statistics(n, k):
    found = timing.summarise(independent(n))
    assert (found.low, found.high) == (k, n + 1 - k)


def test_the_fastest_of_many_blocks_is_the_least():
    found = timing.summarise(independent(20))
    assert (found.least, found.median, found.low) == (1.0, 10.5, 6.0)


@pytest.mark.parametrize("n", [6, 10, 31])
def test_the_interval_holds_the_median_at_least_as_often_as_it_says(n):
    generator = np.random.default_rng(n)
    found = [timing.summarise(generator.exponential(size=n).tolist()) for _ in range(1000)]
    assert np.mean([f.low <= math.log(2) <= f.high for f in found]) > 0.93


@pytest.mark.parametrize(("n", "kept", "least"), [(31, 0.3, 0.95), (31, 0.5, 0.95), (31, 0.8, 0.93), (12, 0.5, 0.93)])
def test_the_interval_holds_the_median_where_blocks_that_follow_each_other_are_alike(n, kept, least):
    generator = np.random.default_rng(n)
    values = generator.standard_normal((1000, n + 1))
    for i in range(1, n + 1):
        values[:, i] = kept * values[:, i - 1] + math.sqrt(1 - kept**2) * values[:, i]
    found = [timing.summarise((3 + each[1:]).tolist()) for each in values]
    assert np.mean([f.low <= 3 <= f.high for f in found]) > least


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("n", [6, 7, 12, 31])
def test_the_interval_is_that_of_as_many_independent_values_as_the_blocks_are_worth(n, kept):
    generator = np.random.default_rng(n)
    for _ in range(40):
        values = generator.standard_normal(n)
        for i in range(1, n):
            values[i] += kept * values[i - 1]
        ranks = stats.rankdata(values) - (n + 1) / 2
        found = (n * np.sum(ranks[1:] * ranks[:-1]) / np.sum(ranks**2) + 1) / (n - 3)
        alike = float(np.clip(found, 0, 1))
        worth = math.floor(n * (1 - alike) / (1 + alike))
        below = [k for k in range(1, n) if stats.binom.cdf(k - 1, worth, 0.5) <= 0.025]
        place = max(below) * n // worth if worth >= 6 else 1
        interval = timing.summarise(values.tolist())
        ordered = sorted(values)
        assert (interval.low, interval.high) == (ordered[place - 1], ordered[-place]), (worth, place)


def test_independent_blocks_have_hardly_a_wider_interval_for_it():
    generator = np.random.default_rng(5)
    found = [timing.summarise(generator.standard_normal(31).tolist()) for _ in range(500)]
    assert np.mean([f.high - f.low for f in found]) < 1.2 * 0.985  # of the 10th to the 22nd of 31 normal values


def test_a_steady_drift_leaves_nothing_but_the_extremes():
    found = timing.summarise([float(value) for value in range(1, 32)])
    assert (found.low, found.median, found.high) == (1.0, 16.0, 31.0)


def test_equal_blocks_have_an_interval_of_no_width():
    assert timing.summarise([2.0] * 31) == Timing(2.0, 2.0, 2.0, 31, 2.0)


# The clock


def test_a_block_waits_for_the_device_at_both_ends_and_never_inside(monkeypatch):
    clock = Clock(monkeypatch)
    timing.time_calls(clock, clock, 0.1)
    for block in clock.blocks():
        assert block[:2] == ["wait", "clock"]
        assert set(block[2:-1]) == {"call"}
    assert clock.calls[-2:] == ["wait for result", "clock"]


def test_calls_are_warmed_up_and_then_timed_in_blocks_of_20_ms(monkeypatch):
    clock = Clock(monkeypatch)  # 1.5 ms a call with its wait: 13 calls to a block
    timing.time_calls(clock, clock, 0.1)
    assert [block.count("call") for block in clock.blocks()] == [1, 1, *[13] * 5]


def test_seconds_a_call_are_those_of_the_block_over_its_calls(monkeypatch):
    clock = Clock(monkeypatch)
    found = timing.time_calls(clock, clock, 0.1)
    assert found.median == pytest.approx((13 * 0.001 + 0.0005) / 13)


@pytest.mark.parametrize(("budget", "blocks"), [(1e-9, 3), (1e9, timing.MOST_BLOCKS)])
def test_there_are_neither_too_few_blocks_nor_too_many(monkeypatch, budget, blocks):
    clock = Clock(monkeypatch)
    assert timing.time_calls(clock, clock, budget).blocks == blocks


# Sampling


class Sampler:
    """A model whose clock moves by 1 ms a sample."""

    def __init__(self, clock):
        self.clock, self.asked = clock, []
        self.synchronise = lambda result=None: None

    def workload(self, kind, batch, *, temperature):
        self.asked.append((kind, batch, temperature))

        def call():
            self.clock.time += 0.001 * batch

        return call


@pytest.fixture
def sampled(monkeypatch):
    sampler = Sampler(Clock(monkeypatch))
    rule = {"measure__sampling_batches": [100, 1, 5000, 4000], "measure__longest_call_seconds": 2.0}
    return sampler, list(sampling.measure(sampler, protocol.load("smoke", **rule)))


def test_sampling_is_timed_at_the_protocols_temperature_smallest_batch_first(sampled):
    assert sampled[0].asked == [("sample", 1, 0.8), ("sample", 100, 0.8)]


def test_throughput_and_latency_are_those_of_the_batch(sampled):
    found = {(m.quantity, m.context["batch"]): m.value for m in sampled[1]}
    assert found["samples_per_second", 100] == pytest.approx(1000)
    assert found["latency", 100] == pytest.approx(0.1)


def test_throughput_and_latency_have_the_intervals_and_the_number_of_blocks(monkeypatch):
    sampler = Sampler(Clock(monkeypatch))
    monkeypatch.setattr(sampling, "time_calls", lambda *_: Timing(0.5, 0.25, 2.0, 9, 0.2))
    loaded = protocol.load("smoke", measure__sampling_batches=[4])
    found = {m.quantity: (m.value, m.low, m.high, m.n) for m in sampling.measure(sampler, loaded)}
    assert found == {"samples_per_second": (8.0, 2.0, 16.0, 9), "latency": (0.5, 0.25, 2.0, 9)}


@pytest.mark.parametrize(("batch", "seconds"), [(4000, 4), (5000, 5)])
def test_a_batch_that_would_take_too_long_is_a_row_that_says_so(sampled, batch, seconds):
    left_out = [m for m in sampled[1] if m.context["batch"] == batch]
    assert [(m.quantity, m.value) for m in left_out] == [("samples_per_second", None), ("latency", None)]
    assert all(m.note == f"left out: a call would take about {seconds} s" for m in left_out)


@pytest.mark.parametrize(("longest", "left_out"), [(2.0, []), (1.99, [16])])
def test_a_batch_that_takes_as_long_as_is_allowed_is_timed_and_the_smallest_in_any_case(monkeypatch, longest, left_out):
    sampler = Sampler(Clock(monkeypatch))
    monkeypatch.setattr(sampling, "time_calls", lambda *_: Timing(1.0, 0.5, 1.5, 9, 0.4))
    rule = {"measure__sampling_batches": [8, 16], "measure__longest_call_seconds": longest}
    found = sampling.measure(sampler, protocol.load("smoke", **rule))
    assert [m.context["batch"] for m in found if m.quantity == "latency" and m.value is None] == left_out


# The floor


@pytest.fixture
def floors(monkeypatch):
    """Measure the floor of an epoch of 8 steps, by a clock that gives products and bytes the seconds asked for."""

    def measure(products, memory, replicas=1, reduction=None, **optimiser):
        clock, model = Clock(monkeypatch), create("numpy")
        model.replicas = replicas
        loaded = protocol.load("smoke", measure__seconds_per_timing=1e-9, **optimiser)

        def disturbed():  # by other work on the machine
            return itertools.cycle([1.5, 1.0, 2.0])

        def working(seconds):
            factors = disturbed()

            def make(given, _):
                assert given is model
                return lambda: setattr(clock, "time", clock.time + seconds * next(factors))

            return make

        monkeypatch.setattr(numpy_workloads, "products", working(products))
        monkeypatch.setattr(numpy_workloads, "chained", working(1.25 * products))
        monkeypatch.setattr(numpy_workloads, "memory", working(memory))
        if reduction is not None:  # of which the first call takes an hour, and all are counted

            @contextmanager
            def reducing(given, calls):
                assert given is model
                seconds = iter([3600.0, *(reduction * f for f in itertools.islice(disturbed(), calls - 1))])
                yield lambda: setattr(clock, "time", clock.time + next(seconds))
                assert next(seconds, None) is None

            monkeypatch.setattr(numpy_workloads, "reducing", reducing, raising=False)
        return {m.quantity: m.value for m in floor.measure(model, loaded, steps=8, round_=1)}

    return measure


def test_the_product_rate_is_that_of_the_training_steps_products(floors):
    found = floors(products=3.0, memory=1.0)
    multiplications = 3 * 3 * (6 * 7 + 7 * 7 + 7 * 6) - 6 * 7  # nobody needs the gradient by the data
    assert found["products_seconds"] == pytest.approx(3.0)
    assert found["product_rate"] == pytest.approx(2 * 64 * multiplications / 3.0)


def test_each_of_several_devices_has_its_part_of_the_batch(floors):
    multiplications = 3 * 3 * (6 * 7 + 7 * 7 + 7 * 6) - 6 * 7
    assert floors(products=3.0, memory=1.0, replicas=4)["product_rate"] == pytest.approx(2 * 16 * multiplications / 3.0)


def test_the_bandwidth_counts_what_is_read_and_what_is_written(floors):
    assert floors(products=1.0, memory=2.0)["bandwidth"] == pytest.approx(2 * 2**28 / 2.0)


def test_the_bytes_of_a_step_take_as_long_as_the_bandwidth_says(floors):
    # 10 times each number: kernels read twice, gradients written, Adam's 3 reads and 3 writes and the gradient read.
    numbers = 3 * (6 * 7 + 7 + 7 * 7 + 7 + 7 * 6 + 6) + 12
    assert floors(products=1.0, memory=2.0)["bytes_seconds"] == pytest.approx(10 * 8 * numbers / 2**28)


def test_an_average_of_the_weights_is_read_and_written_too(floors):
    numbers = 3 * (6 * 7 + 7 + 7 * 7 + 7 + 7 * 6 + 6) + 12
    found = floors(products=1.0, memory=2.0, optimiser__name="adamw")
    assert found["bytes_seconds"] == pytest.approx(12 * 8 * numbers / 2**28)


@pytest.mark.parametrize(
    ("products", "memory", "decides"), [(1.0, 1e-3, "products_seconds"), (1e-4, 1e3, "bytes_seconds")]
)
def test_the_floor_is_the_larger_of_products_and_bytes(floors, products, memory, decides):
    found = floors(products, memory)
    assert found["train_step_seconds"] == found[decides] == max(found["products_seconds"], found["bytes_seconds"])
    assert found["train_epoch_seconds"] == pytest.approx(8 * found[decides])


def test_of_several_devices_the_floor_is_no_less_than_the_reduction_by_itself(floors):
    found = floors(products=2.0, memory=1e-3, replicas=2, reduction=3.0)
    assert (found["reduction_seconds"], found["train_step_seconds"]) == (pytest.approx(3.0), pytest.approx(3.0))
    hidden = floors(products=2.0, memory=1e-3, replicas=2, reduction=0.5)
    assert (hidden["reduction_seconds"], hidden["train_step_seconds"]) == (pytest.approx(0.5), pytest.approx(2.0))
    assert "reduction_seconds" not in floors(products=2.0, memory=1e-3, reduction=3.0)


def test_the_chain_is_timed_by_itself(floors):
    assert floors(products=2.0, memory=1.0)["chain_seconds"] == pytest.approx(2.5)


@pytest.mark.parametrize(("seconds", "decides"), [(3.0, "products"), (1e-12, "bytes")])
def test_the_floor_of_a_pass_is_that_of_its_products_or_its_bytes_at_each_batch_that_is_timed(
    monkeypatch, seconds, decides
):
    made, model = [], create("numpy")
    monkeypatch.setattr(floor, "time_calls", lambda model, call, budget: Timing(9.0, 9.0, 9.0, 3, call()))
    monkeypatch.setattr(numpy_workloads, "products", lambda _, shapes: lambda: made.append(flops(shapes)) or seconds)
    monkeypatch.setattr(numpy_workloads, "memory", lambda _, size: lambda: 0.5)
    rule = {"measure__sampling_batches": [4, 1], "measure__likelihood_batch": 8, "measure__longest_call_seconds": 24.0}
    found = {m.context["batch"]: m.value for m in floor.measure_forward(model, protocol.load("smoke", **rule))}
    assert made == [2 * batch * 3 * (6 * 7 + 7 * 7 + 7 * 6) for batch in (1, 4, 8)]
    bandwidth = 2 * 2**28 / 0.5
    by_bytes = {batch: model.architecture.forward_bytes(batch, 8) / bandwidth for batch in (1, 4, 8)}
    assert found == pytest.approx(dict.fromkeys((1, 4, 8), 3.0) if decides == "products" else by_bytes)


def test_no_floor_is_taken_of_a_pass_that_would_take_too_long(monkeypatch):
    monkeypatch.setattr(floor, "time_calls", lambda model, call, budget: Timing(9.0, 9.0, 9.0, 3, call()))
    monkeypatch.setattr(numpy_workloads, "products", lambda _, shapes: lambda: 3.0)
    monkeypatch.setattr(numpy_workloads, "memory", lambda _, size: lambda: 0.5)
    rule = {
        "measure__sampling_batches": [1, 2, 4],
        "measure__likelihood_batch": 8,
        "measure__longest_call_seconds": 6.0,
    }
    found = floor.measure_forward(create("numpy"), protocol.load("smoke", **rule))
    assert [m.context["batch"] for m in found] == [1, 2, 4, 8]  # each takes as long as the one before, not twice
    rule["measure__longest_call_seconds"] = 5.9
    found = floor.measure_forward(create("numpy"), protocol.load("smoke", **rule))
    assert [m.context["batch"] for m in found] == [1]


# Density


@pytest.mark.parametrize(("asked", "batch"), [(8, 8), (64, 22)])
def test_density_is_timed_at_the_protocols_batch_or_at_all_images_there_are(monkeypatch, asked, batch):
    model, calls = create("numpy"), []
    monkeypatch.setattr(model, "workload", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(likelihood, "time_calls", lambda *_: Timing(0.5, 0.25, 2.0, 9, 0.2))
    loaded = protocol.load("smoke", measure__likelihood_batch=asked)
    found = {m.quantity: m for m in likelihood.measure(model, images(), loaded, 0)}["images_per_second"]
    assert calls == [("log_prob", batch)]
    assert (found.value, found.low, found.high, found.n) == (batch / 0.5, batch / 2.0, batch / 0.25, 9)
    assert found.context == {"batch": batch}
