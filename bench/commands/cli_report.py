"""The command `nice-bench report`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.options import Folders, Verbose
from bench.comparison.revisions import read_history


def report(
    folders: Folders = None,
    output: Annotated[Path, typer.Option(help="The page: one HTML file that needs nothing else.")] = Path(
        "report.html"
    ),
    history: Annotated[
        list[str] | None,
        typer.Option(
            help="Git revisions as `git log` takes them (HEAD, v1.0..main): figures are shown over the commits that "
            "added records to results/; repeatable. [default: over the runs, by date]"
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Make one HTML page from records.

    It has the answers, plots, tables, figures over revisions, environments, and the pictures beside the records.
    """
    from bench.report import page  # here, since plotly's and pandas' parts would slow every command's start down

    revisions = read_history(history) if history else None
    for side in revisions or []:
        if side.note:
            options.say(f"nice-bench: {side.name}: {side.note}")
    written = page.write(options.loaded_records(folders), folders or [Path("results")], output, revisions)
    typer.echo(f"{written} ({written.stat().st_size / 1e6:.1f} MB)")
