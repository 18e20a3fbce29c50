"""Libraries on PyTorch: zuko, nflows, normflows, FrEIA.

Each builds the flow from its own transforms, couplings and networks where it has them. Training is the loop that all
of their documentations show: `zero_grad`, `loss.backward`, `step` of `torch.optim.Adam`.
"""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backends import Adam, Architecture
from bench.peers.interface import Dense, Halves, InexpressibleError, Peer, halves

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TorchPeer(Peer):
    """A module with parameters, its loss, and the usual loop."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        flow = halves(architecture, parameters)
        self._entry = flow.entry
        self._flow = self._build(flow).to(DEVICE)
        self._optimiser = torch.optim.Adam(
            self._flow.parameters(),
            lr=optimiser.learning_rate,
            betas=(optimiser.beta1, optimiser.beta2),
            eps=optimiser.epsilon,
        )

    @abstractmethod
    def _build(self, flow: Halves) -> nn.Module:
        """The library's module."""

    @abstractmethod
    def _log_prob(self, x: Tensor) -> Tensor:
        """log p of concat(a, b), [B, D] → [B]."""

    def _loss(self, x: Tensor) -> Tensor:
        return -self._log_prob(x).mean()

    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        with torch.no_grad():
            return self._log_prob(self._to_device(x)).cpu().numpy()

    def arrays(self) -> Iterable[NDArray]:
        return [parameter.detach().cpu().numpy() for parameter in self._flow.parameters()]

    def load(self, batches: NDArray[np.float32]) -> None:
        self._batches = self._to_device(batches)

    def train(self) -> None:
        for x in self._batches:
            self._optimiser.zero_grad()
            loss = self._loss(x)
            loss.backward()
            self._optimiser.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    def _to_device(self, x: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x[..., self._entry])).to(DEVICE)


class Zuko(TorchPeer):
    """zuko: `GeneralCouplingTransform` with an additive univariate transformation, in a `Flow`."""

    def _build(self, flow: Halves) -> nn.Module:
        import zuko
        from zuko.flows import GeneralCouplingTransform, UnconditionalDistribution, UnconditionalTransform
        from zuko.transforms import AdditiveTransform

        transforms = []
        for k, layers in enumerate(flow.networks):
            coupling = GeneralCouplingTransform(
                flow.dim,
                mask=_first_half(flow.dim, read=k % 2 == 0),
                # In this direction the article subtracts.
                univariate=lambda shift: AdditiveTransform(-shift),
                shapes=((),),
                hidden_features=flow.hidden_units,
            )
            coupling.hyper.append(nn.ReLU())
            _copy(layers, coupling.hyper)
            transforms.append(coupling)
        # Not zuko's MonotonicAffineTransform: it bends the scale, so that it stays within bounds.
        transforms.append(UnconditionalTransform(_exponential_scale, torch.from_numpy(flow.log_scale)))
        zeros, ones = torch.zeros(flow.dim), torch.ones(flow.dim)
        base = UnconditionalDistribution(zuko.distributions.DiagNormal, zeros, ones, buffer=True)
        return zuko.flows.Flow(transforms, base)

    def _log_prob(self, x: Tensor) -> Tensor:
        return self._flow().log_prob(x)


class NFlows(TorchPeer):
    """nflows: the inverse of `AdditiveCouplingTransform`, `MLP`, in a `Flow` over `StandardNormal`."""

    def _build(self, flow: Halves) -> nn.Module:
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.nn.nets import MLP
        from nflows.transforms import AdditiveCouplingTransform, CompositeTransform, InverseTransform, Transform

        class Network(MLP):
            def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
                return super().forward(inputs)

        class LogScale(Transform):  # nflows' own either aren't trained or have a shift as well
            def __init__(self, log_scale: Tensor) -> None:
                super().__init__()
                self.log_scale = nn.Parameter(log_scale)

            def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
                return inputs * torch.exp(self.log_scale), self.log_scale.sum().expand(len(inputs))

        transforms: list[nn.Module] = []
        for k, layers in enumerate(flow.networks):
            coupling = AdditiveCouplingTransform(
                (~_first_half(flow.dim, read=k % 2 == 0)).int(),
                lambda n_in, n_out: Network([n_in], [n_out], flow.hidden_units, activate_output=True),
            )
            _copy(layers, coupling.transform_net)
            transforms.append(InverseTransform(coupling))
        transforms.append(LogScale(torch.from_numpy(flow.log_scale)))
        return Flow(CompositeTransform(transforms), StandardNormal([flow.dim]))

    def _log_prob(self, x: Tensor) -> Tensor:
        return self._flow.log_prob(inputs=x)


class NormFlows(TorchPeer):
    """normflows: `AffineCouplingBlock` without scale, `nets.MLP`, `AffineConstFlow` without shift."""

    def _build(self, flow: Halves) -> nn.Module:
        import normflows as nf

        # From z to x, as normflows counts; its inverse, the density's direction, subtracts, as the article does.
        scale = nf.flows.AffineConstFlow((flow.dim,), shift=False)
        _set(scale.s, -flow.log_scale[None])
        flows = [scale]
        for k, layers in reversed(list(enumerate(flow.networks))):
            widths = [flow.dim // 2, *flow.hidden_units, flow.dim // 2]
            network = nf.nets.MLP(widths, output_fn="relu")
            _copy(layers, network)
            split = "channel" if k % 2 == 0 else "channel_inv"
            flows.append(nf.flows.AffineCouplingBlock(network, scale=False, split_mode=split))
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(flow.dim, trainable=False), flows)

    def _log_prob(self, x: Tensor) -> Tensor:
        return self._flow.log_prob(x)

    def _loss(self, x: Tensor) -> Tensor:
        return self._flow.forward_kld(x)


class FrEIA(TorchPeer):
    """FrEIA: `NICECouplingBlock` (couples one half, then the other), `LearnedElementwiseScaling`, `SequenceINN`."""

    def _build(self, flow: Halves) -> nn.Module:
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import LearnedElementwiseScaling, NICECouplingBlock

        if len(flow.networks) % 2:
            raise InexpressibleError("FrEIA: NICECouplingBlock makes two couplings; their number has to be even")
        inn = SequenceINN(flow.dim)
        # The block changes its first half first, and coupling 0 changes b: FrEIA's halves are (b, a).
        for k in range(0, len(flow.networks), 2):
            inn.append(NICECouplingBlock, subnet_constructor=_subnet(flow.hidden_units))
            _copy(flow.networks[k], inn[-1].F)
            _copy(flow.networks[k + 1], inn[-1].G)
        inn.append(LearnedElementwiseScaling)
        _set(inn[-1].s, np.roll(flow.log_scale, flow.dim // 2)[None])
        self._entry = np.roll(flow.entry, flow.dim // 2)
        return inn

    def _log_prob(self, x: Tensor) -> Tensor:
        z, log_jac_det = self._flow(x)
        return -0.5 * torch.sum(z**2, dim=1) + log_jac_det - 0.5 * x.shape[1] * math.log(2 * math.pi)


class Negative(nn.Module):
    """−x: FrEIA's block adds what the article subtracts, and after a ReLU no weights can change the sign."""

    def forward(self, x: Tensor) -> Tensor:
        """−x."""
        return -x


def _subnet(hidden_units: list[int]) -> Any:
    """A constructor of networks, as FrEIA asks its users for one."""

    def construct(n_in: int, n_out: int) -> nn.Module:
        layers: list[nn.Module] = []
        for width in (*hidden_units, n_out):
            layers += [nn.Linear(n_in, width), nn.ReLU()]
            n_in = width
        return nn.Sequential(*layers, Negative())

    return construct


def _exponential_scale(log_scale: Tensor) -> Any:
    return torch.distributions.AffineTransform(0.0, log_scale.exp(), event_dim=1)


def _first_half(dim: int, *, read: bool) -> Tensor:
    """A mask [D]: whether a dimension is read, where the first half is read or, failing that, the second one."""
    return (torch.arange(dim) < dim // 2) == read


def _copy(layers: tuple[Dense, ...], network: nn.Module) -> None:
    """Copy weights into the dense layers of a network, which it must have as many of."""
    found = [module for module in network.modules() if isinstance(getattr(module, "weight", None), Tensor)]
    for module, (kernel, bias) in zip(found, layers, strict=True):
        _set(module.weight, kernel.T)
        _set(module.bias, bias)


@torch.no_grad()
def _set(parameter: Any, array: NDArray) -> None:
    if parameter.shape != array.shape:
        raise ValueError(f"parameter of shape {tuple(parameter.shape)} given {array.shape}")
    parameter.copy_(torch.from_numpy(np.array(array)))
