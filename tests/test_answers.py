"""The answers after a run and at the head of the report: that they say what `compare` says, and fit a terminal."""

import pytest
from record_factories import XEON, measurement, points, record, seconds
from report_records import everything, floor

from bench.comparison.answers import sections, verdict
from bench.comparison.compare import compare
from bench.comparison.compare_tables import figure, word
from bench.comparison.matching import by
from bench.comparison.observations import observations

PLACES = {"Tables": "out/tables", "Report": "out/report.html", "Records": "out"}


def run(backend, *times, others=0.0, **about):
    measured = [*seconds(*times), measurement("training", "others_share", others, "1", round=1)]
    return record(backend, measurements=[*measured, *about.pop("more", [])], **about)


def answers(*records):
    """Question → answer, of the only section."""
    (section,) = sections(records)
    return {answer.question: answer for answer in section.answers}


def test_faster_is_what_compare_says_in_its_words():
    made = [
        run("jax", 10.0, 11.0, 10.5, 10.2),
        run("torch", 12.0, 13.3, 12.5, 12.3),
        run("tensorflow", 11, 10, 10.8, 10),
    ]
    rows = {row.pair.b_name: row for row in compare(by(observations(made), "backend", "jax"), runs=False)}
    found = answers(*made)["Fastest?"]
    assert found.short == "can't tell"
    for name, said in (("torch", "PyTorch"), ("tensorflow", "TensorFlow")):
        told = f"{said} takes {figure(rows[name])} its time: {word(rows[name])} (4 paired rounds"
        assert any(sentence.startswith(told) for sentence in found.sentences)
    assert (word(rows["torch"]), word(rows["tensorflow"])) == ("slower", "can't tell")


def test_the_fastest_is_named_only_if_all_others_are_slower():
    made = [run("jax", 10.0, 11.0, 10.5, 10.2), run("torch", 12.0, 13.3, 12.5, 12.3)]
    assert answers(*made)["Fastest?"].short == "JAX"
    assert answers(*made, run("tensorflow", 10.1, 11.2, 10.4, 10.2))["Fastest?"].short == "can't tell"


def test_what_was_disturbed_is_never_the_fastest_nor_near_a_floor_and_is_named():
    made = [
        run("jax", 5.0, 5.1, 5.0, others=0.5, more=floor(4.0, 1.2)),
        run("torch", 12.0, 12.1, 12.2),
        run("tensorflow", 13.0, 13.1, 13.2, others=0.02),
    ]
    found = answers(*made)
    assert found["Fastest?"].short == "PyTorch"
    assert "JAX" not in " ".join(found["Fastest?"].sentences + found["Near the floor?"].sentences)
    assert found["Failed or disturbed?"].short == "1 disturbed"
    assert found["Failed or disturbed?"].sentences[0].startswith("Disturbed, so not comparable: JAX (50 %);")
    assert found["Fastest?"].sentences[0].startswith("PyTorch is the fastest of what nothing disturbed: ")
    one = answers(*made[:2])["Fastest?"]
    assert one.short == "can't tell"
    assert one.sentences == ["PyTorch takes 12.10 s an epoch; other processes disturbed JAX: these rounds can't tell."]
    none = answers(made[0])["Fastest?"]
    assert none.short == "can't tell"
    assert none.sentences == ["No time is comparable: other processes disturbed them all."]


def test_how_near_to_the_floor_goes_by_the_median_and_the_fastest_by_the_mean_of_its_rounds():
    made = [run("jax", 5.0, 9.0, 10.0, more=floor(4.0, 1.2)), run("torch", 8.5, 8.6, 8.7, more=floor(4.0, 1.2))]
    found = answers(*made)
    assert "JAX has the shortest mean" in found["Fastest?"].sentences[0]  # 450 under the root, to 636
    ratios = [
        float(part.split(" ")[1]) for part in found["Near the floor?"].sentences[0].split(": ")[1][:-1].split(" and ")
    ]
    assert ratios[1] / ratios[0] == pytest.approx(9.0 / 8.6, rel=0.01)


@pytest.mark.parametrize(("share", "apart"), [(0.0099, "within"), (0.0101, "apart from epoch 1")])
def test_losses_go_together_that_differ_by_a_hundredth(share, apart):
    made = [run(name, 5.0, curve=points(-1000.0 * part)) for name, part in (("jax", 1.0), ("torch", 1.0 - share))]
    assert answers(*made)["Same numbers?"].short.startswith(apart)


def test_what_failed_is_named_and_compared_with_nothing():
    found = answers(run("jax", 5.0, 5.1, status="failed", reason="it broke"), run("torch", 12.0, 12.1))
    assert found["Fastest?"].short == "PyTorch alone"
    assert found["Failed or disturbed?"].short == "1 failed"
    assert found["Failed or disturbed?"].sentences == ["JAX did not end well: failed (it broke)."]


def test_where_nothing_watched_the_machine_no_disturbance_is_not_claimed():
    assert answers(run("jax", 5.0, 5.1))["Failed or disturbed?"].short == "no"
    unwatched = record("jax", measurements=seconds(5.0, 5.1))
    assert answers(unwatched)["Failed or disturbed?"].short == "none failed"


@pytest.mark.parametrize(
    ("one", "other", "short"),
    [(-100.0, -100.1, "within 0.10 nats"), (-100.0, -140.0, "apart from epoch 2"), (0.2, 0.5, "within 0.30 nats")],
    ids=["together", "apart", "a loss that passes zero"],
)
def test_the_same_numbers_are_told_from_others(one, other, short):
    made = [record(name, curve=points(-5.0, loss)) for name, loss in (("torch", one), ("jax", other))]
    assert answers(*made)["Same numbers?"].short == short


def test_machines_are_apart_and_the_best_measured_comes_first():
    few = [run(name, 1.0, 1.1, machine=XEON) for name in ("torch", "jax")]
    many = [run(name, 10.0, 11.0, 10.5) for name in ("torch", "tensorflow", "jax")]
    found = sections([*few, *many])
    assert [section.label.split(" · ")[0] for section in found] == ["AMD EPYC, 2 cores", "Intel Xeon, 4 cores"]
    assert "10.49 s" in " ".join(found[0].answers[0].sentences)
    assert "(and 1 more: see the tables)" in verdict(found, PLACES).splitlines()[0]


def longest():
    """Six variants that part, with agreement, a floor, a long reason and much other work."""
    more = [*floor(4.0, 1.2), measurement("agreement", "log_prob", 1e-7, "relative", weights="trained")]
    modes = {"torch": ("eager", "compile"), "tensorflow": ("graph", "xla"), "jax": ("scan", "jit")}
    made = [
        run(name, *(10 + i + j + 0.5 * k for k in range(5)), mode=mode, more=more, curve=points(-1.0, -2.0 - i - j))
        for i, (name, its) in enumerate(modes.items())
        for j, mode in enumerate(its)
    ]
    lost = [record(f"other{i}", status="failed", reason="a very long story " * 20) for i in range(5)]
    return [*made, *lost, run("numpy", 9.0, 9.1, others=0.9)]


def likely(name, *losses, first_call=10.0, **about):
    """A run whose losses are a likelihood, of 1.5 s an epoch."""
    first = measurement("startup", "first_call_seconds", first_call, "s", round=1)
    curve = points(*losses, test=losses)
    return run(name, 1.5, more=[first], curve=curve, protocol="own", loss="nll", target_loss=-2000.0, **about)


def test_when_the_target_was_passed_is_told_where_losses_are_a_likelihood():
    found = answers(
        likely("torch", -1900.0, -1990.0, -2000.0),
        likely("jax", -1900.0, -2000.0, first_call=20.0),
        likely("tensorflow", -1800.0, -1900.0),
    )
    assert list(found)[1] == "To 2000 nats?"
    assert found["To 2000 nats?"].short == "PyTorch, 14.5 s"
    assert found["To 2000 nats?"].sentences[:2] == [
        "2000.00 nats were passed by PyTorch (14.50 s, epoch 3) and JAX (23.00 s, epoch 2), first call included.",
        "TensorFlow did not reach 2000.00 nats.",
    ]
    assert "To 2000 nats?" not in answers(run("torch", 1.5, curve=points(-1.0, test=[-2100.0]), target_loss=-2000.0))


def test_what_was_disturbed_is_never_the_first_to_a_likelihood():
    found = answers(likely("torch", -2000.0, others=0.9), likely("jax", -1900.0, -2000.0))
    assert found["To 2000 nats?"].short == "JAX, 13.0 s"


LIKELY = [likely(f"other{i}", *(-1890.0 - 10 * epoch - i for epoch in range(25))) for i in range(8)]


@pytest.mark.parametrize("made", [longest(), everything(), [record("jax", status="unavailable")], LIKELY])
def test_a_verdict_fits_twenty_lines_of_a_hundred_columns_and_ends_with_where_things_are(made):
    lines = verdict(sections(made), PLACES).splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 100
    assert [line.split() for line in lines[-3:]] == [[what, where] for what, where in PLACES.items()]
    heads = [line[:22].strip() for line in lines if not line.startswith(" ")]
    assert [head for head in heads[2:-4] if head] == [answer.question for answer in sections(made)[0].answers]
    assert all(line[22:].strip() for line in lines[2:-4])
