"""Sampling: samples a second and latency, by batch size. The device draws the latents itself and keeps the samples."""

from collections.abc import Iterator

from backends import Backend
from bench.inputs.protocol import Protocol
from bench.measures.timing import time_calls
from bench.records import Measurement


def measure(model: Backend, protocol: Protocol) -> Iterator[Measurement]:
    """Yield throughput and latency at each of the protocol's batch sizes, smallest first.

    A size at which one call would take longer than the protocol allows, going by the size before it, is left out, and
    a row says so.
    """
    rule = protocol.measure
    seconds_a_sample = 0.0
    for batch in sorted(rule.sampling_batches):
        if (expected := seconds_a_sample * batch) > rule.longest_call_seconds:
            note = f"left out: a call would take about {expected:.0f} s"
            yield Measurement.of("sampling", "samples_per_second", None, "samples/s", note=note, batch=batch)
            yield Measurement.of("sampling", "latency", None, "s", note=note, batch=batch)
            continue
        call = model.workload("sample", batch, temperature=rule.temperature)
        timing = time_calls(model, call, rule.seconds_per_timing)
        seconds_a_sample = timing.median / batch
        yield timing.rate("sampling", "samples_per_second", batch, "samples/s", batch=batch)
        yield timing.seconds("sampling", "latency", batch=batch)
