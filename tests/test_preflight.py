"""The preflight of `nice-bench doctor`: real frameworks in processes of their own, and broken ones that stand in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from factories import backend_names, requires

import backends
from backends.numpy_backend import NumpyBackend
from bench.running import preflight
from bench.running.messages import Checked, PreflightPlan

ROOT = Path(__file__).parent.parent
PYNVML = (ROOT / "tests/gpu_emulated/nvml/pynvml.py").read_text(encoding="utf-8")
SEES_NONE = """
import logging
logging.getLogger("jax").error("W0000 00:00:1 1 dso.cc:1] Could not load dynamic library 'libcudnn.so.9'; no such file")
from backends.numpy_backend import NumpyBackend

class Backend(NumpyBackend):
    name = "jax"

    @classmethod
    def cuda(cls):
        return "13.0"
"""


@pytest.fixture
def doctor(tmp_path):
    """Call `nice-bench doctor` with these modules first on the path: what it printed, and its exit code."""

    def call(*arguments, modules=None, **variables):
        for name, text in (modules or {}).items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        paths = os.pathsep.join(map(str, (tmp_path, ROOT)))
        environ = os.environ | {"PYTHONPATH": paths, "NICE_BENCH_DATA": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "bench", "doctor", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environ | variables, timeout=300, cwd=tmp_path, check=False
        )

    return call


def checks_of(kind, monkeypatch, device="cpu"):
    """What the preflight finds of a backend, in this process."""
    monkeypatch.setitem(backends.REGISTRY, "jax", f"{__name__}:{kind.__name__}")
    return [e for e in preflight.checks(PreflightPlan(backend="jax", device=device)) if isinstance(e, Checked)]


@pytest.mark.slow
def test_every_framework_works_on_the_cpu(doctor):
    done = doctor("--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    for name in backend_names():
        about = done.stdout.partition(f"\n{name} ")[2].partition("works\n")[0]
        assert "8 training steps in mode" in about, name
        assert "products: float32, " in about, name
    assert "does not work" not in done.stdout


def test_a_framework_that_takes_its_process_down_is_one_failure(doctor):
    crash = "import os, resource, signal\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nos.kill(os.getpid(), 11)"
    done = doctor("--device", "cpu", "--backends", "jax,numpy", modules={"jax": crash})
    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert any(re.match("jax +does not work: ended by SIGSEGV: install its packages afresh", line) for line in lines)
    assert lines.count("works") == 1
    assert done.stderr == "nice-bench: not everything works on the cpu: see above for jax\n"


def test_an_absent_framework_fails_only_where_it_was_asked_for(doctor):
    absent = dict.fromkeys(("torch", "tensorflow", "jax"), "raise ImportError('not here')")
    assert doctor("--device", "cpu", modules=absent).returncode == 0
    done = doctor("--device", "cpu", "--backends", "jax,numpy")
    assert done.returncode == 1
    assert "jax: can't be imported here (not here)" in done.stdout


def test_a_gpu_that_a_framework_does_not_see_has_its_reason_and_advice(doctor):
    modules = {"sees_none": SEES_NONE, "pynvml": PYNVML.replace("580.65.06", "550.54.15")}
    modules["sitecustomize"] = "import backends\nbackends.REGISTRY['jax'] = 'sees_none:Backend'"
    done = doctor("--device", "gpu", "--backends", "jax", modules=modules)
    assert done.returncode == 1
    assert "GPU         NVIDIA H100 80GB HBM3, driver 550.54.15\n" in done.stdout
    told = (
        "it sees no GPU (Could not load dynamic library 'libcudnn.so.9'; no such file): the NVIDIA driver is 550.54.15"
    )
    assert f"{told}, and CUDA 13.0 needs 580 or newer" in done.stdout


@pytest.mark.slow
@requires("jax")
def test_a_plugin_that_does_not_fit_jax_is_the_reason_of_its_row(doctor):
    pytest.importorskip("jax")
    modules = {
        "pynvml": PYNVML,
        "jax_cuda13_plugin/__init__": "",
        "jax_cuda13_plugin/version": "__version__ = '0.0.1'",
        "jax_cuda13_plugin/_linalg": "",
        "jax_plugins/xla_cuda13": "def initialize(): raise RuntimeError('of another version')",
    }
    done = doctor("--device", "gpu", "--backends", "jax", modules=modules)
    assert done.returncode == 1
    told = "it sees no GPU (JAX plugin jax_cuda13_plugin version 0.0.1 is installed, but it is not compatible with"
    assert told in done.stdout


@pytest.mark.parametrize(("name", "told"), [("torch", "install the extra torch-gpu"), ("mine", "it knows no GPU")])
def test_a_build_without_cuda_has_an_extra_only_if_there_is_one(name, told):
    class Backend(NumpyBackend):
        """On the CPU alone."""

        @classmethod
        def why_no_gpu(cls):
            return ""

    Backend.name = name
    found = preflight.device_seen(Backend, "gpu", None)
    assert not found.ok
    assert told in found.found


def test_a_row_says_what_the_log_does_of_a_gpu_that_is_not_seen(tmp_path):
    code = """if True:
        import sys
        from backends import UnavailableError
        from bench.running.worker_io import send
        def fail():
            print("E0000 00:00:1 1 cuda.cc:1] failed call to cuInit: UNKNOWN ERROR (303)", file=sys.stderr, flush=True)
            yield from ()
            raise UnavailableError(sys.argv[1])
        send(fail(), sys.stdout)
    """
    with (tmp_path / "log").open("w+") as log:
        for reason in ("jax: no gpu is visible to it here; it has cpu", "jax: no precision fp8"):
            command = [sys.executable, "-c", code, reason]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, check=True)
            added = ": failed call to cuInit: UNKNOWN ERROR (303)" if "gpu" in reason else ""
            assert json.loads(done.stdout)["reason"] == reason + added


def test_the_interpreter_of_a_backend_is_the_one_that_is_named(doctor):
    done = doctor("--device", "cpu", "--backends", "numpy", "--python", "numpy=/no/python")
    assert done.returncode == 1
    assert "numpy       /no/python can't be started (No such file or directory)" in done.stdout


class FarOff(NumpyBackend):
    """Trains with a learning rate that is 5 % off."""

    name = "jax"
    modes = ("eager",)

    def train(self, images, optimiser, stream, epochs):
        from dataclasses import replace

        return super().train(images, replace(optimiser, learning_rate=1.05e-3), stream, epochs)


class Coarse(NumpyBackend):
    """Multiplies float32 as TF32 does."""

    name = "jax"

    def product(self, a, b):
        return super().product((np.asarray(a, np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32), b)


class Raising(NumpyBackend):
    """Can't train."""

    name = "jax"

    def _training(self, *_):
        raise RuntimeError("CUDNN_STATUS_NOT_INITIALIZED")


class OfAnotherMaker(NumpyBackend):
    """Sees a GPU, as torch's build for ROCm does."""

    name = "jax"

    @classmethod
    def devices(cls):
        return ("cpu", "gpu")


def test_a_gpu_that_no_run_would_use_does_not_work(monkeypatch):
    monkeypatch.setattr(preflight.environment, "gpus", list)
    monkeypatch.setattr(preflight.environment, "why_no_gpus", lambda: "NVML Shared Library Not Found")
    _, seen = checks_of(OfAnotherMaker, monkeypatch, "gpu")
    assert (seen.ok, "shows none (NVML Shared Library Not Found)" in seen.found) == (False, True)
    monkeypatch.setattr(preflight.environment, "gpus", lambda: [{"name": "a GPU", "driver": "580.1"}])
    assert checks_of(OfAnotherMaker, monkeypatch, "gpu")[1].ok


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (FarOff, "trajectory_update at the initial weights is off by"),
        (Coarse, "products in float32 is tf32, float64 is tf32: "),
        (Raising, "training: RuntimeError: CUDNN_STATUS_NOT_INITIALIZED"),
    ],
)
def test_what_does_not_compute_as_it_should_is_found(monkeypatch, kind, told):
    wrong = [check.found for check in checks_of(kind, monkeypatch) if not check.ok]
    assert len(wrong) == 1
    assert told in wrong[0]


@pytest.mark.parametrize(
    ("driver", "cuda", "told"),
    [
        ("550.54.15", "13.0", "is 550.54.15, and CUDA 13.0 needs 580"),
        ("580.65.06", "13", None),
        ("550.54.15", "12.5.1", None),
        ("470.1", "12.5", "needs 525"),
        ("unreadable", "13.0", None),
        (None, "13.0", None),
        ("550.54.15", None, None),
    ],
)
def test_the_driver_is_held_against_what_the_build_needs(monkeypatch, driver, cuda, told):
    monkeypatch.setattr(preflight.environment, "gpus", lambda: [{"name": "a GPU", "driver": driver}])
    found = preflight.too_old(cuda)
    assert found is None if told is None else told in found


# The gate of `nox -s bench` and `bench-gpu`

SMI = {
    "hangs": "sleep 300",
    "prints garbage": "echo 'GPU 0: \\377\\n%$'",
    "exits with 9": "echo 'GPU 0: NVIDIA H100'; exit 9",
}


@pytest.mark.parametrize("smi", SMI)
@pytest.mark.parametrize(("library", "code"), [(PYNVML, 0), ("raise OSError('garbage')", 1)])
def test_the_gate_asks_the_drivers_library_alone(doctor, tmp_path, smi, library, code):
    stub = tmp_path / "nvidia-smi"
    stub.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n{SMI[smi]}\n")
    stub.chmod(0o755)
    variables = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = doctor("--require-gpu", modules={"pynvml": library}, **variables)
    assert done.returncode == code
    assert ("NVIDIA H100 80GB HBM3, driver 580.65.06" in done.stdout) is (code == 0)
    assert not (tmp_path / "asked").exists()


def test_the_gate_does_not_wait_for_a_driver_that_never_answers(doctor):
    modules = {"pynvml": f"{PYNVML}\nimport threading\nnvmlInit = threading.Event().wait"}
    modules["sitecustomize"] = "from bench.records import environment\nenvironment.ANSWER_SECONDS = 0.1"
    done = doctor("--require-gpu", modules=modules)
    assert done.returncode == 1
    assert "none is visible to the NVIDIA driver: the driver did not answer within 0.1 seconds\n" in done.stdout


@pytest.mark.parametrize(("setting", "code"), [("-1", 1), ("", 1), ("0", 0), ("MIG-1-2-3", 0), ("GPU-unknown", 1)])
def test_the_gate_heeds_what_hides_gpus(doctor, setting, code):
    done = doctor("--require-gpu", modules={"pynvml": PYNVML}, CUDA_VISIBLE_DEVICES=setting)
    assert done.returncode == code
    assert done.stderr.count("\n") == code
