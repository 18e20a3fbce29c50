"""A training state taken from one model and resumed in another, of the same or another backend."""

from dataclasses import replace
from functools import cache

import factories
import numpy as np
import pytest
from factories import (
    SHUFFLED,
    SMALL,
    Stream,
    assert_same_bits,
    backend_names,
    cases,
    create,
    errors,
    images,
    weights,
)

from backends import Adam, AdamW, ParameterError, Pixels, RMSProp, TrainingState

pytestmark = pytest.mark.slow

TINY = replace(factories.TINY, permutation="shuffle")  # has stored arrays that aren't trained, too
STREAM = Stream(pixels=Pixels(1 / 255, -0.01))
OPTIMISERS = {
    "adam": Adam(),
    "rmsprop": RMSProp(momentum_epoch=2),
    "adamw": AdamW(1e-3, epochs=3, warmup_steps=4, average=0.9),
}


@cache
def interrupted(name, mode, optimiser, precision):
    """The state after 1 epoch of 2, the report of the second, and the state at the end."""
    model = create(name, TINY, mode=mode, precision=precision)
    training = model.train(images(), OPTIMISERS[optimiser], STREAM, 2)
    next(training)
    half_way = model.training_state()
    (second,) = training
    return half_way, second, model.training_state()


def resumed(name, mode, optimiser, precision, state):
    """The report of an epoch and the state after it, of a model with other weights that resumes from a state."""
    given = weights(TINY, "float64", seed=9) | {n: a for n, a in weights(TINY).items() if n.endswith("permutation")}
    model = create(name, TINY, mode=mode, precision=precision)
    model.resume(TrainingState({n: a.astype(state.parameters[n].dtype) for n, a in given.items()}))
    model.resume(state)
    (report,) = model.train(images(), OPTIMISERS[optimiser], STREAM, 1)
    return report, model.training_state()


@pytest.mark.parametrize(("name", "mode"), cases(training=True))
@pytest.mark.parametrize("optimiser", list(OPTIMISERS))
def test_the_same_backend_goes_on_bit_for_bit_in_float32(name, mode, optimiser):
    half_way, second, end = interrupted(name, mode, optimiser, "float32")
    report, state = resumed(name, mode, optimiser, "float32", half_way)
    assert report.epoch == 2
    assert report.losses.tobytes() == second.losses.tobytes()
    assert_same_bits(state.parameters, end.parameters)
    for moment in end.moments:
        assert_same_bits(state.moments[moment], end.moments[moment])
    assert state.step == end.step == 10


@pytest.mark.parametrize("taker", backend_names())
@pytest.mark.parametrize("giver", backend_names())
def test_any_backend_goes_on_from_the_state_of_any_other(giver, taker):
    optimiser = "adam" if len(giver + taker) % 2 else "rmsprop"
    half_way, _, _ = interrupted(giver, None, optimiser, "float64")
    report, state = resumed(taker, None, optimiser, "float64", half_way)
    _, second, end = interrupted("numpy", "eager", optimiser, "float64")
    assert report.losses == pytest.approx(second.losses, rel=1e-12)
    assert max(errors(state.parameters, end.parameters).values()) < 1e-11
    for moment in end.moments:
        assert max(errors(state.moments[moment], end.moments[moment]).values()) < 1e-11


@pytest.mark.parametrize("name", backend_names())
def test_a_state_is_given_back_bit_for_bit(name):
    half_way, _, _ = interrupted("numpy", "eager", "adam", "float32")
    model = create(name, TINY, precision="float32", seed=0)
    model.resume(half_way)
    state = model.training_state()
    assert state.step == half_way.step
    assert_same_bits(state.parameters, half_way.parameters)
    for moment in half_way.moments:
        assert_same_bits(state.moments[moment], half_way.moments[moment])


@pytest.mark.parametrize("name", backend_names())
def test_resuming_from_the_start_forgets_the_moments(name):
    start = create(name, TINY, precision="float32").training_state()
    model = create(name, TINY, precision="float32")
    (expected,) = model.train(images(), Adam(), STREAM, 1)
    model.resume(start)
    (report,) = model.train(images(), Adam(), STREAM, 1)
    assert report.epoch == 1
    assert report.losses.tobytes() == expected.losses.tobytes()


@pytest.mark.parametrize("name", backend_names())
def test_a_model_that_has_not_trained_has_no_moments(name):
    state = create(name).training_state()
    assert (state.step, state.moments) == (0, {})


def test_a_state_in_the_middle_of_an_epoch_of_another_batch_size_is_refused():
    model = create("numpy", TINY, precision="float32")
    model.resume(interrupted("numpy", "eager", "adam", "float32")[0])
    with pytest.raises(ValueError, match="state is at step 5, inside an epoch of 3 steps"):
        model.train(images(), Adam(), Stream(batch=7), 1)


def test_a_state_of_another_optimiser_is_refused():
    model = create("numpy", TINY, precision="float32")
    model.resume(interrupted("numpy", "eager", "adam", "float32")[0])
    with pytest.raises(ValueError, match=r"state has moments .*; rmsprop has"):
        model.train(images(), RMSProp(), STREAM, 1)


# States that don't fit


GOOD = TrainingState(weights(SMALL), {m: weights(SMALL) for m in Adam.moments}, 5)
BAD_MOMENT = weights(SMALL) | {"log_scale": np.zeros(13)}
OTHER_ORDER = {"coupling.0.permutation": np.arange(12, dtype=np.int32)}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(replace(GOOD, parameters=BAD_MOMENT), r"training state: log_scale has shape \(13,\)", id="shape"),
        pytest.param(
            replace(GOOD, parameters=weights(SMALL) | {"log_scale": np.full(12, np.nan)}), "not finite", id="nan"
        ),
        pytest.param(
            replace(GOOD, moments=GOOD.moments | {"mean": BAD_MOMENT}), "training state, mean: log_scale", id="moment"
        ),
        pytest.param(replace(GOOD, moments={}), r"step 5 with moments \[\]", id="steps without moments"),
        pytest.param(replace(GOOD, step=0), "step 0 with moments", id="moments without steps"),
        pytest.param(replace(GOOD, step=-5), "step -5", id="negative step"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(state, expected):
    model = create("numpy", seed=3)
    with pytest.raises(ParameterError, match=expected):
        model.resume(state)
    assert_same_bits(model.parameters(), weights(SMALL, seed=3))


def test_a_state_with_other_permutations_is_refused():
    given = weights(SHUFFLED)
    with pytest.raises(ParameterError, match=r"coupling\.0\.permutation differs"):
        create("numpy", SHUFFLED).resume(TrainingState(given | OTHER_ORDER))


def test_a_state_that_float32_cannot_hold_is_refused_by_a_float32_model():
    given = weights(SMALL) | {"log_scale": np.full(12, 0.1)}
    with pytest.raises(ParameterError, match="log_scale has float64 values that float32 can't hold exactly"):
        create("numpy", precision="float32").resume(TrainingState(given))
