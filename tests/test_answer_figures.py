"""The figures in the answers after a run, each worked out by hand; of their sentences the names and the numbers."""

import re

import pytest
from record_factories import XEON, measurement, points, record
from report_records import floor
from test_answers import PLACES, answers, likely, run

from bench.comparison.answers import sections, verdict

NAMES = r"PyTorch|TensorFlow|JAX|NumPy"


def told(answer):
    """The names and numbers of an answer's sentences, in their order."""
    return [re.findall(rf"{NAMES}|\d[\d.e-]*\d|\d", sentence) for sentence in answer.sentences]


def curves(**losses):
    return [run(name, 5.0, curve=points(*its)) for name, its in losses.items()]


def test_losses_that_go_together_are_within_the_largest_difference_of_all_shared_epochs():
    found = answers(*curves(jax=(-1000.5, -2000.2, -1.0), torch=(-1000.0, -2000.0)))["Same numbers?"]
    assert found.short == "within 0.50 nats"
    assert told(found) == [["PyTorch", "JAX", "0.50", "0.050", "2"]]
    assert found.sentences[0].startswith("PyTorch and JAX: both have the same training loss within 0.50 nats")
    found = answers(*curves(torch=(-1000.0, -2000.0), jax=(-1000.5, -2000.0), tensorflow=(-1000.1,)))["Same numbers?"]
    assert told(found) == [["PyTorch", "TensorFlow", "JAX", "3", "0.50", "0.050", "1"]]


def test_losses_that_part_say_from_when_on_and_how_far_at_most():
    made = curves(torch=(-1000.0, -2000.0, -3000.0, -4000.0), jax=(-1000.5, -2000.0, -3150.0, -4100.0))
    found = answers(*made)["Same numbers?"]
    assert found.short == "apart from epoch 3"
    # 150 of 3150 nats are more of the loss than 100 of 4100.
    assert told(found) == [["PyTorch", "JAX", "0.50", "0.050", "2", "3", "150", "4.8"]]
    at_once = answers(*curves(torch=(-1000.0,), jax=(-1100.0,)))["Same numbers?"]
    assert (at_once.short, told(at_once)) == ("apart from epoch 1", [["PyTorch", "JAX", "1", "100", "9.1"]])
    assert at_once.sentences[0].startswith("The training losses of PyTorch and JAX differ: most in epoch 1")


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [(-100.0, -101.5, True), (-100.0, -100.99, False), (-10.0, -10.9, False), (-10000.0, -10050.0, False)],
)
def test_losses_part_where_they_differ_by_more_than_a_hundredth_and_more_than_a_nat(one, other, apart):
    found = answers(*curves(torch=(one,), jax=(other,)))["Same numbers?"]
    assert found.short.startswith("apart") == apart


def test_an_epoch_that_only_some_have_or_that_was_no_number_is_not_shared():
    made = curves(torch=(-1000.0, None, -1.0), jax=(-1000.5, -2000.0))
    assert told(answers(*made)["Same numbers?"]) == [["PyTorch", "JAX", "0.50", "0.050", "1"]]
    assert answers(*curves(torch=(-1000.0,)))["Same numbers?"].short == "not known"


def agreeing(*errors):
    return [
        measurement("agreement", "log_prob", e, "relative", weights=w)
        for e, w in zip(errors, ("trained", "initial"), strict=True)
    ]


def test_errors_of_log_p_are_the_largest_of_each_and_the_short_answer_is_the_largest_of_all_rounded_up():
    lost = measurement("agreement", "log_prob", None, "relative", note="value was nan", weights="trained")
    made = [run("torch", 5.0, more=agreeing(1e-7, 5e-8)), run("jax", 5.0, more=agreeing(1e-9, 3.14e-7))]
    found = answers(*made, run("tensorflow", 5.0, more=[lost]))["Same numbers?"]
    assert found.short == "log p within 3.2e-07"
    assert told(found)[0] == ["TensorFlow"]
    assert told(found)[1][-4:] == ["PyTorch", "1.0e-07", "JAX", "3.1e-07"]
    ordered = answers(run("torch", 5.0, more=agreeing(9e-7, 1e-9)), run("jax", 5.0, more=agreeing(1e-9, 2e-9)))
    assert told(ordered["Same numbers?"])[0][-4:] == ["JAX", "2.0e-09", "PyTorch", "9.0e-07"]
    both = [run(name, 5.0, curve=points(-1000.0), more=agreeing(1e-7, 1e-7)) for name in ("torch", "jax")]
    assert answers(*both)["Same numbers?"].short.startswith("within")


def test_the_floor_is_the_machines_lowest_and_the_times_are_medians_the_nearest_first():
    made = [run("jax", 5.0, 9.0, 10.0, more=floor(4.0, 1.2)), run("torch", 8.5, 8.6, 8.7, more=floor(3.0, 1.2))]
    found = answers(*made, run("tensorflow", 3.5, others=0.5))["Near the floor?"]
    assert found.short.startswith("2.87 ×")
    assert told(found) == [["PyTorch", "2.87", "JAX", "3.00"]]
    cut_off = run("numpy", 9.9, more=floor(2.0, 1.2), status="failed", reason="interrupted")
    assert told(answers(*made, cut_off)["Near the floor?"]) == [["PyTorch", "4.30", "JAX", "4.50"]]  # its floor counts
    assert answers(run("jax", 5.0))["Near the floor?"].short == "not known"


def test_who_is_alone_has_the_geometric_mean_of_its_rounds():
    found = answers(run("jax", 5.0, 20.0))["Fastest?"]
    assert (found.short, told(found)) == ("JAX alone", [["JAX", "10.00"]])
    none = answers(record("jax", status="unavailable"))["Fastest?"]
    assert (none.short, none.sentences) == ("not known", [])


def test_rivals_come_from_the_fastest_to_the_slowest():
    made = [
        run("torch", 30.0, 31.0, 30.5, 30.2),
        run("numpy", 20.0, 20.7, 20.4, 20.1),
        run("jax", 10.0, 10.3, 10.2, 10.1),
    ]
    found = answers(*made)["Fastest?"]
    assert found.short == "JAX"
    assert [its[0] for its in told(found)] == ["JAX", "NumPy", "PyTorch"]
    assert told(found)[0][1] == "10.15"


def test_what_failed_and_what_was_disturbed_are_counted_and_named():
    made = [
        run("jax", 5.0, status="out_of_memory"),
        run("torch", 8.5, status="failed", reason="line 1\n  line 2"),
        run("tensorflow", 3.5, others=0.254),
        run("numpy", 3.5, others=0.1),
    ]
    found = answers(*made)["Failed or disturbed?"]
    assert found.short == "2 failed, 1 disturbed"
    assert told(found) == [["PyTorch", "1", "2"], ["JAX"], ["TensorFlow", "25"]]
    assert "out of memory" in found.sentences[1]


def test_the_target_comes_first_then_the_marks_each_with_who_passed_it_the_fastest_first():
    found = answers(
        likely("torch", -1900.0, -1990.0, -2000.0),
        likely("jax", -1900.0, -2100.0, first_call=20.0),
        likely("tensorflow", -1800.0, -1900.0),
    )["To 2000 nats?"]
    assert found.short == "PyTorch, 14.5 s"
    assert told(found) == [
        ["2000.00", "PyTorch", "14.50", "3", "JAX", "23.00", "2"],
        ["TensorFlow", "2000.00"],
        ["1900.00", "PyTorch", "11.50", "1", "TensorFlow", "13.00", "2", "JAX", "21.50", "1"],
        ["1980.50", "PyTorch", "13.00", "2", "JAX", "23.00", "2"],
        ["2100.00", "JAX", "23.00", "2"],
    ]


@pytest.mark.parametrize(
    ("made", "short"),
    [
        ([likely("torch", -1800.0)], "not reached"),
        ([likely("torch", -2000.0, others=0.9)], "can't tell"),
        ([likely("torch", -2000.0, others=0.9), likely("jax", -1800.0)], "can't tell"),
        ([likely("torch")], "not known"),
    ],
)
def test_a_target_that_nobody_passed_undisturbed(made, short):
    assert answers(*made)["To 2000 nats?"].short == short


def test_sections_come_by_backends_then_rounds_then_epochs():
    def of(machine, names, times, losses):
        return [run(name, *times, curve=points(*losses), machine={"cpu": machine, "cores": 2}) for name in names]

    made = [
        *of("one backend", ["jax"], [1.0] * 9, [-1.0] * 9),
        *of("few rounds", ["jax", "torch"], [1.0], [-1.0] * 2),
        *of("few rounds, more epochs", ["jax", "torch"], [1.0], [-1.0] * 3),
        *of("more rounds", ["jax", "torch"], [1.0] * 2, [-1.0]),
    ]
    labels = [section.label.split(",")[0] for section in sections(made)]
    assert labels == ["more rounds", "few rounds", "few rounds", "one backend"]
    assert len(sections(made)[1].rows["machine"].unique()) == 1
    assert "more epochs" in sections(made)[1].label
    alike = [*of("two alike", ["jax"], [1.0], [-1.0]), *of("alike", ["jax"], [1.0], [-1.0])]
    assert len(sections(alike)) == 2


def test_other_kinds_of_records_are_in_no_section():
    step = measurement("peers", "step_seconds", 1.0, "s", peer="p", round=1)
    assert len(sections([run("jax", 1.0), record(kind="peers", machine=XEON, measurements=[step])])) == 1


def test_a_verdict_has_each_answer_beside_its_question_and_says_where_things_are():
    lines = verdict(sections([run("jax", 5.0, 20.0)]), PLACES).splitlines()
    assert lines[0] == sections([run("jax", 5.0, 20.0)])[0].label
    assert lines[1] == lines[-4] == ""
    assert lines[2].startswith("Fastest?" + 14 * " " + "JAX takes 10.00 s")
    assert lines[3].startswith("Same numbers?" + 9 * " " + "Not known.")
    assert [line[22:] for line in lines[-3:]] == list(PLACES.values())


def test_what_a_verdict_has_no_room_for_is_in_the_tables():
    made = [run("jax", 5.0, machine={"cpu": "many words " * 20, "cores": 2}), run("jax", 5.0, machine=XEON)]
    first = verdict(sorted(sections(made), key=lambda section: -len(section.label)), PLACES).splitlines()[0]
    assert len(first) <= 100
    assert first.endswith(" … (and 1 more: see the tables)")
    names = [f"backend{i:02}" for i in range(40)]
    lines = verdict(
        sections([run("jax", 5.0), *(record(name, status="failed") for name in names)]), PLACES
    ).splitlines()
    (cut,) = [line for line in lines if line.endswith(" … (see the tables)")]
    assert cut.startswith(22 * " ")
    assert 92 < max(map(len, lines)) <= 100


def test_the_fastest_of_what_nothing_disturbed_is_only_called_so_where_something_was():
    times = [(10.0, 10.1, 10.2), (13.0, 13.1, 13.2), (17.0, 17.2, 17.1)]
    made = [run(name, *its) for name, its in zip(("jax", "torch", "tensorflow"), times, strict=True)]
    found = answers(*made)["Fastest?"]
    assert found.sentences[0] == "JAX is the fastest: 10.10 s an epoch (geometric mean)."
    assert len(found.sentences) == 3
