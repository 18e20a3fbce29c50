"""Environment: what a figure was measured on, and with which versions.

Everything a reader needs to judge a figure or to repeat it, and nothing that names a person, a host or a folder:
records are published. No framework is imported to learn its version, and nothing here fails because something (git,
the NVIDIA library, /proc) is missing: what cannot be learnt is None or left out.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, TypeVar

import psutil

import backends
from bench.records.fields import plural

T = TypeVar("T")
ANSWER_SECONDS = 30.0  # a driver that has to load first takes a second or more for each GPU

PACKAGES = (
    "nice-bench",
    "numpy",
    "scipy",
    "triton",
    "keras",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "ml-dtypes",
    "safetensors",
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "nvidia-ml-py",
    "distrax",
    "flowjax",
    "FrEIA",
    "nflows",
    "normflows",
    "tensorflow-probability",
    "zuko",
)
"""Packages that bear on speed or on numbers, beside those of the backends; those installed are recorded."""

# Variables that bear on speed or on numbers. Not all of TF_* and JAX_*: TF_CONFIG and JAX_COORDINATOR_ADDRESS name
# hosts, and Terraform keeps passwords in TF_VAR_*.
VARIABLES = re.compile(
    r"(OMP|MKL|KMP|OPENBLAS|VECLIB|NUMEXPR|XLA|CUBLAS|ONEDNN|TORCHINDUCTOR|PYTORCH)_\w+"
    r"|TF_(ENABLE|DISABLE|NUM|GPU|CPU|CUDNN|XLA|FORCE|DETERMINISTIC|USE)_?\w*"
    r"|JAX_(PLATFORMS|ENABLE_X64|DEFAULT_MATMUL_PRECISION|DISABLE_JIT|NUM_CPU_DEVICES|CPU_\w+)"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING|MODULE_LOADING|DEVICE_MAX_CONNECTIONS)"
    r"|NVIDIA_TF32_OVERRIDE|GOMP_CPU_AFFINITY|MALLOC_ARENA_MAX"
)

THROTTLE_REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "software power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "hardware power brake",
    0x100: "display clocks",
}


BEGUN_WITH = "begun_with"
"""The key, in a record of a run that went on under other software, of what it began with: packages, framework, git."""


def fingerprint() -> dict[str, Any]:
    """Describe this machine, its software and the state of this source, as JSON values."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}".strip(),
        "kernel": platform.release(),
        "cpu": cpu_model(),
        "cores": len(_affinity()),
        "cpu_quota": cpu_quota(),
        "memory_bytes": psutil.virtual_memory().total,
        "variables": _variables(os.environ),
        "packages": versions(),
        "git": git_state(),
        "gpus": gpus(),
    }


def machine(device: str, fingerprint: Mapping[str, Any]) -> str:
    """Return the short label under which figures of one machine are grouped, e.g. "AMD EPYC, 2 cores".

    A CPU's limits are part of it where they differ from its cores, as in "AMD EPYC, 2 cores, quota 0.5, 1 thread". For
    the device "gpu" it is the GPU's name alone. `fingerprint` is what `fingerprint()` returned, there and then.
    """
    if device == "gpu":
        labels = [f"{gpu['name']} (MIG)" if gpu.get("mig") else f"{gpu['name']}" for gpu in fingerprint.get("gpus", [])]
        return " + ".join(sorted(set(labels))) or "unknown GPU"
    model, number = fingerprint.get("cpu"), fingerprint.get("cores")
    if not model:
        return "unknown CPU"
    label = re.sub(r"\((R|TM)\)|\bCPU\b|@.*|\b\d+-Core\b|\bProcessor\b", " ", str(model), flags=re.IGNORECASE)
    label = " ".join(label.split())
    if not number:
        return label
    label += f", {plural(number, 'core')}"
    if "cpu_quota" not in fingerprint:  # a record of before quotas were recorded, when labels had cores alone
        return label
    quota, threads = fingerprint["cpu_quota"], fingerprint.get("variables", {}).get("OMP_NUM_THREADS")
    usable = number if quota is None else min(number, quota)
    label += f", quota {usable:g}" if usable < number else ""
    return label if threads in (None, str(_whole(usable))) else f"{label}, {plural(threads, 'thread')}"


# Processor and memory


def cpu_model() -> str:
    """Return the processor's name, or failing that its architecture."""
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return _output(["sysctl", "-n", "machdep.cpu.brand_string"])
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many logical cores this process may use: by its affinity mask, and by the quota of its cgroup."""
    quota = cpu_quota()
    return len(_affinity()) if quota is None else _whole(min(quota, len(_affinity())))


def _affinity() -> Collection[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _whole(quota: float) -> int:
    """How many threads can be busy all the time: with one more, the kernel would stop them all every now and then."""
    return max(1, int(quota))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the cgroup of this process has, version 1 or 2; None where there is no limit."""
    return min(_limits(root), default=(None,))[0]


def quota_periods(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return the periods of that limit so far, and in how many it was used up; None where there is no limit."""
    with suppress(OSError, ValueError, KeyError):
        _, group = min(_limits(root))
        found = dict(line.split() for line in (group / "cpu.stat").read_text(encoding="ascii").splitlines())
        return int(found["nr_periods"]), int(found["nr_throttled"])
    return None


def _limits(root: Path) -> list[tuple[float, Path]]:
    """The quotas that hold for this process, each with the folder of its cgroup."""
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                own = PurePosixPath(path.lstrip("/"))
                for folder in (own, *own.parents):  # a limit holds for all groups below
                    group = root / "sys/fs/cgroup" / ("cpu" if controllers else "") / folder
                    found += [(quota, group) for quota in [_quota_of(group)] if quota is not None]
    return found


def _quota_of(group: Path) -> float | None:
    """The limit that a cgroup has of its own: its quota over its period."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # not there, or "max"
            quota, period = " ".join((group / name).read_text(encoding="ascii") for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
    return None


# Software


def versions() -> dict[str, str]:
    """Return the versions of `PACKAGES` and of what backends need, where installed, without importing any."""
    found = {}
    of_backends = [name for known in backends.BUILT_IN.values() for name in known.packages]
    from_outside = [point.dist.name for point in importlib.metadata.entry_points(group=backends.GROUP) if point.dist]
    for name in filter(None, (*PACKAGES, *of_backends, *from_outside)):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that bear on speed or on numbers, with folders' names blotted out."""
    chosen = sorted(name for name in environ if VARIABLES.fullmatch(name))
    return {name: re.sub(r"(?<![\w.])[~.]*/[^\s,;:]+|[A-Za-z]:\\[^\s,;]+", "<path>", environ[name]) for name in chosen}


def git_state(source: Path | None = None) -> dict[str, Any] | None:
    """Return the commit of this checkout and whether its code differs from it (`dirty`); None if this is none.

    Only code counts for `dirty`: the records a run writes must not taint the next one.
    """
    source = (source or Path(__file__).parents[2]).resolve()
    try:
        # An installed copy may lie inside some other project's checkout: that one's commit says nothing.
        if Path(_git(source, "rev-parse", "--show-toplevel")).resolve() != source:
            return None
        commit = _git(source, "rev-parse", "HEAD")
        changes = _git(source, "status", "--porcelain", "--", "backends", "bench", "pyproject.toml")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str:
    # GIT_DIR and its like, set while a git hook runs, would point elsewhere; the lock would disturb a commit.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return _output(["git", "-C", str(folder), *arguments], clean | {"GIT_OPTIONAL_LOCKS": "0"})


def _output(command: list[str], environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


# GPUs


def gpus() -> list[dict[str, Any]]:
    """Describe the NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves in sight; [] if there are none or no driver.

    Each has index, name, driver, memory_bytes, mig, and the fields of `gpu_state`.
    """
    with suppress(Exception):
        return _ask(_described)
    return []


def _described(nvml: Any) -> list[dict[str, Any]]:
    found = []
    driver = _try(nvml.nvmlSystemGetDriverVersion)
    for index, handle in _visible(nvml):
        memory = _try(nvml.nvmlDeviceGetMemoryInfo, handle)
        mig = _try(nvml.nvmlDeviceGetMigMode, handle)
        about = {
            "index": index,
            "name": _try(nvml.nvmlDeviceGetName, handle) or "unknown GPU",
            "driver": driver,
            "memory_bytes": None if memory is None else int(memory.total),
            "mig": None if mig is None else bool(mig[0]),
        }
        found.append(about | _state(nvml, handle))
    return found


def why_no_gpus() -> str:
    """Return why `gpus` finds none, as far as the driver's library (NVML) says so."""
    try:
        count = _ask(lambda nvml: nvml.nvmlDeviceGetCount())
    except TimeoutError:
        return f"the driver did not answer within {ANSWER_SECONDS:g} seconds"
    except Exception as error:
        return str(error) or type(error).__name__
    return f"CUDA_VISIBLE_DEVICES hides {plural(count, 'GPU')}" if count else "the driver has no GPU"


def gpu_state() -> dict[str, Any]:
    """Return clocks, temperature, power and throttle reasons of the first visible GPU now; {} if there is none.

    Keys: sm_mhz, sm_max_mhz, memory_mhz, memory_max_mhz, temperature_c, power_w, throttle (a list of reasons),
    utilisation (0 to 1, of the last second or so), processes (that compute on it; not of a part of a GPU, whose
    processes aren't told from those of other parts); each is None where the driver does not say.
    """
    with suppress(Exception):
        return _ask(lambda nvml: next((_state(nvml, handle) for _, handle in _visible(nvml)), {}))
    return {}


def _ask(question: Callable[[Any], T]) -> T:
    """Return what the NVIDIA management library answers.

    Raises:
        TimeoutError: it doesn't answer, as that of a driver in trouble.
        Exception: it isn't installed, there is no driver, or one of another version, and whatever `question` raises.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            try:
                found = question(pynvml)
            finally:
                _try(pynvml.nvmlShutdown)
            answer.set_result(found)
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()  # a call that never returns must not keep the process from ending
    return answer.result(ANSWER_SECONDS)


def _visible(nvml: Any) -> list[tuple[int, Any]]:
    """Return index (in the driver's order) and handle of each GPU that CUDA_VISIBLE_DEVICES does not hide."""
    each = (
        (index, _try(nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(_try(nvml.nvmlDeviceGetCount) or 0)
    )
    handles = [(index, handle) for index, handle in each if handle is not None]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return handles
    chosen = []
    for entry in (part.strip() for part in setting.split(",")):
        match = [
            (index, handle)
            for index, handle in handles
            if entry == str(index)
            or (entry.startswith("GPU-") and (_try(nvml.nvmlDeviceGetUUID, handle) or "").startswith(entry))
        ]
        if entry.startswith("MIG-"):  # a part of a GPU
            part = _try(nvml.nvmlDeviceGetHandleByUUID, entry)
            whole = None if part is None else _try(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part)
            number = None if whole is None else _try(nvml.nvmlDeviceGetIndex, whole)
            match = [(i, handle) for i, handle in handles if i == number or len(handles) == 1]
        if not match:  # as CUDA does: the first entry that names no GPU ends the list
            break
        chosen += match[:1]
    return chosen


def _state(nvml: Any, handle: Any) -> dict[str, Any]:
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    mask = _try(reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    power, rates = _try(nvml.nvmlDeviceGetPowerUsage, handle), _try(nvml.nvmlDeviceGetUtilizationRates, handle)
    mig, processes = _try(nvml.nvmlDeviceGetMigMode, handle), _try(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return {
        "sm_mhz": _try(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        "sm_max_mhz": _try(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
        "memory_mhz": _try(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        "memory_max_mhz": _try(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM),
        "temperature_c": _try(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "power_w": None if power is None else power / 1000,
        "throttle": None if mask is None else [name for bit, name in THROTTLE_REASONS.items() if mask & bit],
        "utilisation": None if rates is None else rates.gpu / 100,
        "processes": None if processes is None or (mig and mig[0]) else len(processes),
    }


def _try(query: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `query` answers, or None: any single query may be unsupported on any single GPU."""
    try:
        return query(*arguments)
    except Exception:
        return None
