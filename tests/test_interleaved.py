"""Two revisions of this program measured in one run: in alternation, paired by round, each from its own checkout."""

import json
import shutil
import subprocess
import textwrap
from functools import partial
from pathlib import Path

import pytest

from bench.records import collection

ROOT = Path(__file__).parent.parent
WORKER = Path("bench/running/worker.py")
STEADILY_SLOWER = """
    import json, os, sys

    plan = json.loads(sys.stdin.readline())
    with open("order", "a") as file:  # what this machine has done, by which it becomes slower and slower
        begun = file.tell()
        file.write({name!r})
    seconds = {seconds} * 1.05**begun
    figure = dict(measure="training", quantity="seconds_per_epoch", value=seconds, unit="s")
    seen = dict(asked="float32", seen="float32", mantissa_bits=23)
    for event in (
        dict(event="started", environment=dict(cpu="none", cores=1), mode="eager", precision=seen, digests={{}}),
        dict(event="measured", measurement=dict(figure, context=dict(round=plan["round"]))),
        dict(event="finished", status={status!r}),
    ):
        print(json.dumps(event), flush=True)
"""
GIT = ("git", "-c", "user.name=n", "-c", "user.email=n@example.org")
ROUNDS = ("--protocol", "smoke", "--device", "cpu", "--epochs", 6, "--rounds", 6, "--output", "out")

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def interleave(nice_bench):
    """Call `nice-bench compare --interleave`."""
    return partial(nice_bench, "compare", "--interleave")


def tree(name, seconds=1.0, status="ok"):
    """A checkout whose worker takes so many seconds an epoch, on a machine that becomes slower by the process."""
    for folder in (f"{name}/bench", f"{name}/bench/running"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "__init__.py").touch()
    text = textwrap.dedent(STEADILY_SLOWER).format(name=name, seconds=seconds, status=status)
    Path(name, WORKER).write_text(text, encoding="utf-8")


def git(*arguments):
    return subprocess.run([*GIT, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit(patch=None):
    """Commit what is here, after a patch of one text by another in a file, and return the commit."""
    if patch is not None:
        path, old, new = patch
        text = Path(path).read_text(encoding="utf-8")
        assert text.count(old) == 1
        Path(path).write_text(text.replace(old, new), encoding="utf-8")
    git("add", ".")
    git("commit", "-qm", "a change")
    return git("rev-parse", "HEAD")


@pytest.mark.parametrize(("seconds", "word"), [(1.0, "same"), (1.2, "worse"), (1 / 1.2, "better")])
def test_a_machine_that_becomes_slower_by_the_minute_hides_no_change_and_makes_none(interleave, seconds, word):
    tree("a")
    tree("b", seconds)
    done = interleave("a", "b", *ROUNDS, "--backends", "torch,jax", "--format", "json")
    rows = [row for row in json.loads(done.out)["rows"] if row["topic"] == "speed"]
    assert {(row["backend"], row["verdict"], row["varies"], row["note"]) for row in rows} == {
        (name, word, "paired rounds", "") for name in ("torch", "jax", "all backends")
    }
    assert [row["value"] for row in rows] == pytest.approx([seconds] * 3)


def test_records_of_it_that_are_compared_again_are_paired_too(interleave, nice_bench):
    tree("a")
    tree("b", 1.2)
    interleave("a", "b", *ROUNDS, "--backends", "torch")
    done = nice_bench("compare", "out/A", "out/B", "--fail-if", "speed worse by 10%")
    assert done.code == 1
    assert "6 paired rounds" in done.out


def test_which_is_first_changes_from_round_to_round(interleave):
    tree("a")
    tree("b")
    interleave("a", "b", *ROUNDS, "--backends", "torch,jax")
    assert Path("order").read_text() == "abba" * 6


def test_a_side_that_fails_is_said_and_compared_with_nothing(interleave):
    tree("a")
    tree("b", status="diverged")
    done = interleave("a", "b", *ROUNDS, "--backends", "torch", "--fail-if", "speed worse")
    assert done.code == 1
    assert "torch: diverged" in done.err
    assert "Not complete in B: torch eager: diverged" in " ".join(done.out.split())
    assert "only in A" in done.out


def test_a_message_of_another_revision_that_is_not_understood_is_a_failure_and_not_left_out(interleave):
    tree("a")
    tree("b")
    text = Path("b", WORKER).read_text(encoding="utf-8").replace("dict(figure, ", "dict(figure, new=1, ")
    Path("b", WORKER).write_text(text, encoding="utf-8")
    done = interleave("a", "b", *ROUNDS, "--backends", "torch")
    assert "torch eager: failed (a message isn't understood: measured" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "expected two sets to compare"),
        (["a", "b", "--by", "backend"], "--interleave measures two revisions"),
        (["a", "b", "--rounds", 1], "1 rounds; expected an even number"),
        (["a", "nothing"], "nothing: neither a folder nor a revision that git can check out here"),
        (["a", "empty"], "empty: no checkout of nice-bench: it has no bench/running/worker.py"),
    ],
)
def test_what_can_not_be_interleaved_is_refused_before_anything_runs(interleave, arguments, message):
    for name in "ab":
        tree(name)
    Path("empty").mkdir()
    done = interleave(*arguments, "--protocol", "smoke", "--backends", "torch")
    assert done.code == 1
    assert message in done.err
    assert not Path("order").exists()


def test_what_is_to_be_measured_goes_with_interleave_alone(nice_bench):
    done = nice_bench("compare", "a", "b", "--rounds", 2)
    assert (done.code, done.out) == (1, "")
    assert "--rounds is of what is measured: it goes with --interleave" in done.err


@pytest.mark.slow
def test_each_revision_runs_its_own_code_and_is_named_in_its_records(interleave):
    for name in ("backends", "bench"):
        shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "-q", "-b", "main")
    before = commit()
    step = "        for i in range(steps):\n"
    after = commit(("backends/numpy_backend.py", step, f"        __import__('time').sleep(0.5)\n{step}"))
    interleave("HEAD~1", "HEAD", "--protocol", "smoke", "--device", "cpu", "--backends", "numpy", "--output", "out")
    a, b = (collection.load_all(f"out/{side}") for side in "AB")
    assert [(each.status, each.environment["git"]) for each in a + b] == [
        ("ok", {"commit": each, "dirty": False}) for each in (before, after)
    ]
    assert min(point.seconds for point in b[0].curve) > 0.5  # it can't sleep for less
    assert a[0].digests == b[0].digests
    assert len(git("worktree", "list").splitlines()) == 1
