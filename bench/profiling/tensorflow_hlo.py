"""What TensorFlow hands to XLA, for jax_compiled.py to compile: `python -m bench.profiling.tensorflow_hlo FOLDER`.

TensorFlow compiles for a device that is there only, but what it asks of XLA doesn't depend on one.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from backends import Adam, Architecture, EpochInputs, Pixels
from bench.profiling.jax_compiled import BATCH, IMAGES, PRECISIONS, SAMPLES


def programs(precision: str) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield the name, the compiled function and the arguments of an epoch of training, encode and sample."""
    import tensorflow as tf

    from backends.tensorflow_backend import TensorFlowBackend

    class Described(TensorFlowBackend):
        """The backend with the precisions that it has on a GPU."""

        @classmethod
        def precisions(cls, device: str) -> tuple[str, ...]:
            return PRECISIONS

    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    architecture, optimiser, steps = Architecture.article(), Adam(), IMAGES // BATCH
    zeros = {name: np.zeros(shape, np.float32) for name, shape in architecture.trainable_shapes.items()}
    model = Described(architecture, zeros, device="cpu", precision=precision, mode="xla")
    model._set_moments(dict.fromkeys(optimiser.moments, zeros))
    training = model._training(np.zeros((IMAGES, architecture.dim), np.uint8), optimiser, Pixels(1 / 255))
    order, schedule = np.zeros((steps, BATCH), np.int32), np.zeros((steps, 2), np.float32)
    inputs = training.upload(EpochInputs(order, None), schedule)
    epoch = model._function(lambda inputs, losses: training._loop(inputs, steps, losses))
    yield "epoch", epoch, (inputs, tf.zeros(steps))
    yield "encode", model._function(model.flow.encode), (tf.zeros((BATCH, architecture.dim)),)
    sample = model._function(lambda seed, temperature: model._decode_latents(seed, SAMPLES, temperature))
    yield "sample", sample, (tf.constant([1, 0], tf.int64), tf.constant(0.8))


def main() -> int:
    """Write each program at each precision into the folder that is named, as a serialised HLO module."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    for precision in PRECISIONS:
        for what, function, arguments in programs(precision):
            hlo = function.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
            Path(sys.argv[1], f"{what}-{precision}.hlo").write_bytes(hlo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
