"""The commands `nice-bench sweep` and `nice-bench plots`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bench import tables
from bench.commands.options import (
    Chosen,
    Device,
    Folders,
    Interpreters,
    Modes,
    Precision,
    Verbose,
    backend_names,
    check_device,
    check_precision,
    listed,
    loaded_records,
    measured,
    modes_of,
    pairs,
    refuse_failures,
    say_which,
    show,
    sizes,
)
from bench.inputs import protocol
from bench.inputs.points import AXES, OPERATIONS
from bench.records import collection
from bench.sweeps import sweep as sweeps


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: nice-bench sweep --axis batch --operations log_prob,train --backends torch,jax")(sweep)
    app.command("plots", epilog="Example: nice-bench plots results --write results/plots")(draw)


def sweep(
    axis: Annotated[
        list[str] | None,
        typer.Option(help=f"Repeatable, or with commas between. [default: {','.join(AXES)}]"),
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option(help="AXIS=N,N,…, repeatable: in place of the usual ones.")
    ] = None,
    operations: Annotated[str, typer.Option(help="With commas between. `train` is one step.")] = ",".join(OPERATIONS),
    protocol_name: Annotated[
        str, typer.Option("--protocol", help="Whose network, batch and optimiser the sweep goes around.")
    ] = "article",
    chosen: Chosen = None,
    device: Device = "auto",
    precision: Precision = "float32",
    mode: Modes = None,
    python: Interpreters = None,
    longest_call: Annotated[
        float, typer.Option(min=1e-3, help="Seconds; a point where a call would take longer is left out.")
    ] = 2.0,
    seconds: Annotated[float, typer.Option(min=1e-3, help="To spend on a point, about.")] = 0.5,
    output: Annotated[
        Path | None, typer.Option(help="Folder for records. [default: a new one in results/runs]")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one axis of one backend.")] = 3600.0,
    verbose: Verbose = False,
) -> None:
    """Time training, density and sampling over a range of sizes.

    Over batch, width, depth and couplings; how the cost grows is fitted.
    """
    check_device(device)
    check_precision(precision)
    axes = list(AXES) if axis is None else listed(axis)
    request = sweeps.Request(
        protocol=protocol.load(protocol_name),
        values=sweeps.choose(axes, sizes(values)),
        operations=sweeps.choose_operations(listed([operations])),
        backends=backend_names(chosen),
        device=device,
        precision=precision,
        modes=modes_of(mode),
        folder=output or Path("results/runs", f"{time.strftime('%Y%m%d-%H%M%S')}-sweep"),
        interpreters=pairs(python, "--python"),
        timeout=timeout,
        longest_call=longest_call,
        seconds=seconds,
    )
    from bench.figures import plots  # here and below: matplotlib would slow every command's start down

    made = measured(lambda progress: sweeps.run(request, progress))
    there = collection.load_all(request.folder, [])
    written = plots.write(there, request.folder / "plots")
    show(tables.all_tables(made, brief=True))
    say_which(made, there)
    for path in written:
        typer.echo(path)
    typer.echo(f"\nRecords and plots: {request.folder}")
    refuse_failures(made, asked=chosen is not None)


def draw(
    folders: Folders = None,
    write: Annotated[Path, typer.Option(help="Write the figures into this folder.")] = Path("results/plots"),
    style: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
    verbose: Verbose = False,
) -> None:
    """Draw the figures from records."""
    from bench.figures import plots

    for path in plots.write(loaded_records(folders), write, style):
        typer.echo(path)
