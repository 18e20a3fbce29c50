"""NICE as others write it, in Keras and in PyTorch: to train, to save in the library's own way, to ask for log p."""

from itertools import pairwise

import numpy as np
from factories import backend_names

if "torch" in backend_names():
    import torch
    from torch import nn
if "tensorflow" in backend_names():
    import keras
    import tensorflow as tf  # noqa: F401 - before Keras, which imports it anyway
    from keras import layers, ops

DIM = 8
LOG_TWO_PI = np.log(2 * np.pi)


def points(dtype="float32", dim=DIM, count=6):
    """[count, dim] numbers about 1 in size."""
    return np.random.default_rng(5).standard_normal((count, dim)).astype(dtype)


def log_prior(z, prior, sum_last, softplus):
    """Of each row, in whatever library z is of."""
    if prior == "gaussian":
        return -0.5 * sum_last(z * z) - 0.5 * z.shape[-1] * LOG_TWO_PI
    return -sum_last(softplus(z) + softplus(-z))


# Keras: the article's network


if "tensorflow" in backend_names():

    class Shuffle(layers.Layer):
        def __init__(self, mode="reverse", **kwargs):
            super().__init__(**kwargs)
            self.mode = mode

        def call(self, x):
            return ops.flip(x, axis=1)

    class SplitVector(layers.Layer):
        def __init__(self, first=None, **kwargs):
            super().__init__(**kwargs)
            self.first = first

        def call(self, x):
            if self.first:
                return x[:, : self.first], x[:, self.first :]
            pairs = ops.reshape(x, (-1, x.shape[1] // 2, 2))
            return pairs[:, :, 0], pairs[:, :, 1]

    class AddCouple(layers.Layer):
        def __init__(self, isinverse=False, **kwargs):
            super().__init__(**kwargs)
            self.isinverse = isinverse

        def call(self, parts):
            first, second, m = parts
            return first, second + m if self.isinverse else second - m

    class ConcatVector(layers.Layer):
        def call(self, parts):
            if parts[0].shape != parts[1].shape:
                return ops.concatenate(parts, axis=1)
            return ops.reshape(ops.stack(parts, axis=2), (-1, 2 * parts[0].shape[1]))

    class Scale(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(1, shape[1]), initializer="glorot_normal")

        def call(self, x):
            self.add_loss(-ops.sum(self.kernel))
            return ops.exp(self.kernel) * x

    class Halve(layers.Layer):
        """Not of the article."""

        def call(self, x):
            return x / 2

    class Encoder(keras.Model):
        """The same as a class of its own, whose configuration lists no layers."""

        def __init__(self, couplings=3, units=7, **kwargs):
            super().__init__(**kwargs)
            self.networks = [
                keras.Sequential([layers.Dense(units, "relu"), layers.Dense(DIM // 2, "relu")])
                for _ in range(couplings)
            ]
            self.scale = Scale()

        def call(self, x):
            for network in self.networks:
                x1, x2 = SplitVector()(ops.flip(x, axis=1))
                x = ConcatVector()([x1, x2 - network(x1)])
            return self.scale(x)


def dense_stack(widths, *, hidden="relu", output="relu", bias=True, apart=False, extra=None, named="", dtype="float32"):
    """The layers of m, first to last; `apart`: activations as layers of their own."""
    made = []
    for i, units in enumerate(widths):
        activation = output if i == len(widths) - 1 else hidden
        naming = {"name": f"{named}_layer_{i}"} if named else {}
        made.append(layers.Dense(units, None if apart else activation, use_bias=bias, dtype=dtype, **naming))
        if apart and activation:
            made.append(layers.ReLU(dtype=dtype) if i % 2 else layers.Activation(activation, dtype=dtype))
        if extra and i == 0:
            made.append(extra())
    return made


def keras_article(
    couplings=3,
    units=(7, 7),
    *,
    kind="functional",
    dtype="float32",
    mode="reverse",
    add=False,
    permuted=True,
    first=None,
    reads=0,
    noise=False,
    scaled=True,
    shared=False,
    named=False,
    seed=0,
    **stack,
):
    """The article's encoder, random weights that keep numbers about 1; `named`: names that sort backwards."""
    x = layers.Input((DIM,), dtype=dtype)
    h = layers.Lambda(lambda s: s, output_shape=(DIM,), dtype=dtype)(x) if noise else x
    widths = [*units, DIM - (first or DIM // 2)]
    split = SplitVector(first, dtype=dtype)
    network = None
    for k in range(couplings):
        if permuted is True or (permuted and k in permuted):
            h = Shuffle(mode, dtype=dtype)(h)
        parts = split(h)
        if network is None or not shared:
            network = dense_stack(widths, named=f"{'zyxw'[k]}_net" if named else "", dtype=dtype, **stack)
            if kind == "sequential":
                network = [keras.Sequential(network)]
            elif kind == "functional":
                first_half = m = layers.Input((first or DIM // 2,), dtype=dtype)
                for layer in network:
                    m = layer(m)
                network = [keras.Model(first_half, m, **({"name": f"{'zyxw'[k]}_model"} if named else {}))]
        m = parts[reads]
        for layer in network:
            m = layer(m)
        h = ConcatVector(dtype=dtype)(AddCouple(add, dtype=dtype)([*parts, m]))
    model = keras.Model(x, Scale(dtype=dtype)(h) if scaled else h)
    generator = np.random.default_rng(seed)
    model.set_weights(
        [generator.normal(0, 0.7 if w.ndim == 2 and w.shape[0] > 1 else 0.3, w.shape) for w in model.get_weights()]
    )
    return model


def train_keras(model):
    """A few steps of Adam on the article's loss."""
    model.compile("adam", lambda _, z: ops.sum(0.5 * z**2, axis=1))
    x = np.random.default_rng(6).uniform(size=(32, DIM))
    model.fit(x, x, batch_size=8, epochs=2, verbose=0)


def keras_density(model, x, prior="gaussian"):
    """z and log p by Keras."""
    z = model(x)
    scale = next(layer for layer in model.layers if isinstance(layer, Scale))
    log_p = log_prior(z, prior, lambda a: ops.sum(a, axis=-1), ops.softplus) + ops.sum(scale.kernel)
    return ops.convert_to_numpy(z), ops.convert_to_numpy(log_p)


# PyTorch: the two common forms


if "torch" in backend_names():

    class AlternatingCoupling(nn.Module):
        def __init__(self, dim, units, hidden, changes, output, sign, halves):
            super().__init__()
            self.in_block = nn.Sequential(nn.Linear(dim // 2, units), nn.ReLU())
            self.mid_block = nn.ModuleList(nn.Sequential(nn.Linear(units, units), nn.ReLU()) for _ in range(hidden - 1))
            self.out_block = nn.Linear(units, dim // 2)
            self.changes, self.output, self.sign, self.halves = changes, output, sign, halves

        def forward(self, x):
            pairs = x.reshape(len(x), 2, -1).mT if self.halves else x.reshape(len(x), -1, 2)
            parts = [pairs[:, :, 0], pairs[:, :, 1]]
            m = self.in_block(parts[1 - self.changes])
            for block in self.mid_block:
                m = block(m)
            m = self.out_block(m)
            m = torch.relu(m) if self.output == "relu" else m
            parts[self.changes] = parts[self.changes] + (m if self.sign == "add" else -m)
            return torch.cat(parts, dim=1) if self.halves else torch.stack(parts, dim=2).reshape(x.shape)

    class MaskedCoupling(nn.Module):
        def __init__(self, dim, units, hidden, mask, output, sign, marks):
            super().__init__()
            sizes = pairwise([dim, *[units] * hidden, dim])
            stack = [module for a, b in sizes for module in (nn.Linear(a, b), nn.ReLU())]
            self.net = nn.Sequential(*(stack if output == "relu" else stack[:-1]))
            self.register_buffer("mask", mask)
            self.sign, self.marks = sign, marks

        def forward(self, x):
            read = self.mask if self.marks == "read" else 1 - self.mask
            m = self.net(read * x) * (1 - read)
            return x + m if self.sign == "add" else x - m

    class Scaling(nn.Module):
        def __init__(self, dim):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1, dim))

        def forward(self, x):
            return x * torch.exp(self.scale)

    class TorchNice(nn.Module):
        """Random weights, biases and scales of a size that keeps numbers about 1."""

        def __init__(self, couplings, prior="logistic"):
            super().__init__()
            self.coupling = nn.ModuleList(couplings)
            self.scaling = Scaling(DIM)
            self.prior = prior
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.normal_(0, 0.5, generator=generator)

        def forward(self, x):
            for coupling in self.coupling:
                x = coupling(x)
            return self.scaling(x)

        def log_prob(self, x):
            # PyTorch's softplus is x from 20 on, which float64 would notice.
            prior = log_prior(
                self(x), self.prior, lambda a: a.sum(-1), lambda a: nn.functional.softplus(a, threshold=50)
            )
            return prior + self.scaling.scale.sum()


def torch_alternating(start, couplings=4, units=6, hidden=3, output="linear", sign="add", prior="logistic"):
    """Couplings that change the `start` half and the other one in turn."""
    halves, first = start in ("first", "second"), start in ("odd", "second")
    made = [AlternatingCoupling(DIM, units, hidden, (k + first) % 2, output, sign, halves) for k in range(couplings)]
    return TorchNice(made, prior)


def torch_masked(masks, units=6, hidden=2, output="linear", sign="add", prior="logistic", marks="read"):
    """Couplings of full width, each with its mask."""
    made = [
        MaskedCoupling(DIM, units, hidden, torch.tensor(m, dtype=torch.float32), output, sign, marks) for m in masks
    ]
    return TorchNice(made, prior)


def train_torch(model):
    """A few steps of Adam on −log p."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    x = torch.rand(32, DIM, generator=torch.Generator().manual_seed(8))
    for _ in range(5):
        optimiser.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimiser.step()


def torch_density(model, x):
    """z and log p by PyTorch."""
    with torch.no_grad():
        x = torch.from_numpy(x)
        return model(x).numpy(), model.log_prob(x).numpy()
