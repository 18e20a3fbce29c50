"""Compare: two sets of figures, each pair with its difference, how sure that is, and what follows from it.

The unit of a time is the round, a fresh process: Welch's test on the logarithms of the rounds. Where each side has at
least three runs of the same thing the run is the unit, so that drift of the machine from run to run is in the interval;
with fewer it isn't, and the same thing measured an hour later may be off by more. A figure that a run takes in its last
round alone (sampling, density) needs several runs. Rounds of one run are interleaved over backends, but no pairs
are made of them: with a handful of rounds that costs more degrees of freedom than the drift in common is worth.

Losses differ by nats. Seeds that both sides have make pairs, since they share weights, batches and noise; with one seed
there is no interval but that of the dequantisation's noise draws, which speaks of these weights, not of training.

A comparison of thirty figures finds one or two that differ at 5 % where nothing does. So the figures of one topic are
one family (`statistics.adjusted`); the intervals are those of each figure by itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.comparison.matching import Pair
from bench.comparison.observations import Observation
from bench.comparison.statistics import CONFIDENCE, Estimate, adjusted, of_means, paired, rounds_needed, welch

Verdict = Literal["worse", "better", "unclear", "same", "incomparable"]
ORDER: dict[Verdict, int] = {"worse": 0, "better": 0, "unclear": 1, "same": 2, "incomparable": 3}

LEAST_RATIO = math.log(1.005)  # reads 1.00, and is not called a change however sure it is
MAGNITUDE = math.log(10)  # rounding errors of one and the same computation scatter by less
ROUNDOFF = 2.0**-53
MANY_RUNS = 3
WITHIN = "one process"
DRAWS = "noise draws"
ITSELF = "the same run"


@dataclass(frozen=True)
class Margins:
    """How much is too much to be "the same": a ratio less 1, and nats."""

    ratio: float = 0.1
    nats: float = 1.0


@dataclass(frozen=True)
class Row:
    """A figure on both sides.

    Attributes:
        pair: what was compared; `pair.reason` is why not.
        a, b: geometric mean (of a ratio) or mean (of a difference) of each side, in the quantity's unit; NaN for none.
        estimate: of log(cost of B / cost of A) or of B − A, positive where B is worse.
        p: adjusted for the other figures of the topic; NaN for none.
        n: observations on either side, of what `noise` names.
        noise: what varies between them: "rounds", "runs", "seeds", "noise draws", "one process" or nothing; "the
            same run" where a figure is compared with itself.
        verdict: what follows.
        note: what has to be said beside it.
        rounds: how many rounds on either side would tell a difference of the margin, where these can't.
    """

    pair: Pair
    a: float = math.nan
    b: float = math.nan
    estimate: Estimate = Estimate(math.nan, math.nan, 1)  # noqa: RUF009 (frozen)
    p: float = math.nan
    n: tuple[int, int] = (0, 0)
    noise: str = ""
    verdict: Verdict = "incomparable"
    note: str = ""
    rounds: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it sums up several backends."""
        return self.pair.context == ALL

    def bounds(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Of `estimate`; NaN where there are none."""
        low, high = self.estimate.interval(confidence)
        return float(low), float(high)


ALL = "all backends"


def compare(pairs: Iterable[Pair], margins: Margins | None = None, *, runs: bool = True) -> list[Row]:
    """A row a pair: what changed most first, what can't be compared last; for whole `runs`, one of all backends too."""
    rows = [_estimated(pair) for pair in pairs]
    rows += _wholes(rows) if runs else []
    rows = _adjusted(rows)
    margins = margins or Margins()
    return sorted((_judged(row, margins) for row in rows), key=lambda row: (ORDER[row.verdict], -_size(row, margins)))


def _size(row: Row, margins: Margins) -> float:
    """How large a change is, in margins, so that ratios and nats can be put in one order."""
    value = abs(float(row.estimate.value))
    return -1.0 if math.isnan(value) else value / _margin(row, margins)


def _margin(row: Row, margins: Margins) -> float:
    if row.pair.quantity.form == "error":
        return MAGNITUDE
    return math.log1p(margins.ratio) if row.pair.quantity.ratio else margins.nats


def _estimated(pair: Pair) -> Row:
    if pair.reason is not None:
        a, b = (_middle(side, logs=pair.quantity.ratio) for side in (pair.a, pair.b))
        return Row(pair, a, b, note=pair.reason)
    if pair.quantity.form == "error":
        worst = [max(max(each.value for each in side), ROUNDOFF) for side in (pair.a, pair.b)]
        estimate = Estimate(math.log(worst[1] / worst[0]), math.nan, 1)
        a, b = (max(each.value for each in side) for side in (pair.a, pair.b))
        return Row(pair, a, b, estimate, n=(len(pair.a), len(pair.b)))
    row = _ratio(pair) if pair.quantity.ratio else _difference(pair)
    if [*pair.a] == [*pair.b]:
        return replace(row, estimate=Estimate(0.0, math.nan, 1), noise=ITSELF)
    if pair.quantity.form == "floor" and pair.a[0].about.machine != pair.b[0].about.machine:
        return replace(row, note="another machine: how near each comes to its own floor, not speed")
    shared = {each.run for each in pair.a} & {each.run for each in pair.b}
    both = "a run that is on both sides hides part of a change"
    return replace(row, note=both) if shared and _alike(pair) else row


def _alike(pair: Pair) -> bool:
    """Whether both sides are of one thing; the backends of one run share the run's name, and nothing else."""
    return {each.about for each in pair.a} == {each.about for each in pair.b}


def _middle(side: Sequence[Observation], *, logs: bool) -> float:
    if not side:
        return math.nan
    values = [each.value for each in side]
    return float(np.exp(np.mean(np.log(values))) if logs else np.mean(values))


def _by_unit(side: Sequence[Observation], runs: bool, logs: bool) -> list[float]:
    """A value a round, or the mean a run."""
    units = defaultdict(list)
    for each in side:
        units[(each.run, each.seed) if runs else (each.run, each.seed, each.round)].append(each.value)
    return [float(np.mean(np.log(values) if logs else values)) for values in units.values()]


def _ratio(pair: Pair) -> Row:
    """Of times and the like: by the logarithms of rounds or runs."""
    counts = [len({(each.run, each.seed) for each in side}) for side in (pair.a, pair.b)]
    runs = min(counts) >= MANY_RUNS
    a, b = (_by_unit(side, runs, logs=True) for side in (pair.a, pair.b))
    noise = "runs" if runs or all(each.round == 0 for each in (*pair.a, *pair.b)) else "rounds"
    estimate = welch([(a, b)])
    if len(a) == 1 == len(b):
        noise, error = WITHIN, _within(pair)
        estimate = replace(estimate, error=error, degrees=math.inf)
    if pair.quantity.form == "rate":
        estimate = replace(estimate, value=-estimate.value)
    means = [float(np.exp(np.mean(side))) for side in (a, b)]
    return Row(pair, means[0], means[1], estimate, n=(len(a), len(b)), noise=noise)


def _within(pair: Pair) -> float:
    """Standard error of the log of the ratio from the 95 % intervals within either process; NaN where one has none."""
    total = 0.0
    for each in (pair.a[0], pair.b[0]):
        if each.low is None or each.high is None or each.low <= 0:
            return math.nan
        total += (math.log(each.high / each.low) / (2 * 1.96)) ** 2
    return math.sqrt(total)


def _difference(pair: Pair) -> Row:
    """Of losses: by pairs of seeds, by runs, or by the noise draws of one evaluation."""
    worse = -1.0 if pair.quantity.form == "gain" else 1.0
    a, b = (_by_unit(side, runs=True, logs=False) for side in (pair.a, pair.b))
    seeds = [_by_seed(side) for side in (pair.a, pair.b)]
    common = sorted(seeds[0].keys() & seeds[1].keys())
    if len(common) > 1:
        a, b = ([side[seed] for seed in common] for side in seeds)
        estimate, noise = paired(np.subtract(b, a)), "seeds"
    elif max(len(a), len(b)) > 1:
        estimate, noise = welch([(a, b)]), "seeds" if max(map(len, seeds)) > 1 else "runs"
    else:
        one, other = pair.a[0], pair.b[0]  # a run may be there twice, in two records
        drawn = [_drawn(each) for each in (one, other)]
        if drawn[0] and drawn[1] and len(pair.a) == len(pair.b) == 1:
            draws = (drawn[0][2], drawn[1][2])
            return Row(pair, one.value, other.value, _turned(of_means(drawn[0], drawn[1]), worse), n=draws, noise=DRAWS)
        estimate, noise = Estimate(b[0] - a[0], math.nan, 1), ""
    counts = (len(a), len(b))
    return Row(pair, float(np.mean(a)), float(np.mean(b)), _turned(estimate, worse), n=counts, noise=noise)


def _turned(estimate: Estimate, sign: float) -> Estimate:
    return replace(estimate, value=sign * estimate.value)


def _by_seed(side: Sequence[Observation]) -> dict[int, float]:
    found = defaultdict(list)
    for each in side:
        found[each.seed].append(each.value)
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def _drawn(each: Observation) -> tuple[float, float, int] | None:
    """Mean, standard error and number of noise draws; None where it was drawn once, or isn't said."""
    if each.low is None or each.high is None or each.n is None or each.n < 2:
        return None
    return each.value, (each.high - each.low) / 2, each.n


def _wholes(rows: Iterable[Row]) -> list[Row]:
    """For each run of several backends: the geometric mean of their ratios of training times."""
    runs = defaultdict(list)
    for row in rows:
        if row.pair.quantity.topic == "speed" and row.noise in ("rounds", "runs"):
            told = row.pair.about
            runs[(told.protocol, told.digest, told.machine, told.device, told.precision)].append(row)
    found = []
    for its in runs.values():
        if len({row.pair.about.backend for row in its}) < 2 or any(np.isnan(row.estimate.error) for row in its):
            continue
        samples = []
        for row in its:
            runs_ = row.noise == "runs"
            samples.append(tuple(_by_unit(side, runs_, logs=True) for side in (row.pair.a, row.pair.b)))
        pair = replace(its[0].pair, context=ALL)
        n = (min(row.n[0] for row in its), min(row.n[1] for row in its))
        found.append(Row(pair, estimate=welch([(a, b) for a, b in samples]), n=n, noise=its[0].noise))
    return found


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values, those of one topic as one family."""
    found = list(rows)
    families = defaultdict(list)
    for index, row in enumerate(rows):
        if row.noise not in ("", WITHIN, ITSELF) and not np.isnan(row.estimate.error):
            families[row.pair.quantity.topic].append(index)
    for members in families.values():
        for index, p in zip(members, adjusted([rows[index].estimate.p for index in members]), strict=True):
            found[index] = replace(rows[index], p=float(p))
    return found


def _judged(row: Row, margins: Margins) -> Row:
    if row.pair.reason is not None:
        return row
    value = float(row.estimate.value)
    worse: Verdict = "worse" if value > 0 else "better"
    if row.pair.quantity.form == "error":
        return replace(row, verdict=worse if abs(value) >= MAGNITUDE else "same")
    ratio = row.pair.quantity.ratio
    margin, least = _margin(row, margins), LEAST_RATIO if ratio else 0.0
    if row.noise == ITSELF or (value == 0 and not ratio):  # equal to the last bit
        return replace(row, verdict="same")
    if math.isnan(row.p):
        return replace(row, verdict="unclear")
    if row.p < 1 - CONFIDENCE and abs(value) > least:
        return replace(row, verdict=worse)
    low, high = row.bounds(2 * CONFIDENCE - 1)  # two one-sided tests at 5 %
    if -margin < low and high < margin:
        return replace(row, verdict="same")
    deviation = float(row.estimate.error) / math.sqrt(sum(1 / count for count in row.n))
    needed = rounds_needed(deviation, margin) if ratio else None
    chance = float(row.estimate.p) < 1 - CONFIDENCE
    return replace(
        row, verdict="unclear", rounds=needed, note=_and(row.note, "may be chance, of so many" if chance else "")
    )


def _and(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
