"""Conditions: each answer, where it is due and where it isn't."""

import math

import numpy as np
import pytest
from record_factories import XEON, likelihood, measurement, points, record, seconds
from scipy import stats

from bench.comparison.compare import compare
from bench.comparison.conditions import Condition, judge, parse
from bench.comparison.matching import sides
from bench.comparison.observations import observations
from bench.errors import BenchError

STEADY = (10.0, 10.1, 9.9, 10.05, 9.95)
NOISY = (10.0, 11.5, 8.5, 10.9, 9.1)


def answer(text, a, b):
    rows = compare(sides(observations(a), observations(b)))
    found = judge(parse(text), rows)
    assert found.condition == parse(text)
    assert (found.reason == "") == (found.answer == "holds")
    return found


def speeds(factor, values=STEADY, **about):
    a = [record(name, run="a", measurements=seconds(*values)) for name in ("torch", "jax")]
    b = [
        record(name, run="b", measurements=seconds(*(factor * value for value in values)), **about)
        for name in ("torch", "jax")
    ]
    return a, b


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "holds"), (0.7, "holds"), (1.08, "holds"), (1.12, "fails"), (2.0, "fails")]
)
def test_a_steady_machine_gives_a_clear_answer(factor, expected):
    assert answer("speed worse by 10%", *speeds(factor)).answer == expected


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "can't tell"), (1.12, "can't tell"), (2.0, "fails"), (0.5, "holds")]
)
def test_a_noisy_machine_gives_none_unless_the_change_is_plain(factor, expected):
    assert answer("speed worse by 10%", *speeds(factor, NOISY)).answer == expected


@pytest.mark.parametrize(
    ("times", "quantile", "share", "expected"),
    [
        (1.0, 0.95, 1.001, "holds"),
        (1.0, 0.95, 0.999, "can't tell"),
        (1.5, 0.025, 0.999, "fails"),
        (1.5, 0.025, 1.001, "can't tell"),
    ],
)
def test_a_limit_is_held_one_sided_and_broken_by_the_whole_interval(times, quantile, share, expected):
    b = [times * value for value in (10.3, 9.6, 10.1, 9.8, 10.4)]
    found = stats.ttest_ind(np.log(b), np.log(NOISY), equal_var=False)
    bound = np.mean(np.log(b)) - np.mean(np.log(NOISY)) + stats.t.ppf(quantile, found.df) * found._standard_error
    percent = 100 * np.expm1(share * bound)
    records = [[record(run=run, measurements=seconds(*values))] for run, values in (("a", NOISY), ("b", b))]
    assert answer(f"speed worse by {percent:.6f}%", *records).answer == expected


def test_any_worsening_that_is_told_apart_fails_without_a_limit():
    assert answer("speed worse", *speeds(1.03)).answer == "fails"
    assert answer("speed worse", *speeds(1.0)).answer == "holds"
    assert answer("speed worse", *speeds(1.03, NOISY)).answer == "can't tell"


def test_one_backend_is_enough_and_is_named():
    a, b = speeds(1.0)
    b[1] = record("jax", run="b", measurements=seconds(*(1.3 * value for value in STEADY)))
    found = answer("speed worse by 20%", a, b)
    assert found.answer == "fails"
    assert found.reason.startswith("jax, s/epoch: × 1.300 [")
    assert "torch" not in found.reason


@pytest.mark.parametrize("about", [{"machine": XEON}, {"precision": "tf32"}, {"protocol_digest": "e" * 16}])
def test_what_cannot_be_compared_is_no_pass(about):
    found = answer("speed worse by 10%", *speeds(0.5, **about))
    assert found.answer == "can't tell"
    assert found.reason.startswith("torch, s/epoch: another ")
    assert "; jax, s/epoch: another " in found.reason


def test_a_backend_that_is_gone_is_no_pass_and_a_new_one_no_matter():
    a, b = speeds(1.0)
    assert answer("speed worse by 10%", a, b[:1]).answer == "can't tell"
    assert answer("speed worse by 10%", a[:1], b).answer == "holds"


def test_a_topic_without_figures_is_no_pass():
    found = answer("memory worse by 10%", *speeds(1.0))
    assert (found.answer, found.reason) == ("can't tell", "no figures of memory")


def test_one_round_is_no_pass():
    a, b = (record(run=run, measurements=seconds(10.0)) for run in "ab")
    assert answer("speed worse by 10%", [a], [b]).answer == "can't tell"
    assert answer("speed worse by 10%", [a], [a]).answer == "holds"  # the very same run


def test_losses_are_held_against_nats():
    def made(run, shift):
        values = enumerate((-100.0, -120.0, -90.0))
        return [record(run=run, seed=s, curve=points(value + shift + s / 100, test=[-5.0])) for s, value in values]

    a = made("a", 0.0)
    assert answer("loss worse by 0.5 nats", a, made("b", 1.0)).answer == "fails"
    assert answer("loss worse by 0.5 nats", a, made("b", 0.2)).answer == "holds"
    assert answer("loss worse by 0.5 nats", a, made("b", -3.0)).answer == "holds"
    assert answer("loss worse by 0.5 nats", a[:1], made("b", 0.2)[:1]).answer == "can't tell"
    assert answer("loss worse", a[:1], made("b", 1.0)[:1]).answer == "can't tell"


def test_less_likelihood_is_worse():
    a, less, more = (
        [record(run=run, measurements=likelihood(value, 0.1))]
        for run, value in (("a", 1900.0), ("b", 1890.0), ("c", 1910.0))
    )
    assert answer("likelihood worse by 5 nats", a, less).answer == "fails"
    assert answer("likelihood worse by 5 nats", a, more).answer == "holds"


def test_agreement_is_held_against_a_factor():
    a, b = (
        [record(run=run, measurements=[measurement("agreement", "z", value, "relative")])]
        for run, value in (("a", 1e-7), ("b", 5e-7))
    )
    assert answer("agreement worse by 4×", a, b).answer == "fails"
    assert answer("agreement worse by 6x", a, b).answer == "holds"
    assert answer("agreement worse", a, b).answer == "holds"  # within an order of magnitude


@pytest.mark.parametrize(
    ("text", "times", "expected"),
    [
        ("agreement worse by 4×", 4.0, "fails"),  # no less than the limit
        ("agreement worse by 2×", 2.5, "fails"),
        ("agreement worse by 1×", 1.0, "holds"),
        ("agreement worse", 9.0, "holds"),
        ("agreement worse", 11.0, "fails"),
        ("agreement worse", 1 / 11, "holds"),
    ],
)
def test_an_error_fails_from_the_limit_on_and_without_one_from_an_order_of_magnitude_on(text, times, expected):
    a, b = (
        [record(run=run, measurements=[measurement("agreement", "z", value * 2.0**-20, "relative")])]
        for run, value in (("a", 1.0), ("b", times))
    )
    assert answer(text, a, b).answer == expected


@pytest.mark.parametrize(
    ("text", "topic", "limit"),
    [
        ("speed worse", "speed", 0.0),
        ("speed worse by 10%", "speed", math.log(1.1)),
        ("memory  worse by 2.5 %", "memory", math.log(1.025)),
        ("floor worse by 300%", "floor", math.log(4)),
        ("loss worse by 1 nat", "loss", 1.0),
        ("likelihood worse by 0.25 nats", "likelihood", 0.25),
        ("agreement worse by 1×", "agreement", 0.0),
        ("agreement worse by 4x", "agreement", math.log(4)),
    ],
)
def test_a_limit_is_the_logarithm_of_a_ratio_or_nats(text, topic, limit):
    assert parse(text) == Condition(text, topic, pytest.approx(limit))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("speed", 'expected "TOPIC worse by N%"'),
        ("speed better by 10%", 'expected "TOPIC worse by N%"'),
        ("speed worse by -1%", 'expected "TOPIC worse by N%"'),
        ("colour worse by 10%", "topic 'colour'; expected one of speed, "),
        ("speed worse by 10 nats", "speed is compared in %, found nats"),
        ("loss worse by 10%", "loss is compared in nats, found %"),
        ("agreement worse by 0.5×", "expected 1× or more"),
    ],
)
def test_what_is_no_condition_is_refused(text, told):
    with pytest.raises(BenchError, match="--fail-if") as caught:
        parse(text)
    assert told in str(caught.value)
