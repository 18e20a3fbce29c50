"""The command `nice-bench campaign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import Interpreters, Verbose, interruptible, pairs, say
from bench.errors import BenchError
from bench.running import campaign


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("campaign", epilog="Example: nice-bench campaign gpu --output results --budget 540")(carry_out)


def carry_out(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(campaign.names())}, or a .toml file.")],
    output: Annotated[Path, typer.Option(help="Folder for all that is made, and for the note of what is done.")],
    budget: Annotated[float, typer.Option(min=1, help="Seconds; what is not done then is for the next call.")] = 1e9,
    python: Interpreters = None,
    verbose: Verbose = False,
) -> None:
    """Carry out the runs of a whole comparison, one after the other; called again, it goes on where it was cut off."""
    pairs(python, "--python")
    wanted = campaign.load(name)
    with interruptible():
        state = campaign.carry_out(wanted, output, budget, say, python or ())
    left = campaign.remaining(wanted, state)
    if left:
        raise BenchError(f"{output}: " + "; ".join(f"{step}: {status}" for step, status in left.items()))
