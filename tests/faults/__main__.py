"""Plant the faults of a suite and print which of its checks found which: exit code 1 if one was not found."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import backends
from bench.commands.options import backend_names
from bench.errors import BenchError
from bench.running import runner
from bench.tables.render import render

from .plant import ROOT, Fault, apply, faults_of
from .suites import SUITES, run, table


def main(arguments: Sequence[str] | None = None) -> None:
    """Plant faults as the command line says.

    Raises:
        SystemExit: a fault was not found, a patch does not apply, or a suite could not be run.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("names", nargs="*", help="faults to plant, by the names of their files (default: all)")
    parser.add_argument("--backends", help="comma-separated (default: all that can be imported)")
    parser.add_argument("--device", default="cpu", help="auto, cpu or gpu (default: cpu)")
    parser.add_argument("--devices", help="comma-separated: only the faults of several devices, on so many each")
    parser.add_argument("--output", type=Path, help="folder for the table, mutations.md (default: it is only printed)")
    given = parser.parse_args(arguments)
    try:
        device = runner.resolve_device(given.device)
        chosen = backend_names(given.backends) if given.backends else importable()
        faults = selected(given.suite, given.names, chosen, device)
        if given.devices:
            counts = given.devices.split(",")
            faults = [replace(fault, devices=count) for count in counts for fault in faults if fault.devices != "1"]
        missed = plant(given.suite, faults, device, given.output)
    except (BenchError, backends.UnavailableError) as error:
        sys.exit(f"Error: {error}")
    if missed:
        sys.exit(f"Error: planted and not found: {', '.join(map(str, missed))}")


def selected(suite: str, names: Sequence[str], chosen: Sequence[str], device: str) -> list[Fault]:
    """The faults of a suite that are asked for; those that need a GPU only there.

    Raises:
        BenchError: a name is not known, or a patch does not apply to the present sources.
    """
    faults = faults_of(suite)
    if unknown := set(names) - {fault.name for fault in faults}:
        raise BenchError(f"no fault of {suite} is called {', '.join(sorted(unknown))}; see tests/faults/{suite}")
    faults = [fault for fault in faults if fault.backend in chosen and (not names or fault.name in names)]
    for fault in faults:  # all at once, before minutes are spent
        apply(fault, ROOT, "--check")
    return [fault for fault in faults if fault.device in (None, device)]


def plant(suite: str, faults: Sequence[Fault], device: str, output: Path | None) -> list[Fault]:
    """Plant faults, print and write the table, and return those that were not found."""
    results = []
    for fault, found in run(suite, faults, device):
        results.append((fault, found))
        print(f"[{len(results)}/{len(faults)}] {fault}: {found or 'NOT FOUND'}", file=sys.stderr, flush=True)
    if not results:
        raise BenchError("there is no such fault to plant on this device")
    made = table(suite, results)
    print(render([made], "text"))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{made.name}.md").write_text(render(made, "markdown"), encoding="utf-8")
    return [fault for fault, found in results if found is None]


def importable() -> list[str]:
    """The backends that can be imported here; the others are named."""
    reasons = backends.available()
    for name, reason in reasons.items():
        if reason is not None:
            print(f"{name} is left out: {reason}", file=sys.stderr)
    return [name for name, reason in reasons.items() if reason is None]


if __name__ == "__main__":
    main()
