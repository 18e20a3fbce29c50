"""PyTorch's own files of weights, `.pt`: read without executing pickled code, and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from backends.architecture import Architecture
from backends.parameters import ParameterError, Parameters, check


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
        architecture = Architecture.from_dict(content["architecture"])
        tensors = content["state_dict"]
        arrays = {}
        for name in architecture.parameter_shapes:
            if module_name(name) in tensors:
                array = tensors.pop(module_name(name)).numpy()
                arrays[name] = np.ascontiguousarray(array.T if name.endswith(".kernel") else array)
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ParameterError(f"{path}: not a .pt file of weights ({type(error).__name__}: {error})") from error
    check(architecture, arrays | tensors, source=str(path))
    return architecture, arrays


def read_state_dict(path: Path) -> dict[str, NDArray] | None:
    """Read another program's state dictionary, bare or in a checkpoint, without executing pickled code.

    Returns:
        Name → array, in the file's order and dtypes; None where the file is one of `write_weights`.

    Raises:
        ParameterError: the file isn't a state dictionary.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if "architecture" in content:
            return None
        tensors = next((content[n] for n in ("state_dict", "model_state_dict", "model") if n in content), content)
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ParameterError(f"{path}: not a state dictionary ({type(error).__name__}: {error})") from error


def module_name(name: str) -> str:
    """Canonical name → the name in the module's state dictionary."""
    coupling, _, rest = name.removeprefix("coupling.").partition(".")
    if not rest.startswith("dense."):
        return name
    return f"networks.{coupling}.{rest.removeprefix('dense.')}".replace(".kernel", ".weight")
