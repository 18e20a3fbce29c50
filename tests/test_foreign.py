"""Weights that others trained in PyTorch: the flow that `port` makes of them has the log p that PyTorch gives."""

import pickle  # noqa: TID251 - to make what must not be read
from pathlib import Path

import numpy as np
import pytest
from factories import SMALL, assert_same_bits, backend_names, weights
from typer.testing import CliRunner

import backends
from backends import ParameterError, parameters
from bench.commands import cli
from bench.errors import BenchError
from bench.weights import foreign

if "torch" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves torch out", allow_module_level=True)

import foreign_models as models
import torch
from foreign_checks import assert_density, port, ported, refused
from foreign_models import DIM, points, torch_alternating, torch_density, torch_masked

EVEN, ODD = [1.0, 0] * 4, [0, 1.0] * 4


def saved_torch(folder, model, name="foreign.pth", wrap=lambda state: state):
    torch.save(wrap(model.state_dict() if isinstance(model, torch.nn.Module) else model), folder / name)
    return folder / name


# PyTorch, couplings in turn


def test_every_backend_has_the_log_p_of_a_trained_torch_model(tmp_path):
    model = torch_alternating("even")
    models.train_torch(model)
    source, expected = saved_torch(tmp_path, model), torch_density(model, points())
    found, _ = assert_density(source, expected, "paper", ["alternate=even"], names=backend_names(), dtype="float32")
    assert (found.permutation, found.permute, found.split) == ("shuffle", "before", "interleaved")


@pytest.mark.parametrize("couplings", [1, 2, 3, 12])
@pytest.mark.parametrize("start", ["even", "odd", "first", "second"])
def test_couplings_in_turn_give_log_p_and_z_of_the_model(tmp_path, start, couplings):
    model = torch_alternating(start, couplings, hidden=2).double()
    lost = start in ("even", "first") and couplings % 2  # begins and ends with a half that no split can put second
    order = None
    if lost:
        read, changed = (
            (np.arange(DIM)[1::2], np.arange(DIM)[::2]) if start == "even" else np.arange(DIM).reshape(2, 4)[::-1]
        )
        order = np.stack([read, changed], axis=1).reshape(-1)
    source, expected = saved_torch(tmp_path, model), torch_density(model, points("float64"))
    found, told = assert_density(source, expected, "paper", [f"alternate={start}"], order=order)
    assert bool(lost) == ("z comes out in another order" in told)
    assert found.couplings == couplings


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
@pytest.mark.parametrize("output", ["relu", "linear"])
@pytest.mark.parametrize("sign", ["add", "subtract"])
def test_options_of_a_state_dictionary(tmp_path, sign, output, prior):
    model = torch_alternating("odd", 2, output=output, sign=sign, prior=prior).double()
    options = [f"sign={sign}", f"output={output}", f"prior={prior}", "alternate=odd"]
    assert_density(saved_torch(tmp_path, model), torch_density(model, points("float64")), "article", options)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_checkpoint_with_more_in_it_is_read(tmp_path, key):
    model = torch_alternating("odd").double()
    source = saved_torch(tmp_path, model, "nice.pt", lambda state: {"epoch": 3, key: state})
    assert_density(source, torch_density(model, points("float64")), "paper", ["alternate=odd"])


def test_numbers_order_couplings_where_names_were_sorted(tmp_path):
    model = torch_alternating("odd", 12).double()
    source = saved_torch(tmp_path, {name: model.state_dict()[name] for name in sorted(model.state_dict())})
    assert_density(source, torch_density(model, points("float64")), "paper", ["alternate=odd"])


def test_a_single_list_of_layers_is_cut_by_its_shapes(tmp_path):
    model = torch_alternating("odd", 3).double()
    names = [n.removesuffix(".weight") for n in model.state_dict() if n.endswith("weight")]
    state = {
        f"fc{names.index(n.rpartition('.')[0])}.{n.rpartition('.')[2]}": t
        for n, t in model.state_dict().items()
        if "coupling" in n
    }
    source = saved_torch(tmp_path, state | {"log_scale": model.scaling.scale[0]})
    assert_density(source, torch_density(model, points("float64")), "paper", ["alternate=odd"])


def test_without_turns_the_architecture_says_the_order(tmp_path):
    """The paper's network, whose reversals are no weights."""
    given = weights(SMALL)
    state = {"scale": torch.from_numpy(given["log_scale"])}
    for name, array in given.items():
        if name.startswith("coupling"):
            state[name.replace("coupling", "nets").replace("dense.", "").replace("kernel", "weight")] = (
                torch.from_numpy(array.T.copy())
            )
    for base in ("article", "paper"):
        found, arrays, _ = ported(saved_torch(tmp_path, state), base)
        assert found.permutation == "reverse"
        assert_same_bits(arrays, given)


# PyTorch, masks


def masks(kind):
    generator = np.random.default_rng(9)
    return {
        "even": [EVEN, ODD, EVEN, ODD],
        "odd": [ODD, EVEN, ODD, EVEN],
        "halves": [[1.0] * 4 + [0] * 4, [0] * 4 + [1.0] * 4] * 2,
        "all alike": [EVEN, EVEN],
        "random": [list(generator.permutation(EVEN)) for _ in range(11)] + [EVEN],
        "random, lost": [list(generator.permutation(EVEN)) for _ in range(3)],
    }[kind]


@pytest.mark.parametrize("marks", ["read", "changed"])
@pytest.mark.parametrize("kind", ["even", "odd", "halves", "all alike", "random", "random, lost"])
def test_masked_couplings_give_log_p_of_the_model(tmp_path, kind, marks):
    rows = masks(kind) if marks == "read" else [[1 - m for m in row] for row in masks(kind)]
    model = torch_masked(rows, marks=marks).double()
    order = None
    if kind == "random, lost":
        last = np.array(masks(kind)[-1])
        order = np.stack([np.flatnonzero(last), np.flatnonzero(last == 0)], axis=1).reshape(-1)
    source, expected = saved_torch(tmp_path, model), torch_density(model, points("float64"))
    found, _ = assert_density(source, expected, "paper", [] if marks == "read" else ["mask=changed"], order=order)
    assert found.hidden_units == 6
    assert found.permutation == ("none" if kind == "all alike" else "shuffle")


def test_every_backend_has_the_log_p_of_a_trained_masked_model(tmp_path):
    model = torch_masked(masks("random")[8:])
    models.train_torch(model)
    source, expected = saved_torch(tmp_path, model), torch_density(model, points())
    assert_density(source, expected, "paper", names=backend_names(), dtype="float32")


def test_masks_in_one_array_and_no_masks_but_turns(tmp_path):
    model = torch_masked([EVEN, ODD, EVEN]).double()
    expected = torch_density(model, points("float64"))
    state = {name: tensor for name, tensor in model.state_dict().items() if "mask" not in name}
    assert "no masks" in refused(saved_torch(tmp_path, state), "paper")
    assert_density(saved_torch(tmp_path, state), expected, "paper", ["alternate=odd"])
    together = state | {"masks": torch.tensor([EVEN, ODD, EVEN])}
    assert_density(saved_torch(tmp_path, together), expected, "paper")
    assert_density(saved_torch(tmp_path, together), expected, "paper", ["alternate=odd"])
    assert "contradicts the masks" in refused(saved_torch(tmp_path, together), "paper", ["alternate=even"])
    assert "contradicts" in refused(saved_torch(tmp_path, together), "paper", ["split=halves"])
    assert "2 masks and 3 networks" in refused(
        saved_torch(tmp_path, state | {"masks": torch.tensor([EVEN, ODD])}), "paper"
    )


@pytest.mark.parametrize("mask", [[1.0] * 3 + [0] * 5, [0.5] * 8, [2.0] * 2 + [0] * 6, [1.0, 0] * 3])
def test_a_mask_that_is_not_half_is_refused(tmp_path, mask):
    model = torch_masked([EVEN, ODD])
    state = model.state_dict() | {"coupling.1.mask": torch.tensor(mask)}
    assert "the mask of coupling 1" in refused(saved_torch(tmp_path, state), "paper")


# PyTorch, what is refused


def changed(state, name, value):
    return state | {name: value}


def without(state, name):
    return {key: tensor for key, tensor in state.items() if key != name}


REFUSED_TORCH = {
    "bias": (lambda s: without(s, "coupling.1.in_block.0.bias"), "coupling.1.in_block.0.weight has no bias"),
    "layer": (
        lambda s: without(without(s, "coupling.1.mid_block.0.0.bias"), "coupling.1.mid_block.0.0.weight"),
        "as many in each",
    ),
    "norm": (
        lambda s: changed(s, "coupling.0.norm.running_mean", torch.ones(6)),
        "running_mean of shape (6,) is none of",
    ),
    "scale": (lambda s: without(s, "scaling.scale"), "0 entries of a scale"),
    "scales": (lambda s: changed(s, "scale", torch.ones(8)), "2 entries of a scale"),
    "scale shape": (lambda s: changed(s, "scaling.scale", torch.ones(2, 4)), "expected (1, D)"),
    "odd dim": (lambda s: changed(s, "scaling.scale", torch.ones(1, 7)), "D even"),
    "split": (lambda s: changed(s, "coupling.0.in_block.0.weight", torch.ones(6, 5)), "reads 5 of 8"),
    "chain": (
        lambda s: changed(s, "coupling.2.mid_block.0.0.weight", torch.ones(6, 5)),
        "coupling.2.mid_block.0.0.weight has",
    ),
    "bias shape": (lambda s: changed(s, "coupling.2.out_block.bias", torch.ones(5)), "a bias of shape (5,)"),
    "not finite": (lambda s: changed(s, "scaling.scale", torch.full((1, 8), torch.nan)), "not finite"),
    "float16": (lambda s: {name: tensor.half() for name, tensor in s.items()}, "float16"),
    "bfloat16": (lambda s: {name: tensor.bfloat16() for name, tensor in s.items()}, "not a state dictionary"),
    "mixed": (lambda s: changed(s, "scaling.scale", torch.ones(1, 8).double()), "mixed"),
    "no layers": (lambda s: {"scale": torch.ones(8)}, "no weights of linear layers"),
    "empty": (lambda s: {}, "no weights of linear layers"),
    "not tensors": (lambda s: changed(s, "epoch", 3), "not a state dictionary"),
    "a list": (lambda s: [1, 2], "not a state dictionary"),
}


@pytest.mark.parametrize("fault", REFUSED_TORCH)
def test_a_state_dictionary_that_no_architecture_has_is_refused_with_what_differs(tmp_path, fault):
    spoil, told = REFUSED_TORCH[fault]
    state = dict(torch_alternating("even").state_dict())
    assert told in refused(saved_torch(tmp_path, spoil(state)), "paper", ["alternate=even"])


def test_a_state_dictionary_needs_to_be_told_what_it_does_not_say(tmp_path):
    source = saved_torch(tmp_path, torch_alternating("even"))
    assert "--architecture article or paper" in refused(source)
    assert "alternate=even or alternate=odd" in refused(source, "paper")
    assert "expected article or paper" in refused(source, "glow", ["alternate=even"])
    assert "contradicts" in refused(source, "paper", ["alternate=even", "split=halves"])
    assert "no shuffled order" in refused(source, "paper", ["permutation=shuffle"])


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
    refused(source, "paper", kind=ParameterError)
    assert not executed.exists()
    pickle.loads(pickle.dumps(Payload(executed)))
    assert executed.exists()  # it would have worked


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(torch_alternating("even"), tmp_path / "module.pt")
    refused(tmp_path / "module.pt", "paper", kind=ParameterError)


@pytest.mark.parametrize("kept", [0, 30, 0.5])
def test_a_torch_file_cut_off_is_refused(tmp_path, kept):
    source = saved_torch(tmp_path, torch_alternating("even"))
    content = source.read_bytes()
    source.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    refused(source, "paper", kind=ParameterError)


@pytest.mark.parametrize(
    "option", ["prior", "prior=", "prior=uniform", "colour=red", "dim=-8", "alternate=up", "mask=1", "mask=read"]
)
def test_an_option_that_does_not_exist_is_refused(tmp_path, option):
    assert option.partition("=")[0] in refused(saved_torch(tmp_path, torch_alternating("even")), "paper", [option])


def test_an_option_twice_is_refused():
    with pytest.raises(BenchError, match="once"):
        foreign.parse_options(["sign=add", "sign=subtract"])


# Forms and the command


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".pth"])
def test_foreign_forms_are_not_written(tmp_path, ending):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    with pytest.raises(BenchError, match="read, not written"):
        port(tmp_path / "ours.safetensors", tmp_path / f"target{ending}")
    assert not (tmp_path / f"target{ending}").exists()


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_our_own_torch_files_are_still_read(tmp_path, ending):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    port(tmp_path / "ours.safetensors", tmp_path / "ours.pt")
    source = (tmp_path / "ours.pt").rename(tmp_path / f"renamed{ending}")
    found, arrays, _ = ported(source)
    assert found == SMALL
    assert_same_bits(arrays, weights(SMALL))
    assert "says what its architecture is" in refused(source, "paper")


@pytest.mark.parametrize("ending", [".h5", ".keras", ".pth"])
def test_a_foreign_file_that_is_not_there_is_refused(tmp_path, ending):
    assert "no such file" in refused(tmp_path / f"none{ending}", kind=FileNotFoundError)


def test_the_command_passes_its_options_on(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: {"numpy": None})
    model = torch_alternating("odd").double()
    source, target = saved_torch(tmp_path, model), tmp_path / "ported.npz"
    options = ["--architecture", "paper", "--option", "alternate=odd", "--option", "prior=gaussian"]
    result = CliRunner().invoke(cli.app, ["port", str(source), str(target), *options])
    assert result.exit_code == 0, result.output
    assert "from --option: prior=gaussian" in result.output
    assert "from the paper architecture: sign=add, output=linear" in result.output
    assert target.is_file()
