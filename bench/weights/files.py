"""Files of weights that another program wrote: every array by its name, and what a Keras file says of its layers.

Nothing pickled is executed, and nothing is unpacked that would take more than `MOST_BYTES`.
"""

import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import safetensors
from numpy.typing import NDArray

import backends
from backends import ParameterError

MOST_BYTES = 4 * 2**30
NOT_THE_MODEL = ("optimizer", "metrics", "compile_metrics", "loss_tracker", "seed_generator")
REFUSED = {  # layers that no reading has, by the names of their groups
    "leaky_re_lu": "LeakyReLU", "p_re_lu": "PReLU", "elu": "ELU", "softmax": "Softmax",
}  # fmt: skip
NETWORK = ("InputLayer", "Dense", "Activation", "ReLU", "Dropout", "GaussianNoise", "Functional", "Sequential")
RELU_DEFAULTS = {"max_value": None, "negative_slope": 0, "threshold": 0}


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        source: the file, for messages.
        arrays: name → array, in the file's order; a Dense layer's are NAME.kernel and NAME.bias.
        between: the layers that a configuration lists besides those of a network; what they do isn't read.
        permutations: lists of 0 … n − 1 in some order among the settings of those layers.
        ordered: whether the arrays' order is one that the program gave them.
        left_out: names of arrays beside those of the model.
    """

    source: str
    arrays: dict[str, NDArray]
    between: list[str] = field(default_factory=list)
    permutations: list[NDArray] = field(default_factory=list)
    ordered: bool = False
    left_out: list[str] = field(default_factory=list)

    @property
    def keras(self) -> bool:
        """Whether Keras wrote the file."""
        return self.source.lower().endswith((".h5", ".keras"))


def check_size(path: Path) -> None:
    """Refuse a file that is, or unpacks to, more than `MOST_BYTES`.

    Raises:
        ParameterError: it does.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
    _bounded(path, size)


def _bounded(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise ParameterError(f"{path}: holds {size / 2**30:.1f} GiB; expected at most {MOST_BYTES // 2**30}")


def torch_files() -> ModuleType:
    """What reads and writes PyTorch's files; imported here, since it imports PyTorch.

    Raises:
        UnavailableError: PyTorch can't be imported here.
    """
    backends.backend_class("torch")
    return importlib.import_module("backends.torch_files")


def read_torch(path: Path) -> Content | None:
    """Read a state dictionary; None if it is one that `backends.torch_files.write_weights` wrote."""
    found = torch_files().read_state_dict(path)
    return None if found is None else Content(str(path), found[0], ordered=True, left_out=found[1])


def read_safetensors(path: Path) -> Content | None:
    """Read a state dictionary; None if it is of this package, or no such file at all."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("format", "").startswith("nice-bench"):
                return None
        entries = dict(safetensors.deserialize(path.read_bytes()))
    except safetensors.SafetensorError:
        return None
    return Content(str(path), {name: _decoded(path, name, **entry) for name, entry in entries.items()})


def _decoded(path: Path, name: str, *, dtype: str, shape: list[int], data: bytes) -> NDArray:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    sizes = {"F": (2, 4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
    kind = {"BOOL": "?"} | {f"{k}{8 * n}": f"<{k.lower()}{n}" for k, some in sizes.items() for n in some}
    if dtype not in kind:
        raise ParameterError(f"{path}: {name} has dtype {dtype}; expected floats of 16, 32 or 64 bits, or integers")
    return np.frombuffer(data, kind[dtype]).reshape(shape)


def npz(path: Path) -> dict[str, NDArray]:
    """The arrays of an .npz file by their names.

    Raises:
        ParameterError: it is no such file.
        FileNotFoundError: there is none.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except Exception as error:  # whatever a damaged archive leads to
        raise ParameterError(f"{path}: not an .npz file of arrays ({error})") from error


def read_npz(path: Path) -> Content | None:
    """Read arrays by their names; None if the file is of this package."""
    arrays = npz(path)
    return None if "architecture" in arrays else Content(str(path), arrays, ordered=True)


def read_h5(path: Path) -> Content:
    """Read a Keras 3 `.weights.h5` file.

    Raises:
        ParameterError: not such a file, or one that names a layer that is never read.
    """
    try:
        with h5py.File(path, "r") as file:
            return Content(str(path), _arrays(path, file))
    except (OSError, KeyError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise ParameterError(f"{path}: not a Keras weights file ({type(error).__name__}: {error})") from error


def read_keras(path: Path) -> Content:
    """Read a `.keras` file: the arrays, and what its configuration says of activations and permutations.

    Raises:
        ParameterError: not such a file, or a layer or an activation that is never read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                arrays = _arrays(path, file)
        layers = list(_listed(config["config"]))
        for layer in layers:
            _check_layer(path, layer["class_name"], layer["config"])
        between = [layer for layer in layers if not _in_network(layer)]
        settings = [value for layer in between for value in layer["config"].values()]
        permutations = [np.array(value) for value in settings if _is_permutation(value)]
    except ParameterError:
        raise
    except Exception as error:  # whatever a damaged archive or a configuration of another shape leads to
        raise ParameterError(f"{path}: not a .keras file ({type(error).__name__}: {error})") from error
    return Content(str(path), arrays, [_call(layer["class_name"], layer["config"]) for layer in between], permutations)


def _arrays(path: Path, file: Any) -> dict[str, NDArray]:
    if "model_weights" in file or "layer_names" in file.attrs:
        raise ParameterError(f"{path}: is of Keras 2; load it with Keras and save it again as .weights.h5 or .keras")
    stored = {}
    for group, entries in _walk(path, file, ""):
        shapes = [entry.ndim for entry in entries]
        endings = ("kernel", "bias") if shapes == [2, 1] else range(len(entries))
        stored.update({f"{group}.{ending}": entry for ending, entry in zip(endings, entries, strict=True)})
    _bounded(path, sum(entry.size * entry.dtype.itemsize for entry in stored.values()))
    return {name: np.asarray(entry[()]) for name, entry in stored.items()}


def _walk(path: Path, group: Any, here: str) -> Iterator[tuple[str, list[Any]]]:
    """Each layer's group, by its name with every number written out (`dense` is `dense_0`), and its datasets."""
    for name in group:
        if name in NOT_THE_MODEL:
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], h5py.Group):
            raise ParameterError(f"{path}: {here}/{name} is a link or an array; expected groups, as Keras 3 makes them")
        if name == "vars":
            entries = [group[name][str(i)] for i in range(len(group[name]))]
            if not all(isinstance(entry, h5py.Dataset) and not entry.external for entry in entries):
                raise ParameterError(f"{path}: {here}/vars holds more than arrays; expected those of a layer")
            yield here, entries
        else:
            kind = re.sub(r"_?\d+$", "", name)
            if kind in REFUSED:
                raise ParameterError(f"{path}: {here}/{name} is a {REFUSED[kind]}; no architecture here has one")
            numbered = name if re.search(r"\d$", name) else f"{name}_0"
            yield from _walk(path, group[name], f"{here}/{numbered}".lstrip("/"))


def _listed(config: Any) -> Iterator[dict[str, Any]]:
    """The layers of a configuration, those within layers too."""
    if isinstance(config, dict):
        settings = config.get("config")
        if isinstance(settings, dict) and "name" in settings and config.get("class_name") != "DTypePolicy":
            yield config
        for value in config.values():
            yield from _listed(value)
    elif isinstance(config, list):
        for value in config:
            yield from _listed(value)


def _check_layer(path: Path, kind: str, settings: dict[str, Any]) -> None:
    """Refuse a layer or an activation that no architecture has, by its name."""
    usual = all(settings.get(key, value) == value for key, value in RELU_DEFAULTS.items())
    if kind in REFUSED.values() or (kind == "ReLU" and not usual):
        raise ParameterError(f"{path}: layer {settings['name']} is a {_call(kind, settings)}; no architecture has one")
    if (found := settings.get("activation")) not in (None, "linear", "relu"):
        raise ParameterError(f"{path}: layer {settings['name']} has activation {found}; expected relu or linear")


def _in_network(layer: dict[str, Any]) -> bool:
    return layer["class_name"] in NETWORK and str(layer.get("module")).partition(".")[0] == "keras"


def _call(kind: str, settings: dict[str, Any]) -> str:
    """A layer as it is made: LeakyReLU(negative_slope=0.3)."""
    given = {key: value for key, value in settings.items() if key not in ("name", "trainable", "dtype")}
    return f"{kind}({', '.join(f'{key}={value!r:.40}' for key, value in given.items())})"


def _is_permutation(value: Any) -> bool:
    integers = isinstance(value, list) and all(type(i) is int for i in value)
    return integers and len(value) > 1 and sorted(value) == [*range(len(value))]
