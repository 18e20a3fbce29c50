"""Render: tables as text, Markdown, CSV and LaTeX, and numbers as people read them.

Rounding happens here and nowhere else. CSV carries the numbers unrounded; the other formats carry what is shown.
"""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context

import pandas as pd
from tabulate import tabulate

from bench.errors import BenchError

MISSING = "–"
WIDTH = 120

SUFFIXES = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex"}
"""The formats of `render`, and their files' suffixes."""

LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "−": "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "π": r"$\pi$",
        "½": r"$\frac12$",
        "→": r"$\to$",
        "≤": r"$\leq$",
        "Δ": r"$\Delta$",
        "–": "--",
        "—": "---",
        "…": r"\dots{}",
        "|": r"\textbar{}",
    }
)


@dataclass(frozen=True)
class Table:
    """A table to be read: `shown` holds rounded text, `raw` the numbers behind it with all their digits.

    `name` is the file's name without suffix. `caption` says what was measured on what machine, in what precision,
    under what protocol and how often. `raw` keeps the columns that `shown` leaves to the caption. `labels` names the
    columns that say what a row is about: a table too wide for a terminal is folded, with these before each part.
    """

    name: str
    title: str
    caption: str
    shown: pd.DataFrame
    raw: pd.DataFrame
    labels: tuple[str, ...] = ()


def said_once(made: Iterable[Table]) -> list[Table]:
    """Tables that are read one after the other, each without the sentences that are in the caption before it."""
    said: set[str] = set()
    found = []
    for table in made:
        sentences = table.caption.rstrip(".").split(". ")
        caption = ". ".join(each for each in sentences if each not in said)
        found.append(replace(table, caption=f"{caption}." if caption else ""))
        said = set(sentences)
    return found


def number(value: float | None, digits: int = 4) -> str:
    """Return `value` with that many significant digits (all of them, if it has more before the point)."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= power < 9:
        return f"{value:.{max(digits - 1 - power, 0)}f}"
    return f"{value:.{digits - 1}e}"


def at_most(value: float, digits: int = 2) -> str:
    """Return `value` with that many significant digits, rounded up: what is said to be within it, is."""
    if not math.isfinite(value) or value <= 0:
        return number(value, digits)
    return number(float(Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(value))), digits)


def listed(parts: Sequence[str]) -> str:
    """Return the parts as a list in a sentence: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def spread(middle: float | None, low: float | None, high: float | None, digits: int = 4) -> str:
    """Return "middle [low–high]", or the middle alone where there is no more to say."""
    text = number(middle, digits)
    ends = number(low, digits), number(high, digits)
    if MISSING in (text, *ends) or ends == (text, text):
        return text
    return f"{text} [{' to '.join(ends)}]" if ends[0].startswith("-") else f"{text} [{'–'.join(ends)}]"


def render(tables: Sequence[Table] | Table, format: str, width: int = WIDTH) -> str:
    """Return the tables, one after the other, as "text", "markdown", "csv" or "latex".

    Text is folded to `width` columns where it can be.

    Raises:
        BenchError: any other format.
    """
    tables = [tables] if isinstance(tables, Table) else tables
    match format:
        case "text":
            return "\n\n".join(_text(table, width) for table in tables)
        case "markdown":
            return "\n".join(_markdown(table) for table in tables)
        case "csv":
            if len(tables) == 1:
                return to_csv(tables[0].raw)
            return "\n".join(f"# {table.title}\n{to_csv(table.raw)}" for table in tables)
        case "latex":
            return "\n".join(_latex(table) for table in tables)
    raise BenchError(f"format {format!r}: expected one of {', '.join(SUFFIXES)}")


def to_csv(data: pd.DataFrame) -> str:
    """Return `data` as CSV, numbers as the shortest text that reads back as the same number."""
    return data.to_csv(index=False, lineterminator="\n")


def _text(table: Table, width: int) -> str:
    """Return a table as plain text; one that is wider than so many columns in several parts."""
    names = [str(name) for name in table.shown]
    parts, rest = [], [name for name in names if name not in table.labels]
    while True:
        kept = names
        while max(map(len, (part := _plain(table, kept)).splitlines())) > width and len(kept) > len(table.labels) + 1:
            kept = kept[:-1]
        parts.append(part)
        rest = [name for name in rest if name not in kept]
        if not rest:
            break
        names = [*(name for name in table.labels if name != "status"), *rest]
    body = "\n\n".join(parts)
    return f"{table.title}\n\n{body}\n\n{textwrap.fill(table.caption, width)}\n"


def _plain(table: Table, names: list[str]) -> str:
    """Return these columns as plain text, long headings and long cells (reasons) on several lines."""
    headings = [textwrap.fill(name, 11, break_long_words=False, break_on_hyphens=False) for name in names]
    return _tabulated(
        table.shown[names], headings, "simple", lambda cell: textwrap.fill(cell, 32, break_long_words=False)
    )


def _markdown(table: Table) -> str:
    """Return a table as Markdown, with its title as a heading."""
    headings = [str(name).replace("|", r"\|") for name in table.shown]
    body = _tabulated(table.shown, headings, "pipe", lambda cell: cell.replace("|", r"\|").replace("<", "&lt;"))
    return f"### {table.title}\n\n{body}\n\n{table.caption.replace('<', '&lt;')}\n"


def _latex(table: Table) -> str:
    """Return a table as a LaTeX table with caption and label."""
    headings = [str(name).translate(LATEX) for name in table.shown]
    body = _tabulated(table.shown, headings, "latex_raw", lambda cell: cell.translate(LATEX))
    caption = f"{table.title}. {table.caption}".translate(LATEX)
    label = re.sub(r"[^a-z0-9-]", "-", table.name)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n{body}\n\\end{{table}}\n"


def _tabulated(shown: pd.DataFrame, headings: list[str], style: str, escape: Callable[[str], str]) -> str:
    """Return the cells in one of tabulate's styles: numbers to the right, words to the left, each cell in one line."""
    numeric = [all(cell == MISSING or re.match(r"-?\d", cell) for cell in shown[name]) for name in shown]
    cells = shown.map(lambda cell: escape(" ".join(cell.split()))).values.tolist()
    sides = ["right" if right else "left" for right in numeric]
    return tabulate(cells, headings, tablefmt=style, disable_numparse=True, colalign=sides)
