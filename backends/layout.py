"""Where each dimension lives while the flow runs, so that permutations cost nothing.

The text of the model permutes all dimensions at every coupling, splits, couples and merges. Reversals and
interleavings only rename dimensions, though, so a backend need not carry them out: it keeps two halves (a, b), lets
each coupling read one and change the other, and absorbs the renaming into the order of the first kernel's rows and of
the last layer's columns. Only a shuffle really moves data, and then once per coupling (`regroup`).

`Layout` is that renaming, worked out once from the architecture. `kernels in` and `out` of a backend go through
`to_layout` and `from_layout`, which move numbers and never change one. The NumPy reference doesn't use this module: it
follows the text literally, and so checks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.architecture import Architecture, Index, bias_name, kernel_name, permutation_name


@dataclass(frozen=True)
class Step:
    """What happens at one coupling.

    Attributes:
        regroup: None, or positions [D] in concat(a, b) from which the new concat(a, b) is gathered first.
        ungroup: the inverse of `regroup`, for the way back.
        swap: whether the coupling reads b and changes a, rather than the other way round.
        rows: [D/2] for each position of the half that is read, the row of the canonical first kernel.
        columns: [D/2] for each position of the half that is changed, the column of the canonical last kernel.
    """

    regroup: Index | None
    ungroup: Index | None
    swap: bool
    rows: Index
    columns: Index


@dataclass(frozen=True)
class Layout:
    """The order of dimensions inside a backend.

    Attributes:
        entry: [D] positions in x of the dimensions of concat(a, b) before the first coupling.
        steps: one for each coupling, in encoder order.
        exit: [D] positions in z of the dimensions of concat(a, b) after the last coupling.
    """

    entry: Index
    steps: tuple[Step, ...]
    exit: Index

    @property
    def entry_inverse(self) -> Index:
        """[D] positions in the first concat(a, b) of the dimensions of x."""
        return np.argsort(self.entry)

    @property
    def exit_inverse(self) -> Index:
        """[D] positions in the last concat(a, b) of the dimensions of z."""
        return np.argsort(self.exit)


def tile(dim: int) -> Index:
    """The order that puts the even dimensions first, then the odd ones."""
    return np.concatenate([np.arange(0, dim, 2), np.arange(1, dim, 2)])


def make_layout(architecture: Architecture, parameters: Mapping[str, NDArray]) -> Layout:
    """Follow every dimension, by its position in x, through the flow.

    Args:
        architecture: the flow.
        parameters: canonical parameters; only the stored permutations are read.
    """
    half = architecture.half
    # order[i]: which dimension of x stands at position i of the text's h; held: which stands where in concat(a, b).
    order = tile(architecture.dim) if architecture.reorder == "tile" else np.arange(architecture.dim)
    held: Index | None = None
    entry, steps = order, []
    for k in range(architecture.couplings):
        if architecture.permute == "before":
            order = _permuted(order, architecture, parameters, k)
        if architecture.split == "interleaved":
            read, changed = order[0::2], order[1::2]
        else:
            read, changed = order[:half], order[half:]
        regroup = None
        swap = False
        if held is None:
            entry = held = np.concatenate([read, changed])
        elif np.array_equal(np.sort(read), np.sort(held[half:])):
            swap = True
        elif not np.array_equal(np.sort(read), np.sort(held[:half])):
            wanted = np.concatenate([read, changed])
            regroup, held = _positions(wanted, held), wanted
        in_a, in_b = held[:half], held[half:]
        held_read, held_changed = (in_b, in_a) if swap else (in_a, in_b)
        steps.append(
            Step(
                regroup=regroup,
                ungroup=None if regroup is None else np.argsort(regroup),
                swap=swap,
                rows=_positions(held_read, read),
                columns=_positions(held_changed, changed),
            )
        )
        if architecture.permute == "after":
            order = _permuted(order, architecture, parameters, k)
    assert held is not None
    return Layout(entry=entry, steps=tuple(steps), exit=_positions(held, order))


def to_layout(architecture: Architecture, layout: Layout, canonical: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Canonical trainable arrays (parameters, gradients or moments) → the same in a backend's order."""
    return _reorder(architecture, layout, canonical, inverse=False)


def from_layout(architecture: Architecture, layout: Layout, arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The inverse of `to_layout`."""
    return _reorder(architecture, layout, arrays, inverse=True)


def _reorder(
    architecture: Architecture, layout: Layout, arrays: Mapping[str, NDArray], *, inverse: bool
) -> dict[str, NDArray]:
    def places(index: Index) -> Index:
        return np.argsort(index) if inverse else index

    out = {name: np.asarray(arrays[name]) for name in architecture.trainable_shapes}
    last = architecture.hidden_layers
    for k, step in enumerate(layout.steps):
        first_kernel, last_kernel, last_bias = kernel_name(k, 0), kernel_name(k, last), bias_name(k, last)
        out[first_kernel] = out[first_kernel][places(step.rows)]
        out[last_kernel] = out[last_kernel][:, places(step.columns)]
        out[last_bias] = out[last_bias][places(step.columns)]
    out["log_scale"] = out["log_scale"][places(layout.exit)]
    # Copies: what comes from a device may share its memory, and training goes on in place.
    return {name: np.array(array, order="C") for name, array in out.items()}


def _permuted(order: Index, architecture: Architecture, parameters: Mapping[str, NDArray], coupling: int) -> Index:
    if architecture.permutation == "reverse":
        return order[::-1]
    if architecture.permutation == "shuffle":
        return order[parameters[permutation_name(coupling)]]
    return order


def _positions(wanted: Index, held: Index) -> Index:
    """For each entry of `wanted`, its position in `held`; both hold the same entries, each once."""
    by_value = np.argsort(held)
    return by_value[np.searchsorted(held, wanted, sorter=by_value)]
