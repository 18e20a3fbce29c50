"""The patches, and planting one of them in a copy of the sources."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

PATCHES = Path(__file__).parent
TESTS = PATCHES.parent
ROOT = TESTS.parent
SOURCES = ("backends", "bench")
MOST_SECONDS = 1800


@dataclass(frozen=True)
class Fault:
    """One patch: its file, its description, and what the lines below that say (see the package)."""

    path: Path
    description: str
    mode: str | None = None
    device: str | None = None
    devices: str = "1"
    verdict: str = "regression"

    @property
    def name(self) -> str:
        """What the fault is called, in every backend that can have it."""
        return self.path.stem

    @property
    def backend(self) -> str:
        """The backend whose sources the patch changes."""
        return self.path.parent.name

    def __str__(self) -> str:
        return f"{self.name} in {self.backend}" + (f" on {self.devices} devices" if self.devices != "1" else "")


def read(path: Path) -> Fault:
    """Read a patch file's description and settings.

    Raises:
        BenchError: a line is neither the description nor a setting.
    """
    try:
        description, *lines = path.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        return Fault(path, description, **dict(line.split(": ") for line in lines))
    except (TypeError, ValueError) as error:
        expected = "a sentence, lines as `mode: NAME`, an empty line and a diff"
        raise BenchError(f"{path}: expected {expected} ({error})") from error


def faults_of(suite: str) -> list[Fault]:
    """The faults that a suite must find, by backend and name."""
    return [read(path) for path in sorted((PATCHES / suite).glob("*/*.patch"))]


def apply(fault: Fault, tree: Path, *options: str) -> None:
    """Call `git apply` in a folder that holds the sources.

    Raises:
        BenchError: the patch does not apply; the message has its name and what git said.
    """
    # Neither a repository that the folder happens to lie in nor anyone's settings may change what git does.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", "apply", "-p1", "--whitespace=nowarn", *options, str(fault.path.resolve())]
    done = subprocess.run(command, cwd=tree.resolve(), env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{fault.path}: the patch does not apply: {done.stderr.strip()}")


@contextmanager
def planted(fault: Fault) -> Iterator[Path]:
    """A temporary copy of the sources with the fault in it.

    Raises:
        BenchError: as `apply`.
    """
    with tempfile.TemporaryDirectory(prefix="nice-bench-") as folder:
        tree = Path(folder).resolve()
        for part in SOURCES:
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        apply(fault, tree)
        yield tree


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the sources in `tree` in place of those of this checkout."""
    paths = [str(tree), str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if data := os.environ.get("NICE_BENCH_DATA"):
        environment["NICE_BENCH_DATA"] = str(Path(data).resolve())
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=MOST_SECONDS)
