"""NICE in JAX: pure functions over a dictionary of arrays, `jax.grad`, `jax.jit`.

Modes: `scan`, the steps of an epoch inside one compiled function; `jit`, one step a call. Buffers are donated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from backends.architecture import Architecture, Index, bias_name, kernel_name
from backends.choices import first_line
from backends.hooks import Functions, Training
from backends.interface import Backend
from backends.layout import Layout
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.values import EpochInputs, Nodes, Pixels

LOG_TWO_PI = math.log(2 * math.pi)
# On a GPU. An epoch of article in TF32 on an H100 took 0.469 s without these, 0.395 s with both, and 0.543 s with the
# kernels side by side alone.
UNROLLED_STEPS = 4
LONGEST_WAIT_SECONDS = 24 * 3600
SIDE_BY_SIDE = {"xla_gpu_command_buffer_scheduling_mode": "CONCURRENT"}

Tree = dict[str, Array]


class Flow:
    """The flow, on halves (a, b) as `Layout` orders them. Kernels are [in, out]. Holds no parameters."""

    def __init__(self, architecture: Architecture, layout: Layout, precision: str) -> None:
        self.architecture, self.layout = architecture, layout
        self.product_dtype = jnp.bfloat16 if precision == "bfloat16" else None
        # "default" is TF32 of float32 on a GPU that has it; where more is wanted, ask for all that the dtype has.
        lower = precision in ("tf32", "bfloat16")
        self.product_precision = jax.lax.Precision.DEFAULT if lower else jax.lax.Precision.HIGHEST

    # The coupling network ---------------------------------------------------------------------------------------

    def product(self, a: Array, b: Array) -> Array:
        if self.product_dtype is None:
            return jnp.matmul(a, b, precision=self.product_precision)
        low = self.product_dtype
        product = jnp.matmul(a.astype(low), b.astype(low), precision=self.product_precision)
        return product.astype(a.dtype)

    def dense(self, p: Tree, k: int, i: int, x: Array) -> Array:
        return self.product(x, p[kernel_name(k, i)]) + p[bias_name(k, i)][None, :]

    def network(self, p: Tree, k: int, x1: Array) -> Array:
        """m(x₁) of coupling k, [B, D/2] → [B, D/2]."""
        h = x1
        last = self.architecture.hidden_layers
        for i in range(last):
            h = jax.nn.relu(self.dense(p, k, i, h))
        h = self.dense(p, k, last, h)
        return jax.nn.relu(h) if self.architecture.output == "relu" else h

    # Encode, decode, density ------------------------------------------------------------------------------------

    def forward_halves(self, p: Tree, x: Array) -> Array:
        """x [B, D] → z [B, D] in the order of the layout's exit."""
        a, b = jnp.split(columns(x, self.layout.entry), 2, axis=1)
        for k, step in enumerate(self.layout.steps):
            if step.regroup is not None:
                a, b = jnp.split(columns(jnp.concatenate([a, b], axis=1), step.regroup), 2, axis=1)
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(p, k, read)
            changed = changed - m if self.architecture.sign == "subtract" else changed + m
            a, b = (changed, read) if step.swap else (read, changed)
        return jnp.concatenate([a, b], axis=1) * jnp.exp(p["log_scale"])[None, :]

    def encode(self, p: Tree, x: Array) -> tuple[Array, Array]:
        z = columns(self.forward_halves(p, x), self.layout.exit_inverse)
        return z, jnp.broadcast_to(p["log_scale"].sum(), (len(x),))

    def decode(self, p: Tree, z: Array) -> Array:
        a, b = jnp.split(columns(z, self.layout.exit) * jnp.exp(-p["log_scale"])[None, :], 2, axis=1)
        for k, step in reversed(list(enumerate(self.layout.steps))):
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(p, k, read)
            changed = changed + m if self.architecture.sign == "subtract" else changed - m
            a, b = (changed, read) if step.swap else (read, changed)
            if step.ungroup is not None:
                a, b = jnp.split(columns(jnp.concatenate([a, b], axis=1), step.ungroup), 2, axis=1)
        return columns(jnp.concatenate([a, b], axis=1), self.layout.entry_inverse)

    def log_prob(self, p: Tree, x: Array) -> Array:
        return self.log_prior(self.forward_halves(p, x)) + p["log_scale"].sum()

    def log_prior(self, z: Array) -> Array:
        if self.architecture.prior == "gaussian":
            return -0.5 * ((z * z).sum(axis=1) + self.architecture.dim * LOG_TWO_PI)
        return (jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)).sum(axis=1)

    def total_log_prob(self, p: Tree, x: Array) -> Array:
        """Sum over the batch of log p(x), in nats: its gradient by x is the score of each row."""
        return self.log_prob(p, x).sum()

    def loss(self, p: Tree, x: Array) -> Array:
        """Mean over the batch of −log p(x), in nats."""
        return -self.log_prob(p, x).mean()


class JaxBackend(Backend):
    """JAX."""

    name = "jax"
    modes = parallel_modes = ("scan", "jit")
    over_nodes = True
    workloads = "bench.measures.floor.jax_workloads"
    profiler = "bench.profiling.jax_trace"

    # Devices, precision -----------------------------------------------------------------------------------------

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu", "gpu") if jax.default_backend() == "gpu" else ("cpu",)

    @classmethod
    def why_no_gpu(cls) -> str:
        try:
            jax.devices("gpu")
        except Exception as error:
            return first_line(error)
        return ""

    @classmethod
    def cuda(cls) -> str | None:
        return next((release for release in ("13", "12") if find_spec(f"jax_cuda{release}_plugin")), None)

    @classmethod
    def offer_cpus(cls, count: int) -> None:
        with suppress(RuntimeError):  # JAX has started: it has as many as it has
            jax.config.update("jax_num_cpu_devices", max(count, jax.config.jax_num_cpu_devices))

    @classmethod
    def join(cls, nodes: Nodes, device: str, local_replicas: int) -> None:
        if not jax.distributed.is_initialized():
            cls.offer_cpus(local_replicas)
            place = (nodes.addresses[0], len(nodes.addresses), nodes.rank)
            # At the end each waits for the others, which may still be measuring.
            jax.distributed.initialize(
                *place, cluster_detection_method="deactivate", shutdown_timeout_seconds=LONGEST_WAIT_SECONDS
            )

    @classmethod
    def replicas_on(cls, device: str) -> int:
        return len(jax.local_devices(backend=device))

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}

    def _activate(self) -> None:
        if self.precision == "float64":
            jax.config.update("jax_enable_x64", True)

    def placed(self, *axes: str | None, everywhere: bool = False) -> jax.Device | NamedSharding:
        """Where an array lies: whole on each device, or divided along the axis that is called "batch".

        The devices are those of this node, or with `everywhere` those of all nodes.
        """
        ranks = range(len(self.nodes.addresses)) if everywhere else [jax.process_index()]
        of_ranks = [jax.local_devices(rank, self.device)[: self.local_replicas] for rank in ranks]
        devices = [device for of_rank in of_ranks for device in of_rank]
        if self.replicas == 1:
            return devices[0]
        return NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec(*axes))

    def _moved(self, array: Array, *, everywhere: bool) -> Array:
        """An array that is whole on each device, as one of all nodes or of this one alone; nothing is copied."""
        if not self.nodes.several:
            return array
        parts = [part.data for part in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, self.placed(everywhere=everywhere), parts)

    def _divided(self, array: NDArray) -> Array:
        """An array with its second axis divided among all devices."""
        place = self.placed(None, "batch", everywhere=True)
        if not self.nodes.several:
            return jax.device_put(array, place)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    def _to_device(self, array: NDArray) -> Array:
        # A copy on a CPU, where the array would otherwise share its memory with NumPy, and be donated and overwritten.
        return jax.device_put(array.copy() if self.device == "cpu" else array, self.placed())

    def _to_numpy(self, array: Array) -> NDArray:
        return np.array(array)

    def synchronise(self, result: Any = None) -> None:
        """Wait for `result`."""
        jax.block_until_ready(result)

    def peak_memory(self) -> int | None:
        """The allocator's own peak."""
        first = jax.local_devices(backend=self.device)[0]
        return (first.memory_stats() or {}).get("peak_bytes_in_use") if self.device == "gpu" else None

    # Building, and the values of arrays --------------------------------------------------------------------------

    def _build(self) -> tuple[Tree, Functions]:
        self.flow = flow = Flow(self.architecture, self.layout, self.precision)
        weights = self._zeros()

        def with_weights(function: Callable) -> Callable:
            return lambda x: function(weights, x)

        self._latents_decoded = jax.jit(self._decode_latents, static_argnums=2)
        self._draws = 0
        return weights, Functions(
            encode=with_weights(jax.jit(flow.encode)),
            decode=with_weights(jax.jit(flow.decode)),
            log_prob=with_weights(jax.jit(flow.log_prob)),
            score=with_weights(jax.jit(jax.grad(flow.total_log_prob, argnums=1))),
            gradients=with_weights(jax.jit(jax.value_and_grad(flow.loss))),
            product=jax.jit(flow.product),
            sample=self._sample,
        )

    def _zeros(self) -> Tree:
        shapes = self.architecture.trainable_shapes
        return {name: self._to_device(np.zeros(shape, self.dtype)) for name, shape in shapes.items()}

    def _assign(self, held: Tree, arrays: Mapping[str, NDArray]) -> None:
        held.update((name, self._to_device(array)) for name, array in arrays.items())

    # Samples ------------------------------------------------------------------------------------------------------

    def _sample(self, n: int, temperature: float, seed: int | None) -> Array:
        if seed is None:
            self._draws += 1
            seed = self._draws
        return self._latents_decoded(self._weights, np.uint32(seed), n, temperature)

    def _decode_latents(self, p: Tree, seed: Array, n: int, temperature: float) -> Array:
        draw = jax.random.normal if self.architecture.prior == "gaussian" else jax.random.logistic
        latents = draw(jax.random.key(seed), (n, self.architecture.dim), self.dtype)
        return self.flow.decode(p, latents * temperature)

    # For training and measuring -----------------------------------------------------------------------------------

    def _training(self, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> JaxTraining:
        return JaxTraining(self, images, optimiser, pixels)


class JaxTraining(Training):
    """The training step: one a call, or the scan over an epoch's in one function."""

    def __init__(self, model: JaxBackend, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> None:
        self._model, self._pixels = model, pixels
        self._images = self._everywhere(model._to_device(images))
        self._update = self._make_update(optimiser)
        gpu, scan = model.device == "gpu", model.mode == "scan"
        self.trial_step = gpu or not scan  # on a CPU an epoch takes too long to be made only to be undone
        self._unroll = UNROLLED_STEPS if gpu else 1
        options = SIDE_BY_SIDE if gpu and scan else None
        function = self._scan if scan else self._step
        # Whole on every device, so that it can come in again.
        whole = model.placed(everywhere=True) if model.replicas > 1 else None
        self._function = jax.jit(function, donate_argnums=0, out_shardings=whole, compiler_options=options)

    def _everywhere(self, arrays: Any) -> Any:
        """Arrays of this node as arrays of all nodes."""
        return jax.tree.map(partial(self._model._moved, everywhere=True), arrays)

    def _make_update(self, optimiser: Optimiser) -> Callable[[Tree, Tree, dict[str, Tree], Array], Any]:
        """A function from parameters, gradients, moments and the step's row of the schedule to new ones."""
        rules: dict[type, Callable] = {Adam: adam, AdamW: adamw, RMSProp: rmsprop}
        rule = partial(rules[type(optimiser)], optimiser)

        def update(p: Tree, g: Tree, moments: dict[str, Tree], row: Array) -> tuple[Tree, dict[str, Tree]]:
            new = {name: rule(p[name], g[name], *(moments[m][name] for m in optimiser.moments), row) for name in p}
            new_p, *new_moments = ({name: new[name][j] for name in p} for j in range(1 + len(optimiser.moments)))
            return new_p, dict(zip(optimiser.moments, new_moments, strict=True))

        return update

    def upload(self, inputs: EpochInputs, schedule: NDArray) -> tuple[Array, Array | None, Array]:
        divided = self._model._divided
        noise = None if inputs.noise is None else divided(inputs.noise)
        return divided(inputs.order), noise, self._everywhere(self._model._to_device(schedule))

    def compile(self, inputs: tuple[Array, Array | None, Array]) -> None:
        model = self._model
        first = inputs if model.mode == "scan" else jax.tree.map(itemgetter(0), inputs)
        carry = self._everywhere((model._weights, model._moments))
        self._compiled = self._function.lower(carry, first, self._images).compile()
        if model.mode == "jit":  # an epoch's losses are put together at its end, by what is compiled for so many
            loss = self._everywhere(model._to_device(np.zeros((), model.dtype)))
            jax.block_until_ready(jnp.stack([loss] * len(inputs[0])))

    def _step(self, carry: Any, inputs: Any, images: Array) -> tuple[Any, Array]:
        p, moments = carry
        order, noise, row = inputs
        x = self._pixels_to_x(images[order], noise)
        loss, gradients = jax.value_and_grad(self._model.flow.loss)(p, x)
        return self._update(p, gradients, moments, row), loss

    def _scan(self, carry: Any, inputs: Any, images: Array) -> tuple[Any, Array]:
        return jax.lax.scan(partial(self._step, images=images), carry, inputs, unroll=self._unroll)

    def _pixels_to_x(self, images: Array, noise: Array | None) -> Array:
        dtype = self._model.dtype
        x = images.astype(dtype) * self._pixels.scale
        if noise is None:
            return x
        u = (noise.astype(dtype) + 0.5) * 2.0**-16
        return x + self._pixels.noise * u

    def run(self, inputs: tuple[Array, Array | None, Array], steps: int) -> Array:
        carry: Any = self._everywhere((self._model._weights, self._model._moments))
        if self._model.mode == "scan":
            carry, losses = self._compiled(carry, inputs, self._images)
        else:
            each = []
            for i in range(steps):
                carry, loss = self._compiled(carry, jax.tree.map(itemgetter(i), inputs), self._images)
                each.append(loss)
            losses = jnp.stack(each)
        weights, moments = jax.tree.map(partial(self._model._moved, everywhere=False), carry)
        self._model._weights.update(weights)
        for name, moment in moments.items():
            self._model._moments[name].update(moment)
        return losses


def columns(x: Array, index: Index) -> Array:
    """x[:, index], with indices whose dtype doesn't change when another model of the process switches to 64 bits."""
    return x.at[:, index.astype(np.int32)].get(mode="promise_in_bounds", wrap_negative_indices=False)


@jax.named_scope("optimiser")
def adam(
    optimiser: Adam | AdamW, p: Array, g: Array, m: Array, v: Array, row: Array, rate: Array | None = None
) -> tuple[Array, Array, Array]:
    """One parameter's new value and moments; row holds the two bias corrections; rate is lr where it varies."""
    lr = optimiser.learning_rate if rate is None else rate
    m = optimiser.beta1 * m + (1 - optimiser.beta1) * g
    v = optimiser.beta2 * v + (1 - optimiser.beta2) * g * g
    return p - lr * (m * row[0]) / (jnp.sqrt(v * row[1]) + optimiser.epsilon), m, v


@jax.named_scope("optimiser")
def adamw(
    optimiser: AdamW, p: Array, g: Array, m: Array, v: Array, average: Array, row: Array
) -> tuple[Array, Array, Array, Array]:
    """One parameter's new value, moments and average; row holds the learning rate and the two bias corrections."""
    decay = optimiser.decay if p.ndim == 2 else 0.0  # kernels alone
    p, m, v = adam(optimiser, p - row[0] * decay * p, g, m, v, row[1:], row[0])
    return p, m, v, average + (1 - optimiser.average) * (p - average)


@jax.named_scope("optimiser")
def rmsprop(optimiser: RMSProp, p: Array, g: Array, r: Array, v: Array, row: Array) -> tuple[Array, Array, Array]:
    """One parameter's new value and moments; row holds the learning rate and the momentum."""
    r = optimiser.rho * r + (1 - optimiser.rho) * g * g
    v = row[1] * v - row[0] * g / jnp.maximum(jnp.sqrt(r), optimiser.floor)
    return p + v, r, v
