import numpy as np
import pytest
from factories import SMALL, Stream, create, errors, images, requires, weights

from backends import Adam, AdamW, RMSProp
from backends.optimisers import Optimiser


def one_step(optimiser: Optimiser, theta, gradients):
    """Parameters that the NumPy reference makes of `theta` by some gradients in turn, in epochs of one step."""
    model = create("numpy")
    model._weights = {"theta": theta.copy()}
    model._moments = {name: {"theta": np.zeros_like(theta)} for name in optimiser.moments}
    training = model._training(images(), optimiser, Stream().pixels)
    for step, gradient in enumerate(gradients):
        training._update({"theta": gradient}, optimiser.schedule(step, 1, 1)[0])
    return model._weights["theta"]


# Schedules


def test_rmsprop_divides_the_learning_rate_each_step_from_the_second():
    rate = RMSProp().schedule(0, 3, 250)[:, 0]
    assert rate[0] == 1e-3
    assert rate[1] == pytest.approx(0.000999500249875062, rel=1e-15)
    assert rate[2] == pytest.approx(0.000999000749500312, rel=1e-14)


def test_rmsprop_stops_dividing_at_the_floor():
    # 1.0005 ** n = 10 at n = ln 10 / ln 1.0005 = 4606.3…
    rate = RMSProp().schedule(4605, 4, 250)[:, 0]
    assert rate[0] > 1e-4
    assert rate[1] > 1e-4
    assert rate[2:].tolist() == [1e-4, 1e-4]


def test_rmsprop_has_no_momentum_through_epoch_5_and_a_half_from_epoch_6():
    momentum = RMSProp().schedule(0, 14, 2)[:, 1]
    assert momentum.tolist() == [0] * 10 + [0.5] * 4


def test_adam_corrects_both_biases_from_step_1():
    # 1/(1 − 0.9), 1/(1 − 0.999); 1/(1 − 0.81), 1/(1 − 0.998001)
    assert Adam().schedule(0, 2, 1) == pytest.approx(np.array([[10, 1000], [1 / 0.19, 1 / 0.001999]]), rel=1e-12)


def test_adamw_warms_up_in_a_line_and_cools_down_with_half_a_cosine():
    rate = AdamW(1e-2, epochs=3, warmup_steps=4).schedule(0, 12, 4)[:, 0]
    assert rate[:5] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01], rel=1e-7)
    # The 8 steps after the warm-up: (1 + cos(π i/8))/2.
    assert rate[4:] == pytest.approx(0.01 * (1 + np.cos(np.pi * np.arange(8) / 8)) / 2, rel=1e-6)


def test_adamw_goes_on_at_no_learning_rate_beyond_its_epochs():
    assert not AdamW(1e-2, epochs=3, warmup_steps=4).schedule(12, 5, 4)[:, 0].any()


def test_adamw_has_learning_rates_that_float32_holds():
    rate = AdamW(1e-3, epochs=3).schedule(0, 750, 250)[:, 0]
    assert np.array_equal(rate, rate.astype(np.float32))


def test_adamw_corrects_both_biases_from_step_1():
    assert AdamW(1e-3, epochs=1).schedule(0, 1, 1)[0, 1:] == pytest.approx([1 / (1 - 0.9), 1 / (1 - 0.99)], rel=1e-12)


@pytest.mark.parametrize("optimiser", [Adam(), RMSProp(momentum_epoch=2), AdamW(1e-3, epochs=2, warmup_steps=3)])
def test_a_schedule_taken_in_pieces_is_the_same(optimiser):
    whole = optimiser.schedule(0, 10, 5)
    assert np.array_equal(whole, np.concatenate([optimiser.schedule(0, 5, 5), optimiser.schedule(5, 5, 5)]))


def test_defaults_are_the_protocols():
    assert Adam().to_dict() == {"name": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7}
    assert RMSProp().to_dict() == {
        "name": "rmsprop",
        "learning_rate": 1e-3,
        "rho": 0.95,
        "floor": 1e-2,
        "decay": 1.0005,
        "minimum_learning_rate": 1e-4,
        "momentum": 0.5,
        "momentum_epoch": 6,
    }


# The reference's updates against other people's, and against the formula


GRADIENTS = np.random.default_rng(4).standard_normal((20, 6)) * np.array([1e-9, 1e-6, 1e-3, 1, 10, 0])
THETA = np.linspace(-1, 1, 6)


@requires("torch")
def test_adam_of_the_reference_is_that_of_torch():
    import torch

    p = torch.nn.Parameter(torch.tensor(THETA))
    adam = torch.optim.Adam([p], lr=1e-3, betas=(0.9, 0.999), eps=1e-7)
    for gradient in GRADIENTS:
        p.grad = torch.tensor(gradient)
        adam.step()
    assert one_step(Adam(), THETA, GRADIENTS) == pytest.approx(p.detach().numpy(), rel=1e-13)


@requires("jax")
def test_adam_of_the_reference_is_that_of_optax():
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    adam = optax.adam(1e-3, b1=0.9, b2=0.999, eps=1e-7, eps_root=0.0)
    p = jax.numpy.asarray(THETA)
    state = adam.init(p)
    for gradient in GRADIENTS:
        updates, state = adam.update(jax.numpy.asarray(gradient), state)
        p = optax.apply_updates(p, updates)
    assert one_step(Adam(), THETA, GRADIENTS) == pytest.approx(np.asarray(p), rel=1e-13)


@requires("jax")
@pytest.mark.parametrize("shape", [(2, 3), (6,)], ids=["kernel", "bias"])
def test_adamw_of_the_reference_is_that_of_optax_with_its_moving_average(shape):
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    optimiser = AdamW(1e-2, epochs=20, beta2=0.95, decay=0.7, warmup_steps=5, average=0.8)
    rates = jax.numpy.asarray(optimiser.schedule(0, 20, 1)[:, 0])
    adamw = optax.adamw(lambda t: rates[t], b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.7, mask=len(shape) == 2)
    p = average = jax.numpy.asarray(THETA.reshape(shape))
    state = adamw.init(p)
    model = create("numpy")
    model._weights = {"theta": THETA.reshape(shape).copy()}
    model._moments = {name: {"theta": np.zeros(shape)} for name in optimiser.moments}
    model._moments["average"]["theta"] += THETA.reshape(shape)
    training = model._training(images(), optimiser, Stream().pixels)
    for step, gradient in enumerate(GRADIENTS.reshape(20, *shape)):
        updates, state = adamw.update(jax.numpy.asarray(gradient), state, p)
        p = optax.apply_updates(p, updates)
        average = optax.incremental_update(p, average, 1 - 0.8)
        training._update({"theta": gradient}, optimiser.schedule(step, 1, 1)[0])
    assert model._weights["theta"] == pytest.approx(np.asarray(p), rel=1e-12)
    assert model._moments["average"]["theta"] == pytest.approx(np.asarray(average), rel=1e-12)


@pytest.mark.slow
@requires("torch")
@pytest.mark.filterwarnings("ignore")  # a compiler warns as it likes
def test_torch_makes_one_kernel_of_rmsprop_which_passes_over_memory_as_little_as_can_be():
    import torch
    from torch._inductor import config
    from torch._inductor.utils import run_and_get_code

    from backends.torch_backend import rmsprop

    def state():
        p = torch.nn.Parameter(torch.linspace(-1, 1, 1024))
        p.grad = torch.linspace(-0.1, 0.3, 1024)
        return [p], [torch.linspace(0, 1, 1024)], [torch.linspace(1, 0, 1024)]

    row, expected, found = torch.tensor([1e-3, 0.5]), state(), state()
    rmsprop(RMSProp(), *expected, row)
    with config.patch(force_disable_caches=True):
        _, code = run_and_get_code(torch.compile(rmsprop, dynamic=False, fullgraph=True), RMSProp(), *found, row)
    for [a], [b] in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert code[0].count('extern "C"') == 1
    assert (code[0].count("loadu("), code[0].count(".store(")) == (4, 3)


def test_adam_adds_epsilon_after_the_bias_correction():
    # First step: m̂ = g, v̂ = g². Were ε added to √v instead, it would weigh √1000 times as much.
    g = 1e-6
    assert one_step(Adam(), np.zeros(1), [np.array([g])])[0] == pytest.approx(-1e-3 * g / (g + 1e-7), rel=1e-12)


@pytest.mark.parametrize("column", range(6))
def test_rmsprop_of_the_reference_is_the_papers_formula(column):
    r = v = 0.0
    theta, rate = float(THETA[column]), 1e-3
    for epoch, g in enumerate(GRADIENTS[:, column], start=1):
        r = 0.95 * r + 0.05 * g * g
        v = (0.5 if epoch >= 6 else 0.0) * v - rate * g / max(r**0.5, 0.01)
        theta += v
        rate = max(rate / 1.0005, 1e-4)
    assert one_step(RMSProp(), THETA, GRADIENTS)[column] == pytest.approx(theta, rel=1e-13)


def test_rmsprop_divides_a_small_gradient_by_the_floor():
    assert one_step(RMSProp(), np.zeros(1), [np.array([1e-4])])[0] == pytest.approx(-1e-3 * 1e-4 / 1e-2, rel=1e-12)


@pytest.mark.parametrize("optimiser", [Adam(), RMSProp()])
def test_the_first_step_of_training_applies_the_gradient_of_the_first_batch(optimiser):
    model, stream = create("numpy"), Stream(examples=4)
    list(model.train(images(4), optimiser, stream, 1))
    x = images(4)[stream.epoch(1).order[0]] / 255
    _, gradients = create("numpy").gradients(x)
    start = weights(SMALL)
    expected = {
        name: one_step(optimiser, start[name].ravel(), [g.ravel()]).reshape(g.shape) for name, g in gradients.items()
    }
    assert max(errors(model.parameters(), expected).values()) < 1e-14
