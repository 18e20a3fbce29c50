import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from bench.records import environment
from bench.records.environment import fingerprint, git_state, gpu_state, gpus, machine, why_no_gpus


class UnsupportedError(Exception):
    pass


class FakeNvml:
    """Two GPUs as the management library would tell of them; the second one tells little."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self):
        self.open = 0

    def nvmlInit(self):  # noqa: N802
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetName": lambda handle: ["NVIDIA H100 80GB HBM3", "NVIDIA T4"][handle],
            "nvmlDeviceGetUUID": lambda handle: ["GPU-aaaa-1", "GPU-bbbb-2"][handle],
            "nvmlDeviceGetHandleByUUID": {"MIG-cccc-3": "a part"}.__getitem__,
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": {"a part": 1}.__getitem__,
            "nvmlDeviceGetIndex": lambda handle: handle,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=80 * 2**30),
            "nvmlDeviceGetMigMode": lambda handle: [[0, 0], [1, 1]][handle],
            "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1980, 2: 2619}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda handle, kind: {1: 1981, 2: 2620}[kind],
            "nvmlDeviceGetTemperature": lambda handle, kind: 41,
            "nvmlDeviceGetPowerUsage": lambda handle: 70_500,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=7, memory=1),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=7), SimpleNamespace(pid=8)],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x1 | 0x40,
        }
        if name not in answers:
            raise AttributeError(name)

        def answer(*arguments):
            if arguments and arguments[0] == 1 and name in {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage"}:
                raise UnsupportedError(name)
            return answers[name](*arguments)

        return answer


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_the_fingerprint_is_json_and_knows_this_machine():
    found = fingerprint()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["python"] == platform.python_version()
    assert 1 <= found["cores"] <= os.cpu_count()
    assert found["memory_bytes"] > 2**20
    assert found["packages"]["numpy"] == __import__("numpy").__version__
    assert machine("cpu", found).endswith("cores" if found["cores"] > 1 else "core")


def test_the_fingerprint_names_no_host_no_person_and_no_folder(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/secret/place --xla_cpu_x=1")
    text = json.dumps(fingerprint())
    assert "secret" not in text
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text.replace('"/"', "")
    for name in (platform.node(), getpass.getuser()):
        assert f'"{name}"' not in text


def test_no_framework_is_imported_for_its_version():
    code = (
        "import sys; from bench.records.environment import fingerprint; fingerprint();"
        "print([name for name in ('torch', 'tensorflow', 'jax', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_variables_that_bear_on_speed_are_recorded_without_folders_and_others_are_not():
    environ = {
        "OMP_NUM_THREADS": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "NVIDIA_TF32_OVERRIDE": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/home/someone/cuda --xla_cpu_multi_thread_eigen=false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CONFIG": '{"cluster": {"worker": ["host1:1"]}}',
        "TF_VAR_password": "hunter2",
        "HOME": "/home/someone",
        "JAX_COORDINATOR_ADDRESS": "host1:1",
    }
    assert environment._variables(environ) == {
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "2",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "XLA_FLAGS": "--xla_gpu_cuda_data_dir=<path> --xla_cpu_multi_thread_eigen=false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


LIMITED = {"cpu": "AMD EPYC", "cores": 4, "cpu_quota": None, "variables": {}}


@pytest.mark.parametrize(
    ("device", "found", "label"),
    [
        ("cpu", {"cpu": "AMD EPYC", "cores": 2}, "AMD EPYC, 2 cores"),
        ("cpu", {"cpu": "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "cores": 1}, "Intel Xeon E5-2680 v4, 1 core"),
        ("cpu", {"cpu": "AMD EPYC 7B13 64-Core Processor", "cores": 16}, "AMD EPYC 7B13, 16 cores"),
        ("cpu", {}, "unknown CPU"),
        ("gpu", {"cpu": "AMD EPYC", "cores": 2, "gpus": [{"name": "NVIDIA H200"}] * 2}, "NVIDIA H200"),
        (
            "gpu",
            {"gpus": [{"name": "NVIDIA T4"}, {"name": "NVIDIA A100", "mig": True}]},
            "NVIDIA A100 (MIG) + NVIDIA T4",
        ),
        ("gpu", {"gpus": []}, "unknown GPU"),
        ("cpu", LIMITED, "AMD EPYC, 4 cores"),
        ("cpu", LIMITED | {"variables": {"OMP_NUM_THREADS": "4"}}, "AMD EPYC, 4 cores"),
        ("cpu", LIMITED | {"variables": {"OMP_NUM_THREADS": "1"}}, "AMD EPYC, 4 cores, 1 thread"),
        ("cpu", LIMITED | {"cpu_quota": 2.5}, "AMD EPYC, 4 cores, quota 2.5"),
        ("cpu", LIMITED | {"cpu_quota": 2.5, "variables": {"OMP_NUM_THREADS": "2"}}, "AMD EPYC, 4 cores, quota 2.5"),
        (
            "cpu",
            LIMITED | {"cpu_quota": 0.5, "variables": {"OMP_NUM_THREADS": "4"}},
            "AMD EPYC, 4 cores, quota 0.5, 4 threads",
        ),
        ("cpu", LIMITED | {"cpu_quota": 8.0}, "AMD EPYC, 4 cores"),
        ("cpu", {"cpu": "AMD EPYC", "cores": 4, "variables": {"OMP_NUM_THREADS": "1"}}, "AMD EPYC, 4 cores"),
    ],
)
def test_machines_have_short_labels(device, found, label):
    assert machine(device, found) == label


@pytest.mark.parametrize(
    ("groups", "limits", "quota"),
    [
        ("0::/user/job", {"user/job/cpu.max": "150000 100000"}, 1.5),
        ("0::/user/job", {"user/job/cpu.max": "max 100000", "user/cpu.max": "50000 100000", "cpu.max": "max 1"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/not/mounted/here", {"cpu.max": "200000 100000"}, 2.0),
        ("3:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "50000", "cpu/job/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/job", {"cpu/job/cpu.cfs_quota_us": "50000", "cpu/job/cpu.cfs_period_us": "100000"}, None),
        (None, {}, None),
    ],
)
def test_the_quota_is_the_smallest_of_the_groups_that_the_process_is_in(tmp_path, groups, limits, quota):
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(f"{groups}\n")
    for name, text in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert environment.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/user/job", {"user/cpu.max": "50000 100000", "user/cpu.stat": "usage_usec 7\nnr_periods 9"}, None),
        (
            "0::/user/job",  # the tightest limit is the one that is used up
            {
                "user/job/cpu.max": "150000 100000",
                "user/job/cpu.stat": "nr_periods 30\nnr_throttled 1\nthrottled_usec 9",
                "user/cpu.max": "50000 100000",
                "user/cpu.stat": "usage_usec 7\nnr_periods 40\nnr_throttled 12\nthrottled_usec 5",
            },
            (40, 12),
        ),
        (
            "3:cpu,cpuacct:/job",
            {
                "cpu/job/cpu.cfs_quota_us": "50000",
                "cpu/job/cpu.cfs_period_us": "100000",
                "cpu/job/cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 123",
            },
            (5, 2),
        ),
        ("0::/", {"cpu.max": "max 100000", "cpu.stat": "nr_periods 1\nnr_throttled 1"}, None),
    ],
)
def test_how_often_a_quota_was_used_up_is_that_of_the_group_with_the_limit(tmp_path, groups, files, found):
    where = {f"sys/fs/cgroup/{name}": text for name, text in files.items()} | {"proc/self/cgroup": groups}
    for name, text in where.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert environment.quota_periods(tmp_path) == found


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (2.5, 2), (0.5, 1), (16.0, 4)])
def test_a_process_has_no_more_cores_than_its_quota_keeps_busy(monkeypatch, quota, cores):
    monkeypatch.setattr(environment, "_affinity", lambda: range(4))
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    assert environment.cores() == cores
    assert environment.fingerprint()["cpu_quota"] == quota


def test_gpus_are_described_and_what_is_unsupported_is_none(nvml):
    first, second = gpus()
    assert first == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "driver": "580.1",
        "memory_bytes": 80 * 2**30,
        "mig": False,
        "sm_mhz": 1980,
        "sm_max_mhz": 1981,
        "memory_mhz": 2619,
        "memory_max_mhz": 2620,
        "temperature_c": 41,
        "power_w": 70.5,
        "throttle": ["idle", "hardware thermal slowdown"],
        "utilisation": 0.07,
        "processes": 2,
    }
    assert (second["memory_bytes"], second["power_w"], second["mig"]) == (None, None, True)
    assert second["processes"] is None  # those of its other parts are among them
    assert gpu_state() == {name: first[name] for name in list(first)[5:]}
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("setting", "indices"),
    [
        ("0", [0]),
        ("1,0", [1, 0]),
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),
        ("GPU-bbbb", [1]),
        ("MIG-cccc-3", [1]),
        ("MIG-none", []),
    ],
)
def test_hidden_gpus_are_not_listed(nvml, monkeypatch, setting, indices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [gpu["index"] for gpu in gpus()] == indices
    assert bool(gpu_state()) == bool(indices)


@pytest.mark.parametrize("trouble", ["no library", "no driver"])
def test_without_library_or_driver_there_are_no_gpus(monkeypatch, trouble):
    def fail():
        raise UnsupportedError("driver not loaded")

    monkeypatch.setitem(sys.modules, "pynvml", None if trouble == "no library" else SimpleNamespace(nvmlInit=fail))
    assert gpus() == []
    assert gpu_state() == {}
    assert ("driver not loaded" if trouble == "no driver" else "pynvml") in why_no_gpus()


def test_a_driver_that_does_not_answer_has_no_gpus(nvml, monkeypatch):
    released = Event()
    monkeypatch.setattr(nvml, "nvmlInit", released.wait)
    monkeypatch.setattr(environment, "ANSWER_SECONDS", 0.01)
    try:
        assert (gpus(), gpu_state()) == ([], {})
        assert why_no_gpus() == "the driver did not answer within 0.01 seconds"
    finally:
        released.set()


def test_gpus_that_are_hidden_are_the_reason_why_there_are_none(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert why_no_gpus() == "CUDA_VISIBLE_DEVICES hides 2 GPUs"
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 0)
    assert why_no_gpus() == "the driver has no GPU"


def test_a_name_that_is_garbage_is_a_gpu_all_the_same(nvml, monkeypatch):
    monkeypatch.setattr(nvml, "nvmlDeviceGetName", lambda handle: b"\xff\xfe")
    monkeypatch.setattr(nvml, "nvmlSystemGetDriverVersion", lambda: b"\xff".decode())
    assert [(gpu["index"], gpu["driver"]) for gpu in gpus()] == [(0, None), (1, None)]


# The state of the source


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, env=clean, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "code.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_is_recorded_and_dirty_means_changed_code(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "results").mkdir()
    (checkout / "results" / "record.json").write_text("{}")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "bench" / "more.py").write_text("y = 2\n")
    assert git_state(checkout) == {"commit": commit, "dirty": True}


def test_the_commit_of_some_other_project_around_is_not_recorded(checkout):
    inner = checkout / "site-packages"
    inner.mkdir()
    assert git_state(inner) is None


def test_without_git_or_a_commit_there_is_no_state(checkout, tmp_path_factory, monkeypatch):
    empty = tmp_path_factory.mktemp("empty")
    assert git_state(empty) is None
    git(empty, "init", "-q")
    assert git_state(empty) is None
    monkeypatch.setenv("PATH", str(empty))
    assert git_state(checkout) is None
    assert fingerprint()["git"] is None
