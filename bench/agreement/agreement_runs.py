"""Runs of the agreement suite, as `nice-bench agree` asks for them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rich.console import Console

import backends
from backends import parameters
from bench.agreement import agreement_report
from bench.agreement.agree import ARTICLE, Check, Setting, architectures, every_mode, weights_of
from bench.agreement.agree_matrix import matrix, sampling
from bench.agreement.agree_training import LOCKSTEPS, lockstep, resume
from bench.agreement.determinism import determinism
from bench.agreement.round_trips import Trip, round_trips
from bench.errors import BenchError
from bench.inputs import data
from bench.inputs.streams import pixels_to_x
from bench.tables.render import render

PRECISIONS = ("float64", "float32", "tf32", "bfloat16")
ROUND_TRIP_IMAGES = 64
NARROW = {"hidden_layers": 3, "hidden_units": 64}
FULL = {"hidden_layers": 5, "hidden_units": 1000}


def run(
    chosen: Sequence[str],
    device: str,
    *,
    full: bool,
    steps: int,
    output: Path | None,
    trained: Path | None = None,
    devices: Sequence[int] = (),
    console: Console | None = None,
) -> str:
    """Make all checks, write them and their tables into the folder `output`, if any, and return the tables as text.

    Args:
        chosen: backends; one that can't be imported is refused, since it was asked for.
        device: "cpu" or "gpu"; the reference stays on the CPU.
        full: the full-size network on MNIST, both named architectures, default modes; else a narrow one on the
            embedded subset, all options, all modes.
        steps: of lockstep training.
        output: folder; None writes nothing.
        trained: weights of the article's network at the size chosen, for the round trips; None trains some briefly.
        devices: compare the trainings on so many devices side by side instead, and nothing else.
        console: for progress; standard error.

    Raises:
        BenchError: the folder can't be written; or a check failed, and the checks are written nevertheless.
        UnavailableError: a framework can't be imported here.
    """
    console = console or Console(stderr=True)
    for name in chosen:
        kind = backends.backend_class(name)
        if devices and not kind.parallel_modes:
            raise BenchError(f"{name} trains on one device alone; leave it out of --backends, or --devices out")
        if devices:  # before the framework starts, which settles how many there are
            kind.offer_cpus(max(devices))
    here = setting(full=full, steps=steps)
    trips = _trips(here, trained) if not devices else []
    file = None if output is None else agreement_report.ChecksFile(here, device, output)
    if devices:  # every training side by side, in lockstep with the reference (torch makes one at a time), and repeated
        variants = [f"{name}×{count}" for name in chosen for count in devices]
        suites = [lockstep(here, [variant], "float64", device) for variant in variants]
        suites.append(determinism(here, variants, device))
    else:
        suites = _suites(here, trips, chosen, device, full=full)
    checks: list[Check] = []
    with console.status("agreement") as status:
        for check in chain(*suites):
            status.update(f"{check.suite}: {check.case}: {check.backend} {check.precision}")
            checks.append(check)
            if file is not None:
                file.add(check)
            if not check.passed:
                console.print(f"FAILED {check}", markup=False, highlight=False, soft_wrap=True)
    made = agreement_report.frame(checks)
    head: list[str] = []
    if output is not None:
        made, head = agreement_report.load(output)
        agreement_report.write(made, head, output)
        from bench.agreement import agreement_plots  # matplotlib would slow every command's start down

        agreement_plots.write(made, head, output)
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


def _suites(
    here: Setting, trips: Sequence[Trip], chosen: Sequence[str], device: str, *, full: bool
) -> list[Iterator[Check]]:
    """The parts of the suite."""
    cases = tuple(LOCKSTEPS)[:2] if full else tuple(LOCKSTEPS)
    variants = [] if full else [variant for name in chosen for variant in every_mode(name, device)]
    article = replace(here, architectures={"article": here.architectures["article"]})
    others = [variant for variant in variants if variant not in chosen]
    return [
        matrix(here, chosen, PRECISIONS, device),
        matrix(article, others, ["float64"], device),
        lockstep(here, chosen, "float64", device, cases),
        lockstep(here, others, "float64", device, cases[:2]),
        lockstep(here, chosen, "float32", device, cases[:2]),
        resume(here, chosen, device),
        resume(here, others, device, ["article"]),
        sampling(here, chosen, device),
        determinism(here, chosen, device),
        *(round_trips(trip, chosen, PRECISIONS, device) for trip in trips),
    ]


def batch_of(*, full: bool) -> int:
    """Rows of a training step."""
    return 128 if full else 32


def setting(*, full: bool, steps: int) -> Setting:
    """The full-size network on MNIST, or a narrow one on the embedded subset."""
    if full:
        named = dict(list(architectures(784, **FULL).items())[:2])
        return Setting(data.load("mnist").train_images[:2560], named, steps, batch_of(full=True))
    return Setting(data.load("mnist-subset").train_images, architectures(784, **NARROW), steps, batch_of(full=False))


def _trips(setting: Setting, trained: Path | None) -> list[Trip]:
    """The round trips of the article's network, at initial weights and at trained ones."""
    architecture = setting.architectures["article"]
    weights = weights_of(setting, "article", architecture)
    if trained is not None:
        found, weights["trained"] = parameters.load(trained)
        if found != architecture:
            raise BenchError(f"{trained}: the weights are of {found}; expected {architecture}")
    x = pixels_to_x(setting.images[:ROUND_TRIP_IMAGES], ARTICLE, setting.seed)
    return [Trip("article", architecture, its, name, x, setting.seed) for name, its in weights.items()]
