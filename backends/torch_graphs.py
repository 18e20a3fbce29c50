"""CUDA's graphs and streams: many launches replayed as one, work beside other work, and copies beside both."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Warm a call up on a side stream, as capture asks for, then capture it; the graph and what the call returned.

    The stream goes before those that the call forks from it (`Beside`), so that a kernel of theirs doesn't hold it up.
    """
    side = torch.cuda.Stream(priority=-1)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        result = call()
    return graph, result


def replayed(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call as the replay of its graph; what it returns lies at the same place each time."""
    graph, result = captured(call)

    def replay() -> Any:
        graph.replay()
        return result

    return replay


class CapturedStep:
    """One graph for a whole training step: it reads its row of the epoch's inputs at a counter that it advances itself.

    Attributes:
        losses: of the epoch's steps, [steps].
        counter: the step that comes next, [1].
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        inputs: tuple[Tensor | None, ...],
        dtype: torch.dtype,
        changed: list[Tensor],
    ) -> None:
        """Capture a step, and leave no trace of its warm-up, which really trains.

        Args:
            step: from a row of each of the inputs to the loss.
            inputs: of an epoch, each with the steps as its first axis; the first is not None.
            dtype: of the loss.
            changed: everything that a step changes.
        """
        assert inputs[0] is not None
        self._step, self._inputs = step, tuple(None if t is None else t.clone() for t in inputs)
        self.counter = torch.zeros(1, dtype=torch.int64, device=inputs[0].device)
        self.losses = torch.zeros(len(inputs[0]), dtype=dtype, device=inputs[0].device)
        changed = [*changed, self.counter]
        # On the host: here they would count as peak and, undetached, keep autograd nodes of this stream from capture.
        before = [t.detach().cpu() for t in changed]
        self._graph, _ = captured(self._step_at_counter)
        with torch.no_grad():
            for tensor, saved in zip(changed, before, strict=True):
                tensor.copy_(saved)

    def _step_at_counter(self) -> None:
        row = (None if t is None else t.index_select(0, self.counter)[0] for t in self._inputs)
        self.losses.index_copy_(0, self.counter, self._step(*row).reshape(1))
        self.counter.add_(1).remainder_(len(self.losses))

    def replay(self, inputs: tuple[Tensor | None, ...], steps: int) -> Tensor:
        """The first `steps` steps of an epoch; the loss of each."""
        for buffer, tensor in zip(self._inputs, inputs, strict=True):
            if buffer is not None:
                buffer.copy_(tensor)
        self.counter.zero_()
        for _ in range(steps):
            self._graph.replay()
        return self.losses[:steps].clone()


class Beside:
    """Two streams beside a training step: of the kernels' and biases' gradients, and of the couplings' updates.

    The step itself is a chain: the layers forward, then the gradients by their inputs backward, each product waiting
    for the one before. Nothing in it waits for a kernel's gradient or update, so these are made beside it.
    """

    def __init__(self, flow: nn.Module, updates: Mapping[Tensor, Callable[[Tensor], None]]) -> None:
        """Prepare the streams.

        Args:
            flow: whose attribute `beside` is this object while a step is made.
            updates: kernel of a coupling's first layer → the coupling's update, given the step's row of the schedule.
        """
        self.flow, self.updates = flow, updates
        self.gradients, self.updating = torch.cuda.Stream(), torch.cuda.Stream()
        self.low: dict[Tensor, Tensor] = {}  # kernel → itself in the dtype of the products, where that is another one
        self._row: Tensor | None = None
        self._context = copy_context()  # of the training thread
        self._held: list[Tensor] = []  # what other streams still read

    @contextmanager
    def step(self, row: Tensor) -> Iterator[None]:
        """A forward and a backward pass; both streams have finished at its end."""
        self.flow.beside, self._row = self, row
        if (dtype := self.flow.product_dtype) is not None:  # all at once: one launch
            with torch.no_grad():
                self.low = {p: torch.empty_like(p, dtype=dtype) for p in self.flow.parameters() if p.ndim == 2}
                torch._foreach_copy_(list(self.low.values()), list(self.low))
        try:
            yield
        finally:
            self.flow.beside = None
        for stream in (self.gradients, self.updating):
            torch.cuda.current_stream().wait_stream(stream)
        self._held.clear()

    def dense(self, layer: nn.Linear, x: Tensor, product_dtype: torch.dtype | None) -> Tensor:
        """The layer's output, its products in `product_dtype` if given."""
        return _DenseBeside.apply(x, layer.weight, layer.bias, product_dtype, self)

    def put(self, weight: Tensor, bias: Tensor, x: Tensor, by_product: Tensor, by_output: Tensor) -> None:
        """Have the gradients of a layer made and, if it is the last one of its coupling, the coupling updated.

        Args:
            weight: [out, in].
            bias: [out].
            x: [B, in], in the dtype of the product.
            by_product: the gradient by the output [B, out], in that dtype.
            by_output: the gradient by the output.
        """
        self._held += [x, by_product, by_output]
        self.gradients.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.gradients):
            weight.grad, bias.grad = (by_product.t() @ x).to(weight.dtype), by_output.sum(dim=0)
        if weight in self.updates:
            self.updating.wait_stream(self.gradients)
            with torch.cuda.stream(self.updating):
                # This is autograd's thread, and torch's settings for compiling are each thread's own.
                self._context.run(self.updates[weight], self._row)


class _DenseBeside(torch.autograd.Function):
    """A dense layer of `Beside`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, product_dtype: torch.dtype | None, beside: Beside
    ) -> Tensor:
        ctx.weight, ctx.bias, ctx.beside = weight, bias, beside
        if product_dtype is None:
            ctx.save_for_backward(x, weight)
            return functional.linear(x, weight, bias)
        low, kernel = x.to(product_dtype), beside.low[weight]
        ctx.save_for_backward(low, kernel)
        return functional.linear(low, kernel) + bias

    @staticmethod
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, kernel = ctx.saved_tensors
        by_product = by_output.to(kernel.dtype)
        by_x = (by_product @ kernel).to(by_output.dtype) if ctx.needs_input_grad[0] else None
        ctx.beside.put(ctx.weight, ctx.bias, x, by_product, by_output)  # after the product that reads the kernel
        return by_x, None, None, None, None


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: each stream would keep memory of its own."""
    return torch.cuda.Stream(device)


@contextmanager
def uploading(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """Copies to a GPU on a stream of their own, beside the training, and finished at the end.

    Yields a function to pass each tensor through: its memory is of the copying stream, and must not be used again
    before the training stream is through with it.
    """
    if device.type != "cuda":
        yield lambda tensor: tensor
        return
    training, copying = torch.cuda.current_stream(device), _copying_stream(device)

    def keep(tensor: Tensor) -> Tensor:
        tensor.record_stream(training)
        return tensor

    with torch.cuda.stream(copying):
        yield keep
    copying.synchronize()
