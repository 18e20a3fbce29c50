"""The command `nice-bench profile`."""

from typing import Annotated

import typer

from bench import tables
from bench.commands import options
from bench.commands.options import Chosen, Device, Interpreters, Modes, Output, Precision, Seed
from bench.inputs import protocol
from bench.profiling import runs
from bench.running import runner


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
    output: Output = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds for one backend.")] = 1800.0,
) -> None:
    """Show where the time of a training step goes.

    By each framework's own trace, and a summary of all.
    """
    loaded = protocol.load(protocol_name, training__batch=batch, architecture__hidden_units=width)
    request = runner.Request(
        protocol=loaded,
        backends=options.backend_names(chosen),
        device=device,
        precision=precision,
        modes=options.modes_of(mode, options.backend_names(chosen)),
        seed=seed,
        folder=options.folder(output, f"profile-{loaded.name}"),
        interpreters=options.pairs(python, "--python"),
        timeout=timeout,
    )
    made = options.measured(lambda progress: runs.profile(request, steps, progress))
    options.show(tables.all_tables(made))
    typer.echo(f"\nTraces and records: {request.folder}")
    options.refuse_failures(made, asked=chosen is not None)
