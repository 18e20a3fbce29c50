"""The tidy frame: a row per measurement, whatever records it is made of."""

import math

import pandas as pd
import pytest
from record_factories import measurement, points, record

from bench import tables
from bench.tables.frame import frame


def test_the_frame_has_a_row_per_measurement_and_per_point_of_the_curve():
    one = record(
        measurements=[measurement("sampling", "latency", 0.1 + 0.2, "s", 0.25, 0.5, 30, "warm", batch=64, weights="x")],
        curve=points(-5.25, -6.5, test=[-5.0]),
        mode="eager",
    )
    data = frame([one])
    assert list(data["quantity"]) == ["latency", *["train_loss", "test_loss", "seconds"], *["train_loss", "seconds"]]
    first = data.iloc[0]
    assert first["value"] == 0.1 + 0.2  # not rounded
    assert (first["low"], first["high"], first["n"], first["note"], first["at_batch"]) == (0.25, 0.5, 30, "warm", 64)
    assert (first["machine"], first["versions"], first["mode"]) == ("AMD EPYC, 2 cores", "torch 2.13.0", "eager")
    losses = data[data["quantity"] == "train_loss"]
    assert list(zip(losses["at_epoch"], losses["at_round"], losses["value"], strict=True)) == [
        (1, 1, -5.25),
        (2, 1, -6.5),
    ]


def test_a_context_key_never_collides_with_a_column_of_the_plan():
    data = frame([record(batch=128, measurements=[measurement("sampling", "latency", 1.0, "s", batch=7, seed=9)])])
    assert (data["batch"].item(), data["at_batch"].item()) == (128, 7)
    assert (data["seed"].item(), data["at_seed"].item()) == (0, 9)


@pytest.mark.parametrize("status", ["failed", "unavailable", "timeout", "out_of_memory", "diverged"])
def test_a_record_without_measurements_is_one_row_with_status_and_reason(status):
    data = frame([record(status=status, reason="it broke")])
    assert len(data) == 1
    assert (data["status"].item(), data["reason"].item()) == (status, "it broke")
    assert data["quantity"].isna().item()


def test_a_loss_that_was_not_finite_stays_a_row_that_says_so():
    data = frame([record(status="diverged", curve=points(-1.0, math.nan))])
    lost = data[(data["quantity"] == "train_loss") & data["value"].isna()]
    assert list(lost["note"]) == ["train_loss was nan"]


def test_the_frame_does_not_depend_on_the_order_of_the_records():
    records = [record(name, seed=seed, run=run) for name in ("jax", "torch") for seed in (1, 0) for run in ("b", "a")]
    pd.testing.assert_frame_equal(frame(records), frame(reversed(records)))
    assert list(frame(records)["backend"].unique()) == ["torch", "jax"]


def test_the_frame_of_nothing_has_all_columns():
    assert frame([]).empty
    assert "value" in frame([]).columns
    assert tables.all_tables([]) == []
