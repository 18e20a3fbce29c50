"""`nice-bench check`: exit codes, what it prints, and what it writes."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from check_factories import apart, falling, run_of, runs_of_all, timed, verdict_of

from bench import records
from bench.commands import cli_check
from bench.regression import reference
from bench.regression.check_runs import PARTS
from bench.regression.verdicts import table
from bench.tables.render import render


@pytest.fixture
def check(nice_bench):
    """Call `nice-bench check`."""
    return partial(nice_bench, "check")


@pytest.fixture
def kept(tmp_path, usual):
    """Folders of a reference, and of records that fit it."""
    reference.save(usual, tmp_path / "references")
    for record in runs_of_all()[1:]:
        records.save(record, tmp_path / "records")
    return SimpleNamespace(
        folder=tmp_path / "records", options=("--references", tmp_path / "references"), path=tmp_path / "references"
    )


def test_records_that_fit_pass(kept, check):
    done = check(kept.folder, *kept.options)
    assert done.code == 0, done.err
    assert "No regression." in done.out
    assert "Regression check" in done.out


def test_records_that_do_not_fit_are_exit_code_one_and_the_table_is_shown(kept, check):
    records.save(run_of("jax", losses=apart(1.0)).model_copy(update={"run": "new"}), kept.folder)
    done = check(kept.folder, *kept.options)
    assert done.code == 1
    assert "the first: trajectory, trajectory-narrow float32, jax, loss by step" in done.err
    assert "nats there" in done.out


def test_a_missing_backend_is_exit_code_one_unless_it_is_left_out(kept, check):
    next(kept.folder.glob("*jax*")).unlink()
    done = check(kept.folder, *kept.options)
    assert done.code == 1
    assert "jax, seed 0: no run" in done.err
    assert check(kept.folder, *kept.options, "--backends", "torch,tensorflow").code == 0


def test_a_slow_step_is_reported_and_fails_only_when_asked_to(kept, check):
    next(kept.folder.glob("*torch*")).unlink()
    records.save(timed([2.0])[0], kept.folder)
    done = check(kept.folder, *kept.options)
    assert (done.code, done.out.count("slower")) == (0, 3)  # twice in a row, once in the caption
    assert check(kept.folder, *kept.options, "--fail-if-slower").code == 1


def test_update_makes_the_reference_of_records_and_they_pass_by_it(kept, check, tmp_path):
    records.save(runs_of_all()[0], kept.folder)
    done = check(kept.folder, "--update", "--references", tmp_path / "new")
    assert done.code == 0, done.err
    path = tmp_path / "new" / "trajectory-narrow-cpu-float32.json"
    assert done.out.split() == [str(path)]
    assert json.loads(path.read_text())["made"]["records"] == 4
    assert check(kept.folder, "--references", tmp_path / "new").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "trajectory"], "--only 'trajectory': expected some of trajectory-full-float32, "),
        (["--backends", "theano"], "expected some of torch"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["nowhere", "--only", "trajectory-narrow-float32"], "--only is of no use with RECORDS"),
        (["nowhere", "--device", "gpu"], "--device is of no use with RECORDS"),
        (["nowhere", "--output", "there"], "--output is of no use with RECORDS"),
        (["--margin", "3"], "--margin is of no use without --update"),
    ],
)
def test_mistakes_are_errors(check, arguments, message):
    done = check(*arguments)
    assert done.code == 1
    assert message in done.err


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (
            (),
            "trajectory-full-float32, trajectory-narrow-float64, recipe-narrow-float32, convergence-paper-narrow",
        ),
        (("--only", "trajectory-narrow-float64"), "trajectory-narrow-float64 on cpu"),
    ],
)
def test_nothing_is_run_that_has_no_reference(kept, check, monkeypatch, options, missing):
    monkeypatch.setattr(cli_check.check_runs, "run", None)
    done = check(*kept.options, *options)
    assert done.code == 1
    assert f"for {missing}" in done.err


def test_update_makes_references_of_the_backends_that_are_named(kept, check, tmp_path):
    records.save(runs_of_all()[0], kept.folder)
    done = check(kept.folder, "--update", "--references", tmp_path / "new", "--backends", "torch,jax")
    assert done.code == 0, done.err
    made = json.loads((tmp_path / "new" / "trajectory-narrow-cpu-float32.json").read_text())
    assert made["made"]["records"] == 3


def test_records_without_a_reference_are_an_error(check, tmp_path):
    records.save(run_of("torch", losses=falling(), protocol="mine"), tmp_path)
    done = check(tmp_path)
    assert done.code == 1
    assert "no reference in results/references for mine cpu float32" in done.err


def test_records_without_a_reference_beside_others_are_named(kept, check):
    assert "not judged" not in check(kept.folder, *kept.options).err
    records.save(run_of("torch", losses=falling(), protocol="mine"), kept.folder)
    done = check(kept.folder, *kept.options)
    assert done.code == 0
    assert f"not judged, since {kept.path} has no reference for them: mine cpu float32" in " ".join(done.err.split())


def test_the_table_shows_what_fails_first_in_every_format():
    rows = [
        verdict_of("speed", "slower"),
        replace(verdict_of("run", "ok"), share=None),
        verdict_of("run", "regression"),
    ]
    made = table(rows)
    assert made.shown["verdict"].tolist() == ["regression", "slower", "ok"]
    assert made.shown["× allowed"].tolist() == ["2.00", "2.00", "–"]
    for style in ("text", "markdown", "csv", "latex"):
        assert "regression" in render(made, style)


def test_a_check_has_every_part_but_where_some_are_named():
    paper = "convergence-paper-narrow-float32"
    assert [part.name for part in cli_check._parts(None)] == [part.name for part in PARTS]
    assert [part.name for part in cli_check._parts([paper])] == [paper]
