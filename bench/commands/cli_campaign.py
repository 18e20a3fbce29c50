"""The command `nice-bench campaign`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bench.commands import options
from bench.commands.options import Interpreters
from bench.errors import BenchError
from bench.running import campaign, engines

POLL_SECONDS = 10.0


def run_campaign(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(campaign.names())}, or a .toml file.")],
    output: Annotated[Path, typer.Option(help="Folder for all that is made, and for the note of what is done.")],
    engine: Annotated[
        Literal["local", "slurm"],
        typer.Option(help="local: here, one step after the other; slurm: a job for each, the folder shared with them."),
    ] = "local",
    budget: Annotated[
        float | None,
        typer.Option(min=1, help="With --engine local: seconds; what is not done then is for the next call."),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0, help="How often a step that fails or is cut off is begun again, in all. [default: once in each call]"
        ),
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE, repeatable: what jobs ask for, before what the file says.")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="With --engine slurm: stay, show the jobs, and submit anew what --retries allows."
        ),
    ] = False,
    python: Interpreters = None,
) -> None:
    """Make the runs of a whole comparison, one after the other.

    Called again, it goes on where it was cut off.
    """
    options.pairs(python, "--python")
    wanted, resources = campaign.load(name), campaign.resources_of(slurm or [])
    if engine == "local" and (slurm or watch):
        raise BenchError("--slurm and --watch go with --engine slurm")
    if engine == "slurm" and budget is not None:
        raise BenchError("--budget goes with --engine local; a job's time is set by --slurm time=…")
    with options.interruptible():
        if engine == "local":
            rows = engines.local(wanted, output, options.say, budget or 1e9, retries, python or ())
        else:
            rows = _follow(engines.Slurm(wanted, output, retries, resources, python or ()), watch)
    if any(row.job for row in rows):
        options.say("Look again with the same command: --watch stays, --retries 0 does not begin again what failed.")
    left = [row for row in rows if row.status != "done" and not row.job]
    if left:
        states = (f"{row.step}: {row.status}{f' ({row.reason})' if row.reason else ''}" for row in left)
        raise BenchError(f"{output}: {'; '.join(states)}")


def _follow(jobs: engines.Slurm, watch: bool) -> list[engines.Row]:
    """Submit, and show how it stands: once, or until no job is left."""
    rows: list[engines.Row] = []
    with Live(console=options.errors, auto_refresh=False) as live:
        while True:
            before = rows
            try:
                rows = jobs.advance()
            except BenchError as error:
                if not any(row.job for row in rows):
                    raise
                options.say(f"{error}; asking again in {POLL_SECONDS:g} s")
            if options.errors.is_terminal:
                live.update(_table(rows), refresh=True)
            else:
                for row in rows:
                    if (row.step, row.status) not in [(old.step, old.status) for old in before]:
                        options.say(" ".join(filter(None, [f"{row.step}: {row.status}", row.job, row.reason])))
            if not watch or not any(row.job for row in rows):
                return rows
            time.sleep(POLL_SECONDS)


def _table(rows: Sequence[engines.Row]) -> Table:
    """What is not done yet, and how much is."""
    done = sum(row.status == "done" for row in rows)
    table = Table("step", "state", "job", "time left", "reason", title=f"{done} of {len(rows)} steps done")
    for row in rows:
        if row.status != "done":
            table.add_row(*map(escape, row))
    return table
