"""The commands `run` and `sweep`: what they print and leave behind, and their exit codes."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from factories import requires

from backends import parameters
from bench.commands import cli, options
from bench.errors import BenchError
from bench.records import collection
from bench.running import runner, variant
from bench.running.worker_environment import worker_environment

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Whether this machine is busy is neither waited for nor said."""
    monkeypatch.setattr(cli, "_warn_if_busy", lambda device: None)


# run, with workers that only talk


def test_a_run_that_goes_well_ends_with_0(nice_bench, talkers):
    assert nice_bench("run", "--protocol", "smoke", "--device", "cpu").code == 0


def test_a_run_shows_its_progress_on_standard_error(nice_bench, talkers):
    done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--backends", "torch")
    assert "torch: epoch 1: loss -50.00" in done.err
    assert "torch: epoch 2: loss -100.00" in done.err


def test_a_run_leaves_records_weights_and_tables_in_a_folder_of_its_own(nice_bench, talkers):
    nice_bench("run", "--protocol", "smoke", "--device", "cpu")
    [folder] = Path("results/runs").iterdir()
    assert {record.plan.backend for record in collection.load_all(folder)} == {"numpy", "torch"}
    assert len(list(folder.glob("*.safetensors"))) == 2
    assert list((folder / "tables").glob("*.md"))


def test_a_run_ends_with_its_answers_then_two_tables_and_a_caption_once(nice_bench, talkers):
    out = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out").out
    answers, _, printed = out.partition("\nTraining speed\n")
    assert [line.split()[0] for line in answers.splitlines()[1:] if line and not line.startswith(" ")] == [
        "Fastest?",
        "Same",
        "Near",
        "Failed",
        "Tables",
        "Report",
        "Records,",
    ]
    assert Path("out/report.html").is_file()
    assert "\nAccuracy\n" in printed
    assert "Loss by epoch" not in printed
    assert printed.count("Protocol smoke:") == 1


@pytest.mark.parametrize(("shown", "titles"), [("none", 0), ("brief", 2), ("all", 4)])
def test_what_tables_a_run_prints_is_chosen(nice_bench, talkers, shown, titles):
    done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out", "--tables", shown)
    known = ("\nTraining speed\n", "\nAccuracy\n", "In short: smoke\n", "\nLoss by epoch: smoke\n")
    assert sum(title in done.out for title in known) == titles
    assert "Fastest?" in done.out


def test_tables_are_on_disk_before_anything_is_printed(nice_bench, talkers, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    monkeypatch.setattr(cli.answers, "verdict", gone)
    assert nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out").code == 1
    assert Path("out/tables/speed.md").is_file()
    assert Path("out/report.html").is_file()


def test_answers_are_printed_though_the_tables_cannot_be_written(nice_bench, talkers, monkeypatch):
    def full(*_):
        raise BenchError("no space left")

    monkeypatch.setattr(cli.tables, "write", full)
    done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out")
    assert done.code == 0
    assert "Fastest?" in done.out
    assert "not made: no space left" in done.out
    assert Path("out/report.html").is_file()


def test_tables_have_the_width_of_the_terminal(tmp_path):
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    code = "import sys; from bench.commands.options import columns; print(columns(), file=sys.stderr)"
    root, environment_ = Path(cli.__file__).parents[2], {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    done = [
        subprocess.run(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, cwd=root, check=True, env=environment_
        ).stderr.split()[-1]
        for out in (follower, subprocess.DEVNULL)
    ]
    os.close(leader)
    os.close(follower)
    assert done == [b"77", b"120"]


def test_options_take_the_place_of_the_protocols_values(nice_bench, talkers):
    options = ["--epochs", 1, "--batch", 32, "--seed", 5, "--precision", "float64", "--backends", "numpy"]
    nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out", *options)
    [record] = collection.load_all("out")
    plan = record.plan
    assert (plan.epochs, plan.rounds, plan.batch, plan.seed, plan.precision) == (1, 1, 32, 5, "float64")


@pytest.mark.parametrize(("epochs", "rounds"), [(1, 6), (2, 6)])
def test_epochs_in_parts_leave_the_protocol_its_rounds(nice_bench, monkeypatch, epochs, rounds):
    asked = []

    def run(request, listener):
        asked.append(request.protocol.training)
        raise BenchError("enough")

    monkeypatch.setattr(runner, "run", run)
    nice_bench("run", "--protocol", "article-quick", "--epochs", epochs, "--backends", "numpy", "--device", "cpu")
    assert [(its.epochs, its.rounds) for its in asked] == [(epochs, rounds)]


def test_a_backend_that_is_named_twice_runs_once(nice_bench, talkers):
    nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out", "--backends", "numpy,numpy")
    [record] = collection.load_all("out")
    assert [point.epoch for point in record.curve] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "statuses"),
    [
        (["--python", "torch=/no/python"], 0, {"numpy ok", "torch unavailable"}),
        (["--python", "torch=/no/python", "--backends", "numpy,torch"], 1, {"numpy ok", "torch unavailable"}),
        (["--python", "torch=/no/python", "--python", "numpy=/no"], 1, {"numpy unavailable", "torch unavailable"}),
        (["--backends", "jax,numpy"], 1, {"jax failed", "numpy ok"}),
    ],
    ids=["missing from the default set", "missing and asked for by name", "all missing", "failed"],
)
def test_the_exit_code_says_whether_all_that_was_asked_for_was_had(nice_bench, talkers, options, code, statuses):
    done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out", *options)
    assert done.code == code
    assert {f"{record.plan.backend} {record.status}" for record in collection.load_all("out")} == statuses
    assert ("nice-bench: " in done.err) is bool(code)


def test_a_failure_is_in_the_tables_and_on_standard_error(nice_bench, talkers):
    done = nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--backends", "jax,numpy")
    assert "failed" in done.out
    assert done.err.splitlines()[-1] == "nice-bench: jax: failed: ended with exit code 4"


@pytest.mark.slow
def test_a_failing_default_backend_fails_the_run(nice_bench, talkers, monkeypatch):
    monkeypatch.setattr(options, "DEFAULT_BACKENDS", ("numpy", "jax"))
    assert nice_bench("run", "--protocol", "smoke", "--device", "cpu").code == 1


# A sweep


@pytest.mark.slow
def test_a_sweep_prints_its_table_and_leaves_records_and_plots(nice_bench, monkeypatch):
    script = str(Path(__file__).with_name("sweeping_worker.py"))
    monkeypatch.setattr(variant, "worker_command", lambda module, label, python: [python, script, "well"])
    arguments = ("--protocol", "smoke", "--backends", "torch,jax", "--axis", "batch,depth", "--device", "cpu")
    done = nice_bench("sweep", *arguments, "--values", "batch=32,64", "--operations", "train", "--output", "out")
    assert done.code == 0
    assert "How cost grows" in done.out
    assert "torch: axis batch value 64 operation train: 0.5 s" in done.err
    plots = {"plots/sweep-batch.svg", "plots/sweep-depth.svg"}
    made = {f"smoke-sweep-{name}-cpu-float32-eager-seed0.json" for name in ("torch", "jax")}
    assert {str(path.relative_to("out")) for path in Path("out").rglob("*.*")} == plots | made
    again = nice_bench("plots", "out", "--write", "again")
    assert [Path(line).name for line in again.out.splitlines()] == ["sweep-batch.svg", "sweep-depth.svg"]
    assert Path("again/sweep-batch.svg").read_bytes() == Path("out/plots/sweep-batch.svg").read_bytes()


# run, with real ones


@pytest.mark.slow
@requires("torch")
def test_a_whole_run_of_two_backends(tmp_path):
    arguments = ["run", "--protocol", "smoke", "--backends", "numpy,torch", "--device", "cpu", "--output", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env=worker_environment("numpy", sys.executable, "cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {record.plan.backend: record for record in collection.load_all("out")}
    assert {name: (record.status, len(record.curve)) for name, record in made.items()} == {
        "numpy": ("ok", 2),
        "torch": ("ok", 2),
    }
    assert made["numpy"].digests["initial_parameters"] == made["torch"].digests["initial_parameters"]
    losses = [[point.train_loss for point in made[name].curve] for name in ("numpy", "torch")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for path in Path("out").glob("*.safetensors"):
        parameters.load(path)
    assert "torch" in done.stdout
    assert sorted(path.suffix for path in Path("out").iterdir()) == [
        "",
        ".html",
        ".json",
        ".json",
        ".safetensors",
        ".safetensors",
    ]
