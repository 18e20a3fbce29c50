"""The environment variables of a worker."""

import os
import sys
import venv
from pathlib import Path

import pytest

from bench.running.worker_environment import cache_environment, worker_environment


def test_a_worker_for_the_cpu_sees_no_gpu():
    variables = worker_environment("jax", sys.executable, "cpu")
    assert (variables["CUDA_VISIBLE_DEVICES"], variables["JAX_PLATFORMS"]) == ("-1", "cpu")


def test_memory_is_not_grabbed_ahead_unless_the_user_says_so(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert worker_environment("jax", sys.executable, "gpu")["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    assert worker_environment("jax", sys.executable, "gpu")["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


def test_gpus_are_counted_as_the_driver_counts_them_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert worker_environment("torch", sys.executable, "gpu")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert worker_environment("torch", sys.executable, "gpu")["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Make an environment with its own packages or with the system's and the user's too: its Python."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)

    def make(*libraries, system):
        for library in libraries:
            library.mkdir(parents=True)
        venv.create(tmp_path / "own", system_site_packages=system)
        return str(tmp_path / "own/bin/python")

    return make


def test_tensorflow_finds_the_cuda_libraries_of_its_own_environment(tmp_path, environment):
    own, theirs = (tmp_path / part / PACKAGES / "nvidia/cudnn/lib" for part in ("own", "user"))
    python = environment(own, theirs, system=False)
    assert worker_environment("tensorflow", python, "gpu")["LD_LIBRARY_PATH"] == f"{own}{os.pathsep}/before"
    assert worker_environment("torch", python, "gpu")["LD_LIBRARY_PATH"] == "/before"


def test_tensorflow_finds_the_cuda_libraries_of_the_user_after_those_of_its_environment(tmp_path, environment):
    own, theirs = (tmp_path / part / PACKAGES / "nvidia/cudnn/lib" for part in ("own", "user"))
    python = environment(own, theirs, system=True)
    found = worker_environment("tensorflow", python, "gpu")["LD_LIBRARY_PATH"].split(os.pathsep)
    assert [path for path in found if path.startswith(str(tmp_path))] == [str(own), str(theirs)]


@pytest.mark.parametrize("python", ["/no/python", "false"])
def test_an_interpreter_that_says_nothing_has_no_cuda_libraries(python, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    assert worker_environment("tensorflow", python, "gpu")["LD_LIBRARY_PATH"] == "/before"


def test_caches_are_in_the_folder_whatever_the_user_has_set(tmp_path):
    theirs = {"JAX_COMPILATION_CACHE_DIR": "/theirs", "TORCHINDUCTOR_CACHE_DIR": "/theirs", "TF_XLA_FLAGS": "--one=1"}
    variables = theirs | cache_environment(tmp_path, theirs)
    for name in ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
        assert Path(variables[name]).parent == tmp_path
    assert variables["TF_XLA_FLAGS"] == f"--one=1 --tf_xla_persistent_cache_directory={tmp_path / 'tensorflow'}"
