"""Training in every backend and mode against the float64 reference, step by step."""

import threading
from functools import cache, partial

import numpy as np
import pytest
from factories import (
    TINY,
    Stream,
    assert_same_bits,
    backend_names,
    cases,
    create,
    error,
    errors,
    frameworks,
    images,
    requires,
    rows,
)

import backends
from backends import Adam, AdamW, EpochInputs, Pixels, RMSProp

pytestmark = pytest.mark.slow

OPTIMISERS = {
    "adam": Adam(),
    "rmsprop": RMSProp(momentum_epoch=2),
    "adamw": AdamW(1e-3, epochs=3, warmup_steps=4, average=0.9),
}
PIXELS = {"plain": Pixels(1 / 255), "noise": Pixels(255 / 256 / 255, 1 / 256), "article-noise": Pixels(1 / 255, -0.01)}
EPOCHS = 3

everywhere = pytest.mark.parametrize(("name", "mode"), cases(training=True))
in_the_default_mode = pytest.mark.parametrize("name", backend_names())
optimisers = pytest.mark.parametrize("optimiser", list(OPTIMISERS))


@cache
def trained(name, mode, optimiser, pixels="plain", precision="float64"):
    """A model after 3 epochs of 5 steps, the second with momentum, and its reports."""
    model = create(name, TINY, mode=mode, precision=precision)
    reports = list(model.train(images(), OPTIMISERS[optimiser], Stream(pixels=PIXELS[pixels]), EPOCHS))
    return model, reports


def losses(reports):
    return np.concatenate([report.losses for report in reports])


# The trajectory


TRAJECTORIES = [
    pytest.param(*case.values, optimiser, pixels, id=f"{case.id}-{optimiser}-{pixels}")
    for case in frameworks(training=True)
    for optimiser, pixels in [("adam", "plain"), ("adam", "article-noise"), ("rmsprop", "noise"), ("adamw", "noise")]
]
trajectories = pytest.mark.parametrize(("name", "mode", "optimiser", "pixels"), TRAJECTORIES)


@trajectories
def test_the_loss_of_every_step_is_the_references(name, mode, optimiser, pixels):
    _, reports = trained(name, mode, optimiser, pixels)
    _, expected = trained("numpy", "eager", optimiser, pixels)
    assert len(losses(reports)) == 15
    assert losses(reports) == pytest.approx(losses(expected), rel=1e-12)


@trajectories
def test_trained_parameters_are_the_references(name, mode, optimiser, pixels):
    model, _ = trained(name, mode, optimiser, pixels)
    expected, _ = trained("numpy", "eager", optimiser, pixels)
    assert max(errors(model.parameters(), expected.parameters()).values()) < 1e-11


@trajectories
def test_moments_after_training_are_the_references(name, mode, optimiser, pixels):
    found = trained(name, mode, optimiser, pixels)[0].training_state()
    expected = trained("numpy", "eager", optimiser, pixels)[0].training_state()
    assert tuple(found.moments) == OPTIMISERS[optimiser].moments
    for moment in expected.moments:
        assert max(errors(found.moments[moment], expected.moments[moment]).values()) < 1e-11
    assert found.step == expected.step == 15


@everywhere
@optimisers
def test_float32_training_follows_the_reference_to_its_precision(name, mode, optimiser):
    _, reports = trained(name, mode, optimiser, precision="float32")
    _, expected = trained("numpy", "eager", optimiser)
    assert losses(reports) == pytest.approx(losses(expected), rel=1e-5)


@optimisers
def test_each_part_of_training_makes_a_difference(optimiser):
    # What the tests above compare must depend on the noise, the epoch's order and the optimiser, or they prove nothing.
    plain = losses(trained("numpy", "eager", optimiser)[1])
    assert not np.allclose(plain, losses(trained("numpy", "eager", optimiser, "article-noise")[1]), rtol=1e-6)
    assert len(set(plain)) == 15
    assert plain[-5:].mean() < plain[:5].mean()


def test_momentum_makes_a_difference():
    without = create("numpy", TINY)
    expected = list(without.train(images(), RMSProp(), Stream(), EPOCHS))
    assert not np.allclose(losses(trained("numpy", "eager", "rmsprop")[1])[6:], losses(expected)[6:], rtol=1e-9)


# The reports


@everywhere
def test_the_first_loss_is_that_of_the_first_batch_before_any_step(name, mode):
    _, reports = trained(name, mode, "adam")
    x = images()[Stream().epoch(1).order[0]] / 255
    assert reports[0].losses[0] == pytest.approx(-create("numpy", TINY).log_prob(x).mean(), rel=1e-13)


@everywhere
def test_there_is_a_report_an_epoch_with_a_loss_a_step(name, mode):
    _, reports = trained(name, mode, "adam")
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert {report.losses.shape for report in reports} == {(5,)}
    assert {report.losses.dtype for report in reports} == {np.dtype("float64")}


@everywhere
def test_only_the_first_report_has_a_first_call(name, mode):
    _, reports = trained(name, mode, "adam")
    assert [report.first_call_seconds for report in reports[1:]] == [0, 0]
    assert reports[0].first_call_seconds >= 0
    assert all(report.seconds >= report.wait_seconds >= 0 for report in reports)


@everywhere
def test_the_inputs_of_an_epoch_are_made_while_the_one_before_it_trains(name, mode, monkeypatch):
    begun, made = threading.Event(), threading.Event()

    class Watched(Stream):
        def epoch(self, epoch):
            if epoch == 2:
                assert begun.wait(30), "made before the first epoch began"
                made.set()
            return super().epoch(epoch)

    model = create(name, TINY, mode=mode)
    reports = model.train(images(), Adam(), Watched(), 2)

    def watched(run, inputs, steps):
        if steps == Stream().steps:  # not the trial step
            begun.set()
            assert made.wait(30), "not made while the first epoch trained"
        return run(inputs, steps)

    watch_runs(monkeypatch, model, watched)
    assert len(list(reports)) == 2


@everywhere
def test_the_first_call_changes_neither_parameters_nor_moments_nor_the_step(name, mode, monkeypatch):
    model = create(name, TINY, mode=mode)
    list(model.train(images(), Adam(), Stream(), 1))
    before, states = model.training_state(), []

    def watched(run, inputs, steps):
        states.append(model.training_state())
        return run(inputs, steps)

    watch_runs(monkeypatch, model, watched)
    next(iter(model.train(images(), Adam(), Stream(), 1)))
    after = states[-1]  # before the epoch, and after everything that came before it
    assert before.step == after.step == 5
    assert_same_bits(after.parameters, before.parameters)
    for moment in before.moments:
        assert any(array.any() for array in before.moments[moment].values())
        assert_same_bits(after.moments[moment], before.moments[moment])


def watch_runs(monkeypatch, model, watched):
    """Have `watched` called in place of the `run` of the model's training, with that `run` as its first argument."""
    make = model._training

    def training(*arguments):
        made = make(*arguments)
        monkeypatch.setattr(made, "run", partial(watched, made.run))
        return made

    monkeypatch.setattr(model, "_training", training)


# Order and epochs


class Recorded(Stream):
    """A stream that remembers which epochs it was asked for."""

    def epoch(self, epoch):
        asked.append(epoch)
        return super().epoch(epoch)


asked: list[int] = []


@in_the_default_mode
def test_each_epoch_is_asked_of_the_stream_once_and_a_later_call_goes_on(name):
    asked.clear()
    model = create(name, TINY)
    list(model.train(images(), Adam(), Recorded(), 2))
    list(model.train(images(), Adam(), Recorded(), 1))
    assert asked == [1, 2, 3]


class Backwards(Stream):
    """The same stream with the steps of each epoch in reverse."""

    def epoch(self, epoch):
        return EpochInputs(super().epoch(epoch).order[::-1].copy(), None)


@in_the_default_mode
def test_the_order_of_the_steps_is_the_streams(name):
    model, reference = create(name, TINY), create("numpy", TINY)
    found = list(model.train(images(), Adam(), Backwards(), 1))
    expected = list(reference.train(images(), Adam(), Backwards(), 1))
    assert losses(found) == pytest.approx(losses(expected), rel=1e-12)
    assert error(losses(found), losses(trained("numpy", "eager", "adam")[1])[:5]) > 1e-6


@in_the_default_mode
def test_leaving_the_iterator_early_leaves_a_model_that_goes_on(name):
    model = create(name, TINY)
    for report in model.train(images(), Adam(), Stream(), 10):
        if report.epoch == 2:
            break
    list(model.train(images(), Adam(), Stream(), 1))
    expected, _ = trained("numpy", "eager", "adam")
    assert max(errors(model.parameters(), expected.parameters()).values()) < 1e-11


@requires("tensorflow")
@pytest.mark.parametrize("pixels", ["plain", "noise"])
def test_nothing_that_a_step_of_tensorflow_reads_stays_with_the_host(pixels, monkeypatch):
    """Int32 does, also where the device is a GPU, which would fetch each batch's order from there."""
    from backends.tensorflow_backend import TensorFlowTraining

    model, uploaded, upload = create("tensorflow", TINY, precision="float32"), [], TensorFlowTraining.upload
    monkeypatch.setattr(TensorFlowTraining, "upload", lambda *args: uploaded.append(upload(*args)) or uploaded[-1])
    list(model.train(images(), Adam(), Stream(pixels=PIXELS[pixels]), 2))
    types = [[part.dtype.name for part in parts if part is not None] for parts in uploaded]
    assert types == [["int64", *(["uint16"] if pixels == "noise" else []), "float32"]] * 2


# What a user holds


@everywhere
def test_what_was_handed_out_does_not_change_with_training(name, mode):
    model = create(name, TINY, mode=mode, precision="float32")
    training = model.train(images(), Adam(), Stream(), 2)
    next(training)
    held = [model.parameters(), model.training_state().parameters, *model.training_state().moments.values()]
    copies = [{k: a.copy() for k, a in arrays.items()} for arrays in held]
    next(training)
    for arrays, expected in zip(held, copies, strict=True):
        assert_same_bits(arrays, expected)
    assert model.parameters()["log_scale"].tobytes() != held[0]["log_scale"].tobytes()


@in_the_default_mode
def test_training_leaves_the_images_as_they_were(name):
    given = images()
    list(create(name, TINY).train(given, Adam(), Stream(), 1))
    assert np.array_equal(given, images())


@everywhere
def test_the_flow_is_evaluated_with_the_trained_parameters(name, mode):
    model, _ = trained(name, mode, "adam")
    expected, _ = trained("numpy", "eager", "adam")
    assert error(model.encode(rows(TINY))[0], expected.encode(rows(TINY))[0]) < 1e-11


# What is refused


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda good: good.astype(np.float32), id="floats"),
        pytest.param(lambda good: good.astype(np.int64), id="int64"),
        pytest.param(lambda good: good[:-1], id="too few"),
        pytest.param(lambda good: good[:, :-1], id="too narrow"),
        pytest.param(lambda good: good.reshape(22, 3, 4), id="not flat"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_anything_runs(bad):
    with pytest.raises(ValueError, match=r"images are .*; expected uint8 \(22, 12\)"):
        create("numpy", TINY).train(bad(images()), Adam(), Stream(), 1)


@pytest.mark.parametrize("epochs", [0, -1])
def test_training_for_no_epochs_is_refused(epochs):
    with pytest.raises(ValueError, match=r"epochs is .*; expected at least 1"):
        create("numpy", TINY).train(images(), Adam(), Stream(), epochs)


def test_going_on_with_another_optimiser_is_refused():
    model = create("numpy", TINY)
    list(model.train(images(), Adam(), Stream(), 1))
    with pytest.raises(ValueError, match=r"state has moments .*mean.*; rmsprop has"):
        model.train(images(), RMSProp(), Stream(), 1)


def test_going_on_with_another_batch_size_inside_an_epoch_is_refused():
    model = create("numpy", TINY)
    list(model.train(images(), Adam(), Stream(), 1))
    with pytest.raises(ValueError, match="state is at step 5, inside an epoch of 3 steps"):
        model.train(images(), Adam(), Stream(batch=7), 1)


# The average of the weights


@everywhere
def test_the_average_takes_the_place_of_the_weights_and_gives_it_back(name, mode):
    model, _ = trained(name, mode, "adamw", "noise")
    state, x = model.training_state(), rows(TINY)
    raw = model.log_prob(x)
    with model.averaged():
        average, log_prob = model.parameters(), model.log_prob(x)
    assert_same_bits({n: average[n] for n in TINY.trainable_shapes}, state.moments["average"])
    alone = backends.create(name, TINY, average, device="cpu", precision="float64", mode=mode)
    assert error(log_prob, alone.log_prob(x)) < 1e-12
    assert error(log_prob, raw) > 1e-6
    assert_same_bits(model.parameters(), state.parameters)
    assert_same_bits(model.training_state().moments["average"], state.moments["average"])


def test_without_an_average_the_weights_stay_in_their_place():
    model, _ = trained("numpy", "eager", "adam")
    before = model.parameters()
    with model.averaged():
        assert_same_bits(model.parameters(), before)


def test_weights_return_to_their_place_when_the_evaluation_of_their_average_fails():
    model, _ = trained("numpy", "eager", "adamw", "noise")
    before = model.parameters()
    with pytest.raises(ZeroDivisionError), model.averaged():
        raise ZeroDivisionError
    assert_same_bits(model.parameters(), before)
