"""The command `nice-bench sample`."""

from pathlib import Path
from typing import Annotated, Any

import typer

import backends
from bench import pictures
from bench.commands.options import Device, errors
from bench.errors import BenchError


def sample(
    weights: Annotated[Path, typer.Argument(help="Canonical weights, as `run` leaves them.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(pictures.DEFAULTS)}.")] = "grid",
    backend: Annotated[str | None, typer.Option(help="[default: the first one that can be used here]")] = None,
    device: Device | None = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            min=0, help="Scales the latents; for a grid repeatable, a panel each. [default: 0.8, traversal 0.5]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="Seed of latents, masks and noise. [default: 0]")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows: of a grid its columns too, else pairs or dimensions. [default: 15 of a grid, else 10]"
        ),
    ] = None,
    greys: Annotated[
        int | None,
        typer.Option(min=2, max=256, help="Levels of grey: fewer, a smaller file. [default: 256, inpainting 64]"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Steps of inpainting. The paper's 111895 take hours on a CPU; a few thousand show much the same. "
            "[default: 111895]",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Says how bytes become x. [default: that of the record beside the weights]"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .png file. [default: samples-KIND.png]")] = None,
) -> None:
    """Draw a picture of what the model has learned.

    Its caption lies beside it as .json; it is the same for every backend.
    """
    if backend is not None and backend not in backends.REGISTRY:
        raise BenchError(f"--backend is {backend!r}; expected one of {', '.join(backends.REGISTRY)}")
    asked: dict[str, Any] = {"backend": backend, "device": device, "protocol": protocol, "steps": steps, "rows": rows}
    asked |= {"greys": greys, "seed": seed, "temperatures": tuple(temperature) if temperature else None}
    typer.echo(pictures.draw(kind, weights, output or Path(f"samples-{kind}.png"), asked, errors))
