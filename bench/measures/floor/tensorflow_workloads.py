"""The workloads of a floor in TensorFlow: products, a chain of them, memory that is moved, and gradients reduced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from backends import Backend
from backends.tensorflow_backend import TensorFlowBackend
from bench.measures.floor.chain import chain, sizes


def products(model: Backend, shapes: Sequence[tuple[int, int, int]]) -> Callable[[], Any]:
    """Return a call that makes products of the shapes (m, k, n), each on operands of its own."""
    operands = [[_full(model, shape, 0.5) for shape in ((m, k), (k, n))] for m, k, n in shapes]
    return _bare(model, lambda: [tf.matmul(a, b) for a, b in operands])


def chained(model: Backend, batch: int) -> Callable[[], Any]:
    """Return a call that makes the products of a training step as a chain."""
    kernels = [_full(model, size, 1 / size[0]) for size in sizes(model.architecture)]
    x = _full(model, (batch, model.architecture.half), 0.5)
    return _bare(model, lambda: chain(x, kernels, tf.matmul, tf.transpose))


def memory(model: Backend, size: int) -> Callable[[], Any]:
    """Return a call that moves 2 · `size` bytes, adding to float32 numbers in place."""
    count = size // 6  # three passes over memory to the others' two: what is added has to be an array of its own
    with tf.device(_device(model)):
        numbers, ones = tf.Variable(tf.zeros(count, tf.float32)), tf.ones((count,))
    return lambda: numbers.assign_add(ones)


@contextmanager
def reducing(model: TensorFlowBackend, calls: int) -> Iterator[Callable[[], Any]]:
    """Within it, a call that sums a step's gradients, in one array, over the devices; it is made `calls` times."""
    strategy: Any = model.strategy
    with strategy.scope():
        gradients = tf.Variable(tf.ones(model.architecture.trainable_count, model.dtype))

    def of_replica() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients.read_value())

    run = tf.function(lambda: strategy.run(of_replica), autograph=False)
    yield lambda: strategy.experimental_local_results(run())


def _bare(model: Backend, call: Callable[[], Any]) -> Callable[[], Any]:
    """Return `call`, on a GPU in one dispatch whatever the mode: a floor is the hardware's, not that of launches."""
    return tf.function(call, jit_compile=model.device == "gpu" or model.mode == "xla", autograph=False)


def _full(model: Backend, shape: tuple[int, int], value: float) -> tf.Variable:
    dtype = tf.bfloat16 if model.precision == "bfloat16" else model.dtype
    with tf.device(_device(model)):
        return tf.Variable(tf.fill(shape, tf.constant(value, dtype)))


def _device(model: Backend) -> str:
    return f"/{model.device.upper()}:0"
