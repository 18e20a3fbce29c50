"""Planted faults: every patch applies, the suites find what is planted and nothing else, and what fails is loud."""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from check_factories import verdict_of
from factories import backend_names
from faults import __main__ as command
from faults import plant, suites, walk
from faults.plant import ROOT, Fault

import backends
from backends import UnavailableError
from bench.agreement.agree import Check
from bench.errors import BenchError
from bench.tables.render import render

ALL = {suite: plant.faults_of(suite) for suite in suites.SUITES}
EVERY = [pytest.param(fault, id=f"{suite}-{fault}") for suite, faults in ALL.items() for fault in faults]
NEW_FILE = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+{1}\n"
HARMLESS = "Nothing is wrong.\n\n" + NEW_FILE.format("backends/unused.py", "# Nothing.")
ROTTEN = "Rotten.\n\n--- a/backends/layout.py\n+++ b/backends/layout.py\n@@ -1,2 +1,2 @@\n nowhere\n-old\n+new\n"


def only_if_tested(*names):
    if missing := {*names} - {*backend_names()}:
        pytest.skip(f"NICE_BENCH_TEST_BACKENDS leaves {', '.join(missing)} out")


@pytest.fixture
def patches(tmp_path, monkeypatch):
    """Write patches into a folder that stands in for that of the committed ones."""
    monkeypatch.setattr(plant, "PATCHES", tmp_path / "patches")

    def write(text, name="fault", backend="numpy", suite="agreement"):
        path = tmp_path / "patches" / suite / backend / f"{name}.patch"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return plant.read(path)

    return write


# The patches


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what the patches change."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "backends", folder / "backends", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def changed_files(fault):
    """Name → the hunks of a patch, each as the lines that it expects to find."""
    _, *files = re.split(r"^--- a/.*\n\+\+\+ b/", fault.path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    hunks = {file.partition("\n")[0]: re.split(r"^@@.*\n", file, flags=re.MULTILINE)[1:] for file in files}
    return {
        name: [[line[1:] for line in hunk.splitlines() if line[:1] in " -"] for hunk in its]
        for name, its in hunks.items()
    }


def places(lines, wanted):
    return sum(lines[i : i + len(wanted)] == wanted for i in range(len(lines) - len(wanted) + 1))


@pytest.mark.parametrize("fault", EVERY)
def test_every_patch_applies_at_one_place_only_and_leaves_sources_that_compile(fault, sources):
    changed = changed_files(fault)
    assert changed
    for name, hunks in changed.items():
        lines = (sources / name).read_text(encoding="utf-8").splitlines()
        assert [places(lines, hunk) for hunk in hunks] == [1] * len(hunks)
    plant.apply(fault, sources)
    try:
        for name in changed:
            compile((sources / name).read_text(encoding="utf-8"), name, "exec")
    finally:
        plant.apply(fault, sources, "--reverse")


def test_every_patch_says_what_it_is_and_is_of_a_backend():
    for faults in ALL.values():
        assert faults
        for fault in faults:
            assert fault.description.endswith("."), fault.path
            assert fault.backend in backends.REGISTRY, fault.path
            assert fault.device in (None, "gpu"), fault.path
            assert fault.verdict in ("regression", "slower"), fault.path


def test_a_fault_is_described_alike_in_all_backends():
    for faults in ALL.values():
        assert len({fault.name for fault in faults}) == len({(fault.name, fault.description) for fault in faults})


@pytest.mark.parametrize("head", ["Wrong.\nmood: xla", "Wrong.\nmode xla", ""])
def test_a_head_that_is_not_understood_is_an_error(patches, head):
    with pytest.raises(BenchError, match=r"fault\.patch: expected a sentence, lines as `mode: NAME`"):
        patches(f"{head}\n\n{HARMLESS}")


# Planting


def test_a_fault_is_planted_in_a_copy_and_the_sources_stay_as_they_are():
    fault = next(fault for fault in ALL["agreement"] if str(fault) == "noise_sign in numpy")
    own = ROOT / "backends" / "numpy_backend.py"
    before = own.read_text(encoding="utf-8")
    with plant.planted(fault) as tree:
        assert (tree / "backends" / "numpy_backend.py").read_text(encoding="utf-8") != before
        done = plant.python(tree, "-P", "-c", "import backends, bench; print(backends.__file__, bench.__file__)")
        assert [Path(name).parent.parent for name in done.stdout.split()] == [tree, tree]
    assert not tree.exists()
    assert own.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("variables", [{}, {"GIT_DIR": ".git", "GIT_WORK_TREE": "."}], ids=["alone", "in a hook"])
def test_it_is_planted_too_where_temporary_folders_lie_in_a_repository(patches, tmp_path, monkeypatch, variables):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    with plant.planted(patches(HARMLESS)) as tree:
        assert (tree / "backends" / "unused.py").read_text() == "# Nothing.\n"


def test_a_patch_that_does_not_apply_is_an_error_with_its_name_before_anything_is_run(patches, monkeypatch):
    patches(HARMLESS)
    rotten = patches(ROTTEN, "rotten")
    said = r"agreement/numpy/rotten\.patch: the patch does not apply: error: patch failed: backends/layout\.py:1"
    with pytest.raises(BenchError, match=said), plant.planted(rotten):
        pass
    monkeypatch.setattr(command, "run", None)
    with pytest.raises(SystemExit, match=said):
        command.main(["agreement", "--backends", "numpy"])


# What the suites find


# torch:compile is run by `nox -s agreement`: it takes minutes to compile all of that.
@pytest.mark.parametrize("variant", [*backends.REGISTRY, "tensorflow:xla", "jax:jit"])
def test_backends_without_a_fault_pass_the_whole_walk(variant):
    only_if_tested(variant.partition(":")[0])
    checks = list(walk.walk(variant, walk.small_setting(), "cpu"))
    assert [check for check in checks if not check.passed] == []
    assert {check.suite for check in checks} == {"matrix", "lockstep", "resume", "sampling"}
    assert {check.precision for check in checks if check.suite == "matrix"} == {"float64", "float32"}


def test_faults_that_are_planted_are_found_and_the_table_is_written(tmp_path, capsys):
    only_if_tested("torch")
    names = ["noise_sign", "decoder_sign_flipped"]
    command.main(["agreement", *names, "--backends", "numpy", "--output", str(tmp_path)])
    text = (tmp_path / "mutations.md").read_text(encoding="utf-8")
    assert re.search(r"decoder_sign_flipped .*\| matrix, article, initial: decode .* > ", text)
    assert re.search(r"noise_sign .*\| lockstep, article, noise, Adam, epochs of 4: loss .* > ", text)
    assert "2 planted, 0 not found" in text
    assert "Planted faults" in capsys.readouterr().out


def test_the_check_finds_a_learning_rate_that_is_off(capsys):
    command.main(["check", "rate_five_percent_off", "--backends", "numpy"])
    printed = capsys.readouterr()
    share = re.search(r"rate_five_percent_off in numpy: × (\d+)", printed.err)
    assert share, printed.err
    assert int(share[1]) > 2


@pytest.mark.parametrize("suite", suites.SUITES)
def test_what_is_no_fault_is_not_found_and_turns_the_exit_code(suite, patches, capsys):
    only_if_tested("torch")
    patches(HARMLESS, "harmless", suite=suite)
    with pytest.raises(SystemExit) as caught:
        command.main([suite, "--backends", "numpy"])
    assert caught.value.code == "Error: planted and not found: harmless in numpy"
    assert "NOT FOUND" in capsys.readouterr().out


@pytest.mark.parametrize("suite", suites.SUITES)
def test_a_suite_that_can_not_be_run_has_found_nothing_and_is_an_error(suite, patches):
    broken = patches("Broken.\n\n" + NEW_FILE.format("numpy/__init__.py", "1 / 0"))
    with pytest.raises(BenchError, match=r"(?s)fault in numpy: the .* ended with 1: .*ZeroDivisionError"):
        suites.SUITES[suite](broken, "cpu")


def failing(error):
    def walk(*_):
        raise error
        yield

    return walk


def test_an_error_that_ends_the_suite_is_found_but_not_a_framework_that_is_missing(monkeypatch):
    monkeypatch.setattr(walk, "walk", failing(RuntimeError("shapes differ\nand more")))
    assert walk.judge("numpy", "cpu") == "crashed: RuntimeError: shapes differ"
    monkeypatch.setattr(walk, "walk", failing(UnavailableError("torch: no gpu")))
    with pytest.raises(UnavailableError):
        walk.judge("numpy", "cpu")


def made(error):
    return Check("lockstep", "paper, RMSProp", "jax", "float64", "", "loss", error, np.nan, 1e-11)


def test_the_first_check_that_fails_is_named_and_nothing_after_it_is_computed(monkeypatch):
    def checks(*_):
        yield made(1e-12)
        yield made(1e-10)
        raise AssertionError

    monkeypatch.setattr(walk, "walk", checks)
    assert walk.judge("numpy", "cpu") == "lockstep, paper, RMSProp: loss 1.0e-10 > 1.0e-11"


def test_an_error_that_is_not_a_number_fails(monkeypatch):
    monkeypatch.setattr(walk, "walk", lambda *_: iter([made(np.nan)]))
    assert walk.judge("numpy", "cpu") is not None


WRONG, SLOW = Fault(Path("torch/noise_wider.patch"), "A."), Fault(Path("torch/slow.patch"), "B.", verdict="slower")


def test_a_fault_is_found_by_the_right_verdict_alone():
    crash, off = verdict_of("run", "regression"), verdict_of("trajectory", "regression")
    good, slow = verdict_of("trajectory", "ok"), verdict_of("speed", "slower")
    assert suites.found_by(WRONG, [crash, slow]) is None
    assert suites.found_by(WRONG, [off]) is off
    assert suites.found_by(SLOW, [good, slow]) is slow
    assert suites.found_by(SLOW, [off, slow]) is None


def test_faults_are_planted_on_cores_of_their_own_and_the_one_that_is_timed_when_all_others_are_over(monkeypatch):
    began = []

    def judge(fault, device):
        began.append(fault)
        return str(len(os.sched_getaffinity(0)))

    monkeypatch.setitem(suites.SUITES, "check", judge)
    other = replace(WRONG, path=Path("jax/noise_wider.patch"))
    before = os.sched_getaffinity(0)
    assert list(suites.run("check", [SLOW, WRONG, other], "cpu")) == [(WRONG, "1"), (other, "1"), (SLOW, "1")]
    assert began[-1] is SLOW
    assert os.sched_getaffinity(0) == before


# What is chosen, and what is reported


def test_faults_that_need_a_gpu_are_left_out_on_a_cpu():
    needing = {fault for fault in ALL["agreement"] if fault.device == "gpu"}
    assert needing
    names = sorted({fault.name for fault in needing})
    assert command.selected("agreement", names, list(backends.REGISTRY), "cpu") == []
    assert set(command.selected("agreement", names, list(backends.REGISTRY), "gpu")) == needing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agreement", "no_such"], "no fault of agreement is called no_such"),
        (["check", "--backends", "theano"], "expected some of torch"),
        (["agreement", "tf32_left_on", "--backends", "torch"], "no such fault to plant on this device"),
    ],
)
def test_mistakes_are_errors(arguments, message):
    with pytest.raises(SystemExit, match=message):
        command.main(arguments)


def test_the_table_has_a_row_for_each_fault_and_a_column_for_each_backend():
    both, alone = "floor_in_root", "gradients_accumulated"
    faults = {str(fault): fault for fault in ALL["agreement"]}
    results = [
        (faults[f"{both} in torch"], "lockstep, paper, RMSProp: loss 1.0e-10 > 1.0e-11"),
        (faults[f"{both} in jax"], "crashed: ValueError"),
        (faults[f"{alone} in torch"], None),
    ]
    table = suites.table("agreement", results)
    assert table.shown.columns.tolist() == ["fault", "description", "torch", "jax"]
    assert table.shown["fault"].tolist() == [both, alone]
    assert table.shown["torch"].tolist() == ["lockstep, paper, RMSProp: loss 1.0e-10 > 1.0e-11", "NOT FOUND"]
    assert table.shown["jax"].tolist() == ["crashed: ValueError", "–"]
    assert "3 planted, 1 not found" in table.caption
    for style in ("text", "markdown", "csv", "latex"):
        assert "floor" in render(table, style)
    results = [(replace(faults[f"{both} in torch"], devices=count), f"on {count}") for count in "42"]
    table = suites.table("agreement", results)
    assert table.shown[["devices", "torch"]].to_numpy().tolist() == [["2", "on 2"], ["4", "on 4"]]


def test_faults_of_several_devices_are_planted_on_as_many_as_are_asked_for(monkeypatch):
    planted = []

    def plant(suite, faults, device, output):
        planted.extend(map(str, faults))

    monkeypatch.setattr(command, "plant", plant)
    command.main(["agreement", "--backends", "jax", "--devices", "2,4"])
    assert "replicas_noise_shifted in jax on 4 devices" in planted
    assert {text.partition(" on ")[2] for text in planted} == {"2 devices", "4 devices"}
    assert len(planted) == len(set(planted)) > 2
