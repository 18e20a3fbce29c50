"""The loop over epochs, which all backends share, so that none can be held against another: by hand, by a set clock."""

from types import SimpleNamespace

import numpy as np
import pytest
from factories import TINY, Stream, cases, create, errors, images, weights

import backends
from backends import Adam, Pixels, interface
from backends.numpy_backend import NumpyBackend, NumpyTraining

PIXELS = Pixels(1 / 256, 1 / 256)


def by_hand(epochs):
    """Loss of each step and weights at the end, by Adam's formula, each epoch with its own order and noise."""
    stream, w = Stream(pixels=PIXELS), weights(TINY)
    model = create("numpy", TINY)
    m, v = ({name: np.zeros(shape) for name, shape in TINY.trainable_shapes.items()} for _ in range(2))
    losses, t = [], 0
    for epoch in range(1, epochs + 1):
        inputs = stream.epoch(epoch)
        for order, noise in zip(inputs.order, inputs.noise, strict=True):
            t += 1
            x = (images()[order] + (noise + 0.5) / 65536) / 256
            model.resume(backends.TrainingState(w))
            loss, gradients = model.gradients(x)
            losses.append(loss)
            for name, g in gradients.items():
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g**2
                step = m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-7)
                w[name] = w[name] - 1e-3 * step
    return losses, w


def test_each_epoch_is_trained_with_its_own_order_noise_and_step_numbers():
    expected, w = by_hand(4)
    model = create("numpy", TINY)
    found = [loss for r in model.train(images(), Adam(), Stream(pixels=PIXELS), 4) for loss in r.losses]
    assert found == pytest.approx(expected, rel=1e-11)
    assert max(errors(model.parameters(), w).values()) < 1e-10


@pytest.mark.parametrize(("name", "mode"), cases(training=True))
def test_no_gradient_is_too_large_to_be_taken_whole(name, mode):
    steep = weights(TINY) | {"log_scale": np.full(12, 5.0)}
    stream = Stream(examples=4)
    model = backends.create(name, TINY, steep, device="cpu", precision="float64", mode=mode)
    _, gradients = model.gradients(images(4)[stream.epoch(1).order[0]] / 255)
    assert np.sqrt(sum((g**2).sum() for g in gradients.values())) > 1e4
    list(model.train(images(4), Adam(), stream, 1))
    mean = model.training_state().moments["mean"]
    assert max(errors(mean, {name: 0.1 * g for name, g in gradients.items()}).values()) < 1e-9


# The clock


class Lazily:
    """An executor whose work is done when its result is asked for: a stream that is slower than the training."""

    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, call, *arguments):
        return SimpleNamespace(result=lambda: call(*arguments))


@pytest.fixture
def timed(monkeypatch):
    """A model and its reports of two epochs of 2 s a step; inputs take 7 s, and 1, 3, 5 s to make, compile and undo."""
    clock = SimpleNamespace(now=0.0)

    class Slow(Stream):
        def epoch(self, epoch):
            clock.now += 7.0
            return super().epoch(epoch)

    class Timed(NumpyTraining):
        trial_step = True

        def compile(self, inputs):
            clock.now += 3.0

        def run(self, inputs, steps):
            clock.now += 2.0 * steps
            return super().run(inputs, steps)

    def training(*arguments):
        clock.now += 1.0
        return Timed(*arguments)

    undo = NumpyBackend._try_one_step

    def try_one_step(*arguments):
        undo(*arguments)
        clock.now += 5.0

    monkeypatch.setattr(interface, "ThreadPoolExecutor", Lazily)
    monkeypatch.setattr(interface, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(NumpyBackend, "_training", training)
    monkeypatch.setattr(NumpyBackend, "_try_one_step", try_one_step)
    model = create("numpy", TINY)
    return model, list(model.train(images(), Adam(), Slow(pixels=PIXELS), 2))


def test_an_epochs_time_holds_its_steps_and_what_it_waited_for_its_inputs(timed):
    _, reports = timed
    assert [report.seconds for report in reports] == [10.0, 17.0]
    assert [report.wait_seconds for report in reports] == [0.0, 7.0]


def test_the_first_call_is_all_that_comes_before_the_first_epoch_but_its_inputs(timed):
    _, reports = timed
    assert [report.first_call_seconds for report in reports] == [1.0 + 3.0 + 2.0 + 5.0, 0.0]


def test_the_step_of_the_first_call_is_undone(timed):
    model, reports = timed
    expected, w = by_hand(2)
    assert [loss for report in reports for loss in report.losses] == pytest.approx(expected, rel=1e-11)
    assert max(errors(model.parameters(), w).values()) < 1e-10


# Sampling as it is timed


@pytest.mark.parametrize(("name", "mode"), cases())
def test_samples_are_timed_at_the_temperature_that_is_asked_for(name, mode):
    model = create(name, TINY, mode=mode, precision="float32")
    found = model._to_numpy(model.workload("sample", 3, temperature=0.0)())
    assert found == pytest.approx(np.repeat(model.decode(np.zeros((1, 12))), 3, axis=0), abs=1e-6)
    hot = model._to_numpy(model.workload("sample", 3, temperature=1.0)())
    assert np.abs(hot - found).max() > 0.1
