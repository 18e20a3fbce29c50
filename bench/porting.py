"""Weights from one form to another: canonical `.safetensors`, NumPy's `.npz`, PyTorch's `.pt`.

An `.npz` holds the canonical names (what JAX code reads without more), a `.pt` the state dictionary of an
`nn.Module`. Both carry the architecture beside the weights; neither is read by executing pickled code.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate  # type: ignore[import-untyped]

import backends
from backends import Architecture, ParameterError, parameters
from backends.parameters import Parameters
from bench.errors import BenchError
from bench.measures.agreement import relative
from bench.streams import uniforms

CHECKED = 32


@dataclass(frozen=True)
class Form:
    """How weights of one form are read and written."""

    read: Callable[[Path], tuple[Architecture, Parameters]]
    write: Callable[[Path, Architecture, Parameters], None]


def port(source: Path, target: Path) -> str:
    """Convert, read back, and compare every backend that can be used here with the float64 reference.

    Returns:
        A table: parameters bit for bit, z and log p relative to the reference.

    Raises:
        BenchError: a form that isn't known.
        ParameterError: weights that can't be used.
    """
    reading, writing = _form(source), _form(target)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    architecture, loaded = reading.read(source)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        writing.write(temporary, architecture, loaded)
        again, read_back = writing.read(temporary)
        if again != architecture or parameters.digest(read_back) != parameters.digest(loaded):
            raise BenchError(f"{target}: reads back differently from what {source} holds; not written")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return _agreement(architecture, read_back)


def _agreement(architecture: Architecture, loaded: Parameters) -> str:
    x = uniforms(0, "inputs", 0, (CHECKED, architecture.dim))
    reference = backends.create("numpy", architecture, parameters.astype(loaded, "float64"), precision="float64")
    z, log_prob = reference.encode(x)[0], reference.log_prob(x)
    rows: list[list[str | float | None]] = []
    for name, reason in backends.available().items():
        for precision in ("float64", "float32"):
            if reason is not None:
                rows.append([name, precision, reason, None, None])
                continue
            given = parameters.astype(loaded, precision)
            model = backends.create(name, architecture, given, device="cpu", precision=precision)
            same = parameters.digest(model.parameters()) == parameters.digest(given)
            z_error, log_prob_error = relative(model.encode(x)[0], z), relative(model.log_prob(x), log_prob)
            rows.append([name, precision, "bit for bit" if same else "DIFFER", z_error, log_prob_error])
    headers = ["backend", "precision", "parameters", "z, relative", "log p, relative"]
    return tabulate(rows, headers, floatfmt=".1e")


def _read_npz(path: Path) -> tuple[Architecture, Parameters]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        architecture = Architecture.from_dict(json.loads(str(arrays.pop("architecture"))))
    except KeyError as error:
        raise ParameterError(f"{path}: no entry 'architecture'; expected JSON text under that name") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ParameterError(f"{path}: not an .npz file of weights ({error})") from error
    parameters.check(architecture, arrays, source=str(path))
    return architecture, arrays


def _write_npz(path: Path, architecture: Architecture, loaded: Parameters) -> None:
    np.savez(path, architecture=np.array(json.dumps(architecture.to_dict())), **loaded)  # type: ignore[arg-type]


def _read_pt(path: Path) -> tuple[Architecture, Parameters]:
    return backends.backend_class("torch").read_weights(path)  # type: ignore[attr-defined]


def _write_pt(path: Path, architecture: Architecture, loaded: Parameters) -> None:
    backends.backend_class("torch").write_weights(path, architecture, loaded)  # type: ignore[attr-defined]


FORMS = {
    ".safetensors": Form(parameters.load, parameters.save),
    ".npz": Form(_read_npz, _write_npz),
    ".pt": Form(_read_pt, _write_pt),
}


def _form(path: Path) -> Form:
    if path.suffix not in FORMS:
        raise BenchError(f"{path}: unknown form {path.suffix or '(no ending)'!r}; expected one of {', '.join(FORMS)}")
    return FORMS[path.suffix]
