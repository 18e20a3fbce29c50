"""The protocols that come with the package, value for value, and what is refused, with the key's name."""

import math
from dataclasses import replace
from importlib import resources

import pytest

from backends import Adam, Architecture, Pixels, RMSProp
from bench.inputs import protocol
from bench.inputs.protocol import ProtocolError

ARTICLE_ADAM = Adam(learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-7)
PAPER_RMSPROP = RMSProp(
    learning_rate=1e-3,
    rho=0.95,
    floor=1e-2,
    decay=1.0005,
    minimum_learning_rate=1e-4,
    momentum=0.5,
    momentum_epoch=6,
)


@pytest.fixture
def edited(tmp_path):
    """Write the smoke protocol with one text in place of another, and give back the file's name."""

    def write(old, new):
        text = resources.files("bench.inputs").joinpath("protocols", "smoke.toml").read_text(encoding="utf-8")
        assert text.count(old) == 1
        path = tmp_path / "edited.toml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return str(path)

    return write


def refusal(name, **overrides):
    with pytest.raises(ProtocolError) as caught:
        protocol.load(name, **overrides)
    return str(caught.value)


# What comes with the package


def test_the_protocols_are_these():
    assert protocol.names() == [
        *("article", "article-noise", "article-quick", "article-speed"),
        *("convergence-paper-narrow", "paper", "recipe", "recipe-narrow", "smoke"),
        *("trajectory-full", "trajectory-narrow"),
    ]


@pytest.mark.parametrize("name", protocol.names())
def test_a_protocol_is_called_as_its_file(name):
    assert protocol.load(name).name == name


@pytest.mark.parametrize(
    ("name", "train", "select", "validation"),
    [
        ("article", 60_000, "test", 0),
        ("article-noise", 60_000, "test", 0),
        ("article-quick", 60_000, "test", 0),
        ("article-speed", 6_400, "validation", 128),
        ("paper", 50_000, "validation", 10_000),
    ],
)
def test_images(name, train, select, validation):
    data = protocol.load(name).data
    assert (data.dataset, data.train, data.select, data.validation) == ("mnist", train, select, validation)


@pytest.mark.parametrize(
    ("name", "training", "evaluation"),
    [
        ("article", Pixels(1 / 255), Pixels(1 / 255)),
        ("article-noise", Pixels(1 / 255, -0.01), Pixels(1 / 255)),
        ("article-quick", Pixels(1 / 255), Pixels(1 / 255)),
        ("article-speed", Pixels(1 / 255), Pixels(1 / 255)),
        ("paper", Pixels(1 / 256, 1 / 256), Pixels(1 / 256, 1 / 256)),
    ],
)
def test_pixels(name, training, evaluation):
    loaded = protocol.load(name)
    assert (loaded.training_pixels(), loaded.evaluation_pixels()) == (training, evaluation)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("article", Architecture.article()),
        ("article-noise", Architecture.article()),
        ("article-quick", Architecture.article()),
        ("article-speed", Architecture.article()),
        ("paper", Architecture.paper()),
        ("smoke", Architecture(dim=784, couplings=2, hidden_layers=2, hidden_units=32)),
    ],
)
def test_architecture(name, expected):
    assert protocol.load(name).make_architecture() == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("article", ARTICLE_ADAM),
        ("article-noise", ARTICLE_ADAM),
        ("article-quick", ARTICLE_ADAM),
        ("article-speed", ARTICLE_ADAM),
        ("paper", PAPER_RMSPROP),
        ("smoke", ARTICLE_ADAM),
    ],
)
def test_optimiser(name, expected):
    assert protocol.load(name).make_optimiser() == expected


@pytest.mark.parametrize(
    ("name", "batch", "epochs", "loss", "keep", "target_loss"),
    [
        ("article", 128, 20, "article", "last", -2200),
        ("article-noise", 128, 20, "article", "last", None),
        ("article-quick", 128, 1, "article", "last", -2200),
        ("article-speed", 128, 10, "article", "last", None),
        ("paper", 200, 1500, "nll", "best", None),
    ],
)
def test_training(name, batch, epochs, loss, keep, target_loss):
    rule = protocol.load(name).training
    assert (rule.batch, rule.epochs, rule.loss, rule.keep) == (batch, epochs, loss, keep)
    assert rule.target_loss == target_loss


@pytest.mark.parametrize(
    ("name", "kernels", "log_scale"),
    [
        ("article", "glorot_uniform", "glorot_normal"),
        ("article-noise", "glorot_uniform", "glorot_normal"),
        ("article-quick", "glorot_uniform", "glorot_normal"),
        ("article-speed", "glorot_uniform", "glorot_normal"),
        ("paper", "small_uniform", "zeros"),
    ],
)
def test_initial_weights(name, kernels, log_scale):
    rule = protocol.load(name).initial
    assert (rule.kernels, rule.log_scale) == (kernels, log_scale)


@pytest.mark.parametrize(("name", "expected"), [("article", 0.8), ("article-noise", 0.75), ("paper", 1.0)])
def test_temperature(name, expected):
    assert protocol.load(name).measure.temperature == expected


@pytest.mark.parametrize("name", ["article", "article-noise", "paper"])
def test_sampling_goes_from_1_to_65536(name):
    batches = protocol.load(name).measure.sampling_batches
    assert (min(batches), max(batches)) == (1, 65_536)


@pytest.mark.parametrize("name", ["article", "article-noise", "article-quick"])
def test_the_caption_of_an_article_protocol_says_what_its_loss_is_not(name):
    caption = protocol.load(name).caption
    assert "not a likelihood" in caption
    assert "selected on the test set" in caption


# What is refused


REFUSED = [
    (
        "batch = 64\nepochs",
        "batch = 64\nbach = 3\nepochs",
        "training.bach: found 3, expected one of the keys batch, epochs, parts, rounds",
    ),
    (
        'name = "adam"',
        'name = "adam"\nrho = 0.9',
        "optimiser.rho: found 0.9, expected one of the keys name, ",
    ),
    (
        'preset = "article"',
        'preset = "article"\ndepth = 3',
        "architecture.depth: found 3, expected one of the keys ",
    ),
    ("[training]", "[training]\n[trainning]\n[training.x]", "training.x: found {"),
    ('name = "smoke"', 'name = "smoke"\nbatch = 3', "batch: found 3, expected one of the keys name, caption"),
    ("batch = 64\nepochs", "batch = -64\nepochs", "training.batch: found -64, expected greater than 0"),
    ("batch = 64\nepochs", 'batch = "64"\nepochs', 'training.batch: found "64", expected a valid integer'),
    ("batch = 64\nepochs", "batch = 64.0\nepochs", "training.batch: found 64.0, expected a valid integer"),
    ("batch = 64\nepochs", "epochs", "training.batch: found nothing, expected this field"),
    ("batch = 64\nepochs", "batch = 513\nepochs", "training.batch is 513; expected at most data.train, 512"),
    ("rounds = 2", "rounds = 3", "training.rounds is 3; expected at most training.epochs"),
    ('"mnist-subset"', '"cifar"', "data.dataset: found \"cifar\", expected 'mnist' or 'mnist-subset'"),
    ('select = "test"', 'select = "validation"', "data.validation is 0; expected a number of images"),
    ('name = "adam"', 'name = "sgd"', "'adam', 'rmsprop'"),
    ('name = "adam"', 'name = "adam"\nbeta1 = 1.0', "optimiser.beta1: found 1.0, expected less than 1"),
    ("couplings = 2", "couplings = 2\ndim = 783", "dim"),
    ("couplings = 2", "couplings = 0", "couplings"),
    ("couplings = 2", 'couplings = 2\nsplit = "thirds"', "split"),
    ("[1, 64]", "[1, 0]", "sampling_batches.1: found 0, expected greater than 0"),
    ("[1, 64]", "[]", "sampling_batches: found [], expected"),
    ("draws = 2", "draws = 1", "measure.dequantisation_draws: found 1, expected greater than 1"),
    ("temperature = 0.8", "temperature = -1", "measure.temperature: found -1, expected greater than"),
    ('name = "smoke"', 'name = "../smoke"', 'name: found "../smoke"'),
    ("[data]", "[data", "not TOML"),
    ('loss = "article"', 'loss = "nll"', "training.target_of is 'training'; expected 'selection' where the loss"),
]


@pytest.mark.parametrize(("old", "new", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_a_bad_protocol_is_refused_with_its_file_the_key_and_what_is_allowed(edited, old, new, message):
    file = edited(old, new)
    found = refusal(file)
    assert found.startswith(file)
    assert message in found


def test_all_mistakes_are_named_at_once(edited):
    message = refusal(edited("batch = 64\nepochs = 2", "batch = 0\nepochs = 0"))
    assert "training.batch" in message
    assert "training.epochs" in message


def test_an_unknown_name_is_refused_with_the_known_ones():
    assert all(name in refusal("artcle") for name in ["'artcle'", *protocol.names()])


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(str(tmp_path / "mine.toml"))


def test_a_bad_value_on_the_command_line_is_refused_with_its_key():
    assert "training.batch: found 0" in refusal("smoke", training__batch=0)


# Reading


def test_a_file_says_the_same_as_the_name(edited):
    assert protocol.load(edited("[data]", "[data]")) == protocol.load("smoke")


def based(tmp_path, *lines, base="smoke", own=('name = "mine"', 'caption = "Mine"')):
    path = tmp_path / "mine.toml"
    path.write_text("\n".join((f"base = {base!r}", *own, *lines)), encoding="utf-8")
    return str(path)


def test_what_a_file_leaves_out_is_as_in_its_base(tmp_path):
    found = protocol.load(based(tmp_path, "[architecture]", "hidden_units = 48", "[training]", "epochs = 3"))
    smoke = protocol.load("smoke")
    assert (found.name, found.caption, found.source) == ("mine", "Mine", smoke.source)
    assert found.architecture == smoke.architecture.model_copy(update={"hidden_units": 48})
    assert found.training == smoke.training.model_copy(update={"epochs": 3})
    assert (found.data, found.pixels, found.measure) == (smoke.data, smoke.pixels, smoke.measure)
    through = protocol.load(based(tmp_path, base="article-quick"))  # which has a base itself
    assert (through.training.parts, through.training.batch) == (6, 128)


def test_nothing_is_kept_of_another_optimiser_but_of_the_same(tmp_path):
    article = protocol.load("article").optimiser
    assert protocol.load(based(tmp_path, "optimiser.epsilon = 1e-8", base="article")).optimiser == replace(
        article, epsilon=1e-8
    )
    found = protocol.load(based(tmp_path, 'optimiser = { name = "rmsprop" }', base="article")).optimiser
    assert found == RMSProp()


def test_the_target_is_that_of_the_bases_loss_alone(tmp_path):
    other = protocol.load(based(tmp_path, "[training]", 'loss = "nll"', base="article")).training
    assert (other.loss, other.target_loss, other.target_of, other.batch) == ("nll", None, "training", 128)
    same = protocol.load(based(tmp_path, "[training]", 'loss = "article"', base="article")).training
    assert same.target_loss == -2200.0


def test_a_base_that_is_none_is_refused_and_name_and_caption_are_a_files_own(tmp_path):
    assert "base is 'artcle'; expected one of article, " in refusal(based(tmp_path, base="artcle"))
    message = refusal(based(tmp_path, own=()))
    assert "name: found nothing" in message
    assert "caption: found nothing" in message


def test_an_override_takes_the_place_of_the_files_value():
    assert protocol.load("smoke", training__epochs=7).training.epochs == 7


def test_no_override_leaves_the_files_value():
    assert protocol.load("smoke", training__epochs=None) == protocol.load("smoke")


# The digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs = 2", "epochs = 3"),
        ("hidden_units = 32", "hidden_units = 33"),
        ("divisor = 255.0", "divisor = 256.0"),
        ('name = "adam"', 'name = "adam"\nepsilon = 1e-8'),
        ("temperature = 0.8", "temperature = 0.75"),
        ("[1, 64]", "[1, 65]"),
        ("embedded", "Embedded"),
    ],
)
def test_the_digest_changes_with_any_value(edited, old, new):
    assert protocol.load(edited(old, new)).digest() != protocol.load("smoke").digest()


def test_the_digest_is_that_of_the_values_not_of_the_text(edited):
    assert (
        protocol.load(edited("batch = 64\nepochs", "# a comment\nbatch    = 64\nepochs")).digest()
        == protocol.load("smoke").digest()
    )


def test_no_two_protocols_have_one_digest():
    assert len({protocol.load(name).digest() for name in protocol.names()}) == len(protocol.names())


# Numbers that TOML has and a protocol can't use


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["training__target_loss", "pixels__divisor", "optimiser__learning_rate"])
def test_a_number_that_is_not_finite_is_refused(key, value):
    assert key.replace("__", ".") in refusal("smoke", **{key: value})


def test_an_override_of_a_section_that_is_no_section_is_refused(tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text("training = 3\n")
    assert "training: found 3" in refusal(str(path), training__batch=4)
