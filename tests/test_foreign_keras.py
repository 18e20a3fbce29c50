"""Weights that Keras trained: with a probe the port is the same flow, or it is refused."""

import json
import zipfile

import h5py
import numpy as np
import pytest
from factories import backend_names

from backends import ParameterError

if "tensorflow" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves tensorflow out", allow_module_level=True)

import foreign_models as models
import keras
from foreign_checks import assert_same_flow, refused, saved_probe
from foreign_models import DIM, Encoder, keras_article, keras_says, points, randomised

ORDER = [1, 0, 2, 3, 7, 6, 5, 4]

pytestmark = pytest.mark.slow


def saved_keras(folder, model, form):
    path = folder / f"foreign{form}"
    model.save(path) if form == ".keras" else model.save_weights(path)
    return path


def probed(folder, model, form):
    """The file, what the model says, and its probe."""

    def says(x):
        return keras_says(model, x)

    return saved_keras(folder, model, form), says, saved_probe(folder, says)


def encoder(**settings):
    model = Encoder(**settings)
    model(points())
    return randomised(model)


both = pytest.mark.parametrize("form", [".weights.h5", ".keras"])
READABLE = {
    "the article's": {},
    "layers of the model itself": {"kind": "flat"},
    "couplings and layers beyond ten": {"couplings": 12, "units": (3,) * 11},
    "names that sort backwards": {"named": True},
    "activations apart": {"apart": True, "output": None},
    "adds": {"add": True},
    "reads the other half": {"reads": 1},
    "nothing permuted": {"permuted": False},
    "all of one width": {"units": (4, 4), "kind": "flat"},
    "exp(-s)": {"form": "exp(-s)"},
}


@both
@pytest.mark.parametrize("program", READABLE)
def test_with_a_probe_the_port_is_the_flow_of_the_model(tmp_path, program, form):
    source, says, probe = probed(tmp_path, keras_article(**READABLE[program]), form)
    assert_same_flow(source, says, probe=probe)


@both
def test_networks_in_a_class_of_its_own(tmp_path, form):
    source, says, probe = probed(tmp_path, encoder(couplings=12), form)
    assert_same_flow(source, says, probe=probe)


def test_every_backend_has_the_flow_of_the_model(tmp_path):
    source, says, probe = probed(tmp_path, keras_article(), ".keras")
    architecture, _ = assert_same_flow(source, says, probe=probe, names=backend_names())
    assert (architecture.permutation, architecture.permute, architecture.output) == ("reverse", "before", "relu")


def test_a_permutation_among_the_settings_of_a_layer_is_read(tmp_path):
    source, says, probe = probed(tmp_path, keras_article(idxs=ORDER), ".keras")
    _, text = assert_same_flow(source, says, probe=probe)
    assert "permutation=stored" in text
    assert "contradicts" in refused(source, ["permutation=reverse"], probe)


def test_a_permutation_that_the_file_leaves_out_is_not_found(tmp_path):
    source, _, probe = probed(tmp_path, keras_article(idxs=ORDER), ".weights.h5")
    assert "no reading gives the probe's values" in refused(source, probe=probe)


NAMED = {
    "LeakyReLU": ({"extra": lambda: keras.layers.LeakyReLU()}, "is a LeakyReLU", None),
    "ELU": ({"extra": lambda: keras.layers.ELU()}, "is a ELU", None),
    "Softmax": ({"extra": lambda: keras.layers.Softmax()}, "is a Softmax", None),
    "PReLU": ({"extra": lambda: keras.layers.PReLU()}, "is a PReLU", None),
    "ReLU with a slope": (
        {"extra": lambda: keras.layers.ReLU(negative_slope=0.3), "hidden": None}, "is a ReLU(max_value=None", ".keras"
    ),
    "tanh": ({"hidden": "tanh"}, "has activation tanh; expected relu or linear", ".keras"),
    "softplus": ({"output": "softplus"}, "has activation softplus", ".keras"),
    "LayerNormalization": ({"extra": lambda: keras.layers.LayerNormalization()}, "layer_normalization", None),
    "no biases": ({"bias": False}, "has no weights of linear layers", None),
    "chain": ({"units": (7, 6)}, "expected (7, 7) and (7,)", None),
    "own class": ({"extra": models.Halve}, "no reading gives the probe's values", None),
    "exp(s)+0.01": ({"form": "exp(s)+0.01"}, "scale=exp(s)+0.01, which no architecture here has", None),
}  # fmt: skip


@both
@pytest.mark.parametrize("program", NAMED)
def test_what_no_architecture_has_is_refused_by_name(tmp_path, program, form):
    settings, message, only = NAMED[program]
    source, _, probe = probed(tmp_path, keras_article(**settings), form)
    found = refused(source, probe=probe)
    if only in (None, form):
        assert message in found


@both
def test_layers_of_a_class_of_its_own_that_the_weights_name_are_not_missed(tmp_path, form):
    """A file of weights has a group for each layer, with arrays or without."""
    source, _, probe = probed(tmp_path, encoder(act="leaky"), form)
    assert "is a LeakyReLU" in refused(source, probe=probe)
    assert "is a LeakyReLU" in refused(source, STATED)


STATED = [
    "sign=subtract", "activation=relu", "output=relu", "scale=exp(s)", "prior=gaussian", "networks=first to last",
    "reorder=none", "permutation=reverse", "permute=before", "split=interleaved", "merge=interleaved", "reads=first",
]  # fmt: skip


def test_weights_alone_can_be_declared(tmp_path):
    source, says, _ = probed(tmp_path, encoder(), ".weights.h5")
    assert_same_flow(source, says, STATED)
    assert "activation: relu; linear" in (message := refused(source, [s for s in STATED if "activation" not in s]))
    assert "numpy.random.randn(16, D)" in message


def test_layers_whose_code_is_not_in_the_file_are_proved_alone(tmp_path):
    source, _, _ = probed(tmp_path, keras_article(idxs=ORDER), ".keras")
    message = refused(source, STATED)
    assert "Shuffle(idxs=[1, 0, 2, 3, 7, 6, 5, 4], mode='reverse')" in message
    assert "only a probe shows it" in message


# Files


@both
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.95])
def test_a_keras_file_cut_off_is_refused(tmp_path, form, kept):
    source = saved_keras(tmp_path, keras_article(1), form)
    content = source.read_bytes()
    source.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    refused(source, kind=ParameterError)


@pytest.mark.parametrize("form", [".h5", ".keras"])
def test_text_is_not_a_keras_file(tmp_path, form):
    (tmp_path / f"text{form}").write_text("not weights at all")
    refused(tmp_path / f"text{form}", kind=ParameterError)


def test_a_file_of_keras_2_is_refused_with_what_to_do(tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = ["dense"]
    assert "Keras 2" in refused(tmp_path / "old.h5")


def test_links_out_of_the_file_are_not_followed(tmp_path):
    secret = saved_keras(tmp_path, keras_article(1), ".weights.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(secret), "/layers")
    assert "is a link" in refused(tmp_path / "link.h5")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (4, 4), "f4", external=[(str(secret), 0, 64)])
    assert "more than arrays" in refused(tmp_path / "outside.h5")


def test_arrays_that_unpack_to_much_more_are_not_unpacked(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (2**20, 2**20), "f4", chunks=(1024, 1024), compression="gzip")
    assert (tmp_path / "bomb.h5").stat().st_size < 10**5
    assert "holds 4096.0 GiB" in refused(tmp_path / "bomb.h5")


@pytest.mark.parametrize("config", ["{", "[]", '{"config": {"layers": [{"class_name": 3, "config": {"name": 2}}]}}'])
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path, config):
    source = saved_keras(tmp_path, keras_article(1), ".keras")
    with zipfile.ZipFile(source) as archive:
        content = archive.read("model.weights.h5")
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", content)
    refused(source)


def test_a_permutation_of_other_dimensions_is_refused(tmp_path):
    source, _, probe = probed(tmp_path, keras_article(idxs=ORDER), ".keras")
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["config.json"] = json.dumps(json.loads(entries["config.json"])).replace(str(ORDER), str(ORDER[:4]))
    with zipfile.ZipFile(source, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert f"has not {DIM} entries" in refused(source, probe=probe)


def test_what_keras_itself_computes_is_what_the_checks_compare_with():
    model = keras_article(1, idxs=ORDER)
    x = points()
    assert (
        np.abs(
            keras_says(model, x)["z"][:, ::2] - x[:, ORDER][:, ::2] * np.asarray(model.layers[-1].factor())[:, ::2]
        ).max()
        < 1e-6
    )
