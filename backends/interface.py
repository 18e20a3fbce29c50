"""The interface that every backend implements.

NumPy arrays go in and come out; device arrays stay inside. `Backend` holds everything that has nothing to do with a
framework: checking, the loop over epochs with the next epoch's inputs made meanwhile, the clock. A framework's file
fills in the hooks under "What a framework fills in", and a `Training`; both deal in device arrays.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.architecture import Architecture
from backends.choices import PRECISIONS, choose, choose_device, choose_replicas
from backends.framework import Framework
from backends.hooks import DeviceArray, DeviceArrays, Functions, Training
from backends.layout import from_layout, make_layout, to_layout
from backends.optimisers import AVERAGE, Optimiser
from backends.parameters import ParameterError, Parameters, check, check_arrays, dtype_of
from backends.values import THIS_NODE, EpochReport, Nodes, Pixels, Stream, TrainingState


class Backend(Framework):
    """A NICE flow in one framework. See `backends.create`.

    Attributes:
        architecture: the flow.
        device: "cpu" or "gpu".
        precision: as asked for.
        mode: how the framework runs it, one of `modes`.
        replicas: how many devices train side by side, each on its part of every batch.
        nodes: the machines that have these devices.
        local_replicas: how many of the devices are of this node.
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: Mapping[str, ArrayLike],
        *,
        device: str = "auto",
        precision: str = "float32",
        mode: str | None = None,
        replicas: int = 1,
        nodes: Nodes = THIS_NODE,
    ) -> None:
        given = {name: np.asarray(array) for name, array in parameters.items()}
        check(architecture, given)
        self.architecture = architecture
        self.replicas, self.nodes = replicas, nodes
        self.local_replicas, left = divmod(replicas, len(nodes.addresses))
        if left:
            raise ValueError(f"devices is {replicas}, which {len(nodes.addresses)} nodes can't share evenly")
        if nodes.several:
            self.join(nodes, device, self.local_replicas)
        elif replicas > 1:
            self.offer_cpus(replicas)
        self.device = on = choose_device(self.name, device, self.devices(), self.why_no_gpu)
        choose_replicas(self.name, on, self.local_replicas, self.replicas_on(on) if replicas > 1 else 1)
        self.precision = choose(self.name, "precision", precision, PRECISIONS, self.precisions(on), on)
        modes = self.modes_on(on) if replicas == 1 else self.parallel_modes
        mode = mode or (self.default_mode(on) if replicas == 1 else modes[0])
        self.mode = choose(self.name, "mode", mode, self.modes, modes, on)
        self.dtype = np.dtype(dtype_of(precision))
        self._given_dtype = given["log_scale"].dtype
        self._fixed = {name: array.copy() for name, array in given.items() if name.endswith(".permutation")}
        self.layout = make_layout(architecture, given)
        self._step = 0
        self._moments: dict[str, DeviceArrays] = {}
        self._activate()
        self._weights, self._functions = self._build()
        self._assign(self._weights, self._laid_out(given))

    # The flow ---------------------------------------------------------------------------------------------------

    def encode(self, x: ArrayLike) -> tuple[NDArray, NDArray]:
        """The encoder z = f(x).

        Args:
            x: floating point [B, D].

        Returns:
            z [B, D] and log|det ∂z/∂x| [B].
        """
        z, log_det = self._functions.encode(self._input(x))
        return self._to_numpy(z), self._to_numpy(log_det)

    def decode(self, z: ArrayLike) -> NDArray:
        """The generator x = f⁻¹(z), [B, D] → [B, D]."""
        return self._to_numpy(self._functions.decode(self._input(z)))

    def log_prob(self, x: ArrayLike) -> NDArray:
        """log p(x) in nats, floating point [B, D] → [B]; arXiv 1410.8516, equation 2."""
        return self._to_numpy(self._functions.log_prob(self._input(x)))

    def score(self, x: ArrayLike) -> NDArray:
        """The score ∇ₓ log p(x) of each row, in nats per unit of x, floating point [B, D] → [B, D]."""
        return self._to_numpy(self._functions.score(self._input(x)))

    def sample(self, n: int, *, temperature: float = 1.0, seed: int = 0) -> NDArray:
        """Samples [n, D]: latents from the prior times `temperature`, by the device's own generator, decoded."""
        if n < 1 or not 0 <= temperature < np.inf:
            raise ValueError(f"sample: n is {n}, temperature {temperature}; expected n ≥ 1 and temperature ≥ 0")
        if not 0 <= seed < 2**32:
            raise ValueError(f"sample: seed is {seed}; expected 0 ≤ seed < 2**32")
        self._activate()
        return self._to_numpy(self._functions.sample(n, temperature, seed))

    def gradients(self, x: ArrayLike) -> tuple[float, Parameters]:
        """The loss, mean of −log p(x) over [B, D], and its gradient by every trainable parameter, canonical."""
        loss, arrays = self._functions.gradients(self._input(x))
        return float(self._to_numpy(loss)), self._canonical(arrays)

    def _input(self, x: ArrayLike) -> DeviceArray:
        array = np.asarray(x)
        if array.ndim != 2 or array.shape[1] != self.architecture.dim or array.shape[0] == 0:
            raise ValueError(f"input has shape {array.shape}; expected [B, {self.architecture.dim}] with B ≥ 1")
        if array.dtype.kind != "f":
            raise ValueError(f"input has dtype {array.dtype}; expected floating point (scale bytes first)")
        self._activate()
        return self._to_device(np.ascontiguousarray(array, dtype=self.dtype))

    # Parameters and state ---------------------------------------------------------------------------------------

    def parameters(self) -> Parameters:
        """Canonical parameters, in the dtype in which they were given; bit for bit the given ones if untrained."""
        arrays = self._canonical(self._weights)
        return {name: array.astype(self._given_dtype, copy=False) for name, array in arrays.items()} | {
            name: array.copy() for name, array in self._fixed.items()
        }

    def training_state(self) -> TrainingState:
        """Parameters, moments and step count as NumPy arrays; any backend can `resume` from it."""
        arrays = self._canonical(self._weights) | {name: array.copy() for name, array in self._fixed.items()}
        moments = {name: self._canonical(held) for name, held in self._moments.items()}
        return TrainingState(arrays, moments, self._step)

    def resume(self, state: TrainingState) -> None:
        """Go on from a state, of this or of another backend, as if training had not stopped.

        Raises:
            ParameterError: the state doesn't fit the architecture or the precision.
        """
        check(self.architecture, state.parameters, source="training state")
        for name, array in self._fixed.items():
            if not np.array_equal(array, state.parameters[name]):
                raise ParameterError(f"training state: {name} differs from this model's")
        for name, moment in state.moments.items():
            check_arrays(self.architecture.trainable_shapes, moment, source=f"training state, {name}")
        if state.step < 0 or (state.step > 0) != bool(state.moments):
            raise ParameterError(f"training state: step {state.step} with moments {list(state.moments)}")
        self._activate()
        self._assign(self._weights, self._laid_out(state.parameters))
        self._set_moments({name: self._laid_out(moment) for name, moment in state.moments.items()})
        self._step = state.step

    def _laid_out(self, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Canonical trainable arrays → this backend's order and dtype, never rounding."""
        out = {}
        for name, array in to_layout(self.architecture, self.layout, arrays).items():
            with np.errstate(over="ignore"):
                out[name] = array.astype(self.dtype, copy=False)
            if not np.array_equal(out[name], array):
                raise ParameterError(
                    f"parameters: {name} has {array.dtype} values that {self.precision} can't hold exactly; "
                    f"round them first (backends.parameters.astype)"
                )
        return out

    def _canonical(self, arrays: Mapping[str, DeviceArray]) -> Parameters:
        return from_layout(self.architecture, self.layout, {k: self._to_numpy(a) for k, a in arrays.items()})

    def _host_copies(self, arrays: DeviceArrays) -> dict[str, NDArray]:
        return {name: self._to_numpy(array).copy() for name, array in arrays.items()}

    def _set_moments(self, moments: Mapping[str, Mapping[str, NDArray]]) -> None:
        if list(self._moments) != list(moments):  # else in place: a captured step reads them where they lie
            self._moments = {name: self._zeros() for name in moments}
        for name, arrays in moments.items():
            self._assign(self._moments[name], arrays)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model computes with the average of its weights, where its optimiser keeps one."""
        if AVERAGE not in self._moments:
            yield
            return
        weights = self._host_copies(self._weights)
        self._assign(self._weights, self._host_copies(self._moments[AVERAGE]))
        try:
            yield
        finally:
            self._assign(self._weights, weights)

    # Training ---------------------------------------------------------------------------------------------------

    def train(
        self, images: NDArray[np.uint8], optimiser: Optimiser, stream: Stream, epochs: int
    ) -> Iterator[EpochReport]:
        """Train for some epochs, yielding a report after each. A later call goes on where this one stopped.

        Args:
            images: uint8 [N, D]; they stay on the device as bytes.
            optimiser: Adam, RMSProp or AdamW.
            stream: order and noise of each epoch.
            epochs: how many epochs to make.

        Raises:
            ValueError: the images or the stream don't fit, or the state belongs to another optimiser or batch size.
        """
        images = np.asarray(images)
        expected = (stream.examples, self.architecture.dim)
        if images.dtype != np.uint8 or images.shape != expected:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 {expected}")
        if self._moments and tuple(self._moments) != optimiser.moments:
            raise ValueError(f"state has moments {tuple(self._moments)}; {optimiser.name} has {optimiser.moments}")
        if self._step % stream.steps:
            raise ValueError(f"state is at step {self._step}, inside an epoch of {stream.steps} steps")
        if epochs < 1:
            raise ValueError(f"epochs is {epochs}; expected at least 1")
        return self._train(images, optimiser.rounded(self.dtype), stream, epochs)

    def _train(
        self, images: NDArray[np.uint8], optimiser: Optimiser, stream: Stream, epochs: int
    ) -> Iterator[EpochReport]:
        self._activate()
        if not self._moments:
            self._set_moments(self._first_moments(optimiser.moments, self._host_copies(self._weights)))
        start = time.perf_counter()
        with self._other_replicas(images, optimiser, stream, epochs):
            training = self._training(images, optimiser, stream.pixels)
            yield from self._epochs(training, optimiser, stream, epochs, time.perf_counter() - start)

    def _epochs(
        self, training: Training, optimiser: Optimiser, stream: Stream, epochs: int, first_call: float
    ) -> Iterator[EpochReport]:
        def upload(epoch: int) -> Any:
            inputs = stream.epoch(epoch)
            if (rows := inputs.order.shape[1]) % self.replicas:
                raise ValueError(f"a batch has {rows} rows, which {self.replicas} devices can't share evenly")
            schedule = optimiser.schedule((epoch - 1) * stream.steps, stream.steps, stream.steps)
            return training.upload(inputs, schedule.astype(self.dtype))

        first = self._step // stream.steps + 1
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="stream") as background:
            inputs = upload(first)
            start = time.perf_counter()
            training.compile(inputs)
            if training.trial_step:
                self._try_one_step(training, inputs)
            first_call += time.perf_counter() - start
            upcoming: Future | None = None
            for epoch in range(first, first + epochs):
                start = time.perf_counter()
                if upcoming is not None:
                    inputs = upcoming.result()
                wait = time.perf_counter() - start
                upcoming = background.submit(upload, epoch + 1) if epoch + 1 < first + epochs else None
                self._activate()
                losses = self._to_numpy(training.run(inputs, stream.steps)).astype(np.float64)
                self._step += stream.steps
                seconds = time.perf_counter() - start
                yield EpochReport(epoch, losses, seconds, first_call if epoch == first else 0.0, wait)

    def _try_one_step(self, training: Training, inputs: Any) -> None:
        """Make one step, or all of an epoch where they are one dispatch, and undo it."""
        weights = self._host_copies(self._weights)
        if self._step:
            moments = {name: self._host_copies(held) for name, held in self._moments.items()}
        else:  # copies of moments would be the most memory that training takes
            moments = self._first_moments(tuple(self._moments), weights)
        self._to_numpy(training.run(inputs, 1))
        self._assign(self._weights, weights)
        self._set_moments(moments)

    def _first_moments(self, names: Sequence[str], weights: dict[str, NDArray]) -> dict[str, dict[str, NDArray]]:
        """Moments before the first step: zeros, and for the average of the weights the weights."""
        zeros = {name: np.zeros_like(array) for name, array in weights.items()}
        return {name: weights if name == AVERAGE else zeros for name in names}

    # For measuring ----------------------------------------------------------------------------------------------

    def workload(self, operation: str, batch: int, *, temperature: float = 1.0) -> Callable[[], DeviceArray]:
        """A call that runs one operation on a batch that is on the device already, and leaves the result there.

        Args:
            operation: "encode", "decode", "log_prob" or "sample".
            batch: number of rows.
            temperature: of "sample".
        """
        self._activate()
        if operation == "sample":
            return self.one_dispatch(lambda: self._functions.sample(batch, temperature, None))
        run = getattr(self._functions, operation)
        rows = np.linspace(-0.5, 0.5, batch * self.architecture.dim, dtype=self.dtype)
        x = self._to_device(rows.reshape(batch, self.architecture.dim))
        return self.one_dispatch(lambda: run(x))

    def one_dispatch(self, call: Callable[[], DeviceArray]) -> Callable[[], DeviceArray]:
        """Turn a call into one dispatch, where the framework doesn't do so by itself."""
        return call

    def product(self, a: ArrayLike, b: ArrayLike) -> NDArray:
        """The product [m, k] × [k, n], multiplied as the layers of the flow multiply."""
        self._activate()
        left, right = (self._to_device(np.asarray(array, self.dtype)) for array in (a, b))
        return self._to_numpy(self._functions.product(left, right))

    @abstractmethod
    def synchronise(self, result: DeviceArray = None) -> None:
        """Wait until the device has done everything, the work behind `result` included."""

    def peak_memory(self) -> int | None:
        """Most device memory held so far, in bytes; None on a CPU, where the process has to be asked."""
        return None

    # What a framework fills in ----------------------------------------------------------------------------------

    def _activate(self) -> None:
        """Set the framework's global switches to this model's precision."""

    @abstractmethod
    def _to_device(self, array: NDArray) -> DeviceArray: ...

    @abstractmethod
    def _to_numpy(self, array: DeviceArray) -> NDArray: ...

    @abstractmethod
    def _build(self) -> tuple[DeviceArrays, Functions]:
        """The flow on the device: its trainable arrays, whose values are set afterwards, and its functions."""

    @abstractmethod
    def _zeros(self) -> DeviceArrays:
        """Zeros on the device for every trainable array: a moment of the optimiser."""

    @abstractmethod
    def _assign(self, held: DeviceArrays, arrays: Mapping[str, NDArray]) -> None:
        """Give arrays that `_build` or `_zeros` made other values, in place."""

    def _other_replicas(
        self, images: NDArray[np.uint8], optimiser: Optimiser, stream: Stream, epochs: int
    ) -> AbstractContextManager[None]:
        """Within it the replicas that are not in this process train the same epochs."""
        return nullcontext()

    @abstractmethod
    def _training(self, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> Training:
        """The training step, with the images [N, D] on the device."""
