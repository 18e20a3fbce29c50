"""NICE in TensorFlow: a `tf.Module`, `tf.GradientTape`, `tf.function`.

Modes: `graph`, one step a call; `xla`, the loop over steps inside one function that XLA compiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from backends.architecture import Architecture, bias_name, kernel_name
from backends.hooks import Functions, Training
from backends.interface import Backend
from backends.layout import Layout
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.tensorflow_strategies import strategy_of, strategy_over_nodes, synchronise
from backends.values import EpochInputs, Nodes, Pixels

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
    parallel_modes, over_nodes = ("graph",), True
    workloads = "bench.measures.floor.tensorflow_workloads"
    profiler = "bench.profiling.tensorflow_trace"

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
    def cuda(cls) -> str | None:
        return tf.sysconfig.get_build_info().get("cuda_version")

    @classmethod
    def default_mode(cls, device: str) -> str:
        return "xla" if device == "gpu" else "graph"

    @classmethod
    def offer_cpus(cls, count: int) -> None:
        with suppress(RuntimeError):  # TensorFlow has started: it has as many as it has
            cpu = tf.config.list_physical_devices("CPU")[0]
            most = max(count, len(tf.config.get_logical_device_configuration(cpu) or []))
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * most)

    @classmethod
    def join(cls, nodes: Nodes, device: str, local_replicas: int) -> None:
        strategy_over_nodes(nodes, local_replicas if device != "cpu" and "gpu" in cls.devices() else 0)

    @classmethod
    def replicas_on(cls, device: str) -> int:
        return len(tf.config.list_logical_devices(device.upper()))

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
        """Wait for all devices of this node."""
        synchronise(self.device, self.local_replicas) if self.nodes.several else tf.test.experimental.sync_devices()

    def peak_memory(self) -> int | None:
        """The allocator's own peak."""
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.device == "gpu" else None

    # Building, and the values of arrays --------------------------------------------------------------------------

    def _build(self) -> tuple[dict[str, tf.Variable], Functions]:
        self.strategy = strategy_of(self.name, self.device, self.replicas, self.nodes)
        with self._held():
            self.flow = flow = Flow(self.architecture, self.layout, self.precision)
        self._latents_decoded = self._function(self._decode_latents)
        self._draws = 0
        return flow.p, Functions(
            encode=self._function(flow.encode),
            decode=self._function(flow.decode),
            log_prob=self._function(flow.log_prob),
            score=self._function(self._score),
            gradients=self._function(self.gradients_on_tape),
            product=self._function(flow.product),
            sample=self._sample,
        )

    def _function(self, function: Callable) -> Callable:
        return tf.function(function, jit_compile=self.mode == "xla", autograph=False)

    def _zeros(self) -> dict[str, tf.Variable]:
        with self._held():
            return {name: tf.Variable(tf.zeros_like(p)) for name, p in self.flow.p.items()}

    def _held(self) -> AbstractContextManager[Any]:
        """Within it variables are made on the device, or on each of the replicas'."""
        return self.strategy.scope() if self.strategy else tf.device(self._tf_device)

    def _assign(self, held: dict[str, tf.Variable], arrays: Mapping[str, NDArray]) -> None:
        for name, array in arrays.items():
            held[name].assign(array)

    # Samples, the loss and its gradient ---------------------------------------------------------------------------

    def _sample(self, n: int, temperature: float, seed: int | None) -> Tensor:
        if seed is None:
            self._draws += 1
            seed = self._draws
        with tf.device(self._tf_device):
            return self._latents_decoded(tf.constant([seed, 0], tf.int64), n, tf.constant(temperature, self.dtype))

    def _decode_latents(self, seed: Tensor, n: int, temperature: Tensor) -> Tensor:
        shape = (n, self.architecture.dim)
        if self.architecture.prior == "gaussian":
            latents = tf.random.stateless_normal(shape, seed, dtype=self.dtype)
        else:
            tiny = np.finfo(self.dtype).tiny
            u = tf.random.stateless_uniform(shape, seed, minval=tiny, maxval=1, dtype=self.dtype)
            latents = tf.math.log(u) - tf.math.log1p(-u)
        return self.flow.decode(latents * temperature)

    def _score(self, x: Tensor) -> Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            total = self.flow.total_log_prob(x)
        return tape.gradient(total, x)

    def gradients_on_tape(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with tf.GradientTape() as tape:
            loss = self.flow.loss(x)
        return loss, tape.gradient(loss, self.flow.p)

    # For training and measuring -----------------------------------------------------------------------------------

    def _training(self, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> TensorFlowTraining:
        return TensorFlowTraining(self, images, optimiser, pixels)


class TensorFlowTraining(Training):
    """The training step: one a call, or the loop over an epoch's in one function."""

    def __init__(
        self, model: TensorFlowBackend, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels
    ) -> None:
        self._model, self._pixels = model, pixels
        # Two bytes as one number of a type that can be gathered on a GPU: bytes would go to the host for it, all of
        # them in every step. (D is even.)
        self._images = self._on_each(lambda part: np.ascontiguousarray(images).view(np.float16))
        self._update = self._make_update(optimiser)
        self._function = model._function(self._loop if model.mode == "xla" else self._step)

    def _on_each(self, array: Callable[[int], NDArray]) -> Any:
        """On the device, the array of replica 0; or on each of the replicas' devices that replica's."""
        model = self._model
        if model.strategy is None:
            return model._to_device(array(0))

        def of_replica(context: tf.distribute.ReplicaContext) -> Tensor:
            replica = context.replica_id_in_sync_group
            with tf.device(f"/{model.device.upper()}:{replica % model.local_replicas}"):
                return tf.identity(tf.convert_to_tensor(array(replica)))

        return model.strategy.experimental_distribute_values_from_function(of_replica)

    def _make_update(self, optimiser: Optimiser) -> Callable[[Mapping[str, Tensor], Tensor, int], None]:
        """A function that applies the gradients to a replica's variables, given the step's row of the schedule."""
        rules: dict[type, Callable] = {Adam: adam, AdamW: adamw, RMSProp: rmsprop}
        rule = partial(rules[type(optimiser)], optimiser)
        moments = [self._model._moments[moment] for moment in optimiser.moments]

        def update(gradients: Mapping[str, Tensor], row: Tensor, replica: int) -> None:
            local = tf.distribute.get_strategy().experimental_local_results
            with tf.name_scope("optimiser"):
                for name, p in self._model.flow.p.items():
                    p, *moments_of = (local(variable)[replica] for variable in (p, *(m[name] for m in moments)))
                    rule(p, gradients[name], *moments_of, row)

        return update

    def upload(self, inputs: EpochInputs, schedule: NDArray) -> tuple[Tensor, Tensor | None, Tensor]:
        size = inputs.order.shape[1] // self._model.replicas
        order, noise = inputs.order.astype(np.int64), inputs.noise  # as int32 it would stay in the host's memory
        return (
            self._on_each(lambda replica: order[:, replica * size : (replica + 1) * size]),
            None if noise is None else self._on_each(lambda replica: noise[:, replica * size : (replica + 1) * size]),
            self._on_each(lambda replica: schedule),
        )

    def _step(self, inputs: Any, i: Tensor, losses: Tensor) -> Tensor:
        strategy = self._model.strategy
        if strategy is None:
            loss = self._advance(self._images, inputs, i)
        else:
            each = strategy.run(self._advance, (self._images, inputs, i))
            loss = strategy.reduce(tf.distribute.ReduceOp.MEAN, each, axis=None)
        return tf.tensor_scatter_nd_update(losses, [[i]], [loss])

    def _advance(self, images: Tensor, inputs: Any, i: Tensor) -> Tensor:
        """Make step i, or a replica's part of it; its loss."""
        order, noise, row = (None if t is None else t[i] for t in inputs)
        loss, gradients = self._model.gradients_on_tape(self._pixels_to_x(self._rows(images, order), noise))
        replica = 0
        if self._model.strategy is not None:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
            replica = tf.get_static_value(context.replica_id_in_sync_group) % self._model.local_replicas
        self._update(gradients, row, replica)
        return loss

    def _loop(self, inputs: Any, steps: Tensor | int, losses: Tensor) -> Tensor:
        def body(i: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, self._step(inputs, i, losses)

        return tf.while_loop(lambda i, losses: i < steps, body, [tf.constant(0), losses])[1]

    def _rows(self, images: Tensor, order: Tensor) -> Tensor:
        """Rows of the images, [B] → uint8 [B, D]."""
        pairs = tf.bitcast(tf.gather(images, order), tf.uint8)
        return tf.reshape(pairs, (-1, self._model.architecture.dim))

    def _pixels_to_x(self, images: Tensor, noise: Tensor | None) -> Tensor:
        dtype = self._model.dtype
        x = tf.cast(images, dtype) * self._pixels.scale
        if noise is None:
            return x
        u = (tf.cast(noise, dtype) + 0.5) * 2.0**-16
        return x + self._pixels.noise * u

    def run(self, inputs: tuple[Tensor, Tensor | None, Tensor], steps: int) -> Tensor:
        with self._model._held():
            all_steps = len(tf.distribute.get_strategy().experimental_local_results(inputs[0])[0])
            losses = tf.zeros(all_steps, self._model.dtype)
            if self._model.mode == "xla":
                # A number that the compiler knows spares a GPU's loop a question to the host in every step.
                count = all_steps if self._model.device == "gpu" else tf.constant(steps)
                return self._function(inputs, count, losses)[:steps]
            for i in range(steps):
                losses = self._function(inputs, tf.constant(i), losses)
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
