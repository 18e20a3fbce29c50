"""Matching: which figures of two sets belong together, and why others don't.

Figures that were taken on another machine, in another precision or under another protocol are never put together; they
come out as a pair that has a reason for not being one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import geometric_mean
from typing import Any, Literal

from bench.comparison.observations import About, Observation, Quantity
from bench.errors import BenchError
from bench.tables.frame import BACKENDS, PRECISIONS, rank

By = Literal["backend", "device", "version", "precision", "mode"]

CALLED = {
    "protocol": "protocol",
    "digest": "protocol of this name",
    "network": "network, optimiser, batch, epochs or loss",
    "backend": "backend",
    "precision": "precision",
    "device": "device",
    "machine": "machine",
    "host": "machine",
    "mode": "mode",
    "version": "version",
}
UNSAID = ("digest", "network")  # nobody can read them
DROPPED = {
    "backend": ("backend", "mode", "version"),
    "device": ("device", "machine"),
    "version": ("version",),
    "precision": ("precision",),
    "mode": ("mode",),
}
"""What may differ besides, where sets are compared by one of these."""


@dataclass(frozen=True)
class Pair:
    """The observations of one figure on both sides, what the sides are called, and why they can't be compared."""

    quantity: Quantity
    context: str
    a: Sequence[Observation]
    b: Sequence[Observation]
    a_name: str
    b_name: str
    reason: str | None = None

    @property
    def about(self) -> About:
        """What the figure is of."""
        return (self.b or self.a)[0].about


def sides(
    a: Iterable[Observation],
    b: Iterable[Observation],
    names: tuple[str, str] = ("A", "B"),
    *,
    ignore_digest: bool = False,
) -> Iterator[Pair]:
    """Match two sets: the same backend and mode, or whatever each side has where that is one alone."""
    given = [*a], [*b]
    lone = all(len({(each.about.backend, each.about.mode) for each in side}) == 1 for side in given)
    groups = _grouped(given, lambda each: (each.quantity, each.context, each.about.kind, lone or each.about.backend))
    for found in groups.values():
        must = _must(found[0][0].quantity if found[0] else found[1][0].quantity, ignore_digest)
        must = [name for name in must if not (lone and name in ("backend", "mode"))]
        yield from _matched(found, must, names, lone)


def by(
    observations: Iterable[Observation], attribute: By, baseline: str | None = None, *, ignore_digest: bool = False
) -> list[Pair]:
    """Match the figures of one set that differ in one attribute alone, each with those of the baseline.

    The baseline is the first of a group where none is named: torch, cpu, the oldest version, float32, or by name.

    Raises:
        BenchError: there is nothing to compare by it, or no such baseline.
    """
    given = [*observations]
    level = _levels(given, attribute)
    levels = sorted({level(each) for each in given}, key=lambda name: _place(name, attribute))
    if len(levels) < 2:
        raise BenchError(f"--by {attribute}: needs two at least, found {', '.join(levels) or 'none'}")
    if baseline is not None and baseline not in levels:
        raise BenchError(f"--baseline {baseline!r}: expected one of {', '.join(levels)}")
    dropped = DROPPED[attribute]
    own = "" if "backend" in dropped else "backend"
    groups = _grouped((given,), lambda each: (each.quantity, each.context, each.about.kind, own and each.about.backend))
    pairs: list[Pair] = []
    for (quantity, *_), (found,) in groups.items():
        must = [name for name in (*_must(quantity, ignore_digest), "version") if name not in dropped]
        must += ["host"] if attribute == "device" and quantity.on_machine else []
        if attribute != "device":  # of losses too: their spread is that of runs
            must += [name for name in ("device", "machine") if name not in must]
        pairs += _by_level(found, must, level, baseline, attribute)
    return pairs


def each_two(observations: Iterable[Observation]) -> list[Pair]:
    """Match every two variants in the times of one machine, protocol and precision; A is the faster one on average."""
    given = [*observations]
    groups = _grouped((given,), _levels(given, "backend"))
    variants = sorted(groups.items(), key=lambda variant: geometric_mean(each.value for each in variant[1][0]))
    return [_pair(a, b, (one, other)) for (one, (a,)), (other, (b,)) in combinations(variants, 2)]


def _must(quantity: Quantity, ignore_digest: bool) -> list[str]:
    """The attributes in which two figures have to agree."""
    names = ["protocol", "network", "backend", "mode", "precision"]
    names += [] if ignore_digest else ["digest"]
    return names + (["device", "machine"] if quantity.on_machine else [])


def _grouped(
    sets: Sequence[Iterable[Observation]], key: Callable[[Observation], Any]
) -> dict[Any, list[list[Observation]]]:
    """Key → the observations of each set."""
    found: dict[Any, list[list[Observation]]] = defaultdict(lambda: [[] for _ in sets])
    for index, some in enumerate(sets):
        for each in some:
            found[key(each)][index].append(each)
    return found


def _key(about: About, must: Iterable[str]) -> tuple[str, ...]:
    return tuple(getattr(about, name) for name in must)


def _matched(
    found: Sequence[Sequence[Observation]], must: list[str], names: tuple[str, str], lone: bool
) -> Iterator[Pair]:
    groups = _grouped(found, lambda each: _key(each.about, must))
    left: tuple[list[list[Observation]], list[list[Observation]]] = ([], [])
    for a, b in groups.values():
        if a and b:
            yield from _variants(a, b, names, lone)
        else:
            left[0 if a else 1].append(a or b)
    for a in left[0]:
        others = sorted(left[1], key=lambda b: len(_differences(a[0].about, b[0].about, must)))
        if others:
            left[1].remove(others[0])
            yield _pair(a, others[0], names, _another(a[0].about, others[0][0].about, must))
        else:
            yield _pair(a, [], names, f"only in {names[0]}")
    for b in left[1]:
        yield _pair([], b, names, f"only in {names[1]}")


def _variants(a: list[Observation], b: list[Observation], names: tuple[str, str], lone: bool) -> Iterator[Pair]:
    """Pairs of the same version (and machine, where it needn't be the same), or of what is alone on either side."""
    may = ("version",) if a[0].quantity.on_machine else ("version", "machine", "device")
    groups = [*_grouped((a, b), lambda each: _key(each.about, may)).values()]
    left = [[one or other for one, other in groups if not (one and other) and (one, other)[side]] for side in (0, 1)]
    if len(left[0]) == 1 == len(left[1]):
        groups = [group for group in groups if all(group)] + [[left[0][0], left[1][0]]]
    for one, other in groups:
        if not (one and other):
            alone = ", ".join(filter(None, _key((one or other)[0].about, may)))
            yield _pair(one, other, names, f"{alone} on one side alone")
            continue
        differ = _differences(one[0].about, other[0].about, ("backend", "mode", "version") if lone else ("version",))
        labels = [" ".join(_key(each[0].about, differ)).strip() for each in (one, other)]
        yield _pair(one, other, (labels[0] or names[0], labels[1] or names[1]))


def _by_level(
    found: list[Observation],
    must: list[str],
    level: Callable[[Observation], str],
    baseline: str | None,
    attribute: By,
) -> Iterator[Pair]:
    if len({level(each) for each in found}) < 2:
        return
    first = baseline or min((level(each) for each in found), key=lambda name: _place(name, attribute))
    for (group,) in _grouped((found,), lambda each: _key(each.about, must)).values():
        levels = {name: its for name, (its,) in _grouped((group,), level).items()}
        names = sorted(levels, key=lambda name: _place(name, attribute))
        base = baseline or (names[0] if len(names) > 1 else first)
        for name in names:
            if name == base:
                continue
            if base in levels:
                yield _pair(levels[base], levels[name], (base, name))
                continue
            bases = [each for each in found if level(each) == base]
            bases.sort(key=lambda each: len(_differences(each.about, levels[name][0].about, must)))
            why = _another(bases[0].about, levels[name][0].about, must) if bases else f"no {base} to compare it with"
            yield _pair([], levels[name], (base, name), why)


def _levels(given: Sequence[Observation], attribute: By) -> Callable[[Observation], str]:
    """What an observation is called by an attribute; a backend with its mode and version where it has several."""
    if attribute != "backend":
        return lambda each: str(getattr(each.about, attribute)) or "–"
    several = {}
    for name in ("mode", "version"):
        values = defaultdict(set)
        for each in given:
            values[each.about.backend].add(getattr(each.about, name))
        several[name] = {backend for backend, found in values.items() if len(found) > 1}

    def level(each: Observation) -> str:
        extra = [getattr(each.about, name) for name in several if each.about.backend in several[name]]
        return " ".join(filter(None, (each.about.backend, *extra)))

    return level


def _place(name: str, attribute: By) -> tuple[Any, ...]:
    order = {"backend": BACKENDS, "precision": ("float32", *PRECISIONS)}.get(attribute, ())
    natural = [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name)]
    return (rank(name.split(" ")[0], order)[0], natural)


def _differences(a: About, b: About, must: Iterable[str]) -> list[str]:
    return [name for name in must if getattr(a, name) != getattr(b, name)]


def _another(a: About, b: About, must: Iterable[str]) -> str:
    """Why two figures aren't comparable, as "another machine (AMD EPYC; NVIDIA H100)"."""
    found = _differences(a, b, must)
    if "protocol" in found:  # then these two differ as well
        found = [name for name in found if name not in UNSAID]
    if "digest" in found and "network" in found:
        found.remove("digest")
    reasons = [
        f"another {CALLED[name]}" + ("" if name in UNSAID else f" ({getattr(a, name)}; {getattr(b, name)})")
        for name in found
    ]
    return ", ".join(reasons) or "nothing to compare it with"


def _pair(
    a: Sequence[Observation], b: Sequence[Observation], names: tuple[str, str], reason: str | None = None
) -> Pair:
    some = (a or b)[0]
    if reason is None and some.quantity.ratio:
        found = [name for side, name in zip((a, b), names, strict=True) if any(each.disturbed for each in side)]
        reason = f"disturbed by other processes ({' and '.join(found)})" if found else None
    return Pair(some.quantity, some.context, a, b, *names, reason)
