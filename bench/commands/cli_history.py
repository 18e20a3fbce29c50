"""The command `nice-bench history`."""

import json
from dataclasses import replace
from typing import Annotated, Literal

import pandas as pd
import typer

from bench.commands.cli_compare import FailIf, UnclearPasses, Write, end, failures, put, sentence_of
from bench.commands.options import among, columns, say
from bench.comparison import conditions, revisions
from bench.comparison import history as series
from bench.comparison.observations import TOPICS
from bench.errors import BenchError
from bench.tables.render import WIDTH, render, to_csv


def history(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REVISIONS | FOLDERS]",
            help="Git revisions as `git log` takes them (main, v1.0..main): each commit that added records; or folders "
            "of records: each run, by date. [default: HEAD]",
        ),
    ] = None,
    folder: Annotated[str, typer.Option(help="The folder of records within a revision.")] = revisions.FOLDER,
    topics: Annotated[str, typer.Option(help=f"Some of {', '.join(TOPICS)}, with commas between.")] = ",".join(
        series.SHOWN
    ),
    fail_if: FailIf = None,
    unclear_passes: UnclearPasses = False,
    style: Annotated[
        Literal["text", "markdown", "csv", "bencher", "github"],
        typer.Option(
            "--format",
            help="The last two hold the last revision, as JSON: Bencher Metric Format, and what "
            "github-action-benchmark takes for customSmallerIsBetter.",
        ),
    ] = "text",
    write: Write = None,
) -> None:
    """Show each figure over revisions, and where it changed.

    --fail-if judges the last step of each figure, and its last revision against those since that step.
    """
    asked = [conditions.parse(text) for text in fail_if or []]
    wanted = [*among("--topics", topics, TOPICS), *(condition.topic for condition in asked)]
    read = revisions.read_history(names or [], folder)
    last = read[-1]
    missing = [*([last.note] if last.note else []), *failures(last.name, last.records)]
    for note in [*(f"{side.name}: {side.note}" for side in read[:-1] if side.note), *missing]:
        say(f"nice-bench: {note}")
    found = series.history(read, wanted)
    if not found:
        raise BenchError(f"no figures of {', '.join(wanted)} in {len(read)} revisions")
    judged = [conditions.judge(each, [row for its in found for row in series.latest(its)]) for each in asked]
    if missing:  # what older revisions hold says nothing of this one
        unclear = [replace(each, answer="can't tell", reason=missing[0]) for each in judged]
        judged = [a if a.answer == "fails" else b for a, b in zip(judged, unclear, strict=True)]
    if style in ("bencher", "github"):
        text = json.dumps(series.dashboard(found, last.name, style), ensure_ascii=False, allow_nan=False, indent=1)
    elif style == "csv":
        text = to_csv(pd.DataFrame(series.rows(found))).removesuffix("\n")
    else:
        text = render(series.tables(found), style, WIDTH if write else columns())
        text += "".join(f"\n{line}\n" for line in [*series.sentences(found), *map(sentence_of, judged)])
    put(text, write)
    end(judged, unclear_passes)
