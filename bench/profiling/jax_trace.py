"""JAX's trace: jax.profiler, written as an XSpace and as Chrome trace JSON."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from bench.profiling import xplane
from bench.profiling.events import MARK, Span, Trace
from bench.profiling.hlo import Categories


def trace(folder: Path, call: Callable[[], Any], compiled: Callable[[], Categories]) -> Trace:
    """Run `call`, which ends synchronised, under the profiler; the trace stays in `folder`."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # a Python program's every call, which would be most of what is measured
    jax.profiler.start_trace(str(folder), profiler_options=options)
    try:
        with jax.profiler.TraceAnnotation(MARK):
            call()
    finally:
        jax.profiler.stop_trace()
    return xplane.read(events(xplane.only_file(folder)), compiled())


def events(path: Path) -> Iterator[xplane.Event]:
    """Yield the events of an .xplane.pb file."""
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for number, line in enumerate(plane.lines):
            for event in line.events:
                span = Span(event.start_ns * 1e-9, event.end_ns * 1e-9)
                yield xplane.Event(plane.name, f"{line.name}/{number}", event.name, span, dict(event.stats))
