"""What a PyTorch state dictionary of somebody else's NICE holds.

Read are `nn.Linear` layers (weight [out, in] and bias), one scale of D values, z = exp(scale) · h, and masks of 0 and
1. Networks are told apart by the first number in which the names differ (`coupling.0.…`, `nets.3.…`), layers of one
network follow each other as the module registered them. Anything else in the file is refused by name.
"""

from __future__ import annotations

import importlib
import re
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

import backends
from backends import ParameterError
from bench.weights.foreign import Dense, Found


def torch_files() -> ModuleType:
    """What reads and writes PyTorch's files; imported here, since it imports PyTorch.

    Raises:
        UnavailableError: PyTorch can't be imported here.
    """
    backends.backend_class("torch")
    return importlib.import_module("backends.torch_files")


def read(path: Path) -> Found | None:
    """Read a `.pt` or `.pth` file without executing pickled code.

    Returns:
        What it holds; None if it is one that `backends.torch_files.write_weights` wrote.

    Raises:
        ParameterError: not a state dictionary, or one with entries other than those above.
        UnavailableError: PyTorch can't be imported here.
    """
    arrays = torch_files().read_state_dict(path)
    if arrays is None:
        return None
    layers = [name for name, array in arrays.items() if name.endswith("weight") and array.ndim == 2]
    if not layers:
        raise ParameterError(f"{path}: has no weights of linear layers; expected a state dictionary of a NICE flow")
    for name in layers:
        if _bias(name) not in arrays:
            raise ParameterError(f"{path}: {name} has no bias; expected {_bias(name)}")
    rest = [name for name in arrays if name not in {*layers, *map(_bias, layers)}]
    masks = sorted((name for name in rest if "mask" in name.rpartition(".")[2]), key=_numbers)
    scales = [name for name in rest if "scal" in name.lower() and name not in masks]
    other = [name for name in rest if name not in {*masks, *scales}]
    if other:
        shape = arrays[other[0]].shape
        raise ParameterError(
            f"{path}: {other[0]} of shape {shape} is none of linear layer, scale and mask ({len(other)} such in all)"
        )
    if len(scales) != 1:
        raise ParameterError(f"{path}: has {len(scales)} entries of a scale {scales}; expected one, of D values")
    names, chain = _networks(layers)
    return Found(
        source=str(path),
        networks=[[Dense(name, arrays[name].T, arrays[_bias(name)]) for name in network] for network in names],
        log_scale=arrays[scales[0]],
        chain=chain,
        masks=_rows([arrays[name] for name in masks]) if masks else None,
        alternates=any("in_block" in name for name in layers),
        unchecked="activations, and the order in which layers are used: a state dictionary doesn't hold them",
    )


def _bias(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _rows(masks: list[NDArray]) -> list[NDArray]:
    """One mask of each coupling: [D] or [1, D] each, or all of them as [K, D]."""
    if len(masks) == 1 and masks[0].ndim == 2:
        return list(masks[0])
    return [np.asarray(mask).reshape(-1) for mask in masks]


def _networks(layers: list[str]) -> tuple[list[list[str]], bool]:
    """Layers by network; or all in one list and True where their names only number them."""
    tokens = {name: re.split(r"(\d+)", name) for name in layers}
    columns = enumerate(zip_longest(*tokens.values()))
    place, found = next(((i, column) for i, column in columns if len(set(column)) > 1), (0, ()))
    if place % 2 == 0 or None in found:  # they differ in a word, or there is one alone: layers of a single network
        return [layers], False
    numbers = sorted({int(digits) for digits in found})
    networks = [[name for name in layers if int(tokens[name][place]) == number] for number in numbers]
    if all(len(network) == 1 for network in networks):
        return [layers], True
    return networks, False
