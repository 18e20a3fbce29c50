"""The command `nice-bench doctor`."""

import sys
from typing import Annotated

import typer

import backends
from bench.commands.options import Device, Interpreters, backend_names, interruptible, pairs
from bench.errors import BenchError
from bench.inputs import data
from bench.records import environment
from bench.running.messages import Checked
from bench.running.preflight import preflight
from bench.running.variant import DEFAULT_BACKENDS, resolve_device
from bench.running.variant import Device as On


def doctor(
    chosen: Annotated[
        str | None,
        typer.Option(
            "--backends",
            help="Comma-separated; each has to work. [default: all, on a GPU without numpy; some may be absent]",
        ),
    ] = None,
    device: Device = "auto",
    python: Interpreters = None,
    require_gpu: Annotated[
        bool, typer.Option("--require-gpu", help="Say no more than what GPUs there are; exit with 1 if there is none.")
    ] = False,
) -> None:
    """Say what this machine has, and whether each framework works.

    Each framework is tried in a process of its own: its build, a few training steps against the reference, and a
    product in each precision. The exit code is 1 if one that was asked for doesn't work.
    """
    found = environment.fingerprint()
    _row("Python", f"{found['python']} on {found['platform']}")
    _row("CPU", environment.machine("cpu", found))
    for gpu in found["gpus"]:
        _row("GPU", f"{gpu['name']}, driver {gpu['driver'] or 'unknown'}")
    if not found["gpus"]:
        _row("GPU", f"none is visible to the NVIDIA driver: {environment.why_no_gpus()}")
    if require_gpu:
        if not found["gpus"]:
            raise BenchError("no GPU is visible to the NVIDIA driver here: the reason stands above")
        return
    on: On = "gpu" if device == "gpu" else resolve_device(device)
    names = backend_names(chosen) if chosen is not None else [*(DEFAULT_BACKENDS if on == "gpu" else backends.REGISTRY)]
    interpreters = pairs(python, "--python")
    with interruptible():
        outcomes = {name: _try(name, on, interpreters.get(name, sys.executable)) for name in names}
    for name, reason in backends.REFUSED.items():
        _row(name, reason)
    _row("MNIST", _mnist())
    broken = [
        name
        for name, outcome in outcomes.items()
        if outcome == "failed" or (chosen is not None and outcome == "absent")
    ]
    if broken or "works" not in outcomes.values():
        raise BenchError(f"not everything works on the {on}: see above for {', '.join(broken or names)}")


def _try(name: str, on: On, interpreter: str) -> str:
    """Show what the preflight of a backend finds, and return "works", "failed" or "absent"."""
    wrong: list[str] = []
    heads = iter([name])

    def show(check: Checked) -> None:
        if check.ok:
            _row(next(heads, ""), check.found)
        else:
            wrong.append(check.found)

    finished = preflight(name, on, interpreter, show)
    if finished.status == "unavailable":
        _row(next(heads, ""), str(finished.reason))
        return "absent"
    if finished.status != "ok":
        wrong.append(f"{finished.reason}: install its packages afresh, in versions that match each other")
    _row(next(heads, ""), f"does not work: {'; '.join(wrong)}" if wrong else "works")
    return "failed" if wrong else "works"


def _row(name: str, what: str) -> None:
    """Show a line, aligned with the others."""
    indent = 2 + max(map(len, ("Python", *backends.REGISTRY, *backends.REFUSED)))
    typer.echo(f"{name:<{indent}}{what}")


def _mnist() -> str:
    """Say where MNIST is, or why it can't be had."""
    try:
        present = data.complete()
    except data.DataError as error:
        return str(error)
    return f"{'in' if present else 'not yet in'} {data.folder()}"
