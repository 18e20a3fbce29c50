"""What the arrays of a file can be: the networks of the couplings, the scale, masks and permutations.

Names say which layers belong together, numbers in them and shapes in what order; nothing else is concluded from a
name: `first` stands before `last` by the alphabet alone, which proves nothing. Where more than one order or division
is possible, all of them are given.
"""

import re
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import ParameterError
from bench.weights.files import Content

Network = list[tuple[NDArray, NDArray]]  # (kernel [in, out], bias [out]) of each dense layer, first to last
Choices = dict[str, str]


@dataclass(frozen=True)
class Parts:
    """What a file holds, by what it is for.

    Attributes:
        divisions: every possible list of networks, one a coupling, with the choices that lead to it.
        scale: [D], however it is applied.
        masks: [D] of 0 and 1 of each coupling; none where the file has none.
        permutations: [D] of each coupling, or one for all; likewise.
        unproved: choices that names and shapes seem to settle, but that another kind of network could bring about too.
        unordered: names of two masks or permutations that differ in a word, whose order is that of the alphabet alone.
    """

    divisions: list[tuple[Choices, list[Network]]]
    scale: NDArray
    masks: list[NDArray]
    permutations: list[NDArray]
    unproved: list[str]
    unordered: list[tuple[str, str]]


def find(content: Content) -> Parts:
    """Sort the arrays of a file.

    Raises:
        ParameterError: an array that is none of these, no layers, not one scale, or networks that no architecture has.
    """
    # Half precision as float32, which holds it exactly.
    arrays = {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in content.arrays.items()}
    if bad := [n for n, a in arrays.items() if a.dtype.kind not in "fiub" or not np.isfinite(a).all()]:
        raise ParameterError(f"{content.source}: {bad[0]} has values that are not finite numbers; expected none")
    kernels = [name for name, array in arrays.items() if name.endswith(("weight", "kernel")) and array.ndim == 2]
    if not kernels:
        raise ParameterError(f"{content.source}: has no weights of linear layers; expected those of a NICE flow")
    biases = {name: re.sub("(weight|kernel)$", "bias", name) for name in kernels}
    rest = [name for name in arrays if name not in {*kernels, *biases.values()}]
    masks = [name for name in rest if _is_mask(arrays[name], name)]
    indices = [name for name in rest if name not in masks and _is_index(arrays[name])]
    scales = [name for name in rest if name not in {*masks, *indices}]
    dim = max((arrays[name].size for name in scales), default=0)
    other = [name for name in scales if arrays[name].shape not in ((dim,), (1, dim)) or arrays[name].dtype.kind != "f"]
    if other or len(scales) != 1:
        found = [f"{name} {arrays[name].shape}" for name in other or scales]
        raise ParameterError(
            f"{content.source}: besides linear layers, masks and permutations it has {', '.join(found) or 'nothing'}; "
            "expected one scale of shape (D,) or (1, D)"
        )
    if dim % 2:
        raise ParameterError(f"{content.source}: {scales[0]} has {dim} values; expected an even number")
    layers = {name: (arrays[name], arrays.get(biases[name], np.zeros(0, arrays[name].dtype))) for name in kernels}
    divisions = _divisions(content, layers, dim)
    square = all(kernel.shape[0] == kernel.shape[1] for kernel, _ in layers.values())
    unproved = ["couplings"] * (square or not _grouped(list(layers))[1]) + ["hidden_layers"] * square
    unproved += ["layers"] * _worded(layers, dim)
    unordered = [pair for some in (masks, indices) if (pair := _told_by_a_word(_sorted(some)))]
    if odd := [name for name in indices if arrays[name].size != dim]:
        raise ParameterError(
            f"{content.source}: {odd[0]} holds {arrays[odd[0]].size} integers from 0 up; expected a permutation of "
            f"{dim} dimensions"
        )
    permutations = [p for p in content.permutations if p.size == dim] + [arrays[name] for name in _sorted(indices)]
    if content.permutations and len(permutations) == len(indices):
        raise ParameterError(f"{content.source}: a layer's permutation has not {dim} entries, as the scale has")
    rows = [row for name in _sorted(masks) for row in np.atleast_2d(arrays[name])]
    for row in rows:
        if row.size != dim or row.sum() != dim // 2:
            raise ParameterError(
                f"{content.source}: a mask has {int(row.sum())} of {row.size} entries set; expected {dim // 2} of {dim}"
            )
    return Parts(divisions, arrays[scales[0]].reshape(-1), rows, permutations, unproved, unordered)


def _is_mask(array: NDArray, name: str) -> bool:
    return "mask" in name.rpartition(".")[2] and array.ndim in (1, 2) and bool(np.isin(array, (0, 1)).all())


def _is_index(array: NDArray) -> bool:
    return array.dtype.kind in "iu" and array.ndim == 1 and np.array_equal(np.sort(array), np.arange(array.size))


def _sorted(names: list[str]) -> list[str]:
    """By the numbers in them: layer 2 stands before layer 10."""
    return sorted(names, key=lambda name: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)])


def _told_by_a_word(names: list[str]) -> tuple[str, str] | None:
    """Two neighbours in a list that differ first in a word, rather than in a number; None where there are none."""
    for pair in pairwise(names):
        tokens = enumerate(zip_longest(*(re.split(r"(\d+)", name) for name in pair)))
        place, found = next((i, both) for i, both in tokens if both[0] != both[1])
        if place % 2 == 0 or None in found:
            return pair
    return None


def _worded(layers: dict[str, tuple[NDArray, NDArray]], dim: int) -> bool:
    """Whether words alone say in what order some layers of a network stand, whose shapes would fit in any."""
    alike: dict[tuple[int, int], list[str]] = {}
    for i, group in enumerate(_grouped(_sorted(list(layers)))[0]):
        for name in group:
            alike.setdefault((i, _end(layers[name][0].shape, dim)), []).append(name)
    return any(_told_by_a_word(names) for names in alike.values())


def _divisions(content: Content, layers: dict[str, tuple[NDArray, NDArray]], dim: int) -> list[tuple[Choices, Any]]:
    """The layers as networks, in every way that their names and shapes allow."""
    made: dict[tuple[str, ...], tuple[Choices, list[Network]]] = {}
    reasons: list[str] = []
    for kernel in ("in,out",) if content.keras else ("out,in", "in,out"):
        oriented = {
            name: (w if kernel == "in,out" else w.T, b if b.size else np.zeros(w.shape[kernel == "in,out"], w.dtype))
            for name, (w, b) in layers.items()
        }
        orders = {"alphabetical" if _worded(layers, dim) else "numbered": _sorted(list(layers))}
        orders |= {"stored": list(layers)} if content.ordered else {}
        for order, names in orders.items():
            for networks in _cut(_grouped(names), oriented, dim, reasons):
                for direction, ordered in (("first to last", networks), ("last to first", networks[::-1])):
                    choices = {"kernel": kernel, "layers": order, "networks": direction}
                    choices |= {"couplings": str(len(networks)), "hidden_layers": str(len(networks[0]) - 1)}
                    key = (kernel, *("\n".join(network) for network in ordered))
                    made.setdefault(key, (choices, [[oriented[name] for name in network] for network in ordered]))
    if not made:
        raise ParameterError(f"{content.source}: {reasons[0]}")
    return list(made.values())


def _grouped(names: list[str]) -> tuple[list[list[str]], bool]:
    """Names by the first number in which they differ; whether each group is one coupling's, rather than one layer."""
    tokens = {name: re.split(r"(\d+)", name) for name in names}
    columns = enumerate(zip_longest(*tokens.values()))
    place, column = next(((i, column) for i, column in columns if len(set(column)) > 1), (0, ()))
    if place % 2 == 0 or None in column:  # they differ in a word, or there is one alone: a single coupling
        return [names], True
    groups: dict[int, list[str]] = {}
    for name in names:
        groups.setdefault(int(tokens[name][place]), []).append(name)
    if all(len(group) == 1 for group in groups.values()):
        return [names], False
    return list(groups.values()), True


def _cut(
    grouped: tuple[list[list[str]], bool], layers: dict[str, tuple[NDArray, NDArray]], dim: int, reasons: list[str]
) -> list[list[list[str]]]:
    """The possible lists of networks; without any, `reasons` gets why."""
    groups, whole = grouped
    count = len(groups[0])
    if whole:  # what reads from outside stands first, what writes to there last, wherever their names put them
        groups = [sorted(group, key=lambda name: _end(layers[name][0].shape, dim)) for group in groups]
    divisors = [1] if whole else [n for n in range(1, count // 2 + 1) if count % n == 0]
    found = []
    for n in divisors:
        networks = [group[i : i + len(group) // n] for group in groups for i in range(0, len(group), len(group) // n)]
        reason = _mismatch(networks, layers, dim)
        if reason is None:
            found.append(networks)
        else:
            reasons.append(reason)
    return found


def _end(shape: tuple[int, ...], dim: int) -> int:
    """-1 of a layer that only its shape's input fits the dimensions, 1 of one that only its output fits, else 0."""
    reads, writes = (size in (dim // 2, dim) for size in shape)
    return writes - reads


def _mismatch(networks: list[list[str]], layers: dict[str, tuple[NDArray, NDArray]], dim: int) -> str | None:
    """Why these layers are no networks of an architecture; None if they are."""
    first = networks[0]
    width, hidden = layers[first[0]][0].shape
    if width not in (dim // 2, dim):
        return f"{first[0]} reads {width} dimensions; expected half of {dim}, or all where masks follow"
    for network in networks:
        if len(network) != len(first) or len(network) < 2:
            wanted = max(len(first), 2)
            return f"{network[0]} begins a network of {len(network)} layers; expected {wanted}, as in others"
        sizes = [width, *[hidden] * (len(network) - 1), width]
        for name, (before, after) in zip(network, pairwise(sizes), strict=True):
            kernel, bias = layers[name]
            if kernel.shape != (before, after) or bias.shape != (after,):
                two = before == hidden and kernel.shape[0] == width
                found = f"a kernel [in, out] of shape {kernel.shape} and a bias of shape {bias.shape}"
                more = "; two networks in a coupling aren't read" * two
                return f"{name} has {found}; expected {(before, after)} and {(after,)}{more}"
    return None
