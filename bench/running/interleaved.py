"""Two checkouts of this program in one run: their workers alternate, so that a drift of the machine hits both alike.

In a round each backend has a process of either checkout, one right after the other; which is first changes from round
to round (A B, B A, A B, …), so that a steady drift cancels over an even number of rounds.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.errors import BenchError
from bench.inputs import data
from bench.records import Record, environment
from bench.running.runner import Request, epochs_by_round, trainings
from bench.running.variant import Listener, carry_out, new_run_id, scratch

WORKER = "bench.running.worker"
START = f"import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module({WORKER!r}, None, '__main__', True)"


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """A folder that is a checkout, or one that is made of a git revision of this repository and removed at the end.

    Raises:
        BenchError: it is neither, or holds no worker of this program.
    """
    if Path(name).is_dir():
        yield _with_worker(name, Path(name).resolve())
        return
    commit = _git(name, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    top = _git(name, "rev-parse", "--show-toplevel")
    with tempfile.TemporaryDirectory(prefix="nice-bench-") as temporary:
        tree = Path(temporary).resolve() / "checkout"
        _git(name, "-C", top, "worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield _with_worker(name, tree)
        finally:
            _git(name, "-C", top, "worktree", "remove", "--force", str(tree))


def _with_worker(name: str, tree: Path) -> Path:
    path = Path(*WORKER.split(".")).with_suffix(".py")
    if not (tree / path).is_file():
        raise BenchError(f"{name}: no checkout of nice-bench: it has no {path}")
    return tree


def _git(name: str, *arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or "").strip().splitlines()
        reason = f" ({said[-1]})" if said else ""
        raise BenchError(f"{name}: neither a folder nor a revision that git can check out here{reason}") from error


def run(request: Request, trees: Mapping[str, Path], listener: Listener) -> dict[str, list[Record]]:
    """Put each variant of each checkout through a protocol, all in one run.

    Args:
        request: what to run; its protocol's rounds are an even number.
        trees: name of a side → its checkout; its records are written into a folder of that name.
        listener: is called with every event.

    Raises:
        BenchError: nothing can be run, as `bench.running.runner.run` says.
    """
    data.load(request.protocol.data.dataset)
    run_id, output = new_run_id(), request.folder.resolve()
    with scratch(output) as temporary:
        sides = []
        for name, tree in trees.items():
            (temporary / name).mkdir()
            its = replace(request, folder=output / name, command=partial(_command, tree))
            sides.append(trainings(its, run_id, temporary / name))
            for training in sides[-1]:
                training.label = f"{name} {training.label}"
                training.record.environment["git"] = environment.git_state(tree)
        for variants in zip(*sides, strict=True):
            carry_out(variants, epochs_by_round(request.protocol), listener)
    return {name: [each.record for each in its] for name, its in zip(trees, sides, strict=True)}


def _command(tree: Path, label: str, interpreter: str) -> list[str]:
    """The command line of a worker that imports a checkout, whatever folder this process is in."""
    return [interpreter, "-c", START, str(tree)]
