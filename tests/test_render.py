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
from bench.tables.render import number, spread


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
