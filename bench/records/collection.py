"""Collection: the records in any files and folders, whatever else lies there.

A record is read as it is, and what pytest-benchmark saved of the micro-benchmarks becomes records. The captions of
pictures and the references of `nice-bench check` are JSON too, and no records: below a folder they are passed over.
"""

import fnmatch
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from bench import records
from bench.records import Record, RecordError, micro


def load_all(paths: str | Path | Iterable[str | Path], skipped: list[RecordError] | None = None) -> list[Record]:
    """Read all records in files and folders (every *.json below), in the order of their paths, each file once.

    With a list `skipped`, the error of a file that is no valid record goes there, and the others are read.

    Below a folder, subfolders are left out that hold what is not meant to be kept (`runs`), or what a run that was cut
    off has left (hidden ones).
    Name such a folder, or one inside it, to read it.

    Raises:
        RecordError: a path does not exist, or a file is neither a record nor what may lie beside records.
    """
    named = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    files: dict[Path, Path] = {}
    for path in named:
        if not path.exists():
            raise RecordError(f"{path}: no such file or folder")
        for file in files_below(path, "*.json") if path.is_dir() else [path]:
            files.setdefault(file.resolve(), file)
    found: list[Record] = []
    for file in files.values():
        try:
            found += _records_of(file, named=file in named)
        except RecordError as error:
            if skipped is None:
                raise
            skipped.append(error)
    return found


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the files of that name below `folder`, sorted, but for those in subfolders that `load_all` leaves out.

    Hidden files are left out too: a process that was killed while it wrote one leaves it beside what it would become.

    Raises RecordError for a folder that can't be read.
    """
    # Seen from where we stand: a checkout that itself lies somewhere below a folder called runs is none of these.
    named = _kinds(Path(os.path.relpath(folder)).parts)
    files = []
    for parent, _, names in os.walk(folder, onerror=_refuse):
        if _kinds(Path(parent).relative_to(folder).parts) <= named:
            files += [Path(parent, name) for name in fnmatch.filter(names, pattern) if not name.startswith(".")]
    return sorted(file for file in files if file.is_file())


def _refuse(error: OSError) -> NoReturn:
    """Name a folder that can't be listed."""
    raise RecordError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _kinds(folders: Iterable[str]) -> set[str]:
    """Return which kinds of folders that are left out are among these."""
    patterns = {"runs": r"runs", "hidden": r"\.(?!\.$).+"}
    return {kind for kind, pattern in patterns.items() if any(re.fullmatch(pattern, name) for name in folders)}


def _records_of(path: Path, *, named: bool) -> list[Record]:
    """Return the records in one file; `named` files must have some."""
    text, data = records.parsed(path)
    if other := _no_record(path, data):
        if named:
            raise RecordError(f"{path}: not a record, but {other}")
        return []
    by_pytest_benchmark = isinstance(data, dict) and {"benchmarks", "machine_info"} <= data.keys()
    return micro.records_of(path, data) if by_pytest_benchmark else [records.validated(path, text, data)]


def _no_record(path: Path, data: Any) -> str | None:
    """Return what a file is that may lie beside records, or None."""
    if not isinstance(data, dict):
        return None
    if data.get("kind") == "reference":
        return "a reference of `nice-bench check`"
    captioned = "schema_version" not in data and path.with_suffix(".png").exists()
    return "the caption of a picture" if captioned else None
