"""Training states on disk: a safetensors file like that of the parameters, with the moments beside them."""

import json
from pathlib import Path

from backends.architecture import Architecture
from backends.parameters import ParameterError, Parameters, check, read_arrays, write_arrays
from backends.values import TrainingState

FORMAT = "nice-bench-training-state"


def save(path: str | Path, architecture: Architecture, state: TrainingState) -> None:
    """Write a state to one file, atomically.

    Raises:
        ParameterError: it doesn't fit the architecture.
    """
    check(architecture, state.parameters)
    arrays = {f"parameters/{name}": array for name, array in state.parameters.items()}
    for moment, moment_arrays in state.moments.items():
        arrays |= {f"{moment}/{name}": array for name, array in moment_arrays.items()}
    header = {"architecture": architecture.to_dict(), "step": state.step, "moments": list(state.moments)}
    metadata = {key: json.dumps(value) for key, value in header.items()}
    write_arrays(path, arrays, {"format": FORMAT, **metadata})


def load(path: str | Path) -> tuple[Architecture, TrainingState]:
    """Read a file that `save` wrote.

    Raises:
        ParameterError: the file isn't such a file, or an entry is missing, extra, misshapen or of a wrong type.
        FileNotFoundError: there is no such file.
    """

    def shapes(architecture: Architecture, header: dict[str, str]) -> dict[str, tuple[int, ...]]:
        expected = {f"parameters/{name}": shape for name, shape in architecture.parameter_shapes.items()}
        for moment in json.loads(header["moments"]):
            expected |= {f"{moment}/{name}": shape for name, shape in architecture.trainable_shapes.items()}
        return expected

    try:
        arrays, architecture, header = read_arrays(path, FORMAT, shapes)
        step, moments = int(json.loads(header["step"])), list(json.loads(header["moments"]))
    except (KeyError, TypeError, OverflowError, RecursionError, json.JSONDecodeError) as error:
        raise ParameterError(f"{path}: header of the training state can't be used ({error!r})") from error
    groups: dict[str, Parameters] = {group: {} for group in ("parameters", *moments)}
    for name, array in arrays.items():
        group, _, canonical = name.partition("/")
        groups[group][canonical] = array
    parameters = groups.pop("parameters")
    check(architecture, parameters, source=str(path))
    return architecture, TrainingState(parameters, groups, step)
