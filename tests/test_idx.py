"""IDX files known by their digest: that file comes back exactly, and nothing else does."""

import gzip
import hashlib
import re

import numpy as np
import pytest
from mnist_factories import encode

from bench.inputs.download import DataError, IdxFile

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
FILE = IdxFile("train-images", IMAGES.shape, hashlib.sha256(encode(IMAGES)).hexdigest())


def test_the_content_is_what_stands_behind_the_header():
    for array in (IMAGES, np.array([7, 0, 9], np.uint8)):
        found = IdxFile("x", array.shape, "").content(encode(array))
        np.testing.assert_array_equal(found, array, strict=True)
        assert not found.flags.writeable


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
    with pytest.raises(DataError, match=message.format(sha=FILE.sha256)) as caught:
        FILE.unpack(content, where="here/it.gz", remedy="mend it")
    assert re.fullmatch(r"here/it\.gz: .*; mend it", str(caught.value))
