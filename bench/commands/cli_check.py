"""The command `nice-bench check`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.options import Chosen, Device, Interpreters
from bench.errors import BenchError
from bench.records import Record, RecordError
from bench.regression import check as checks
from bench.regression import check_runs, reference, verdicts
from bench.regression.check_runs import PARTS, Part
from bench.regression.convergence import MARGIN
from bench.regression.verdicts import Verdict
from bench.running.variant import Request, resolve_device


def check(
    context: typer.Context,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Records, or folders of records, to judge; nothing is run. [default: run the check]"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Repeatable, or with commas between: {', '.join(part.name for part in PARTS)}. [default: all]"
        ),
    ] = None,
    chosen: Chosen = None,
    device: Device = "cpu",
    fail_if_slower: Annotated[bool, typer.Option("--fail-if-slower", help="A slow-down is a regression.")] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Make the references from these runs instead of judging them.")
    ] = False,
    margin: Annotated[
        float, typer.Option(min=1e-9, help="With --update: nats that backends may differ by and be called equal.")
    ] = MARGIN,
    references: Annotated[Path, typer.Option(help="The folder of the references.")] = reference.FOLDER,
    python: Interpreters = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for records; runs of this commit that it has aren't made again. [default: in results/runs]"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one run.")] = 1800.0,
) -> None:
    """Hold the losses of every backend against the references.

    Step by step and over seeds; the exit code is 1 if one is off.
    Speed is compared too, by ratios to what was measured in the same process; a slow-down alone doesn't fail.
    """
    given = options.on_command_line(context)
    if folders and (unused := sorted(given & {"only", "device", "output", "timeout", "python"})):
        raise BenchError(f"--{unused[0]} is of no use with RECORDS, of which nothing is run: leave one of them out")
    if "margin" in given and not update:
        raise BenchError("--margin is of no use without --update")
    names, parts = options.backend_names(chosen), _parts(only)
    where = Request(
        folder=options.folder(output, "check"),
        device=resolve_device(device),
        interpreters=options.pairs(python, "--python"),
        timeout=timeout,
    )
    if not (folders or update):
        _check_references(parts, where.device, references)
    skipped: list[RecordError] = []
    if folders:
        with options.interruptible():
            found = options.loaded_records(folders, skipped)
    else:
        jobs = check_runs.reference_jobs if update else check_runs.check_jobs
        found = options.measured(
            lambda progress: [
                record for part in parts for record in check_runs.run(jobs(part, names), where, progress, part.parallel)
            ]
        )
    if update and skipped:
        raise BenchError("no reference is made of records of which some can't be read")
    if update:
        its = [record for record in found if not chosen or record.plan.backend in (*names, "numpy")]
        for path in _update(its, margin, references, parts if not folders else None):
            typer.echo(path)
        return
    judged = checks.judge(found, references, names)
    options.show(verdicts.table(judged))
    unknown = [" ".join(group) for group in checks.grouped(found).keys() - checks.with_reference(found, references)]
    if unknown:
        options.say(f"not judged, since {references} has no reference for them: {', '.join(sorted(unknown))}")
    if not folders:
        typer.echo(f"Records: {where.folder}")
    _refuse(judged, fail_if_slower=fail_if_slower)
    if skipped:
        raise BenchError(f"no regression in what could be read, but {len(skipped)} of the files could not")


def _check_references(parts: Iterable[Part], device: str, references: Path) -> None:
    """Refuse to run for minutes what nothing can be held against."""
    missing = [p.name for p in parts if not (references / reference.name_of(p.protocol, device, p.precision)).is_file()]
    if missing:
        raise BenchError(
            f"no reference in {references} for {', '.join(dict.fromkeys(missing))} on {device}: leave it out by "
            "--only, or make one by --update"
        )


def _update(found: Sequence[Record], margin: float, references: Path, parts: Sequence[Part] | None) -> list[Path]:
    """Make the reference of every group of records; a trajectory's takes NumPy's run in float64 along."""
    found = list({(record.run, record.plan.backend): record for record in found}.values())  # parts share NumPy's
    groups = checks.grouped(found)
    oracles = [record for record in found if record.plan.backend == "numpy"]
    paths = []
    for (protocol, _, precision), its in groups.items():
        if all(record.plan.backend == "numpy" for record in its):
            continue
        if parts is not None and f"{protocol}-{precision}" not in [part.name for part in parts]:
            continue
        also = [record for record in oracles if record.plan.protocol == protocol and record not in its]
        paths.append(reference.save(checks.make([*its, *also], margin), references))
    if not paths:
        raise BenchError("no records to make a reference of")
    return paths


def _parts(only: list[str] | None) -> list[Part]:
    """The parts that are named, or all."""
    known = [part.name for part in PARTS]
    asked = options.among("--only", ",".join(only), known) if only else known
    return [part for part in PARTS if part.name in asked]


def _refuse(judged: Sequence[Verdict], *, fail_if_slower: bool) -> None:
    """A regression is an error; so is a slow-down, if asked for."""
    failing = [v for v in judged if v.outcome == "regression" or (fail_if_slower and v.outcome == "slower")]
    if failing:
        first = failing[0]
        raise BenchError(
            f"{len(failing)} of {len(judged)} verdicts are regressions, the first: {first.check}, {first.protocol} "
            f"{first.precision}, {first.backend}, {first.quantity}: {first.found}; allowed is {first.allowed}"
        )
    good = all(v.outcome in ("ok", "same within noise") for v in judged)
    typer.echo(f"All {len(judged)} verdicts are good." if good else "No regression.")
