"""The commands `nice-bench sweep` and `nice-bench plots`."""

from pathlib import Path
from typing import Annotated

import typer

from bench import tables
from bench.commands import options
from bench.commands.options import Chosen, Device, Folders, Interpreters, Modes, Output, Precision
from bench.errors import BenchError
from bench.inputs import protocol
from bench.inputs.protocol import AXES, OPERATIONS
from bench.records import collection
from bench.sweeps import sweep as sweeps


def sweep(
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Repeatable, or with commas between; for devices see `run --devices`. [default: {','.join(AXES)}]"
        ),
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
    seconds: Annotated[float, typer.Option(min=1e-3, help="About how long to spend on a point.")] = 0.5,
    output: Output = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one axis of one backend.")] = 3600.0,
) -> None:
    """Time training, density and sampling over a range of sizes.

    Over batch, width, depth and couplings; how the cost grows is fitted.
    """
    if axis is not None and "devices" in ",".join(axis).split(","):
        raise BenchError("--axis devices: that sweep is `nice-bench run --devices 1,2,4`")
    axes = AXES if axis is None else options.among("--axis", ",".join(axis), AXES)
    asked = options.among("--operations", operations, OPERATIONS)
    request = sweeps.Request(
        protocol=protocol.load(protocol_name),
        values=sweeps.choose(axes, options.sizes(values)),
        operations=[operation for operation in OPERATIONS if operation in asked],
        backends=options.backend_names(chosen),
        device=device,
        precision=precision,
        modes=options.modes_of(mode, options.backend_names(chosen)),
        folder=options.folder(output, "sweep"),
        interpreters=options.pairs(python, "--python"),
        timeout=timeout,
        longest_call=longest_call,
        seconds=seconds,
    )
    from bench.figures import plots  # here and below: matplotlib would slow every command's start down

    made = options.measured(lambda progress: sweeps.run(request, progress))
    there = collection.load_all(request.folder, [])
    written = plots.write(there, request.folder / "plots")
    options.show(tables.all_tables(made, brief=True))
    options.say_which(made, there)
    for path in written:
        typer.echo(path)
    typer.echo(f"\nRecords and plots: {request.folder}")
    options.refuse_failures(made, asked=chosen is not None)


def draw(
    folders: Folders = None,
    write: Annotated[Path, typer.Option(help="Write the figures into this folder.")] = Path("results/plots"),
    style: Annotated[str, typer.Option("--format", help="svg or png.")] = "svg",
) -> None:
    """Draw the figures from records."""
    from bench.figures import plots

    for path in plots.write(options.loaded_records(folders), write, style):
        typer.echo(path)
