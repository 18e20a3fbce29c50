"""The command `nice-bench peers`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from backends import Architecture
from bench import tables
from bench.commands.options import (
    Device,
    Interpreters,
    Seed,
    Verbose,
    check_device,
    measured,
    pairs,
    refuse_failures,
    show,
)
from bench.inputs.peer_registry import FRAMEWORKS
from bench.peers import runner


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(epilog="Example: nice-bench peers --frameworks torch,jax --rounds 5 --steps 20")(peers)


def peers(
    frameworks: Annotated[
        str | None, typer.Option(help="Comma-separated: whose libraries to time. [default: all three]")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--peers", help="Comma-separated. [default: all libraries, and all modes of ours]"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="How often everyone's turn comes.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps a turn.")] = 20,
    width: Annotated[int, typer.Option(min=1, help="Of the hidden layers.")] = 1000,
    layers: Annotated[int, typer.Option(min=1, help="Hidden layers a coupling.")] = 5,
    couplings: Annotated[int, typer.Option(min=1, help="Additive couplings.")] = 4,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="float32 or tf32.")] = "float32",
    seed: Seed = 0,
    python: Interpreters = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for records. [default: a new one in results/runs]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one framework.")] = 3600.0,
    verbose: Verbose = False,
) -> None:
    """Time the usual libraries on the same network and weights.

    They take turns with the harness' own backends, in one process a framework.
    """
    check_device(device)
    request = runner.Request.checked(
        architecture=replace(Architecture.article(), hidden_units=width, hidden_layers=layers, couplings=couplings),
        frameworks=",".join(FRAMEWORKS) if frameworks is None else frameworks,
        peers=only,
        device=device,
        precision=precision,
        batch=batch,
        steps=steps,
        rounds=rounds,
        seed=seed,
        folder=output or Path("results/runs", f"{time.strftime('%Y%m%d-%H%M%S')}-peers"),
        interpreters=pairs(python, "--python"),
        timeout=timeout,
    )
    made = measured(lambda progress: runner.run(request, progress))
    show(tables.all_tables(made))
    typer.echo(f"\nRecords: {request.folder}")
    refuse_failures(made, asked=frameworks is not None)
