"""What JAX and TensorFlow share: a trace of XSpace, whose planes (devices, hosts) hold lines (streams, threads)."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.profiling.events import LAUNCH, MARK, WAIT, Category, Span, Trace, TraceError, Work, category_of, window_of
from bench.profiling.hlo import Categories

OPERATION = re.compile(r"^(?!__inference)[\w./\-]+:(\w+)$")
"""A TensorFlow operation, as `name:Type`."""

NO_WORK = {"PartitionedCall", "StatefulPartitionedCall", "While", "If"}
NO_WORK |= {"NoOp", "Const", "VarHandleOp", "_Arg", "_Retval"}
"""Operations that compute nothing themselves, though others may run inside them."""


@dataclass(frozen=True)
class Event:
    """An event of an XSpace."""

    plane: str
    line: str
    name: str
    span: Span
    stats: dict[str, Any] = field(default_factory=dict)


def only_file(folder: Path) -> Path:
    """Return the .xplane.pb file that a profiler has just written below `folder`.

    Raises:
        TraceError: there is none, or there are several.
    """
    found = sorted(folder.rglob("*.xplane.pb"))
    if len(found) != 1:
        raise TraceError(f"{folder}: expected one .xplane.pb file, found {len(found)}")
    return found[0]


def read(events: Iterable[Event], compiled: Categories) -> Trace:
    """Return the trace in the events of all planes, given what XLA compiled."""
    events = list(events)
    window = window_of([event.span for event in events if event.name == MARK])
    streams = [e for e in events if e.plane.startswith("/device:GPU") and e.line.startswith("Stream")]
    hosts = [e for e in events if e.plane.startswith("/host:")]
    if streams:
        compiled = compiled | _kernels(compiled)
    kind = _kernel if streams else _operator
    work = [
        Work(event.name, category, f"{event.plane}/{event.line}", event.span)
        for event in streams or hosts
        if (category := kind(event, compiled)) is not None
    ]
    if not streams:
        return Trace(window, work)
    launches, waits = ([e.span for e in hosts if pattern.search(e.name)] for pattern in (LAUNCH, WAIT))
    return Trace(window, work, launches, waits)


def _kernels(compiled: Categories) -> Categories:
    """Return ("", kernel) → kind of work: XLA names a kernel after its instruction, with `_` for what C doesn't allow.

    What a command buffer launches may have no other name. A name that modules use for several kinds is left out.
    """
    named = {(re.sub(r"\W", "_", instruction), category) for (_, instruction), category in compiled.items()}
    times = Counter(name for name, _ in named)
    return {("", name): category for name, category in named if times[name] == 1}


def _kernel(event: Event, compiled: Categories) -> Category:
    """Return the kind of work of an event on a GPU's stream: by the instruction that it runs, else by its name."""
    known = _compiled(event, compiled) if "hlo_op" in event.stats else compiled.get(("", event.name))
    by_name = (_of_operation(str(event.stats.get("tf_op", ""))), category_of(event.name))
    return known or next((category for category in by_name if category is not Category.OTHER), Category.OTHER)


def _operator(event: Event, compiled: Categories) -> Category | None:
    """Return the kind of work of an event on a thread (XLA's instruction or TensorFlow's operation), None for none."""
    if "hlo_op" in event.stats:
        return _compiled(event, compiled)
    operation = OPERATION.match(event.name)
    return _of_operation(event.name) if operation and operation[1] not in NO_WORK else None


def _of_operation(name: str) -> Category:
    """Return the kind of work of TensorFlow's `name:Type`: the optimiser's if it has that scope, else by its type."""
    return Category.OPTIMISER if category_of(name) is Category.OPTIMISER else category_of(name.rpartition(":")[2])


def _compiled(event: Event, compiled: Categories) -> Category | None:
    module, instruction = (str(event.stats.get(name, "")) for name in ("hlo_module", "hlo_op"))
    return compiled.get((module, instruction), category_of(instruction))
