"""IDX, the format MNIST comes in: strict decoding, encoding, and telling a known file by its SHA-256.

A file is four bytes of magic (0, 0, element type, number of dimensions), the dimensions as big-endian 32-bit
integers, then the elements in C order. Only the two kinds that MNIST uses are accepted: unsigned bytes in one
dimension (labels) and in three (images). Anything else about a file that is not as it should be is an error that
says what was found and what was expected: a benchmark on data that are nearly MNIST is worth nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


class DataError(BenchError):
    """A data set that can't be read or fetched, or isn't the expected one."""


class IdxError(DataError):
    """Bytes that are not the IDX file that was expected."""


@dataclass(frozen=True)
class IdxFile:
    """One IDX file known by its content: canonical name, shape of the array, SHA-256 (hex) of the raw file."""

    name: str
    shape: tuple[int, ...]
    sha256: str

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
            IdxError: a corrupt gzip stream, or a wrong SHA-256.
        """
        ending = f"; {remedy}" if remedy else ""
        try:
            # Told by content, not by name: browsers and servers gunzip files and leave them their .gz.
            # One byte more than expected shows that a stream is too long without unpacking all of it.
            raw = content if not content.startswith(_GZIP_MAGIC) else _gunzip(content, limit=self.size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise IdxError(f"{where}: corrupt gzip stream ({error}){ending}") from error
        if len(raw) > self.size:
            found = f"more than {self.size} bytes"
        else:
            found = f"SHA-256 {hashlib.sha256(raw).hexdigest()} ({len(raw)} bytes)"
            if found == f"SHA-256 {self.sha256} ({self.size} bytes)":
                return raw
        expected = f"SHA-256 {self.sha256} ({self.size} bytes)"
        raise IdxError(f"{where}: found {found}, expected {expected} after decompression{ending}")


def _gunzip(content: bytes, *, limit: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        return stream.read(limit)


def decode(raw: bytes, *, name: str) -> np.ndarray:
    """Decode a raw (not gzipped) IDX file of unsigned bytes; `name` names it in errors.

    Returns a read-only uint8 array that shares memory with `raw`: labels [N] or images [N, rows, columns].

    Raises:
        IdxError: a wrong magic, element type, number of dimensions, dimension or length.
    """
    if len(raw) < 4:
        raise IdxError(f"{name}: {len(raw)} bytes, too short for the 4 bytes of an IDX magic")
    magic, element, count = int.from_bytes(raw[:4], "big"), raw[2], raw[3]
    if raw[:2] != b"\0\0" or element != _UNSIGNED_BYTE:
        raise IdxError(f"{name}: magic 0x{magic:08x}, expected 0x00000801 (labels) or 0x00000803 (images)")
    if count not in (1, 3):
        raise IdxError(f"{name}: {count} dimensions (magic 0x{magic:08x}), expected 1 (labels) or 3 (images)")
    header = 4 + 4 * count
    if len(raw) < header:
        raise IdxError(f"{name}: {len(raw)} bytes, too short for its header of {header} bytes")
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4))
    if 0 in shape:
        raise IdxError(f"{name}: dimensions {shape}, expected each to be at least 1")
    expected = header + math.prod(shape)
    if len(raw) != expected:
        verdict = "truncated" if len(raw) < expected else "trailing bytes"
        raise IdxError(f"{name}: {len(raw)} bytes, expected {expected} for dimensions {shape} ({verdict})")
    array = np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
    array.setflags(write=False)
    return array


def encode(array: np.ndarray) -> bytes:
    """Encode a uint8 array, labels [N] or images [N, rows, columns], as a raw IDX file.

    Raises:
        IdxError: another dtype, another number of dimensions, or an empty array.
    """
    if array.dtype != np.uint8 or array.ndim not in (1, 3) or 0 in array.shape:
        raise IdxError(
            f"can't encode {array.dtype} {array.shape} as IDX: expected non-empty uint8 in 1 or 3 dimensions"
        )
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + sizes + array.tobytes()
