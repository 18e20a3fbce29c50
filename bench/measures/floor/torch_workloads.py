"""The workloads of a floor in PyTorch: products, a chain of them, memory that is moved, and gradients reduced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from backends import Backend
from backends.torch_graphs import replayed
from backends.torch_ranks import other_ranks
from bench.measures.floor.chain import chain, sizes


def products(model: Backend, shapes: Sequence[tuple[int, int, int]]) -> Callable[[], Any]:
    """Return a call that makes products of the shapes (m, k, n), each on operands of its own."""
    operands = [[_full(model, shape, 0.5) for shape in ((m, k), (k, n), (m, n))] for m, k, n in shapes]
    return _bare(model, lambda: [torch.mm(a, b, out=c) for a, b, c in operands])


def chained(model: Backend, batch: int) -> Callable[[], Any]:
    """Return a call that makes the products of a training step as a chain."""
    # [out, in] and multiplied by their transpose, as nn.Linear's are.
    kernels = [_full(model, (o, i), 1 / i).T for i, o in sizes(model.architecture)]
    x = _full(model, (batch, model.architecture.half), 0.5)
    return _bare(model, lambda: chain(x, kernels, torch.matmul, torch.t))


def memory(model: Backend, size: int) -> Callable[[], Any]:
    """Return a call that moves 2 · `size` bytes, adding to float32 numbers in place."""
    numbers = torch.zeros(size // 4, dtype=torch.float32, device=_device(model))
    return lambda: numbers.add_(1)


@contextmanager
def reducing(model: Backend, calls: int) -> Iterator[Callable[[], Any]]:
    """Within it, a call that sums a step's gradients, in one array, over the devices; it is made `calls` times."""
    array = model.architecture.trainable_count, model.dtype.name, _device(model)
    with other_ranks(model.nodes, model.local_replicas, model.device == "gpu", _reduce, (calls, *array)):
        yield _reduction(*array)


def _reduce(rank: int, calls: int, *array: Any) -> None:
    """Take part as a rank other than the first."""
    call = _reduction(*array)
    for _ in range(calls):
        call()


def _reduction(size: int, dtype: str, device: str) -> Callable[[], torch.Tensor]:
    gradients = torch.ones(size, dtype=getattr(torch, dtype), device=device)

    def call() -> torch.Tensor:
        distributed.all_reduce(gradients)
        return gradients

    return call


def _bare(model: Backend, call: Callable[[], Any]) -> Callable[[], Any]:
    """Return `call`, on a GPU in one dispatch whatever the mode: a floor is the hardware's, not that of launches."""
    return replayed(torch.no_grad()(call)) if model.device == "gpu" else torch.no_grad()(call)


def _full(model: Backend, shape: tuple[int, int], value: float) -> torch.Tensor:
    dtypes = {"bfloat16": torch.bfloat16, "float64": torch.float64}
    return torch.full(shape, value, dtype=dtypes.get(model.precision, torch.float32), device=_device(model))


def _device(model: Backend) -> str:
    return "cuda" if model.device == "gpu" else "cpu"
