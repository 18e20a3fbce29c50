"""Runs of the agreement suite, as `nice-bench agree` asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console

import backends
from bench import agreement_report, data
from bench.agree import LOCKSTEPS, Check, Setting, architectures, lockstep, matrix, resume, sampling
from bench.errors import BenchError
from bench.render import render

PRECISIONS = ("float64", "float32", "tf32", "bfloat16")
NARROW = {"hidden_layers": 3, "hidden_units": 64}
FULL = {"hidden_layers": 5, "hidden_units": 1000}


def run(
    chosen: Sequence[str], device: str, *, full: bool, steps: int, output: Path | None, console: Console | None = None
) -> str:
    """Make all checks, write them and their tables where asked to.

    Args:
        chosen: backends; one that can't be imported is refused, since it was asked for.
        device: "cpu" or "gpu"; the reference stays on the CPU.
        full: the full-size network on MNIST, both named architectures; else a narrow one on the embedded subset, all
            options.
        steps: of lockstep training.
        output: folder; None writes nothing.
        console: for progress; standard error.

    Returns:
        The tables, as text.

    Raises:
        BenchError: a check failed; the checks are written nevertheless.
        UnavailableError: a framework can't be imported here.
    """
    console = console or Console(stderr=True)
    for name in chosen:
        backends.backend_class(name)
    here = setting(full=full, steps=steps)
    cases = tuple(LOCKSTEPS)[:2] if full else tuple(LOCKSTEPS)
    suites = chain(
        matrix(here, chosen, PRECISIONS, device),
        lockstep(here, chosen, "float64", device, cases),
        lockstep(here, chosen, "float32", device, cases[:2]),
        resume(here, chosen, device),
        sampling(here, chosen, device),
    )
    made = agreement_report.frame(_told(suites, console))
    head: list[str] = []
    if output is not None:
        agreement_report.save(made, here, device, output)
        made, head = agreement_report.load(output)
        agreement_report.write(made, head, output)
    text = render(agreement_report.tables(made, head, brief=True), "text")
    breaches = made[~made["passed"]]
    if len(breaches):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        worst = breaches.iloc[0]
        raise BenchError(
            f"{len(breaches)} of {len(made)} checks failed, the first: {worst['suite']}, {worst['case']}, "
            f"{worst['backend']}, {worst['precision']}, {worst['quantity']}: "
            f"{worst['error']:.1e} > {worst['tolerance']:.1e}"
        )
    return f"{text}\n\nAll {len(made)} checks are within their tolerances."


def setting(*, full: bool, steps: int) -> Setting:
    """The full-size network on MNIST, or a narrow one on the embedded subset."""
    if full:
        images = data.load("mnist").train_images[:2560]
        return Setting(images, dict(list(architectures(784, **FULL).items())[:2]), steps=steps, batch=128)
    return Setting(data.load("mnist-subset").train_images, architectures(784, **NARROW), steps=steps, batch=32)


def _told(checks: Iterator[Check], console: Console) -> Iterator[Check]:
    """Pass checks on, and say which one is at work."""
    with console.status("agreement") as status:
        for check in checks:
            status.update(f"{check.suite}: {check.case}: {check.backend} {check.precision}")
            if not check.passed:
                console.print(f"FAILED {check}", markup=False, highlight=False, soft_wrap=True)
            yield check
