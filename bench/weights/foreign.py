"""Weights that another program trained, as canonical parameters.

A reader (`keras_weights`, `state_dicts`) finds what a file holds: dense layers, the log scale, masks, and
what the file says about the flow. `fit` brings that and the user's options together into an `Architecture`, and
refuses what no `Architecture` can express.

Couplings that name what they read, by a mask or by taking turns, have no permutation. They get stored ones: each
brings the dimensions that a coupling reads to where the split finds them. Numbers are moved, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from backends import Architecture, ParameterError, parameters
from backends.architecture import ArchitectureError, Index, bias_name, kernel_name, permutation_name
from backends.layout import tile
from backends.parameters import Parameters
from bench.errors import BenchError

BASES = {"article": Architecture.article, "paper": Architecture.paper}
SIZES = ("dim", "couplings", "hidden_layers", "hidden_units")
ALTERNATE = {"even": ("interleaved", 0), "odd": ("interleaved", 1), "first": ("halves", 0), "second": ("halves", 1)}
OWN = {"alternate": tuple(ALTERNATE), "mask": ("read", "changed")}
OPTIONS = {name: get_args(hint) for name, hint in get_type_hints(Architecture).items()} | OWN  # values; () is a size

Partition = tuple[Index, Index]


@dataclass(frozen=True)
class Dense:
    """A dense layer: its name in the file, kernel [in, out], bias [out]."""

    name: str
    kernel: NDArray
    bias: NDArray


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        source: the file, for messages.
        networks: the dense layers of each coupling's network, couplings in encoder order.
        log_scale: [D], or [1, D].
        chain: the layers of all networks stand in `networks[0]`, one after the other.
        masks: of each coupling, [D] of 0 and 1.
        says: fields of the architecture that the file itself states.
        base: which of `BASES` it is if the user doesn't say; None: the user must.
        alternates: known to be of a form whose couplings take turns, so that the user must say which begins.
        unchecked: what the reader couldn't look at, for the report.
    """

    source: str
    networks: list[list[Dense]]
    log_scale: NDArray
    chain: bool = False
    masks: list[NDArray] | None = None
    says: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    alternates: bool = False
    unchecked: str = ""


@dataclass(frozen=True)
class Mapping:
    """How couplings that read and change given dimensions are expressed by permutations and a split.

    Attributes:
        fields: reorder, split, permutation and permute of the architecture.
        permutations: [D] int32 of each coupling.
        order: [D] which dimension of the foreign z stands at each position of z.
    """

    fields: dict[str, str]
    permutations: list[NDArray]
    order: Index


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE → {key: value}; keys are the fields of `Architecture`, `alternate` and `mask`.

    Raises:
        BenchError: an unknown key, a key twice, or a value that the key can't have.
    """
    options: dict[str, Any] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or key not in OPTIONS or key in options:
            raise BenchError(f"--option {entry!r}: expected KEY=VALUE, each KEY once and one of {', '.join(OPTIONS)}")
        if OPTIONS[key] and value not in OPTIONS[key]:
            raise BenchError(f"--option {entry!r}: expected one of {', '.join(OPTIONS[key])}")
        if key in SIZES and not value.isdecimal():
            raise BenchError(f"--option {entry!r}: expected a positive integer")
        options[key] = int(value) if key in SIZES else value
    return options


def fit(found: Found, base: str | None = None, given: Sequence[str] = ()) -> tuple[Architecture, Parameters, list[str]]:
    """Express what a file holds as an architecture and its canonical parameters.

    Args:
        found: what a reader made of the file.
        base: "article" or "paper", the source of every option that neither the file nor `given` states.
        given: the user's options, KEY=VALUE.

    Returns:
        The architecture, the parameters in the dtype of the file, and lines that say what came from where.

    Raises:
        BenchError: options that can't be used, or that contradict the file; no base where one is needed.
        ParameterError: a network that no architecture can express, and what differs.
    """
    options = parse_options(given)
    base = base or found.base
    if base is None:
        raise BenchError(f"{found.source}: doesn't say what flow it is; give --architecture {' or '.join(BASES)}")
    if base not in BASES:
        raise BenchError(f"--architecture {base!r}: expected {' or '.join(BASES)}")
    networks, sizes, width = _sizes(found, options)
    partitions = _partitions(found, options, sizes)
    if partitions is None and width == sizes["dim"]:
        raise BenchError(
            f"{found.source}: the networks read all {width} dimensions and the file has no masks; give --option "
            f"alternate={'|'.join(ALTERNATE)}, the half that the first coupling changes"
        )
    if partitions is None and found.alternates and "permutation" not in options:
        raise BenchError(
            f"{found.source}: couplings of this form change the even and the odd dimensions in turn; give --option "
            "alternate=even or alternate=odd, whichever the first one changes (or --option permutation=…)"
        )
    mapping = None if partitions is None else _mapping(partitions)
    stated = sizes | found.says | (mapping.fields if mapping else {})
    for key, value in options.items():
        if key in stated and stated[key] != value:
            raise BenchError(f"--option {key}={value} contradicts {found.source}, where {key} is {stated[key]}")
    chosen = {key: value for key, value in options.items() if key not in OWN}
    try:
        architecture = Architecture.from_dict(BASES[base]().to_dict() | stated | chosen)
    except ArchitectureError as error:
        raise ParameterError(f"{found.source}: {error}") from error
    if architecture.permutation == "shuffle" and mapping is None:
        raise BenchError(f"{found.source}: holds no shuffled order; permutation can only be reverse or none")
    arrays = _arrays(networks, found.log_scale, partitions if width == sizes["dim"] else None, mapping)
    parameters.check(architecture, arrays, source=found.source)
    return architecture, arrays, _report(found, architecture, base, stated, options, mapping)


def _sizes(found: Found, options: dict[str, Any]) -> tuple[list[list[Dense]], dict[str, int], int]:
    """The networks one by one, the four sizes, and how many dimensions the networks read; all kernels chain."""
    dim = found.log_scale.size
    if found.log_scale.shape not in ((dim,), (1, dim)) or dim % 2:
        raise ParameterError(f"{found.source}: the scale has shape {found.log_scale.shape}; expected (1, D), D even")
    first = found.networks[0][0]
    width = first.kernel.shape[0]
    if width not in (dim // 2, dim):
        raise ParameterError(
            f"{found.source}: {first.name} reads {width} of {dim} dimensions; expected half of them ({dim // 2})"
        )
    networks = _cut(found, width, options) if found.chain else found.networks
    hidden = first.kernel.shape[1]
    for k, network in enumerate(networks):
        if len(network) != len(networks[0]) or len(network) < 2:
            raise ParameterError(
                f"{found.source}: the network of coupling {k} has {len(network)} dense layers, that of coupling 0 has "
                f"{len(networks[0])}; expected as many in each, and 2 at least"
            )
        widths = [width, *[hidden] * (len(network) - 1), width]
        for layer, shape in zip(network, pairwise(widths), strict=True):
            if layer.kernel.shape != shape or layer.bias.shape != shape[1:]:
                raise ParameterError(
                    f"{found.source}: {layer.name} has a kernel [in, out] of shape {layer.kernel.shape} and a bias of "
                    f"shape {layer.bias.shape}; expected {shape} and {shape[1:]}"
                )
    sizes = dict(zip(SIZES, (dim, len(networks), len(networks[0]) - 1, hidden), strict=True))
    return networks, sizes, width


def _cut(found: Found, width: int, options: dict[str, Any]) -> list[list[Dense]]:
    """One chain of layers → networks, which end where the width is that of the input again."""
    (layers,) = found.networks
    if "couplings" in options or "hidden_layers" in options:
        couplings = options.get("couplings") or len(layers) // (options["hidden_layers"] + 1)
        if couplings == 0 or len(layers) % couplings:
            raise BenchError(f"{found.source}: has {len(layers)} dense layers; they don't make {couplings} networks")
        ends = [len(layers) // couplings * (k + 1) for k in range(couplings)]
    elif layers[0].kernel.shape[1] == width:
        raise BenchError(
            f"{found.source}: every dense layer is {width} wide, so its shape doesn't tell where a network ends; give "
            "--option couplings=…"
        )
    else:
        ends = [i + 1 for i, layer in enumerate(layers) if layer.kernel.shape[1:] == (width,)]
        ends = ends if ends and ends[-1] == len(layers) else [*ends, len(layers)]
    return [layers[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _partitions(found: Found, options: dict[str, Any], sizes: dict[str, int]) -> list[Partition] | None:
    """The dimensions that each coupling reads and those that it changes, ascending; None if nothing says so."""
    dim, couplings = sizes["dim"], sizes["couplings"]
    if found.masks is None and "mask" in options:
        raise BenchError(f"{found.source}: has no masks, so --option mask={options['mask']} says nothing")
    turns = None
    if "alternate" in options:
        split, start = ALTERNATE[options["alternate"]]
        parts = np.split(tile(dim) if split == "interleaved" else np.arange(dim), 2)
        turns = [(parts[(start + k + 1) % 2], parts[(start + k) % 2]) for k in range(couplings)]
    if found.masks is None:
        return turns
    if len(found.masks) != couplings:
        raise ParameterError(f"{found.source}: has {len(found.masks)} masks and {couplings} networks; expected equal")
    partitions = []
    for k, mask in enumerate(found.masks):
        if mask.size != dim or not np.isin(mask, (0, 1)).all() or mask.sum() != dim // 2:
            raise ParameterError(
                f"{found.source}: the mask of coupling {k} has {int((mask != 0).sum())} of {mask.size} entries set; "
                f"expected {dim // 2} ones and {dim // 2} zeros"
            )
        ones, zeros = np.flatnonzero(mask), np.flatnonzero(mask == 0)
        partitions.append((zeros, ones) if options.get("mask") == "changed" else (ones, zeros))
    if turns is not None and not np.array_equal(partitions, turns):
        raise BenchError(f"--option alternate={options['alternate']} contradicts the masks of {found.source}")
    return partitions


def _mapping(partitions: list[Partition]) -> Mapping:
    """Choose split, permutations and their place so that z is in the foreign order, if any choice makes it so.

    Permutations before each coupling leave z as the last one has it: in order if the last coupling changes the odd
    dimensions or the second half. Those after each coupling start from x as it is, which wants the same of the first.
    """
    in_order = np.arange(2 * len(partitions[0][0]))

    def order(partition: Partition, split: str) -> Index:
        return np.stack(partition, axis=1).reshape(-1) if split == "interleaved" else np.concatenate(partition)

    natural = [
        (permute, split)
        for permute, decisive in (("before", partitions[-1]), ("after", partitions[0]))
        for split in ("interleaved", "halves")
        if np.array_equal(order(decisive, split), in_order)
    ]
    permute, split = natural[0] if natural else ("before", "interleaved")
    orders = [order(partition, split) for partition in partitions]
    stages = [in_order, *orders] if permute == "before" else [*orders, in_order]
    permutations = [np.argsort(held)[wanted].astype(np.int32) for held, wanted in pairwise(stages)]
    idle = all(np.array_equal(permutation, in_order) for permutation in permutations)
    chosen = {"reorder": "none", "split": split, "permutation": "none" if idle else "shuffle", "permute": permute}
    return Mapping(chosen, [] if idle else permutations, stages[-1])


def _arrays(
    networks: list[list[Dense]], log_scale: NDArray, partitions: list[Partition] | None, mapping: Mapping | None
) -> Parameters:
    """Canonical parameters; `partitions` where the networks have all D inputs and outputs, of which half are used."""
    arrays: Parameters = {}
    for k, network in enumerate(networks):
        for i, layer in enumerate(network):
            kernel, bias = layer.kernel, layer.bias
            if partitions is not None and i == 0:
                kernel = kernel[partitions[k][0]]
            if partitions is not None and i == len(network) - 1:
                kernel, bias = kernel[:, partitions[k][1]], bias[partitions[k][1]]
            arrays[kernel_name(k, i)], arrays[bias_name(k, i)] = np.array(kernel, order="C"), np.array(bias)
    arrays["log_scale"] = log_scale.reshape(-1)[... if mapping is None else mapping.order].copy()
    if mapping is not None:
        arrays.update({permutation_name(k): p for k, p in enumerate(mapping.permutations)})
    return arrays


def _report(
    found: Found,
    architecture: Architecture,
    base: str,
    stated: dict[str, Any],
    options: dict[str, Any],
    mapping: Mapping | None,
) -> list[str]:
    everything = architecture.to_dict()
    groups = {
        "from the file": [name for name in everything if name in stated],
        "from --option": [name for name in everything if name in options and name not in stated],
        f"from the {base} architecture": [n for n in everything if n not in stated and n not in options],
    }
    lines = [
        f"{origin}: {', '.join(f'{name}={everything[name]}' for name in names)}"
        for origin, names in groups.items()
        if names
    ]
    if found.masks is not None:
        lines.append(f"masks: 1 marks what a coupling {'changes' if options.get('mask') == 'changed' else 'reads'}")
    elif "alternate" in options:
        lines.append(f"alternate={options['alternate']}: as the stored permutations")
    if mapping is not None and not np.array_equal(mapping.order, np.arange(architecture.dim)):
        lines.append(
            "z comes out in another order than the foreign network's (the last coupling's: what it reads at even "
            "places, what it changes at odd ones); log p is the same"
        )
    if found.unchecked:
        lines.append(f"not checked: {found.unchecked}")
    return lines
