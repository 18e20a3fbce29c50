"""The records that revisions hold: by commit, by folder, with what has to be said of them."""

import re
import subprocess

import pytest
from record_factories import record, seconds
from test_cli_compare import git

from bench import records
from bench.comparison.revisions import read, read_history
from bench.errors import BenchError

pytestmark = pytest.mark.usefixtures("elsewhere")


def put(folder, run):
    return records.save(record(run=run, measurements=seconds(1.0)), folder)


def commit(subject):
    git("add", "-A")
    git("commit", "-qm", subject)
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def three(elsewhere):
    """Three commits: one with a record, one that damages it, one with another in another folder too."""
    git("init", "-q", "-b", "main")
    (path,) = [put("results", "a")]
    made = [commit("First,\twith a tab")]
    path.write_text("{")
    made.append(commit("Damaged"))
    path.unlink()
    put("results", "b")
    put("other/deep", "c")
    made.append(commit("Third"))
    return made


def test_each_commit_has_what_it_added_and_what_to_say_of_it(three):
    found = read_history([])
    assert [side.name for side in found] == [each[: len(side.name)] for each, side in zip(three, found, strict=True)]
    assert [[each.run for each in side.records] for side in found] == [["a"], [], ["b"]]
    assert [bool(side.note) for side in found] == [False, True, False]
    assert re.match(rf"{three[1]}:results/.*\.json: ", found[1].note)
    assert [side.subject for side in found] == ["First,\twith a tab", "Damaged", "Third"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", side.date) for side in found)


def test_a_history_may_be_of_another_folder_and_of_commits_alone_that_touch_it(three):
    (side,) = read_history(["HEAD"], "/other/")
    assert ([each.run for each in side.records], side.subject) == (["c"], "Third")
    with pytest.raises(BenchError, match=r"^HEAD: no folder, and no git revisions that touch records in none"):
        read_history([], "none")


def test_a_history_of_folders_says_what_was_left_out(elsewhere):
    put("out", "a")
    (elsewhere / "out" / "bad.json").write_text("{")
    (side,) = read_history(["out"])
    assert side.note.startswith("left out: out/bad.json: ")
    put("good", "a")
    assert read_history(["good"])[0].note is None


def test_a_side_is_called_by_its_revision_and_commit_and_its_folder_may_be_named(three):
    side = read("main:/other/deep/")
    assert (side.name, [each.run for each in side.records]) == (f"main ({three[2][:8]})", ["c"])
    assert [each.run for each in read("HEAD").records] == ["b"]
    with pytest.raises(BenchError, match=r"main:none: no such folder in this revision"):
        read("main:none")


def test_what_cannot_be_read_is_left_out_unless_all_is_asked_for(elsewhere):
    git("init", "-q", "-b", "main")
    put("results", "a")
    (elsewhere / "results" / "bad.json").write_text("{")
    commit("Both")
    for name in ("HEAD", "results"):
        assert "left out: " in read(name).note
        with pytest.raises(BenchError, match=r"bad\.json"):
            read(name, strict=True)


def test_a_name_that_is_nothing_says_whether_this_is_a_repository(elsewhere):
    with pytest.raises(BenchError, match=r"neither a file or folder nor a git revision \(this is no git repository\)$"):
        read("nothing")
    git("init", "-q", "-b", "main")
    with pytest.raises(BenchError, match=r"neither a file or folder nor a git revision$"):
        read("nothing")
