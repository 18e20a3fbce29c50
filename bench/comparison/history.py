"""History: each figure over revisions, and the revisions at which it changed.

What is put on one line has the same machine, protocol, precision, backend and mode; versions may differ. Steps are
found by E-divisive (Matteson and James, J. Am. Stat. Assoc. 109 (2014); of benchmarks: Daly et al., ICPE 2020): the
split with the largest energy distance between what is before and a stretch after it, kept if a permutation test says
so, then the same within the parts. Revisions are permuted rather than rounds, so that drift of the machine from one to
the next is noise and no step. How large a step is, `compare` says, as everywhere.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bench.comparison.compare import Row, by_unit, compare
from bench.comparison.compare_tables import figure, word
from bench.comparison.matching import Pair
from bench.comparison.observations import TOPICS, About, Observation, Quantity, observations
from bench.comparison.revisions import Side
from bench.comparison.statistics import Estimate, paired
from bench.tables.frame import BACKENDS, rank
from bench.tables.render import MISSING, Table, number, spread

LEVEL = 0.02  # of the permutation test: dozens of figures are shown
BATCHES, BATCH = 10, 50  # of permutations: most series end with the first batch
LEAST = 2  # revisions on either side of a step: one alone may be an outlier
SECTION = ["protocol", "digest", "machine", "precision"]
SHOWN = ("speed", "density", "sampling", "likelihood", "loss")
CAPTION = (
    "Value: of the rounds that a revision added, with its 95 % interval (†: disturbed by other processes). Change: at "
    "a step, up to the next one, against the revisions before; at the last revision, of it alone. Steps: E-divisive, "
    f"permutation test at {100 * LEVEL:g} %, which takes eight revisions or more; intervals take the steps as given."
)


@dataclass(eq=False)
class Point:
    """What one revision added to a figure; whether a step begins there, and how it differs from those before."""

    revision: Side
    rounds: list[Observation]
    step: bool = False
    change: Row | None = None

    @property
    def disturbed(self) -> bool:
        """Whether its times say nothing, since other processes ran beside them."""
        return self.rounds[0].quantity.ratio and any(each.disturbed for each in self.rounds)

    def middle(self) -> tuple[float, float, float, int]:
        """The mean over rounds (of a ratio the geometric one), its 95 % interval (NaN for none), and their number."""
        first = self.rounds[0]
        units = [*by_unit(self.rounds, runs=False, logs=first.quantity.ratio).values()]
        ends = np.array([paired(units).value, *paired(units).interval()])
        value, low, high = map(float, np.exp(ends) if first.quantity.ratio else ends)
        if len(self.rounds) == 1:
            low, high = (math.nan if end is None else end for end in (first.low, first.high))
            if first.quantity.form == "gain":  # a mean over noise draws, low and high one standard error away from it
                low, high = map(float, Estimate(first.value, (high - low) / 2, (first.n or 1) - 1).interval())
            value = first.value
        return value, low, high, len(units)


Series = Sequence[Point]
"""One figure, from the oldest revision on."""


def history(revisions: Iterable[Side], topics: Collection[str]) -> list[Series]:
    """The series of each figure of these topics, from `revisions` in their order, with what has changed in them."""
    groups: dict[tuple[Quantity, str, About], dict[str, Point]] = defaultdict(dict)
    for revision in revisions:
        for each in observations(revision.records):
            if each.quantity.topic in topics:
                series = groups[each.quantity, each.context, replace(each.about, version="", host="")]
                series.setdefault(revision.name, Point(revision, [])).rounds.append(each)
    found = [[*groups[key].values()] for key in sorted(groups, key=_place)]
    pairs = [each for series in found for each in _pairs(series)]
    # One comparison of all, since the figures of a topic are one family.
    rows = {id(row.pair): row for row in compare([pair for _, pair in pairs], runs=False)}
    for point, pair in pairs:
        point.change = rows[id(pair)]
    return [*found]


def _place(key: tuple[Quantity, str, About]) -> tuple[Any, ...]:
    quantity, context, of = key
    sizes = [int(part) if part.isdigit() else -1 for part in context.split()]
    backend = rank(of.backend, BACKENDS)
    return *(getattr(of, name) for name in SECTION), [*TOPICS].index(quantity.topic), sizes, backend, str(key)


def _pairs(series: Series) -> Iterator[tuple[Point, Pair]]:
    """Mark the steps, and say what is compared at each, and at the last revision."""
    calm = [point for point in series if not point.disturbed]
    values = [point.middle()[0] for point in calm]
    starts = [series.index(calm[at]) for at in steps(np.log(values) if series[0].rounds[0].quantity.ratio else values)]
    for start, at, end in zip([0, *starts], starts, [*starts[1:], len(series)], strict=False):
        series[at].step = True
        yield series[at], _pair(series[start:at], series[at:end])
    before = series[max([0, *starts]) : -1]
    if before:
        yield series[-1], _pair(before, series[-1:])


def _pair(before: Series, after: Series) -> Pair:
    """Two stretches as the sides of a comparison, without what was disturbed where something else is left."""
    calm = [[point for point in points if not point.disturbed] for points in (before, after)]
    a, b = ([each for point in points for each in point.rounds] for points in (calm[0] or before, calm[1] or after))
    reason = None if all(calm) else "disturbed by other processes"
    return Pair(b[0].quantity, b[0].context, a, b, before[0].revision.name, after[0].revision.name, reason)


def latest(series: Series) -> list[Row]:
    """What a condition is judged on: the last step, and the last revision against what came before it."""
    last = [*[point for point in series if point.step][-1:], series[-1]]
    return [point.change for point in dict.fromkeys(last) if point.change]


def steps(values: ArrayLike) -> list[int]:
    """The indices at which a new level begins; the same values give the same steps."""
    given, generator = np.asarray(values, float), np.random.default_rng(0)
    cuts: list[int] = []
    while True:
        ends = [end for end in pairwise([0, *cuts, len(given)]) if end[1] - end[0] >= 2 * LEAST]
        found = [(energy[0], a + at[0]) for a, b in ends for energy, at in [_largest(given[a:b, None])]]
        energy, cut = max(found, default=(0.0, 0))
        larger = 0
        for _ in range(BATCHES):
            chance = np.zeros(BATCH)
            for a, b in ends:
                permuted = generator.permuted(np.tile(given[a:b, None], BATCH), axis=0)
                chance = np.maximum(chance, _largest(permuted)[0])
            # A permutation that leaves both sides as they are must count, whatever the order of sums has rounded.
            larger += int(np.sum(chance >= energy * (1 - 1e-9)))
            if 1 + larger > LEVEL * (1 + BATCHES * BATCH):
                return cuts
        cuts = sorted([*cuts, int(cut)])


def _largest(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of series [n, R] the largest scaled energy distance between what is before a split and a stretch after it, [R].

    And the splits, [R]. The stretch may end anywhere, so that a level which comes and goes is seen.
    """
    n, count = values.shape
    sums = np.zeros((n + 1, n + 1, count))
    sums[1:, 1:] = np.abs(values[:, None] - values).cumsum(0).cumsum(1)
    left, end = np.triu_indices(n + 1, LEAST)
    left, end = left[left >= LEAST], end[left >= LEAST]
    first = sums[left, left]
    between = sums[left, end] - first
    second = sums[end, end] - first - 2 * between
    left, end = left[:, None], end[:, None]
    right = end - left
    within = first / (left * (left - 1)) + second / (right * (right - 1))
    energies = left * right / end * (2 * between / (left * right) - within)
    return energies.max(axis=0), left[energies.argmax(axis=0), 0]


# What it looks like


def rows(found: Iterable[Series]) -> list[dict[str, Any]]:
    """A row for each figure and revision, with every digit."""
    made = []
    for point in (point for series in found for point in series):
        of, quantity, at, row = point.rounds[0].about, point.rounds[0].quantity, point.revision, point.change
        change = row.pair.reason or f"{word(row)}: {figure(row)}" if row else MISSING
        shown = {name: getattr(of, name) for name in (*SECTION, "device", "kind")}
        shown |= {"backend": f"{of.backend} {of.mode}".strip(), "revision": at.name, "date": at.date}
        shown |= {"figure": quantity.label, "of": point.rounds[0].context, "unit": quantity.unit, "form": quantity.form}
        shown |= dict(zip(("value", "low", "high", "n"), point.middle(), strict=True)) | {"disturbed": point.disturbed}
        made.append(shown | {"step": point.step, "change": change, "subject": at.subject})
    return made


def by_section(found: Iterable[Series]) -> dict[str, list[dict[str, Any]]]:
    """Protocol, machine and precision as a title → its rows."""
    sections = defaultdict(list)
    for row in rows(found):
        sections["{protocol} ({digest:.8}), {machine}, {precision}".format(**row)].append(row)
    return sections


def tables(found: Iterable[Series]) -> list[Table]:
    """A table for each protocol, machine and precision; the last has the caption."""
    made = []
    for title, its in by_section(found).items():
        lines = pd.DataFrame([_line(row) for row in its])
        made.append(Table("history", title, "", lines, lines, ("backend", "figure")))
    return [*made[:-1], replace(made[-1], caption=CAPTION)]


def _line(row: dict[str, Any]) -> dict[str, str]:
    """A row as people read it."""
    value = spread(row["value"], row["low"], row["high"], 6 if row["unit"] == "nats" else 4)
    shown = {"backend": row["backend"], "figure": f"{row['figure']} {row['of']}".strip()}
    shown |= {"revision": row["revision"], "value": f"{value} {row['unit']}{' †' * row['disturbed']}"}
    return shown | {"change": "step: " * row["step"] + row["change"]}


def sentences(found: Sequence[Series]) -> list[str]:
    """Each step, with the revision that it began with; and how many figures have none."""
    form = "Step: {backend}, {figure} {of} ({protocol}, {precision}, {machine}): {change}, {revision}, {date} {subject}"
    sentences = [form.format(**row).replace("  (", " (").strip(", ") for row in rows(found) if row["step"]]
    steady = sum(not any(point.step for point in series) for series in found)
    last = f"No step in {steady} of {len(found)} figures; the longest has {max(map(len, found))} revisions."
    return [*sentences, last]


def dashboard(found: Iterable[Series], revision: str, style: str) -> Any:
    """The figures of one revision: Bencher Metric Format, or (`style` github) github-action-benchmark's."""
    metrics: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    entries, form = [], "{machine}, {device}, {kind} {protocol} {digest:.8}, {precision}, {backend} {of}"
    for row in rows(found):
        if row["revision"] != revision or row["disturbed"]:
            continue
        ends, unit, name = [row[part] for part in ("value", "low", "high")], row["unit"], form.format(**row).strip()
        named = zip(("value", "lower_value", "upper_value"), ends, strict=True)
        metrics[name][row["figure"]] = {key: end for key, end in named if math.isfinite(end)}
        if row["form"] == "rate":  # since the smaller must be the better one
            ends, unit = [1 / end for end in ends], "/".join(reversed(unit.split("/")))
        elif row["form"] == "gain":
            ends, unit = [-end for end in ends], f"{unit}, negated"
        half = abs(ends[2] - ends[1]) / 2
        entry = {"name": f"{name}, {row['figure']}", "unit": unit, "value": ends[0]}
        entries.append(entry | ({"range": f"± {number(half, 3)}"} if math.isfinite(half) else {}))
    return entries if style == "github" else metrics
