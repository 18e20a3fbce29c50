"""Sentences: what the figures of one group come to, said only as far as they go.

The answers of `bench.comparison.answers` come first; what wasn't measured isn't spoken of; machines, protocols and
precisions have sentences of their own.
"""

import math
from collections.abc import Iterator

import pandas as pd

import backends
from bench.comparison.answers import UNWATCHED, Section, worst_by_series
from bench.tables import KINDS, trained
from bench.tables.headline_tables import to_target
from bench.tables.labels import LOSS_DIGITS, groups, said
from bench.tables.pivot import RECORD, Spread, over_rounds, pick
from bench.tables.render import at_most, listed, number
from bench.tables.series_tables import round_trips_of

HALF_LEVEL = 0.5


def sentences_of(section: Section) -> list[str]:
    """The sentences of one machine, protocol and precision: what did not end well first, then the other answers."""
    *answers, trouble = section.answers
    well = section.rows[section.rows["status"] == "ok"]
    there = {backends.REFERENCE, *section.rows["plan_backend"]}
    absent = [known.title for name, known in backends.BUILT_IN.items() if name not in there]
    first = [
        *(each for each in trouble.sentences if each != UNWATCHED),
        *([f"No record of {listed(absent)} here."] if absent else []),
    ]
    first += [sentence for answer in answers for sentence in answer.sentences]
    parts = (targets, best_losses, likelihood, sampling, round_trips)
    return [*first, *(sentence for part in parts for sentence in part(well))]


def targets(rows: pd.DataFrame) -> Iterator[str]:
    """Who came to the target loss, and when, where losses are no likelihood: that is among the answers."""
    for key, some in groups(rows[rows["loss"] != "nll"].dropna(subset=["target_loss"]), ["target_loss"]):
        reached, not_reached = [], []
        for name, its in groups(some, ["series"]):
            after, time = (spread.middle for spread in to_target(its))
            series = said(str(name["series"]))
            if math.isinf(after):
                not_reached.append(series)
            elif not math.isnan(after):
                reached.append((time, f"{series} in epoch {after:g} ({number(time, 3)} s)"))
        target = f"the target loss {number(float(key['target_loss']), LOSS_DIGITS)}"
        if reached:
            parts = listed([text for _, text in sorted(reached)])
            yield f"{target[0].upper()}{target[1:]} was reached by {parts}, first call included."
        if not_reached:
            yield f"{listed(not_reached)} did not reach {target} in {rows['epochs'].max()} epochs."


def best_losses(rows: pd.DataFrame) -> Iterator[str]:
    """The lowest loss of each on what is selected on, how far apart these are, and their spread over seeds, if any."""
    curve = pick(rows, "curve", "test_loss").dropna(subset=["value"])
    if curve.empty or curve["loss"].nunique() != 1:
        return
    kind, spreads = KINDS[str(curve["loss"].iloc[0])], {}
    for key, its in groups(curve, ["series"]):
        lowest = its.groupby(RECORD)["value"].min()
        spreads[str(key["series"])] = Spread(float(lowest.median()), float(lowest.min()), float(lowest.max()))
    ordered = sorted(spreads.items(), key=lambda item: item[1].middle)
    parts = [f"{said(name)} {number(s.middle, LOSS_DIGITS)}" for name, s in ordered]
    count = curve["seed"].nunique()
    middles = [s.middle for s in spreads.values()]
    within = f", within {at_most(max(middles) - min(middles))} nats of each other" if len(middles) > 1 else ""
    if count > 1:
        over = max(s.high - s.low for s in spreads.values())
        seeds = f"medians over {count} seeds, which differ by up to {at_most(over)} nats"
    else:
        seeds = "one seed, so how far seeds differ is not known"
    yield f"Lowest selection {kind.removesuffix(', nats')}: {listed(parts)}{within} ({seeds})."


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
    parts = [f"{said(name)} {s.text()} at batch {batch}" for name, (s, batch) in order]
    if not parts:
        return
    close = [said(name) for name, (s, _) in order[1:] if s.high >= order[0][1][0].low]
    noise = f" The intervals of {listed([said(order[0][0]), *close])} overlap." if close else ""
    yield f"Most samples a second: {listed(parts)}.{noise}"


def round_trips(rows: pd.DataFrame) -> Iterator[str]:
    """How far one round trip of the test images lands from them."""
    its = trained(round_trips_of(rows))
    missing, parts, largest = worst_by_series(its, "the error of a round trip x → z → x")
    yield from missing
    if parts:
        side = "below" if largest < HALF_LEVEL else "not all below"
        yield (
            f"Largest error of a round trip x → z → x of the test images at trained weights, in grey levels: "
            f"{listed(parts)}; {side} half a level."
        )
