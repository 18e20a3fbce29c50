"""The report's section of figures over revisions: when there is one, and that it has what `nice-bench history` has."""

import re
from functools import partial

import pytest
from record_factories import measurement, record, seconds
from test_cli_compare import git
from test_history import put, timed

from bench.comparison import history
from bench.comparison.revisions import Side, by_run
from bench.report import page
from bench.report.history_figures import over_revisions

SECTION = '<section id="history">'
FACTORS = [1.0, 1.01, 0.99, 1.0, 1.02, 1.3, 1.31, 1.29, 1.3, 1.32]


def dated(day, *values, **about):
    made = record(run=f"day{day}", measurements=seconds(*values), **about)
    return made.model_copy(update={"created": f"2026-01-0{day}T00:00:00+00:00"})


def traces(made):
    (panel,) = made.groups[0].panels
    return {trace["name"]: trace for trace in panel.data}, panel.layout


def test_a_figure_of_one_revision_has_no_history():
    assert SECTION not in page.html([dated(1, 10.0, 10.1)], [])
    others = [dated(2, 10.0, 10.1, precision="float64"), dated(3, 10.0, 10.1, mode="jit")]  # no figure has two
    assert SECTION not in page.html([dated(1, 10.0, 10.1), *others], [])


def test_runs_are_put_in_order_by_their_dates():
    records = [dated(day, 10.0 + day, 10.2 + day) for day in (2, 3, 1)]
    text = page.html(records, [])
    assert SECTION in text
    assert "No step in 1 of 1 figures; the longest has 3 revisions." in text
    found, layout = traces(over_revisions(by_run(records)))
    assert list(found["PyTorch"]["x"]) == list(layout["xaxis"]["categoryarray"]) == ["day1", "day2", "day3"]


def test_the_plot_has_the_figures_and_the_step_that_history_has():
    revisions = timed(FACTORS)
    found, _ = traces(over_revisions(revisions))
    rows = history.rows(history.history(revisions, ["speed"]))
    assert list(found["PyTorch"]["x"]) == [row["revision"] for row in rows]
    assert list(found["PyTorch"]["y"]) == [row["value"] for row in rows]
    ends = found["PyTorch"]["error_y"]
    assert list(ends["array"]) == pytest.approx([row["high"] - row["value"] for row in rows])
    assert list(ends["arrayminus"]) == pytest.approx([row["value"] - row["low"] for row in rows])
    assert list(found["step"]["x"]) == ["r5"]
    assert "slower: × 1.299" in found["step"]["text"][0]
    assert "disturbed" not in found


def test_a_disturbed_revision_is_marked():
    revisions = timed([1.0, 1.0, 1.0])
    made = revisions[1].records[0]
    busy = [*made.measurements, measurement("disturbance", "others_share", 0.9, "share")]
    revisions[1] = Side("r1", [made.model_copy(update={"measurements": busy})])
    found, _ = traces(over_revisions(revisions))
    assert list(found["disturbed"]["x"]) == ["r1"]


def test_a_commits_subject_is_text_and_no_markup():
    revisions = [Side(each.name, each.records, subject="<b>bold</b>") for each in timed([1.0, 1.1])]
    found, _ = traces(over_revisions(revisions))
    assert found["PyTorch"]["text"][0].startswith("&lt;b&gt;bold")
    assert "<b>bold" not in page.html(revisions[0].records, [], revisions)


def test_machines_have_plots_and_tables_of_their_own():
    revisions = [
        Side(name, [*timed([factor])[0].records, *timed([2 * factor], precision="float64")[0].records])
        for name, factor in (("a", 1.0), ("b", 1.1))
    ]
    made = over_revisions(revisions)
    assert [group.label for group in made.groups] == [table.title for table in made.tables]
    assert [len(group.panels) for group in made.groups] == [1, 1]
    assert [panel.table for group in made.groups for panel in group.panels] == [table.name for table in made.tables]


@pytest.fixture
def call(nice_bench, elsewhere):
    git("init", "-q", "-b", "main")
    for day in (1, 2):
        for path in (elsewhere / "results").glob("*.json"):
            path.unlink()
        put("results", 1.0 + day, run=f"day{day}")
        git("add", "-A")
        git("commit", "-qm", f"Day {day}")
    return partial(nice_bench, "report")


def test_the_command_takes_git_revisions(call, elsewhere):
    assert call().code == 0
    assert SECTION not in (elsewhere / "report.html").read_text(encoding="utf-8")  # one run is left
    assert call("--history", "HEAD").code == 0
    text = (elsewhere / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"Day \d", text[text.index('id="boards"') :]) == ["Day 1", "Day 2"]
    done = call("--history", "nowhere")
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert "nowhere: no folder, and no git revisions" in done.err
