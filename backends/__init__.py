"""NICE in four parallel implementations behind one interface.

    model = backends.create("torch", Architecture.article(), weights, precision="float64")
    z, log_det = model.encode(x)

A framework is imported only when one of its models is made, and only in files that begin with its name. Adding a
backend means one file and one line below.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from numpy.typing import ArrayLike

from backends import parameters
from backends.architecture import Architecture, ArchitectureError
from backends.choices import UnavailableError
from backends.interface import Backend
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.parameters import ParameterError
from backends.values import EpochInputs, EpochReport, Pixels, Stream, TrainingState

__all__ = [
    "REGISTRY",
    "Adam",
    "AdamW",
    "Architecture",
    "ArchitectureError",
    "Backend",
    "EpochInputs",
    "EpochReport",
    "Optimiser",
    "ParameterError",
    "Pixels",
    "RMSProp",
    "Stream",
    "TrainingState",
    "UnavailableError",
    "available",
    "backend_class",
    "create",
    "parameters",
]

# Name → "module:class". The order is that of every table, and torch stands before tensorflow since importing them the
# other way round in one process can crash.
REGISTRY = {
    "torch": "backends.torch_backend:TorchBackend",
    "tensorflow": "backends.tensorflow_backend:TensorFlowBackend",
    "jax": "backends.jax_backend:JaxBackend",
    "numpy": "backends.numpy_backend:NumpyBackend",
}


def backend_class(name: str) -> type[Backend]:
    """Import a backend.

    Raises:
        ValueError: there is no backend of that name.
        UnavailableError: its framework can't be imported here; the message says why.
    """
    if name not in REGISTRY:
        raise ValueError(f"backend is {name!r}; expected one of {', '.join(REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a broken installation fails in whatever way it likes
        first = (str(error).strip().splitlines() or [""])[0]
        reason = first if isinstance(error, ImportError) and first else f"{type(error).__name__}: {first}"
        raise UnavailableError(f"{name}: can't be imported here ({reason})") from error


def available() -> dict[str, str | None]:
    """Backend name → None where it can be used here, or why it can't. Imports every framework."""
    reasons: dict[str, str | None] = {}
    for name in REGISTRY:
        try:
            backend_class(name)
            reasons[name] = None
        except UnavailableError as error:
            reasons[name] = str(error)
    return reasons


def create(
    name: str,
    architecture: Architecture,
    parameters: Mapping[str, ArrayLike],
    *,
    device: str = "auto",
    precision: str = "float32",
    mode: str | None = None,
    replicas: int = 1,
) -> Backend:
    """Make a model.

    Args:
        name: of the backend, a key of `REGISTRY`.
        architecture: the flow.
        parameters: canonical name → array; see `backends.parameters`.
        device: "auto" (a GPU if the framework sees one), "cpu" or "gpu".
        precision: "float64", "float32", "tf32" or "bfloat16"; of products, and for float64 of everything.
        mode: one of the backend's `modes`; None is the fastest one for the device.
        replicas: how many devices train side by side, each on its part of every batch.

    Raises:
        ValueError: a name that isn't known, or parameters that don't fit (`ParameterError`).
        UnavailableError: the framework, the device or the precision can't be had here.
    """
    kind = backend_class(name)
    return kind(architecture, parameters, device=device, precision=precision, mode=mode, replicas=replicas)
