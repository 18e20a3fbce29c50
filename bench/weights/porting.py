"""Weights from one form to another: canonical `.safetensors`, NumPy's `.npz`, PyTorch's `.pt`.

An `.npz` holds the canonical names (what JAX code reads without more), a `.pt` the state dictionary of an
`nn.Module`. Both carry the architecture beside the weights; neither is read by executing pickled code.

Weights that another program trained are read too, and only read: state dictionaries of PyTorch, safetensors
and NumPy without an architecture, Keras' `.weights.h5` and `.keras` (`bench.weights.foreign`).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

import backends
from backends import Architecture, ParameterError, parameters
from backends.parameters import Parameters
from bench.errors import BenchError, writing
from bench.inputs.streams import uniforms
from bench.measures.agreement import relative
from bench.weights import files, foreign
from bench.weights.files import Content, torch_files

CHECKED = 32


@dataclass(frozen=True)
class Form:
    """How weights of one form are read and written."""

    read: Callable[[Path], tuple[Architecture, Parameters]]
    write: Callable[[Path, Architecture, Parameters], None]


def port(source: Path, target: Path, options: Sequence[str] = (), probe: Path | None = None) -> str:
    """Convert, read back, and return a table of how well every backend that can be used here agrees with the reference.

    The target's ending names its form. The other two are for another program's weights: `options` as
    `foreign.parse_options` takes them, and the file of a probe; how such weights were read stands above the table.

    Raises:
        BenchError: a form that isn't known or can't be written, options that can't be used, choices that stay open.
        ParameterError: weights or a probe that can't be used.
    """
    form = FORMS.get(target.suffix.lower())
    if form is None:
        raise BenchError(f"{target}: can't be written; expected an ending among {', '.join(FORMS)}")
    if source.suffix.lower() not in FOREIGN:
        raise BenchError(f"{source}: can't be read; expected an ending among {', '.join(FOREIGN)}")
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such file")
    files.check_size(source)
    architecture, loaded, note = _read(source, options, probe)
    with writing(target) as temporary:
        form.write(temporary, architecture, loaded)
        again, read_back = form.read(temporary)
        if again != architecture or parameters.digest(read_back) != parameters.digest(loaded):
            raise BenchError(f"{target}: reads back differently from what {source} holds; not written")
    return "\n".join([*note, _agreement(architecture, read_back)])


def _read(path: Path, options: Sequence[str], probe: Path | None) -> tuple[Architecture, Parameters, list[str]]:
    content = FOREIGN[path.suffix.lower()](path)
    if content is not None:
        architecture, loaded, note = foreign.fit(content, options, probe)
        others = f"left out, as no part of the model: {', '.join(content.left_out)}"
        return architecture, loaded, [note, *[others] * bool(content.left_out)]
    if probe is not None or options:
        raise BenchError(f"{path}: says what its architecture is; --probe and --option are for files that don't")
    return *FORMS.get(path.suffix.lower(), FORMS[".pt"]).read(path), []


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
    arrays = files.npz(path)
    try:
        architecture = parameters.architecture_of(json.loads(str(arrays.pop("architecture"))))
    except (ValueError, TypeError, RecursionError) as error:
        raise ParameterError(f"{path}: not an .npz file of weights ({error})") from error
    parameters.check(architecture, arrays, source=str(path))
    return architecture, arrays


def _write_npz(path: Path, architecture: Architecture, loaded: Parameters) -> None:
    np.savez(path, architecture=np.array(json.dumps(architecture.to_dict())), **loaded)  # type: ignore[arg-type]


FORMS = {
    ".safetensors": Form(parameters.load, parameters.save),
    ".npz": Form(_read_npz, _write_npz),
    ".pt": Form(lambda path: torch_files().read_weights(path), lambda *given: torch_files().write_weights(*given)),
}

# Another program's; a reader gives None for a file of ours. A whole list of what can be read.
FOREIGN: dict[str, Callable[[Path], Content | None]] = {
    ".safetensors": files.read_safetensors,
    ".npz": files.read_npz,
    ".pt": files.read_torch,
    ".pth": files.read_torch,
    ".ckpt": files.read_torch,
    ".h5": files.read_h5,
    ".keras": files.read_keras,
}
