"""What a comparison looks like: a table (as text, Markdown, CSV or LaTeX), and JSON with every digit."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.comparison.compare import ITSELF, WITHIN, Row, worded
from bench.tables.render import MISSING, Table, number

LEGEND = (
    "Ratio: what B takes over what A takes, with its 95 % interval; above 1 is worse, also where A and B are",
    "throughputs. Nats: B − A. A change is marked where it differs at 5 %, the figures of one topic being one family",
    "(Benjamini–Hochberg), and the same within noise where a change beyond {margins} is ruled out at 5 %.",
    "Intervals are of each figure alone, and hold what varies from one observation to the next. Paired: within the",
    "rounds of one run, which are interleaved; one process: within it alone, which is no more than a hint; noise",
    "draws: of these weights, not of training. Errors of rounding are compared by their order of magnitude.",
)


def word(row: Row) -> str:
    """The verdict as people say it."""
    return worded(row.verdict, row.pair.quantity.form)


def named(row: Row) -> str:
    """What a row is of, in a line."""
    return ", ".join(filter(None, (_what(row), row.pair.quantity.label, _context(row))))


def _what(row: Row) -> str:
    return row.pair.context if row.whole else " ".join(filter(None, (row.pair.about.backend, row.pair.about.mode)))


def _context(row: Row) -> str:
    return "" if row.whole else row.pair.context


def figure(row: Row) -> str:
    """Ratio or difference, with its interval."""
    value = float(row.estimate.value)
    if math.isnan(value):
        return MISSING
    low, high = row.bounds()
    quantity = row.pair.quantity
    if quantity.form in ("loss", "gain"):
        if quantity.form == "gain":  # shown as B − A, whichever way is worse
            value, low, high = -value, -high, -low
        signed = [f"{'+' if each > 0 else ''}{number(each, 3)}" for each in (value, low, high)]
        return f"{signed[0]} nats" + ("" if math.isnan(low) else f" [{signed[1]} to {signed[2]}]")
    digits = 2 if quantity.form == "error" else 3
    shown = [number(_exp(each), digits + (each > 0)) for each in (value, low, high) if not math.isnan(each)]
    return f"× {shown[0]}" + (f" [{shown[1]}–{shown[2]}]" if len(shown) == 3 else "")


def evidence(row: Row) -> str:
    """How many observations there are on either side, how many would be enough, and what has to be said beside it."""
    if row.pair.reason:
        return row.pair.reason
    counts = str(row.n[0]) if row.n[0] == row.n[1] else f"{row.n[0]}; {row.n[1]}"
    noise = f"{counts} {row.noise}" + (f", {row.rounds} needed" if row.rounds else "")
    if row.noise in ("", WITHIN, ITSELF):
        noise = row.noise or ("1 seed" if row.pair.quantity.form in ("loss", "gain") else "")
    return "; ".join(filter(None, (noise, row.note))) or MISSING


def table(rows: Sequence[Row], notes: Sequence[str] = (), margins: str = "10 %") -> Table:
    """A row a figure; what is equal to the last bit, or of rounding, or can't be compared, is put together."""
    shown: list[dict[str, str]] = []
    together: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        form = row.pair.quantity.form
        nothing = row.verdict == "same" and (form == "error" or row.estimate.value == 0)
        if row.verdict == "incomparable" or nothing:
            about = "" if row.noise == ITSELF else _what(row)
            kind = "error" if form == "error" and nothing else ""
            key = (row.verdict, about, *_section(row), row.pair.b_name, row.pair.reason or row.noise, kind)
            together[key].append(row)
        else:
            shown.append(_shown(row))
    for its in together.values():
        shown.append(_shown(its[0]) | (_several(its) if len(its) > 1 else {}))
    columns = pd.DataFrame(shown, dtype=object)
    sentences = [*notes]
    for name, said in CAPTION.items():
        values = [value for value in dict.fromkeys(columns[name]) if value != MISSING] if name in columns else []
        if len(values) == 1 and values[0] != said:
            sentences.append(f"{said}: {values[0]}.")
        if len(values) <= 1 or (name == "B is" and all(row.pair.b_name in _what(row) for row in rows)):
            columns = columns.drop(columns=name, errors="ignore")
    empty = [name for name in columns if (columns[name] == MISSING).all()]
    caption = " ".join([*sentences, *LEGEND]).replace("{margins}", margins) if rows else " ".join(sentences)
    raw = pd.DataFrame([plain(row) for row in rows])
    return Table("compare", "Comparison", caption, columns.drop(columns=empty), raw, ("verdict", "backend", "figure"))


CAPTION = {"machine": "Machine", "protocol": "Protocol", "precision": "Precision", "A is": "A", "B is": "B"}
"""Columns that go to the caption where all rows have the same, and what they are called there."""


def _several(rows: Sequence[Row]) -> dict[str, str]:
    """The cells in which several rows in one differ from a single row."""
    labels = list(dict.fromkeys(row.pair.quantity.label for row in rows))
    names = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
    cells = {"figure": names, "A → B": MISSING}
    if rows[0].noise == ITSELF:
        backends = dict.fromkeys(row.pair.about.backend for row in rows)
        return cells | {"backend": ", ".join(backends), "change [95 %]": MISSING}
    if rows[0].pair.quantity.form == "error" and rows[0].verdict == "same":
        low, high = (number(_exp(f(float(row.estimate.value) for row in rows)), 2) for f in (min, max))
        return cells | {"figure": f"{len(rows)} errors of rounding", "change [95 %]": f"× {low}–{high}"}
    return cells | ({} if rows[0].verdict == "same" else {"change [95 %]": MISSING})


def _section(row: Row) -> tuple[str, str, str]:
    about = row.pair.about
    return about.protocol, about.machine, about.precision


def _shown(row: Row) -> dict[str, str]:
    protocol, machine, precision = _section(row)
    pair = row.pair
    unit = pair.quantity.unit
    scale, unit = (2**-20, "MiB") if unit == "bytes" else (1.0, unit)
    digits = 6 if unit == "nats" else 4
    a, b = (number(value * scale, digits) for value in (row.a, row.b))
    unit = "" if unit in ("relative", "× floor") else f" {unit}"
    return {
        "verdict": word(row),
        "backend": _what(row),
        "figure": ", ".join(filter(None, (pair.quantity.label, _context(row)))),
        "protocol": protocol,
        "machine": machine,
        "precision": precision,
        "A is": pair.a_name,
        "B is": pair.b_name,
        "change [95 %]": figure(row),
        "observations": evidence(row),
        "A → B": MISSING if a == MISSING == b else f"{a} → {b}{unit}",
    }


def plain(row: Row) -> dict[str, Any]:
    """A row with every digit; None for what there isn't."""
    about, quantity = row.pair.about, row.pair.quantity
    low, high = row.bounds()
    value = float(row.estimate.value)
    if quantity.form in ("loss", "gain"):
        sign = -1 if quantity.form == "gain" else 1
        kind, numbers = "difference", (sign * value, *sorted((sign * low, sign * high)))
    else:
        kind, numbers = "ratio", (_exp(value), _exp(low), _exp(high))
    return {
        "verdict": row.verdict,
        "word": word(row),
        "topic": quantity.topic,
        "figure": quantity.label,
        "unit": quantity.unit,
        "of": _context(row),
        "kind": about.kind,
        "protocol": about.protocol,
        "machine": about.machine,
        "device": about.device,
        "precision": about.precision,
        "backend": row.pair.context if row.whole else about.backend,
        "mode": "" if row.whole else about.mode,
        "a_name": row.pair.a_name,
        "b_name": row.pair.b_name,
        "a": _finite(row.a),
        "b": _finite(row.b),
        "compared": kind,
        "value": _finite(numbers[0]),
        "low": _finite(numbers[1]),
        "high": _finite(numbers[2]),
        "p_adjusted": _finite(row.p),
        "a_observations": row.n[0],
        "b_observations": row.n[1],
        "varies": row.noise,
        "rounds_needed": row.rounds,
        "note": row.note,
    }


def _exp(value: float) -> float:
    """Of the end of an interval that may be as good as infinite."""
    return math.exp(value) if value < 700 else math.inf


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
