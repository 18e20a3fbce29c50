"""Which tables there are, what they are called, and the files that they are written into."""

import gzip
import math
import re

import pandas as pd
import pytest
from record_factories import measurement, points, record, row, seconds

from bench import tables
from bench.errors import BenchError
from bench.records import save
from bench.tables import readme
from bench.tables.frame import frame
from bench.tables.render import Table, render, said_once, to_csv


def captioned(name, caption):
    return Table(name, name.title(), caption, pd.DataFrame({"a": ["1"]}), pd.DataFrame({"a": [1.0]}))


def test_tables_have_these_names_and_titles():
    ended = record(measurements=seconds(1.0, 1.1), curve=points(-1.0, -2.0))
    failed = record("jax", status="failed", reason="out of memory", curve=points(-1.0))
    made = {table.name: table for table in tables.all_tables([ended, failed])}
    assert {name: table.title for name, table in made.items()} == {
        "headline": "In short: article",
        "speed": "Training speed",
        "accuracy": "Accuracy",
        "curves-article": "Loss by epoch: article",
    }
    named = {name for name, table in made.items() if "Not complete: " in table.caption}
    assert named == {"headline", "curves-article"}  # speed and accuracy have rows for what failed
    both = tables.curves([ended, record(protocol="paper", loss="nll", curve=points(-1.0))])
    assert (both.name, both.title) == ("curves-article-paper", "Loss by epoch: article, paper")


def test_tables_are_whole_unless_brief_ones_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(tables, "invertibility", lambda data, *, brief: asked.append(brief) or captioned("i", "x"))
    for options in ({}, {"brief": True}):
        tables.all_tables([record()], **options)
    assert asked == [False, True]


def test_in_short_runs_have_speed_and_accuracy_and_other_records_all_their_tables(monkeypatch):
    timed = [measurement("micro", "seconds", 1e-3, "s", operation="encode", batch=16)]
    made = [
        record(measurements=seconds(1.0), curve=points(-1.0)),
        record(kind="micro", measurements=timed),
    ]
    found = tables.in_short(made)
    assert [table.name for table in found] == ["speed", "accuracy", "micro"]
    asked = []
    monkeypatch.setattr(tables, "invertibility", lambda data, *, brief: asked.append(brief) or captioned("i", "x"))
    tables.in_short(made)
    assert asked == [True, True]


def test_a_sentence_of_captions_is_said_once():
    made = said_once([captioned("a", "One. Two."), captioned("b", "Two. Three, or 1.5."), captioned("c", "One. Two.")])
    assert [table.caption for table in made] == ["One. Two.", "Three, or 1.5.", "One."]  # by the one before, whole


@pytest.fixture
def two(monkeypatch):
    """A table, of which another is the brief one."""
    every, brief = captioned("speed", "All."), captioned("speed", "Brief.")
    monkeypatch.setattr(
        tables, "all_tables", lambda records, *, brief_=brief, brief=False: [brief_ if brief else every]
    )
    return every, brief


def test_tables_are_files_of_which_csv_alone_is_whole(two, tmp_path):
    every, brief = two
    records = [record(measurements=seconds(1.0, 2.0))]
    paths = tables.write(records, tmp_path, ("parquet", "csv", "markdown", "latex"))
    assert [path.name for path in paths] == [
        "measurements.parquet", "speed.csv", "measurements.csv.gz", "speed.md", "speed.tex",
    ]  # fmt: skip
    assert (tmp_path / "speed.csv").read_text() == render(every, "csv")
    assert (tmp_path / "speed.md").read_text() == render(brief, "markdown")
    assert (tmp_path / "speed.tex").read_text() == render(brief, "latex")
    packed = (tmp_path / "measurements.csv.gz").read_bytes()
    assert gzip.decompress(packed).decode() == to_csv(frame(records))
    assert packed[4:8] == bytes(4)  # no time of making, so that the same records give the same bytes
    whole = pd.read_parquet(tmp_path / "measurements.parquet")
    assert [*whole.columns] == [*frame(records).columns]


def test_without_csv_there_is_no_frame(two, tmp_path):
    assert [path.name for path in tables.write([record()], tmp_path, ("markdown",))] == ["speed.md"]


def test_a_status_has_a_reason_of_at_most_200_characters_and_the_share_of_others():
    def status(reason, share=None):
        busy = [measurement("training", "others_share", share, "1", round=1)] if share else []
        made = record(status="failed" if reason else "ok", reason=reason, measurements=[*seconds(1.0), *busy])
        return row(tables.speed([made]), backend="torch")["status"]

    assert status("x" * 200) == f"failed: {'x' * 200}"
    assert status("x" * 201) == f"failed: {'x' * 199}…"
    assert status("", 0.6) == "ok: disturbed, others used 60 % of the machine"


def test_what_a_table_shows_has_its_numbers_behind_it():
    busy = measurement("training", "others_share", 0.5, "1", round=1)
    reached = [measurement("training", f"{unit}_to_target", 3.0, "1") for unit in ("epochs", "seconds")]
    made = record(measurements=[*seconds(1.0, 2.0, 4.0), busy, *reached], target_loss=-1.0)
    raw = tables.speed([made, record("jax", run="b", measurements=seconds(1.0), seed=7)]).raw.iloc[0]
    named = ("fastest_epoch", "slowest_epoch", "disturbed", "epochs_to_target", "seconds_to_target")
    assert [raw[name] for name in named] == [1.0, 4.0, 0.5, 3.0, 3.0]
    several = [record(run=f"r{i}", seed=i, measurements=seconds(1.0)) for i in range(3)]
    shown = tables.speed([*several, record("jax", run="r0", measurements=seconds(1.0))]).shown
    assert shown[["runs", "seeds"]].values.tolist() == [["3", "3"], ["1", "1"]]


def test_the_best_epoch_is_that_of_each_seed_and_none_where_there_is_no_loss():
    made = [
        record(run=f"r{i}", seed=i, curve=points(*its))
        for i, its in enumerate([(-1.0, -5.0, -2.0), (-3.0, -2.0, -1.0)])
    ]
    (cell,) = tables.accuracy(made).shown["best train article loss"]
    assert cell.endswith(" (epoch 1–2)")
    shown = tables.accuracy([*made, record("jax", status="failed", reason="r")]).shown
    assert list(shown["best train article loss"])[1] == "–"


def test_differences_are_among_those_that_have_the_epoch_and_of_equal_losses_none():
    def figures(*losses):
        made = [record(name, curve=points(*its)) for name, its in zip(("torch", "jax"), losses, strict=True)]
        raw = tables.curves(made).raw
        return [
            tuple(raw.iloc[i][f"{kind} difference train article loss"] for kind in ("max", "relative")) for i in (0, 1)
        ]

    (apart, relative), (nothing, none) = figures((-4.0, -6.0), (-5.0,))
    assert (apart, relative) == (1.0, 0.2)
    assert math.isnan(nothing)  # one alone has no difference
    assert math.isnan(none)
    assert figures((0.0, -2.0), (0.0, -2.0)) == [(0.0, 0.0), (0.0, 0.0)]
    (shown,) = tables.curves(
        [record(n, curve=points(x)) for n, x in (("torch", -1000.12345), ("jax", -1001.0))]
    ).shown.to_dict("records")
    assert shown["max difference train article loss"] == "0.877"  # three digits, and losses have two decimals
    assert shown["torch train article loss"] == "-1000.12"


@pytest.fixture
def page(tmp_path):
    """Write a text and give its path, beside two folders of records: of torch's run and of jax's."""
    for name in ("torch", "jax"):
        save(record(name, measurements=seconds(1.0), curve=points(-1.0)), tmp_path / name)

    def write(text):
        path = tmp_path / "page.md"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_text_has_the_tables_that_its_blocks_name_in_their_order_and_all_else_as_it_was(page):
    text = page(
        "# Größe\n\n<!-- tables speed accuracy: torch -->\nold\n<!-- end tables -->\nbetween\n"
        "<!-- tables speed: jax -->\n<!-- end tables -->\nthe end\n"
    )
    found = readme.refresh(text)
    assert found == (
        "# Größe\n\n<!-- tables speed accuracy: torch -->\n\n"
        + render(said_once([shown(tables.speed, "torch"), shown(tables.accuracy, "torch")]), "markdown").strip()
        + "\n\n<!-- end tables -->\nbetween\n<!-- tables speed: jax -->\n\n"
        + render([shown(tables.speed, "jax")], "markdown").strip()
        + "\n\n<!-- end tables -->\nthe end\n"
    )
    text.write_text(found)
    assert readme.refresh(text) == found  # and once made, stays


def shown(table, backend):
    return table([record(backend, measurements=seconds(1.0), curve=points(-1.0))])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no block", "page.md: no block of tables; expected <!-- tables speed: results -->"),
        (b"\xff", "page.md: not a text in UTF-8"),
        (
            "<!-- tables speed peers headlines: jax -->\n<!-- end tables -->",
            "page.md: no table 'peers' in jax; it has headline, speed, accuracy, curves-article",
        ),
    ],
)
def test_a_text_that_has_no_such_tables_is_told(page, text, told):
    with pytest.raises(BenchError, match=re.escape(told)):
        readme.refresh(page(text))


def test_of_real_records_csv_alone_has_all_rows(tmp_path):
    where = {"weights": "initial", "direction": "x-z-x", "trips": 1}
    trips = [
        measurement("invertibility", "max_error", 1e-5, "grey levels", inputs=inputs, **where)
        for inputs in ("test", "noise")
    ]
    tables.write([record(measurements=trips)], tmp_path, ("csv", "markdown"))
    assert len((tmp_path / "invertibility.csv").read_text().splitlines()) == 3
    assert "noise" not in (tmp_path / "invertibility.md").read_text()
    with pytest.raises(BenchError, match=r"format 'pdf': expected one of text, markdown, csv, latex, parquet$"):
        tables.write([record()], tmp_path, ("pdf",))


def test_curves_are_of_losses_by_epoch_alone():
    other = measurement("likelihood", "test_loss", -9.0, "nats")
    made = record(curve=points(-1.0, -2.0, test=[-1.5]), measurements=[other])
    assert tables.curves([made]).raw["epoch"].tolist() == [1, 2]


def test_backends_without_rounds_differ_too_and_one_alone_does_not():
    rows = pd.DataFrame(
        {"seed": [0, 0, 1], "at_round": [None, None, 1], "series": ["torch", "jax", "jax"], "value": [-4.0, -5.0, 1.0]}
    )
    assert tables.largest_difference(rows) == (1.0, 0.2)
    assert all(math.isnan(each) for each in tables.largest_difference(rows[2:]))
