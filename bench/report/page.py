"""Page: sentences, figures, tables and pictures put together as one HTML file; the same records give the same bytes."""

import base64
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from bench import tables
from bench.comparison.answers import Answer, Section, sections
from bench.comparison.revisions import Side, by_run
from bench.errors import BenchError, writing
from bench.records import Record, slug
from bench.regression import check, reference
from bench.report import overview, sentences
from bench.report.figures import run_groups, sweep_groups
from bench.report.history_figures import over_revisions
from bench.report.panels import Group, Panel
from bench.report.pictures import pictures
from bench.report.suites import suites
from bench.tables.frame import order
from bench.tables.labels import prepare
from bench.tables.render import MISSING

TEMPLATE = Path(__file__).parent / "template"
OPEN = ("speed", "accuracy")
"""The tables that are unfolded at first."""

MOST_ROWS = 1000
"""The most rows of a table that are shown; of longer ones the page has the beginning, and says so."""


def write(
    records: Sequence[Record], paths: Iterable[Path], output: Path, revisions: Sequence[Side] | None = None
) -> Path:
    """Make the page of `records`, with the pictures and checks in the folders among `paths`, and write it to `output`.

    Figures are shown over `revisions`, oldest first, where any has two of them; without it over the runs by date.

    Raises:
        BenchError: a picture or a file of checks can't be read, or the page can't be written.
    """
    text = html(records, list(paths), revisions)
    with writing(output) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return output


def html(records: Sequence[Record], paths: Sequence[Path], revisions: Sequence[Side] | None = None) -> str:
    """The page as text."""
    records = sorted(records, key=order)
    found = suites(paths)
    shown, left_out = pictures(paths)
    made = tables.all_tables(records, brief=True)
    about, environments = overview.environments(records)
    missing = overview.missing_figures(records)
    runs = prepare([record for record in records if record.plan.kind == "run"])
    answered = sections(records)
    boards = {"records": _groups(runs, records), "suites": [suite.group for suite in found if suite.group.panels]}
    boards["first"] = _first(boards["records"], answered)
    over = over_revisions(by_run(records) if revisions is None else revisions)
    boards["history"] = over.groups
    peers = next((table for table in made if table.name == "peers"), None)
    loader = FileSystemLoader(TEMPLATE)
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= {"anchor": slug, "is_number": is_number}
    return pages.get_template("page.html").render(
        overall=list(overview.overall(records)),
        failures=overview.failures(records),
        first=answered[0].label if answered else "",
        answers=[*answered[0].answers, still_holds(records)] if answered else [],
        sentences=_sentences(answered, records),
        peers=overview.peer_sentences(peers) if peers else [],
        suites=found,
        boards={name: [asdict(group) for group in its] for name, its in boards.items()},
        tables=[*made, *([missing] if len(missing.raw) else []), *(table for suite in found for table in suite.tables)],
        open=OPEN,
        most_rows=MOST_ROWS,
        history=over,
        about=about,
        environments=environments,
        pictures=shown,
        left_out=left_out,
        newest=max(record.created for record in records),
        plotly=packed(get_plotlyjs()),
        missing=MISSING,
    )


@cache
def packed(text: str) -> str:
    """`text` compressed, as base64; the same bytes for the same text. It makes plotly's script 2.5 times smaller."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def is_number(cell: str) -> bool:
    """Whether a cell is set to the right."""
    return cell == MISSING or bool(re.match(r"-?(\d|∞)", cell))


def still_holds(records: Sequence[Record]) -> Answer:
    """Whether the losses are those of the references, as far as the records are of protocols that have one."""
    question = "Does it still hold?"
    if not check.with_reference(records, reference.FOLDER):
        return Answer(question, "not checked", ["No record here has a reference; those of nice-bench check have."])
    try:
        verdicts = check.judge(records, reference.FOLDER)
    except BenchError as error:
        return Answer(question, "not checked", [f"{error}.".replace(f"{reference.FOLDER}/", "")])
    if not verdicts:
        return Answer(
            question, "not checked", ["What the references of nice-bench check hold is not in these records."]
        )
    bad = [verdict for verdict in verdicts if verdict.outcome == "regression"]
    if not bad:
        return Answer(question, "yes", [f"None of {len(verdicts)} verdicts against the references is a regression."])
    lost = [f"{each.backend}, {each.protocol} {each.precision}, {each.quantity}: {each.found}." for each in bad]
    return Answer(question, f"no: {len(bad)} of {len(verdicts)} are regressions", lost)


def _first(groups: Sequence[Group], answered: Sequence[Section]) -> list[Group]:
    """The plot of the first screen: the time of an epoch in the group that was measured best."""
    panels = [each for group in groups if group.label == answered[0].label for each in group.panels] if answered else []
    return [Group("", [replace(each, name="first")]) for each in panels if each.name == "epoch"]


def _groups(runs: pd.DataFrame, records: Sequence[Record]) -> list[Group]:
    """The panels of runs and sweeps, those of one machine, protocol and precision together."""
    swept = prepare([record for record in records if record.plan.kind == "sweep"])
    found: dict[str, list[Panel]] = defaultdict(list)
    for group in (*run_groups(runs), *sweep_groups(swept)):
        found[group.label] += group.panels
    return [Group(label, panels) for label, panels in found.items() if panels]


def _sentences(found: Sequence[Section], records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """The sentences of each group, by its label."""
    by_label = {section.label: sentences.sentences_of(section) for section in found}
    for label, its in overview.sweep_sentences([r for r in records if r.plan.kind == "sweep"]).items():
        by_label.setdefault(label, []).extend(its)
    return list(by_label.items())
