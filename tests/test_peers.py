"""Peers: what is checked before a time counts, and that whatever befalls a library is a row.

The libraries themselves are tested where they are installed (`nox -s bench-peers` installs them); Keras comes with
TensorFlow, and so is tested on other frameworks here.
"""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from factories import ARTICLE, PAPER, SHUFFLED, rows, weights
from record_factories import record

import backends
from backends import Adam, Architecture
from bench.commands.progress import LiveProgress
from bench.inputs.peer_registry import FRAMEWORKS, OURS, REGISTRY, Entry, of_framework
from bench.inputs.streams import TrainingStream
from bench.peers import runner, worker
from bench.peers.interface import InexpressibleError, Peer, check_article, halves
from bench.records import Measurement, environment
from bench.running.messages import Finished, PeerBegun, PeersPlan

pytestmark = pytest.mark.slow

SMALL = Architecture(dim=12, couplings=4, hidden_layers=2, hidden_units=8)


# The registry, and the flow on halves


def test_names_are_unique_within_a_framework_and_none_is_that_of_the_harness():
    for framework in FRAMEWORKS:
        names = [entry.name for entry in of_framework(framework)]
        assert len(names) == len({*names, OURS}) - 1
    assert sum(len(of_framework(framework)) for framework in FRAMEWORKS) == len(REGISTRY)


@pytest.mark.parametrize("couplings", [1, 2, 3])
def test_the_flow_on_halves_is_the_article_s(couplings):
    architecture = replace(ARTICLE, couplings=couplings)
    given, x = weights(architecture), rows(architecture)
    flow = halves(architecture, given)
    parts = np.split(x[:, flow.entry], 2, axis=1)
    for k, layers in enumerate(flow.networks):
        h = parts[k % 2]
        for kernel, bias in layers:
            h = np.maximum(h @ kernel + bias, 0)
        parts[1 - k % 2] = parts[1 - k % 2] - h
    z = np.concatenate(parts, axis=1) * np.exp(flow.log_scale)
    log_prob = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=1) + flow.log_scale.sum()
    reference = backends.create("numpy", architecture, given, device="cpu", precision="float64")
    np.testing.assert_allclose(log_prob, reference.log_prob(x), rtol=1e-12)


@pytest.mark.parametrize(("architecture", "field"), [(PAPER, "reorder"), (SHUFFLED, "permutation")])
def test_another_architecture_is_refused(architecture, field):
    with pytest.raises(InexpressibleError, match=field):
        check_article(architecture)


# The checks, on peers made of the reference


class Reference:
    """One that does the work as it should, but for arrays that it keeps as they were; what is timed is nothing."""

    def __init__(self, first, given, kept=()):
        self.model = backends.create("numpy", first.architecture, given, device="cpu", precision="float32")
        self.log_prob, self.first = self.model.log_prob, first
        self.kept = {name: array for name, array in given.items() if name.endswith(kept)}

    def arrays(self):
        return [-array[::-1] for array in reversed(self.model.parameters().values())]

    def begin(self):
        list(self.model.train(self.first.images, self.first.optimiser, self.first.stream, 1))
        self.model.resume(backends.TrainingState(self.model.parameters() | self.kept))

    def seconds(self):
        return 1.0


class Shorter(TrainingStream):
    """A stream without the last of the steps that are checked."""

    steps = worker.CHECKED_STEPS - 1


class Late(Reference):
    """Breaks down in the first round, after the warm-up."""

    called = 0

    def seconds(self):
        self.called += 1
        if self.called > 1:
            raise RuntimeError("all at sea")
        return super().seconds()


def make_peer(entry, work, precision):
    given, first = work.weights, work.beginning()
    match entry.name:
        case "absent":
            raise backends.UnavailableError("absent: can't be imported here (No module named 'absent')")
        case "too large":
            raise MemoryError
        case "a bias less":
            given = given | {"coupling.1.dense.0.bias": 0 * given["coupling.1.dense.0.bias"]}
        case "other order":
            given = given | {"coupling.0.dense.2.kernel": given["coupling.0.dense.2.kernel"][:, ::-1]}
        case "faster":
            rate = 1.05 * first.optimiser.learning_rate
            first = replace(first, optimiser=replace(first.optimiser, learning_rate=rate))
        case "a step less":
            first = replace(first, stream=Shorter(**vars(first.stream)))
    kept = {"idle": "", "frozen": "log_scale", "biases frozen": ".bias"}.get(entry.name, ())
    return (Late if entry.name == "late" else Reference)(first, given, kept)


FATES = {
    "good": None,
    "a bias less": "failed: log p at the same weights is off by",
    "other order": "failed: log p at the same weights is off by",
    "idle": "failed: training leaves coupling.0.dense.0.kernel and 24 more as before",
    "frozen": "failed: training leaves log_scale as before",
    "biases frozen": "failed: training leaves coupling.0.dense.0.bias and 11 more as before",
    "faster": "failed: the change of log p by training is off by",
    "a step less": "failed: the change of log p by training is off by",
    "late": "failed: RuntimeError: all at sea",
    "absent": "unavailable: absent: can't be imported here (No module named 'absent')",
    "too large": "out_of_memory: MemoryError",
}
PLAN = PeersPlan(
    framework="numpy",
    peers=list(FATES),
    architecture=SMALL.to_dict(),
    device="cpu",
    precision="float32",
    batch=8,
    steps=4,  # not those that are checked
    rounds=2,
    seed=0,
)


@pytest.fixture(scope="module")
def checked():
    """Measurements of a run with one peer of each fate, by peer."""
    with pytest.MonkeyPatch.context() as patch:
        return measured_by_peer(patch, PLAN)


def measured_by_peer(patch, plan):
    """Measurements of a run with peers made of the reference."""
    patch.setattr(worker, "of_framework", lambda framework: [Entry(name, framework, "", "") for name in FATES])
    patch.setattr(worker, "make_peer", make_peer)
    events = list(worker.measure(plan))
    assert events[-1].event == "finished"
    made = [event for event in events if isinstance(event, Measurement)]
    return {name: [m for m in made if m.context["peer"] == name] for name in (OURS, *plan.peers)}


@pytest.mark.parametrize("name", FATES)
def test_only_who_does_the_same_work_is_timed(checked, name):
    timed = [m for m in checked[name] if m.quantity == "step_seconds"]
    if FATES[name] is None:
        assert [m.context["round"] for m in timed] == [1, 2]
        assert all(m.value > 0 for m in timed)
    else:
        assert [(m.value, m.note[: len(FATES[name])]) for m in timed] == [(None, FATES[name])]


def test_the_harness_is_checked_and_timed_like_its_peers(checked):
    assert [m.quantity for m in checked[OURS]] == ["log_prob_error", "step_seconds", "step_seconds"]
    assert [m.quantity for m in checked["good"]] == ["log_prob_error", "trained_error", "step_seconds", "step_seconds"]
    assert checked["good"][1].n == worker.CHECKED_STEPS


def test_what_does_not_move_in_the_harness_need_not_move_in_a_peer(monkeypatch):
    plan, work = PLAN.model_copy(update={"peers": ["good", "frozen"]}), worker.Work.of(PLAN)
    dead = {"coupling.0.dense.2.bias": work.weights["coupling.0.dense.2.bias"] - 100}
    monkeypatch.setattr(worker.Work, "of", lambda plan: replace(work, weights=work.weights | dead))
    found = measured_by_peer(monkeypatch, plan)
    assert [m.note for m in found["good"]] == [None] * 4
    assert found["frozen"][-1].note == FATES["frozen"]


def test_a_peer_is_timed_on_all_batches(monkeypatch):
    work, trained = worker.Work.of(PLAN), []

    class Counting(rounding_peer(23)):
        def load(self, batches):
            self.batches = batches

        def train(self):
            trained.append(self.batches)

    monkeypatch.setattr(worker, "peer_class", lambda entry: Counting)
    timed = worker.make_peer(Entry("p", "jax", "", ""), work, "float32")
    timed.begin()
    timed.seconds()
    np.testing.assert_array_equal(trained[0], work.beginning().batches())
    np.testing.assert_array_equal(trained[1], work.batches())


def test_other_modes_of_the_harness_are_checked_and_timed_like_its_peers():
    plan = PLAN.model_copy(update={"framework": "jax", "peers": [], "modes": True})
    events = list(worker.measure(plan))
    made = [event for event in events if isinstance(event, Measurement)]
    found = [(m.quantity, m.value) for m in made if m.context["peer"] == f"{OURS}: jit"]
    assert [quantity for quantity, _ in found] == ["log_prob_error", "trained_error", "step_seconds", "step_seconds"]
    assert max(error for quantity, error in found if quantity.endswith("error")) < 1e-5
    again = list(worker.measure(plan.model_copy(update={"lost": [f"{OURS}: jit"]})))
    assert {event.context["peer"] for event in again if isinstance(event, Measurement)} == {OURS}


def test_orders_change_so_that_none_is_always_first_or_after_the_same_one():
    rounds = [worker.order_of(list("abc"), round_) for round_ in range(1, 7)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {order[0] for order in rounds} == {"a", "b", "c"}
    assert rounds[1] == rounds[0][::-1]


# The precision of their products


def rounding_peer(bits):
    """A peer whose products see so many bits of their operands, as matrix units do."""

    class Rounding(Peer):
        def __init__(self, architecture, parameters, optimiser):
            self.flow = halves(architecture, parameters)

        def log_prob(self, x):
            a, b = np.split(x[:, self.flow.entry], 2, axis=1)
            for layers in self.flow.networks:
                h = a
                for kernel, bias in layers:
                    h = np.maximum(rounded(h, bits) @ rounded(kernel, bits) + bias, 0)
                a, b = b - h, a  # changed, read
            z = np.concatenate([a, b] if len(self.flow.networks) % 2 == 0 else [b, a], axis=1)
            z *= np.exp(self.flow.log_scale)
            return -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=1) + self.flow.log_scale.sum()

        load = train = arrays = None

    return Rounding


def rounded(x, bits):
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1).astype(np.float32)


@pytest.mark.parametrize(("bits", "seen"), [(23, "float32"), (21, "21 bits"), (10, "tf32"), (7, "bfloat16")])
def test_the_precision_of_a_peer_s_products_is_seen(bits, seen):
    assert worker.probe_peer(rounding_peer(bits), "float32").seen == seen


@pytest.mark.parametrize(("bits", "asked", "seen"), [(23, "tf32", "float32"), (10, "float32", "tf32")])
def test_a_peer_that_multiplies_otherwise_is_not_timed(monkeypatch, bits, asked, seen):
    monkeypatch.setattr(worker, "peer_class", lambda entry: rounding_peer(bits))
    work = SimpleNamespace(architecture=SMALL, weights=weights(SMALL, "float32"), optimiser=Adam())
    with pytest.raises(worker.PeerError, match=f"it multiplies in {seen}, and {asked} was asked for"):
        worker.make_peer(Entry("p", "jax", "", ""), work, asked)


def test_peers_on_jax_are_asked_to_multiply_as_the_harness_does():
    jax = pytest.importorskip("jax")
    from backends.jax_backend import Flow

    for precision, name in worker.PRODUCTS_OF_JAX.items():
        assert Flow(SMALL, None, precision).product_precision == jax.lax.Precision(name)


# The runner, on workers that only talk


TALKER = """
import json, os, sys
plan = json.loads(sys.stdin.readline())
if plan["framework"] == "tensorflow":
    message = dict(event="finished", status="unavailable", reason="no TensorFlow here")
    sys.exit(print(json.dumps(message)))
assert plan["modes"]
for name in ["this harness", *({"this harness: xla"} - {*plan["lost"]}), *plan["peers"]]:
    print(json.dumps(dict(event="begun", peer=name, stage="round 1")), flush=True)
    if name in ("nflows", "this harness: xla"):
        os.abort()
    figure = dict(measure="peers", quantity="step_seconds", value=1.0, unit="s", context=dict(peer=name, round=1))
    print(json.dumps(dict(event="measured", measurement=figure)), flush=True)
    print("a library talks")
print(json.dumps(dict(event="finished", status="ok")))
"""


@pytest.fixture(scope="module")
def talked(tmp_path_factory):
    """Records by framework, of workers of which torch's is taken down by a mode of our own, and by nflows."""
    request = runner.Request(
        architecture=SMALL,
        backends=("torch", "tensorflow"),
        device="cpu",
        folder=tmp_path_factory.mktemp("peers"),
        command=lambda label, interpreter: [interpreter, "-c", TALKER],
    )
    with LiveProgress() as progress:
        return {record.plan.backend: record for record in runner.run(request, progress)}


def test_a_library_that_takes_the_process_down_is_a_row_and_the_others_go_on(talked):
    record = talked["torch"]
    times = {m.context["peer"]: (m.value, m.note) for m in record.measurements}
    assert record.status == "ok"
    assert times.pop("nflows") == times.pop("this harness: xla") == (None, "failed: ended by SIGABRT")
    assert times == dict.fromkeys(times, (1.0, None))
    assert set(times) == {OURS, *(entry.name for entry in of_framework("torch"))} - {"nflows"}


def test_a_framework_that_is_missing_is_a_record_that_says_so(talked):
    assert (talked["tensorflow"].status, talked["tensorflow"].reason) == ("unavailable", "no TensorFlow here")


@pytest.mark.parametrize(
    ("statuses", "arguments", "code"),
    [
        (["ok", "unavailable"], [], 0),
        (["ok", "unavailable"], ["--frameworks", "torch,jax"], 1),
        (["ok", "failed"], [], 1),
        (["unavailable", "unavailable"], [], 1),
    ],
)
def test_peers_of_a_framework_that_is_not_there_are_an_error_only_if_they_were_asked_for(
    nice_bench, monkeypatch, statuses, arguments, code
):
    pairs = zip(["torch", "jax"], statuses, strict=True)
    made = [record(name, status=status, reason=status, kind="peers") for name, status in pairs]
    monkeypatch.setattr(runner, "run", lambda *_: made)
    assert nice_bench("peers", *arguments).code == code


# The libraries, as far as they are installed


@pytest.fixture(scope="module", params=["torch", "jax"])  # a third would only take time
def measured(request, tmp_path_factory):
    """The record of a framework's peers at a small size, without `fit`, which has the same model as the other Keras."""
    names = [entry.name for entry in of_framework(request.param) if entry.name != "keras fit"]
    folder = tmp_path_factory.mktemp("peers")
    sizes = {"architecture": SMALL, "batch": 4, "steps": 3, "rounds": 1}
    asked = runner.Request(backends=[request.param], peers=names, device="cpu", folder=folder, **sizes)
    with LiveProgress() as progress:
        return runner.run(asked, progress)[0]


def test_installed_peers_do_the_same_work_and_the_others_are_rows(measured):
    assert measured.status == "ok", measured.reason
    for entry in of_framework(measured.plan.backend)[1:]:
        found = {m.quantity: m for m in measured.measurements if m.context["peer"] == entry.name}
        if entry.package in measured.environment["packages"]:
            assert found["step_seconds"].note is None
            assert found["log_prob_error"].value < 1e-6
            assert found["trained_error"].value < 1e-2
        else:
            reason = f"unavailable: {entry.name}: can't be imported here (No module"
            assert found["step_seconds"].note.startswith(reason)


@pytest.mark.parametrize("name", ["zuko", "nflows", "normflows", "FrEIA"])
def test_a_library_on_torch_has_the_reference_s_log_prob(name):
    pytest.importorskip(name)
    entry = next(entry for entry in of_framework("torch") if entry.name == name)
    peer = worker.peer_class(entry)(SMALL, weights(SMALL, "float32"), Adam())
    reference = backends.create("numpy", SMALL, weights(SMALL), device="cpu", precision="float64")
    x = rows(SMALL).astype(np.float32)
    np.testing.assert_allclose(peer.log_prob(x), reference.log_prob(x), rtol=1e-5)


def test_no_library_is_imported_before_it_is_asked_for():
    assert not {"zuko", "nflows", "flowjax", "distrax", "tensorflow_probability"} & set(sys.modules)


def test_the_versions_of_all_peers_are_recorded():
    assert {entry.package for entry in REGISTRY} <= set(environment.PACKAGES)


def test_whoever_is_at_work_when_the_time_is_over_is_not_to_blame(tmp_path):
    request = runner.Request(backends=["torch"], device="cpu", folder=tmp_path)
    plan = record("torch", kind="peers", architecture=Architecture.article().to_dict()).plan
    peers = runner.Peers(request, "torch", plan, "a")
    asked = peers.worker_plan(1)
    peers.take(PeerBegun(peer=asked.peers[0], stage="round 1"))
    late = Finished(status="timeout", reason="no end after 1 s")
    assert peers.after_death(asked, late) is late
    assert peers.record.measurements == []
