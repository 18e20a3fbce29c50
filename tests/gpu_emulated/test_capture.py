"""torch's `cudagraph` mode by a stand-in: bit for bit what `eager` gives, and every fault planted in it is found."""

from threading import Thread

import numpy as np
import pytest
from factories import assert_same_bits, requires, weights

pytestmark = [
    pytest.mark.slow,
    requires("torch"),
]
torch = pytest.importorskip("torch")
stand_in = pytest.importorskip("stand_in")

import backends  # noqa: E402
from backends import Adam, AdamW, Architecture, Pixels, RMSProp, torch_backend  # noqa: E402
from bench.inputs.streams import TrainingStream  # noqa: E402

ARTICLE = Architecture(dim=20, couplings=3, hidden_layers=2, hidden_units=12)
PAPER = Architecture(
    **{**ARTICLE.to_dict(), "reorder": "tile", "permute": "after", "split": "halves", "sign": "add"}
    | {"output": "linear", "prior": "logistic"}
)
SHUFFLED = Architecture(**{**PAPER.to_dict(), "reorder": "none", "permute": "before", "permutation": "shuffle"})
CASES = {
    "article, Adam": (ARTICLE, Adam(), Pixels(1 / 255)),
    "article, Adam, noise": (ARTICLE, Adam(), Pixels(1 / 255, -0.01)),
    "paper, RMSProp": (PAPER, RMSProp(momentum_epoch=2), Pixels(1 / 256, 1 / 256)),
    "recipe, AdamW": (SHUFFLED, AdamW(1e-3, epochs=3, warmup_steps=5, average=0.9), Pixels(1 / 256, 1 / 256)),
}
STEPS, BATCH = 7, 16
every_case = pytest.mark.parametrize("case", list(CASES))


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    stand_in.install(monkeypatch)


def images():
    return np.random.default_rng(0).integers(0, 256, (STEPS * BATCH, 20), dtype=np.uint8)


def model_of(case, mode="cudagraph", precision="float32"):
    held = backends.parameters.rounded(weights(CASES[case][0], "float32"), precision)
    return backends.create("torch", CASES[case][0], held, device="gpu", precision=precision, mode=mode)


def train(model, case, epochs):
    _, optimiser, pixels = CASES[case]
    stream = TrainingStream(3, STEPS * BATCH, 20, BATCH, pixels)
    return np.concatenate([report.losses for report in model.train(images(), optimiser, stream, epochs)])


def assert_same(found, expected):
    (model, losses), (other, other_losses) = found, expected
    assert np.array_equal(losses, other_losses)
    state, other_state = model.training_state(), other.training_state()
    assert state.step == other_state.step
    assert_same_bits(state.parameters, other_state.parameters)
    assert state.moments.keys() == other_state.moments.keys()
    for name, moment in state.moments.items():
        assert_same_bits(moment, other_state.moments[name])


def trained(case, mode, precision="float32", epochs=3):
    model = model_of(case, mode, precision)
    return model, train(model, case, epochs)


@every_case
@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_a_replayed_training_is_the_eager_one_bit_for_bit(case, precision):
    assert_same(trained(case, "cudagraph", precision), trained(case, "eager", precision))


@every_case
def test_a_resumed_training_is_the_whole_one(case):
    whole, losses = trained(case, "cudagraph")
    state = trained(case, "cudagraph", epochs=1)[0].training_state()
    fresh, stale = model_of(case), trained(case, "cudagraph", epochs=2)[0]
    for model in (fresh, stale):
        model.resume(state)
        assert_same((model, train(model, case, 2)), (whole, losses[STEPS:]))


@every_case
def test_training_twice_is_training_longer(case):
    whole, losses = trained(case, "cudagraph")
    model, first = trained(case, "cudagraph", epochs=1)
    assert_same((model, np.concatenate([first, train(model, case, 2)])), (whole, losses))


@every_case
def test_capture_leaves_no_trace_of_its_warm_up(case, monkeypatch):
    """Looked at right after it: what follows loads the parameters again, and would hide what capture left."""
    model, seen, steps = model_of(case), [], []

    def look(self, training, inputs):
        seen.append(self.training_state())
        steps.extend(float(step) for step in training._steps)

    monkeypatch.setattr(type(model), "_try_one_step", look)
    before = model.parameters()
    _, optimiser, pixels = CASES[case]
    next(model.train(images(), optimiser, TrainingStream(3, STEPS * BATCH, 20, BATCH, pixels), 1))
    assert_same_bits(seen[0].parameters, before)
    for name, moment in seen[0].moments.items():
        if name == "average":
            assert_same_bits(moment, {n: before[n] for n in moment})
        else:
            assert not any(array.any() for array in moment.values())
    assert not any(steps)


def test_no_gradient_of_the_warm_up_lives_when_the_step_is_captured(monkeypatch):
    model, alive, capture = model_of("article, Adam"), [], torch.cuda.graph

    def look(*arguments, **options):
        alive.append(sum(p.grad is not None for p in model.flow.parameters()))
        return capture(*arguments, **options)

    monkeypatch.setattr(torch.cuda, "graph", look)
    train(model, "article, Adam", 1)
    assert alive == [0]


@pytest.fixture
def switches():
    yield torch.backends.cuda.matmul
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("precision", ["tf32", "float32"])
@pytest.mark.parametrize("mixed", [False, True])
def test_older_and_newer_switches_of_tf32_say_the_same(switches, precision, mixed):
    if mixed:  # by someone else: torch's getters raise from here on
        switches.allow_tf32, switches.fp32_precision = precision != "tf32", "ieee"
    model_of("article, Adam", precision=precision).encode(np.zeros((1, 20), np.float32))
    assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
    assert (switches.allow_tf32, switches.fp32_precision) == (
        (True, "tf32") if precision == "tf32" else (False, "ieee")
    )


def test_workloads_are_replayed_into_the_same_place():
    model = model_of("article, Adam")
    for operation in ("encode", "decode", "log_prob", "sample"):
        call = model.workload(operation, 8)
        first, second = call(), call()
        for a, b in zip(stand_in.tensors(first), stand_in.tensors(second), strict=True):
            assert a.data_ptr() == b.data_ptr()


FAULTS = {
    "the counter stands still": ("torch_graphs", "self.counter.add_(1).remainder_(len(self.losses))", "pass"),
    "the warm-up isn't undone": ("torch_graphs", "tensor.copy_(saved)", "pass"),
    "every epoch has the first one's inputs": ("torch_graphs", "buffer.copy_(tensor)", "pass"),
    "all losses are the first one": ("torch_graphs", "self.losses[:steps].clone()", "self.losses[:1].expand(steps)"),
    "couplings are never updated": ("torch_graphs", "if weight in self.updates:", "if False:"),
    "Adam's step isn't set before an epoch": ("torch_backend", "step.fill_(self._model._step)", "pass"),
    "biases get the mean of their gradients": ("torch_graphs", "by_output.sum(dim=0)", "by_output.mean(dim=0)"),
    "inputs get no gradient": ("torch_graphs", "(by_product @ kernel).to(", "(by_product @ kernel * 0).to("),
    "kernels get their gradient's negative": ("torch_graphs", "(by_product.t() @ x)", "(-by_product.t() @ x)"),
    "the chain goes on after its step": ("torch_graphs", "            self.flow.beside = None\n", "            pass\n"),
}


ORIGINAL = backends.backend_class


def judge(case):
    """Training from a stale model is the eager one, and gradients asked for after it are made as ever."""
    start, x = backends.TrainingState(weights(CASES[case][0], "float32")), np.random.default_rng(1).random((5, 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "backend_class", ORIGINAL)
        expected, gradients = trained(case, "eager"), model_of(case, "eager").gradients(x)[1]
    model = trained(case, "cudagraph", epochs=2)[0]
    model.resume(start)
    assert_same((model, train(model, case, 3)), expected)
    model.resume(start)
    assert_same_bits(model.gradients(x)[1], gradients)


@pytest.mark.parametrize("case", ["article, Adam", "paper, RMSProp"])
def test_without_a_fault_nothing_is_found(case):
    judge(case)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_found(fault, tmp_path, monkeypatch):
    module, old, new = FAULTS[fault]
    case = "article, Adam" if "Adam" in fault else "paper, RMSProp"
    with stand_in.planted(monkeypatch, tmp_path, module, old, new) as kind:
        assert type(model_of(case)) is kind
        with pytest.raises((AssertionError, RuntimeError, TypeError)):
            judge(case)


def training_of(case, precision="float32"):
    """The training object of a captured model after an epoch."""
    model, made = model_of(case, precision=precision), []
    make = model._training
    model._training = lambda *arguments: made.append(make(*arguments)) or made[0]
    train(model, case, 1)
    return made[0]


def test_kernels_are_cast_all_at_once_for_a_step_in_bfloat16():
    called = [func.overloadpacket for func, *_ in training_of("article, Adam", "bfloat16")._captured._graph.calls]
    layers = ARTICLE.couplings * (ARTICLE.hidden_layers + 1)
    # Of each layer the input, both gradients and the gradient by the output; the images; x itself has no gradient.
    assert called.count(torch.ops.aten._to_copy) == 4 * layers
    assert called.count(torch.ops.aten._foreach_copy_) == 1


def test_rmsprop_is_compiled_where_the_step_is_captured(monkeypatch):
    compiled, config = [], torch._dynamo.config

    def look(function, **options):
        compiled.append((function.__name__, options, config.recompile_limit))
        return function

    monkeypatch.setattr(torch, "compile", look)
    monkeypatch.setattr(config, "recompile_limit", 8)  # torch's own: after so many shapes it would compile no more,
    trained("paper, RMSProp", "eager")
    assert compiled == []
    trained("paper, RMSProp", "cudagraph")
    options = {"dynamic": False, "fullgraph": True}  # and say so only if it's to make one graph
    assert compiled == [("rmsprop", options, torch_backend.MOST_COMPILED)] * (PAPER.couplings + 1)


def test_an_update_in_autograds_thread_has_the_settings_of_the_training(monkeypatch):
    limits, backward = [], torch.Tensor.backward

    def look(function, **_):
        return lambda *arguments: limits.append(torch._dynamo.config.recompile_limit) or function(*arguments)

    def in_a_thread(loss):  # as autograd goes through a GPU's part
        thread = Thread(target=backward, args=(loss,))
        thread.start()
        thread.join()

    monkeypatch.setattr(torch, "compile", look)
    monkeypatch.setattr(torch.Tensor, "backward", in_a_thread)
    trained("paper, RMSProp", "cudagraph", epochs=1)
    assert len(limits) == 4 * (PAPER.couplings + 1)
    assert set(limits) == {torch_backend.MOST_COMPILED}


# Streams: the stand-in computes in order whatever waits for what, so the waits themselves are looked at


def waits_of_a_step():
    """Who waits for whom in the captured step: the stream of capture is 1, of gradients and updates 2 and 3 or so."""
    beside = training_of("article, Adam")._beside
    names = {beside.gradients.name: "gradients", beside.updating.name: "updating"}
    each = [(names.get(a, "chain"), names.get(b, "chain")) for a, b in stand_in.WAITS]
    return [pair for pair in each if pair != ("chain", "chain")]


def expected_waits(couplings, layers):
    """For each layer backward the gradients wait for the chain; at a coupling's end the update waits for them."""
    coupling = [*[("gradients", "chain")] * layers, ("updating", "gradients")]
    return [*coupling * couplings, ("chain", "gradients"), ("chain", "updating")]


def test_streams_wait_for_what_they_read_and_the_step_for_all_of_them():
    step = expected_waits(couplings=3, layers=3)
    assert waits_of_a_step() == step * 4  # three times to warm up, then captured


@pytest.mark.parametrize(
    "line",
    [
        "        self.gradients.wait_stream(torch.cuda.current_stream())\n",
        "            self.updating.wait_stream(self.gradients)\n",
        "            torch.cuda.current_stream().wait_stream(stream)\n",
    ],
)
def test_a_wait_that_is_left_out_is_found(line, tmp_path, monkeypatch):
    indent = " " * (len(line) - len(line.lstrip()))
    with stand_in.planted(monkeypatch, tmp_path, "torch_graphs", line, f"{indent}pass\n"):
        assert waits_of_a_step() != expected_waits(couplings=3, layers=3) * 4
