"""The runner's bookkeeping: who trains what, what each round is asked for, and what follows from a curve."""

import pytest

from bench.inputs import protocol
from bench.records import EpochPoint, Measurement
from bench.running import runner
from bench.running.messages import Finished, StateLeft
from bench.running.runner import Request


def request(folder, backends=("a",), **options):
    rule = {name: options.pop(name) for name in list(options) if "__" in name}
    loaded = protocol.load("smoke", **{"training__epochs": 4, "training__rounds": 2} | rule)
    return Request(protocol=loaded, backends=list(backends), device="cpu", folder=folder, **options)


def training(folder, **options):
    asked = request(folder, **options)
    (made,) = runner.trainings(asked, "run", folder)
    return made


# Who trains what


def test_every_mode_of_every_backend_trains_on_every_number_of_devices(tmp_path):
    asked = request(tmp_path, ("a", "b"), modes={"a": ("x", "y")}, devices=(1, 2), nodes=3, seed=7, precision="float64")
    made = runner.trainings(asked, "night", tmp_path)
    found = [
        (m.label, m.record.plan.backend, m.record.plan.mode, m.record.plan.devices, m.record.plan.nodes) for m in made
    ]
    assert found == [
        ("a-x", "a", "x", 1, 1),
        ("a-x-x2", "a", "x", 2, 3),
        ("a-y", "a", "y", 1, 1),
        ("a-y-x2", "a", "y", 2, 3),
        ("b", "b", None, 1, 1),
        ("b-x2", "b", None, 2, 3),
    ]
    assert {(m.record.run, m.record.plan.seed, m.record.plan.precision) for m in made} == {("night", 7, "float64")}
    assert {path.name for path in tmp_path.iterdir()} == {label for label, *_ in found}


def test_a_record_says_what_is_to_be_done(tmp_path):
    asked = request(tmp_path, training__target_loss=-50.0, kind="run")
    (made,) = runner.trainings(asked, "run", tmp_path)
    plan, loaded = made.record.plan, asked.protocol
    assert (plan.kind, plan.protocol, plan.protocol_digest) == ("run", "smoke", loaded.digest())
    assert (plan.device, plan.precision, plan.batch, plan.epochs, plan.rounds) == ("cpu", "float32", 64, 4, 2)
    assert (plan.loss, plan.target_loss, plan.caption) == ("article", -50.0, loaded.caption)
    assert plan.architecture == loaded.make_architecture().to_dict()
    assert plan.optimiser == loaded.make_optimiser().to_dict()


def test_weak_scaling_makes_the_batch_larger_and_strong_scaling_leaves_it(tmp_path):
    for weak, batches in ((False, [64, 64]), (True, [64, 128])):
        made = runner.trainings(request(tmp_path, devices=(1, 2), weak=weak), "run", tmp_path)
        assert [m.record.plan.batch for m in made] == batches
        assert [m.worker_plan(1).protocol.training.batch for m in made] == batches


@pytest.mark.parametrize(
    ("epochs", "rounds", "parts", "spread"),
    [(5, 3, 1, [2, 2, 1]), (6, 3, 1, [2, 2, 2]), (4, 1, 1, [4]), (2, 4, 4, [2, 2, 2, 2]), (7, 4, 1, [2, 2, 2, 1])],
)
def test_epochs_or_their_parts_are_spread_evenly_the_first_rounds_having_one_more(epochs, rounds, parts, spread):
    rule = {"training__epochs": epochs, "training__rounds": rounds, "training__parts": parts}
    assert runner.epochs_by_round(protocol.load("smoke", **rule)) == spread


def test_a_round_is_asked_for_its_epochs_and_where_things_are(tmp_path):
    made = training(tmp_path, training__epochs=5, seed=3, precision="float64", modes={"a": ("x",)})
    first, second = made.worker_plan(1), made.worker_plan(2)
    folder = tmp_path / "a"
    for plan, round_, epochs in ((first, 1, 3), (second, 2, 2)):
        assert (plan.round, plan.rounds, plan.epochs, plan.resumed) == (round_, 2, epochs, False)
        assert (plan.backend, plan.mode, plan.device, plan.precision, plan.seed) == ("a", "x", "cpu", "float64", 3)
        assert (plan.state, plan.best) == (str(folder / "state.safetensors"), str(folder / "best.safetensors"))
        assert (plan.weights, plan.devices, plan.best_loss) == (str(folder / "weights.safetensors"), 1, None)
        assert plan.protocol == made.protocol


def test_a_worker_is_told_its_number_of_devices(tmp_path):
    made = runner.trainings(request(tmp_path, devices=(1, 2)), "run", tmp_path)
    assert [m.worker_plan(1).devices for m in made] == [1, 2]


def test_a_state_counts_when_the_record_is_on_disk(tmp_path):
    made = training(tmp_path)
    left = tmp_path / "a" / "state.8.safetensors"
    left.write_bytes(b"new")
    made.on_disk(Finished(status="ok"))
    assert left.exists()
    made.on_disk(StateLeft(path=str(left)))
    assert not left.exists()
    assert made.state.read_bytes() == b"new"
    assert made.state == tmp_path / "a" / "state.safetensors"


def test_each_variant_has_a_cache_of_its_own(tmp_path):
    variables = training(tmp_path).variables()
    assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "a" / "cache" / "jax")
    assert variables["CUDA_VISIBLE_DEVICES"] == "-1"


def test_what_follows_from_the_curve_has_its_measure_and_unit(tmp_path):
    made = training(tmp_path, training__target_loss=-5.0)
    for epoch, loss in ((1, -4.0), (2, -6.0)):
        made.record.curve.append(EpochPoint(epoch=epoch, train_loss=loss, test_loss=loss, seconds=2.0, round=1))
    for measure, quantity, value in (("training", "seconds_per_epoch", 6.0), ("floor", "train_epoch_seconds", 2.0)):
        made.add(Measurement(measure=measure, quantity=quantity, value=value, unit="s", context={"round": 1}))
    path = tmp_path / "a" / "weights.safetensors"
    path.write_bytes(b"weights")
    assert made.conclude().status == "ok"
    found = [(m.measure, m.quantity, m.value, m.unit, m.context) for m in made.record.measurements[2:]]
    assert found == [
        ("training", "final_train_loss", -6.0, "nats", {}),
        ("training", "epochs_to_target", 2, "epochs", {}),
        ("training", "seconds_to_target", 4.0, "s", {}),
        ("floor", "training_ratio", 3.0, "1", {"round": 1}),
    ]
    (kept,) = tmp_path.glob("*.safetensors")
    assert kept.read_bytes() == b"weights"
    assert kept.with_suffix(".json").is_file()


def test_without_a_target_or_a_loss_none_is_said(tmp_path):
    made = training(tmp_path)
    made.protocol = made.protocol.model_copy(
        update={"training": made.protocol.training.model_copy(update={"target_loss": None})}
    )
    made.record.curve.append(EpochPoint(epoch=1, train_loss=float("nan"), seconds=2.0, round=1))
    made.conclude()
    assert made.record.measurements == []
