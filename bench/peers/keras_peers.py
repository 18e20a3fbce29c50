"""Keras 3, on whichever backend KERAS_BACKEND names: the article's own network, layer by layer as it has them.

Reversal, split, additive coupling and scaling are layers, m is made of `Dense`; the loss leaves ½ D log 2π out.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from backends import Adam, Architecture
from backends.architecture import bias_name, kernel_name
from bench.peers.interface import Peer, check_article


class Reverse(layers.Layer):
    """The dimensions in reverse order."""

    def call(self, x: Any) -> Any:
        """[B, D] → [B, D]."""
        return ops.flip(x, axis=1)


class Split(layers.Layer):
    """Even dimensions and odd ones."""

    def call(self, x: Any) -> Any:
        """[B, D] → two [B, D/2]."""
        pairs = ops.reshape(x, (-1, x.shape[1] // 2, 2))
        return pairs[:, :, 0], pairs[:, :, 1]


class Merge(layers.Layer):
    """The inverse of `Split`."""

    def call(self, x1: Any, x2: Any) -> Any:
        """Two [B, D/2] → [B, D]."""
        return ops.reshape(ops.stack([x1, x2], axis=2), (-1, 2 * x1.shape[1]))


class Scale(layers.Layer):
    """z = exp(s) h; adds −Σ s to the loss."""

    def build(self, shape: Any) -> None:
        """Make s, [1, D]."""
        self.kernel = self.add_weight(shape=(1, shape[1]), initializer="glorot_normal", name="kernel")

    def call(self, h: Any) -> Any:
        """[B, D] → [B, D]."""
        self.add_loss(-ops.sum(self.kernel))
        return ops.exp(self.kernel) * h


class KerasPeer(Peer):
    """The article's encoder as a `Model`, compiled with its loss and Adam."""

    def __init__(self, architecture: Architecture, parameters: Mapping[str, NDArray], optimiser: Adam) -> None:
        check_article(architecture)
        self._dim, self._scale = architecture.dim, Scale()
        self._model = self._build(architecture, parameters)
        self._model.compile(
            loss=lambda _, z: ops.sum(0.5 * z**2, axis=1),
            optimizer=keras.optimizers.Adam(
                optimiser.learning_rate, beta_1=optimiser.beta1, beta_2=optimiser.beta2, epsilon=optimiser.epsilon
            ),
        )

    def _build(self, architecture: Architecture, parameters: Mapping[str, NDArray]) -> keras.Model:
        x = layers.Input((architecture.dim,))
        h = x
        for k in range(architecture.couplings):
            x1, x2 = Split()(Reverse()(h))
            h = Merge()(x1, layers.Subtract()([x2, _network(architecture, parameters, k)(x1)]))
        model = keras.Model(x, self._scale(h))
        self._scale.kernel.assign(parameters["log_scale"][None])
        return model

    def log_prob(self, x: NDArray[np.float32]) -> NDArray:
        z = np.asarray(self._model.predict(x, batch_size=len(x), verbose=0))
        log_det = float(ops.convert_to_numpy(ops.sum(self._scale.kernel)))
        return -0.5 * (z**2).sum(axis=1) + log_det - 0.5 * self._dim * math.log(2 * math.pi)

    def arrays(self) -> Iterable[NDArray]:
        return self._model.get_weights()

    def load(self, batches: NDArray[np.float32]) -> None:
        """Keep them as NumPy arrays, which is what `fit` is given."""
        self._batches = batches


class KerasFit(KerasPeer):
    """`fit`, which is what the article calls."""

    _shuffle = False

    def train(self) -> None:
        """An epoch of `fit`: a step on each batch's worth of rows, shuffled, but for the first, which is compared."""
        count, batch, dim = self._batches.shape
        x = self._batches.reshape(count * batch, dim)
        self._model.fit(x, x, batch_size=batch, epochs=1, verbose=0, shuffle=self._shuffle)
        self._shuffle = True


class KerasTrainOnBatch(KerasPeer):
    """`train_on_batch`, in a loop of one's own."""

    def train(self) -> None:
        """A step on each batch; each returns its loss, so the device is waited for."""
        for x in self._batches:
            self._model.train_on_batch(x, x)


def _network(architecture: Architecture, parameters: Mapping[str, NDArray], k: int) -> keras.Model:
    widths = [bias for _, bias in architecture.layer_sizes]
    dense = [layers.Dense(width, activation="relu") for width in widths]
    model = keras.Sequential([layers.Input((architecture.half,)), *dense])
    names = [name(k, i) for i in range(len(widths)) for name in (kernel_name, bias_name)]
    model.set_weights([parameters[name] for name in names])
    return model
