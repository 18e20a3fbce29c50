"""The command `nice-bench campaign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Interpreters, Verbose, interruptible, pairs, say
from bench.errors import BenchError
from bench.running import campaign, engines


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("campaign", epilog="Example: nice-bench campaign gpu --output results --budget 540")(carry_out)


def carry_out(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(campaign.names())}, or a .toml file.")],
    output: Annotated[Path, typer.Option(help="Folder for all that is made, and for the note of what is done.")],
    budget: Annotated[float, typer.Option(min=1, help="Seconds; what is not done then is for the next call.")] = 1e9,
    retries: Annotated[
        int | None,
        typer.Option(
            min=0, help="How often a step that fails or is cut off is begun again, in all. [default: once in each call]"
        ),
    ] = None,
    python: Interpreters = None,
    verbose: Verbose = False,
) -> None:
    """Carry out the runs of a whole comparison; called again, it goes on where it was cut off."""
    pairs(python, "--python")
    wanted = campaign.load(name)
    with interruptible():
        rows = engines.local(wanted, output, say, budget, retries, python or ())
    left = [row for row in rows if row.status != "done"]
    if left:
        told = (f"{row.step}: {row.status}{f' ({row.reason})' if row.reason else ''}" for row in left)
        raise BenchError(f"{output}: {'; '.join(told)}")
