"""Libraries on JAX: flowjax and distrax, each with optax, as their documentations have it.

Both couple in the direction from z to x; their density goes the other way and subtracts, as the article does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from backends import Adam, Architecture
from bench.peers.interface import Dense, Halves, Peer, halves


def make_optimiser(optimiser: Adam) -> Any:
    """optax's Adam."""
    import optax

    return optax.adam(optimiser.learning_rate, b1=optimiser.beta1, b2=optimiser.beta2, eps=optimiser.epsilon)


class FlowJax(Peer):
    """flowjax: `Coupling` with a `Loc` transformer, `Permute`, `Scale`, and the step of its own `fit_to_data`."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        import equinox as eqx
        import paramax
        from flowjax.train.losses import MaximumLikelihoodLoss
        from flowjax.train.train_utils import step

        flow = halves(architecture, parameters)
        self._entry = flow.entry
        self._loss, self._make_step, self._combine = MaximumLikelihoodLoss(), step, eqx.combine
        self._params, self._static = eqx.partition(
            self._build(flow), eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
        )
        self._optimiser = make_optimiser(optimiser)
        self._state = self._optimiser.init(self._params)
        self._density = eqx.filter_jit(lambda distribution, x: distribution.log_prob(x))

    def _build(self, flow: Halves) -> Any:
        from flowjax.bijections import Chain, Permute
        from flowjax.distributions import StandardNormal, Transformed

        half = flow.dim // 2
        # A coupling reads the first half only, so the halves change places in between.
        swap = Permute(np.roll(np.arange(flow.dim), half))
        bijections: list[Any] = []
        for k, layers in enumerate(flow.networks):
            coupling = self._coupling(layers, flow.dim)
            bijections += [coupling] if k % 2 == 0 else [swap, coupling, swap]
        bijections.append(self._scale(flow.log_scale))
        # The chain goes from z to x, so the last coupling of the encoder comes first.
        return Transformed(StandardNormal((flow.dim,)), Chain(bijections[::-1]))

    @staticmethod
    def _coupling(layers: tuple[Dense, ...], dim: int) -> Any:
        import equinox as eqx
        from flowjax.bijections import Coupling, Loc

        coupling = Coupling(
            jax.random.key(0),
            transformer=Loc(0.0),
            untransformed_dim=dim // 2,
            dim=dim,
            nn_width=len(layers[0][1]),
            nn_depth=len(layers) - 1,
        )
        sizes = {"in_size": dim // 2, "out_size": dim // 2, "width_size": len(layers[0][1]), "depth": len(layers) - 1}
        network = eqx.nn.MLP(**sizes, activation=jax.nn.relu, final_activation=jax.nn.relu, key=jax.random.key(0))
        weights = [jnp.asarray(array) for kernel, bias in layers for array in (kernel.T, bias)]
        network = eqx.tree_at(lambda m: [a for layer in m.layers for a in (layer.weight, layer.bias)], network, weights)
        return eqx.tree_at(lambda c: c.conditioner, coupling, network)

    @staticmethod
    def _scale(log_scale: NDArray) -> Any:
        import equinox as eqx
        from flowjax.bijections import Scale
        from paramax import Parameterize

        exponential = Parameterize(jnp.exp, jnp.asarray(-log_scale))
        return eqx.tree_at(lambda s: s.scale, Scale(jnp.ones_like(log_scale)), exponential)

    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        return np.array(self._density(self._combine(self._params, self._static), jnp.asarray(x[:, self._entry])))

    def arrays(self) -> Iterable[NDArray]:
        return [np.array(leaf) for leaf in jax.tree.leaves(self._params)]

    def load(self, batches: NDArray[np.float32]) -> None:
        self._batches = [jnp.asarray(x[:, self._entry]) for x in batches]

    def train(self) -> None:
        key = jax.random.key(0)
        for x in self._batches:
            self._params, self._state, _ = self._make_step(
                self._params,
                self._static,
                x,
                optimizer=self._optimiser,
                opt_state=self._state,
                loss_fn=self._loss,
                key=key,
            )
        jax.block_until_ready(self._params)


class Distrax(Peer):
    """distrax: `SplitCoupling` with a `Shift`, `ScalarAffine`, in a `Chain`; it has no networks of its own."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        import distrax  # noqa: F401 - missing, it is to be missed here
        import optax

        flow = halves(architecture, parameters)
        self._entry = flow.entry
        self._p: Any = jax.tree.map(jnp.asarray, {"networks": flow.networks, "scale": -flow.log_scale})
        self._density = jax.jit(lambda p, x: _distrax_flow(p, flow.dim).log_prob(x))
        rule = make_optimiser(optimiser)
        self._state = rule.init(self._p)

        def loss(p: Any, x: Array) -> Array:
            return -jnp.mean(_distrax_flow(p, flow.dim).log_prob(x))

        @jax.jit
        def update(p: Any, state: Any, x: Array) -> tuple[Any, Any]:
            gradients = jax.grad(loss)(p, x)
            updates, state = rule.update(gradients, state)
            return optax.apply_updates(p, updates), state

        self._update = update

    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        return np.array(self._density(self._p, jnp.asarray(x[:, self._entry])))

    def arrays(self) -> Iterable[NDArray]:
        return [np.array(leaf) for leaf in jax.tree.leaves(self._p)]

    def load(self, batches: NDArray[np.float32]) -> None:
        self._batches = [jnp.asarray(x[:, self._entry]) for x in batches]

    def train(self) -> None:
        for x in self._batches:
            self._p, self._state = self._update(self._p, self._state, x)
        jax.block_until_ready(self._p)


def _distrax_flow(p: Any, dim: int) -> Any:
    """The distribution of x, from z to x."""
    import distrax

    couplings = [
        distrax.SplitCoupling(
            dim // 2, 1, conditioner=_network(layers), bijector=lambda m: distrax.ScalarAffine(shift=m), swap=k % 2 == 1
        )
        for k, layers in enumerate(p["networks"])
    ]
    scale = distrax.Block(distrax.ScalarAffine(shift=jnp.zeros(dim), log_scale=p["scale"]), 1)
    base = distrax.MultivariateNormalDiag(jnp.zeros(dim), jnp.ones(dim))
    return distrax.Transformed(base, distrax.Chain([*couplings, scale]))


def _network(layers: Any) -> Callable[[Array], Array]:
    def m(x: Array) -> Array:
        for kernel, bias in layers:
            x = jax.nn.relu(x @ kernel + bias)
        return x

    return m
