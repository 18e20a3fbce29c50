"""Weights of others whose names say no order, whose file keeps none, or in which a large dimension hides the others."""

import zipfile

import numpy as np
import pytest
from factories import SMALL, backend_names, weights

from backends import parameters
from bench.weights import files

if "torch" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves torch out", allow_module_level=True)

import torch
from foreign_checks import assert_same_flow, port, refused, saved_probe
from foreign_models import DIM, Flow
from safetensors.torch import save_file

STATED = [
    f"{key}={value}"
    for key, value in {
        "sign": "add", "activation": "relu", "output": "linear", "scale": "exp(s)", "prior": "logistic",
        "networks": "first to last", "reorder": "none", "permutation": "none", "permute": "before",
        "split": "interleaved", "merge": "interleaved", "reads": "first, then second",
    }.items()
]  # fmt: skip
WORDS = ("into", "right", "left", "out")  # those at the ends are known by their shapes


def worded(**settings):
    """A flow, and its state dictionary with the layers of its networks named by words."""
    model = Flow(couplings=2, hidden=(6, 6, 6), **settings)
    state = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "nets":
            parts[2] = WORDS[int(parts[2]) // 2]
        state[".".join(parts)] = tensor
    return model, state


def saved(folder, state, ending=".pt"):
    path = folder / f"foreign{ending}"
    if ending == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        (torch.save if ending == ".pt" else save_file)(state, path)
    return path


@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_the_order_of_layers_that_words_name_has_to_be_stated_or_proved(tmp_path, ending):
    model, state = worded()
    source = saved(tmp_path, state, ending)
    assert "layers: alphabetical; stored" in refused(source, [*STATED, "kernel=out,in"])
    assert_same_flow(source, model.says, [*STATED, "kernel=out,in", "layers=stored"])
    assert "contradicts" in refused(source, [*STATED, "kernel=out,in", "layers=numbered"])
    assert_same_flow(source, model.says, probe=saved_probe(tmp_path, model.says))


def test_where_the_file_keeps_no_order_the_alphabet_is_the_only_one_and_has_to_be_stated(tmp_path):
    model, state = worded()
    source = saved(tmp_path, state, ".safetensors")
    assert "layers: alphabetical\n" in refused(source, [*STATED, "kernel=out,in"])
    assert "contradicts" in refused(source, [*STATED, "kernel=out,in", "layers=stored"])
    assert "no reading gives" in refused(source, probe=saved_probe(tmp_path, model.says))


def test_numbers_say_the_order_of_layers_whatever_the_file_does(tmp_path):
    model = Flow(couplings=2)
    source = saved(tmp_path, model.state_dict(), ".safetensors")
    assert_same_flow(source, model.says, [*STATED, "kernel=out,in"])
    assert "contradicts" in refused(source, [*STATED, "kernel=out,in", "layers=stored"])


@pytest.mark.parametrize("integers", [False, True])
def test_the_order_of_masks_and_permutations_that_words_name_takes_a_probe(tmp_path, integers):
    even = torch.arange(DIM) % 2
    named = {"mask_odd": even.float(), "mask_even": 1.0 - even}
    if integers:
        named = {"order_there": torch.arange(DIM).flip(0), "order_back": torch.arange(DIM)}
    source = saved(tmp_path, Flow(couplings=2).state_dict() | named)
    assert f"{' and '.join(sorted(named))} differ in a word, which says no order" in refused(source)
    if not integers:
        model = Flow(couplings=2, masked=True)
        masks = model.state_dict()["masks"]
        state = {name: each for name, each in model.state_dict().items() if name != "masks"}
        source = saved(tmp_path, state | {"mask_a": masks[0], "mask_b": masks[1]})
        assert_same_flow(source, model.says, probe=saved_probe(tmp_path, model.says))


@pytest.mark.parametrize("count", [0, 1, DIM // 2, 2 * DIM])
def test_integers_that_are_no_permutation_of_the_dimensions_are_refused_by_name(tmp_path, count):
    source = saved(tmp_path, Flow().state_dict() | {"steps": torch.arange(count)})
    assert f"steps holds {count} integers from 0 up; expected" in refused(source)


@pytest.mark.parametrize(("holds", "prior"), [(("z",), ["prior=gaussian"]), (("z", "log_prob"), [])])
def test_a_dimension_that_is_scaled_up_hides_no_error_in_the_others(tmp_path, holds, prior):
    model = Flow(prior="gaussian")
    s = torch.tensor([14.0, 2.0, 1.0, 0.0, -5.0, -7.0, 1.0, 2.0])[None]
    with torch.no_grad():
        model.log_scale.copy_(s)
    source = saved(tmp_path, model.state_dict())

    def says(x, epsilon=1e-3):
        h = model.says(x)["z"] / np.exp(s.numpy())
        multiplier = np.exp(s.numpy().astype("f8")) + epsilon
        z = h * multiplier
        return {"z": z, "log_prob": -0.5 * (z**2 + np.log(2 * np.pi)).sum(1) + np.log(multiplier).sum()}

    message = refused(source, prior, saved_probe(tmp_path, says, holds=holds))
    assert "scale=exp(s)+0.001" in message or "no reading gives the probe's values" in message
    exact = saved_probe(tmp_path, lambda x: says(x, 0.0), holds=holds)
    port(source, tmp_path / "ported.npz", prior, exact)


def test_what_stands_beside_the_state_dictionary_is_named(tmp_path):
    model = Flow(couplings=2)
    beside = {"flow": model.state_dict(), "prior": {"loc": torch.zeros(DIM)}, "masks": [torch.ones(2)]}
    beside["optimizer"] = torch.optim.Adam(model.parameters()).state_dict()
    torch.save(beside, tmp_path / "foreign.pt")
    text = port(tmp_path / "foreign.pt", tmp_path / "ported.npz", probe=saved_probe(tmp_path, model.says))
    assert "left out, as no part of the model: prior.loc, masks.0\n" in text


# Files of ours, damaged


def test_a_file_that_asks_for_layers_without_end_is_refused(tmp_path):
    endless = SMALL.to_dict() | {"couplings": 3_000_000}
    torch.save({"architecture": endless, "state_dict": {}}, tmp_path / "ours.pt")
    np.savez(tmp_path / "ours.npz", architecture=np.array(str(endless).replace("'", '"')))
    for ending in (".pt", ".npz"):
        assert "dense layers in all; expected at most" in refused(tmp_path / f"ours{ending}")


def test_damaged_files_are_refused_in_a_line(tmp_path):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    port(tmp_path / "ours.safetensors", tmp_path / "ours.pt")
    content = torch.load(tmp_path / "ours.pt", weights_only=True)
    torch.save(content | {"state_dict": content["state_dict"] | {"step": 5}}, tmp_path / "ours.pt")
    assert "not a .pt file of weights" in refused(tmp_path / "ours.pt")
    np.savez(tmp_path / "deep.npz", architecture=np.array("[" * 100_000))
    assert "not an .npz file of weights" in refused(tmp_path / "deep.npz")


def test_any_byte_of_a_compressed_file_may_be_damaged(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(40.0))
    whole = (tmp_path / "a.npz").read_bytes()
    reasons = set()
    for i in range(len(whole)):
        damaged = whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            files.npz(tmp_path / "a.npz")
        except parameters.ParameterError as error:
            reasons.add(type(error.__cause__))
    assert {zipfile.BadZipFile, NotImplementedError} <= reasons
    assert any(reason.__module__ == "zlib" for reason in reasons)


def test_a_target_in_a_folder_that_is_a_file_is_refused_by_its_name(tmp_path):
    parameters.save(tmp_path / "ours.safetensors", SMALL, weights(SMALL))
    port(tmp_path / "ours.safetensors", tmp_path / "new" / "ours.npz")  # a folder that isn't there is made
    with pytest.raises(Exception, match=r"ours\.safetensors/a\.npz: can't be written"):
        port(tmp_path / "ours.safetensors", tmp_path / "ours.safetensors" / "a.npz")
