"""Which figures of two sets, or of one, are put together, what they are called, and why others are not."""

import pytest
from compare_factories import times
from record_factories import EPYC, XEON, likelihood, measurement, points, record, seconds

from bench.comparison.matching import by, each_two, sides
from bench.comparison.observations import observations
from bench.errors import BenchError


def timed(backend="torch", factor=1.0, **about):
    return record(backend, measurements=times(factor), **about)


def matched(a, b, **options):
    """Names, reason and the numbers of observations of each pair of times."""
    pairs = sides(observations(a), observations(b), **options)
    return [(p.a_name, p.b_name, p.reason, len(p.a), len(p.b)) for p in pairs if p.quantity.label == "s/epoch"]


def within(records, attribute, baseline=None, label="s/epoch"):
    """The same of the pairs within one set."""
    pairs = by(observations(records), attribute, baseline)
    return [(p.a_name, p.b_name, p.reason, len(p.a), len(p.b)) for p in pairs if p.quantity.label == label]


# Two sets


def test_sides_are_called_as_they_are_given():
    assert matched([timed()], [timed(run="b")]) == [("A", "B", None, 5, 5)]
    assert matched([timed()], [timed(run="b")], names=("old", "new")) == [("old", "new", None, 5, 5)]
    assert matched([timed()], [], names=("old", "new")) == [("old", "new", "only in old", 5, 0)]
    assert matched([], [timed()], names=("old", "new")) == [("old", "new", "only in new", 0, 5)]


def test_what_has_no_counterpart_is_held_against_what_differs_least():
    near, far = timed(precision="tf32", run="b"), timed(precision="bfloat16", mode="compile", run="b")
    for others in ([near, far], [far, near]):
        found = matched([timed(mode=None), timed("jax")], [*others, timed("jax", run="b")])
        assert sorted(found, key=str) == sorted(
            [
                ("A", "B", None, 5, 5),
                ("A", "B", "another precision (float32; tf32)", 5, 5),
                ("A", "B", "only in B", 0, 5),
            ],
            key=str,
        )


def test_all_that_differs_is_told_and_of_a_protocol_its_name_alone():
    differs = {"protocol": "paper", "protocol_digest": "f" * 16, "batch": 64, "precision": "tf32", "machine": XEON}
    ((*_, reason, _, _),) = matched([timed()], [timed(run="b", **differs)])
    assert reason == (
        "another protocol (article; paper), another precision (float32; tf32), "
        "another machine (AMD EPYC, 2 cores; Intel Xeon, 4 cores)"
    )


def test_one_variant_on_either_side_is_compared_whatever_it_is():
    found = matched([timed(mode="eager")], [timed("jax", mode="scan", run="b")])
    assert found == [("torch eager torch 2.13.0", "jax scan jax 0.10.2", None, 5, 5)]
    found = matched([timed(mode="eager")], [timed(mode="compile", run="b")])
    assert found == [("eager", "compile", None, 5, 5)]
    two = [timed("jax", run="b"), timed("tensorflow", run="b")]
    assert {reason for _, _, reason, _, _ in matched([timed()], two)} == {"only in A", "only in B"}


def versions(*names, run="a"):
    return [timed(packages={"torch": name}, run=f"{run}{name}") for name in names]


def test_the_same_version_is_compared_and_another_if_each_side_has_one_left():
    found = matched(versions("2.11", "2.12"), versions("2.12", "2.13", run="b"))
    assert found == [("A", "B", None, 5, 5), ("torch 2.11", "torch 2.13", None, 5, 5)]
    found = matched(versions("2.10", "2.11", "2.12"), versions("2.12", "2.13", run="b"))
    assert sorted(found, key=str) == [
        ("A", "B", "torch 2.10 on one side alone", 5, 0),
        ("A", "B", "torch 2.11 on one side alone", 5, 0),
        ("A", "B", "torch 2.13 on one side alone", 0, 5),
        ("A", "B", None, 5, 5),
    ]


def test_figures_of_a_single_observation_say_what_differs_too():
    def made(run, **about):
        return record(run=run, curve=points(-5.0), **about)

    def reasons(a, b):
        return [p.reason for p in sides(observations(a), observations(b)) if p.quantity.label == "final train loss"]

    assert reasons([made("a")], [made("b", precision="tf32")]) == ["another precision (float32; tf32)"]
    a = [made(f"a{name}", packages={"torch": name}) for name in ("2.11", "2.12")]
    assert set(reasons(a, [made("b", packages={"torch": "2.12"})])) == {
        None,
        "torch 2.11, AMD EPYC, 2 cores, cpu on one side alone",
    }


def test_losses_of_one_machine_are_compared_with_its_own_first():
    def made(run, loss, machine):
        return record(run=run, curve=points(loss), machine=machine)

    a = [made("a1", -5.0, EPYC), made("a2", -6.0, XEON)]
    b = [made("b2", -7.0, XEON), made("b1", -8.0, EPYC)]
    pairs = [p for p in sides(observations(a), observations(b)) if p.quantity.label == "final train loss"]
    assert [([o.value for o in p.a], [o.value for o in p.b]) for p in pairs] == [([-5.0], [-8.0]), ([-6.0], [-7.0])]


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ((0.5, 0.0), "disturbed by other processes (A)"),
        ((0.0, 0.5), "disturbed by other processes (B)"),
        ((0.5, 0.5), "disturbed by other processes (A and B)"),
        ((0.0, 0.0), None),
    ],
)
def test_sides_that_were_disturbed_are_named(shares, reason):
    a, b = (
        record(run=run, measurements=[*times(), measurement("training", "others_share", share, "1", round=1)])
        for run, share in zip("ab", shares, strict=True)
    )
    assert matched([a], [b]) == [("A", "B", reason, 5, 5)]


def test_a_disturbed_time_is_not_compared_by_its_floor_either():
    busy = measurement("training", "others_share", 0.5, "1", round=1)
    ratio = measurement("floor", "training_ratio", 2.0, "1", round=1)
    a, b = record(run="a", measurements=[ratio]), record(run="b", measurements=[ratio, busy])
    (pair,) = sides(observations([a]), observations([b]))
    assert (pair.quantity.form, pair.reason) == ("floor", "disturbed by other processes (B)")


def test_figures_of_another_kind_or_context_are_not_put_together():
    def made(run, batch, kind="run"):
        return record(run=run, kind=kind, measurements=[measurement("sampling", "latency", 1.0, "s", batch=batch)])

    for other in (made("b", 8), made("b", 1, kind="sweep")):
        pairs = [*sides(observations([made("a", 1)]), observations([other]))]
        assert [p.reason for p in pairs] == ["only in A", "only in B"]
    (pair,) = sides(observations([made("a", 1)]), observations([made("b", 1)]))
    assert (pair.context, pair.reason, pair.about.backend) == ("batch 1", None, "torch")


# One set


def test_a_baseline_is_the_first_or_the_one_that_is_named():
    made = [timed(n, f) for n, f in (("jax", 1.0), ("torch", 2.0), ("tensorflow", 3.0))]
    assert [pair[:3] for pair in within(made, "backend")] == [("torch", "tensorflow", None), ("torch", "jax", None)]
    assert [pair[:3] for pair in within(made, "backend", "jax")] == [
        ("jax", "torch", None),
        ("jax", "tensorflow", None),
    ]


def test_a_backend_has_its_mode_and_version_where_it_has_several():
    made = [timed(mode="eager"), timed(mode="compile"), timed("jax", mode="scan")]
    assert {name for pair in within(made, "backend") for name in pair[:2]} == {"torch eager", "torch compile", "jax"}
    made = [*versions("2.9", "2.10"), timed("jax", packages={"jax": "0.1"})]
    assert {name for pair in within(made, "backend") for name in pair[:2]} == {
        "torch torch 2.9",
        "torch torch 2.10",
        "jax",
    }
    assert within(made, "version")[0][:2] == ("torch 2.9", "torch 2.10")


def test_a_group_that_lacks_the_baseline_says_so():
    made = [timed(precision="float32"), timed(precision="float64")]
    made += [timed("jax", precision=name) for name in ("float64", "bfloat16")]
    assert within(made, "precision", "float32") == [
        ("float32", "float64", None, 5, 5),
        ("float32", "float64", "no float32 to compare it with", 0, 5),
        ("float32", "bfloat16", "no float32 to compare it with", 0, 5),
    ]
    found = within(made, "precision")
    assert [pair[:3] for pair in found] == [("float32", "float64", None), ("float64", "bfloat16", None)]
    made = [timed(precision=name) for name in ("float32", "tf32")]
    made += [timed(precision=name, protocol="paper") for name in ("tf32", "bfloat16")]
    found = within(made, "precision")
    assert [pair[:3] for pair in found] == [("float32", "tf32", None), ("tf32", "bfloat16", None)]


def test_the_nearest_baseline_says_why_it_is_none():
    made = [timed(precision="float32"), timed(precision="float32", protocol="recipe", batch=7)]
    made += [timed(precision="tf32", protocol="paper"), timed(precision="tf32")]
    found = within(made, "precision")
    assert ("float32", "tf32", None, 5, 5) in found
    assert ("float32", "tf32", "another protocol (article; paper)", 0, 5) in found
    assert len(found) == 2


def test_within_a_set_protocols_of_one_name_may_be_told_to_differ_in_their_digest():
    given = [*observations([timed(mode="a"), timed(mode="b", protocol_digest="f" * 16)])]
    for ignored, reason in ((False, "another protocol of this name"), (True, None)):
        (pair,) = by(given, "mode", ignore_digest=ignored)
        assert pair.reason == reason


def test_what_differs_besides_is_not_compared():
    for differs in ({"device": "gpu"}, {"machine": XEON}, {"protocol_digest": "f" * 16}, {"batch": 64}):
        made = [timed(), timed("jax", **differs)]
        ((*_, reason, _, _),) = within(made, "backend")
        assert reason.startswith("another "), differs
    for attribute, values in (("precision", ("float32", "tf32")), ("mode", ("a", "b"))):
        made = [timed(**{attribute: values[0]}), timed(packages={"torch": "2.9"}, **{attribute: values[1]})]
        ((*_, reason, _, _),) = within(made, attribute)
        assert reason == "another version (torch 2.13.0; torch 2.9)"


def test_by_device_neither_losses_nor_a_floor_mind_the_computer():
    gpu = {"gpus": [{"name": "H100"}]}
    made = [
        record(device=device, machine=machine | gpu, curve=points(-5.0), measurements=likelihood(1.0, 0.1))
        for device, machine in (("cpu", EPYC), ("gpu", XEON))
    ]
    assert within(made, "device", label="final train loss") == [("cpu", "gpu", None, 1, 1)]


def test_an_empty_mode_is_called_a_dash():
    assert within([timed(mode=None), timed(mode="jit")], "mode") == [("jit", "–", None, 5, 5)]


@pytest.mark.parametrize(("attribute", "found"), [("backend", "torch"), ("precision", "float32"), ("device", "cpu")])
def test_one_level_alone_is_refused(attribute, found):
    with pytest.raises(BenchError, match=f"--by {attribute}: needs two at least, found {found}"):
        by(observations([timed()]), attribute)
    with pytest.raises(BenchError, match="found none"):
        by([], attribute)


def test_every_two_variants_are_a_pair_of_which_a_is_the_faster_on_average():
    made = [
        record(name, measurements=seconds(*values))
        for name, values in (("torch", (1.0, 9.0)), ("jax", (4.0, 4.0)), ("tensorflow", (2.0, 2.0)))
    ]
    pairs = each_two([each for each in observations(made) if each.quantity.label == "s/epoch"])
    expected = [("tensorflow", "torch"), ("tensorflow", "jax"), ("torch", "jax")]  # 2, 3 and 4 s
    assert [(pair.a_name, pair.b_name) for pair in pairs] == expected
    assert {pair.reason for pair in pairs} == {None}
