"""The command `nice-bench peers`."""

from dataclasses import replace
from typing import Annotated

import typer

from backends import Architecture
from bench import tables
from bench.commands import options
from bench.commands.options import Device, Interpreters, Output, Seed
from bench.inputs.peer_registry import FRAMEWORKS, of_framework
from bench.peers import runner


def peers(
    frameworks: Annotated[
        str | None, typer.Option(help="Comma-separated: whose libraries to time. [default: all three]")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--peers", help="Comma-separated. [default: all libraries, and all modes of ours]"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a training step.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of a round.")] = 20,
    width: Annotated[int, typer.Option(min=1, help="Units of a hidden layer.")] = 1000,
    layers: Annotated[int, typer.Option(min=1, help="Hidden layers a coupling.")] = 5,
    couplings: Annotated[int, typer.Option(min=1, help="Additive couplings.")] = 4,
    device: Device = "auto",
    precision: runner.Precision = "float32",
    seed: Seed = 0,
    python: Interpreters = None,
    output: Output = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one framework's process.")] = 3600.0,
) -> None:
    """Time the usual libraries on the same network and weights.

    They alternate with the harness' own backends, in one process a framework.
    """
    chosen = list(FRAMEWORKS) if frameworks is None else options.among("--frameworks", frameworks, FRAMEWORKS)
    known = dict.fromkeys(entry.name for framework in chosen for entry in of_framework(framework))
    request = runner.Request(
        architecture=replace(Architecture.article(), hidden_units=width, hidden_layers=layers, couplings=couplings),
        backends=chosen,
        peers=() if only is None else options.among("--peers", only, known),
        device=device,
        precision=precision,
        batch=batch,
        steps=steps,
        rounds=rounds,
        seed=seed,
        folder=options.folder(output, "peers"),
        interpreters=options.pairs(python, "--python"),
        timeout=timeout,
    )
    made = options.measured(lambda progress: runner.run(request, progress))
    options.show(tables.all_tables(made))
    typer.echo(f"\nRecords: {request.folder}")
    options.refuse_failures(made, asked=frameworks is not None)
