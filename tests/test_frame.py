"""The tidy frame: a row per measurement, whatever records it is made of."""

import math

import pandas as pd
import pytest
from record_factories import measurement, points, record

from bench import tables
from bench.records import EpochPoint
from bench.records.environment import BEGUN_WITH
from bench.tables.frame import COLUMNS, frame


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
    assert first["created"] == one.created
    assert list(data["measure"]) == ["sampling", *["curve"] * 5]
    assert frame([record(seen="tf32")])["precision_seen"].item() == "tf32"
    assert frame([record()])["precision_seen"].isna().item()
    assert list(data["unit"]) == ["s", *["nats", "nats", "s"], *["nats", "s"]]
    assert list(data.columns) == [*COLUMNS, "at_batch", "at_epoch", "at_round", "at_weights"]
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


def test_a_note_on_a_point_stands_with_the_loss_that_was_lost_and_with_no_other():
    point = EpochPoint(epoch=1, train_loss=-1.0, test_loss=None, seconds=1.5, round=1, note="test_loss was inf")
    found = frame([record(curve=[point])]).set_index("quantity")["note"]
    assert found["test_loss"] == "test_loss was inf"
    assert found[["train_loss", "seconds"]].isna().all()


def test_a_context_has_one_type():
    def column(*values):
        of = [measurement("a", "b", 1.0, "s", **({} if value is None else {"x": value})) for value in values]
        return frame([record(measurements=of)])["at_x"]

    assert column(1, None).dtype == "Int64"
    assert list(column(1, 0.5)) == [1.0, 0.5]
    assert column(1, 0.5).dtype == "float64"
    found = column("trained", 0.5, None)
    assert list(found[:2]) == ["trained", "0.5"]
    assert found.isna()[2]


@pytest.mark.parametrize(
    ("environment", "plan", "label"),
    [
        ({"cpu": "AMD EPYC", "cores": 2}, {}, "AMD EPYC, 2 cores"),
        ({"cpu": "AMD EPYC", "cores": 2, "machine": "a desk"}, {}, "a desk"),
        ({"cpu": "AMD EPYC", "cores": 2, "gpus": [{"name": "H100"}]}, {"device": "gpu"}, "H100"),
        ({"machine": "H100"}, {"devices": 2}, "H100, 2 devices"),
        ({"machine": "H100"}, {"devices": 4, "nodes": 2}, "H100, 4 devices on 2 nodes"),
    ],
)
def test_a_machine_is_called_by_what_it_has(environment, plan, label):
    assert frame([record(machine=environment, **plan)])["machine"].item() == label


def test_versions_are_those_of_the_backends_packages_or_what_an_outside_backend_says():
    packages = {"jax": "0.10.2", "jaxlib": "0.10.1", "torch": "2.13.0"}
    assert frame([record("jax", packages=packages)])["versions"].item() == "jax 0.10.2, jaxlib 0.10.1"
    before = {BEGUN_WITH: {"packages": {"torch": "2.12.0"}}}
    went_on = record(machine={"cpu": "AMD EPYC", "cores": 2} | before, packages=packages)
    assert frame([went_on])["versions"].item() == "torch 2.12.0, then torch 2.13.0"
    outside = {"cpu": "AMD EPYC", "cores": 2, "framework": {"mlx": "0.3"}}
    assert frame([record("mlx", machine=outside, packages=packages)])["versions"].item() == "mlx 0.3"


def test_precisions_come_before_backends_in_the_order_of_rows():
    made = [record(name, precision=each) for name in ("torch", "jax") for each in ("bfloat16", "float32", "float64")]
    found = frame(made)[["precision", "backend"]].to_records(index=False).tolist()
    assert found == [(each, name) for each in ("float64", "float32", "bfloat16") for name in ("torch", "jax")]


def test_modes_are_in_their_alphabets_order_before_seeds():
    made = [record(mode=mode, seed=seed) for seed in (0, 1) for mode in ("graph", "eager")]
    found = frame(made)[["mode", "seed"]].to_records(index=False).tolist()
    assert found == [("eager", 0), ("eager", 1), ("graph", 0), ("graph", 1)]


def test_the_frame_does_not_depend_on_the_order_of_the_records():
    records = [record(name, seed=seed, run=run) for name in ("jax", "torch") for seed in (1, 0) for run in ("b", "a")]
    pd.testing.assert_frame_equal(frame(records), frame(reversed(records)))
    assert list(frame(records)["backend"].unique()) == ["torch", "jax"]


def test_the_frame_of_nothing_has_all_columns():
    assert frame([]).empty
    assert "value" in frame([]).columns
    assert tables.all_tables([]) == []
