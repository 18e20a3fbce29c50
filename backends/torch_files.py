"""PyTorch's own files of weights, `.pt`: read without executing pickled code, and written."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backends.architecture import Architecture
from backends.parameters import ParameterError, Parameters, architecture_of, check

WHOLE = "the file itself"


def write_weights(path: Path, architecture: Architecture, parameters: Mapping[str, NDArray]) -> None:
    """Write a `.pt` file: the state dictionary of `Flow` with dimensions in canonical order."""
    tensors = {}
    for name, array in parameters.items():
        kernel = name.endswith(".kernel")
        tensors[module_name(name)] = torch.from_numpy(np.ascontiguousarray(array.T if kernel else array))
    torch.save({"architecture": architecture.to_dict(), "state_dict": tensors}, path)


def read_weights(path: Path) -> tuple[Architecture, Parameters]:
    """Read what `write_weights` wrote, without executing pickled code.

    Raises:
        ParameterError: the file isn't such a file, or its entries don't fit its architecture.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        architecture = architecture_of(content["architecture"])
        tensors = content["state_dict"]
        arrays = {}
        for name in architecture.parameter_shapes:
            if module_name(name) in tensors:
                array = tensors.pop(module_name(name)).numpy()
                arrays[name] = np.ascontiguousarray(array.T if name.endswith(".kernel") else array)
        others = {name: tensor.numpy() for name, tensor in tensors.items()}
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ParameterError(f"{path}: not a .pt file of weights ({type(error).__name__}: {error})") from error
    check(architecture, arrays | others, source=str(path))
    return architecture, arrays


def read_state_dict(path: Path) -> tuple[dict[str, NDArray], list[str]] | None:
    """Read another program's state dictionary, bare or in a checkpoint, without executing pickled code.

    Returns:
        Name → array, in the file's order, half-precision floats as float32; and the names of tensors that are beside
        it, but for an optimiser's. None where the file is one of `write_weights`.

    Raises:
        ParameterError: the file holds no state dictionary, or several.
    """
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, dict) and isinstance(content.get("architecture"), dict):
            return None
        found = dict(_state_dicts(content, ""))
        if len(found) != 1:
            names = f": {', '.join(found)}; save the one that is meant" if found else ""
            raise ParameterError(f"{path}: holds {len(found)} state dictionaries with weights of layers{names}")
        where, own = next(iter(found.items()))
        inside = {key if where == WHOLE else f"{where}.{key}" for key in own}
        others = [name for name in _tensors(content, "") if name not in inside]
        return {name: _array(tensor) for name, tensor in own.items()}, others
    except ParameterError:
        raise
    except Exception as error:  # torch.load raises whatever its unpickler meets
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise ParameterError(
                f"{path}: holds a pickled object, {named[1]}, which isn't read; save the model's state_dict() alone"
            ) from error
        raise ParameterError(f"{path}: not a state dictionary ({type(error).__name__}: {error})") from error


def _state_dicts(content: Any, name: str) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The dictionaries within that hold weights of layers, by where they stand; what else they hold is left out."""
    if not isinstance(content, Mapping):
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor) and isinstance(key, str)}
    if any(key.endswith(("weight", "kernel")) and tensor.ndim == 2 for key, tensor in tensors.items()):
        yield name or WHOLE, tensors
    for key, value in content.items():
        yield from _state_dicts(value, f"{name}.{key}" if name else str(key))


def _tensors(content: Any, name: str) -> Iterator[str]:
    """The names of all tensors within, but for those of an optimiser."""
    if isinstance(content, torch.Tensor):
        yield name
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if isinstance(content, Mapping) and "param_groups" not in content:
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _array(tensor: torch.Tensor) -> NDArray:
    if tensor.numel() > tensor.untyped_storage().nbytes():  # strides of 0 make much of little
        raise ValueError(f"a tensor of {tensor.numel()} numbers in {tensor.untyped_storage().nbytes()} bytes")
    half = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.detach().float() if half else tensor.detach()).numpy()


def _numpy_scalars() -> list[Any]:
    """What unpickling a NumPy number calls; none of it runs code of the file."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [np.dtype, *dtypes, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]


def module_name(name: str) -> str:
    """Canonical name → the name in the module's state dictionary."""
    coupling, _, rest = name.removeprefix("coupling.").partition(".")
    if not rest.startswith("dense."):
        return name
    return f"networks.{coupling}.{rest.removeprefix('dense.')}".replace(".kernel", ".weight")
