"""Epochs that are made in parts, each in a round of its own: the same training, timed more often."""

from types import SimpleNamespace

import numpy as np
import pytest
from factories import assert_same_bits

from backends import Pixels, parameters
from bench.commands.progress import LiveProgress
from bench.errors import BenchError
from bench.inputs import protocol
from bench.inputs.streams import TrainingStream
from bench.records import EpochPoint
from bench.running import runner
from bench.running.messages import EpochDone
from bench.running.variant import Variant


def test_the_parts_of_an_epoch_are_its_steps_in_order():
    whole = TrainingStream(3, 53, 4, 5, Pixels(1.0, 1.0))
    parted = TrainingStream(3, 53, 4, 5, Pixels(1.0, 1.0), parts=2)
    assert (whole.steps, parted.steps) == (10, 5)
    for epoch in (1, 2):
        expected = whole.epoch(epoch)
        found = [parted.epoch(2 * epoch - 1), parted.epoch(2 * epoch)]
        assert np.array_equal(np.concatenate([part.order for part in found]), expected.order)
        assert np.array_equal(np.concatenate([part.noise for part in found]), expected.noise)


@pytest.mark.slow
def test_an_epoch_in_parts_and_rounds_is_the_epoch(tmp_path):
    made = {}
    for parts in (1, 3):
        rounds = 2 if parts == 1 else 4
        values = {"training__epochs": 2, "training__rounds": rounds, "training__parts": parts}
        values |= {"data__train": 384, "measure__seconds_per_timing": 0.01}
        request = runner.Request(
            protocol=protocol.load("smoke", **values),
            backends=["numpy"],
            device="cpu",
            folder=tmp_path / str(parts),
        )
        with LiveProgress() as progress:
            (record,) = runner.run(request, progress)
        assert record.status == "ok", record.reason
        (weights,) = (tmp_path / str(parts)).glob("*.safetensors")
        made[parts] = record, parameters.load(weights)[1]
    (whole, weights), (parted, its) = made[1], made[3]
    assert_same_bits(its, weights)
    assert [p.epoch for p in parted.curve] == [1, 2]
    assert [p.train_loss for p in parted.curve] == pytest.approx([p.train_loss for p in whole.curve], rel=1e-12)
    assert [p.test_loss for p in parted.curve] == [p.test_loss for p in whole.curve]
    assert parted.first_epoch_losses == whole.first_epoch_losses
    training = [m for m in parted.measurements if m.measure == "training"]
    seconds, images = (
        {m.context["round"]: m.value for m in training if m.quantity == quantity}
        for quantity in ("seconds_per_epoch", "images_per_second")
    )
    assert set(seconds) == set(images) == {1, 2, 3, 4}
    assert [rate * seconds[round_] for round_, rate in images.items()] == pytest.approx([384] * 4)  # of a whole epoch


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training__parts": 7}, "training.parts is 7; expected a divisor of the"),
        ({"training__rounds": 7}, "training.rounds is 7; expected at most training.epochs times training.parts"),
    ],
)
def test_parts_that_do_not_divide_an_epoch_are_refused(values, message):
    with pytest.raises(BenchError, match=message):
        protocol.load("article-quick", **values)


def test_parts_go_with_a_schedule_that_knows_no_epochs():
    with pytest.raises(BenchError, match=r"training.parts: expected 1 with an optimiser"):
        protocol.load("paper", training__parts=2)


@pytest.mark.parametrize(("parts", "whole"), [((0.1, 0.5), 0.4), ((None, 0.5), None), ((0.1, None), None)])
def test_what_others_used_in_an_epoch_is_weighted_by_the_seconds_of_its_parts(parts, whole):
    first, second = (
        EpochPoint(epoch=1, train_loss=1.0, seconds=seconds, others=others, round=1)
        for seconds, others in zip((1.0, 3.0), parts, strict=True)
    )
    so_far = SimpleNamespace(record=SimpleNamespace(curve=[first]))
    assert Variant._joined(so_far, EpochDone(part=2, point=second)).others == whole
