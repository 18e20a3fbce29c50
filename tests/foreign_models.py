"""NICE as other programs write it, in PyTorch and Keras, with random weights; `Flow` has every choice."""

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


def points(rows=16, dim=DIM, seed=5):
    """[rows, dim] numbers about 1 in size, in float32."""
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype("float32")


def log_density(z, log_det, prior):
    """[B], in float64: log p of the x that z [B, D] belongs to."""
    z = np.asarray(z, "float64")
    terms = -0.5 * (z**2 + np.log(2 * np.pi)) if prior == "gaussian" else -np.logaddexp(0, z) - np.logaddexp(0, -z)
    return terms.sum(1) + float(log_det)


if "torch" in backend_names():
    ACTIVATIONS = {
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(0.2),
        "leaky, 0.07": lambda: nn.LeakyReLU(0.07),
        "tanh": nn.Tanh,
        "linear": nn.Identity,
        "mish": nn.Mish,
    }
    SCALES = {
        "exp(s)": torch.exp,
        "exp(-s)": lambda s: torch.exp(-s),
        "s": lambda s: s,
        "exp(s)+1e-5": lambda s: torch.exp(s) + 1e-5,
        "exp(s)+3e-4": lambda s: torch.exp(s) + 3e-4,
        "exp(2s)": lambda s: torch.exp(2 * s),
    }

    def stack(sizes, hidden, output):
        """The layers of m, first to last."""
        made = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            made += [nn.Linear(a, b), ACTIVATIONS[output if i == len(sizes) - 2 else hidden]()]
        return nn.Sequential(*made)

    class Flow(nn.Module):
        """A flow with every choice that the programs of others make differently."""

        def __init__(
            self,
            couplings=4,
            hidden=(6, 6),
            first=0,
            turns=True,
            split="interleaved",
            merge=None,
            permutation="none",
            permute="before",
            sign=1,
            activation="relu",
            output="linear",
            scale="exp(s)",
            prior="logistic",
            masked=False,
            stored=True,
            seed=0,
        ):
            super().__init__()
            generator = torch.Generator().manual_seed(seed)
            self.settings = (first, turns, split, merge or split, permutation, permute, sign, masked)
            width = DIM if masked else DIM // 2
            self.nets = nn.ModuleList(stack([width, *hidden, width], activation, output) for _ in range(couplings))
            self.log_scale = nn.Parameter(torch.zeros(1, DIM))
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.normal_(0, 0.5, generator=generator)
                if scale == "s":
                    self.log_scale.abs_().add_(0.1)
            self.scale, self.prior = SCALES[scale], prior
            order = [torch.randperm(DIM, generator=generator) for _ in range(couplings)]
            self.order = order if permutation == "shuffle" else [torch.arange(DIM).flip(0)] * couplings
            if permutation == "shuffle":
                for k, p in list(enumerate(order))[permute == "between" :]:
                    self.register_buffer(f"perm_{k}", p, persistent=stored)
            if masked:
                rows = torch.stack([self.mask(k) for k in range(couplings)])
                self.register_buffer("masks", rows, persistent=stored)

        def mask(self, k):
            """[D]: 1 where coupling k reads."""
            first, turns, split, *_ = self.settings
            mask = torch.zeros(DIM)
            mask[self.parts(split)[(first + (k if turns else 0)) % 2]] = 1
            return mask

        def parts(self, split):
            """The positions of x1 and x2."""
            places = torch.arange(DIM)
            return (places[::2], places[1::2]) if split == "interleaved" else (places[: DIM // 2], places[DIM // 2 :])

        def forward(self, x):
            first, turns, split, merge, permutation, permute, sign, masked = self.settings
            for k, net in enumerate(self.nets):
                if permutation != "none" and (permute == "before" or (permute == "between" and k)):
                    x = x[:, self.order[k]]
                if masked:
                    mask = self.masks[k]
                    x = x + sign * net(x * mask) * (1 - mask)
                else:
                    parts = [x[:, places] for places in self.parts(split)]
                    reads = (first + (k if turns else 0)) % 2
                    parts[1 - reads] = parts[1 - reads] + sign * net(parts[reads])
                    x = x.clone()
                    x[:, torch.cat(self.parts(merge))] = torch.cat(parts, 1)
                if permutation != "none" and permute == "after":
                    x = x[:, self.order[k]]
            return x * self.scale(self.log_scale)

        def says(self, x):
            """z and log p of x, as arrays."""
            return torch_says(self, x, torch.log(self.scale(self.log_scale)).sum(), self.prior)

    def torch_says(model, x, log_det, prior):
        """z by PyTorch, log p from it."""
        with torch.no_grad():
            z = model(torch.from_numpy(x)).numpy()
        return {"z": z, "log_prob": log_density(z, log_det.detach(), prior)}

    class Plain(nn.Module):
        """What the public programs below share."""

        prior = "logistic"

        def says(self, x):
            return torch_says(self, x, self.log_det(), self.prior)

        def randomise(self, seed=3):
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.normal_(0, 0.5, generator=generator)
            return self

    class Blocks(Plain):
        """In, mid and out blocks; couplings read odd and even places in turn; `epsilon` is added to exp(s)."""

        class Coupling(nn.Module):
            def __init__(self, config, units, hidden):
                super().__init__()
                self.config = config
                self.in_block = nn.Sequential(nn.Linear(DIM // 2, units), nn.ReLU())
                self.mid_block = nn.ModuleList(
                    nn.Sequential(nn.Linear(units, units), nn.ReLU()) for _ in range(hidden - 1)
                )
                self.out_block = nn.Linear(units, DIM // 2)

            def forward(self, x):
                pairs = x.reshape(len(x), DIM // 2, 2)
                on, off = (pairs[:, :, 0], pairs[:, :, 1]) if self.config else (pairs[:, :, 1], pairs[:, :, 0])
                m = self.in_block(off)
                for block in self.mid_block:
                    m = block(m)
                on = on + self.out_block(m)
                return torch.stack((on, off) if self.config else (off, on), dim=2).reshape(len(x), DIM)

        class Scaling(nn.Module):
            def __init__(self, epsilon):
                super().__init__()
                self.scale, self.epsilon = nn.Parameter(torch.zeros(1, DIM)), epsilon

            def forward(self, x):
                return x * (torch.exp(self.scale) + self.epsilon)

        def __init__(self, couplings=4, units=6, hidden=3, config=1, epsilon=0.0):
            super().__init__()
            self.coupling = nn.ModuleList(self.Coupling((config + k) % 2, units, hidden) for k in range(couplings))
            self.scaling = self.Scaling(epsilon)
            self.randomise()

        def forward(self, x):
            for coupling in self.coupling:
                x = coupling(x)
            return self.scaling(x)

        def log_det(self):
            return self.scaling.scale.sum()

    class Masked(Plain):
        """Networks of all dimensions with masks that are no buffers, LeakyReLU where `slope` isn't 0."""

        def __init__(self, couplings=4, units=6, slope=0.2):
            super().__init__()
            act = (lambda: nn.LeakyReLU(slope)) if slope else nn.ReLU
            self.coupling_layers = nn.ModuleList()
            for _ in range(couplings):
                layer = nn.Module()
                layer.m = nn.Sequential(
                    nn.Linear(DIM, units), act(), nn.Linear(units, units), act(), nn.Linear(units, DIM)
                )
                self.coupling_layers.append(layer)
            self.scaling_layer = nn.Module()
            self.scaling_layer.log_scale_vector = nn.Parameter(torch.zeros(1, DIM))
            self.randomise()

        def forward(self, x):
            for k, layer in enumerate(self.coupling_layers):
                mask = torch.zeros(DIM)
                mask[(k + 1) % 2 :: 2] = 1
                x = mask * x + ((1 - mask) * x + (1 - mask) * layer.m(mask * x))
            return x * torch.exp(self.scaling_layer.log_scale_vector)

        def log_det(self):
            return self.scaling_layer.log_scale_vector.sum()

    class Swapped(Plain):
        """Four networks by name, halves that change places, z = s · h; ReLU before the first layer where `odd`."""

        prior = "gaussian"

        def __init__(self, odd=False):
            super().__init__()
            for k in range(1, 5):
                setattr(self, f"m{k}", stack([DIM // 2, 5, 5, DIM // 2], "relu", "linear"))
            self.scaling_diag = nn.Parameter(torch.ones(DIM))
            self.odd = odd
            self.randomise()
            with torch.no_grad():
                self.scaling_diag.abs_().add_(0.2)

        def forward(self, x):
            for m in (self.m1, self.m2, self.m3, self.m4):
                a, b = x.chunk(2, dim=1)
                x = torch.cat([b + m(torch.relu(a) if self.odd else a), a], dim=1)
            return x * self.scaling_diag

        def log_det(self):
            return torch.log(self.scaling_diag).sum()

    class Affine(Plain):
        """Two networks in each coupling: not NICE, and refused whatever their widths are."""

        def __init__(self, units=6, flat=False):
            super().__init__()
            make = lambda: stack([DIM // 2, units, DIM // 2], "relu", "linear")  # noqa: E731
            if flat:
                self.nets = nn.ModuleList(layer for _ in range(4) for net in (make(), make()) for layer in net[::2])
            else:
                self.s, self.t = nn.ModuleList(make() for _ in range(2)), nn.ModuleList(make() for _ in range(2))
            self.scale = nn.Parameter(torch.zeros(1, DIM))
            self.flat = flat
            self.randomise()

        def forward(self, x):
            for k in range(2):
                a, b = x[:, ::2], x[:, 1::2]
                if self.flat:
                    s, t = (self.nets[4 * k + i + 1](torch.relu(self.nets[4 * k + i](a))) for i in (0, 2))
                else:
                    s, t = self.s[k](a), self.t[k](a)
                x = torch.stack([b * torch.exp(s) + t, a], 2).reshape(x.shape)
            return x * self.scale.exp()

        def log_det(self):
            return self.scale.sum()


# Keras: the article's network


if "tensorflow" in backend_names():

    class Shuffle(layers.Layer):
        def __init__(self, idxs=None, mode="reverse", **kwargs):
            super().__init__(**kwargs)
            self.idxs, self.mode = idxs, mode

        def call(self, x):
            return ops.take(x, self.idxs or list(range(x.shape[1]))[::-1], axis=1)

    class SplitVector(layers.Layer):
        def call(self, x):
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
            return ops.reshape(ops.stack(parts, axis=2), (-1, 2 * parts[0].shape[1]))

    class Scale(layers.Layer):
        def __init__(self, form="exp(s)", **kwargs):
            super().__init__(**kwargs)
            self.form = form

        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(1, shape[1]), initializer="zeros")

        def factor(self):
            s = self.kernel
            return {"exp(s)": ops.exp(s), "exp(-s)": ops.exp(-s), "exp(s)+0.01": ops.exp(s) + 0.01}[self.form]

        def call(self, x):
            return x * self.factor()

    class Halve(layers.Layer):
        """Not of the article."""

        def call(self, x):
            return x / 2

    class Encoder(keras.Model):
        """The article's encoder as a class of its own, whose configuration lists no layers."""

        def __init__(self, couplings=3, units=7, act="relu", **kwargs):
            super().__init__(**kwargs)
            after = (lambda: layers.LeakyReLU()) if act == "leaky" else layers.ReLU
            self.networks = [
                keras.Sequential([layers.Dense(units), after(), layers.Dense(DIM // 2), after()])
                for _ in range(couplings)
            ]
            self.scale = Scale()

        def call(self, x):
            for network in self.networks:
                x1, x2 = SplitVector()(ops.flip(x, axis=1))
                x = ConcatVector()([x1, x2 - network(x1)])
            return self.scale(x)


def keras_article(
    couplings=3,
    units=(7, 7),
    *,
    kind="functional",
    idxs=None,
    add=False,
    permuted=True,
    reads=0,
    hidden="relu",
    output="relu",
    apart=False,
    extra=None,
    bias=True,
    form="exp(s)",
    named=False,
):
    """The article's encoder with random weights; `named`: names that sort backwards, `apart`: activations as layers."""
    x = h = layers.Input((DIM,))
    split = SplitVector()
    for k in range(couplings):
        h = Shuffle(idxs)(h) if permuted else h
        parts = split(h)
        made = []
        for i, size in enumerate([*units, DIM // 2]):
            activation = output if i == len(units) else hidden
            naming = {"name": f"{'zyxwvutsrqponm'[k]}_net_{i}"} if named else {}
            made.append(layers.Dense(size, None if apart else activation, use_bias=bias, **naming))
            made += [layers.Activation(activation)] if apart and activation else []
            made += [extra()] if extra and i == 0 else []
        made = [keras.Sequential(made)] if kind != "flat" else made
        m = parts[reads]
        for layer in made:
            m = layer(m)
        way = -1 if reads else 1
        h = ConcatVector()(AddCouple(add)([*parts[::way], m])[::way])
    model = keras.Model(x, Scale(form)(h))
    return randomised(model)


def randomised(model, seed=0):
    """The model, with weights that keep numbers about 1."""
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def keras_says(model, x, prior="gaussian"):
    """z by Keras, log p from it."""
    z = np.asarray(model(x))
    layer = model.scale if isinstance(model, Encoder) else model.layers[-1]
    return {"z": z, "log_prob": log_density(z, np.log(np.asarray(layer.factor())).sum(), prior)}
