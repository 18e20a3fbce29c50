"""Compare: who is faster, and what else differs? Each pair of figures with its difference, how sure that is, a verdict.

This is the one answer to that question: for `nice-bench compare`, for the verdict after a run and in the report
(`bench.comparison.answers`), and for the speed of `nice-bench check`.

The unit of a time is the round, a fresh process, by its logarithm. Rounds of one run are interleaved, so two variants
of a run, or two revisions that were measured in one (`compare --interleave`), are compared within rounds (a paired t
test): what drifts from round to round hits both. Separate runs are compared by Welch's test; where each side has at
least three runs the run is the unit, so that drift of the machine from run to run is in the interval; with fewer it
isn't, and the row says so. What repeats within a single process decides nothing. A figure that a run takes in its last
round alone (sampling, density) needs several runs. Of all backends of a run together, the means of rounds over backends
are compared, since the backends of a round are slow together.

Losses differ by nats. Seeds that both sides have make pairs, since they share weights, batches and noise; with one seed
there is no interval but that of the dequantisation's noise draws, which speaks of these weights, not of training.

A comparison of thirty figures finds one or two that differ at 5 % where nothing does. So the figures of one topic are
one family (`statistics.adjusted`); the intervals are those of each figure by itself.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bench.comparison.matching import Pair
from bench.comparison.observations import Form, Observation
from bench.comparison.statistics import CONFIDENCE, Estimate, adjusted, of_means, paired, rounds_needed, welch

Verdict = Literal["worse", "better", "unclear", "same", "incomparable"]
ORDER: dict[Verdict, int] = {"worse": 0, "better": 0, "unclear": 1, "same": 2, "incomparable": 3}

WORDS: dict[Form, tuple[str, str]] = {  # worse, better
    "time": ("slower", "faster"),
    "rate": ("slower", "faster"),
    "floor": ("farther from it", "nearer to it"),
    "size": ("more", "less"),
}
SAME, UNCLEAR, INCOMPARABLE = "same within noise", "can't tell", "not comparable"
PLAIN = {"same": SAME, "unclear": UNCLEAR, "incomparable": INCOMPARABLE}

LEAST_RATIO = math.log(1.005)  # reads 1.00, and is not called a change however sure it is
MAGNITUDE = math.log(10)  # rounding errors of one and the same computation scatter by less
ROUNDOFF = 2.0**-53
MANY_RUNS = 3
WITHIN = "one process"
PAIRED = "paired "
DRAWS = "noise draws"
ITSELF = "the same run"
DRIFT = "drift between the runs is not in the interval"

Units = Mapping[tuple[Any, ...], float]
"""The value of each round (run, seed, round) or run (run, seed)."""


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
        noise: what varies between them: "rounds" or "runs" (each "paired" where both sides share them), "seeds",
            "noise draws", "one process" or nothing; "the same run" where a figure is compared with itself.
        verdict: what follows.
        note: what has to be said beside it.
        rounds: how many rounds on either side would tell a difference of the margin, where these can't.
    """

    pair: Pair
    a: float = math.nan
    b: float = math.nan
    estimate: Estimate = Estimate(math.nan)  # noqa: RUF009 (frozen)
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


def worded(verdict: Verdict, form: Form = "time") -> str:
    """The verdict as people say it: of a time "slower", "faster", "same within noise", "can't tell", …."""
    return PLAIN.get(verdict) or WORDS.get(form, ("worse", "better"))[0 if verdict == "worse" else 1]


def compare(pairs: Iterable[Pair], margins: Margins | None = None, *, runs: bool = True) -> list[Row]:
    """A row a pair: what changed most first, what can't be compared last; for whole `runs`, one of all backends too."""
    rows = [_estimated(pair) for pair in pairs]
    rows += _wholes(rows) if runs else []
    rows = _adjusted(rows)
    margins = margins or Margins()

    def place(row: Row) -> tuple[int, float]:
        """By its verdict, then by how many margins it is, so that ratios and nats can be put in one order."""
        return ORDER[row.verdict], -abs(float(row.estimate.value)) / _margin(row, margins)

    return sorted((_judged(row, margins) for row in rows), key=place)


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
        estimate = Estimate(math.log(worst[1] / worst[0]))
        a, b = (max(each.value for each in side) for side in (pair.a, pair.b))
        return Row(pair, a, b, estimate, n=(len(pair.a), len(pair.b)))
    row = _ratio(pair) if pair.quantity.ratio else _difference(pair)
    if [*pair.a] == [*pair.b]:
        return replace(row, estimate=Estimate(0.0), noise=ITSELF)
    if pair.quantity.form == "floor" and pair.a[0].about.machine != pair.b[0].about.machine:
        return replace(row, note="another machine: how near each comes to its own floor, not speed")
    both = "a run that is on both sides hides part of a change"
    return replace(row, note=_and(row.note, both)) if _overlap(pair) else row


def _overlap(pair: Pair) -> bool:
    """Whether a record is on both sides; variants and revisions of one run share the run's name, and no record."""
    return not {each.record for each in pair.a}.isdisjoint(each.record for each in pair.b)


def _middle(side: Sequence[Observation], *, logs: bool) -> float:
    if not side:
        return math.nan
    values = [each.value for each in side]
    return float(np.exp(np.mean(np.log(values))) if logs else np.mean(values))


def by_unit(side: Sequence[Observation], *, runs: bool, logs: bool) -> dict[tuple[Any, ...], float]:
    """Round, or run where the run is the unit → its mean."""
    return _means(side, lambda each: (each.run, each.seed) if runs else (each.run, each.seed, each.round), logs=logs)


def _means(side: Sequence[Observation], key: Callable[[Observation], Any], *, logs: bool) -> dict[Any, float]:
    """Key → the mean of its observations, or of their logarithms."""
    found = defaultdict(list)
    for each in side:
        found[key(each)].append(each.value)
    return {name: float(np.mean(np.log(values) if logs else values)) for name, values in found.items()}


def _of_runs(pair: Pair) -> bool:
    """Whether the run is the unit: there are enough, or the figure is one of a whole run."""
    counts = [len({(each.run, each.seed) for each in side}) for side in (pair.a, pair.b)]
    return min(counts) >= MANY_RUNS or all(each.round == 0 for each in (*pair.a, *pair.b))


def _change(a: Units, b: Units, *, interleaved: bool) -> tuple[Estimate, tuple[int, int], str]:
    """The mean of b less that of a, the observations on either side, and "paired " where they are pairs of units."""
    common = sorted(a.keys() & b.keys()) if interleaved else []
    if len(common) > 1:
        return paired([b[unit] - a[unit] for unit in common]), (len(common), len(common)), PAIRED
    return welch([*a.values()], [*b.values()]), (len(a), len(b)), ""


def _ratio(pair: Pair) -> Row:
    """Of times and the like: by the logarithms of rounds or runs."""
    runs = _of_runs(pair)
    a, b = (by_unit(side, runs=runs, logs=True) for side in (pair.a, pair.b))
    estimate, n, how = _change(a, b, interleaved=not _overlap(pair))
    noise = f"{how}{'runs' if runs else 'rounds'}"
    if len(a) == 1 == len(b):
        noise, estimate = WITHIN, replace(estimate, error=_within(pair), degrees=math.inf)
    if pair.quantity.form == "rate":
        estimate = replace(estimate, value=-estimate.value)
    means = [float(np.exp(np.mean([*side.values()]))) for side in (a, b)]
    return Row(pair, means[0], means[1], estimate, n=n, noise=noise, note=_drift(pair, noise))


def _drift(pair: Pair, noise: str) -> str:
    """What has to be said of a time whose sides are separate runs, of which each is one sample of the machine."""
    return DRIFT if noise == "rounds" and pair.quantity.on_machine and pair.quantity.form != "size" else ""


def _within(pair: Pair) -> float:
    """Standard error of the log of the ratio by what either process repeats, or its 95 % interval; NaN for neither."""
    total = 0.0
    for side in (pair.a, pair.b):
        each = side[0]
        if len(side) > 1:
            total += float(np.var(np.log([other.value for other in side]), ddof=1)) / len(side)
        elif each.low is None or each.high is None or each.low <= 0:
            return math.nan
        else:
            total += (math.log(each.high / each.low) / (2 * 1.96)) ** 2
    return math.sqrt(total)


def _difference(pair: Pair) -> Row:
    """Of losses: by pairs of seeds, by runs, or by the noise draws of one evaluation."""
    worse = -1.0 if pair.quantity.form == "gain" else 1.0
    a, b = ([*by_unit(side, runs=True, logs=False).values()] for side in (pair.a, pair.b))
    seeds = [_means(side, lambda each: each.seed, logs=False) for side in (pair.a, pair.b)]
    common = sorted(seeds[0].keys() & seeds[1].keys())
    if len(common) > 1:
        a, b = ([side[seed] for seed in common] for side in seeds)
        estimate, noise = paired(np.subtract(b, a)), "seeds"
    elif max(len(a), len(b)) > 1:
        estimate, noise = welch(a, b), "seeds" if max(map(len, seeds)) > 1 else "runs"
    else:
        one, other = pair.a[0], pair.b[0]  # a run may be there twice, in two records
        drawn = [_drawn(each) for each in (one, other)]
        if drawn[0] and drawn[1] and len(pair.a) == len(pair.b) == 1:
            draws = (drawn[0][2], drawn[1][2])
            return Row(pair, one.value, other.value, _signed(of_means(drawn[0], drawn[1]), worse), n=draws, noise=DRAWS)
        estimate, noise = Estimate(b[0] - a[0]), ""
    counts = (len(a), len(b))
    return Row(pair, float(np.mean(a)), float(np.mean(b)), _signed(estimate, worse), n=counts, noise=noise)


def _signed(estimate: Estimate, sign: float) -> Estimate:
    return replace(estimate, value=sign * estimate.value)


def _drawn(each: Observation) -> tuple[float, float, int] | None:
    """Mean, standard error and number of noise draws; None where it was drawn once, or isn't said."""
    if each.low is None or each.high is None or each.n is None or each.n < 2:
        return None
    return each.value, (each.high - each.low) / 2, each.n


def _wholes(rows: Iterable[Row]) -> list[Row]:
    """For each run of several backends: the ratio of training times, by the means of rounds (or runs) over backends.

    The backends of a round are slow together, so that a mean over rounds of each by itself would hide its noise.
    """
    several = defaultdict(list)
    for row in rows:
        if row.pair.quantity.topic == "speed" and row.noise.removeprefix(PAIRED) in ("rounds", "runs"):
            about = row.pair.about
            several[(about.protocol, about.digest, about.machine, about.device, about.precision, row.noise)].append(row)
    found = []
    for (*_, noise), its in several.items():
        if len({row.pair.about.backend for row in its}) < 2:
            continue
        means = []
        for sides in zip(*((row.pair.a, row.pair.b) for row in its), strict=True):
            units = [by_unit(side, runs=noise.endswith("runs"), logs=True) for side in sides]
            common = set(units[0]).intersection(*units)
            means.append({unit: float(np.mean([each[unit] for each in units])) for unit in common})
        if sum(map(len, means)) > 2 and all(means):
            estimate, n, _ = _change(*means, interleaved=noise.startswith(PAIRED))
            names = {(row.pair.a_name, row.pair.b_name) for row in its}  # versions are each framework's own
            a_name, b_name = names.pop() if len(names) == 1 else ("A", "B")
            pair = replace(its[0].pair, context=ALL, a_name=a_name, b_name=b_name)
            found.append(Row(pair, estimate=estimate, n=n, noise=noise, note=_drift(pair, noise)))
    return found


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values, those of one topic as one family."""
    found = list(rows)
    families = defaultdict(list)
    for index, row in enumerate(rows):
        if row.noise != WITHIN and not np.isnan(row.estimate.error):
            families[row.pair.quantity.topic].append(index)
    for members in families.values():
        for index, p in zip(members, adjusted([rows[index].estimate.p for index in members]), strict=True):
            found[index] = replace(rows[index], p=float(p))
    return found


def concluded(
    estimate: Estimate, p: float, margin: float, least: float = 0.0, level: float = 1 - CONFIDENCE
) -> Verdict:
    """What follows from an estimate that is positive where it is worse.

    Args:
        estimate: a difference, or the logarithm of a ratio.
        p: its probability, adjusted for the others of its family; NaN for none.
        margin: a change beyond this must be ruled out for "the same" (two one-sided tests at 5 %).
        least: a change below this is none, however sure.
        level: below which p tells it apart from none.
    """
    value = float(estimate.value)
    if math.isnan(p):
        return "unclear"
    if p < level and abs(value) > least:
        return "worse" if value > 0 else "better"
    low, high = estimate.interval(2 * CONFIDENCE - 1)
    return "same" if -margin < low and high < margin else "unclear"


def _judged(row: Row, margins: Margins) -> Row:
    if row.pair.reason is not None:
        return row
    value = float(row.estimate.value)
    if row.pair.quantity.form == "error":
        return replace(row, verdict="same" if abs(value) < MAGNITUDE else "worse" if value > 0 else "better")
    ratio = row.pair.quantity.ratio
    margin = _margin(row, margins)
    if row.noise == ITSELF or (value == 0 and not ratio):  # equal to the last bit
        return replace(row, verdict="same")
    verdict = concluded(row.estimate, row.p, margin, LEAST_RATIO if ratio else 0.0)
    if verdict != "unclear" or math.isnan(row.p):
        return replace(row, verdict=verdict)
    pairs = row.noise.startswith(PAIRED)
    deviation = float(row.estimate.error) / math.sqrt(1 / row.n[0] if pairs else sum(1 / count for count in row.n))
    needed = rounds_needed(deviation, margin, pairs=pairs) if ratio else None
    chance = "may be chance, of so many" if float(row.estimate.p) < 1 - CONFIDENCE else ""
    return replace(row, verdict="unclear", rounds=needed, note=_and(row.note, chance))


def _and(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
