"""The rows, sentences and tables of a history, and its statistics, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from record_factories import EPYC, XEON, likelihood, measurement, points, record, seconds

from bench.comparison.compare import compare
from bench.comparison.compare_tables import figure
from bench.comparison.history import _largest, by_section, dashboard, history, latest, rows, sentences, tables
from bench.comparison.revisions import Side, by_run


def side(name, *values, more=(), **about):
    made = record(run=name, measurements=[*seconds(*values), *more], **about)
    return Side(name, [made], date=f"2026-01-0{len(values)}", subject=f"Of {name}")


TEN = [*[(10.0, 10.1, 9.9)] * 5, *[(20.0, 20.2, 19.8)] * 5]


def stepped(**about):
    return history([side(f"r{i}", *values, **about) for i, values in enumerate(TEN)], ["speed"])


def test_a_row_has_every_digit_of_a_figure_and_says_what_it_is_of():
    found = rows(history([side("r0", 2.0, 8.0, mode="eager")], ["speed"]))
    half = math.log(4) / 2 * 12.706204736  # t at 97.5 % with one degree of freedom, deviation log 4 / √2 of two
    (row,) = found
    assert row.pop("low") == pytest.approx(4 * math.exp(-half), rel=1e-6)
    assert row.pop("high") == pytest.approx(4 * math.exp(half), rel=1e-6)
    assert row == {
        "protocol": "article",
        "digest": "0123456789abcdef",
        "machine": "AMD EPYC, 2 cores",
        "precision": "float32",
        "device": "cpu",
        "kind": "run",
        "backend": "torch eager",
        "revision": "r0",
        "date": "2026-01-02",
        "figure": "s/epoch",
        "of": "",
        "unit": "s",
        "form": "time",
        "value": pytest.approx(4.0),
        "n": 2,
        "disturbed": False,
        "step": False,
        "change": "–",
        "subject": "Of r0",
    }


def test_a_difference_is_a_mean_and_a_single_figure_has_the_interval_of_its_noise_draws():
    one, other = (
        Side(name, [record(run=name, measurements=likelihood(value, 0.5))]) for name, value in (("a", 1.0), ("b", 2.0))
    )
    for row, value in zip(rows(history([one, other], ["likelihood"])), (1.0, 2.0), strict=True):
        half = 2.262157163 * 0.5  # t at 97.5 % with the 9 degrees of freedom of 10 draws, times the standard error
        assert (row["value"], row["n"]) == (value, 1)
        assert (row["low"], row["high"]) == pytest.approx((value - half, value + half), abs=1e-9)
    both = Side("both", [*one.records, *other.records])
    (row,) = rows(history([both], ["likelihood"]))
    assert (row["value"], row["n"], row["unit"], row["form"]) == (1.5, 2, "nats", "gain")
    single = Side("c", [record(measurements=[measurement("likelihood", "dequantised_log_likelihood", 3.0, "nats")])])
    (row,) = rows(history([single], ["likelihood"]))
    assert (row["value"], math.isnan(row["low"]), math.isnan(row["high"])) == (3.0, True, True)
    drawn = measurement("likelihood", "dequantised_log_likelihood", 3.0, "nats", 2.0, 4.0)
    (row,) = rows(history([Side("d", [record(measurements=[drawn])])], ["likelihood"]))
    assert (math.isnan(row["low"]), math.isnan(row["high"])) == (True, True)  # of how many draws isn't said


def test_on_a_gpu_another_host_goes_on_with_the_series():
    gpu = {"gpus": [{"name": "NVIDIA H100"}]}
    machines = [EPYC | gpu, EPYC | gpu | {"cores": 16}]
    (series,) = history(
        [side(f"r{i}", 1.0, 1.1, device="gpu", machine=machine) for i, machine in enumerate(machines)], ["speed"]
    )
    assert len(series) == 2


def test_a_step_is_marked_where_it_begins_and_said_with_its_revision():
    found = stepped()
    assert [row["revision"] for row in rows(found) if row["step"]] == ["r5"]
    (series,) = found
    step, last = latest(series)
    assert (step.n, last.n) == ((5, 5), (12, 3))
    assert rows(found)[5]["change"] == f"slower: {figure(step)}"
    assert sentences(found) == [
        f"Step: torch, s/epoch (article, float32, AMD EPYC, 2 cores): slower: {figure(step)}, r5, 2026-01-03 Of r5",
        "No step in 0 of 1 figures; the longest has 10 revisions.",
    ]


def test_of_two_steps_each_goes_up_to_the_next_and_the_last_one_is_judged():
    levels = [10.0] * 5 + [20.0] * 6 + [40.0] * 7
    noisy = [(x, 1.01 * x, 0.99 * x) for x in levels]
    (series,) = history([side(f"r{i}", *values) for i, values in enumerate(noisy)], ["speed"])
    changes = [point.change for point in series if point.step]
    assert [change.n for change in changes] == [(5, 6), (6, 7)]
    assert [change.pair.b_name for change in latest(series)] == ["r11", "r17"]


def test_steps_go_by_the_figure_whatever_its_sign_or_interval():
    losses = [*[-100.0, -100.1, -99.9] * 2, *[-90.0, -90.1, -89.9] * 2]
    made = [record(run=f"r{i}", curve=points(loss)) for i, loss in enumerate(losses)]
    (series,) = [
        its
        for its in history([Side(each.run, [each]) for each in made], ["loss"])
        if its[0].rounds[0].quantity.label == "final train loss"
    ]
    assert [point.revision.name for point in series if point.step] == ["r6"]
    timed = [
        measurement("sampling", "latency", 2.0 + (i >= 6) + i % 2 / 100, "s", 1.0, 4.0, 31, batch=8) for i in range(12)
    ]
    sides = [Side(f"r{i}", [record(run=f"r{i}", measurements=[each])]) for i, each in enumerate(timed)]
    (series,) = history(sides, ["sampling"])
    (step,) = [point for point in series if point.step]
    assert (step.revision.name, step.change.pair.context) == ("r6", "batch 8")


def test_the_figures_of_a_topic_are_one_family_without_their_mean():
    sides = [
        Side(name, [record(of, run=name, measurements=seconds(*values)) for of, values in its.items()])
        for name, its in (
            ("r0", {"torch": (10.0, 10.9, 9.2), "jax": (5.0, 5.4, 4.6)}),
            ("r1", {"torch": (12.0, 12.9, 11.2), "jax": (5.1, 5.5, 4.7)}),
        )
    ]
    changes = [series[-1].change for series in history(sides, ["speed"])]
    expected = compare([change.pair for change in changes], runs=False)
    assert sorted(change.p for change in changes) == pytest.approx(sorted(row.p for row in expected))


def test_another_version_goes_on_with_the_series():
    (series,) = history([side(f"r{i}", 1.0, 1.1, packages={"torch": f"2.{i}"}) for i in (1, 2)], ["speed"])
    assert len(series) == 2


def test_a_revision_without_a_date_or_a_subject_leaves_no_comma_at_the_end():
    made = [replace(side(f"r{i}", *values), date="", subject="") for i, values in enumerate(TEN)]
    first, _ = sentences(history(made, ["speed"]))
    assert first.endswith(", r5")


def test_tables_are_by_protocol_machine_and_precision_and_the_last_has_the_caption():
    found = history([side("r0", 2.0, 2.0), side("r1", 3.0, 3.0, machine=XEON)], ["speed"])
    made = tables(found)
    assert list(by_section(found)) == [each.title for each in made]
    assert [each.title for each in made] == [
        f"article (01234567), {machine}, float32" for machine in ("AMD EPYC, 2 cores", "Intel Xeon, 4 cores")
    ]
    assert [bool(each.caption) for each in made] == [False, True]
    assert made[0].name == "history"
    assert made[0].shown.to_dict("records") == [
        {"backend": "torch", "figure": "s/epoch", "revision": "r0", "value": "2.000 s", "change": "–"}
    ]
    assert made[0].raw is made[0].shown
    assert (made[0].caption, made[0].labels) == ("", ("backend", "figure"))


def test_a_line_of_a_table_says_step_disturbed_and_what_it_is_of():
    (made,) = tables(stepped())
    assert made.shown["change"][5].startswith("step: slower: × 2.00")
    assert made.shown["change"][4] == "–"
    busy = measurement("training", "others_share", 0.5, "1", round=1)
    timed = measurement("sampling", "latency", 2.0, "s", 1.0, 4.0, 31, batch=8)
    (made,) = tables(history([Side("r0", [record(measurements=[timed, busy])])], ["sampling"]))
    (line,) = made.shown.to_dict("records")
    assert (line["figure"], line["value"]) == ("sampling batch 8", "2.000 [1.000–4.000] s †")
    (made,) = tables(history([Side("r0", [record(curve=points(-1234.56789))])], ["loss"]))
    assert set(made.shown["value"]) == {"-1234.57 nats"}  # six digits of nats, four of all else


def test_figures_are_in_the_order_of_topics_sizes_and_backends():
    more = [measurement("sampling", "latency", 1.0, "s", batch=batch) for batch in (16, 2)]
    made = [record(name, measurements=[*seconds(1.0), *more]) for name in ("jax", "torch")]
    found = rows(history([Side("r0", made)], ["sampling", "speed"]))
    assert [(row["figure"], row["of"], row["backend"]) for row in found] == [
        ("s/epoch", "", "torch"),
        ("s/epoch", "", "jax"),
        ("sampling", "batch 2", "torch"),
        ("sampling", "batch 2", "jax"),
        ("sampling", "batch 16", "torch"),
        ("sampling", "batch 16", "jax"),
    ]


def test_what_was_disturbed_is_left_out_of_a_stretch_and_of_a_dashboard():
    busy = measurement("training", "others_share", 0.5, "1", round=1)
    found = history([side("r0", 1.0, 1.1), side("r1", 9.0, 9.0, more=[busy]), side("r2", 1.0, 1.1)], ["speed"])
    (change,) = latest(found[0])
    assert (change.a, change.pair.reason, change.n) == (pytest.approx(math.sqrt(1.1)), None, (2, 2))
    assert (change.pair.a_name, change.pair.b_name) == ("r0", "r2")
    assert [point.disturbed for point in found[0]] == [False, True, False]
    assert dashboard(found, "r1", "bencher") == {}
    assert dashboard(found, "r1", "github") == []
    (entry,) = dashboard(history([side("r0", 1.0)], ["speed"]), "r0", "github")
    assert "range" not in entry  # of one round
    assert len(dashboard(found, "r0", "github")) == 1


def test_runs_are_put_in_the_order_of_their_first_records():
    days = {"b": ("03", "01"), "a": ("02",)}
    made = [
        record(run=run).model_copy(update={"created": f"2026-01-{day}T00:00:00+00:00"})
        for run, its in days.items()
        for day in its
    ]
    found = by_run(made, "note")
    assert [(each.name, len(each.records), each.note, each.date) for each in found] == [
        ("b", 2, "note", "2026-01-01"),
        ("a", 1, "note", "2026-01-02"),
    ]


def energy(before, after):
    """The scaled energy distance of two samples, by its definition."""
    n, m = len(before), len(after)
    between = np.abs(np.subtract.outer(before, after)).mean()
    own = [np.abs(np.subtract.outer(x, x)).sum() / (len(x) * (len(x) - 1)) for x in (before, after)]
    return n * m / (n + m) * (2 * between - sum(own))


def test_a_split_has_the_largest_energy_distance_of_all_stretches():
    generator = np.random.default_rng(0)
    values = generator.normal(0, 1, (7, 3))
    found, at = _largest(values)
    for column in range(3):
        series = values[:, column]
        by_hand = {
            (cut, end): energy(series[:cut], series[cut:end]) for cut in range(2, 6) for end in range(cut + 2, 8)
        }
        assert found[column] == pytest.approx(max(by_hand.values()))
        assert at[column] == max(by_hand, key=by_hand.get)[0]
