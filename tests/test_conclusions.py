"""What the runner concludes when all rounds are over: the target, the final loss, each round against its floor."""

import pytest

from bench.inputs import protocol
from bench.records import EpochPoint, Measurement
from bench.running import runner
from bench.running.runner import Request


def training(folder, curve=(), **rule):
    """A variant that has trained, with epochs of 1, 2, 4, … seconds that had these losses, (training, selection)."""
    loaded = protocol.load("smoke", **{f"training__{name}": value for name, value in rule.items()})
    asked = Request(protocol=loaded, backends=["a"], device="cpu", folder=folder)
    epochs, rounds = loaded.training.epochs, loaded.training.rounds
    plan = runner.plan_of(asked, loaded, "cpu", "a", None, epochs=epochs, rounds=rounds)
    made = runner.Training(asked, "a", plan, "run", folder)
    for epoch, (train, test) in enumerate(curve, start=1):
        point = EpochPoint(epoch=epoch, train_loss=train, test_loss=test, seconds=2.0 ** (epoch - 1), round=1)
        made.record.curve.append(point)
    return made


LOSSES = ((-8.0, -9.0), (None, -10.5), (-9.9, -3.0), (-10.0, -11.0), (-12.0, -12.0))


@pytest.mark.parametrize(
    ("of", "target", "epochs", "spent"),
    [
        ("training", -10.0, 4, 15.0),
        ("selection", -10.0, 2, 3.0),
        ("training", -7.0, 1, 1.0),
        ("training", -12.5, None, None),
    ],
)
def test_a_target_is_reached_after_the_first_epoch_that_is_no_worse(tmp_path, of, target, epochs, spent):
    made = training(tmp_path, LOSSES, target_loss=target, target_of=of, epochs=5, rounds=1)
    made.conclude()
    found = {m.quantity: m.value for m in made.record.measurements}
    assert found == {"final_train_loss": -12.0, "epochs_to_target": epochs, "seconds_to_target": spent}


def test_a_rounds_time_is_held_against_its_own_floor(tmp_path):
    made = training(tmp_path, rounds=2, epochs=2)
    for round_, seconds, floor in ((1, 6.0, 2.0), (2, 10.0, 2.5)):
        for measure, quantity, value in (
            ("training", "seconds_per_epoch", seconds),
            ("floor", "train_epoch_seconds", floor),
        ):
            at = {"round": round_}
            made.add(Measurement(measure=measure, quantity=quantity, value=value, unit="s", context=at))
    made.conclude()
    ratios = [(m.context["round"], m.value) for m in made.record.measurements if m.quantity == "training_ratio"]
    assert ratios == [(1, 3.0), (2, 4.0)]


@pytest.mark.parametrize(("weak", "batch"), [(False, 64), (True, 192)])
def test_a_batch_is_of_all_devices_together_or_of_each(tmp_path, weak, batch):
    asked = Request(protocol=protocol.load("smoke"), backends=["a"], device="cpu", folder=tmp_path, weak=weak)
    assert runner.protocol_of(asked, 3).training.batch == batch
