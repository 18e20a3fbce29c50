"""The environment variables of a worker."""

import os
import sys
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


@pytest.mark.parametrize(("backend", "found"), [("tensorflow", True), ("torch", False)])
def test_tensorflow_finds_the_cuda_libraries_of_its_own_environment(tmp_path, monkeypatch, backend, found):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/before")
    library = tmp_path / "lib/python3.12/site-packages/nvidia/cudnn/lib"
    library.mkdir(parents=True)
    variables = worker_environment(backend, str(tmp_path / "bin/python"), "gpu")
    assert variables["LD_LIBRARY_PATH"] == (f"{library}{os.pathsep}/before" if found else "/before")


def test_caches_are_in_the_folder_whatever_the_user_has_set(tmp_path):
    theirs = {"JAX_COMPILATION_CACHE_DIR": "/theirs", "TORCHINDUCTOR_CACHE_DIR": "/theirs", "TF_XLA_FLAGS": "--one=1"}
    variables = theirs | cache_environment(tmp_path, theirs)
    for name in ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"):
        assert Path(variables[name]).parent == tmp_path
    assert variables["TF_XLA_FLAGS"] == f"--one=1 --tf_xla_persistent_cache_directory={tmp_path / 'tensorflow'}"
