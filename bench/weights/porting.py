"""Weights from one form to another: canonical `.safetensors`, NumPy's `.npz`, PyTorch's `.pt`.

An `.npz` holds the canonical names (what JAX code reads without more), a `.pt` the state dictionary of an
`nn.Module`. Both carry the architecture beside the weights; neither is read by executing pickled code.

Weights that another program trained are read too, and only read: Keras' `.h5` and `.keras`, PyTorch state dictionaries
without an architecture (`bench.weights.foreign`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

import backends
from backends import Architecture, ParameterError, parameters
from backends.parameters import Parameters
from bench.errors import BenchError
from bench.inputs.streams import uniforms
from bench.measures.agreement import relative
from bench.weights import foreign, keras_weights, state_dicts

CHECKED = 32


@dataclass(frozen=True)
class Form:
    """How weights of one form are read and written."""

    read: Callable[[Path], tuple[Architecture, Parameters]]
    write: Callable[[Path, Architecture, Parameters], None]


def port(source: Path, target: Path, base: str | None = None, options: Sequence[str] = ()) -> str:
    """Convert, read back, and compare every backend that can be used here with the float64 reference.

    Args:
        source: weights of any form below, or another program's.
        target: where to, in the form that its ending names.
        base: of another program's weights, the architecture ("article" or "paper") that says what the file doesn't.
        options: likewise KEY=VALUE, as `foreign.parse_options` describes them.

    Returns:
        A table: parameters bit for bit, z and log p relative to the reference. For another program's weights, what
        came from the file and what didn't stands above it.

    Raises:
        BenchError: a form that isn't known or can't be written, options that can't be used.
        ParameterError: weights that can't be used.
    """
    writing = _form(target)
    if source.suffix not in FOREIGN:
        _form(source)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    architecture, loaded, notes = _read(source, base, options)
    with parameters.atomically(target) as temporary:
        writing.write(temporary, architecture, loaded)
        again, read_back = writing.read(temporary)
        if again != architecture or parameters.digest(read_back) != parameters.digest(loaded):
            raise BenchError(f"{target}: reads back differently from what {source} holds; not written")
    return "\n".join([*notes, _agreement(architecture, read_back)])


def _read(path: Path, base: str | None, options: Sequence[str]) -> tuple[Architecture, Parameters, list[str]]:
    found = FOREIGN[path.suffix](path) if path.suffix in FOREIGN else None
    if found is not None:
        return foreign.fit(found, base, options)
    if base is not None or options:
        raise BenchError(f"{path}: says what its architecture is; --architecture and --option are for files that don't")
    read = FORMS[path.suffix].read if path.suffix in FORMS else _read_pt
    return *read(path), []


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
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
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
    return state_dicts.torch_files().read_weights(path)


def _write_pt(path: Path, architecture: Architecture, loaded: Parameters) -> None:
    state_dicts.torch_files().write_weights(path, architecture, loaded)


FORMS = {
    ".safetensors": Form(parameters.load, parameters.save),
    ".npz": Form(_read_npz, _write_npz),
    ".pt": Form(_read_pt, _write_pt),
}

# Another program's: a reader gives None for a file of ours.
FOREIGN: dict[str, Callable[[Path], foreign.Found | None]] = {
    ".h5": keras_weights.read_h5,
    ".keras": keras_weights.read_keras,
    ".pt": state_dicts.read,
    ".pth": state_dicts.read,
}


def _form(path: Path) -> Form:
    if path.suffix in FOREIGN and path.suffix not in FORMS:
        raise BenchError(f"{path}: {path.suffix} is read, not written; expected one of {', '.join(FORMS)}")
    if path.suffix not in FORMS:
        raise BenchError(f"{path}: unknown form {path.suffix or '(no ending)'!r}; expected one of {', '.join(FORMS)}")
    return FORMS[path.suffix]
