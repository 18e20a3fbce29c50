"""`nice-bench compare`: what it takes for a set, what it prints, and its exit codes."""

import json
import subprocess
from functools import partial

import pytest
from record_factories import record, seconds

from bench import records

STEADY = (10.0, 10.1, 9.9, 10.05, 9.95)
GIT = ("git", "-c", "user.name=n", "-c", "user.email=n@example.org")


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def compare(nice_bench):
    """Call `nice-bench compare`."""
    return partial(nice_bench, "compare")


def git(*arguments):
    subprocess.run([*GIT, *arguments], check=True, capture_output=True)


def put(folder, factor=1.0, values=STEADY, **about):
    """A run of two backends in a folder."""
    for name in ("torch", "jax"):
        made = record(name, run=f"{folder}", measurements=seconds(*(factor * value for value in values)), **about)
        records.save(made, folder)


@pytest.fixture
def history(elsewhere):
    """A repository whose first commit is tagged `before` and whose second one is 30 % slower."""
    git("init", "-q", "-b", "main")
    put("results/cpu")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "before")
    for path in (elsewhere / "results" / "cpu").iterdir():
        path.unlink()
    put("results/cpu/again", 1.3)
    git("add", ".")
    git("commit", "-qm", "two")


# Exit codes


@pytest.mark.parametrize(
    ("factor", "values", "conditions", "code"),
    [
        (1.2, STEADY, [], 0),
        (1.0, STEADY, ["speed worse by 10%"], 0),
        (1.2, STEADY, ["speed worse by 10%"], 1),
        (1.2, STEADY, ["speed worse by 50%"], 0),
        (1.2, STEADY, ["speed worse by 50%", "speed worse by 10%"], 1),
        (1.0, (10, 12), ["speed worse by 10%"], 3),
        (1.2, STEADY, ["memory worse by 10%", "speed worse by 50%"], 3),
        (1.2, STEADY, ["memory worse by 10%", "speed worse by 10%"], 1),
    ],
)
def test_the_exit_code_says_what_became_of_the_conditions(compare, factor, values, conditions, code):
    put("a", values=values)
    put("b", factor, values)
    done = compare("a", "b", *(part for text in conditions for part in ("--fail-if", text)))
    assert done.code == code
    assert bool(done.err) == (code != 0)
    for text in conditions:
        assert f"{text}: " in done.out


def test_what_cannot_be_told_may_be_let_pass_and_is_said(compare):
    put("a", values=(10, 12))
    put("b", values=(10.5, 12))
    done = compare("a", "b", "--fail-if", "speed worse by 10%", "--unclear-passes")
    assert done.code == 0
    assert "speed worse by 10%: can't tell: " in done.err
    assert "2 rounds, " in done.err


# What is compared


def test_two_revisions(compare, history):
    done = compare("before", "main", "--format", "json")
    rows = {row["backend"]: row for row in json.loads(done.out)["rows"]}
    assert {name: row["word"] for name, row in rows.items()} == {
        "torch": "slower",
        "jax": "slower",
        "all backends": "slower",
    }
    assert rows["torch"]["value"] == pytest.approx(1.3)
    assert rows["torch"]["low"] < 1.3 < rows["torch"]["high"]


def test_a_folder_and_a_folder_of_a_revision(compare, history, elsewhere, monkeypatch):
    (elsewhere / "deep").mkdir()
    monkeypatch.chdir(elsewhere / "deep")
    assert "slower" in compare("before:results/cpu", "../results").out


def test_a_name_that_is_both_is_the_path_and_it_is_said(compare, history):
    put("before", 1.3)
    done = compare("before", "main")
    assert "slower" not in done.out.split("Ratio:")[0]
    assert "'before' is a path and a git revision; the path is taken" in done.err
    assert "the path is taken" in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nobody", "nobody: neither a file or folder nor a git revision\n"),
        ("before:nowhere", "before:nowhere: no such folder in this revision"),
        ("--upload-pack=x", "No such option"),
    ],
)
def test_a_name_that_is_neither_is_refused(compare, history, name, told):
    done = compare(name, "main")
    assert done.code in (1, 2)
    assert told in done.err


def test_outside_of_a_repository_a_revision_is_none(compare):
    put("a")
    done = compare("a", "main")
    assert (done.code, done.out) == (1, "")
    assert "main: neither a file or folder nor a git revision (this is no git repository)" in done.err


def test_a_bad_record_of_a_revision_is_named_by_it(compare, history, elsewhere):
    (elsewhere / "results" / "bad.json").write_text("{}")
    git("add", ".")
    git("commit", "-qm", "bad")
    done = compare("HEAD", "before")
    assert (done.code, "left out: HEAD:results/bad.json: not a record" in done.err) == (0, True)
    strict = compare("HEAD", "before", "--fail-if", "speed worse")
    assert (strict.code, "nice-bench: HEAD:results/bad.json: not a record" in strict.err) == (1, True)


def test_by_backend_within_results_by_default(compare):
    put("results")
    done = compare("--by", "backend")
    assert "results, by backend." in done.out
    assert "same within noise" in done.out
    assert done.code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a"], "expected two sets to compare, or one with --by; found 1"),
        (["a", "b", "--by", "mode"], "--by compares within one set; found 2"),
        (["a", "--by", "backend", "--baseline", "x"], "--baseline 'x': expected one of torch, jax"),
        (["a", "b", "--baseline", "x"], "--baseline goes with --by"),
        (["a", "b", "--fail-if", "speed"], "--fail-if 'speed': expected"),
        (["a", "empty"], "empty: no records"),
        (["a", "failed"], "nothing to compare"),
    ],
)
def test_bad_input_is_one_error(compare, elsewhere, arguments, told):
    put("a")
    put("b")
    (elsewhere / "empty").mkdir()
    put("failed", status="failed", reason="it broke")
    if arguments[-1] == "failed":
        arguments = ["failed", "failed"]
    done = compare(*arguments)
    assert (done.code, done.out) == (1, "")
    assert told in done.err


def test_an_unknown_choice_is_a_mistake_of_usage(compare):
    put("a")
    by, style = compare("a", "--by", "colour"), compare("a", "a", "--format", "html")
    assert (by.code, by.out, style.code, style.out) == (2, "", 2, "")
    assert "'colour' is not one of 'backend', 'device', 'version', 'precision', 'mode'" in " ".join(by.err.split())
    assert "'html' is not one of 'text', 'markdown', 'json'" in " ".join(style.err.split())


# What it prints


def test_failures_are_told(compare):
    put("a")
    put("b")
    records.save(record("tensorflow", run="b", status="timeout", reason="6 h were too little"), "b")
    assert "Not complete in B: tensorflow: timeout (6 h were too little)." in " ".join(compare("a", "b").out.split())


def test_markdown_goes_into_a_pull_request(compare, elsewhere):
    put("a")
    put("b", 1.2)
    done = compare("a", "b", "--format", "markdown", "--write", "out.md", "--fail-if", "speed worse by 10%")
    text = (elsewhere / "out.md").read_text(encoding="utf-8")
    assert done.out == "out.md\n"
    assert text.startswith("### Comparison\n\n| verdict")
    assert "| slower" in text
    assert "speed worse by 10%: fails: " in text


def test_json_holds_every_digit_and_the_conditions(compare):
    put("a")
    put("b", 1.2)
    found = json.loads(compare("a", "b", "--format", "json", "--fail-if", "speed worse by 10%").out)
    (torch,) = [row for row in found["rows"] if row["backend"] == "torch"]
    assert torch["value"] == pytest.approx(1.2, rel=1e-12)
    assert (torch["a_observations"], torch["varies"], torch["verdict"]) == (5, "rounds", "worse")
    assert [(each["condition"], each["answer"]) for each in found["conditions"]] == [("speed worse by 10%", "fails")]
