"""The command line: what it prints where, what it leaves behind, and its exit codes."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from factories import SMALL, weights
from PIL import Image

import backends
from backends import Architecture, parameters
from bench.commands import cli, options
from bench.errors import BenchError
from bench.records import environment
from bench.running import runner

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch):
    """Whether this machine is busy is neither waited for nor said."""
    monkeypatch.setattr(cli, "_warn_if_busy", lambda device: None)


def left_here():
    return [str(path) for path in Path().rglob("*")]


@pytest.fixture(autouse=True)
def signals():
    """The handlers that the command line sets are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:  # under nohup, tests inherit that one is ignored
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_an_interruption_and_not_the_end(monkeypatch, number):
    monkeypatch.setattr(cli, "app", lambda _: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        cli.main()
    signal.raise_signal(number)  # a second one doesn't end what the first one has begun


def test_what_nohup_has_ignored_stays_ignored(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(cli, "app", lambda _: signal.raise_signal(signal.SIGHUP))
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
        (["run", "--protocol", "smoke", "--backends", "numpy", "--mode", "jax=jit"], "jax is not among the backends"),
        (["sweep", "--backends", "numpy", "--mode", "jax=jit"], "jax is not among the backends that are run: numpy"),
        (["profile", "--backends", "jax", "--mode", "torch=eager"], "torch is not among the backends"),
        (["agree", "--devices", "2", "--weights", "none.safetensors"], "--weights is of no use with --devices"),
        (["run", "--protocol", "smoke", "--batch", "0"], "training.batch: found 0, expected greater than 0"),
        (["run", "--protocol", "smoke", "--epochs", "0"], "training.epochs: found 0"),
        (["run", "--protocol", "smoke", "--epochs", "2", "--rounds", "3"], "training.rounds is 3; expected at most"),
        (["peers", "--frameworks", ""], "--frameworks '': expected some of torch, tensorflow, jax"),
        (["peers", "--frameworks", "torch,mxnet"], "--frameworks 'torch,mxnet': expected some of torch, tensorflow"),
        (["peers", "--peers", ""], "--peers '': expected some of keras fit"),
        (["peers", "--frameworks", "jax", "--peers", "zuko"], "--peers 'zuko': expected some of keras fit"),
        (["agree", "--backends", ""], "--backends '': expected some of torch"),
        (["sweep", "--axis", ""], "--axis '': expected some of batch, width, depth, couplings"),
        (["sweep", "--axis", "height"], "--axis 'height': expected some of batch, width, depth, couplings"),
        (["sweep", "--values", "batch=0"], "--values 'batch=0': expected AXIS=N,N,… with positive integers"),
        (["sweep", "--values", f"batch={2**53 + 1}"], "expected AXIS=N,N,… with positive integers"),
        (["sweep", "--axis", "batch", "--values", "depth=3"], "values of depth, which isn't swept; the axes are batch"),
        (["sweep", "--operations", "train,encode"], "--operations 'train,encode': expected some of log_prob, sample"),
        (["sweep", "--operations", ""], "--operations '': expected some of log_prob, sample, train"),
        (["plots"], "results: no such file or folder"),
        (["tables"], "results: no such file or folder"),
        (["tables", "."], "no records in .; `nice-bench run` makes some"),
        (["tables", "results", "--into", "text.md"], "RECORDS is of no use with --into"),
        (["tables", "--into", "text.md", "--all"], "--all is of no use with --into"),
        (["tables", "--write", "out", "--format", "latex"], "--format is of no use with --write"),
        (["tables", "--formats", "latex"], "--formats is of no use without --write"),
        (["sample", "none.safetensors"], "none.safetensors: no such file"),
        (
            ["sample", "none.safetensors", "--kind", "mosaic"],
            "'mosaic'; expected one of grid, interpolation, traversal",
        ),
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
        (["run", "--tables", "some"], "'some' is not one of 'brief', 'all', 'none'"),
        (["run", "--scaling", "lazy"], "'lazy' is not one of 'strong', 'weak'"),
        (["history", "--format", "html"], "'html' is not one of 'text', 'markdown', 'csv', 'bencher', 'github'"),
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
    assert "; use --device cpu" in done.err


def test_an_interruption_ends_with_130(nice_bench, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    done = nice_bench("run", "--protocol", "smoke")
    assert done.code == 130
    assert done.err.splitlines()[-1] == "nice-bench: interrupted; what was measured until then is kept"


def test_sizes_that_are_given_in_two_options_are_all_swept():
    assert options.sizes(["batch=8,16", "width=3", "batch=4,8"]) == {"batch": [8, 16, 4], "width": [3]}


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


def test_tables_are_the_answers_with_speed_and_accuracy_or_all_there_are(nice_bench, recorded):
    short, every = nice_bench("tables", "out").out, nice_bench("tables", "out", "--all").out
    headings = ("\nTraining speed\n", "\nAccuracy\n")
    assert "Fastest?" in short
    assert all(heading in short for heading in headings)
    assert "In short: " not in short
    assert all(heading in every for heading in ("In short: ", *headings))
    assert "Fastest?" not in every


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


@pytest.mark.parametrize("told", ["Python", "none is visible to the NVIDIA driver", "modes eager", "not yet in"])
def test_doctor_says_what_there_is(nice_bench, machine, told):
    done = nice_bench("doctor", "--backends", "numpy")
    assert (done.code, done.err) == (0, "")
    assert told in done.out


def test_doctor_is_aligned_whatever_a_backend_is_called(nice_bench, machine, monkeypatch):
    monkeypatch.setattr(backends, "REFUSED", {"jax (a package)": "it is not here"})
    lines = nice_bench("doctor", "--backends", "numpy").out.splitlines()
    assert {line[:17].rstrip() for line in lines} == {"Python", "CPU", "GPU", "numpy", "", "jax (a package)", "MNIST"}
    assert all(line[16] == " " and line[17] != " " for line in lines)


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
    assert (done.code, done.err) == (
        1,
        "nice-bench: no GPU is visible to the NVIDIA driver here: the reason stands above\n",
    )
