"""What a Keras 3 `.weights.h5` or `.keras` file of the article's network holds. Read with h5py, without Keras.

Keras stores the arrays of a layer under `…/layers/{class}_{n}/vars/{0, 1, …}`: n counts the layers of a class in their
order, whatever their names are. A `.keras` has a `config.json` beside the weights; `keras_config` takes from it
what the weights can't say.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from backends import ParameterError
from bench.weights import keras_config
from bench.weights.foreign import Dense, Found

NOT_THE_MODEL = ("optimizer", "metrics", "compile_metrics", "loss_tracker")


@dataclass(frozen=True)
class Layer:
    """A layer that has weights: its group in the file, the name that the user sees if stored, its arrays in order."""

    path: str
    label: str
    arrays: list[NDArray]

    @property
    def name(self) -> str:
        """For messages."""
        return self.label or self.path


def read_h5(path: Path) -> Found:
    """Read a `.weights.h5` file: what shapes can say is checked, activations can't be.

    Raises:
        ParameterError: not such a file, layers that the article's network doesn't have, or no order to be told.
    """
    try:
        with h5py.File(path, "r") as file:
            layers = _layers(file, path)
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ParameterError(f"{path}: not a Keras weights file ({type(error).__name__}: {error})") from error
    return _found(path, layers, None)


def read_keras(path: Path) -> Found:
    """Read a `.keras` file: names, order and activations from its configuration too.

    Raises:
        ParameterError: as `read_h5`, or a configuration that no architecture can express.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                layers = _layers(file, path)
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(f"{path}: not a .keras file ({type(error).__name__}: {error})") from error
    try:
        return _found(path, layers, config)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ParameterError(f"{path}: its config.json can't be used ({type(error).__name__}: {error})") from error


def _layers(file: Any, path: Path) -> list[Layer]:
    if "model_weights" in file or "layer_names" in file.attrs:
        raise ParameterError(f"{path}: is of Keras 2; load it with Keras and save it again as .weights.h5 or .keras")
    return list(_walk(file, "", path))


def _walk(group: Any, here: str, path: Path) -> Iterator[Layer]:
    for name in sorted(group, key=_natural):
        if name == "seed_generator" or (not here and name in NOT_THE_MODEL):
            continue
        inside = f"{here}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Group):
            raise ParameterError(f"{path}: {inside} is a link or an array; expected groups, as Keras 3 makes them")
        if name != "vars":
            yield from _walk(group[name], inside, path)
        elif len(group[name]):
            stored = group[name]
            yield Layer(
                here, str(stored.attrs.get("name", "")), [np.asarray(stored[str(i)][()]) for i in range(len(stored))]
            )


def _found(path: Path, layers: list[Layer], config: dict[str, Any] | None) -> Found:
    catalogue = {} if config is None else keras_config.catalogue(config)
    scales, dense = [], []
    for layer in layers:
        shapes = [array.shape for array in layer.arrays]
        ranks = [len(shape) for shape in shapes]
        if ranks == [2, 1] and _is(catalogue, layer, "Dense"):
            dense.append(layer)
        elif len(shapes) == 1 and (ranks == [1] or shapes[0][:1] == (1,)) and ranks[0] <= 2:
            scales.append(layer)
        elif ranks == [2]:
            raise ParameterError(f"{path}: layer {layer.name} has a kernel and no bias; expected both")
        else:
            raise ParameterError(f"{path}: layer {layer.name} has arrays of shapes {shapes}; expected Dense or Scale")
    if not dense:
        raise ParameterError(f"{path}: has no Dense layers; expected those of the article's network")
    if len(scales) != 1:
        raise ParameterError(f"{path}: has {len(scales)} layers with a (1, D) scale; expected one")
    listed = all(layer.path in catalogue for layer in dense)
    if listed:
        places = list(catalogue)
        dense.sort(key=lambda layer: places.index(layer.path))
    elif len({_unnumbered(layer.path) for layer in dense}) > 1:
        names = sorted({_unnumbered(layer.path) for layer in dense})
        raise ParameterError(f"{path}: the order of layers named {', '.join(names)} can't be told; save a .keras file")
    networks = _networks(dense, catalogue if listed else None)
    says: dict[str, Any] = {}
    unchecked = "activations and the layers between networks: the file doesn't hold them"
    if listed:
        for layer in layers:
            listing = catalogue.get(layer.path)
            if listing and layer.label and keras_config.name(listing) != layer.label:
                raise ParameterError(f"{path}: weights of {layer.name} stand where config.json has another layer")
        says = keras_config.check(str(path), catalogue, [layer.path for layer in dense])
        unchecked = "what layers of the user's own classes compute" if keras_config.has_own(catalogue) else ""
    return Found(
        source=str(path),
        networks=[[Dense(layer.name, *layer.arrays) for layer in network] for network in networks],
        log_scale=scales[0].arrays[0],
        chain=len(networks) == 1 and not listed,
        says=says,
        base="article",
        unchecked=unchecked,
    )


def _networks(dense: list[Layer], catalogue: dict[str, Any] | None) -> list[list[Layer]]:
    """Layers of one nested model together; layers of the model itself by their connections, if those are known."""
    networks: dict[str | int, list[Layer]] = {}
    count = 0
    for layer in dense:
        parent = _parent(layer)
        if catalogue is not None and not parent:
            count += keras_config.starts(catalogue, layer.path)
        networks.setdefault(parent or count, []).append(layer)
    return list(networks.values())


def _is(catalogue: dict[str, Any], layer: Layer, kind: str) -> bool:
    """Whether the configuration, if it lists the layer, says that it's of this class."""
    return layer.path not in catalogue or catalogue[layer.path]["class_name"] == kind


def _parent(layer: Layer) -> str:
    return layer.path.rpartition("/")[0].removesuffix("/layers")


def _natural(name: str) -> tuple[str, int]:
    """`dense`, `dense_1`, … `dense_10` in the order of their numbers."""
    base, number = re.fullmatch(r"(.*?)_?(\d*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return base, int(number or -1)


def _unnumbered(path: str) -> str:
    return re.sub(r"_?\d+", "", path)
