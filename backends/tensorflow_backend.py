"""NICE in TensorFlow: a `tf.Module`, `tf.GradientTape`, `tf.function`.

Modes: `graph`, one step a call; `xla`, the loop over steps inside one function that XLA compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from backends.architecture import Architecture, bias_name, kernel_name
from backends.interface import Backend
from backends.layout import Layout
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.values import EpochInputs, Pixels

LOG_TWO_PI = math.log(2 * math.pi)


class Flow(tf.Module):
    """The flow, on halves (a, b) as `Layout` orders them. Kernels are [in, out]."""

    def __init__(self, architecture: Architecture, layout: Layout, precision: str) -> None:
        super().__init__(name="flow")
        self.architecture, self.layout = architecture, layout
        self.product_dtype = tf.bfloat16 if precision == "bfloat16" else None
        dtype = tf.float64 if precision == "float64" else tf.float32
        self.p = {n: tf.Variable(tf.zeros(s, dtype)) for n, s in architecture.trainable_shapes.items()}

    # The coupling network ---------------------------------------------------------------------------------------

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        if self.product_dtype is None:
            return tf.matmul(a, b)
        return tf.cast(tf.matmul(tf.cast(a, self.product_dtype), tf.cast(b, self.product_dtype)), a.dtype)

    def dense(self, k: int, i: int, x: Tensor) -> Tensor:
        return tf.nn.bias_add(self.product(x, self.p[kernel_name(k, i)]), self.p[bias_name(k, i)])

    def network(self, k: int, x1: Tensor) -> Tensor:
        """m(x₁) of coupling k, [B, D/2] → [B, D/2]."""
        h = x1
        last = self.architecture.hidden_layers
        for i in range(last):
            h = tf.nn.relu(self.dense(k, i, h))
        h = self.dense(k, last, h)
        return tf.nn.relu(h) if self.architecture.output == "relu" else h

    # Encode, decode, density ------------------------------------------------------------------------------------

    def forward_halves(self, x: Tensor) -> Tensor:
        """x [B, D] → z [B, D] in the order of the layout's exit."""
        a, b = tf.split(tf.gather(x, self.layout.entry, axis=1), 2, axis=1)
        for k, step in enumerate(self.layout.steps):
            if step.regroup is not None:
                a, b = tf.split(tf.gather(tf.concat([a, b], axis=1), step.regroup, axis=1), 2, axis=1)
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(k, read)
            changed = changed - m if self.architecture.sign == "subtract" else changed + m
            a, b = (changed, read) if step.swap else (read, changed)
        return tf.concat([a, b], axis=1) * tf.exp(self.p["log_scale"])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = tf.gather(self.forward_halves(x), self.layout.exit_inverse, axis=1)
        return z, tf.broadcast_to(tf.reduce_sum(self.p["log_scale"]), tf.shape(x)[:1])

    def decode(self, z: Tensor) -> Tensor:
        a, b = tf.split(tf.gather(z, self.layout.exit, axis=1) * tf.exp(-self.p["log_scale"]), 2, axis=1)
        for k, step in reversed(list(enumerate(self.layout.steps))):
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(k, read)
            changed = changed + m if self.architecture.sign == "subtract" else changed - m
            a, b = (changed, read) if step.swap else (read, changed)
            if step.ungroup is not None:
                a, b = tf.split(tf.gather(tf.concat([a, b], axis=1), step.ungroup, axis=1), 2, axis=1)
        return tf.gather(tf.concat([a, b], axis=1), self.layout.entry_inverse, axis=1)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_prior(self.forward_halves(x)) + tf.reduce_sum(self.p["log_scale"])

    def log_prior(self, z: Tensor) -> Tensor:
        if self.architecture.prior == "gaussian":
            return -0.5 * (tf.reduce_sum(z * z, axis=1) + self.architecture.dim * LOG_TWO_PI)
        return tf.reduce_sum(tf.math.log_sigmoid(z) + tf.math.log_sigmoid(-z), axis=1)

    def total_log_prob(self, x: Tensor) -> Tensor:
        """Sum over the batch of log p(x), in nats: its gradient by x is the score of each row."""
        return tf.reduce_sum(self.log_prob(x))

    def loss(self, x: Tensor) -> Tensor:
        """Mean over the batch of −log p(x), in nats."""
        return -tf.reduce_mean(self.log_prob(x))


class TensorFlowBackend(Backend):
    """TensorFlow."""

    name = "tensorflow"
    modes = ("graph", "xla")

    # Devices, precision -----------------------------------------------------------------------------------------

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)  # no effect once it is set
        return ("cpu", "gpu") if gpus else ("cpu",)

    @classmethod
    def why_no_gpu(cls) -> str:
        if not tf.test.is_built_with_cuda():
            return f"tensorflow {tf.__version__} is a build without CUDA"
        return "TF_CPP_MIN_LOG_LEVEL=0 shows which CUDA library or driver it could not open"

    @classmethod
    def default_mode(cls, device: str) -> str:
        return "xla" if device == "gpu" else "graph"

    @classmethod
    def versions(cls) -> dict[str, str]:
        build = tf.sysconfig.get_build_info()
        found = {"tensorflow": tf.__version__, "cuda": build.get("cuda_version"), "cudnn": build.get("cudnn_version")}
        return {name: version for name, version in found.items() if version}

    def _activate(self) -> None:
        if self.device == "gpu":
            tf.config.experimental.enable_tensor_float_32_execution(self.precision == "tf32")

    @property
    def _tf_device(self) -> str:
        return f"/{self.device.upper()}:0"

    def _to_device(self, array: NDArray) -> Tensor:
        with tf.device(self._tf_device):
            return tf.identity(tf.convert_to_tensor(array))

    def _to_numpy(self, array: Tensor) -> NDArray:
        return array.numpy()

    def synchronise(self, result: Any = None) -> None:
        """Wait for all devices."""
        tf.test.experimental.sync_devices()

    def peak_memory(self) -> int | None:
        """The allocator's own peak."""
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "gpu" else None

    # Parameters and state ---------------------------------------------------------------------------------------

    def _load(self, arrays: Mapping[str, NDArray]) -> None:
        if not hasattr(self, "_flow"):
            with tf.device(self._tf_device):
                self._flow = Flow(self.architecture, self.layout, self.precision)
            self._call_encode = self._function(self._flow.encode)
            self._call_decode = self._function(self._flow.decode)
            self._call_log_prob = self._function(self._flow.log_prob)
            self._call_score = self._function(self._score_on_tape)
            self._call_product = self._function(self._flow.product)
            self._call_gradients = self._function(self._loss_and_gradients)
            self._call_sample = self._function(self._latents_decoded)
            self._draws = 0
        for name, array in arrays.items():
            self._flow.p[name].assign(array)

    def _function(self, function: Callable) -> Callable:
        return tf.function(function, jit_compile=self.mode == "xla", autograph=False)

    def _parameter_arrays(self) -> Mapping[str, tf.Variable]:
        return self._flow.p

    def _load_moments(self, moments: Mapping[str, Mapping[str, NDArray]]) -> None:
        if list(getattr(self, "_moments", {})) != list(moments):
            with tf.device(self._tf_device):
                self._moments = {m: {n: tf.Variable(a) for n, a in arrays.items()} for m, arrays in moments.items()}
        for moment, arrays in moments.items():
            for name, array in arrays.items():
                self._moments[moment][name].assign(array)

    def _moment_arrays(self, name: str) -> Mapping[str, tf.Variable]:
        return self._moments[name]

    def _exchange(self, moment: str) -> None:
        for name, p in self._flow.p.items():
            held = tf.identity(p)
            p.assign(self._moments[moment][name])
            self._moments[moment][name].assign(held)

    # Encode, decode, density, samples ---------------------------------------------------------------------------

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return self._call_product(a, b)

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._call_encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        return self._call_decode(z)

    def _log_prob(self, x: Tensor) -> Tensor:
        return self._call_log_prob(x)

    def _score(self, x: Tensor) -> Tensor:
        return self._call_score(x)

    def _score_on_tape(self, x: Tensor) -> Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = self._flow.total_log_prob(x)
        return tape.gradient(total, x)

    def _sample(self, n: int, temperature: float, seed: int) -> Tensor:
        with tf.device(self._tf_device):
            return self._call_sample(tf.constant([seed, 0], tf.int64), n, tf.constant(temperature, self.dtype))

    def _sample_batch(self, n: int, temperature: float) -> Tensor:
        self._draws += 1
        return self._sample(n, temperature, self._draws)

    def _latents_decoded(self, seed: Tensor, n: int, temperature: Tensor) -> Tensor:
        shape = (n, self.architecture.dim)
        if self.architecture.prior == "gaussian":
            latents = tf.random.stateless_normal(shape, seed, dtype=self.dtype)
        else:
            tiny = np.finfo(self.dtype).tiny
            u = tf.random.stateless_uniform(shape, seed, minval=tiny, maxval=1, dtype=self.dtype)
            latents = tf.math.log(u) - tf.math.log1p(-u)
        return self._flow.decode(latents * temperature)

    # The loss and its gradient ----------------------------------------------------------------------------------

    def _gradients(self, x: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        return self._call_gradients(x)

    def _loss_and_gradients(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with tf.GradientTape() as tape:
            loss = self._flow.loss(x)
        return loss, tape.gradient(loss, self._flow.p)

    def _pixels_to_x(self, images: Tensor, noise: Tensor | None) -> Tensor:
        x = tf.cast(images, self.dtype) * self._pixels.scale
        if noise is None:
            return x
        u = (tf.cast(noise, self.dtype) + 0.5) * 2.0**-16
        return x + self._pixels.noise * u

    # Optimisers -------------------------------------------------------------------------------------------------

    def _make_update(self, optimiser: Optimiser) -> Callable[[Mapping[str, Tensor], Tensor], None]:
        """A function that applies the gradients, given the step's row of the schedule."""
        rules: dict[type, Callable] = {Adam: adam, AdamW: adamw, RMSProp: rmsprop}
        rule = partial(rules[type(optimiser)], optimiser)
        moments = [self._moments[moment] for moment in optimiser.moments]

        def update(gradients: Mapping[str, Tensor], row: Tensor) -> None:
            with tf.name_scope("optimiser"):
                for name, p in self._flow.p.items():
                    rule(p, gradients[name], *(moment[name] for moment in moments), row)

        return update

    # Training ---------------------------------------------------------------------------------------------------

    def _upload_images(self, images: NDArray[np.uint8]) -> Tensor:
        # Two bytes as one number of a type that can be gathered on a GPU: bytes would go to the host for it, all of
        # them in every step. (D is even.)
        return self._to_device(np.ascontiguousarray(images).view(np.float16))

    def _rows(self, order: Tensor) -> Tensor:
        """Rows of the images, [B] → uint8 [B, D]."""
        pairs = tf.bitcast(tf.gather(self._images, order), tf.uint8)
        return tf.reshape(pairs, (-1, self.architecture.dim))

    def _upload(self, inputs: EpochInputs, schedule: NDArray) -> tuple[Tensor, Tensor | None, Tensor]:
        noise = None if inputs.noise is None else self._to_device(inputs.noise)
        return self._to_device(inputs.order), noise, self._to_device(schedule)

    def _start_training(self, images: Tensor, optimiser: Optimiser, pixels: Pixels) -> None:
        self._images, self._pixels = images, pixels
        update = self._make_update(optimiser)

        def step(inputs: Any, i: Tensor, losses: Tensor) -> Tensor:
            order, noise, row = (None if t is None else t[i] for t in inputs)
            loss, gradients = self._loss_and_gradients(self._pixels_to_x(self._rows(order), noise))
            update(gradients, row)
            return tf.tensor_scatter_nd_update(losses, [[i]], [loss])

        def loop(inputs: Any, steps: Tensor | int, losses: Tensor) -> Tensor:
            i = tf.constant(0)
            return tf.while_loop(
                lambda i, losses: i < steps, lambda i, losses: (i + 1, step(inputs, i, losses)), [i, losses]
            )[1]

        self._train_function = self._function(loop if self.mode == "xla" else step)

    def _compile(self, inputs: tuple[Tensor, Tensor | None, Tensor]) -> None:
        self._try_one_step(inputs)

    def _run_steps(self, inputs: tuple[Tensor, Tensor | None, Tensor], steps: int) -> Tensor:
        with tf.device(self._tf_device):
            losses = tf.zeros(len(inputs[0]), self.dtype)
            if self.mode == "xla":
                # A number that the compiler knows spares a GPU's loop a question to the host in every step.
                count = len(inputs[0]) if self.device == "gpu" else tf.constant(steps)
                return self._train_function(inputs, count, losses)[:steps]
            for i in range(steps):
                losses = self._train_function(inputs, tf.constant(i), losses)
            return losses[:steps]


def adam(
    optimiser: Adam | AdamW,
    p: tf.Variable,
    g: Tensor,
    m: tf.Variable,
    v: tf.Variable,
    row: Tensor,
    rate: Tensor | None = None,
) -> None:
    """One parameter and its moments, in place; row holds the two bias corrections c₁ = 1/(1 − β₁ᵗ), c₂.

    TensorFlow's fused kernel adds its ε to √v, not to √v̂. Given ε/√c₂ and lr · c₁/√c₂, with its own correction off
    (powers of β of 0), it computes lr · m c₁/(√(v c₂) + ε). `rate` is lr where it varies.
    """
    lr = optimiser.learning_rate if rate is None else rate
    root = tf.sqrt(row[1])
    zero = tf.zeros((), p.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=p.handle,
        m=m.handle,
        v=v.handle,
        beta1_power=zero,
        beta2_power=zero,
        lr=lr * row[0] / root,
        beta1=tf.constant(optimiser.beta1, p.dtype),
        beta2=tf.constant(optimiser.beta2, p.dtype),
        epsilon=optimiser.epsilon / root,
        grad=g,
    )


def adamw(
    optimiser: AdamW, p: tf.Variable, g: Tensor, m: tf.Variable, v: tf.Variable, average: tf.Variable, row: Tensor
) -> None:
    """One parameter, its moments and its average, in place; row holds the learning rate and the bias corrections."""
    decay = optimiser.decay if len(p.shape) == 2 else 0.0  # kernels alone
    p.assign_sub(row[0] * decay * p)
    adam(optimiser, p, g, m, v, row[1:], row[0])
    average.assign_add((1 - optimiser.average) * (p - average))


def rmsprop(optimiser: RMSProp, p: tf.Variable, g: Tensor, r: tf.Variable, v: tf.Variable, row: Tensor) -> None:
    """One parameter and its moments, in place; row holds the learning rate and the momentum."""
    r.assign(optimiser.rho * r + (1 - optimiser.rho) * g * g)
    v.assign(row[1] * v - row[0] * g / tf.maximum(tf.sqrt(r), optimiser.floor))
    p.assign_add(v)
