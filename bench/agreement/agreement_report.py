"""The agreement suite's checks as one compressed CSV file, and that file as the tables that people read.

The file is the record: a row a check, with its tolerance, headed by comment lines that say where it was made. The
tables are made from it alone.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

import backends
from bench.agreement.agree import Check, Setting
from bench.errors import BenchError, writing
from bench.records import MOST_BYTES, environment
from bench.records.fields import printable
from bench.tables.render import MISSING, Table, number, render

FILE = "checks.csv.gz"
MEMBER = 2**15
"""Characters, about, that are compressed together."""

IN_BRIEF = (
    "test, x-z-x: max, grey levels",
    "test, x-z-x × 9: max, grey levels",
    "100 times out of range, x-z-x: max, grey levels",
    "test, x-z-x: change of log p, nats",
)
"""The round trips that a terminal is shown."""

TEXTS, FIGURES = ("suite", "case", "backend", "precision", "weights", "quantity"), ("step", "error", "rms", "tolerance")
COLUMNS = [*TEXTS, *FIGURES, "passed"]
TYPES = dict.fromkeys(TEXTS, "str") | dict.fromkeys(FIGURES, "float") | {"passed": "bool"}


def frame(checks: Iterable[Check]) -> pd.DataFrame:
    """A row a check; `step` is empty except where a check was looked at step by step."""
    rows = [{**asdict(check), "passed": check.passed} for check in checks]
    return pd.DataFrame(rows, columns=COLUMNS)


class ChecksFile:
    """The file of checks as it grows: after every check it is whole and in its place.

    Its parts are gzip members of their own, since it would take too long to compress all of it after each check.
    """

    def __init__(self, setting: Setting, device: str, folder: Path) -> None:
        """Write a file without checks, headed by machine, versions and setting.

        Raises:
            BenchError: it can't be written.
        """
        self._path, self._closed = folder / FILE, b""
        self._open = "".join(f"# {line}\n" for line in _head(setting, device)) + _lines(frame([]), header=True)
        self._write()

    def add(self, check: Check) -> None:
        """Write one more check.

        Raises:
            BenchError: it can't be written; the checks before stay.
        """
        self._open += _lines(frame([check]))
        self._write()

    def _write(self) -> None:
        content = self._closed + gzip.compress(self._open.encode(), mtime=0)
        with writing(self._path) as temporary:
            temporary.write_bytes(content)
        if len(self._open) > MEMBER:
            self._closed, self._open = content, ""


def _lines(data: pd.DataFrame, *, header: bool = False) -> str:
    return data.to_csv(index=False, header=header, lineterminator="\n", float_format="%.4g")


def _head(setting: Setting, device: str) -> tuple[str, ...]:
    """Machine, versions and setting, a line each."""
    fingerprint = environment.fingerprint()
    versions = [f"{n} {v}" for b in backends.REGISTRY for n, v in _versions(b).items()]
    article, git = setting.architectures["article"], fingerprint["git"] or {}
    units = article.hidden_units
    return (
        f"machine: {environment.machine(device, fingerprint)}; Python {fingerprint['python']}; {', '.join(versions)}",
        f"commit: {git.get('commit', 'unknown')}{' with changes' if git.get('dirty') else ''}",
        f"size: {article.dim} dimensions, {article.couplings} couplings of {article.hidden_layers} layers of {units}",
        f"lockstep: {setting.steps} steps, batch {setting.batch}, seed {setting.seed}",
    )


def load(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read what `ChecksFile` wrote: the checks, and the lines of its head."""
    path = folder / FILE
    if not path.is_file():
        raise BenchError(f"{path}: no such file; `nice-bench agree --output {folder}` makes it")
    try:
        with gzip.open(path) as file:
            text = printable(file.read(MOST_BYTES).decode())
        lines = text.splitlines(keepends=True)
        rows = io.StringIO("".join(line for line in lines if not line.startswith("#")))
        data = pd.read_csv(rows, dtype=TYPES)[COLUMNS]
        if empty := [name for name in TEXTS if name != "weights" and data[name].isna().any()]:  # trainings have none
            raise ValueError(f"a row has no {empty[0]}")
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path}: not the checks that `nice-bench agree` writes: {reason}") from error
    if len(text) >= MOST_BYTES:
        raise BenchError(f"{path}: more than {MOST_BYTES >> 20} MiB, which no checks have")
    return data, [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]


def tables(data: pd.DataFrame, head: Sequence[str], *, brief: bool = False) -> list[Table]:
    """The matrix, the porting of parameters, lockstep, resume and sampling."""
    caption = " ".join(f"{line[0].upper()}{line[1:]}." for line in head)
    matrix = data[(data["suite"] == "matrix") & (data["quantity"] != "parameters")]
    made = [
        _ported(data[(data["suite"] == "matrix") & (data["quantity"] == "parameters")], caption),
        _by_backend("agreement-matrix", "Weights ported: errors against the float64 reference", matrix, caption, brief),
    ]
    for suite, title in (
        ("lockstep", "Training in lockstep with the float64 reference"),
        ("resume", "Training resumed by another backend"),
        ("sampling", "Moments of samples, in standard errors"),
        ("determinism", "The same training again: largest difference of final weights, 0 where every bit is the same"),
        ("invertibility", "Round trips; tolerance: six times what roundoff predicts"),
    ):
        rows = data[data["suite"] == suite]
        if brief and suite == "invertibility":
            rows = rows[rows["quantity"].isin(IN_BRIEF)]
        made.append(_by_backend(f"agreement-{suite}", title, rows, caption, brief=False))
    return [table for table in made if not table.raw.empty]


def write(data: pd.DataFrame, head: Sequence[str], folder: Path) -> list[Path]:
    """Write every table as Markdown."""
    made = []
    for table in tables(data, head):
        made.append(folder / f"{table.name}.md")
        with writing(made[-1]) as temporary:
            temporary.write_text(render(table, "markdown"), encoding="utf-8")
    return made


def _by_backend(name: str, title: str, data: pd.DataFrame, caption: str, brief: bool) -> Table:
    """A column a backend, each with the largest error; a breach is marked. Brief: the worst case stands for all."""
    data = data[data["step"].isna()]
    keys = ["precision", "quantity"] if brief else ["precision", "case", "weights", "quantity"]
    raw, shown = [], []
    for key, rows in data.fillna({"weights": ""}).groupby(keys, sort=False):
        # Of several cases, the one that comes nearest to its own tolerance.
        share = rows["error"] / rows["tolerance"].replace(np.inf, np.nan)
        share = share.where(rows["error"].notna(), np.inf)  # no number is worse than any
        labels: dict[str, Any] = dict(zip(keys, cast("tuple", key), strict=True))
        figures: dict[str, float] = {}
        cells: dict[str, str] = {}
        for name_, its in rows.groupby("backend", sort=False):
            backend, shares = str(name_), share[its.index]
            worst: Any = its.loc[cast("int", shares.idxmax() if shares.notna().any() else its["error"].idxmax())]
            figures[backend] = worst["error"]
            cells[backend] = number(worst["error"], 2) + ("" if its["passed"].all() else " FAILED")
        tolerance = rows["tolerance"].min()
        raw.append({**labels, "tolerance": tolerance, **figures})
        shown.append({**labels, "tolerance": number(tolerance, 2) if np.isfinite(tolerance) else "none", **cells})
    caption = (
        f"{caption} Largest error, relative to the terms that the reference adds up; "
        f"tolerances: bench/measures/rounding.py."
    )
    if brief:
        caption += " Over all architectures and weights, the worst; the smallest of their tolerances."
    columns = pd.DataFrame(shown).fillna("–")
    columns = columns.drop(columns=[c for c in columns if (columns[c] == "").all()])
    return Table(name, title, caption, columns, pd.DataFrame(raw), tuple(key for key in keys if key in columns))


def _ported(data: pd.DataFrame, caption: str) -> Table:
    """From each backend (rows) to each (columns): how many sets of parameters came through bit for bit."""
    pairs = data["backend"].str.split(" → ", expand=True)
    if data.empty:
        return Table("agreement-porting", "Parameters ported", caption, data, data)
    counted = data.assign(source=pairs[0], target=pairs[1]).groupby(["source", "target"], sort=False)["passed"]
    good, total = counted.sum(), counted.count()
    names = list(dict.fromkeys(pairs[0]))
    cells = {pair: f"{good[pair]} of {total[pair]}" for pair in total.index}
    shown = pd.DataFrame([{"from": a} | {f"to {b}": cells.get((a, b), MISSING) for b in names} for a in names])
    share = (good / total).to_dict()
    raw = pd.DataFrame([{"from": a} | {f"to {b}": share.get((a, b)) for b in names} for a in names])
    caption += " Sets of parameters (architectures, initial and trained, float64 and float32) equal bit for bit."
    return Table("agreement-porting", "Parameters ported", caption, shown, raw, ("from",))


def _versions(backend: str) -> dict[str, str]:
    try:
        return backends.backend_class(backend).versions()
    except backends.UnavailableError:
        return {}
