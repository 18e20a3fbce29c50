"""The preflight: what a run would need of each framework, tried in seconds before anything long begins.

Each framework is tried in a process of its own, so that one whose import takes its process down is a failure of that
one alone: the build that is installed, the device and the driver, a few training steps in the default mode against the
reference, and a product in each precision.
"""

import ctypes
import re
import sys
from collections.abc import Callable, Iterator

import numpy as np

import backends
from backends import Adam, Architecture, Backend, Pixels, UnavailableError, parameters
from bench.errors import DisagreesError
from bench.inputs.streams import initial_parameters
from bench.measures import agreement
from bench.measures.precision import probe
from bench.measures.rounding import Rounding
from bench.records import environment
from bench.running.messages import Checked, Event, Finished, PreflightPlan
from bench.running.supervisor import supervise
from bench.running.variant import DEFAULT_BACKENDS, Device, worker_command
from bench.running.worker_environment import worker_environment
from bench.running.worker_io import reason_of, said_of_gpus, serve

LEAST_DRIVER = {"12": 525, "13": 580}
"""Release of CUDA → the oldest NVIDIA driver on which programs built for it run ("CUDA Compatibility", NVIDIA)."""

TINY = Architecture(dim=16, couplings=2, hidden_layers=1, hidden_units=64)
STEPS, BATCH = 8, 32
TIMEOUT = 600.0  # seconds; the first import of a GPU build from a cold disk takes minutes


def preflight(backend: str, device: Device, interpreter: str, take: Callable[[Checked], None]) -> Finished:
    """Try a backend in a process of its own.

    Args:
        backend: its name.
        device: where to try it.
        interpreter: the Python that has its framework.
        take: called with each check, as it is made.

    Returns:
        "ok" where all checks could be made, whatever they found; else how the process ended, and why.
    """

    def pass_on(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Checked):
                take(event)

    # TensorFlow says at this level alone which libraries it could not open.
    variables = worker_environment(backend, interpreter, device) | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    command = worker_command("bench.running.preflight", backend, interpreter)
    return supervise(command, PreflightPlan(backend=backend, device=device), variables, TIMEOUT, pass_on).finished


def checks(plan: PreflightPlan) -> Iterator[Event]:
    """Make the checks of a plan.

    Raises:
        UnavailableError: the framework can't be imported.
    """
    kind = backends.backend_class(plan.backend)
    cuda = kind.cuda()
    build = f"built for CUDA {cuda}" if cuda else "a build without CUDA"
    versions = ", ".join(f"{package} {version}" for package, version in kind.versions().items())
    yield Checked(ok=True, found=versions if plan.backend == backends.REFERENCE else f"{versions}: {build}")
    seen = device_seen(kind, plan.device, cuda)
    yield seen
    if seen.ok:
        yield _tried("training", lambda: _steps(kind, plan.device))
        yield _tried("products", lambda: _products(kind, plan.device))
    yield Finished(status="ok")


def device_seen(kind: type[Backend], device: Device, cuda: str | None) -> Checked:
    """Check that a framework sees the device, and that the driver is one that its build runs on."""
    if device in kind.devices():
        if device == "gpu" and not environment.gpus():  # of another maker
            reason = f"the NVIDIA driver shows none ({environment.why_no_gpus()})"
            return Checked(ok=False, found=f"it sees a GPU, but no run would: {reason}")
        # A driver that is too old may yet do, with NVIDIA's compatibility package: the steps that follow tell.
        driver = too_old(cuda) if device == "gpu" else None
        offered = f"{device}: {', '.join(kind.precisions(device))}; modes {', '.join(kind.modes_on(device))}"
        return Checked(ok=True, found="; ".join(filter(None, [offered, driver])))
    if cuda is None:
        if kind.name not in DEFAULT_BACKENDS:
            return Checked(ok=False, found=kind.why_no_gpu() or "it knows no GPU")
        advice = f"install the extra {kind.name}-gpu in its place"
        return Checked(ok=False, found=f"the installed build has no CUDA: {advice}")
    reason = "; ".join(said_of_gpus()) or kind.why_no_gpu() or "it doesn't say why"
    return Checked(ok=False, found=f"it sees no GPU ({reason}): {_advice(kind.name, cuda)}")


def _advice(name: str, cuda: str) -> str:
    """Return what to do where a build for CUDA sees no GPU."""
    gpus = environment.gpus()
    if not gpus:
        return f"the NVIDIA driver shows none either ({environment.why_no_gpus()})"
    if old := too_old(cuda):
        return old
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "the driver's libcuda.so.1 is missing; a container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    return f"the driver shows {gpus[0]['name']}; install the extra {name}-gpu afresh, in an environment of its own"


def too_old(cuda: str | None) -> str | None:
    """Return what to do about a driver that is older than a build for this CUDA needs; None where it is new enough."""
    release = (cuda or "").split(".")[0]
    drivers = [str(gpu["driver"]) for gpu in environment.gpus() if gpu["driver"]]
    if not drivers or release not in LEAST_DRIVER or _number(drivers[0]) >= LEAST_DRIVER[release]:
        return None
    return (
        f"the NVIDIA driver is {drivers[0]}, and CUDA {cuda} needs {LEAST_DRIVER[release]} or newer: "
        "update the driver, or install a build for an older CUDA"
    )


def _number(driver: str) -> int:
    """Return the release of a driver: 580 of "580.65.06"; one that can't be read is taken to be new."""
    found = re.match(r"\d+", driver)
    return int(found[0]) if found else sys.maxsize


def _tried(what: str, check: Callable[[], Checked]) -> Checked:
    """Return the outcome of a check, in which a framework may raise whatever it likes."""
    try:
        return check()
    except Exception as error:
        return Checked(ok=False, found=f"{what}: {reason_of(error)}")


def _steps(kind: type[Backend], device: Device) -> Checked:
    """Hold a few steps of a tiny model, compiled or captured as the default mode does, against the reference."""
    initial = initial_parameters(TINY, 0, "glorot_uniform", "glorot_normal")
    model = kind(TINY, initial, device=device)
    images = np.random.default_rng(0).integers(0, 256, (STEPS, BATCH, TINY.dim), dtype=np.uint8)
    found = [*agreement.compare(model, images[0] / 255, "initial")]
    found += agreement.trajectory(model, initial, images, Adam(), Pixels(1 / 255), 0)
    where = f"{STEPS} training steps in mode {model.mode}"
    try:
        agreement.refuse(found, Rounding(TINY, model.precision, BATCH))
    except DisagreesError as error:
        advice = "its figures would be those of something else, so measure with another version"
        return Checked(ok=False, found=f"{where}: {error}: {advice}")
    return Checked(ok=True, found=f"{where}: as the reference")


def _products(kind: type[Backend], device: Device) -> Checked:
    """Multiply in each precision that the backend has, and see which one the hardware used."""
    initial = initial_parameters(TINY, 0, "glorot_uniform", "glorot_normal")
    wrong: list[str] = []
    right: list[str] = []
    # float64 comes last: it switches JAX over for the rest of the process.
    for precision in sorted(kind.precisions(device), key="float64".__eq__):
        try:
            seen = probe(kind(TINY, parameters.rounded(initial, precision), device=device, precision=precision)).seen
        except UnavailableError as error:
            wrong.append(str(error))
            continue
        (right if seen == precision else wrong).append(precision if seen == precision else f"{precision} is {seen}")
    if not wrong:
        return Checked(ok=True, found=f"products: {', '.join(right)}, each as asked for")
    advice = "leave that --precision out, and see whether NVIDIA_TF32_OVERRIDE or a flag of the framework is set"
    return Checked(ok=False, found=f"products in {', '.join(wrong)}: {advice}")


if __name__ == "__main__":
    sys.exit(serve(PreflightPlan, checks))
