"""TensorFlow's trace: tf.profiler, written as an XSpace."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from bench.profiling import xplane
from bench.profiling.events import MARK, Span, Trace
from bench.profiling.hlo import Categories


def trace(folder: Path, call: Callable[[], Any], compiled: Callable[[], Categories]) -> Trace:
    """Run `call`, which ends synchronised, under the profiler; the trace stays below `folder` as .xplane.pb."""
    tf.profiler.experimental.start(str(folder))
    try:
        with tf.profiler.experimental.Trace(MARK):
            call()
    finally:
        tf.profiler.experimental.stop()
    return xplane.read(events(xplane.only_file(folder)), compiled())


def events(path: Path) -> Iterator[xplane.Event]:
    """Yield the events of an .xplane.pb file."""
    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    for plane in space.planes:
        names = {key: entry.name for key, entry in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
                span = Span(start, start + event.duration_ps * 1e-12)
                stats = {names[stat.metadata_id]: _value(stat, names) for stat in event.stats}
                yield xplane.Event(
                    plane.name, f"{line.name}/{line.id}", plane.event_metadata[event.metadata_id].name, span, stats
                )


def _value(stat: Any, names: dict[int, str]) -> Any:
    kind = stat.WhichOneof("value")
    return names[stat.ref_value] if kind == "ref_value" else getattr(stat, kind)
