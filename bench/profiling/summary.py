"""A trace → seconds a step by kind of work, idle time, and how many pieces of work were started.

Every instant of the window is counted once, so that the parts add up to the whole: where several lines (threads,
streams) are busy it is divided among them equally, where pieces of work of one line are nested it is the innermost's,
and where none is busy it is idle: the device waits for the host.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from bench.profiling.events import Category, Span, Trace, Work
from bench.records import Measurement

IDLE = "idle"


def measurements(trace: Trace, steps: int, step_seconds: float) -> Iterator[Measurement]:
    """Yield the figures of a profile.

    Args:
        trace: of `steps` training steps.
        steps: how many.
        step_seconds: of a step when nothing is traced, for comparison.
    """
    window = trace.window.end - trace.window.start
    parts = divide(trace)
    yield Measurement.of("profile", "step_seconds", step_seconds, "s")
    yield Measurement.of("profile", "traced_step_seconds", window / steps, "s", n=steps)
    for part, seconds in parts.items():
        yield Measurement.of("profile", f"{part}_seconds", seconds / steps, "s", n=steps)
        yield Measurement.of("profile", f"{part}_share", seconds / window, "1", n=steps)
    inside = [piece for piece in trace.work if _clipped(piece.span, trace.window)]
    yield Measurement.of("profile", "operations_per_step", len(inside) / steps, "1", n=steps)
    if trace.launches is not None and trace.waits is not None:
        launched = [span for span in trace.launches if _clipped(span, trace.window)]
        yield Measurement.of("profile", "launches_per_step", len(launched) / steps, "1", n=steps)
        yield Measurement.of("profile", "host_waiting_share", covered(trace.waits, trace.window) / window, "1", n=steps)


def divide(trace: Trace) -> dict[str, float]:
    """Return category → seconds of the window, `IDLE` included; they add up to the window."""
    parts = {category.value: 0.0 for category in Category}
    busy = 0.0
    for seconds, running in _instants(trace.work, trace.window):
        busy += seconds
        for category in running:
            parts[category.value] += seconds / len(running)
    return parts | {IDLE: max(trace.window.end - trace.window.start - busy, 0.0)}


def covered(spans: Iterable[Span], window: Span) -> float:
    """Return the seconds of the window in which at least one of the spans runs: their union, not their sum."""
    total, reached = 0.0, window.start
    for span in sorted((c for s in spans if (c := _clipped(s, window))), key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return total


def _instants(work: Iterable[Work], window: Span) -> Iterator[tuple[float, list[Category]]]:
    """Yield stretches of the window without a change: their length, and the innermost category of each busy line."""
    ends: list[tuple[float, bool, int]] = []
    pieces: list[Work] = []
    for piece in work:
        if span := _clipped(piece.span, window):
            ends += [(span.start, True, len(pieces)), (span.end, False, len(pieces))]
            pieces.append(piece)
    # At one instant, ends come before beginnings, and of pieces that begin together the longer one is the outer.
    ends.sort(key=lambda end: (end[0], end[1], -pieces[end[2]].span.end if end[1] else 0.0))
    running: dict[str, list[int]] = defaultdict(list)
    before = window.start
    for now, begins, index in ends:
        if running and now > before:
            yield now - before, [pieces[stack[-1]].category for stack in running.values()]
        before = now
        stack = running[pieces[index].line]
        if begins:
            stack.append(index)
        else:
            stack.remove(index)
            if not stack:
                del running[pieces[index].line]


def _clipped(span: Span, window: Span) -> Span | None:
    """Return the part of a span inside the window; None where there is none."""
    start, end = max(span.start, window.start), min(span.end, window.end)
    return Span(start, end) if end > start else None
