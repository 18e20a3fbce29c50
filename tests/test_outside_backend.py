"""A backend that another package brings goes through every command, and a broken one stops none of the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures.palette import COLOURS

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow

FIFTH = """
from backends.numpy_backend import NumpyBackend

class FifthBackend(NumpyBackend):
    name = "fifth"
    workloads = None

    @classmethod
    def versions(cls):
        return {"fifth": "7.8"}
"""
PARTLY = """
from backends.interface import Backend

class Partly(Backend):
    @classmethod
    def devices(cls):
        return ("cpu",)
"""
PACKAGES = {
    "nice-fifth": "fifth = nice_fifth:FifthBackend",
    "nice-taken": "torch = nice_fifth:FifthBackend",
    "nice-once": "twice = nice_fifth:FifthBackend",
    "nice-again": "twice = nice_fifth:FifthBackend",
    "nice-flawed": "absent = no_such_module:X\nending = nice_ending:X\nplain = json:loads\nlost = json:no_such_class\n"
    "partly = nice_partly:Partly\na,b = nice_fifth:FifthBackend",
}
FLAWS = {
    "torch (nice-taken)": "nice_fifth:FifthBackend of the package nice-taken can't be used: a built-in backend",
    "twice (nice-again)": "another installed package has a backend of this name",
    "twice (nice-once)": "another installed package has a backend of this name",
    "absent": "absent: can't be imported here (No module named 'no_such_module')",
    "ending": "ending: can't be imported here (SystemExit: no licence)",
    "plain": "plain: json:loads is no subclass of backends.Backend",
    "lost": "lost: json:no_such_class is no subclass of backends.Backend",
    "partly": "partly: nice_partly:Partly lacks ",
    "a,b (nice-flawed)": "a name may have letters, digits, - and _ only",
}


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """Call `nice-bench` in a folder of its own, with the packages above on the path; what it printed."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in {"fifth": FIFTH, "partly": PARTLY, "ending": "raise SystemExit('no licence')"}.items():
        (folder / f"nice_{name}.py").write_text(text)
    for name, points in PACKAGES.items():
        about = folder / f"{name.replace('-', '_')}-1.2.3.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
        (about / "entry_points.txt").write_text(f"[nice_bench.backends]\n{points}\n")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    work = tmp_path_factory.mktemp("work")

    def run(*arguments, program=("-m", "bench")):
        command = [sys.executable, *program, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = work
    return run


@pytest.fixture(scope="module")
def printed(call):
    """What a short run of the outside backend and of the reference printed; its records are in `run`."""
    short = ("--protocol", "smoke", "--epochs", 1, "--rounds", 1, "--device", "cpu")
    return call("run", "--backends", "fifth,numpy", *short, "--output", "run")


def test_it_is_run_and_recorded(call, printed):
    (path,) = (call.folder / "run").glob("*fifth*.json")
    record = json.loads(path.read_text())
    assert record["status"] == "ok"
    assert record["environment"]["packages"]["nice-fifth"] == "1.2.3"
    (floor,) = (m for m in record["measurements"] if m["measure"] == "floor")
    assert floor["value"] is None
    assert "Versions: numpy " in printed
    assert "; fifth 7.8." in " ".join(printed.split())


@pytest.mark.usefixtures("printed")
def test_tables_and_comparisons_have_it_after_the_built_in_ones(call):
    text = " ".join(call("tables", "run", "--all").split())
    assert text.index(" numpy eager ") < text.index(" fifth eager ")
    assert "fifth: no floor, as the backend names no module of bare products." in text
    compared = " ".join(call("compare", "run", "--by", "backend").split())
    assert "A: numpy. B: fifth." in compared


def test_it_agrees_with_the_reference(call):
    narrower = (
        "from bench.agreement import agreement_runs; agreement_runs.NARROW['hidden_units'] = 16;"
        "from bench.commands import cli; cli.main()"
    )
    text = call("agree", "--backends", "fifth", "--device", "cpu", "--steps", 4, program=("-c", narrower))
    assert "checks are within their tolerances" in text


def test_its_losses_are_held_against_the_references(call):
    where = ("--references", ROOT / "results" / "references", "--output", "check")
    text = call("check", "--backends", "fifth", "--device", "cpu", "--only", "trajectory-narrow-float64", *where)
    rows = [line for line in text.splitlines() if line.startswith("trajectory ") and " fifth " in line]
    assert any("loss by step" in row for row in rows)
    assert any(row.split()[-1] == "ok" for row in rows)


@pytest.mark.usefixtures("printed")
def test_figures_give_it_a_colour_of_its_own(call):
    sizes = ("--axis", "batch", "--values", "batch=16,32", "--operations", "log_prob")
    call("sweep", "--protocol", "smoke", "--backends", "fifth", "--device", "cpu", *sizes, "--output", "sweep")
    assert COLOURS[4].lower() in (call.folder / "sweep" / "plots" / "sweep-batch.svg").read_text().lower()
    call("report", "run", "sweep", "--output", "report.html")
    page = (call.folder / "report.html").read_text(encoding="utf-8")
    assert "fifth" in page
    assert COLOURS[4] in page


def test_the_doctor_names_it_and_says_what_is_wrong_with_others(call):
    lines = call("doctor", "--device", "cpu").splitlines()
    assert any(line.startswith("fifth ") and line.endswith(" fifth 7.8: a build without CUDA") for line in lines), lines
    assert any(line.startswith("numpy ") for line in lines), lines
    for name, flaw in FLAWS.items():
        assert any(line.startswith(name) and flaw in line for line in lines), (name, lines)
