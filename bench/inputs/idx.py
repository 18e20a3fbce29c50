"""IDX, the format MNIST comes in: files that are known by their SHA-256, and the arrays in them.

A file is four bytes of magic (0, 0, element type, number of dimensions), the dimensions as big-endian 32-bit
integers, then the elements in C order. What a file holds is settled by its digest alone, so its header isn't read: a
benchmark on data that are nearly MNIST is worth nothing.
"""

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

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
