"""Weights that others trained in PyTorch, in the layouts of public programs: the port is the same flow, or refused."""

import pickle  # noqa: TID251 - to make what must not be read
import zipfile
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from factories import SMALL, assert_same_bits, backend_names, weights
from typer.testing import CliRunner

import backends
from backends import ParameterError, parameters
from bench.commands import cli
from bench.errors import BenchError
from bench.weights import files, foreign

if "torch" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves torch out", allow_module_level=True)

import torch
from foreign_checks import assert_same_flow, port, refused, saved_probe
from foreign_models import DIM, Affine, Blocks, Flow, Masked, Swapped
from safetensors.torch import save_file


def saved_torch(folder, model, name="foreign.pth", wrap=lambda state: state):
    torch.save(wrap(model.state_dict() if isinstance(model, torch.nn.Module) else model), folder / name)
    return folder / name


# Layouts of public programs


READABLE = {
    "blocks in turn": lambda: Blocks(),
    "blocks, the other first": lambda: Blocks(config=0),
    "blocks, odd number": lambda: Blocks(couplings=3),
    "blocks, twelve": lambda: Blocks(couplings=12, units=3, hidden=2),
    "masks that aren't stored": lambda: Masked(slope=0),
    "halves that change places, z = s · h": lambda: Swapped(),
    "a network as wide as its half": lambda: Flow(hidden=(4, 4)),
    "stored permutations": lambda: Flow(permutation="shuffle", permute="between"),
    "stored masks": lambda: Flow(masked=True),
}
NAMED = {
    "LeakyReLU": (lambda: Masked(), "activation=leaky_relu(0.2)"),
    "LeakyReLU, halves": (lambda: Flow(activation="leaky"), "activation=leaky_relu(0.2)"),
    "tanh": (lambda: Flow(activation="tanh"), "activation=tanh"),
    "exp(s) + 1e-5": (lambda: Blocks(epsilon=1e-5), "nearest is off by"),  # its log p leaves ε out
    "two networks": (lambda: Affine(), "two networks in a coupling"),
    "two networks, flat": (lambda: Affine(flat=True), "nearest is off by"),
    "two networks as wide as the half": (lambda: Affine(units=DIM // 2), "nearest is off by"),
    "more than a network": (lambda: Swapped(odd=True), "nearest is off by"),
}


@pytest.mark.parametrize("program", READABLE)
def test_with_a_probe_the_port_is_the_flow_of_the_program(tmp_path, program):
    model = READABLE[program]()
    probe = saved_probe(tmp_path, model.says)
    _, text = assert_same_flow(saved_torch(tmp_path, model), model.says, probe=probe)
    assert text.startswith(f"proved by {probe} (16 inputs; z and log_prob agree to rounding): ")


@pytest.mark.parametrize("program", NAMED)
def test_what_no_architecture_has_is_refused_by_name(tmp_path, program):
    make, message = NAMED[program]
    model = make()
    assert message in refused(saved_torch(tmp_path, model), probe=saved_probe(tmp_path, model.says))


def test_epsilon_is_named_where_z_alone_is_given(tmp_path):
    model = Blocks(epsilon=1e-5)
    probe = saved_probe(tmp_path, model.says, holds=("z",))
    assert "scale=exp(s)+1e-05" in refused(saved_torch(tmp_path, model), ["prior=logistic"], probe)


def test_every_backend_has_the_flow_of_the_program(tmp_path):
    model = Blocks(couplings=3)
    source, probe = saved_torch(tmp_path, model), saved_probe(tmp_path, model.says)
    architecture, _ = assert_same_flow(source, model.says, probe=probe, names=backend_names())
    assert architecture.couplings == 4  # the last one adds nothing, and brings z into its order


def test_an_order_that_an_architecture_has_needs_no_stored_permutations(tmp_path):
    model = Flow(permutation="reverse", turns=False, sign=-1, output="relu", prior="gaussian")
    source, probe = saved_torch(tmp_path, model), saved_probe(tmp_path, model.says)
    architecture, _ = assert_same_flow(source, model.says, probe=probe)
    assert (architecture.permutation, architecture.permute, architecture.couplings) == ("reverse", "before", 4)


def test_sorted_names_change_nothing(tmp_path):
    model = Blocks(couplings=12, hidden=4)
    named = {name.replace("in_block", "start"): tensor for name, tensor in model.state_dict().items()}
    state = {name: named[name] for name in sorted(named)}  # what reads x now stands last
    assert_same_flow(saved_torch(tmp_path, state), model.says, probe=saved_probe(tmp_path, model.says))


def test_a_single_list_of_layers_is_cut_by_its_shapes(tmp_path):
    model = Flow(couplings=3)
    state = model.state_dict()
    names = [name.removesuffix(".weight") for name in state if name.endswith("weight")]
    flat = {f"fc{i}.{kind}": state[f"{name}.{kind}"] for i, name in enumerate(names) for kind in ("weight", "bias")}
    source = saved_torch(tmp_path, flat | {"s": state["log_scale"]})
    assert_same_flow(source, model.says, probe=saved_probe(tmp_path, model.says))


# Declared


DECLARED = {
    "sign": "add", "activation": "relu", "output": "linear", "scale": "exp(s)", "prior": "logistic",
    "networks": "first to last", "reorder": "none", "permutation": "none", "permute": "before", "split": "interleaved",
    "merge": "interleaved", "reads": "second, then first",
}  # fmt: skip


def options(stated):
    return [f"{key}={value}" for key, value in stated.items()]


def test_what_is_declared_in_full_is_taken(tmp_path):
    model = Blocks()
    _, text = assert_same_flow(saved_torch(tmp_path, model), model.says, options(DECLARED))
    assert text.startswith("stated by --option, or the only one that the file allows: ")


@pytest.mark.parametrize("missing", sorted(set(DECLARED) - {"permute"}))
def test_one_choice_left_open_is_refused_and_listed(tmp_path, missing):
    stated = {key: value for key, value in DECLARED.items() if key != missing}
    message = refused(saved_torch(tmp_path, Blocks()), options(stated))
    listed = [line.split(":")[0].strip() for line in message.splitlines()[1:] if line.startswith("    ")]
    assert listed[0] == missing
    assert 'numpy.savez("probe.npz"' in message
    assert len(message.splitlines()) <= 7


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("couplings", "3", "contradicts"),
        ("hidden_layers", "2", "contradicts"),
        ("permutation", "stored", "contradicts"),
        ("split", "mask", "contradicts"),
        ("activation", "leaky_relu(0.2)", "activation=leaky_relu(0.2), which no architecture here has"),
        ("scale", "s", "negative scale"),
    ],
)
def test_a_statement_that_the_file_contradicts_is_refused(tmp_path, key, value, message):
    assert message in refused(saved_torch(tmp_path, Blocks()), options(DECLARED | {key: value}))


@pytest.mark.parametrize(("key", "value"), [("permutation", "none"), ("split", "interleaved")])
def test_stored_permutations_and_masks_are_never_passed_over(tmp_path, key, value):
    model = Flow(masked=key == "split", permutation="shuffle" if key == "permutation" else "none")
    assert "contradicts" in refused(saved_torch(tmp_path, model), [f"{key}={value}"], saved_probe(tmp_path, model.says))
    assert "contradicts" in refused(saved_torch(tmp_path, model), options(DECLARED | {key: value}))


@pytest.mark.parametrize("flat", [True, False])
def test_two_networks_in_a_coupling_are_not_declared_away(tmp_path, flat):
    """Their layers chain as those of other networks would, so how many there are has to be stated, and isn't so."""
    source = saved_torch(tmp_path, Affine(flat=True) if flat else Affine(units=DIM // 2))
    stated = DECLARED | {"kernel": "out,in", "layers": "numbered" if flat else "alphabetical"}
    assert "couplings: " in refused(source, options(stated))
    stated |= {"couplings": 4 if flat else 2, "hidden_layers": 1}
    assert "contradicts" in refused(source, options(stated))


# Files


FORMS = {
    "bare": (lambda s: s, "foreign.pt"),
    "another ending": (lambda s: s, "foreign.ckpt"),
    "capitals": (lambda s: s, "foreign.PT"),
    "in a checkpoint": (
        lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"m": s["scaling.scale"]}}}}, "foreign.pt"
    ),
    "under any name": (lambda s: {"net": s, "epoch": 3}, "foreign.pt"),
    "deep": (lambda s: {"a": {"b": {"c": s}}}, "foreign.pt"),
    "beside a name": (lambda s: {"architecture": "nice", "state_dict": s}, "foreign.pt"),
    "beside NumPy numbers": (
        lambda s: {"state_dict": s, "best": np.float64(1.5), "epoch": np.int64(3), "done": np.bool_(True)}, "foreign.pt"
    ),
    "among numbers": (lambda s: s | {"best": np.float32(1.5), "epoch": 3}, "foreign.pt"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_state_dictionary_is_found_in_a_checkpoint(tmp_path, form):
    model = Blocks(couplings=2)
    wrap, name = FORMS[form]
    source, probe = saved_torch(tmp_path, model, name, wrap), saved_probe(tmp_path, model.says)
    assert_same_flow(source, model.says, probe=probe)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz"])
def test_half_precision_is_read_as_it_is(tmp_path, ending, dtype):
    model = Blocks(couplings=2)
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    source = tmp_path / f"foreign{ending}"
    if ending == ".npz":
        state = {name: tensor.to(torch.float16) for name, tensor in state.items()}
        model.load_state_dict(state)
        np.savez(source, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        (torch.save if ending == ".pt" else save_file)(state, source)
    assert_same_flow(source, model.says, probe=saved_probe(tmp_path, model.says))


REFUSED = {
    "a whole model": (Blocks(), "foreign_models.Blocks, which isn't read; save the model's state_dict() alone"),
    "a namespace": ({"args": Namespace(a=1)}, "argparse.Namespace, which isn't read"),
    "two of them": ({"model": Blocks().state_dict(), "ema": Blocks().state_dict()}, "2 state dictionaries"),
    "none": ({"epoch": 3}, "0 state dictionaries"),
    "a list": ([1, 2], "0 state dictionaries"),
    "no scale": (
        {n: t for n, t in Blocks().state_dict().items() if "scal" not in n},
        "it has nothing; expected one scale",
    ),
    "two scales": (Blocks().state_dict() | {"s": torch.ones(8)}, "expected one scale"),
    "batch norm": (Blocks().state_dict() | {"norm.running_mean": torch.ones(6)}, "norm.running_mean (6,)"),
    "odd": (Blocks().state_dict() | {"scaling.scale": torch.ones(7)}, "7 values; expected an even number"),
    "not finite": (Blocks().state_dict() | {"scaling.scale": torch.full((1, 8), torch.nan)}, "not finite"),
    "mixed": (Blocks().state_dict() | {"scaling.scale": torch.ones(1, 8).double()}, "mixed"),
    "a layer more": (Blocks().state_dict() | {"coupling.1.more.weight": torch.ones(6, 6)}, "as in others"),
    "half a mask": (Masked().state_dict() | {"mask": torch.tensor([[1.0] * 3 + [0] * 5] * 4)}, "3 of 8 entries set"),
    "masks": (Masked().state_dict() | {"mask": torch.tensor([[1.0, 0] * 4] * 3)}, "3 masks"),
    "much of little": (Blocks().state_dict() | {"x.weight": torch.zeros(1).expand(10**6, 10**6)}, "numbers in"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_file_that_holds_no_flow_is_refused_with_the_reason(tmp_path, fault):
    content, message = REFUSED[fault]
    torch.save(content, tmp_path / "foreign.pt")
    assert message in (said := refused(tmp_path / "foreign.pt", options(DECLARED)))
    assert len(said.splitlines()) == 1


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickled_code_is_refused_and_not_executed(tmp_path, write):
    executed, source = tmp_path / "executed", tmp_path / "evil.pth"
    write({"state_dict": {"weight": Payload(executed)}}, source)
    refused(source, kind=ParameterError)
    assert not executed.exists()
    pickle.loads(pickle.dumps(Payload(executed)))
    assert executed.exists()  # it would have worked


@pytest.mark.parametrize("kept", [0, 30, 0.5])
def test_a_torch_file_cut_off_is_refused(tmp_path, kept):
    source = saved_torch(tmp_path, Blocks())
    content = source.read_bytes()
    source.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    refused(source, kind=ParameterError)


@pytest.mark.parametrize("ending", [".npz", ".keras", ".pt"])
def test_a_file_that_unpacks_to_much_more_is_refused_before_it_is_unpacked(tmp_path, ending, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / f"bomb{ending}", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**21))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # whatever unpacks an entry
    assert "expected at most" in refused(tmp_path / f"bomb{ending}")


@pytest.mark.parametrize("option", ["prior", "prior=", "prior=uniform", "colour=red", "couplings=-8", "split=masks"])
def test_an_option_that_does_not_exist_is_refused(tmp_path, option):
    assert option.partition("=")[0] in refused(saved_torch(tmp_path, Blocks()), [option])


def test_an_option_twice_is_refused():
    with pytest.raises(BenchError, match="once"):
        foreign.parse_options(["sign=add", "sign=subtract"])


# Forms and the command


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".pth", ".onnx", ""])
def test_what_cannot_be_written_is_refused_with_what_can(tmp_path, ending):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    with pytest.raises(BenchError, match=r"can't be written; expected an ending among \.safetensors, \.npz, \.pt"):
        port(tmp_path / "ours.safetensors", tmp_path / f"target{ending}")
    assert not (tmp_path / f"target{ending}").exists()


def test_the_endings_that_are_said_to_be_read_are_those_that_are(tmp_path):
    message = refused(tmp_path / "model.onnx")
    listed = message.partition("among ")[2].split(", ")
    assert {".safetensors", ".npz", ".pt", ".pth", ".ckpt", ".h5", ".keras"} == set(listed)
    for ending in listed:
        assert "no such file" in refused(tmp_path / f"none{ending}", kind=FileNotFoundError)


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_our_own_torch_files_are_still_read(tmp_path, ending):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    port(tmp_path / "ours.safetensors", tmp_path / "ours.pt")
    source = (tmp_path / "ours.pt").rename(tmp_path / f"renamed{ending}")
    port(source, tmp_path / "again.safetensors")
    found, arrays = parameters.load(tmp_path / "again.safetensors")
    assert found == SMALL
    assert_same_bits(arrays, weights(SMALL))
    assert "says what its architecture is" in refused(source, ["sign=add"])


def test_the_command_passes_its_options_on(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"numpy": None})
    model = Blocks(couplings=2)
    source, target = saved_torch(tmp_path, model), tmp_path / "ported.npz"
    probe = saved_probe(tmp_path, model.says, holds=("z",))
    given = ["port", str(source), str(target), "--probe", str(probe), "--option", "prior=logistic"]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 0, result.output
    assert "prior=logistic" in result.output
    assert target.is_file()


def test_the_help_shows_how_a_probe_is_made():
    text = CliRunner().invoke(cli.app, ["port", "--help"]).output
    for line in ("x = torch.randn(16, D)", "z = model(x)", 'numpy.savez("probe.npz", x=x, z=z)', "numpy.random.randn"):
        assert line in text
