"""Revisions: the records that git revisions hold, without touching the checkout."""

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.records import Record, RecordError
from bench.records.collection import load_all
from bench.records.fields import printable

FOLDER = "results"


@dataclass(frozen=True)
class Side:
    """One side of a comparison, or what a commit or run added to a history, then with its date and a commit's subject.

    `note` is what has to be said about where the records come from.
    """

    name: str
    records: list[Record]
    note: str | None = None
    date: str = ""
    subject: str = ""


def read_history(names: Sequence[str], folder: str = FOLDER) -> list[Side]:
    """Read what each run in folders, or each commit of git revisions (as `git log` takes them), added, oldest first.

    A record counts at the commit that added it, as the last one has it; `folder` is that of the records in a commit.

    Raises:
        BenchError: a name that is neither a folder nor a revision, or no commit that touches records.
    """
    if any(Path(name).exists() for name in names):
        sides = [read(name) for name in names]
        note = "; ".join(side.note for side in sides if side.note) or None
        return by_run((record for side in sides for record in side.records), note)
    where, form = f":(top,glob){folder.strip('/')}/**/*.json", "--format=%H%x09%h%x09%cs%x09%s"
    log = _git("log", "--reverse", "--topo-order", form, "--end-of-options", *(names or ["HEAD"]), "--", where)
    if not log:
        raise BenchError(f"{' '.join(names) or 'HEAD'}: no folder, and no git revisions that touch records in {folder}")
    commits = [line.split("\t", 3) for line in printable(log.decode(errors="replace")).splitlines()]
    added: dict[tuple[str, str], tuple[str, Record]] = {}
    notes = {}
    for commit, name, *_ in commits:
        try:
            side = read(f"{commit}:{folder}")
        except BenchError as error:  # there are none in this one
            side = Side(name, [], str(error))
        notes[commit] = side.note
        for record in side.records:
            key = record.run, record.plan.model_dump_json()
            added[key] = (added[key][0] if key in added else commit, record)
    found = [
        Side(name, [record for at, record in added.values() if at == commit], notes[commit], date, subject)
        for commit, name, date, subject in commits
    ]
    return [side for side in found if side.records or side.note]


def by_run(records: Iterable[Record], note: str | None = None) -> list[Side]:
    """The records of each run, oldest first."""
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.created):
        runs.setdefault(record.run, []).append(record)
    return [Side(run, its, note, its[0].created[:10]) for run, its in runs.items()]


def read(name: str, *, strict: bool = False) -> Side:
    """Read the records of a file, of a folder, or of a git revision's `results/` (REVISION:FOLDER: another folder).

    A name that is a path and a revision too is taken for the path, and `note` says so.

    Records that can't be read are left out, and `note` says so; `strict` refuses them.

    Raises:
        BenchError: a name that is neither, or no records that can be read.
    """
    if Path(name).exists():
        revision = _commit(name)
        note = f"{name!r} is a path and a git revision; the path is taken ({name}:{FOLDER} is the revision's)"
        return _read(name, Path(name), note if revision else None, strict)
    revision, colon, folder = name.partition(":")
    folder = folder.strip("/") if colon else FOLDER
    commit = _commit(revision)
    if commit is None:
        where = "a git revision" if _git("rev-parse", "--git-dir") else "a git revision (this is no git repository)"
        raise BenchError(f"{name}: neither a file or folder nor {where}")
    return _archived(revision, commit, folder, strict)


def _read(name: str, path: Path, note: str | None, strict: bool, renamed: tuple[str, str] = ("", "")) -> Side:
    """Read the records at `path`; in errors the first of `renamed` is replaced by the second."""
    skipped: list[RecordError] = []
    found = load_all(path, skipped)
    problems = [str(error).replace(*renamed) for error in skipped]
    if not found or (strict and problems):
        raise BenchError(problems[0] if problems else f"{name}: no records")
    notes = [*([note] if note else []), *(f"left out: {problem}" for problem in problems)]
    return Side(name, found, "; ".join(notes) or None)


def _commit(name: str) -> str | None:
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return found.decode().strip() if found else None


def _archived(revision: str, commit: str, folder: str, strict: bool) -> Side:
    top = (_git("rev-parse", "--show-toplevel") or b".").decode().strip()
    archive = _git("-C", top, "archive", "--format=tar", commit, "--", folder)
    if archive is None:
        raise BenchError(f"{revision}:{folder}: no such folder in this revision")
    with tempfile.TemporaryDirectory(prefix="nice-bench-") as temporary:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(temporary, filter="data")
        name = f"{revision} ({commit[:8]})"
        return _read(name, Path(temporary, folder), None, strict, (f"{temporary}{os.sep}", f"{revision}:"))


def _git(*arguments: str) -> bytes | None:
    """What git says, None if it fails or is missing."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
