"""Weights that Keras trained: the flow that `port` makes of them has the log p that Keras gives."""

import json
import warnings
import zipfile

import h5py
import pytest
from factories import backend_names

from backends import ParameterError

if "tensorflow" not in backend_names():
    pytest.skip("NICE_BENCH_TEST_BACKENDS leaves tensorflow out", allow_module_level=True)

import foreign_models as models
import keras
from foreign_checks import assert_density, ported, refused
from foreign_models import DIM, keras_article, keras_density, points

pytestmark = pytest.mark.slow


def saved_keras(folder, model, form):
    path = folder / f"foreign{form}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*includes a `lambda`")  # the article's noise
        model.save(path) if form == ".keras" else model.save_weights(path)
    return path


both = pytest.mark.parametrize("form", [".weights.h5", ".keras"])


# Keras


@pytest.fixture(scope="module")
def trained_keras():
    model = keras_article(noise=True)
    models.train_keras(model)
    return model


@both
def test_every_backend_has_the_log_p_of_a_trained_keras_model(tmp_path, trained_keras, form):
    expected = keras_density(trained_keras, points())
    source = saved_keras(tmp_path, trained_keras, form)
    found, _ = assert_density(source, expected, names=backend_names(), dtype="float32")
    assert (found.couplings, found.hidden_layers, found.hidden_units, found.dim) == (3, 2, 7, DIM)


@both
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_couplings_and_layers_beyond_ten_are_in_numeric_order(tmp_path, kind, form):
    model = keras_article(12, (4,) * 11, kind=kind, dtype="float64")
    found, _ = assert_density(saved_keras(tmp_path, model, form), keras_density(model, points("float64")))
    assert (found.couplings, found.hidden_layers) == (12, 11)


@both
def test_names_that_the_user_gave_do_not_change_the_order(tmp_path, form):
    model = keras_article(named=True, dtype="float64")
    assert_density(saved_keras(tmp_path, model, form), keras_density(model, points("float64")))


@both
def test_dense_layers_of_the_model_itself_are_told_apart(tmp_path, form):
    model = keras_article(11, (5, 5), kind="flat", dtype="float64")
    assert_density(saved_keras(tmp_path, model, form), keras_density(model, points("float64")))


def test_layers_all_of_one_width_need_the_configuration_or_an_option(tmp_path):
    model = keras_article(3, (4, 4), kind="flat", dtype="float64")
    expected = keras_density(model, points("float64"))
    assert_density(saved_keras(tmp_path, model, ".keras"), expected)
    source = saved_keras(tmp_path, model, ".weights.h5")
    assert "--option couplings=" in refused(source)
    assert_density(source, expected, options=["couplings=3"])
    assert_density(source, expected, options=["hidden_layers=2"])
    assert "9 dense layers" in refused(source, options=["couplings=4"])


@pytest.mark.parametrize("kind", ["functional", "flat"])
def test_the_configuration_says_output_and_sign(tmp_path, kind):
    model = keras_article(dtype="float64", output=None, apart=True, add=True, kind=kind)
    found, told = assert_density(saved_keras(tmp_path, model, ".keras"), keras_density(model, points("float64")))
    assert (found.output, found.sign) == ("linear", "add")
    assert "from the file: dim=8, couplings=3, hidden_layers=2, hidden_units=7, permutation=reverse" in told


@both
def test_options_say_what_the_file_does_not(tmp_path, form):
    model = keras_article(dtype="float64", output=None, add=True)
    options = ["prior=logistic", "output=linear", "sign=add"]
    expected = keras_density(model, points("float64"), "logistic")
    _, told = assert_density(saved_keras(tmp_path, model, form), expected, options=options)
    assert "prior=logistic" in told


def test_connections_without_a_permutation_are_seen(tmp_path):
    model = keras_article(dtype="float64", permuted=False)
    source = saved_keras(tmp_path, model, ".keras")
    found, _ = assert_density(source, keras_density(model, points("float64")))
    assert found.permutation == "none"
    assert "contradicts" in refused(source, options=["permutation=reverse"])


def test_permutations_after_each_coupling_are_seen(tmp_path):
    source = saved_keras(tmp_path, keras_article(permuted=(1, 2)), ".keras")
    assert ported(source)[0].permute == "after"


def test_networks_in_a_list_of_a_class_are_read(tmp_path):
    model = models.Encoder(12)
    expected = keras_density(model, points())
    for form in (".weights.h5", ".keras"):
        _, told = assert_density(saved_keras(tmp_path, model, form), expected, dtype="float32")
        assert "not checked: activations" in told


def layer_norm():
    return keras.layers.LayerNormalization()


REFUSED_KERAS = {
    "hidden activation": ({"hidden": "tanh"}, "has activation tanh; expected relu", ".keras"),
    "output activation": ({"output": "softplus"}, "has activation softplus; expected relu or linear", ".keras"),
    "leaky": ({"extra": lambda: keras.layers.LeakyReLU()}, "is a LeakyReLU", ".keras"),
    "two activations": ({"extra": lambda: keras.layers.Activation("tanh")}, "(tanh) doesn't follow", ".keras"),
    "own class inside": ({"extra": models.Halve}, "is a Halve; expected Dense layers", ".keras"),
    "bias": ({"bias": False}, "no bias", None),
    "extra layer": ({"extra": layer_norm}, "expected Dense or Scale", None),
    "split": ({"first": 5}, "reads 5 of 8 dimensions; expected half of them (4)", None),
    "chain": ({"units": (7, 6)}, "expected (7, 7) and (7,)", None),
    "scale": ({"scaled": False}, "0 layers with a (1, D) scale", None),
    "depth": ({"units": ()}, "2 at least", None),
    "mode": ({"mode": "random"}, "has mode 'random'", ".keras"),
    "half": ({"reads": 1}, "reads part 1", ".keras"),
    "shared": ({"shared": True}, "more than once", ".keras"),
    "some permuted": ({"permuted": (0, 2)}, "at some couplings only", ".keras"),
}


@pytest.mark.parametrize(
    ("fault", "form"),
    [
        (f, form)
        for f, (*_, only) in REFUSED_KERAS.items()
        for form in (".weights.h5", ".keras")
        if only in (None, form)
    ],
)
def test_a_keras_network_that_no_architecture_has_is_refused_with_what_differs(tmp_path, fault, form):
    settings, told, _ = REFUSED_KERAS[fault]
    assert told in refused(saved_keras(tmp_path, keras_article(**settings), form))


@pytest.mark.parametrize("option", ["sign=add", "output=linear", "couplings=4", "dim=10", "permute=after"])
def test_an_option_that_the_file_contradicts_is_refused(tmp_path, option):
    message = refused(saved_keras(tmp_path, keras_article(), ".keras"), options=[option])
    assert f"--option {option} contradicts" in message


@both
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.95])
def test_a_keras_file_cut_off_is_refused(tmp_path, trained_keras, form, kept):
    source = saved_keras(tmp_path, trained_keras, form)
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


def test_links_out_of_the_file_are_not_followed(tmp_path, trained_keras):
    secret = saved_keras(tmp_path, trained_keras, ".weights.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["layers"] = h5py.ExternalLink(str(secret), "/layers")
    assert "is a link" in refused(tmp_path / "link.h5")


@pytest.mark.parametrize("config", ["{", "[]", '{"config": {"layers": [{"class_name": 3}]}}'])
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path, trained_keras, config):
    source = saved_keras(tmp_path, trained_keras, ".keras")
    with zipfile.ZipFile(source) as archive:
        content = archive.read("model.weights.h5")
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", content)
    refused(source, kind=ParameterError)


def test_weights_of_other_layers_than_the_configuration_lists_are_refused(tmp_path, trained_keras):
    source = saved_keras(tmp_path, trained_keras, ".keras")
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][-1]["config"]["name"] = "another"
    with zipfile.ZipFile(source, "w") as archive:
        for name, content in (entries | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)
    assert "config.json has another layer" in refused(source)
