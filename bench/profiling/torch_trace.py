"""PyTorch's trace: torch.profiler, written as Chrome trace JSON."""

import gzip
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.profiling.events import LAUNCH, MARK, WAIT, Category, Span, Trace, Work, category_of, window_of
from bench.profiling.hlo import Categories

ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
RUNTIME = {"cuda_runtime", "cuda_driver"}

VIEWS = {"t", "transpose", "as_strided", "expand", "view", "reshape", "select", "slice", "detach", "alias", "unsqueeze"}
VIEWS |= {"squeeze", "narrow", "chunk", "split", "permute", "unbind", "_unsafe_view", "_reshape_alias", "view_as"}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "resize_", "set_", "result_type", "item", "_local_scalar_dense"}
WRAPPERS = {"linear", "matmul", "to", "_to_copy", "contiguous", "clone", "zeros", "zeros_like", "ones", "ones_like"}
NO_WORK = {f"aten::{name}" for name in VIEWS | ALLOCATIONS | WRAPPERS}
"""Operators that leave the work to others nested in them, or have none."""

COMPILED = re.compile(r"(graph_\d+_)?cpp_fused")
"""What `torch.compile` makes for a CPU, named after the operators fused in it; those of RMSProp are _foreach_ ones."""


def trace(folder: Path, call: Callable[[], Any], compiled: Callable[[], Categories]) -> Trace:
    """Run `call`, which ends synchronised, under the profiler; the trace stays in `folder` as trace.json.gz."""
    gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as profiler, record_function(MARK):
        call()
    path = folder / "trace.json.gz"
    profiler.export_chrome_trace(str(path))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return read(json.load(file)["traceEvents"])


def read(events: list[dict[str, Any]]) -> Trace:
    """Return the trace in a list of Chrome trace events."""
    events = [event for event in events if event.get("ph") == "X"]
    window = window_of([_span(e) for e in events if e["name"] == MARK and e["cat"] == "user_annotation"])
    on_device = [_work(event) for event in events if event["cat"] in ON_DEVICE]
    if on_device:
        runtime = [event for event in events if event["cat"] in RUNTIME]
        launches, waits = (
            [_span(event) for event in runtime if pattern.search(event["name"])] for pattern in (LAUNCH, WAIT)
        )
        return Trace(window, on_device, launches, waits)
    operators = [event for event in events if event["cat"] == "cpu_op" and event["name"] not in NO_WORK]
    work = [_work(e) for e in operators if e["name"].startswith(("aten::", "mkl")) or _compiled(e)]
    return Trace(window, list(_outside_updates(work)))


def _outside_updates(work: list[Work]) -> Iterator[Work]:
    """Leave out what runs inside an operator that updates parameters, as `aten::mul_` in `aten::_foreach_mul_`."""
    ends: dict[str, float] = {}
    for each in sorted(work, key=lambda piece: (piece.span.start, -piece.span.end)):
        if each.span.end > ends.get(each.line, -math.inf):
            yield each
            if each.category is Category.OPTIMISER:
                ends[each.line] = each.span.end


def _work(event: dict[str, Any]) -> Work:
    name, category = event["name"], category_of(event["name"])
    if _compiled(event) and category is not Category.OPTIMISER:  # one copy in it doesn't make it one
        category = Category.OTHER
    return Work(name, category, f"{event['pid']}/{event['tid']}", _span(event))


def _compiled(event: dict[str, Any]) -> bool:
    return COMPILED.match(event["name"]) is not None


def _span(event: dict[str, Any]) -> Span:
    """Return the span of an event in seconds; Chrome's format has microseconds."""
    return Span(event["ts"] * 1e-6, (event["ts"] + event["dur"]) * 1e-6)
