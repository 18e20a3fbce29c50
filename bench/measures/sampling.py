"""Sampling: samples a second and latency, by batch size. The device draws the latents itself and keeps the samples."""

from __future__ import annotations

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
        context: dict[str, str | int | float] = {"batch": batch}
        if (expected := seconds_a_sample * batch) > rule.longest_call_seconds:
            note = f"left out: a call would take about {expected:.0f} s"
            for quantity, unit in (("samples_per_second", "samples/s"), ("latency", "s")):
                yield Measurement(
                    measure="sampling", quantity=quantity, value=None, unit=unit, note=note, context=context
                )
            continue
        call = model.workload("sample", batch, temperature=rule.temperature)
        timing = time_calls(model, call, rule.seconds_per_timing)
        seconds_a_sample = timing.median / batch
        yield Measurement(
            measure="sampling",
            quantity="samples_per_second",
            value=batch / timing.median,
            unit="samples/s",
            low=batch / timing.high,
            high=batch / timing.low,
            n=timing.blocks,
            context=context,
        )
        yield Measurement(
            measure="sampling",
            quantity="latency",
            value=timing.median,
            unit="s",
            low=timing.low,
            high=timing.high,
            n=timing.blocks,
            context=context,
        )
