"""TensorFlow Probability: `RealNVP` that only shifts, which its documentation calls NICE, `Scale`, in a `Chain`.

Its `real_nvp_default_template(shift_only=True)` has no ReLU at the end, so the shift comes from Keras layers.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow import Tensor

from backends import Adam, Architecture
from bench.peers.interface import Dense, Halves, Peer, halves


class TensorFlowProbability(Peer):
    """TensorFlow Probability, its variables trained by Keras' Adam in a `tf.function`."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        import tf_keras

        flow = halves(architecture, parameters)
        self._entry = flow.entry
        self._flow, self._variables = self._build(flow)
        rule = tf_keras.optimizers.Adam(
            optimiser.learning_rate, beta_1=optimiser.beta1, beta_2=optimiser.beta2, epsilon=optimiser.epsilon
        )

        @tf.function
        def update(x: Tensor) -> Tensor:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(self._flow.log_prob(x))
            gradients = tape.gradient(loss, self._variables)
            rule.apply_gradients(zip(gradients, self._variables, strict=True))
            return loss

        self._update = update
        self._density = tf.function(self._flow.log_prob)

    def _build(self, flow: Halves) -> tuple[Any, list[Any]]:
        """The distribution of x, and its variables."""
        import tensorflow_probability as tfp

        half = flow.dim // 2
        networks = [_network(layers) for layers in flow.networks]
        scale = tf.Variable(-flow.log_scale)
        # From z to x; the inverse, the density's direction, subtracts, as the article does.
        couplings = [
            tfp.bijectors.RealNVP(
                num_masked=half if k % 2 == 0 else -half,
                shift_and_log_scale_fn=_shift(network),
                is_constant_jacobian=True,
            )
            for k, network in enumerate(networks)
        ]
        bijector = tfp.bijectors.Chain([*couplings, tfp.bijectors.Scale(log_scale=scale)])
        base = tfp.distributions.MultivariateNormalDiag(tf.zeros(flow.dim), tf.ones(flow.dim))
        variables = [variable for network in networks for variable in network.trainable_variables]
        return tfp.distributions.TransformedDistribution(base, bijector), [*variables, scale]

    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        return self._density(tf.constant(x[:, self._entry])).numpy()

    def arrays(self) -> Iterable[NDArray]:
        return [variable.numpy() for variable in self._variables]

    def load(self, batches: NDArray[np.float32]) -> None:
        self._batches = [tf.constant(x[:, self._entry]) for x in batches]

    def train(self) -> None:
        for x in self._batches:
            self._update(x)
        tf.test.experimental.sync_devices()


def _network(layers: tuple[Dense, ...]) -> Any:
    """m as a Keras model, of the Keras that TensorFlow Probability works with."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(len(bias), activation="relu") for _, bias in layers])
    model.build((None, len(layers[0][0])))
    model.set_weights([array for layer in layers for array in layer])
    return model


def _shift(network: Any) -> Callable[..., tuple[Tensor, None]]:
    return lambda x, output_units: (network(x), None)
