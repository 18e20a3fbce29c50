"""The command `nice-bench report`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.options import Folders, Verbose


def report(
    folders: Folders = None,
    output: Annotated[Path, typer.Option(help="The page: one HTML file that needs nothing else.")] = Path(
        "report.html"
    ),
    verbose: Verbose = False,
) -> None:
    """Make one HTML page from records.

    It has the answers, plots, tables, environments, and the pictures beside the records.
    """
    from bench.report import page  # here, since plotly's and pandas' parts would slow every command's start down

    written = page.write(options.loaded_records(folders), folders or [Path("results")], output)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
