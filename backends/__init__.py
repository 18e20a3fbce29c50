"""NICE in four parallel implementations behind one interface.

    model = backends.create("torch", Architecture.article(), weights, precision="float64")
    z, log_det = model.encode(x)

A framework is imported only when one of its models is made, and only in files that begin with its name. Adding a
backend means one file, and one line: below, or in another package the entry point `NAME = "module:Class"` of `GROUP`.
"""

# ruff: noqa: F401 - what is imported from the modules of this package is what it offers

import importlib
import os
import re
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from numpy.typing import ArrayLike

from backends.architecture import Architecture, ArchitectureError
from backends.choices import UnavailableError
from backends.interface import Backend
from backends.optimisers import Adam, AdamW, Optimiser, RMSProp
from backends.parameters import ParameterError
from backends.values import THIS_NODE, EpochInputs, EpochReport, Nodes, Pixels, Stream, TrainingState

GROUP = "nice_bench.backends"
"""The entry points by which other packages bring backends."""

REFERENCE = "numpy"
"""What the others are held against."""


class BuiltIn(NamedTuple):
    """What has to be known of a backend without importing its framework.

    Attributes:
        target: "module:class".
        title: what people call it.
        packages: the distributions whose versions stand beside its figures.
    """

    target: str
    title: str
    packages: tuple[str, ...]


# The order is that of every table and of the colours, and torch stands before tensorflow since importing them the
# other way round in one process can crash.
BUILT_IN = {
    "torch": BuiltIn("backends.torch_backend:TorchBackend", "PyTorch", ("torch",)),
    "tensorflow": BuiltIn(
        "backends.tensorflow_backend:TensorFlowBackend", "TensorFlow", ("tensorflow", "tensorflow-cpu")
    ),
    "jax": BuiltIn("backends.jax_backend:JaxBackend", "JAX", ("jax", "jaxlib")),
    "numpy": BuiltIn("backends.numpy_backend:NumpyBackend", "NumPy", ("numpy",)),
}


def _from_outside() -> tuple[dict[str, str], dict[str, str]]:
    """What the entry points give: name → "module:class", and for those whose name can't be used, label → why."""
    points = sorted((p.name, p.value, str(p.dist and p.dist.name)) for p in entry_points(group=GROUP))
    times = Counter(name for name, *_ in points)
    found, refused = {}, {}
    for name, target, package in points:
        reason = (
            "a built-in backend has this name"
            if name in BUILT_IN
            else "another installed package has a backend of this name"
            if times[name] > 1
            else "a name may have letters, digits, - and _ only"
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
            else None
        )
        if reason:
            refused[f"{name} ({package})"] = f"{target} of the package {package} can't be used: {reason}"
        else:
            found[name] = target
    return found, refused


_found, REFUSED = _from_outside()
REGISTRY = {name: known.target for name, known in BUILT_IN.items()} | _found
"""Name → "module:class" of every backend that can be asked for."""


def title(name: str) -> str:
    """What people call a backend: one that isn't built in, by its name."""
    return BUILT_IN[name].title if name in BUILT_IN else name


def backend_class(name: str) -> type[Backend]:
    """Import a backend.

    Raises:
        ValueError: there is no backend of that name.
        UnavailableError: it can't be imported here, or is no backend; the message says why.
    """
    if name not in REGISTRY:
        raise ValueError(f"backend is {name!r}; expected one of {', '.join(REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
    except (Exception, SystemExit) as error:  # a broken installation fails in whatever way it likes
        first = (str(error).strip().splitlines() or [""])[0]
        reason = first if isinstance(error, ImportError) and first else f"{type(error).__name__}: {first}"
        raise UnavailableError(f"{name}: can't be imported here ({reason})") from error
    if not (isinstance(kind, type) and issubclass(kind, Backend)):
        raise UnavailableError(f"{name}: {REGISTRY[name]} is no subclass of backends.Backend")
    missing = sorted(kind.__abstractmethods__.union(part for part in ("name", "modes") if not hasattr(kind, part)))
    if missing:
        raise UnavailableError(f"{name}: {REGISTRY[name]} lacks {', '.join(missing)}")
    return kind


def available() -> dict[str, str | None]:
    """Backend name → None where it can be used here, or why it can't. Imports every framework."""
    reasons: dict[str, str | None] = {**REFUSED}
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
    nodes: Nodes = THIS_NODE,
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
        nodes: the machines that have these devices; each of them makes the same model, and calls what trains it alike.

    Raises:
        ValueError: a name that isn't known, or parameters that don't fit (`ParameterError`).
        UnavailableError: the framework, the device or the precision can't be had here.
    """
    kind = backend_class(name)
    return kind(architecture, parameters, device=device, precision=precision, mode=mode, replicas=replicas, nodes=nodes)
