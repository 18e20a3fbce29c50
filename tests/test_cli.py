"""The command line: what it prints where, what it leaves behind, and its exit codes."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from factories import SMALL, backend_names, weights
from PIL import Image

import backends
from backends import Architecture, parameters
from bench.commands import cli, options
from bench.errors import BenchError
from bench.records import collection, environment
from bench.running import runner, variant
from bench.running.worker_environment import worker_environment

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Whether this machine is busy is neither waited for nor said."""
    monkeypatch.setattr(cli, "_warn_if_busy", lambda: None)


def left_here():
    return [str(path) for path in Path().rglob("*")]


@pytest.fixture(autouse=True)
def signals():
    """The handlers that the command line sets are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_an_interruption_and_not_the_end(monkeypatch, number):
    monkeypatch.setattr(cli, "app", lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        cli.main()
    signal.raise_signal(number)  # a second one doesn't end what the first one has begun


def test_what_nohup_has_ignored_stays_ignored(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(cli, "app", lambda: signal.raise_signal(signal.SIGHUP))
    cli.main()


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(nice_bench, command):
    done = nice_bench(command, "--help")
    assert done.code == 0
    assert f"nice-bench {command}" in done.out.split("Example:")[1]


def test_help_says_what_each_command_is_for_on_its_line_of_eighty_columns(nice_bench):
    lines = nice_bench("--help").out.partition("Commands:")[2].splitlines()
    told = {line.split()[0]: line for line in lines if line.strip()}
    assert set(told) == set(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in told.values())


def test_help_names_every_command(nice_bench):
    listed = nice_bench("--help").out.split("Commands:")[1]
    assert [line.split()[0] for line in listed.splitlines() if re.match(r"  \w", line)] == COMMANDS
    text = (Path(backends.__file__).parents[1] / "bench" / "README.md").read_text(encoding="utf-8")
    assert {command for command in COMMANDS if f"    nice-bench {command}" not in text} == set()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--protocol", "artcle"], "protocol 'artcle': expected one of article, article-noise"),
        (["run", "--protocol", "none.toml"], "none.toml: no such file"),
        (["run", "--protocol", "smoke", "--backends", "torch,mxnet"], "expected some of torch, tensorflow, jax, numpy"),
        (["run", "--protocol", "smoke", "--backends", ","], "expected some of torch"),
        (["run", "--protocol", "smoke", "--mode", "eager"], "--mode 'eager': expected BACKEND=VALUE"),
        (["run", "--protocol", "smoke", "--mode", "torch=eager,,", "--mode", "jx=jit"], "--mode 'jx=jit': expected"),
        (["run", "--protocol", "smoke", "--python", "mxnet=python"], "BACKEND one of torch"),
        (["run", "--protocol", "smoke", "--tables", "some"], "--tables is 'some'; expected one of brief, all, none"),
        (["run", "--protocol", "smoke", "--batch", "0"], "training.batch: found 0, expected greater than 0"),
        (["run", "--protocol", "smoke", "--epochs", "0"], "training.epochs: found 0"),
        (["run", "--protocol", "smoke", "--epochs", "2", "--rounds", "3"], "training.rounds is 3; expected at most"),
        (["peers", "--frameworks", ""], "--frameworks '': expected some of torch, tensorflow, jax"),
        (["peers", "--peers", ""], "--peers '': expected some of keras fit"),
        (["agree", "--backends", ""], "--backends '': expected some of torch"),
        (["sweep", "--axis", ""], "no axis is named; expected some of batch, width, depth, couplings"),
        (["sweep", "--axis", "height"], "axis 'height': expected some of batch, width, depth, couplings"),
        (["sweep", "--values", "batch=0"], "--values 'batch=0': expected AXIS=N,N,… with positive integers"),
        (["sweep", "--axis", "batch", "--values", "depth=3"], "values of depth, which isn't swept; the axes are batch"),
        (["sweep", "--operations", "encode"], "operations 'encode': expected some of log_prob, sample, train"),
        (["plots"], "results: no such file or folder"),
        (["tables"], "results: no such file or folder"),
        (["tables", "."], "no records in .; `nice-bench run` makes some"),
        (["sample", "none.safetensors"], "none.safetensors: no such file"),
        (["sample", "none.safetensors", "--kind", "mosaic"], "--kind is 'mosaic'; expected one of grid"),
        (["sample", "none.safetensors", "--steps", "5"], "--steps doesn't go with --kind grid, but with inpainting"),
        (["sample", "none.safetensors", "--kind", "spectrum", "--seed", "5"], "--seed doesn't go with --kind spectrum"),
        (["port", "none.safetensors", "b.npz"], "none.safetensors: no such file"),
        (["port", "none.onnx", "b.npz"], "none.onnx: can't be read; expected an ending among .safetensors"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error_and_leaves_nothing(nice_bench, arguments, told):
    done = nice_bench(*arguments)
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith("nice-bench: ")
    assert told in line
    assert left_here() == []


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--backend", "mxnet", "mxnet"),
        ("--device", "tpu", "tpu"),
        ("--device", "gpu", "numpy: no gpu"),
        ("--seed", 2**64, "--seed"),
    ],
)
def test_a_bad_option_of_sample_is_an_error_without_a_traceback(nice_bench, option, value, told):
    architecture = Architecture(dim=784, couplings=1, hidden_layers=1, hidden_units=2)
    parameters.save("w.safetensors", architecture, weights(architecture, "float32"))
    done = nice_bench("sample", "w.safetensors", *("--backend", "numpy"), option, value)
    assert done.code in (1, 2)
    assert told in done.err
    assert left_here() == ["w.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--seed", "-1"], "'--seed'"),
        (["run", "--sed", "1"], "--sed"),
        (["sample", "--rows", "0"], "'--rows'"),
        (["walk"], "walk"),
        (["port", "a.npz"], "Missing argument 'target'"),
        (["run", "--device", "tpu"], "'--device': Value error, 'tpu' is not one of 'auto', 'cpu', 'gpu'"),
        (["run", "--precision", "half"], "'half' is not one of 'float64', 'float32', 'tf32', 'bfloat16'"),
        (["sweep", "--precision", "half"], "'half' is not one of 'float64', 'float32', 'tf32', 'bfloat16'"),
        (["peers", "--precision", "int8"], "'int8' is not one of 'float32', 'tf32'"),
    ],
)
def test_a_mistake_of_usage_is_an_error_with_2(nice_bench, arguments, message):
    done = nice_bench(*arguments)
    assert (done.code, done.out) == (2, "")
    error = " ".join(done.err.split())
    assert "Error" in error
    assert message in error
    assert left_here() == []


@pytest.mark.parametrize("command", ["run", "peers", "profile"])
def test_a_seed_that_no_table_can_hold_is_refused_before_anything_runs(nice_bench, command):
    done = nice_bench(command, "--seed", 2**63)
    assert done.code == 2
    assert "'--seed': Input should be less than or equal to 9223372036854775807" in " ".join(done.err.split())
    assert left_here() == []


def test_verbose_shows_the_traceback(nice_bench):
    with pytest.raises(BenchError, match="artcle"):
        nice_bench("run", "--protocol", "artcle", "--verbose")


def test_a_gpu_that_is_not_there_is_an_error(nice_bench, monkeypatch):
    monkeypatch.setattr(environment, "gpus", list)
    done = nice_bench("run", "--protocol", "smoke", "--device", "gpu")
    assert (done.code, left_here()) == (1, [])
    assert "no GPU is visible to the NVIDIA driver here; use --device cpu" in done.err


def test_an_interruption_ends_with_130(nice_bench, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    done = nice_bench("run", "--protocol", "smoke")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "nice-bench: interrupted; what was measured until then is kept"


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
@pytest.mark.skipif("torch" not in backend_names(), reason="NICE_BENCH_TEST_BACKENDS leaves torch out")
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


# tables


@pytest.fixture
def recorded(nice_bench, talkers):
    nice_bench("run", "--protocol", "smoke", "--device", "cpu", "--output", "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "sign"), [("text", "torch"), ("markdown", "| torch"), ("csv", ",torch"), ("latex", r"\begin{tabular}")]
)
def test_tables_come_in_each_format(nice_bench, recorded, style, sign):
    done = nice_bench("tables", "out", "--format", style)
    assert (done.code, done.err) == (0, "")
    assert sign in done.out


def test_tables_can_be_written(nice_bench, recorded):
    done = nice_bench("tables", "out", "--write", "tables")
    written = done.out.split()
    assert written
    assert sorted(written) == sorted(str(path) for path in Path("tables").iterdir())


def test_an_unknown_format_is_refused_with_the_known_ones(nice_bench, recorded):
    done = nice_bench("tables", "out", "--format", "word")
    assert (done.code, done.out) == (1, "")
    assert all(name in done.err for name in ("word", "markdown", "csv", "latex"))


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 99}'])
def test_a_bad_record_is_left_out_with_its_name_and_refused_where_it_is_alone(nice_bench, recorded, content):
    Path("out/bad.json").write_text(content)
    done = nice_bench("tables", "out")
    assert (done.code, bool(done.out)) == (0, True)
    assert done.err.startswith("nice-bench: left out: out/bad.json: ")
    alone = nice_bench("tables", "out/bad.json")
    assert (alone.code, alone.out) == (1, "")
    assert alone.err.startswith("nice-bench: out/bad.json: ")


# sample, port, doctor


def test_sample_draws_a_picture_and_says_where(nice_bench):
    architecture = Architecture(dim=784, couplings=1, hidden_layers=1, hidden_units=2)
    parameters.save("w.safetensors", architecture, weights(architecture, "float32"))
    done = nice_bench("sample", "w.safetensors", "--backend", "numpy", "--rows", 2, "--output", "two.png")
    assert (done.code, done.out) == (0, "two.png\n")
    assert np.asarray(Image.open("two.png")).shape == (56, 56)
    assert sorted(left_here()) == ["two.json", "two.png", "w.safetensors"]


def test_sample_names_its_picture_by_its_kind(nice_bench):
    parameters.save("w.safetensors", SMALL, weights(SMALL, "float32"))
    done = nice_bench("sample", "w.safetensors", "--kind", "spectrum")
    assert (done.code, done.out) == (0, "samples-spectrum.png\n")
    assert sorted(left_here()) == ["samples-spectrum.json", "samples-spectrum.png", "w.safetensors"]


def test_sample_takes_several_temperatures(nice_bench):
    architecture = Architecture(dim=16, couplings=1, hidden_layers=1, hidden_units=2)
    parameters.save("w.safetensors", architecture, weights(architecture, "float32"))
    done = nice_bench(
        *("sample", "w.safetensors", "--backend", "numpy", "--rows", 2, "--temperature", 0.5, "--temperature", 1)
    )
    assert (done.code, done.out) == (0, "samples-grid.png\n")
    assert np.asarray(Image.open("samples-grid.png")).shape == (8, 22)


def test_port_writes_the_other_form_and_prints_the_agreement(nice_bench, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"numpy": None})
    parameters.save("w.safetensors", SMALL, weights(SMALL, "float32"))
    done = nice_bench("port", "w.safetensors", "w.npz")
    assert done.code == 0
    assert "bit for bit" in done.out
    assert Path("w.npz").is_file()


@pytest.fixture
def machine(monkeypatch):
    """A machine without a GPU, with one backend."""
    reasons = {"jax": "jax: can't be imported here (No module named 'jax')", "numpy": None}
    monkeypatch.setattr(backends, "available", lambda: reasons)
    monkeypatch.setattr(environment, "gpus", list)


@pytest.mark.parametrize(
    "told", ["Python", "none is visible to the NVIDIA driver", "No module named 'jax'", "modes eager", "not yet in"]
)
def test_doctor_says_what_there_is(nice_bench, machine, told):
    done = nice_bench("doctor")
    assert (done.code, done.err) == (0, "")
    assert told in done.out


def test_doctor_is_aligned_whatever_a_backend_is_called(nice_bench, machine, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"a-framework-of-another-package": "it is not here"})
    lines = nice_bench("doctor").out.splitlines()
    assert {line[:32].rstrip() for line in lines} == {"Python", "CPU", "GPU", "a-framework-of-another-package", "MNIST"}
    assert all(line[31] == " " and line[32] != " " for line in lines)


def test_agree_goes_on_without_what_is_not_there_unless_it_was_asked_for(nice_bench, machine, monkeypatch):
    asked = []
    monkeypatch.setattr(cli.agreement_runs, "run", lambda names, *_, **__: asked.append(names) or "all agree")
    reasons = backends.available()
    monkeypatch.setattr(backends, "available", lambda: {"torch": None} | reasons)
    done = nice_bench("agree")
    assert (done.code, done.out) == (0, "all agree\n")
    assert done.err == "jax is left out: jax: can't be imported here (No module named 'jax')\n"
    nice_bench("agree", "--backends", "numpy,jax")
    assert asked == [["torch", "numpy"], ["numpy", "jax"]]


def test_agree_does_not_hold_the_reference_against_itself(nice_bench, machine):
    done = nice_bench("agree")
    assert done.code == 1
    assert "no framework can be imported here" in done.err


def test_doctor_can_require_a_gpu(nice_bench, machine):
    done = nice_bench("doctor", "--require-gpu")
    assert (done.code, done.err) == (1, "nice-bench: no GPU is visible to the NVIDIA driver here\n")
