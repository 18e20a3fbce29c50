"""Answers: what the runs on one machine, by one protocol, in one precision come to, a question at a time.

They are printed after a run and stand at the head of the report. Who is faster is what `compare` says of it, in its
words; what failed is compared with nothing; what was disturbed is named, and is never the fastest.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import geometric_mean

import pandas as pd

from bench.comparison.compare import UNCLEAR, Margins, compare
from bench.comparison.compare_tables import evidence, figure, word
from bench.comparison.matching import each_two
from bench.comparison.observations import Observation, about, observations
from bench.records import Record
from bench.tables import largest_difference
from bench.tables.floor_tables import machine_floors
from bench.tables.headline_tables import MARKS, passing, target_of, when
from bench.tables.labels import LOSS_DIGITS, SECTION, disturbed, groups, place, prepare, said, section_label
from bench.tables.pivot import over_rounds, pick
from bench.tables.render import at_most, listed, number
from bench.tables.series_tables import worst_of

SAME = 0.01
"""Losses go together that differ by no more than this share of the largest, or than the margin of `compare` in nats."""

NOT = "not known"

UNWATCHED = "None failed; whether other processes disturbed them was not measured."

WIDTH, INDENT = 100, 22
MOST = {4: (6, 3, 2, 3), 5: (4, 3, 3, 2, 2)}
"""Of the verdict on a terminal: columns in all and of the questions, and lines of each of its answers, 14 of 20."""


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a few words, and the sentences that bear it out: none where there is no more to say."""

    question: str
    short: str
    sentences: list[str]


@dataclass(frozen=True)
class Section:
    """The answers for one machine, protocol and precision, and the rows of the prepared frame that they are from."""

    label: str
    rows: pd.DataFrame
    answers: list[Answer]


def sections(records: Sequence[Record]) -> list[Section]:
    """The answers from runs, those of most backends, rounds and epochs first."""
    runs = [(about(record), record) for record in records if record.plan.kind == "run"]
    found = []
    for key, all_rows in groups(prepare([record for _, record in runs]), SECTION):
        own = set(zip(*(all_rows[name] for name in ("machine", "protocol_digest", "precision")), strict=True))
        its = [record for of, record in runs if (of.machine, of.digest, of.precision) in own]
        rows = prepare(its)  # whose labels are as short as they can be among these
        times = [each for each in observations(its) if each.quantity.topic == "speed"]
        well = rows[rows["status"] == "ok"]
        answers = [fastest(times), *reached(well), same_numbers(well)]
        answers += [near_the_floor(rows, well), failed_or_disturbed(rows)]
        epochs = len(pick(well, "curve", "train_loss"))
        measured = (len({each.about.backend for each in times}), len(times), epochs)
        found.append((measured, Section(section_label(key), rows, answers)))
    return [section for _, section in sorted(found, key=lambda each: each[0], reverse=True)]


def fastest(times: Sequence[Observation]) -> Answer:
    """Who is fastest and by how much, or that these rounds can't tell; `times` of one machine, protocol, precision."""
    question = "Fastest?"
    busy = {each.about for each in times if each.disturbed}
    calm = [each for each in times if each.about not in busy]
    if not calm:
        none = ["No time is comparable: other processes disturbed them all."] if times else []
        return Answer(question, UNCLEAR if times else NOT, none)
    rows = compare(each_two(calm), runs=False)
    if not rows:
        name, seconds = said(calm[0].about.backend), geometric_mean([each.value for each in calm])
        short, rest = f"{name} alone", "nothing was timed beside it"
        if busy:
            others = listed(sorted({said(each.backend) for each in busy}))
            short, rest = UNCLEAR, f"other processes disturbed {others}: these rounds can't tell"
        return Answer(question, short, [f"{name} takes {number(seconds)} s an epoch; {rest}."])
    first = min(rows, key=lambda row: row.a)
    name, mean = said(first.pair.a_name), number(first.a)
    against = sorted((row for row in rows if row.pair.a_name == first.pair.a_name), key=lambda row: row.b)
    rivals = [
        f"{said(row.pair.b_name)} takes {figure(row)} its time: {word(row)} ({evidence(row)})." for row in against
    ]
    if all(row.verdict == "worse" for row in against):
        among = " of what nothing disturbed" if busy else ""
        return Answer(question, name, [f"{name} is the fastest{among}: {mean} s an epoch (geometric mean).", *rivals])
    unclear = f"{name} has the shortest mean, {mean} s an epoch, but these rounds can't tell who is fastest."
    return Answer(question, UNCLEAR, [unclear, *rivals])


def reached(rows: pd.DataFrame) -> list[Answer]:
    """When the log-likelihood that is the target was passed, then lower and higher ones; no answer where there is none.

    One that was disturbed has its seconds, and is never the first.
    """
    target = target_of(rows)
    if target is None:
        return []
    calm, sentences, short = set(), [], "not reached"
    for mark in dict.fromkeys([target, *MARKS]):
        there, missing = [], []
        for key, its in groups(rows, ["series"]):
            (epochs, seconds), name = passing(its, mark), said(str(key["series"]))
            if math.isfinite(epochs.middle):
                there.append((seconds.middle, name, when(epochs, seconds)))
                calm |= {name} if disturbed(its) is None else set()
            elif math.isinf(epochs.middle):
                missing.append(name)
        if there:
            parts = [f"{name} ({text})" for _, name, text in sorted(there)]
            sentences.append(f"{number(mark, LOSS_DIGITS)} nats were passed by {listed(parts)}, first call included.")
        if missing and mark == target:
            sentences.append(f"{listed(missing)} did not reach {number(mark, LOSS_DIGITS)} nats.")
        if mark == target:
            first = [f"{name}, {number(seconds, 3)} s" for seconds, name, _ in sorted(there) if name in calm]
            short = first[0] if first else UNCLEAR if there else "not reached" if missing else NOT
    return [Answer(f"To {target:g} nats?", short, sentences)]


def same_numbers(rows: pd.DataFrame) -> Answer:
    """Whether the backends are the same mathematics, by their training losses, and by log p against the reference."""
    curve = pick(rows, "curve", "train_loss").dropna(subset=["value"])
    names = sorted(set(curve["series"]), key=lambda name: place("series", name))
    short, sentences = NOT, []
    shared = [
        (int(key["at_epoch"]), *largest_difference(its))
        for key, its in groups(curve, ["at_epoch"])
        if its["series"].nunique() == len(names) and not math.isnan(largest_difference(its)[0])
    ]
    if shared:
        short, sentence = _together(listed([said(name) for name in names]), len(names), shared)
        sentences.append(sentence)
    missing, parts, largest = worst_by_series(pick(rows, "agreement", "log_prob"), "the error of log p")
    sentences += missing
    if parts:
        sentences.append(f"log p at the same weights, largest relative error against float64: {listed(parts)}.")
    if short == NOT and not math.isnan(largest):
        short = f"log p within {at_most(largest)}"
    return Answer("Same numbers?", short, sentences)


def _together(everybody: str, count: int, shared: Sequence[tuple[int, float, float]]) -> tuple[str, str]:
    """How far apart losses are, and from when on; `shared` holds epoch, nats and share of the largest loss."""
    apart = next(
        (place for place, (_, nats, relative) in enumerate(shared) if relative > SAME and nats > Margins().nats),
        len(shared),
    )
    before = ""
    if apart:
        worst, share = (max(found[part] for found in shared[:apart]) for part in (1, 2))
        within = f"within {at_most(worst)} nats ({at_most(100 * share)} %)"
        if apart == len(shared):
            everyone = "both" if count == 2 else f"all {count}"
            rest = f"have the same training loss {within} in every epoch that they share, up to epoch {shared[-1][0]}."
            return f"within {at_most(worst)} nats", f"{everybody}: {everyone} {rest}"
        before = f"agree {within} up to epoch {shared[apart - 1][0]}, then "
    epoch, worst, relative = max(shared[apart:], key=lambda found: found[2])
    most = f"differ: most in epoch {epoch}, by {number(worst, 3)} nats ({number(100 * relative, 2)} %)."
    return f"apart from epoch {shared[apart][0]}", f"The training losses of {everybody} {before}{most}"


def near_the_floor(rows: pd.DataFrame, well: pd.DataFrame) -> Answer:
    """How many times the least time that the machine allows an epoch takes each of those that ended `well`.

    The floor is of all `rows`, as in the tables: also of a run that failed after its products were timed.
    """
    floor = next(iter(machine_floors(rows).values()), math.nan)
    epochs = groups(pick(well, "training", "seconds_per_epoch"), ["series"])
    calm = {str(key["series"]) for key, its in groups(well, ["series"]) if disturbed(its) is None}
    times = {str(key["series"]): over_rounds(its).middle / floor for key, its in epochs if key["series"] in calm}
    near = sorted((each for each in times.items() if not math.isnan(each[1])), key=lambda each: each[1])
    if not near:
        return Answer("Near the floor?", NOT, [])
    parts = [f"{said(name)} {number(value, 3)}" for name, value in near]
    sentence = f"How many times the machine's floor an epoch takes: {listed(parts)}."
    return Answer("Near the floor?", f"{number(near[0][1], 3)} × at best", [sentence])


def failed_or_disturbed(rows: pd.DataFrame) -> Answer:
    """What did not end well, and beside what other processes used more of the machine than a time can bear."""
    failed = [key for key, _ in groups(rows[rows["status"] != "ok"], ["series", "status", "reason"])]
    sentences = [
        f"{said(str(key['series']))} did not end well: {str(key['status']).replace('_', ' ')} "
        f"({' '.join(str(key['reason']).split()) or 'no reason recorded'})."
        for key in failed
    ]
    shares = {said(str(key["series"])): disturbed(its) for key, its in groups(rows, ["series"])}
    busy = [f"{name} ({number(100 * share, 2)} %)" for name, share in shares.items() if share is not None]
    if busy:
        sentences.append(f"Disturbed, so not comparable: {listed(busy)}; in brackets, what others used of the machine.")
    counts = {"failed": len({str(key["series"]) for key in failed}), "disturbed": len(busy)}
    short = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not short and not rows["quantity"].eq("others_share").any():
        short, sentences = "none failed", [UNWATCHED]
    return Answer("Failed or disturbed?", short or "no", sentences)


def worst_by_series(rows: pd.DataFrame, what: str) -> tuple[list[str], list[str], float]:
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
    order = sorted((value, name) for name, (value, _) in worst.items() if math.isfinite(value))
    return missing, [f"{said(name)} {number(value, 2)}" for value, name in order], order[-1][0] if order else math.nan


def verdict(found: Sequence[Section], places: Mapping[str, str]) -> str:
    """The answers as text for a terminal, of at most 20 lines if `places` has no more than three.

    Args:
        found: the sections, of which the first has room; how many others there are is said.
        places: what there is to look at → where it is.
    """
    first, *others = found
    more = f" (and {len(others)} more: see the tables)" if others else ""
    lines = [textwrap.shorten(first.label, WIDTH - len(more), placeholder=" …") + more, ""]
    for answer, most in zip(first.answers, MOST[len(first.answers)], strict=True):
        text = " ".join(answer.sentences) or f"{answer.short.capitalize()}."
        body = textwrap.wrap(text, WIDTH - INDENT, max_lines=most, placeholder=" … (see the tables)")
        lines += [f"{head:<{INDENT}}{line}" for head, line in zip_longest([answer.question], body, fillvalue="")]
    return "\n".join([*lines, "", *(f"{what:<{INDENT}}{where}" for what, where in places.items())])
