"""Render: tables as text, Markdown, CSV and LaTeX, and numbers as people read them.

Rounding happens here and nowhere else. CSV carries the numbers unrounded; the other formats carry what is shown.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

import pandas as pd
from tabulate import tabulate

from bench.errors import BenchError

MISSING = "–"
WIDTH = 120

SUFFIXES = {"text": "txt", "markdown": "md", "csv": "csv", "latex": "tex"}
"""The formats of `render`, and their files' suffixes."""

LATEX = {
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
        while _width(part := _plain(table, kept)) > width and len(kept) > len(table.labels) + 1:
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
    shown = table.shown[names].map(_one_line)
    headings = [textwrap.fill(name, 11, break_long_words=False, break_on_hyphens=False) for name in names]
    cells = shown.map(lambda cell: textwrap.fill(cell, 32, break_long_words=False))
    return tabulate(cells.values.tolist(), headings, tablefmt="simple", **_alignment(shown))


def _width(text: str) -> int:
    """Return the length of the longest line."""
    return max(map(len, text.splitlines()))


def _markdown(table: Table) -> str:
    """Return a table as Markdown, with its title as a heading."""
    cells = table.shown.map(lambda cell: _one_line(cell).replace("|", r"\|").replace("<", "&lt;"))
    headings = [name.replace("|", r"\|") for name in cells.columns]
    body = tabulate(cells.values.tolist(), headings, tablefmt="pipe", **_alignment(table.shown))
    return f"### {table.title}\n\n{body}\n\n{table.caption.replace('<', '&lt;')}\n"


def _latex(table: Table) -> str:
    """Return a table as a LaTeX table with caption and label."""
    cells = table.shown.map(lambda cell: _escape(_one_line(cell)))
    headings = [_escape(name) for name in cells.columns]
    body = tabulate(cells.values.tolist(), headings, tablefmt="latex_raw", **_alignment(table.shown))
    caption = _escape(f"{table.title}. {table.caption}")
    label = re.sub(r"[^a-z0-9-]", "-", table.name)
    return f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n{body}\n\\end{{table}}\n"


def _alignment(shown: pd.DataFrame) -> dict[str, Any]:
    """Return options of `tabulate`: numbers to the right, words to the left, and no parsing of numbers."""
    numeric = [_is_numeric(shown[name]) for name in shown.columns]
    return {"disable_numparse": True, "colalign": ["right" if right else "left" for right in numeric]}


def _is_numeric(column: pd.Series) -> bool:
    """Return whether every cell begins as a number or is missing."""
    return all(cell == MISSING or bool(re.match(r"-?\d", cell)) for cell in column)


def _one_line(cell: str) -> str:
    """Return a cell with single spaces in place of line breaks and tabs."""
    return " ".join(cell.split())


def _escape(text: str) -> str:
    """Return `text` as LaTeX sets it."""
    return "".join(LATEX.get(sign, sign) for sign in text)
