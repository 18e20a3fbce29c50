"""The IDX decoder: what is right comes back exactly, and each way of being wrong is its own error."""

import gzip
import hashlib
import re

import numpy as np
import pytest

from bench.errors import BenchError
from bench.inputs.idx import IdxError, IdxFile, decode, encode

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([7, 0, 9], dtype=np.uint8)
FILE = IdxFile("train-images-idx3-ubyte", IMAGES.shape, hashlib.sha256(encode(IMAGES)).hexdigest())


def test_bytes_are_laid_out_as_the_format_says():
    assert encode(LABELS) == bytes.fromhex("00000801 00000003 070009")
    assert encode(IMAGES)[:16] == bytes.fromhex("00000803 00000002 00000003 00000004")
    assert encode(IMAGES)[16:] == bytes(range(24))


@pytest.mark.parametrize("array", [IMAGES, LABELS, IMAGES.transpose(2, 0, 1), np.zeros(70_000, np.uint8)])
def test_round_trip(array):
    decoded = decode(encode(array), name="x")
    assert decoded.dtype == np.uint8
    assert not decoded.flags.writeable
    np.testing.assert_array_equal(decoded, array, strict=True)


def header(magic, *sizes):
    return b"".join(number.to_bytes(4, "big") for number in (magic, *sizes))


@pytest.mark.parametrize(
    ("raw", "found", "expected"),
    [
        pytest.param(b"", "0 bytes", "4 bytes", id="empty"),
        pytest.param(b"\0\0\x08", "3 bytes", "4 bytes", id="magic cut off"),
        pytest.param(header(0x0801)[:4] + b"\0\0\0", "7 bytes", "8 bytes", id="label header cut off"),
        pytest.param(header(0x0803, 2, 3), "12 bytes", "16 bytes", id="image header cut off"),
        pytest.param(b"\1" + encode(LABELS)[1:], "0x01000801", "0x00000801", id="wrong magic"),
        pytest.param(b"\0\1" + encode(LABELS)[2:], "0x00010801", "0x00000801", id="wrong second byte"),
        pytest.param(header(0x0D01, 3) + bytes(3), "0x00000d01", "0x00000803", id="another element type"),
        pytest.param(encode(LABELS)[:4][::-1] + encode(LABELS)[4:], "0x01080000", "0x00000801", id="little-endian"),
        pytest.param(gzip.compress(encode(LABELS)), "0x1f8b0800", "0x00000801", id="still gzipped"),
        pytest.param(header(0x0802, 2, 2) + bytes(4), "2 dimensions", "expected 1 (labels) or 3", id="two dimensions"),
        pytest.param(header(0x0800) + bytes(1), "0 dimensions", "expected 1 (labels) or 3", id="no dimensions"),
        pytest.param(header(0x0803, 0, 3, 4), "(0, 3, 4)", "at least 1", id="a dimension of 0"),
        pytest.param(header(0x0801, 4) + bytes(3), "11 bytes", "expected 12", id="dimension too large"),
        pytest.param(header(0x0801, 2) + bytes(3), "11 bytes", "expected 10", id="dimension too small"),
        pytest.param(header(0x0803, *[2**32 - 1] * 3), "16 bytes", str(16 + (2**32 - 1) ** 3), id="huge dimensions"),
        pytest.param(encode(IMAGES)[:-1], "39 bytes", "expected 40", id="truncated by a byte"),
        pytest.param(encode(IMAGES) + b"\0", "41 bytes", "expected 40", id="a trailing byte"),
    ],
)
def test_what_is_wrong_is_named(raw, found, expected):
    with pytest.raises(IdxError) as caught:
        decode(raw, name="some-file")
    message = str(caught.value)
    assert message.startswith("some-file: ")
    assert found in message
    assert expected in message
    assert "\n" not in message
    assert isinstance(caught.value, BenchError)


@pytest.mark.parametrize("array", [LABELS.astype(np.int64), IMAGES[0], np.uint8(3), np.zeros((0, 2, 2), np.uint8)])
def test_encode_refuses_what_decode_would(array):
    with pytest.raises(IdxError, match="expected non-empty uint8"):
        encode(np.asarray(array))


def test_a_known_file_knows_its_size_and_spellings():
    assert FILE.size == len(encode(IMAGES))
    assert FILE.spellings == (
        "train-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte",
        "train-images.idx3-ubyte.gz",
        "train-images.idx3-ubyte",
    )


@pytest.mark.parametrize("content", [encode(IMAGES), gzip.compress(encode(IMAGES))], ids=["raw", "gzipped"])
def test_unpack_returns_the_raw_file(content):
    assert FILE.unpack(content, where="x") == encode(IMAGES)


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


PACKED = gzip.compress(encode(IMAGES), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            flip(encode(IMAGES), 20), r"found SHA-256 (?!{sha})\w+ \(40 bytes\), expected SHA-256 {sha}", id="raw"
        ),
        pytest.param(gzip.compress(flip(encode(IMAGES), 20)), r"found SHA-256 .* expected SHA-256 {sha}", id="gzipped"),
        pytest.param(encode(IMAGES)[:-1], r"\(39 bytes\), expected SHA-256 {sha} \(40 bytes\)", id="truncated"),
        pytest.param(gzip.compress(bytes(10**7))[:-8], r"more than 40 bytes, expected SHA-256 {sha}", id="gzip bomb"),
        pytest.param(PACKED[:-9], "corrupt gzip stream", id="gzip cut off"),
        pytest.param(flip(PACKED, len(PACKED) - 8), "corrupt gzip stream .*CRC", id="gzip checksum"),
        pytest.param(PACKED[:10] + b"\xff" * 20, "corrupt gzip stream", id="gzip garbage"),
        pytest.param(PACKED + b"junk", "corrupt gzip stream", id="gzip with a tail"),
        pytest.param(b"", r"\(0 bytes\), expected SHA-256 {sha}", id="empty"),
    ],
)
def test_unpack_takes_nothing_else(content, message):
    with pytest.raises(IdxError, match=message.format(sha=FILE.sha256)) as caught:
        FILE.unpack(content, where="here/it.gz", remedy="mend it")
    assert re.fullmatch(r"here/it\.gz: .*; mend it", str(caught.value))
