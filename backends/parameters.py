"""Canonical parameters: one description of the weights, that of no framework. Check, digest, save and load.

    coupling.{k}.dense.{i}.kernel   [in, out]
    coupling.{k}.dense.{i}.bias     [out]
    log_scale                       [D]
    coupling.{k}.permutation        [D] int32, only where the permutation is a shuffle

Trainable arrays are all float32 or all float64. On disk they are one `.safetensors` file with the architecture as JSON
in its header; nothing is ever pickled.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from backends.architecture import Architecture, ArchitectureError, permutation_name

FORMAT = "nice-bench-parameters"
FORMAT_VERSION = "1"
MOST_LAYERS = 100_000  # in a file

Parameters = dict[str, NDArray]
ShapesOf = Callable[[Architecture, dict[str, str]], Mapping[str, tuple[int, ...]]]

_DTYPE_NAMES = {"F32": "float32", "F64": "float64", "I32": "int32"}


class ParameterError(ValueError):
    """Parameters that don't fit the architecture; the message names the entry, what was found and what was expected."""


def check(architecture: Architecture, parameters: Mapping[str, NDArray], *, source: str = "parameters") -> None:
    """Refuse parameters that are not exactly those of the architecture.

    Args:
        architecture: what they must fit.
        parameters: canonical name → array.
        source: where they come from, for the message.

    Raises:
        ParameterError: a missing or extra entry, a wrong shape or dtype, mixed dtypes, a value that isn't finite, or a
            permutation that isn't one.
    """
    check_arrays(architecture.parameter_shapes, parameters, source=source)
    if architecture.permutation == "shuffle":
        for k in range(architecture.couplings):
            name = permutation_name(k)
            if not np.array_equal(np.sort(parameters[name]), np.arange(architecture.dim)):
                raise ParameterError(f"{source}: {name} is not a permutation of 0 … {architecture.dim - 1}")


def check_arrays(shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, NDArray], *, source: str) -> None:
    """Refuse arrays whose names, shapes, dtypes or values are not what `shapes` (canonical names) asks for.

    Raises:
        ParameterError: as `check`.
    """
    check_kinds(shapes, {name: (str(a.dtype), a.shape) for name, a in arrays.items()}, source=source)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise ParameterError(f"{source}: {name} has {bad} values that are not finite; expected none")


def check_kinds(
    shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[str, tuple[int, ...]]], *, source: str
) -> None:
    """Refuse names, dtypes and shapes that are not those of `shapes`, without looking at a value."""
    missing, extra = sorted(set(shapes) - set(found)), sorted(set(found) - set(shapes))
    if missing:
        raise ParameterError(f"{source}: {missing[0]} is missing ({len(missing)} missing in all)")
    if extra:
        raise ParameterError(f"{source}: {extra[0]} is not a parameter of this architecture ({len(extra)} such in all)")
    float_dtypes = ("float32", "float64")
    for name, shape in shapes.items():
        dtype, found_shape = found[name]
        expected = ("int32",) if name.endswith(".permutation") else float_dtypes
        if dtype not in expected:
            raise ParameterError(f"{source}: {name} has dtype {dtype}; expected {' or '.join(expected)}")
        if tuple(found_shape) != shape:
            raise ParameterError(f"{source}: {name} has shape {tuple(found_shape)}; expected {shape}")
    dtypes = {found[name][0] for name in shapes if not name.endswith(".permutation")}
    if len(dtypes) > 1:
        raise ParameterError(f"{source}: dtypes {' and '.join(sorted(dtypes))} are mixed; expected one of them")


def digest(parameters: Mapping[str, NDArray]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, in order of name; equal when the parameters are equal bit for bit."""
    sha = hashlib.sha256()
    for name in sorted(parameters):
        array = np.ascontiguousarray(parameters[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        sha.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        sha.update(little.tobytes())
    return sha.hexdigest()


def astype(parameters: Mapping[str, NDArray], dtype: str) -> Parameters:
    """The same parameters in float32 or float64, rounded to nearest; stored permutations stay as they are."""
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a.copy() for n, a in parameters.items()}


def rounded(parameters: Mapping[str, NDArray], precision: str) -> Parameters:
    """The same parameters in the dtype that a model of this precision holds its own in."""
    return astype(parameters, dtype_of(precision))


def dtype_of(precision: str) -> str:
    """The dtype of parameters and sums: float64, or float32 whatever the products are multiplied in."""
    return "float64" if precision == "float64" else "float32"


def save(path: str | Path, architecture: Architecture, parameters: Mapping[str, NDArray]) -> None:
    """Write parameters to one file, atomically.

    Raises:
        ParameterError: they don't fit the architecture.
    """
    check(architecture, parameters)
    write_arrays(path, parameters, {"format": FORMAT, "architecture": json.dumps(architecture.to_dict())})


def load(path: str | Path) -> tuple[Architecture, Parameters]:
    """Read a file that `save` wrote, checking everything before anything is used.

    Returns:
        The architecture and the canonical parameters, in the dtype of the file.

    Raises:
        ParameterError: the file isn't such a file, or an entry is missing, extra, misshapen, of a wrong type or not
            finite.
        FileNotFoundError: there is no such file.
    """
    arrays, architecture, _ = read_arrays(path, FORMAT, lambda architecture, _: architecture.parameter_shapes)
    check(architecture, arrays, source=str(path))
    return architecture, arrays


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> None:
    """Write named arrays and a header to a safetensors file, atomically."""
    # The writer stores a non-contiguous array's memory as it lies, scrambled, without an error.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomically(Path(path)) as temporary:
        save_file(contiguous, temporary, metadata={**metadata, "format_version": FORMAT_VERSION})


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path beside `path`, with the same ending; what is written there becomes `path` if no error comes up.

    It is on the disk by then, so that after a power cut `path` is the old file or the new one, and whole.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_arrays(
    path: str | Path, expected_format: str, shapes_of: ShapesOf
) -> tuple[Parameters, Architecture, dict[str, str]]:
    """Read a safetensors file of ours: its arrays, its architecture, its header.

    Args:
        path: the file.
        expected_format: what the header must say under "format".
        shapes_of: from the architecture and the header to name → shape of each entry that must be there.

    Raises:
        ParameterError: as `load`.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            architecture = _architecture(metadata, expected_format, path)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            kinds = {
                name: (_DTYPE_NAMES.get(s.get_dtype(), s.get_dtype()), tuple(s.get_shape()))
                for name, s in slices.items()
            }
            check_kinds(shapes_of(architecture, metadata), kinds, source=str(path))
            return {name: file.get_tensor(name) for name in kinds}, architecture, metadata
    except SafetensorError as error:
        raise ParameterError(f"{path}: not a safetensors file ({error})") from error


def _umask() -> int:
    """The process's umask: a temporary file is the owner's alone, a written one should be like any other."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _architecture(metadata: Mapping[str, str], expected_format: str, path: Path) -> Architecture:
    if metadata.get("format") != expected_format:
        raise ParameterError(f"{path}: header says format {metadata.get('format')!r}; expected {expected_format!r}")
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ParameterError(
            f"{path}: header says format_version {metadata.get('format_version')!r}; expected {FORMAT_VERSION!r}"
        )
    try:
        return architecture_of(json.loads(metadata.get("architecture", "")))
    except (ValueError, RecursionError) as error:  # JSON's and the architecture's errors are ValueErrors
        raise ParameterError(f"{path}: header's architecture can't be used ({error})") from error


def architecture_of(entries: Any) -> Architecture:
    """The architecture that a file describes.

    Raises:
        ArchitectureError: it isn't one, or so deep that a list of its shapes would take memory without end.
    """
    if not isinstance(entries, dict):
        raise ArchitectureError("architecture: not a mapping")
    architecture = Architecture.from_dict(entries)
    layers = architecture.couplings * (architecture.hidden_layers + 1)
    if layers > MOST_LAYERS:
        raise ArchitectureError(f"architecture: {layers} dense layers in all; expected at most {MOST_LAYERS}")
    return architecture
