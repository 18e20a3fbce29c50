"""CUDA's graphs and streams: many launches replayed as one, and copies beside the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Warm a call up on a side stream, as capture asks for, then capture it; the graph and what the call returned."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def replayed(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call as the replay of its graph; what it returns lies at the same place each time."""
    graph, result = captured(call)

    def replay() -> Any:
        graph.replay()
        return result

    return replay


@contextmanager
def uploading(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Copies to a GPU on a stream of their own, beside the training, and finished at the end.

    Yields a function to pass each tensor through: its memory is of the copying stream, and must not be used again
    before the training stream is through with it.
    """
    if device.type != "cuda":
        yield lambda tensor: tensor
        return
    training, copying = torch.cuda.current_stream(device), torch.cuda.Stream(device)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(training)
        return tensor

    with torch.cuda.stream(copying):
        yield keep
    copying.synchronize()
