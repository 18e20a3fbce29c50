"""NICE in PyTorch: an `nn.Module`, autograd, `torch.optim`.

Modes: `eager`; `compile`, whatever passes through the flow by `torch.compile`; `cudagraph`, the whole step, optimiser
included, captured once and replayed, with the kernels' gradients and updates beside the chain of the inputs'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from backends.architecture import Architecture
from backends.choices import first_line
from backends.hooks import Functions, Training
from backends.interface import Backend
from backends.layout import Layout
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.torch_files import module_name
from backends.torch_graphs import Beside, CapturedStep, replayed, uploading
from backends.torch_ranks import MOST_CPU_RANKS, mean_over_ranks, other_ranks, parallel, share
from backends.values import EpochInputs, Pixels, TrainingState

LOG_TWO_PI = math.log(2 * math.pi)
MOST_COMPILED = 256  # models and batch sizes that a function is compiled for, in a process


class Flow(nn.Module):
    """The flow, on halves (a, b) as `Layout` orders them. Kernels are [out, in], as `nn.Linear` has them."""

    def __init__(self, architecture: Architecture, layout: Layout, precision: str, device: torch.device) -> None:
        super().__init__()
        self.architecture, self.layout = architecture, layout
        self.product_dtype = torch.bfloat16 if precision == "bfloat16" else None
        self.beside: Beside | None = None  # while a step is captured: where kernels get their gradients
        dtype = torch.float64 if precision == "float64" else torch.float32
        self.networks = nn.ModuleList(
            nn.ModuleList(
                nn.utils.skip_init(nn.Linear, i, o, dtype=dtype, device=device) for i, o in architecture.layer_sizes
            )
            for _ in range(architecture.couplings)
        )
        self.log_scale = nn.Parameter(torch.empty(architecture.dim, dtype=dtype, device=device))
        self.entry, self.entry_inverse, self.exit, self.exit_inverse = (
            torch.as_tensor(index.copy(), device=device)
            for index in (layout.entry, layout.entry_inverse, layout.exit, layout.exit_inverse)
        )
        self.regroup, self.ungroup = (
            [None if i is None else torch.as_tensor(i, device=device) for i in indices]
            for indices in ([s.regroup for s in layout.steps], [s.ungroup for s in layout.steps])
        )

    # The coupling network ---------------------------------------------------------------------------------------

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        if self.product_dtype is None:
            return a @ b
        return (a.to(self.product_dtype) @ b.to(self.product_dtype)).to(a.dtype)

    def dense(self, layer: nn.Linear, x: Tensor) -> Tensor:
        if self.beside is not None:
            return self.beside.dense(layer, x, self.product_dtype)
        if self.product_dtype is None:
            return functional.linear(x, layer.weight, layer.bias)
        product = functional.linear(x.to(self.product_dtype), layer.weight.to(self.product_dtype))
        return product.to(layer.bias.dtype) + layer.bias

    def network(self, k: int, x1: Tensor) -> Tensor:
        """m(x₁) of coupling k, [B, D/2] → [B, D/2]."""
        h = x1
        for layer in self.networks[k][:-1]:
            h = functional.relu(self.dense(layer, h))
        h = self.dense(self.networks[k][-1], h)
        return functional.relu(h) if self.architecture.output == "relu" else h

    # Encode, decode, density ------------------------------------------------------------------------------------

    def forward_halves(self, x: Tensor) -> Tensor:
        """x [B, D] → z [B, D] in the order of the layout's exit."""
        a, b = x.index_select(1, self.entry).chunk(2, dim=1)
        for k, step in enumerate(self.layout.steps):
            if (index := self.regroup[k]) is not None:
                a, b = torch.cat([a, b], dim=1).index_select(1, index).chunk(2, dim=1)
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(k, read)
            changed = changed - m if self.architecture.sign == "subtract" else changed + m
            a, b = (changed, read) if step.swap else (read, changed)
        return torch.cat([a, b], dim=1) * torch.exp(self.log_scale)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.forward_halves(x).index_select(1, self.exit_inverse)
        return z, self.log_scale.sum().expand(len(x))

    def decode(self, z: Tensor) -> Tensor:
        a, b = (z.index_select(1, self.exit) * torch.exp(-self.log_scale)).chunk(2, dim=1)
        for k, step in reversed(list(enumerate(self.layout.steps))):
            read, changed = (b, a) if step.swap else (a, b)
            m = self.network(k, read)
            changed = changed + m if self.architecture.sign == "subtract" else changed - m
            a, b = (changed, read) if step.swap else (read, changed)
            if (index := self.ungroup[k]) is not None:
                a, b = torch.cat([a, b], dim=1).index_select(1, index).chunk(2, dim=1)
        return torch.cat([a, b], dim=1).index_select(1, self.entry_inverse)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_prior(self.forward_halves(x)) + self.log_scale.sum()

    def log_prior(self, z: Tensor) -> Tensor:
        if self.architecture.prior == "gaussian":
            return -0.5 * ((z * z).sum(dim=1) + self.architecture.dim * LOG_TWO_PI)
        return (functional.logsigmoid(z) + functional.logsigmoid(-z)).sum(dim=1)

    def total_log_prob(self, x: Tensor) -> Tensor:
        """Sum over the batch of log p(x), in nats: its gradient by x is the score of each row."""
        return self.log_prob(x).sum()

    def loss(self, x: Tensor) -> Tensor:
        """Mean over the batch of −log p(x), in nats."""
        return -self.log_prob(x).mean()

    forward = loss


class TorchBackend(Backend):
    """PyTorch."""

    name = "torch"
    modes = ("eager", "compile", "cudagraph")
    parallel_modes, over_nodes = ("eager",), True
    workloads = "bench.measures.floor.torch_workloads"
    profiler = "bench.profiling.torch_trace"

    # Devices, precision -----------------------------------------------------------------------------------------

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu", "gpu") if torch.cuda.is_available() else ("cpu",)

    @classmethod
    def why_no_gpu(cls) -> str:
        if torch.version.cuda is None:
            return f"torch {torch.__version__} is a build without CUDA"
        try:
            torch.cuda.init()
        except Exception as error:
            return first_line(error)
        return ""

    @classmethod
    def cuda(cls) -> str | None:
        return torch.version.cuda

    @classmethod
    def modes_on(cls, device: str) -> tuple[str, ...]:
        return cls.modes if device == "gpu" else ("eager", "compile")

    @classmethod
    def default_mode(cls, device: str) -> str:
        return "cudagraph" if device == "gpu" else "eager"

    @classmethod
    def replicas_on(cls, device: str) -> int:
        return torch.cuda.device_count() if device == "gpu" else MOST_CPU_RANKS

    @classmethod
    def versions(cls) -> dict[str, str]:
        cuda = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
        return {"torch": torch.__version__} | (cuda if torch.version.cuda else {})

    def _activate(self) -> None:
        # Not by `fp32_precision`: after it torch's older getters raise, which torch.compile still calls.
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")

    @property
    def _torch_device(self) -> torch.device:
        return torch.device("cuda" if self.device == "gpu" else "cpu")

    def _to_device(self, array: NDArray) -> Tensor:
        return torch.from_numpy(np.require(array, requirements="W")).to(self._torch_device)

    def _to_numpy(self, array: Tensor) -> NDArray:
        return array.detach().cpu().numpy().copy()

    def synchronise(self, result: Any = None) -> None:
        """Wait for the GPU; a CPU has finished when the call returns."""
        if self.device == "gpu":
            torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        """Most memory reserved, since what is allocated inside a graph's replay isn't counted."""
        return torch.cuda.max_memory_reserved() if self.device == "gpu" else None

    # Building, and the values of arrays --------------------------------------------------------------------------

    def _build(self) -> tuple[dict[str, Tensor], Functions]:
        self.rank = self.nodes.rank * self.local_replicas  # of this process among the replicas
        self.flow = flow = Flow(self.architecture, self.layout, self.precision, self._torch_device)
        self.loss, self._total_log_prob = self._function(flow.loss), self._function(flow.total_log_prob)
        self._decode = torch.no_grad()(self._function(flow.decode))
        return self._by_name(lambda name: flow.get_parameter(name).detach()), Functions(
            encode=torch.no_grad()(self._function(flow.encode)),
            decode=self._decode,
            log_prob=torch.no_grad()(self._function(flow.log_prob)),
            score=self._score,
            gradients=self._gradients,
            product=flow.product,
            sample=self._sample,
        )

    def _function(self, function: Callable, modes: tuple[str, ...] = ("compile",)) -> Callable:
        if self.mode not in modes:
            return function
        torch._dynamo.config.recompile_limit = MOST_COMPILED  # beyond it, fullgraph has an error come of it
        return torch.compile(function, dynamic=False, fullgraph=True)

    def _zeros(self) -> dict[str, Tensor]:
        return self._by_name(lambda name: torch.zeros_like(self.flow.get_parameter(name)))

    @torch.no_grad()
    def _assign(self, held: dict[str, Tensor], arrays: Mapping[str, NDArray]) -> None:
        for name, array in arrays.items():
            held[name].copy_(self._to_device(array))

    def _by_name(self, tensor: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Canonical name → what `tensor` has for the module's name, kernels transposed to [in, out]."""
        tensors = {name: tensor(module_name(name)) for name in self.architecture.trainable_shapes}
        return {name: t.T if name.endswith(".kernel") else t for name, t in tensors.items()}

    # Samples, the loss and its gradient ---------------------------------------------------------------------------

    def _sample(self, n: int, temperature: float, seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator(self._torch_device).manual_seed(seed)
        shape, dtype = (n, self.architecture.dim), self.flow.log_scale.dtype
        if self.architecture.prior == "gaussian":
            latents = torch.randn(shape, dtype=dtype, device=self._torch_device, generator=generator)
        else:
            u = torch.rand(shape, dtype=dtype, device=self._torch_device, generator=generator)
            latents = torch.logit(u, eps=torch.finfo(dtype).eps)
        return self._decode(latents * temperature)

    def _score(self, x: Tensor) -> Tensor:
        return torch.autograd.grad(self._total_log_prob(x.requires_grad_()), x)[0]

    def _gradients(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        names, parameters = zip(*self.flow.named_parameters(), strict=True)
        loss = self.loss(x)
        by_name = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
        return loss, self._by_name(by_name.__getitem__)

    # For training and measuring -----------------------------------------------------------------------------------

    def _training(self, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> TorchTraining:
        return TorchTraining(self, images, optimiser, pixels)

    def _other_replicas(self, *training: Any) -> AbstractContextManager[None]:
        if self.replicas == 1 or self.rank % self.local_replicas:
            return nullcontext()
        choices = {key: getattr(self, key) for key in ("device", "precision", "mode", "replicas", "nodes")}
        work = self.architecture, choices, self.training_state(), *training
        return other_ranks(self.nodes, self.local_replicas, self.device == "gpu", train_as_rank, work)

    def one_dispatch(self, call: Callable[[], Any]) -> Callable[[], Any]:
        return replayed(torch.no_grad()(call)) if self.mode == "cudagraph" else torch.no_grad()(call)


def train_as_rank(rank: int, architecture: Architecture, choices: Any, state: TrainingState, *arguments: Any) -> None:
    """Train as one of several replicas: what `arguments` says to `Backend._train`, from a state on."""
    model = TorchBackend(architecture, state.parameters, **choices)
    model.rank = rank
    if state.step:
        model.resume(state)
    for _ in model._train(*arguments):
        pass


class TorchTraining(Training):
    """The training step: one after the other, or captured as a CUDA graph."""

    def __init__(self, model: TorchBackend, images: NDArray[np.uint8], optimiser: Optimiser, pixels: Pixels) -> None:
        self._model, self._pixels = model, pixels
        self._images = model._to_device(images)
        self._steps: list[Tensor] = []  # of torch's own optimisers
        names = list(model.architecture.trainable_shapes)
        groups = [names]
        if model.mode == "cudagraph":  # of each coupling, as soon as its gradients are there, and of the rest
            couplings = range(model.architecture.couplings)
            groups = [[n for n in names if n.startswith(f"coupling.{k}.")] for k in couplings] + [["log_scale"]]
        *early, self._update = (self._make_update(optimiser, group) for group in groups)
        first_kernels = [network[0].weight for network in model.flow.networks]
        self._beside = Beside(model.flow, dict(zip(first_kernels, early, strict=True))) if early else None
        self._captured: CapturedStep | None = None
        self._loss = model.loss if model.replicas == 1 else parallel(model.flow, model.device == "gpu")

    def _make_update(self, optimiser: Optimiser, names: list[str]) -> Callable[[Tensor], None]:
        """A function that applies the gradients of some parameters, given the step's row of the schedule."""
        flow, moments, device = self._model.flow, self._model._moments, self._images.device
        parameters = [flow.get_parameter(module_name(name)) for name in names]
        first, second, *average = (
            [moments[moment][name].T if name.endswith(".kernel") else moments[moment][name] for name in names]
            for moment in optimiser.moments
        )
        if isinstance(optimiser, RMSProp):  # as it stands 9 kernels and 22 passes over memory, compiled 1 and 7
            update = self._model._function(rmsprop, ("compile", "cudagraph"))
            return lambda row: update(optimiser, parameters, first, second, row)
        rate = torch.zeros((), dtype=torch.float32, device=device)
        common: dict[str, Any] = {"betas": (optimiser.beta1, optimiser.beta2), "eps": optimiser.epsilon}
        common |= {"fused": True, "capturable": device.type == "cuda"}
        if isinstance(optimiser, Adam):
            adam = torch.optim.Adam(parameters, lr=optimiser.learning_rate, **common)
        else:
            decayed = [{"params": [p for p in parameters if p.ndim == 2], "weight_decay": optimiser.decay}]
            others = [{"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}]
            adam = torch.optim.AdamW([group for group in decayed + others if group["params"]], lr=rate, **common)
        for p, mean, mean_square in zip(parameters, first, second, strict=True):
            self._steps.append(step := torch.zeros((), dtype=torch.float32, device=device))
            adam.state[p] = {"step": step, "exp_avg": mean, "exp_avg_sq": mean_square}
        if isinstance(optimiser, Adam):
            return lambda row: adam.step()
        return lambda row: adamw(optimiser, adam, rate, parameters, *average, row)

    def upload(self, inputs: EpochInputs, schedule: NDArray) -> tuple[Tensor, Tensor | None, Tensor]:
        to_device = self._model._to_device
        mine = share(inputs.order.shape[1], self._model.rank, self._model.replicas)
        with uploading(self._images.device) as keep:
            noise = None if inputs.noise is None else keep(to_device(inputs.noise[:, mine].view(np.int16)))
            return keep(to_device(inputs.order[:, mine])), noise, keep(to_device(schedule))

    def compile(self, inputs: tuple[Tensor, Tensor | None, Tensor]) -> None:
        if self._model.mode == "cudagraph":
            moments = [tensor for held in self._model._moments.values() for tensor in held.values()]
            changed = [*self._model.flow.parameters(), *moments, *self._steps]
            self._captured = CapturedStep(self._step, inputs, self._model.flow.log_scale.dtype, changed)

    def _step(self, order: Tensor, noise: Tensor | None, row: Tensor) -> Tensor:
        with self._beside.step(row) if self._beside else nullcontext():
            loss = self._loss(self._pixels_to_x(self._images.index_select(0, order), noise))
            loss.backward()
        self._update(row)
        self._model.flow.zero_grad(set_to_none=True)  # at the end: those of the warm-up would live beside capture's
        return loss.detach()

    def _pixels_to_x(self, images: Tensor, noise: Tensor | None) -> Tensor:
        dtype = self._model.flow.log_scale.dtype
        x = images.to(dtype) * self._pixels.scale
        if noise is None:
            return x
        u = ((noise.to(torch.int32) & 0xFFFF).to(dtype) + 0.5) * 2.0**-16
        return x + self._pixels.noise * u

    def run(self, inputs: tuple[Tensor, Tensor | None, Tensor], steps: int) -> Tensor:
        for step in self._steps:
            step.fill_(self._model._step)
        if self._captured is not None:
            return self._captured.replay(inputs, steps)
        order, noise, schedule = inputs
        losses = [self._step(order[i], None if noise is None else noise[i], schedule[i]) for i in range(steps)]
        return torch.stack(losses) if self._model.replicas == 1 else mean_over_ranks(losses)


@torch.no_grad()
def adamw(
    optimiser: AdamW,
    step: torch.optim.AdamW,
    rate: Tensor,
    parameters: list[Tensor],
    average: list[Tensor],
    row: Tensor,
) -> None:
    """A step of AdamW on all parameters at once, in place, and of their average; row begins with the learning rate."""
    rate.copy_(row[0])
    step.step()
    torch._foreach_lerp_(average, parameters, 1 - optimiser.average)


def rmsprop(
    optimiser: RMSProp,
    parameters: list[Tensor],
    mean_squares: list[Tensor],
    velocities: list[Tensor],
    row: Tensor,
) -> None:
    """The paper's RMSProp, on all parameters at once, in place; row holds the learning rate and the momentum."""
    with torch.no_grad():
        gradients = [p.grad for p in parameters]
        torch._foreach_mul_(mean_squares, optimiser.rho)
        torch._foreach_addcmul_(mean_squares, gradients, gradients, 1 - optimiser.rho)
        rms = torch._foreach_sqrt(mean_squares)
        torch._foreach_clamp_min_(rms, optimiser.floor)
        updates = torch._foreach_div(gradients, rms)
        torch._foreach_mul_(updates, row[0])
        torch._foreach_mul_(velocities, row[1])
        torch._foreach_sub_(velocities, updates)
        torch._foreach_add_(parameters, velocities)
