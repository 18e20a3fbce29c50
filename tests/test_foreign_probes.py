"""Any combination of choices: with a probe the port is the model's own flow, or it is refused; weak probes are."""

import numpy as np
import pytest
from factories import backend_names

if "torch" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves torch out", allow_module_level=True)

import torch
from foreign_checks import assert_same_flow, refused, saved_probe
from foreign_models import DIM, Flow, points

CHOICES = {
    "couplings": (1, 2, 3, 4),
    "hidden": ((6,), (6, 6), (4, 4), (6, 6, 6)),
    "first": (0, 1),
    "turns": (True, False),
    "split": ("interleaved", "halves"),
    "merge": (None, None, None, "interleaved", "halves"),
    "permutation": ("none", "reverse", "shuffle"),
    "permute": ("before", "after", "between"),
    "sign": (1, -1),
    "activation": ("relu", "relu", "relu", "relu", "leaky", "leaky, 0.07", "tanh", "mish"),
    "output": ("linear", "linear", "linear", "relu", "relu", "tanh"),
    "scale": ("exp(s)", "exp(s)", "exp(-s)", "s", "exp(s)+1e-5", "exp(s)+3e-4", "exp(2s)"),
    "prior": ("gaussian", "logistic"),
    "masked": (False, False, True),
    "stored": (True, True, True, False),
}
READABLE = {"activation": ("relu",), "output": ("linear", "relu"), "scale": ("exp(s)", "exp(-s)", "s")}


def drawn(seed):
    """One value of each choice; of even seeds, one that an architecture has."""
    generator = np.random.default_rng(seed)
    allowed = CHOICES if seed % 2 else CHOICES | READABLE | {"stored": (True,)}
    settings = {key: values[generator.integers(len(values))] for key, values in allowed.items()}
    if settings["masked"]:
        settings["merge"] = None
    return settings


def is_readable(settings):
    """Whether an architecture can say it, and the file holds what no search could find."""
    return all(settings[key] in values for key, values in READABLE.items()) and (
        settings["stored"] or settings["permutation"] != "shuffle"
    )


def saved(folder, model):
    torch.save(model.state_dict(), folder / "foreign.pt")
    return folder / "foreign.pt"


@pytest.mark.parametrize("seed", range(60))
def test_a_port_with_a_probe_is_right_or_refused(tmp_path, seed):
    settings = drawn(seed)
    model = Flow(**settings, seed=seed)
    probe = saved_probe(tmp_path, model.says)
    if is_readable(settings):
        assert_same_flow(saved(tmp_path, model), model.says, probe=probe)
    else:
        refused(saved(tmp_path, model), probe=probe)


@pytest.mark.parametrize("seed", range(24))
def test_a_wrong_statement_is_refused_whatever_the_rest_is(tmp_path, seed):
    """One statement that contradicts the model, beside its probe."""
    settings = drawn(seed) | {"activation": "relu", "output": "linear", "scale": "exp(s)", "stored": True}
    model = Flow(**settings, seed=seed)
    wrong = [
        f"sign={'subtract' if settings['sign'] == 1 else 'add'}",
        f"prior={'gaussian' if settings['prior'] == 'logistic' else 'logistic'}",
        "output=relu",
        "activation=leaky_relu(0.2)",
        "scale=exp(-s)",
        f"couplings={settings['couplings'] + 1}",
    ]
    probe, source = saved_probe(tmp_path, model.says), saved(tmp_path, model)
    refused(source, [wrong[seed % len(wrong)]], probe)


@pytest.mark.parametrize("settings", [{}, {"activation": "leaky"}, {"scale": "exp(s)+1e-5"}], ids=str)
@pytest.mark.parametrize("holds", [("z",), ("log_prob",), ("z", "log_prob")], ids="+".join)
def test_half_a_probe_proves_what_it_can(tmp_path, holds, settings):
    """z says nothing of the prior, log p nothing of the order of z."""
    model = Flow(**settings, masked=True)
    source, probe = saved(tmp_path, model), saved_probe(tmp_path, model.says, holds=holds)
    if settings:
        refused(source, ["prior=logistic"], probe)
        return
    if "log_prob" in holds:
        assert_same_flow(source, model.says, ["permutation=none", "split=mask", "merge=mask"], probe=probe)
    else:
        assert "prior: gaussian, logistic" in (message := refused(source, probe=probe))
        assert "log_prob in the probe tells them apart" in message
        assert_same_flow(source, model.says, ["prior=logistic"], probe=probe)


def test_log_p_alone_does_not_say_in_what_order_z_comes_if_all_is_scaled_alike(tmp_path):
    model = Flow(couplings=2)
    probe = saved_probe(tmp_path, model.says, holds=("log_prob",))
    assert_same_flow(saved(tmp_path, model), model.says, probe=probe)
    with torch.no_grad():
        model.log_scale.zero_()
    probe = saved_probe(tmp_path, model.says, holds=("log_prob",))
    assert "z in the probe tells them apart" in refused(saved(tmp_path, model), probe=probe)


def one_at(x, place):
    return np.where(np.arange(DIM) == place, x, 0).astype("float32")


WEAK = {
    "zeros": (np.zeros((16, DIM), "float32"), "1 different rows"),
    "a row": (points(1), "1 different rows"),
    "a row many times": (points(1).repeat(16, 0), "1 different rows"),
    "three rows": (points(3), "3 different rows"),
    "one dimension": (one_at(points(), 2), "7 of 8 dimensions"),
    "border": (np.where(np.arange(DIM) < 7, points(), 0).astype("float32"), "1 of 8 dimensions"),
    "tiny": (points() * np.float32(1e-7), "several readings"),
}


@pytest.mark.parametrize("weakness", WEAK)
def test_a_weak_probe_is_refused(tmp_path, weakness):
    x, message = WEAK[weakness]
    model = Flow(couplings=2)
    assert message in refused(saved(tmp_path, model), probe=saved_probe(tmp_path, model.says, x))


def test_a_probe_on_which_no_unit_is_off_cannot_tell_activations(tmp_path):
    """All hidden units of the probe are positive: LeakyReLU and the identity would give the same."""
    model = Flow(couplings=2, hidden=(6,), sign=1)
    with torch.no_grad():
        for net in model.nets:
            net[0].bias += 50
    message = refused(saved(tmp_path, model), probe=saved_probe(tmp_path, model.says, holds=("z", "log_prob")))
    assert "activation: relu, linear" in message


@pytest.mark.parametrize("silent", ["scale", "networks"])
def test_readings_that_are_one_function_are_no_ambiguity(tmp_path, silent):
    model = Flow(couplings=2)
    with torch.no_grad():
        for parameter in [model.log_scale] if silent == "scale" else [net[-2].weight for net in model.nets]:
            parameter.zero_()
        if silent == "networks":
            for net in model.nets:
                net[-2].bias.zero_()
    assert_same_flow(saved(tmp_path, model), model.says, probe=saved_probe(tmp_path, model.says))


BAD = {
    "no x": (lambda p: p.pop("x"), "expected x"),
    "x alone": (lambda p: [p.pop("z"), p.pop("log_prob")], "expected x"),
    "other": (lambda p: p.update(y=p["z"]), "expected x"),
    "half": (lambda p: p.update(z=p["z"].astype("float16")), "z is float16"),
    "integers": (lambda p: p.update(x=(100 * p["x"]).astype("int64")), "x is int64"),
    "not finite": (lambda p: p["z"].__setitem__((0, 0), np.nan), "aren't finite"),
    "shape": (lambda p: p.update(z=p["z"][:, :-1]), "z has shape (16, 7)"),
    "rows": (lambda p: p.update(log_prob=p["log_prob"][:-1]), "log_prob has shape (15,)"),
    "objects": (lambda p: p.update(x=p["x"].astype(object)), "not an .npz file"),
    "another model": (lambda p: p["z"].__iadd__(1), "nearest is off by"),
    "constant left out": (lambda p: p["log_prob"].__iadd__(np.float32(4 * np.log(2 * np.pi))), "nearest is off by"),
    "half-precision numbers": (lambda p: p.update(z=p["z"].astype("float16").astype("float32")), "nearest is off by"),
    "order of z": (lambda p: p.update(z=p["z"][:, [1, 0, 2, 3, 4, 5, 6, 7]]), "nearest is off by"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_probe_that_is_none_is_refused(tmp_path, fault):
    model = Flow()
    probe = saved_probe(tmp_path, model.says)
    with np.load(probe) as file:
        entries = {name: file[name].copy() for name in file.files}
    spoil, message = BAD[fault]
    spoil(entries)
    np.savez(probe, **entries)
    assert message in refused(saved(tmp_path, model), probe=probe)


def test_a_probe_in_double_precision_is_held_to_it(tmp_path):
    model = Flow().double()
    x = points().astype("float64") + 1e-9

    def says(x):
        return model.says(x)

    source, probe = saved(tmp_path, model), saved_probe(tmp_path, says, x, dtype="float64")
    assert_same_flow(source, lambda x: says(x.astype("float64")), probe=probe)
    with np.load(probe) as file:
        entries = dict(file)
    np.savez(probe, **entries | {"z": entries["z"] * (1 + 1e-8)})
    assert "nearest is off by" in refused(source, probe=probe)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_probe_that_cannot_be_read_is_refused(tmp_path, content):
    source, probe = saved(tmp_path, Flow()), tmp_path / "probe.npz"
    if content is None:
        assert "no such file" in refused(source, probe=probe, kind=FileNotFoundError)
    else:
        probe.write_bytes(content)
        assert "not an .npz file" in refused(source, probe=probe)
