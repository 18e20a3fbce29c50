"""The command `nice-bench profile`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bench import tables
from bench.commands.options import (
    Chosen,
    Device,
    Interpreters,
    Modes,
    Precision,
    Seed,
    Verbose,
    backend_names,
    check_device,
    check_precision,
    measured,
    modes_of,
    pairs,
    refuse_failures,
    show,
)
from bench.inputs import protocol
from bench.profiling import runs
from bench.running import runner


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(epilog="Example: nice-bench profile --backends torch,jax --mode jax=jit --steps 5 --output profiles")(
        profile
    )


def profile(
    protocol_name: Annotated[
        str, typer.Option("--protocol", help=f"Network and optimiser: {', '.join(protocol.names())}, or a .toml file.")
    ] = "article",
    chosen: Chosen = None,
    device: Device = "auto",
    precision: Precision = "float32",
    mode: Modes = None,
    batch: Annotated[int | None, typer.Option(help="In place of the protocol's.")] = None,
    width: Annotated[int | None, typer.Option(help="Hidden units, in place of the protocol's.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps to trace.")] = 5,
    seed: Seed = 0,
    python: Interpreters = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for traces and records. [default: a new one in results/runs]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one backend.")] = 1800.0,
    verbose: Verbose = False,
) -> None:
    """Show where the time of a training step goes.

    By each framework's own trace, and a summary of all.
    """
    check_device(device)
    check_precision(precision)
    loaded = protocol.load(protocol_name, training__batch=batch, architecture__hidden_units=width)
    request = runner.Request(
        protocol=loaded,
        backends=backend_names(chosen),
        device=device,
        precision=precision,
        modes=modes_of(mode),
        seed=seed,
        folder=output or Path("results/runs", f"{time.strftime('%Y%m%d-%H%M%S')}-profile-{loaded.name}"),
        interpreters=pairs(python, "--python"),
        timeout=timeout,
    )
    made = measured(lambda progress: runs.profile(request, steps, progress))
    show(tables.all_tables(made))
    typer.echo(f"\nTraces and records: {request.folder}")
    refuse_failures(made, asked=chosen is not None)
