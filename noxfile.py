"""Tests and benchmark runs, each in its own environment: `nox -l` lists them, `nox -s NAME -- ARGUMENTS` runs one.

All packages come from the pins in bench/requirements/. The three frameworks share an environment on the CPU only: their
GPU builds want different CUDA libraries in the same place, so on the GPU each backend gets its own. With `--no-venv`
nothing is installed: the sessions then use what the interpreter that runs nox already has.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import nox
from nox.command import CommandFailed

PINS = Path("bench/requirements")
BACKENDS = ("torch", "tensorflow", "jax")
CPU_BUILDS = {"torch": "2.13.0", "tensorflow-cpu": "2.21.0", "jax": "0.10.2"}  # what `lock` pins
SLURM = ("munged", "slurmctld", "slurmd", "sbatch")
GPU_BUILDS = {"torch": "torch===2.13.0", "tensorflow": "tensorflow[and-cuda]==2.21.0", "jax": "jax[cuda13]==0.10.2"}

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"  # the pins are installed again each time, which is quick when nothing has changed
nox.options.sessions = ["tests"]


@nox.session
def tests(session: nox.Session) -> None:
    """Lint, formatting, types and all tests, on the CPU (arguments go to pytest).

    The report is tested in a browser: the Chromium or Chrome that is there, else Debian's package, else Playwright's.
    Where none can be had these tests fail if CI is set, since there nobody would miss them, and are skipped elsewhere.
    """
    install_cpu(session, "dev")
    install_browser(session)
    check(session, "-rs", *session.posargs)


@nox.session
def quick(session: nox.Session) -> None:
    """Lint, formatting, types and the tests that need neither long nor a browser (arguments go to pytest)."""
    install_cpu(session, "dev")
    check(session, "-m", "not slow and not browser", *session.posargs)


@nox.session(name="bench-micro")
def bench_micro(session: nox.Session) -> None:
    """Micro-benchmarks of every operation in every mode, checked and saved in .benchmarks (arguments go to pytest)."""
    install_cpu(session, "dev")
    command = (interpreter(session), "-m", "pytest", "tests/test_benchmarks.py", "--benchmark-only")
    session.run(*command, "--benchmark-autosave", "--benchmark-columns=min,median,iqr,rounds", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the frameworks on what this machine has: its GPU if one is visible, else its CPU."""
    on_cpu = only_options(session.posargs, "device") == ["--device=cpu"]
    (bench_cpu if on_cpu or not gpu_is_visible(session) else bench_gpu)(session)


@nox.session(name="bench-cpu")
def bench_cpu(session: nox.Session) -> None:
    """Compare the frameworks on the CPU, for one epoch in six rounds (`-- --protocol article`: all of it)."""
    install_cpu(session, "cpu")
    arguments = with_defaults(session.posargs, protocol="article-quick", device="cpu")
    session.run(interpreter(session), "-m", "bench", "run", *arguments)


@nox.session(name="bench-gpu")
def bench_gpu(session: nox.Session) -> None:
    """Compare the frameworks on the GPU, each in its own environment, by the full protocol."""
    if not gpu_is_visible(session):
        session.error("see above: no framework was installed. `nox -s bench-cpu` measures on the CPU")
    arguments = with_defaults(session.posargs, protocol="article", device="gpu")
    own = interpreters(session, chosen := chosen_backends(arguments), gpu_environment)
    tried = [*only_options(arguments, "backends", "device"), *own]
    session.run(interpreter(session), "-m", "bench", "doctor", *tried, success_codes=[0, 1])  # the others go on
    session.run(interpreter(session), "-m", "bench", "run", *arguments, *own)
    if session.virtualenv.is_sandboxed and len(own) < len(chosen):
        session.error("not everything was measured, since an installation failed: see above")


@nox.session(name="campaign-gpu")
def campaign_gpu(session: nox.Session) -> None:
    """Make all runs of the comparison on a GPU (`-- --output DIR`; called again, it goes on where it was cut off)."""
    on_cluster = only_options(session.posargs, "engine") == ["--engine=slurm"]  # whose login node needs no GPU
    if not gpu_is_visible(session) and not on_cluster:
        session.error("see above: no framework was installed")
    own = interpreters(session, BACKENDS, partial(peers_environment, gpu=True))
    session.run(interpreter(session), "-m", "bench", "campaign", "gpu", *own, *session.posargs)


@nox.session(name="compile-gpu")
def compile_gpu(session: nox.Session) -> None:
    """Compile JAX's and TensorFlow's code for an H100, without one, and hold it against budgets."""
    python, folder = sys.executable, session.create_tmp()
    if session.virtualenv.is_sandboxed:
        python = str(gpu_environment(session, "jax"))
        session.install("-c", str(PINS / "cpu.txt"), *runtime_packages(), "tensorflow-cpu")
    session.run(interpreter(session), "-m", "bench.profiling.tensorflow_hlo", folder)
    session.run(python, "-m", "bench.profiling.jax_compiled", "results/compiled-gpu", folder, external=True)


@nox.session(name="bench-peers")
def bench_peers(session: nox.Session) -> None:
    """Time the usual libraries on the same work (GPU if there is one), each framework's in its own environment."""
    environment = partial(peers_environment, gpu=gpu_is_visible(session))
    own = interpreters(session, chosen_backends(session.posargs, "--frameworks"), environment)
    session.run(interpreter(session), "-m", "bench", "peers", *session.posargs, *own)


@nox.session
def agreement(session: nox.Session) -> None:
    """Hold all backends against the float64 reference, in every mode, and plant faults that this must find."""
    install_cpu(session, "cpu")
    arguments = with_defaults(session.posargs, device="cpu")
    session.run(interpreter(session), "-m", "bench", "agree", *arguments)
    shared = only_options(arguments, "backends", "device", "output")
    session.run(interpreter(session), "-m", "tests.faults", "agreement", *shared)


@nox.session
def slurm(session: nox.Session) -> None:
    """Campaigns on a real SLURM on the loopback address, installed from Debian if need be (arguments go to pytest)."""
    if not all(map(shutil.which, SLURM)) and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install(session, "slurmctld", "slurmd", "slurm-client", "munge")
    if not all(map(shutil.which, SLURM)):
        session.skip("SLURM is not installed, and only root can install it, by Debian's apt-get")
    install_cpu(session, "dev")
    command = (interpreter(session), "-m", "pytest", "tests/test_campaign_slurm.py", *session.posargs)
    session.run(*command, env={"NICE_BENCH_TEST_SLURM": "required"})  # a test that would be skipped fails


@nox.session
def regression(session: nox.Session) -> None:
    """Hold every backend's losses against the committed references, and plant faults that this must find."""
    install_cpu(session, "cpu")
    session.run(interpreter(session), "-m", "bench", "check", *session.posargs)
    shared = only_options(session.posargs, "backends", "device")
    session.run(interpreter(session), "-m", "tests.faults", "check", *shared)


@nox.session
def mutation(session: nox.Session) -> None:
    """Change what is measured, one thing at a time, and list what no test notices (`-- FOLDER_OR_FILE...`)."""
    install_cpu(session, "mutation")
    session.run(interpreter(session), "-m", "tests.mutation", *session.posargs)


@nox.session
def tables(session: nox.Session) -> None:
    """Make the tables in results/tables, README.md and results/README.md anew, from the records in results/."""
    install_runtime(session)
    session.run(interpreter(session), "-m", "bench", "tables", "results", "--write", "results/tables")
    for text in ("README.md", "results/README.md"):
        session.run(interpreter(session), "-m", "bench", "tables", "--into", text)
    session.run(interpreter(session), "-m", "bench", "plots", "results/article-gpu", "--write", "results/article-gpu")


@nox.session
def report(session: nox.Session) -> None:
    """Make report.html, one page that needs nothing else, from the records in results/ (`-- --output PAGE`)."""
    install_runtime(session)
    history = ["--history", "HEAD"] if Path(".git").exists() else []
    session.run(interpreter(session), "-m", "bench", "report", "results", *history, *session.posargs)


@nox.session(reuse_venv=False)
def lock(session: nox.Session) -> None:
    """Write the pins in bench/requirements/ anew, from the newest releases that fit (with Python 3.11)."""
    project = nox.project.load_toml("pyproject.toml")
    if f">={sys.version_info.major}.{sys.version_info.minor}" != project["project"]["requires-python"]:
        session.error("run this with the oldest Python supported: newer packages may have dropped it")
    runtime = project["project"]["dependencies"]

    install_torch_cpu(session)
    session.install(*runtime, *(f"{package}=={version}" for package, version in CPU_BUILDS.items()))
    write_pins("cpu", frozen(session), "The run-time packages and the CPU builds of all three frameworks.")
    session.install("-c", str(PINS / "cpu.txt"), *nox.project.dependency_groups(project, "dev"))
    write_pins("dev", frozen(session), "What `nox -s tests` needs: cpu.txt, the tools and the stubs.")
    session.install("-c", str(PINS / "dev.txt"), *nox.project.dependency_groups(project, "mutation"))
    write_pins("mutation", frozen(session), "What `nox -s mutation` needs: dev.txt and mutmut.")
    session.run("python", "-c", "import torch, tensorflow, jax")

    # The CUDA libraries are of the release that torch is built for, and JAX gets the same ones. Above all the compiler:
    # with one that is newer than the driver, XLA compiles on one thread only.
    caps = Path(session.create_tmp(), "caps.txt")
    caps.write_text("".join(f"nvidia-{part}<13.1\n" for part in ("cuda-crt", "cuda-nvcc", "nvjitlink", "nvvm")))
    for backend, build in GPU_BUILDS.items():
        constraints = [caps, PINS / "cpu.txt", *([PINS / "gpu-torch.txt"] if backend == "jax" else [])]
        wanted = [*runtime, build, *(f"--constraint={file}" for file in constraints)]
        write_pins(f"gpu-{backend}", resolved(session, wanted), f"The run-time packages and {backend}'s GPU build.")

    # The peers' pins go on top of either build: only what neither brings along.
    builds = {package_name(package) for package in CPU_BUILDS} | {"tensorflow", "jaxlib"}
    for framework, package in zip(BACKENDS, CPU_BUILDS, strict=True):
        peers = project["project"]["optional-dependencies"][f"peers-{framework}"]
        there = builds | {package_name(pin) for pin in pinned(PINS / f"gpu-{framework}.txt")}
        build = f"{package}=={CPU_BUILDS[package]}"
        pins = resolved(session, [*runtime, build, *peers, f"--constraint={PINS / 'cpu.txt'}"])
        extra = [pin for pin in pins if package_name(pin) not in there]
        purpose = f"What the peers on {framework} need beside its own build: `pip install --no-deps -r` on top of that."
        write_pins(f"peers-{framework}", extra, purpose)


def check(session: nox.Session, *arguments: str) -> None:
    """Lint, check formatting and types, and run pytest with these arguments."""
    python = interpreter(session)
    session.run(python, "-m", "ruff", "check", ".")
    session.run(python, "-m", "ruff", "format", "--check", ".")
    session.run(python, "-m", "mypy")
    session.run(python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *arguments)


def interpreter(session: nox.Session) -> str:
    """Return the session's Python or, under `--no-venv`, the one that runs nox."""
    return "python" if session.virtualenv.is_sandboxed else sys.executable


def gpu_is_visible(session: nox.Session) -> bool:
    """Install what `bench` needs without a framework, and return whether it sees a GPU, as a run does; it says which.

    This is the one place where that is decided, and comes before gigabytes of CUDA libraries are installed.
    """
    install_runtime(session)
    try:
        session.run(interpreter(session), "-m", "bench", "doctor", "--require-gpu")
    except CommandFailed:
        return False
    return True


def with_defaults(arguments: Sequence[str], **defaults: str) -> list[str]:
    """Return `arguments`, preceded by those of the default options that they don't set: none for a run to --resume."""
    given = {argument.partition("=")[0] for argument in arguments}
    added = [(f"--{name}", value) for name, value in defaults.items() if given.isdisjoint({f"--{name}", "--resume"})]
    return [*(part for option in added for part in option), *arguments]


def only_options(arguments: Sequence[str], *names: str) -> list[str]:
    """Return those of `arguments` that set one of the options `names`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}")
    given, _ = parser.parse_known_args(arguments)
    return [f"--{name}={value}" for name, value in vars(given).items() if value is not None]


def chosen_backends(arguments: Sequence[str], option: str = "--backends") -> list[str]:
    """Return the backends that `option` in `arguments` names, by default all of them."""
    named = re.search(rf"{option}[= ](\S+)", " ".join(arguments))
    return [backend for backend in BACKENDS if not named or backend in named[1].split(",")]


def install_runtime(session: nox.Session) -> None:
    """Install what `bench` needs without a framework; nothing under `--no-venv`."""
    if session.virtualenv.is_sandboxed:
        session.install("-c", str(PINS / "cpu.txt"), *runtime_packages())


def runtime_packages() -> list[str]:
    """Return the requirements of `bench` itself."""
    return nox.project.load_toml("pyproject.toml")["project"]["dependencies"]


def install_cpu(session: nox.Session, pins: str) -> None:
    """Install the packages pinned in the file `pins`, torch as its CPU build; nothing under `--no-venv`."""
    if session.virtualenv.is_sandboxed:
        install_torch_cpu(session)
        session.install("-r", str(PINS / f"{pins}.txt"))


def install_browser(session: nox.Session) -> None:
    """Install Chromium unless a browser is there; what comes of a failure is for the tests to say."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if not session.virtualenv.is_sandboxed or any(map(shutil.which, names)):
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        apt_install(session, "chromium")
    if not any(map(shutil.which, names)):
        command = ("python", "-m", "playwright", "install", "chromium")
        session.run_install(*command, external=True, success_codes=range(256))


def apt_install(session: nox.Session, *packages: str) -> None:
    """Install Debian's packages; whether that succeeded is for the caller to see."""
    run = partial(session.run_install, env={"DEBIAN_FRONTEND": "noninteractive"}, external=True)
    run("apt-get", "update", "-q", success_codes=range(256))
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages, success_codes=range(256))


def install_torch_cpu(session: nox.Session) -> None:
    """Install torch's CPU build where there is one: on Linux the usual build brings gigabytes of CUDA libraries."""
    if sys.platform == "linux":
        # Where pip finds no such build (PIP_EXTRA_INDEX_URL can name PyTorch's own index), the usual one serves too.
        session.install("--no-deps", f"torch=={CPU_BUILDS['torch']}+cpu", success_codes=[0, 1])


def interpreters(
    session: nox.Session, names: Sequence[str], environment: Callable[[nox.Session, str], Path]
) -> list[str]:
    """Return a --python option for each backend whose environment can be made; the others become rows that say so."""
    options: list[str] = []
    for name in names if session.virtualenv.is_sandboxed else ():
        try:
            options.append(f"--python={name}={environment(session, name)}")
        except CommandFailed:
            session.warn(f"{name}: the installation failed, see above; going on without it")
    return options


def gpu_environment(session: nox.Session, backend: str) -> Path:
    """Return the Python of an environment with `backend`'s GPU build; see `own_environment`."""
    pins = PINS / f"gpu-{backend}.txt"

    def install(pip: Sequence[str]) -> None:
        session.run_install(*pip, "-r", str(pins), external=True)
        if backend == "torch":
            check = "import sys, torch; sys.exit(not torch.version.cuda and f'torch {torch.__version__} has no CUDA')"
            session.run_install(pip[0], "-c", check, external=True)

    return own_environment(session, f"bench-gpu-{backend}", [pins], install)


def peers_environment(session: nox.Session, framework: str, gpu: bool) -> Path:
    """Return the Python of an environment with `framework`, for the GPU or the CPU, and its peers.

    A peer that can't be installed is left out, with a warning: it becomes a row that says so.
    """
    extra = PINS / f"peers-{framework}.txt"
    base = PINS / (f"gpu-{framework}.txt" if gpu else "cpu.txt")

    def install(pip: Sequence[str]) -> None:
        if gpu:
            session.run_install(*pip, "-r", str(base), external=True)
        else:
            package = {"tensorflow": "tensorflow-cpu"}.get(framework, framework)
            if framework == "torch" and sys.platform == "linux":  # see install_torch_cpu
                wanted = f"torch=={CPU_BUILDS['torch']}+cpu"
                session.run_install(*pip, "--no-deps", wanted, external=True, success_codes=[0, 1])
            session.run_install(*pip, "-c", str(base), *runtime_packages(), package, external=True)
        try:
            session.run_install(*pip, "--no-deps", "-r", str(extra), external=True)
        except CommandFailed:
            session.warn(f"not everything in {extra} can be installed: one package at a time then")
            for line in pinned(extra):
                session.run_install(*pip, "--no-deps", line, external=True, success_codes=[0, 1])

    return own_environment(session, f"bench-peers-{framework}-{'gpu' if gpu else 'cpu'}", [base, extra], install)


def own_environment(
    session: nox.Session, name: str, pins: Sequence[Path], install: Callable[[Sequence[str]], None]
) -> Path:
    """Return the Python of the environment `name` beside the session's, made anew if the pins or Python have changed.

    `install` is given the beginning of a `pip install` command. A CommandFailed comes through where pip or venv fails;
    the next call then starts afresh.
    """
    folder = Path(session.virtualenv.location).resolve().with_name(name)
    python, stamp = folder / "bin" / "python", folder / "installed.sha256"
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in pins) + sys.version.encode()).hexdigest()
    if not python.exists() or not stamp.exists() or stamp.read_text() != wanted:
        session.run_install("python", "-m", "venv", "--clear", str(folder))
        install([str(python), "-m", "pip", "install"])
        stamp.write_text(wanted)
    return python


def pinned(file: Path) -> list[str]:
    """Return the lines of a file of pins."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def package_name(pin: str) -> str:
    """Return the normalised name of a pinned package."""
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def frozen(session: nox.Session) -> list[str]:
    """Return what the session's environment holds, as pins without pip and without the label of a local build."""
    lines = session.run("python", "-m", "pip", "freeze", "--all", silent=True, log=False)
    return [line.partition("+")[0] for line in str(lines).splitlines() if not line.startswith("pip==")]


def resolved(session: nox.Session, requirements: Iterable[str]) -> list[str]:
    """Return the pins that pip would install for `requirements` from the public index; only metadata is loaded.

    A requirement with === stays one: no local version matches it, as a CPU build beside the CUDA libraries would.
    """
    requirements = list(requirements)
    report = Path(session.create_tmp(), "report.json")
    session.install(
        *("--dry-run", "--ignore-installed", "--report", str(report), *requirements),
        env={"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": None},
    )
    packages = [package["metadata"] for package in json.loads(report.read_text())["install"]]
    exact = {re.split("===", pin)[0] for pin in requirements if "===" in pin}
    return [f"{p['name']}{'===' if p['name'] in exact else '=='}{p['version']}" for p in packages]


def write_pins(name: str, pins: Iterable[str], purpose: str) -> None:
    """Write the file of pins `name`, sorted, headed by what it is for and how it is made."""
    head = [f"# {purpose}", "# Python 3.11 and 3.12. Made by `nox -s lock` (with Python 3.11 on Linux): do not edit."]
    (PINS / f"{name}.txt").write_text("\n".join([*head, *sorted(pins, key=str.lower), ""]))
