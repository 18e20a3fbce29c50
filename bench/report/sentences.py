"""Sentences: what the figures of one group come to, said only as far as they go.

What is missing or failed comes first. "Faster" is said only where rounds tell two backends apart (see `bench.report.
ratio`); what wasn't measured isn't spoken of; machines, protocols and precisions have sentences of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Context

import pandas as pd

import backends
from bench.report.panels import said
from bench.report.ratio import Ratio, ratio
from bench.tables import KINDS, largest_difference, trained
from bench.tables.labels import LOSS_DIGITS, groups, place
from bench.tables.pivot import Spread, over_rounds, pick
from bench.tables.render import number
from bench.tables.series_tables import worst_of

SAME = 0.01
"""Losses that differ by less than this share of the largest count as going together."""
HALF_LEVEL = 0.5


def told(rows: pd.DataFrame) -> list[str]:
    """The sentences of one machine, protocol and precision; `rows` of a prepared frame of runs."""
    well = rows[rows["status"] == "ok"]
    parts = (training, floors, targets, together, best_losses, likelihood, sampling, round_trips, agreement)
    return [*missing(rows), *(sentence for part in parts for sentence in part(well))]


def missing(rows: pd.DataFrame) -> Iterator[str]:
    """What did not end well, and which of the usual backends has no record at all."""
    for key, _ in groups(rows[rows["status"] != "ok"], ["series", "status", "reason"]):
        reason = " ".join(str(key["reason"]).split()) or "no reason recorded"
        yield f"{said(str(key['series']))} did not end well: {str(key['status']).replace('_', ' ')} ({reason})."
    there = {backends.REFERENCE, *rows["plan_backend"]}
    absent = [known.title for name, known in backends.BUILT_IN.items() if name not in there]
    if absent:
        yield f"No record of {listed(absent)} here."


def training(rows: pd.DataFrame) -> Iterator[str]:
    """Who trains fastest, by how much, and whether that is more than noise."""
    timed = pick(rows, "training", "seconds_per_epoch").dropna(subset=["value"])
    values = {str(key["series"]): its["value"].tolist() for key, its in groups(timed, ["series"])}
    medians = {name: over_rounds(timed[timed["series"] == name]).middle for name in values}
    order = sorted(medians, key=lambda name: medians[name])
    if not order:
        return
    first, machine = order[0], str(rows["machine"].iloc[0])
    seconds = f"{number(medians[first])} s an epoch"
    if len(order) == 1:
        yield f"On {machine} {said(first)} takes {seconds} ({_rounds(values[first])}); nothing was timed beside it."
        return
    compared = [(name, ratio(values[name], values[first])) for name in order[1:]]
    faster = [
        f"{number(r.value, 3)} × as fast as {said(n)} {_interval(r)}" for n, r in compared if r.verdict == "apart"
    ]
    if faster:
        yield f"On {machine} {said(first)} trains {listed(faster)}; it takes {seconds} ({_rounds(values[first])})."
    else:
        yield f"On {machine} {said(first)} has the shortest median epoch: {seconds} ({_rounds(values[first])})."
    for name, r in compared:
        both = f"{said(name)} takes {number(r.value, 3)} × the time of {said(first)}"
        if r.verdict == "noise":
            two = f"{said(first)} and {said(name)}"
            yield f"{two} are within noise of each other: {number(r.value, 3)} × {_interval(r)}."
        elif r.verdict == "unsettled":
            fewest = min(len(values[name]), len(values[first]))
            few = f"{fewest} rounds are too few to rule noise out"
            yield f"{both} and was slower in every round, but {few} {_interval(r)}."
        elif r.verdict == "unknown":
            yield f"{both}; timed in a single round, so whether that is noise is not known."


def floors(rows: pd.DataFrame) -> Iterator[str]:
    """How near each backend comes to what the machine allows."""
    ratios = {}
    for key, its in groups(pick(rows, "floor", "training_ratio").dropna(subset=["value"]), ["series"]):
        ratios[str(key["series"])] = over_rounds(its).middle
    parts = [f"{said(name)} {number(value, 3)} ×" for name, value in sorted(ratios.items(), key=lambda item: item[1])]
    if parts:
        yield f"An epoch takes this many times the floor that the machine sets: {listed(parts)}."


def targets(rows: pd.DataFrame) -> Iterator[str]:
    """Who came to the target loss, and when."""
    for key, some in groups(rows.dropna(subset=["target_loss"]), ["target_loss"]):
        reached, not_reached = [], []
        for name, its in groups(some[some["measure"] == "training"], ["series"]):
            epochs, seconds = (pick(its, "training", f"{what}_to_target") for what in ("epochs", "seconds"))
            if epochs.empty:
                continue
            after, time = over_rounds(epochs, missing=math.inf).middle, over_rounds(seconds, missing=math.inf).middle
            series = said(str(name["series"]))
            if math.isinf(after):
                not_reached.append(series)
            else:
                reached.append((time, f"{series} in epoch {after:g} ({number(time, 3)} s)"))
        target = f"the target loss {number(float(key['target_loss']), LOSS_DIGITS)}"
        if reached:
            yield f"{_capital(target)} was reached by {listed([text for _, text in sorted(reached)])}."
        if not_reached:
            yield f"{listed(not_reached)} did not reach {target} in {rows['epochs'].max()} epochs."


def together(rows: pd.DataFrame) -> Iterator[str]:
    """How far apart the training losses of the same seed and round are, and from when on."""
    curve = pick(rows, "curve", "train_loss").dropna(subset=["value"])
    names = sorted(set(curve["series"]), key=lambda name: place("series", name))
    if len(names) < 2 or curve["loss"].nunique() != 1:
        return
    shared = [
        (int(key["at_epoch"]), *largest_difference(its))
        for key, its in groups(curve, ["at_epoch"])
        if its["series"].nunique() == len(names) and _comparable(its)
    ]
    if not shared:
        return
    everyone = "both" if len(names) == 2 else f"all {len(names)}"
    apart = next((place for place, (*_, relative) in enumerate(shared) if relative > SAME), len(shared))
    last = shared[-1][0]
    everybody = listed([said(name) for name in names])
    if apart == len(shared):
        _, worst, relative = max(shared, key=lambda found: found[1])
        yield (
            f"{everybody}: {everyone} have the same training loss within {at_most(worst)} nats "
            f"({at_most(100 * relative)} %) in every epoch that they share, up to the {_ordinal(last)}."
        )
        return
    epoch, worst, relative = max(shared[apart:], key=lambda found: found[1])
    before = ""
    if apart:
        _, most, share = max(shared[:apart], key=lambda found: found[1])
        before = (
            f"agree within {at_most(most)} nats ({at_most(100 * share)} %) up to epoch {shared[apart - 1][0]}, then "
        )
    yield (
        f"The training losses of {everybody} {before}differ: most in epoch {epoch}, by "
        f"{number(worst, 3)} nats ({number(100 * relative, 2)} %)."
    )


def best_losses(rows: pd.DataFrame) -> Iterator[str]:
    """The lowest test loss of each, how far apart they are, and the spread over seeds where there is one."""
    curve = pick(rows, "curve", "test_loss").dropna(subset=["value"])
    if curve.empty or curve["loss"].nunique() != 1:
        return
    kind, spreads = KINDS[str(curve["loss"].iloc[0])], {}
    for key, its in groups(curve, ["series"]):
        lowest = its.groupby(["run", "seed"], dropna=False)["value"].min()
        spreads[str(key["series"])] = Spread(float(lowest.median()), float(lowest.min()), float(lowest.max()))
    parts = [f"{said(name)} {number(s.middle, LOSS_DIGITS)}" for name, s in _by_middle(spreads)]
    count = curve["seed"].nunique()
    middles = [s.middle for s in spreads.values()]
    within = f", within {at_most(max(middles) - min(middles))} nats of each other" if len(middles) > 1 else ""
    if count > 1:
        over = max(s.high - s.low for s in spreads.values())
        seeds = f"medians over {count} seeds, which differ by up to {at_most(over)} nats"
    else:
        seeds = "one seed, so how far seeds differ is not known"
    yield f"Lowest test {kind.removesuffix(', nats')}: {listed(parts)}{within} ({seeds})."


def likelihood(rows: pd.DataFrame) -> Iterator[str]:
    """The dequantised test log-likelihood, where the training loss is one too."""
    if set(rows["loss"]) != {"nll"}:
        return
    parts = []
    for key, its in groups(trained(pick(rows, "likelihood", "dequantised_log_likelihood")), ["series"]):
        value = over_rounds(its).middle
        if math.isfinite(value):
            parts.append(f"{said(str(key['series']))} {number(value, LOSS_DIGITS)}")
    if parts:
        yield f"Test log-likelihood in nats (dequantised, at the weights that were kept): {listed(parts)}."


def sampling(rows: pd.DataFrame) -> Iterator[str]:
    """The best sampling throughput of each."""
    its = pick(rows, "sampling", "samples_per_second").dropna(subset=["value"])
    best = {}
    for key, some in groups(its, ["series"]):
        by_batch = [(over_rounds(at), int(batch["at_batch"])) for batch, at in groups(some, ["at_batch"])]
        best[str(key["series"])] = max(by_batch, key=lambda found: found[0].middle)
    order = sorted(best.items(), key=lambda item: -item[1][0].middle)
    parts = [f"{said(name)} {_interval_of(s)} at batch {batch}" for name, (s, batch) in order]
    if not parts:
        return
    close = [said(name) for name, (s, _) in order[1:] if s.high >= order[0][1][0].low]
    noise = f" The intervals of {listed([said(order[0][0]), *close])} overlap." if close else ""
    yield f"Most samples a second: {listed(parts)}.{noise}"


def round_trips(rows: pd.DataFrame) -> Iterator[str]:
    """How far one round trip of the test images lands from them."""
    its = trained(pick(rows, "invertibility", "max_error"))
    for column, value in {"at_inputs": "test", "at_direction": "x-z-x", "at_trips": 1}.items():
        its = its[its[column] == value] if column in its else its[:0]
    its = its[its["at_coupling"].isna()] if "at_coupling" in its else its
    missing, parts, largest = _worst(its, "the error of a round trip x → z → x")
    yield from missing
    if parts:
        side = "below" if largest < HALF_LEVEL else "not all below"
        yield (
            f"Largest error of a round trip x → z → x of the test images at trained weights, in grey levels: "
            f"{listed(parts)}; {side} half a level."
        )


def agreement(rows: pd.DataFrame) -> Iterator[str]:
    """How near log p comes to the float64 reference at the same weights."""
    its = pick(rows, "agreement", "log_prob")
    missing, parts, _ = _worst(its, "the error of log p against the float64 reference")
    yield from missing
    if parts:
        yield f"log p at the same weights, largest relative error against the float64 reference: {listed(parts)}."


def _worst(rows: pd.DataFrame, what: str) -> tuple[list[str], list[str], float]:
    """A sentence for each series that has no number, each other's largest from the smallest on, and the largest of all.

    Args:
        rows: measurements of one kind of error.
        what: the error, for the sentences.
    """
    worst = {str(key["series"]): worst_of(some) for key, some in groups(rows, ["series"])}
    missing = [
        f"{said(name)}: {what} is {text.replace('–', 'missing')}."
        for name, (value, text) in worst.items()
        if math.isnan(value)
    ]
    finite = {name: value for name, (value, _) in worst.items() if math.isfinite(value)}
    order = sorted(finite.items(), key=lambda item: item[1])
    parts = [f"{said(name)} {number(value, 2)}" for name, value in order]
    return missing, parts, order[-1][1] if order else math.nan


# Words


def _comparable(rows: pd.DataFrame) -> bool:
    """Whether any seed and round has two series at all."""
    return bool((rows.groupby(["seed", "at_round"], dropna=False)["series"].nunique() > 1).any())


def _by_middle(spreads: dict[str, Spread]) -> list[tuple[str, Spread]]:
    return sorted(spreads.items(), key=lambda item: item[1].middle)


def _interval(r: Ratio) -> str:
    return f"(95 % interval {number(r.low, 3)}–{number(r.high, 3)})"


def _interval_of(s: Spread) -> str:
    return f"{number(s.middle)} [{number(s.low)}–{number(s.high)}]" if s.low < s.high else number(s.middle)


def _rounds(values: Sequence[float]) -> str:
    return "1 round" if len(values) == 1 else f"{len(values)} rounds, {number(min(values))}–{number(max(values))}"


def at_most(value: float, digits: int = 2) -> str:
    """Return `value` with that many significant digits, rounded up: what is said to be within it, is."""
    if not math.isfinite(value) or value <= 0:
        return number(value, digits)
    return number(float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value))), digits)


def _ordinal(count: int) -> str:
    ending = "th" if 10 <= count % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{ending}"


def listed(parts: Sequence[str]) -> str:
    """Return the parts as a list in a sentence: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
