"""Conditions for continuous integration: "speed worse by 10%", judged on a comparison; each has three answers.

- *fails*: a figure of the topic is worse (its verdict), and the whole of its 95 % interval is beyond the limit.
- *holds*: every figure of the topic is worse by less than that at a confidence of 95 % (one-sided).
- *can't tell*: neither; that is, the interval reaches beyond the limit, nothing repeats so that there is none, a figure
  of A has nothing in B to be compared with, or the topic has no figures at all. This is never a pass.

A time is worse by 10 % where it takes 1.1 times as long, a throughput where it is 1/1.1 of what it was.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bench.comparison.compare import Row
from bench.comparison.compare_tables import evidence, figure, named
from bench.comparison.observations import TOPICS
from bench.comparison.statistics import CONFIDENCE
from bench.errors import BenchError

Answer = Literal["holds", "can't tell", "fails"]
ANSWERS: Sequence[Answer] = get_args(Answer)  # the worst last

GRAMMAR = re.compile(r"(?P<topic>\w+) worse(?: by (?P<number>\d+(?:\.\d+)?) ?(?P<unit>%|nats?|x|×))?")


@dataclass(frozen=True)
class Condition:
    """What must not be: a topic worse by `limit`, a logarithm of a ratio or nats; 0 where any worsening counts."""

    text: str
    topic: str
    limit: float


@dataclass(frozen=True)
class Judgement:
    """The answer to a condition, and the figures that it follows from."""

    condition: Condition
    answer: Answer
    reason: str


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        BenchError: anything but "TOPIC worse", "TOPIC worse by N%", "… N nats" (loss, likelihood) or "… N×"
            (agreement).
    """
    match = GRAMMAR.fullmatch(" ".join(text.split()))
    if match is None:
        raise BenchError(f'--fail-if {text!r}: expected "TOPIC worse by N%", N nats or N×, or "TOPIC worse"')
    topic, number, unit = match["topic"], match["number"], match["unit"]
    if topic not in TOPICS:
        raise BenchError(f"--fail-if {text!r}: topic {topic!r}; expected one of {', '.join(TOPICS)}")
    if number is None:
        return Condition(text, topic, 0.0)
    wanted = "%" if TOPICS[topic].ratio else "×" if topic == "agreement" else "nats"
    if {"x": "×", "nat": "nats"}.get(unit, unit) != wanted:
        raise BenchError(f"--fail-if {text!r}: {topic} is compared in {wanted}, found {unit}")
    value = float(number)
    if wanted == "×" and value < 1:
        raise BenchError(f"--fail-if {text!r}: expected 1× or more")
    return Condition(text, topic, {"%": math.log1p(value / 100), "×": math.log(max(value, 1)), "nats": value}[wanted])


def judge(condition: Condition, rows: Sequence[Row]) -> Judgement:
    """Hold a condition against a comparison."""
    # What B has and A hasn't is new, and can't have become worse.
    own = [
        row for row in rows if row.pair.quantity.topic == condition.topic and (row.pair.a or row.pair.reason is None)
    ]
    if not own:
        return Judgement(condition, "can't tell", f"no figures of {condition.topic}")
    answers = [_answer(row, condition.limit) for row in own]
    worst = max(answers, key=ANSWERS.index)
    reasons = [_sentence(row) for row, answer in zip(own, answers, strict=True) if answer == worst != "holds"]
    return Judgement(condition, worst, "; ".join(reasons))


def _answer(row: Row, limit: float) -> Answer:
    value = float(row.estimate.value)
    if row.pair.reason is not None:
        return "can't tell"
    if row.pair.quantity.form == "error":  # without noise of its own: the value is all there is
        return "fails" if value >= limit and (limit or row.verdict == "worse") else "holds"
    if row.verdict == "worse" and (limit == 0 or row.bounds()[0] > limit):
        return "fails"
    if math.isnan(row.p):
        return "holds" if row.verdict == "same" else "can't tell"
    if limit == 0:
        return "can't tell" if row.verdict == "unclear" else "holds"
    return "holds" if row.bounds(2 * CONFIDENCE - 1)[1] < limit else "can't tell"


def _sentence(row: Row) -> str:
    return f"{named(row)}: {evidence(row)}" if row.pair.reason else f"{named(row)}: {figure(row)} ({evidence(row)})"
