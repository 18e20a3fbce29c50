"""Tables as text, Markdown, CSV, LaTeX and Parquet, and numbers as people read them."""

import csv
import io
import math

import pandas as pd
import pytest
from record_factories import both_kinds, likelihood, measurement, points, record, seconds

from bench import tables
from bench.errors import BenchError
from bench.tables.frame import frame
from bench.tables.render import Table, at_most, listed, number, render, said_once, spread


def everything():
    sampled = measurement("sampling", "latency", 0.123456789, "s", batch=16)
    error = measurement("agreement", "z", 1e-7, "relative", weights="initial")
    trip = measurement("invertibility", "max_error", 1e-5, "grey levels", weights="initial", trips=1)
    return [
        record(name, mode="fast", curve=points(-5.0, -6.0), measurements=[*seconds(1 / 3), sampled, error, trip])
        for name in ("torch", "tensorflow", "jax")
    ] + [*both_kinds()[1:], record("numpy", status="failed", reason="50% & more_of #1 ~ {x} <y> ^ \\ $")]


@pytest.mark.slow
@pytest.mark.parametrize("formats", [("text", "markdown", "csv", "latex", "parquet")])
def test_tables_written_twice_are_the_same_bytes(tmp_path, formats):
    first = tables.write(everything(), tmp_path / "a", formats)
    tables.write(list(reversed(everything())), tmp_path / "b", formats)
    assert {path.name for path in first} == {path.name for path in (tmp_path / "b").iterdir()}
    assert {"speed.md", "accuracy.tex", "curves-paper.txt", "measurements.csv.gz", "measurements.parquet"} < {
        path.name for path in first
    }
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.slow
def test_parquet_and_csv_carry_every_digit(tmp_path):
    tables.write(everything(), tmp_path, ["csv", "parquet"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "measurements.parquet"), frame(everything()))
    read = pd.read_csv(tmp_path / "measurements.csv.gz")
    assert 1 / 3 in set(read["value"])
    assert 0.123456789 in set(pd.read_csv(tmp_path / "sampling.csv")["torch"])


def test_without_a_second_round_no_first_call_is_warm():
    table = tables.speed([record(measurements=[*seconds(1.0), measurement("startup", "first_call_seconds", 7.0, "s")])])
    assert "first call cold, s" in table.shown
    assert "first call warm, s" not in table.shown


def test_parquet_stands_contexts_of_mixed_types(tmp_path):
    mixed = [measurement("probe", "latency", 1.0, "s", size=size) for size in (1, "all", 2.5)]
    tables.write([record(measurements=mixed)], tmp_path, ["parquet"])
    assert list(pd.read_parquet(tmp_path / "measurements.parquet")["at_size"]) == ["1", "all", "2.5"]


@pytest.mark.parametrize("width", [120, 100, 80])
def test_text_fits_a_terminal(width):
    full = [
        *seconds(1 / 3, 0.5),
        measurement("training", "images_per_second", 180_000.0, "images/s"),
        measurement("training", "peak_memory", 2e9, "bytes"),
        measurement("training", "epochs_to_target", 17.0, "epochs"),
        measurement("floor", "training_ratio", 1.5, "1"),
        measurement("startup", "first_call_seconds", 12.5, "s"),
        *likelihood(1980.5, 0.3),
    ]
    records = [
        record(name, mode="graph", curve=points(-2200.123, test=[-2100.456]), measurements=full)
        for name in ("torch", "tensorflow", "jax")
    ]
    records += [*both_kinds(), record("numpy", status="failed", reason="word " * 60)]
    for table in tables.all_tables(records):
        text = tables.render([table], "text", width)
        assert max(map(len, text.splitlines())) <= width, text
        for cell in table.shown.to_numpy().ravel():
            assert cell.split()[0] in text
    folded = tables.render(tables.speed(records), "text")
    assert folded.count("tensorflow  graph") == 2  # the labels stand before each part, the status once
    assert folded.count("failed: word") == 1


def test_markdown_rows_all_have_the_same_number_of_cells():
    for table in tables.all_tables(everything()):
        lines = [line for line in tables.render([table], "markdown").splitlines() if line.startswith("|")]
        assert len(lines) == len(table.shown) + 2
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
        assert table.caption.replace("<", "&lt;") in tables.render([table], "markdown")


def test_latex_escapes_what_latex_would_stumble_over():
    latex = tables.render(tables.all_tables(everything()), "latex")
    assert r"50\% \& more\_of \#1 \textasciitilde{} \{x\} \textless{}y\textgreater{}" in latex
    assert latex.isascii(), {sign for sign in latex if not sign.isascii()}


def test_csv_is_parsable_and_has_the_provenance():
    (table,) = (table for table in tables.all_tables(everything()) if table.name == "speed")
    rows = list(csv.DictReader(io.StringIO(tables.render([table], "csv"))))
    assert float(rows[0]["seconds_per_epoch"]) == 1 / 3
    assert {"machine", "protocol", "precision", "status", "reason"} < set(rows[0])


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(BenchError, match=r"'pdf': expected one of text, markdown, csv, latex"):
        tables.render([], "pdf")
    with pytest.raises(BenchError, match=r"'pdf'.*parquet"):
        tables.write([], tmp_path, ["pdf"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.000"),
        (999.96, "1000"),
        (0.00012344, "0.0001234"),
        (1.2344e-7, "1.234e-07"),
        (123456.7, "123457"),
        (-2200.4567, "-2200"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
    ],
)
def test_numbers_are_rounded_to_four_significant_digits(value, text):
    assert number(value) == text


def test_a_spread_says_no_more_than_there_is():
    assert spread(1.0, 1.0, 1.0) == "1.000"
    assert spread(1.0, math.nan, math.nan) == "1.000"
    assert spread(-1.0, -2.0, 3.0) == "-1.000 [-2.000 to 3.000]"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.1001, 2, "0.11"),
        (0.11, 2, "0.11"),
        (3.2100001, 3, "3.22"),
        (1.0, 2, "1.0"),
        (0.5, 2, "0.50"),
        (0.0, 2, "0"),
        (-0.1299, 2, "-0.13"),
        (math.inf, 2, "∞"),
        (math.nan, 2, "–"),
    ],
)
def test_what_is_said_to_be_within_a_bound_is(value, digits, text):
    assert at_most(value, digits) == text
    if digits == 2:
        assert at_most(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345678.9, 3, "12345679"),
        (999999999.0, 3, "1.00e+09"),
        (123456789012.0, 3, "1.23e+11"),
        (0.000123456, 2, "0.00012"),
        (0.0000999, 2, "0.00010"),
        (0.0000994, 2, "9.9e-05"),
        (9.99, 2, "10"),
        (-math.inf, 4, "−∞"),
        (12.0, 1, "12"),
    ],
)
def test_numbers_have_as_many_digits_as_asked_for(value, digits, text):
    assert number(value, digits) == text


def test_a_spread_has_its_digits_and_is_left_out_where_it_is_not_known():
    assert spread(2.0, 1.0, 3.0, 2) == "2.0 [1.0–3.0]"
    assert spread(2.0, 1.0, 2.0) == "2.000 [1.000–2.000]"
    assert spread(2.0, 2.0, 3.0) == "2.000 [2.000–3.000]"
    assert spread(None, 1.0, 2.0) == "–"
    assert spread(2.0, 1.0, None) == "2.000"


def test_parts_are_listed_as_in_a_sentence():
    assert [listed(list("abcd"[:count])) for count in (1, 2, 3, 4)] == ["a", "a and b", "a, b and c", "a, b, c and d"]


SMALL = Table(
    "small_Table-1",
    "Small",
    "Of 1 < 2.",
    pd.DataFrame(
        {"backend": ["torch", "a|b"], "status": ["ok", "failed"], "time, s": ["1.5", "–"], "p|q": ["x <y", "z"]}
    ),
    pd.DataFrame({"backend": ["torch", "a|b"], "seconds": [1 / 3, math.nan]}),
    ("backend", "status"),
)


def test_a_table_as_markdown():
    assert render(SMALL, "markdown") == "\n".join(
        [
            "### Small",
            "",
            "| backend   | status   |   time, s | p\\|q    |",
            "|:----------|:---------|----------:|:--------|",
            "| torch     | ok       |       1.5 | x &lt;y |",
            "| a\\|b      | failed   |         – | z       |",
            "",
            "Of 1 &lt; 2.",
            "",
        ]
    )
    assert render([SMALL, SMALL], "markdown") == "\n".join([render(SMALL, "markdown")] * 2)


def test_a_table_as_text_is_folded_to_the_width_with_its_labels_before_each_part():
    assert render(SMALL, "text") == "\n".join(
        [
            "Small",
            "",
            "backend    status      time, s  p|q",
            "---------  --------  ---------  -----",
            "torch      ok              1.5  x <y",
            "a|b        failed            –  z",
            "",
            "Of 1 < 2.",
            "",
        ]
    )
    assert render([SMALL, SMALL], "text", 33) == "\n\n".join(
        [
            "\n".join(
                [
                    "Small",
                    "",
                    "backend    status      time, s",
                    "---------  --------  ---------",
                    "torch      ok              1.5",
                    "a|b        failed            –",
                    "",
                    "backend    p|q",
                    "---------  -----",
                    "torch      x <y",
                    "a|b        z",
                    "",
                    "Of 1 < 2.",
                    "",
                ]
            )
        ]
        * 2
    )


def test_long_headings_and_reasons_are_folded_between_words():
    wide = pd.DataFrame({"a heading of many-many words": ["reason " * 9]})
    text = render(Table("n", "T", "C.", wide, wide), "text")
    lines = text.splitlines()
    assert lines[2:6] == ["a heading", "of", "many-many", "words"]
    assert lines[7:10] == ["reason reason reason reason", "reason reason reason reason", "reason"]


def test_a_table_as_latex():
    assert render(SMALL, "latex") == "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\caption{Small. Of 1 \textless{} 2.}",
            r"\label{tab:small--able-1}",
            r"\begin{tabular}{llrl}",
            r"\hline",
            r" backend      & status   &   time, s & p\textbar{}q   \\",
            r"\hline",
            r" torch        & ok       &       1.5 & x \textless{}y \\",
            r" a\textbar{}b & failed   &        -- & z              \\",
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def test_tables_as_csv_have_all_digits_and_a_title_where_there_are_several():
    csv_of_one = "backend,seconds\ntorch,0.3333333333333333\na|b,\n"
    assert render(SMALL, "csv") == render([SMALL], "csv") == csv_of_one
    assert render([SMALL, SMALL], "csv") == f"# Small\n{csv_of_one}\n# Small\n{csv_of_one}"


def test_a_caption_of_which_all_was_said_is_empty():
    again = said_once([SMALL, SMALL, SMALL])
    assert [table.caption for table in again] == ["Of 1 < 2.", "", ""]
    assert said_once([]) == []
    ends = Table("n", "T", "Of XX.", SMALL.shown, SMALL.raw)
    assert said_once([ends])[0].caption == "Of XX."


def test_a_table_that_just_fits_is_not_folded_and_a_caption_takes_the_width():
    wide = 37  # of SMALL as text
    assert max(map(len, render(SMALL, "text").splitlines())) == wide
    assert "p|q" in render(SMALL, "text", wide).splitlines()[2]
    assert "p|q" not in render(SMALL, "text", wide - 1).splitlines()[2]
    said = Table("n", "T", "word " * 20, SMALL.shown, SMALL.raw, SMALL.labels)
    assert render(said, "text", 99).splitlines()[-1] == ("word " * 20)[:99]


def test_a_part_has_a_column_beside_its_labels_however_narrow_it_must_be():
    parts = render(SMALL, "text", 5).split("\n\n")
    assert [part.splitlines()[0].split() for part in parts[1:-1]] == [
        ["backend", "status", "time,", "s"],
        ["backend", "p|q"],
    ]


def test_words_are_never_broken():
    name, cell = "incomparables-alike", f"{'a' * 16} {'b' * 16} {'c' * 40}"
    wide = pd.DataFrame({name: [cell]})
    lines = render(Table("n", "T", "C.", wide, wide), "text").splitlines()
    assert [lines[2], *lines[4:7]] == [name, "a" * 16, "b" * 16, "c" * 40]


def test_several_tables_as_latex_are_one_after_the_other():
    assert render([SMALL, SMALL], "latex") == "\n".join([render(SMALL, "latex")] * 2)
