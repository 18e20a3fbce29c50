"""Everything that a file of weights doesn't say of the flow, as choices; and what each choice makes of the numbers.

A reading is one value for each choice. `layouts` gives the orders of the dimensions that the choices allow, each once;
`encode` follows them to the letter, many at a time. Values that no `Architecture` can express are here too: a probe
that fits one of them as well proves nothing, and one that fits them alone shows by name what the flow is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from backends.architecture import Index
from backends.layout import tile
from bench.weights.networks import Choices, Network, Parts

SIGNS = {"add": 1, "subtract": -1}
PRIORS = ("gaussian", "logistic")


def _leaky(slope: float) -> Callable[[NDArray], NDArray]:
    return lambda a: np.where(a > 0, a, a * a.dtype.type(slope))


def _exp_plus(epsilon: float) -> Callable[[NDArray], NDArray]:
    return lambda s: np.exp(s) + epsilon


def _sigmoid(a: NDArray) -> NDArray:
    return 0.5 * (1 + np.tanh(0.5 * a))


ACTIVATIONS: dict[str, Callable[[NDArray], NDArray]] = {
    "relu": lambda a: np.maximum(a, 0),
    "linear": lambda a: a,
    **{f"leaky_relu({slope})": _leaky(slope) for slope in (0.01, 0.05, 0.1, 0.2, 0.3)},
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda a: np.logaddexp(a, 0),
    "elu": lambda a: np.where(a > 0, a, np.expm1(np.minimum(a, 0))),
    "silu": lambda a: a * _sigmoid(a),
    "gelu": lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
}
SCALES: dict[str, Callable[[NDArray], NDArray]] = {  # of s, what h is multiplied by
    "exp(s)": np.exp,
    "exp(-s)": lambda s: np.exp(-s),
    "s": lambda s: s,
    "1/s": lambda s: 1 / s,
    **{f"exp(s)+{epsilon}": _exp_plus(epsilon) for epsilon in (1e-5, 1e-4, 1e-3, 1e-2)},
    "softplus(s)": lambda s: np.logaddexp(s, 0),
    "sigmoid(s)": _sigmoid,
}
EXPRESSIBLE = {"activation": ("relu",), "output": ("relu", "linear"), "scale": ("exp(s)", "exp(-s)", "s", "1/s")}

ORDER = {  # the choices that make a layout; the first of equal ones is named
    "reorder": ("none", "tile"),
    "permutation": ("none", "reverse", "swap", "stored", "stored, inverse"),
    "permute": ("before", "after", "between"),
    "split": ("interleaved", "halves", "mask"),
    "merge": ("interleaved", "halves", "mask"),
    "reads": ("first", "second", "first, then second", "second, then first"),
}
OPTIONS: dict[str, tuple[str, ...]] = {  # () is a positive integer
    "couplings": (),
    "hidden_layers": (),
    "kernel": ("in,out", "out,in"),
    "layers": ("numbered", "alphabetical", "stored"),
    "networks": ("first to last", "last to first"),
    **ORDER,
    "sign": tuple(SIGNS),
    "activation": tuple(ACTIVATIONS),
    "output": tuple(ACTIVATIONS),
    "scale": tuple(SCALES),
    "prior": PRIORS,
}


@dataclass(frozen=True)
class Layout:
    """Which dimensions of x the couplings read and change, and in what order they come out.

    Attributes:
        choices: what it came from.
        steps: [couplings, 2, D/2] the dimensions of x that stand in the half that is read, and in the other.
        places: likewise, the positions of both halves in what the coupling is given.
        exit: [D] which dimension of x stands at each position of z.
    """

    choices: Choices
    steps: Index
    places: Index
    exit: Index

    @property
    def plain(self) -> bool:
        """Whether it is an architecture's own order, without stored permutations."""
        chosen = self.choices
        return (
            chosen["split"] == chosen["merge"] != "mask"
            and chosen["reads"] == "first"
            and chosen["permutation"] in ("none", "reverse")
            and chosen["permute"] != "between"
        )


def layouts(parts: Parts, networks: list[Network], division: Choices, allowed: Choices) -> list[Layout]:
    """Every layout that the file and `allowed` (choice → value) leave, each once, plain ones rather than others.

    `division` has the choices that led to the networks, one a coupling; where the file has the last one first, masks
    and permutations are likewise.
    """
    if parts.masks and len(parts.masks) != len(networks):
        return []
    names = {key: [value for value in values if allowed.get(key, value) == value] for key, values in ORDER.items()}
    for key, special, held in (
        ("split", "mask", parts.masks),
        ("merge", "mask", parts.masks),
        ("permutation", "stored", parts.permutations),
    ):
        names[key] = [value for value in names[key] if (special in value) == bool(held)]
    if parts.masks:  # each coupling has its own, so the halves needn't alternate
        names["reads"] = [value for value in names["reads"] if "then" not in value]
    made = (
        _follow(dict(zip(names, values, strict=True)), parts, len(networks), division)
        for values in product(*names.values())
    )
    found: dict[bytes, Layout] = {}
    full = networks[0][0][0].shape[0] == parts.scale.size
    for layout in sorted((layout for layout in made if layout), key=lambda layout: not layout.plain):
        found.setdefault(layout.steps.tobytes() + layout.places.tobytes() * full + layout.exit.tobytes(), layout)
    return list(found.values())


def _follow(choices: Choices, parts: Parts, couplings: int, division: Choices) -> Layout | None:
    """Follow every dimension, by its position in x, through the flow; None where the file has too few permutations."""
    dim = parts.scale.size
    way = -1 if division["networks"] == "last to first" else 1
    start = int(choices["permute"] == "between")
    permutations = parts.permutations[::way] or [_permutation(choices, dim)] * (couplings - start)
    if len(permutations) == 1:
        permutations = permutations * (couplings - start)
    if len(permutations) != couplings - start:
        return None
    if choices["permutation"] == "stored, inverse":
        permutations = [np.argsort(p) for p in permutations]
    order, steps, places = tile(dim) if choices["reorder"] == "tile" else np.arange(dim), [], []
    for k in range(couplings):
        if choices["permute"] != "after" and k >= start:
            order = order[permutations[k - start]]
        masks = parts.masks[::way][k : k + 1]
        halves = _halves(choices["split"], dim, masks)
        swapped = {"first": False, "second": True, "first, then second": k % 2 == 1}.get(choices["reads"], k % 2 == 0)
        places.append(halves[::-1] if swapped else halves)
        steps.append(order[places[-1]])
        merged = np.empty_like(order)
        merged[_halves(choices["merge"], dim, masks)] = order[halves]
        order = merged[permutations[k]] if choices["permute"] == "after" else merged
    return Layout(choices, np.array(steps), np.array(places), order)


def _permutation(choices: Choices, dim: int) -> Index:
    if choices["permutation"] == "reverse":
        return np.arange(dim)[::-1]
    if choices["permutation"] == "swap":  # the two parts, where they stand
        return np.roll(np.arange(dim), dim // 2) if choices["merge"] == "halves" else np.arange(dim) ^ 1
    return np.arange(dim)


def _halves(split: str, dim: int, masks: list[NDArray]) -> Index:
    """[2, D/2] the positions of x₁ and x₂."""
    if split == "mask":
        return np.argsort(-masks[0].astype(int), kind="stable").reshape(2, -1)
    return (tile(dim) if split == "interleaved" else np.arange(dim)).reshape(2, -1)


@dataclass(frozen=True)
class Reading:
    """One way to read a file: a value for each choice, and what it takes to follow it."""

    choices: Choices
    networks: list[Network]
    layout: Layout
    scale: NDArray

    @property
    def multiplier(self) -> NDArray:
        """[D] what h is multiplied by, in float64."""
        return SCALES[self.choices["scale"]](self.scale.astype(np.float64))

    @property
    def inexpressible(self) -> list[str]:
        """What no architecture can say of it, by name."""
        named = [f"{key}={self.choices[key]}" for key, some in EXPRESSIBLE.items() if self.choices[key] not in some]
        return named or ["a negative scale"] * bool((self.multiplier <= 0).any())

    def name(self) -> str:
        """All choices."""
        return ", ".join(f"{key}={value}" for key, value in self.choices.items())

    def outputs(self, x: NDArray, dtype: str) -> dict[str, NDArray]:
        """What the flow makes of x [B, D], in float64 or float32: z [B, D] and log_prob [B], in nats."""
        h = encode(x.astype(dtype), self.networks, [self.layout], self.choices)
        made = finish(h, self.multiplier, self.choices["prior"])
        return {name: array[0] for name, array in made.items()}


def encode(x: NDArray, networks: list[Network], some: list[Layout], choices: Choices) -> NDArray:
    """What leaves the couplings by each of G layouts, in the order of z: [B, D] → [G, B, D]."""
    steps, places = np.stack([layout.steps for layout in some]), np.stack([layout.places for layout in some])
    h = np.repeat(x[None], len(some), axis=0)
    rows, batch = np.arange(len(some))[:, None, None], np.arange(len(x))[:, None]
    for k, network in enumerate(networks):
        (read, changed), (read_at, changed_at) = (
            np.moveaxis(index[:, k], 1, 0)[:, :, None] for index in (steps, places)
        )
        # Layouts that begin alike are worked out once.
        begun = np.concatenate([steps[:, : k + 1], places[:, : k + 1]], axis=1).reshape(len(some), -1)
        _, one, all_ = np.unique(begun, axis=0, return_index=True, return_inverse=True)
        m = h[rows, batch, read][one]
        if full := network[0][0].shape[0] == x.shape[1]:  # all dimensions go in and come out, half of them count
            masked = np.zeros((len(one), *x.shape), h.dtype)
            masked[np.arange(len(one))[:, None, None], batch, read_at[one]] = m
            m = masked
        for i, (kernel, bias) in enumerate(network):
            m = m @ kernel.astype(h.dtype, copy=False) + bias.astype(h.dtype, copy=False)
            m = ACTIVATIONS[choices["output" if i == len(network) - 1 else "activation"]](m)
        m = m[all_.reshape(-1)]
        h[rows, batch, changed] += SIGNS[choices["sign"]] * (m[rows, batch, changed_at] if full else m)
    return h[rows, batch, np.stack([layout.exit for layout in some])[:, None]]


def finish(h: NDArray, multiplier: NDArray, prior: str) -> dict[str, NDArray]:
    """z [..., D] and log_prob [...] of what leaves the couplings."""
    z = h * multiplier.astype(h.dtype)
    normal = prior == "gaussian"
    density = -0.5 * (z * z + z.dtype.type(np.log(2 * np.pi))) if normal else -np.logaddexp(z, 0) - np.logaddexp(-z, 0)
    return {"z": z, "log_prob": density.sum(axis=-1) + np.log(np.abs(multiplier)).sum().astype(h.dtype)}


def halved(network: Network, read: Index, changed: Index) -> Network:
    """The network of half the dimensions; of one that has all of them, the rows and columns that are used."""
    layers = list(network)
    if layers[0][0].shape[0] != len(read):
        layers[0] = (layers[0][0][read], layers[0][1])
        layers[-1] = (layers[-1][0][:, changed], layers[-1][1][changed])
    return layers
