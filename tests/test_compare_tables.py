"""What comparisons look like."""

import math
from dataclasses import replace

import pytest
from compare_factories import a_and_b, compared, only, times, within
from record_factories import EPYC, XEON, likelihood, measurement, points, record, seconds

from bench.comparison.compare import ITSELF, WITHIN, worded
from bench.comparison.compare_tables import evidence, figure, named, plain, table
from bench.comparison.statistics import Estimate
from bench.tables.render import render

# What it looks like


def test_the_largest_change_comes_first_and_what_cannot_be_compared_last():
    def made(run, factors):
        return [record(name, run=run, measurements=times(factor)) for name, factor in factors.items()]

    a = made("a", dict.fromkeys(("torch", "tensorflow", "jax", "numpy"), 1.0) | {"other": 1.0})
    b = made("b", {"torch": 1.2, "tensorflow": 0.5, "jax": 1.001, "numpy": 1.0})
    b[3] = record("numpy", run="b", precision="float64", measurements=times())
    b += [record("other", run="b", measurements=seconds(8, 13))]
    found = [row.pair.about.backend for row in compared(a, b) if not row.whole]
    assert found == ["tensorflow", "torch", "other", "jax", "numpy"]


def test_what_there_is_nothing_to_say_about_is_one_row():
    errors = [
        measurement("agreement", name, 1e-7, "relative", weights="initial") for name in ("z", "log_det", "log_prob")
    ]
    a, b = (record(run=run, curve=points(-5.0, -6.0, test=[-3.0]), measurements=errors) for run in "ab")
    shown = table(compared(a, b)).shown
    assert list(shown["figure"]) == ["3 errors of rounding", "final train loss, best train loss, best selection loss"]
    assert list(shown["change [95 %]"]) == ["× 1.0–1.0", "0 nats"]
    shown = table(compared([a, record("jax", run="a", curve=points(-5.0))], [])).shown
    assert list(shown["backend"]) == ["torch", "jax"]


def test_a_table_says_what_its_figures_are_of():
    shown = render(table(compared(*a_and_b(1.1)), ["A: one. B: other."]), "markdown")
    assert "| slower" in shown
    assert "× 1.100 [1.087–1.113]" in shown
    assert "10.00 → 11.00 s" in shown
    for told in ("A: one. B: other.", "Machine: AMD EPYC, 2 cores.", "Precision: float32.", "Benjamini–Hochberg"):
        assert told in shown


# Every digit


def test_a_time_with_every_digit():
    a, b = (record(run=run, mode="eager", measurements=times(factor)) for run, factor in (("a", 1.0), ("b", 1.1)))
    row = only(compared(a, b))
    low, high = row.bounds()
    numbers = {"a": row.a, "b": row.b, "value": 1.1, "low": math.exp(low), "high": math.exp(high), "p_adjusted": row.p}
    assert (row.a, row.b) == pytest.approx((10.0, 11.0), rel=1e-4)
    assert plain(row) == {name: pytest.approx(number) for name, number in numbers.items()} | {
        "verdict": "worse",
        "word": "slower",
        "topic": "speed",
        "figure": "s/epoch",
        "unit": "s",
        "of": "",
        "kind": "run",
        "protocol": "article",
        "machine": "AMD EPYC, 2 cores",
        "device": "cpu",
        "precision": "float32",
        "backend": "torch",
        "mode": "eager",
        "a_name": "A",
        "b_name": "B",
        "compared": "ratio",
        "a_observations": 5,
        "b_observations": 5,
        "varies": "rounds",
        "rounds_needed": None,
        "note": "drift between the runs is not in the interval",
    }


def test_a_likelihood_with_every_digit_is_b_less_a():
    a, b = (record(run=run, measurements=likelihood(value, 0.1)) for run, value in (("a", 1900.0), ("b", 1890.0)))
    found = plain(only(compared(a, b), "test log-likelihood"))
    half = 10 + found["low"]
    assert (found["a"], found["b"], found["value"], found["compared"]) == (1900.0, 1890.0, -10.0, "difference")
    assert (found["low"], found["high"]) == pytest.approx((-10 + half, -10 - half))
    assert half < 0
    assert (found["topic"], found["unit"], found["varies"]) == ("likelihood", "nats", "noise draws")


def test_what_there_is_not_is_none():
    found = plain(only(compared(record(curve=points(-5.0)), record(run="b", curve=points(-4.0))), "final train loss"))
    assert (found["value"], found["low"], found["high"], found["p_adjusted"]) == (1.0, None, None, None)
    assert (found["a"], found["b"], found["compared"], found["varies"]) == (-5.0, -4.0, "difference", "")
    gone = plain(only(compared(a_and_b()[0], a_and_b(precision="tf32")[1])))
    assert (gone["value"], gone["compared"], gone["verdict"]) == (None, "ratio", "incomparable")


def test_all_backends_have_no_mode_and_no_context():
    def made(run, factor):
        return [record(n, run=run, mode="m", measurements=times(factor)) for n in ("torch", "jax")]

    (whole,) = [row for row in compared(made("a", 1.0), made("b", 1.1)) if row.whole]
    found = plain(whole)
    assert (found["backend"], found["mode"], found["of"], found["a"]) == ("all backends", "", "", None)
    assert named(whole) == "all backends, s/epoch"


# Figures and evidence


def estimated(form, value, error=math.nan):
    """A row of this form with this estimate, whose interval is 1.96 errors to either side."""
    figures = {
        "time": (times(), "s/epoch"),
        "error": ([measurement("agreement", "z", 1e-7, "relative")], "error of z"),
        "gain": (likelihood(1900.0, 0.1), "test log-likelihood"),
    }
    measured, label = figures.get(form, ((), "final train loss"))
    a, b = (record(run=run, curve=points(-5.0), measurements=measured) for run in "ab")
    return replace(only(compared(a, b), label), estimate=Estimate(value, error, math.inf))


@pytest.mark.parametrize(
    ("form", "value", "error", "text"),
    [
        ("time", math.log(1.25), 0.01, "× 1.250 [1.226–1.275]"),
        ("time", math.log(0.8), 0.01, "× 0.800 [0.784–0.816]"),
        ("time", math.log(2), math.nan, "× 2.000"),
        ("time", math.nan, math.nan, "–"),
        ("error", math.log(5), math.nan, "× 5.00"),
        ("error", math.log(0.5), math.nan, "× 0.50"),
        ("loss", 1.0, 0.25, "+1.00 nats [+0.510 to +1.49]"),
        ("loss", -1.0, math.nan, "-1.00 nats"),
        ("loss", 0.0, math.nan, "0 nats"),
        ("gain", 1.0, 0.25, "-1.00 nats [-1.49 to -0.510]"),
    ],
)
def test_a_figure_is_a_ratio_or_a_difference_with_its_interval(form, value, error, text):
    assert figure(estimated(form, value, error)) == text


def test_an_interval_may_have_no_end():
    row = replace(estimated("time", 0.0, 1.0), estimate=Estimate(0.0, 1000.0, math.inf))
    assert figure(row) == "× 1.00 [0–∞]"
    assert (plain(row)["low"], plain(row)["high"]) == (0.0, None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n": (5, 5), "noise": "rounds"}, "5 rounds"),
        ({"n": (5, 4), "noise": "runs"}, "5; 4 runs"),
        ({"n": (2, 2), "noise": "paired rounds", "rounds": 8}, "2 paired rounds, 8 needed"),
        ({"n": (2, 2), "noise": "rounds", "note": "so"}, "2 rounds; so"),
        ({"n": (1, 1), "noise": WITHIN}, WITHIN),
        ({"n": (1, 1), "noise": ITSELF, "note": "so"}, f"{ITSELF}; so"),
        ({"n": (1, 1), "noise": ""}, "–"),
    ],
)
def test_evidence_is_how_many_of_what(changes, text):
    assert evidence(replace(estimated("time", 0.1, 0.1), **{"note": "", "rounds": None} | changes)) == text


def test_a_single_difference_is_of_one_seed():
    for form in ("loss", "gain"):
        assert evidence(replace(estimated(form, 1.0), noise="", note="")) == "1 seed"


@pytest.mark.parametrize(
    ("form", "worse", "better"),
    [
        ("time", "slower", "faster"),
        ("rate", "slower", "faster"),
        ("floor", "farther from it", "nearer to it"),
        ("size", "more", "less"),
        ("loss", "worse", "better"),
        ("gain", "worse", "better"),
        ("error", "worse", "better"),
    ],
)
def test_verdicts_have_a_word_for_each_form(form, worse, better):
    assert [worded(verdict, form) for verdict in ("worse", "better")] == [worse, better]
    assert worded("worse") == "slower"
    for verdict, said in (("same", "same within noise"), ("unclear", "can't tell"), ("incomparable", "not comparable")):
        assert worded(verdict, form) == said


# The table


def test_columns_with_one_value_are_in_the_caption_and_others_are_columns():
    two = [record("torch", run="a", measurements=times()), record("torch", run="a", machine=XEON, measurements=times())]
    other = [record("torch", run="b", machine=at, measurements=times(1.2)) for at in (EPYC, XEON)]
    made = table(compared(two, other), margins="7 %")
    assert "beyond 7 % is ruled out" in made.caption
    assert sorted(made.shown["machine"]) == ["AMD EPYC, 2 cores", "Intel Xeon, 4 cores"]
    assert "protocol" not in made.shown
    assert "Protocol: article." in made.caption
    assert "Machine" not in made.caption
    assert not {"A is", "B is"} & set(made.shown)  # they are A and B
    assert "A: A" not in made.caption


def test_the_cells_of_a_time_and_of_bytes():
    memory = [measurement("training", "peak_memory", 3 * 2**20, "bytes", round=i) for i in range(1, 4)]
    more = [measurement("training", "peak_memory", 6 * 2**20, "bytes", round=i) for i in range(1, 4)]
    a = record(mode="eager", run="a", measurements=[*times(), *memory])
    b = record(mode="eager", run="b", measurements=[*times(1.1), *more])
    made = table(compared(a, b))
    shown = {cells["figure"]: cells for cells in made.shown.to_dict("records")}
    assert shown["s/epoch"] == {
        "verdict": "slower",
        "backend": "torch eager",
        "figure": "s/epoch",
        "change [95 %]": "× 1.100 [1.087–1.113]",
        "observations": "5 rounds; drift between the runs is not in the interval",
        "A → B": "10.00 → 11.00 s",
    }
    assert shown["peak memory"]["A → B"] == "3.000 → 6.000 MiB"
    assert (shown["peak memory"]["verdict"], shown["peak memory"]["observations"]) == ("more", "3 rounds")
    assert (made.name, list(made.raw["figure"])) == ("compare", ["peak memory", "s/epoch"])


def test_sides_that_have_names_are_said():
    rows = within([record(n, run="a", measurements=times(f)) for n, f in (("torch", 1.0), ("jax", 1.5))], "backend")
    made = table(rows)
    assert "A: torch." in made.caption
    assert "B is" not in made.shown  # what a row is of says it


def cells(row):
    """The cells of the only row of the table of this row."""
    ((made),) = table([row]).shown.to_dict("records")
    return made


def of(row, **changes):
    """The row with other properties of its quantity."""
    return replace(row, pair=replace(row.pair, quantity=replace(row.pair.quantity, **changes)))


def test_a_unit_stands_behind_its_figures_unless_they_have_none():
    row = replace(estimated("loss", 1.0), verdict="worse", a=-1234.5678, b=-1233.5678)
    assert cells(row)["A → B"] == "-1234.57 → -1233.57 nats"  # six digits, of which losses have two behind the point
    rate = of(replace(estimated("time", 0.1), verdict="worse", a=12.34567, b=2.0), unit="s")
    assert cells(rate)["A → B"] == "12.35 → 2.000 s"
    for unit in ("relative", "× floor"):
        assert cells(of(rate, unit=unit))["A → B"] == "12.35 → 2.000"
    assert cells(replace(rate, b=math.nan))["A → B"] == "12.35 → – s"
    assert "A → B" not in cells(replace(rate, a=math.nan, b=math.nan))


def test_a_figure_of_a_part_says_which():
    batch = [measurement("sampling", "latency", 0.1, "s", 0.09, 0.11, 5, batch=64)]
    row = only(compared(record(measurements=batch), record(run="b", measurements=batch)), "sampling")
    assert row.pair.context
    assert plain(row)["of"] == row.pair.context
    assert cells(replace(row, verdict="worse"))["figure"] == f"sampling, {row.pair.context}"


def test_observations_are_counted_on_either_side():
    row = replace(estimated("time", 0.1), n=(5, 4))
    assert (plain(row)["a_observations"], plain(row)["b_observations"]) == (5, 4)


def together(*rows):
    return table(rows).shown.to_dict("records")


def test_what_is_the_same_is_one_row_for_each_thing_that_it_may_differ_in():
    same = replace(estimated("time", 0.0), verdict="same", note="")
    labelled = [of(same, label=name) for name in "uvwxy"]
    assert [cells["figure"] for cells in together(*labelled[:3])] == ["u, v, w"]
    assert [cells["figure"] for cells in together(*labelled[:4])] == ["u, v, w and 1 more"]
    assert [cells["figure"] for cells in together(*labelled)] == ["u, v, w and 2 more"]
    (single,) = together(same)
    assert single["A → B"] == "10.00 → 10.00 s"
    (two,) = together(*labelled[:2])
    assert "A → B" not in two
    assert two["change [95 %]"].startswith("× 1.0")
    apart = replace(same, estimate=Estimate(0.01))  # the same within noise, but not equal
    assert len(together(of(apart, label="u"), of(apart, label="v"))) == 2
    noise = [of(replace(same, noise=its), label=name) for its, name in (("rounds", "u"), ("runs", "v"))]
    assert len(together(*noise)) == 2


def test_errors_of_rounding_are_one_row_with_the_least_and_the_largest_ratio():
    errors = [replace(estimated("error", math.log(ratio)), verdict="same", note="") for ratio in (2.0, 0.5, 4.0)]
    (shown,) = together(*errors)
    assert (shown["figure"], shown["change [95 %]"]) == ("3 errors of rounding", "× 0.50–4.0")
    equal = [of(replace(estimated("time", 0.0), verdict="same", note="", noise=errors[0].noise), label=n) for n in "uv"]
    assert [cells["figure"] for cells in together(*errors, *equal)] == ["3 errors of rounding", "u, v"]
    worse = [replace(each, verdict="worse") for each in errors]
    assert len(together(*worse)) == 3


def test_what_cannot_be_compared_is_one_row_for_each_reason():
    gone = replace(estimated("time", math.nan), verdict="incomparable")
    reasons = ["other machine", "other machine", "other precision"]
    rows = [
        of(replace(gone, pair=replace(gone.pair, reason=why)), label=name)
        for why, name in zip(reasons, "uvw", strict=True)
    ]
    shown = together(*rows)
    assert [(cells["figure"], cells["observations"]) for cells in shown] == [
        ("u, v", "other machine"),
        ("w", "other precision"),
    ]
    several = [replace(row, estimate=Estimate(0.1)) for row in rows[:2]]
    assert "change [95 %]" not in together(*several)[0]  # which would be the first one's


def test_a_run_held_against_itself_is_one_row_of_all_its_backends():
    made = [record(name, run="a", measurements=times()) for name in ("torch", "jax")]
    rows = [replace(row, noise=ITSELF, verdict="same") for row in compared(made, made) if not row.whole]
    ((shown),) = together(*rows)
    assert shown["backend"] == "torch, jax"
    assert "change [95 %]" not in shown


def test_a_side_is_named_where_the_rows_do_not_say_it():
    one, other = replace(estimated("time", 0.1), verdict="worse"), replace(estimated("time", 0.2), verdict="worse")
    named = [replace(row, pair=replace(row.pair, b_name=name)) for row, name in ((one, "new"), (other, "newer"))]
    shown = table(named).shown
    assert list(shown["B is"]) == ["new", "newer"]
    as_backends = [replace(row, pair=replace(row.pair, b_name=row.pair.about.backend)) for row in (one, other)]
    assert "B is" not in table([as_backends[0], replace(as_backends[1], pair=replace(other.pair, b_name="tor"))]).shown


def test_a_wide_table_repeats_verdict_backend_and_figure():
    assert table([estimated("time", 0.1)]).labels == ("verdict", "backend", "figure")


def test_nothing_is_an_empty_table():
    made = table([], ["Nothing."])
    assert (len(made.shown), made.caption) == (0, "Nothing.")
