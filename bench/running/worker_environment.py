"""The environment variables of a worker: what has to be set before a framework is imported."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.records import environment

ROOT = Path(__file__).resolve().parents[2]


def worker_environment(backend: str, interpreter: str, device: str) -> dict[str, str]:
    """Environment variables of a worker: what has to be set before a framework is imported.

    Memory is not grabbed ahead, so that it can be measured; a worker for the CPU sees no GPU; TensorFlow finds the CUDA
    libraries that pip put beside it, which are not on its loader's path.
    """
    variables = dict(os.environ)
    if (ROOT / "pyproject.toml").is_file():  # a checkout; where nice-bench is installed, each interpreter has its own
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), variables.get("PYTHONPATH")]))
    variables.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the driver's, by which the GPU that is watched is found
    variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    variables.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    variables.setdefault("OMP_NUM_THREADS", str(environment.cores()))
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = "-1"
        variables["JAX_PLATFORMS"] = "cpu"
    elif backend == "tensorflow":
        paths = [*_cuda_libraries(interpreter, variables), *filter(None, [variables.get("LD_LIBRARY_PATH")])]
        if paths:
            variables["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    return variables


def _cuda_libraries(interpreter: str, variables: Mapping[str, str]) -> list[str]:
    """Return the folders of pip's CUDA libraries, wherever the packages of an interpreter lie: only it knows."""
    found = "(str(p) for s in sys.path for p in sorted(pathlib.Path(s).glob('nvidia/*/lib')))"
    command = [interpreter, "-P", "-c", f"import pathlib, sys; print(*{found}, sep='\\n')"]
    with suppress(OSError, subprocess.SubprocessError):  # a worker that can't be started says so itself
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
        return list(filter(None, done.stdout.splitlines()))
    return []


def cache_environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables that let a backend's processes keep what they compile in `folder`, and nowhere else.

    A cache that the user has already would make the first round's first call a warm one, so theirs are not used. JAX
    keeps every program, however quickly it was compiled; inductor its graphs and the kernels of its parts, TensorFlow
    what XLA compiled; the driver its translations for the GPU at hand.

    Args:
        folder: of one backend in one run.
        variables: of the process so far; TF_XLA_FLAGS is added to.
    """
    xla = f"--tf_xla_persistent_cache_directory={folder / 'tensorflow'}"
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TF_XLA_FLAGS": " ".join(filter(None, [variables.get("TF_XLA_FLAGS"), xla])),
        "CUDA_CACHE_PATH": str(folder / "cuda"),
    }
