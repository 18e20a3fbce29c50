"""The table of devices side by side, from synthetic records whose figures are worked out by hand here."""

import re

import pytest
from record_factories import XEON, measurement, record, row, seconds

from bench.tables.device_tables import devices


def run_of(count, batch, rate, backend="torch", **more):
    made = [*seconds(1.0), measurement("training", "images_per_second", rate, "images/s", round=1)]
    if count > 1:
        made.append(measurement("training", "reduced_bytes", 76_545_001, "bytes", round=1))
        made += [measurement("floor", "reduction_seconds", 0.012649, "s", round=1)]
        made += [measurement("floor", "train_step_seconds", 0.05, "s", round=1)]
    run = f"{count} of {batch} {more.get('mode')}"
    return record(backend, run=run, devices=count, batch=batch, measurements=made, **more)


RUNS = [run_of(1, 128, 1000.0), run_of(2, 128, 1500.0), run_of(1, 64, 800.0), run_of(4, 512, 3000.0)]


def test_strong_scaling_is_of_the_same_batch_and_weak_of_that_of_each_device():
    table = devices(RUNS)
    two, four = (row(table, devices=count) for count in ("2", "4"))
    assert (two["images/s"], two["speed-up"]) == ("1500", "1.50")
    assert (two["efficiency, strong"], two["efficiency, weak"]) == ("0.750", "0.938")  # 1500/2/1000, 1500/2/800
    assert (four["speed-up"], four["efficiency, strong"], four["efficiency, weak"]) == ("–", "–", "0.750")
    assert two["reduced a step, MB"] == "76.55"
    assert (table.name, table.title) == ("devices", "Devices side by side")
    raw = table.raw.set_index(["devices", "batch"]).loc[2, 128]
    assert (raw["images_per_second"], raw["speed_up"], raw["step_seconds"]) == (1500.0, 1.5, 128 / 1500)


def test_a_rate_below_one_is_one_like_any_other():
    assert row(devices([run_of(1, 128, 0.5), run_of(2, 128, 1.0)]), devices="2")["speed-up"] == "2.00"


def test_machines_are_kept_apart_and_named_without_their_devices():
    made = [run_of(count, 128, rate) for count, rate in ((1, 1000.0), (2, 1500.0))]
    made += [run_of(count, 128, rate, machine=XEON) for count, rate in ((1, 100.0), (2, 180.0), (4, 300.0))]
    table = devices(made)
    assert set(table.shown["machine"]) == {"AMD EPYC, 2 cores", "Intel Xeon, 4 cores"}
    assert row(table, machine="Intel Xeon, 4 cores", devices="2")["speed-up"] == "1.80"
    assert "nodes" not in table.shown


def test_nodes_have_a_column_where_there_are_several():
    table = devices([run_of(1, 128, 1000.0), run_of(4, 128, 3000.0, nodes=2)])
    assert list(table.shown["nodes"]) == ["1", "2"]
    assert set(table.shown["speed-up"]) == {"1.00", "3.00"}


def test_a_backend_on_one_device_alone_has_no_row():
    table = devices([run_of(1, 128, 9.0), run_of(1, 128, 1000.0, "jax"), run_of(2, 128, 1500.0, "jax")])
    assert set(table.raw["backend"]) == {"jax"}


def test_networks_of_one_protocols_name_are_not_divided_by_each_other():
    small = run_of(2, 128, 9000.0, protocol_digest="f" * 16, architecture={"dim": 4, "hidden_units": 100})
    table = devices([RUNS[0], RUNS[2], small])
    assert "speed-up" not in table.shown  # there is none
    assert "Protocol article" in table.caption
    named = [row["protocol"] for row in devices([*RUNS[:2], small]).raw.to_dict("records")]
    assert len(set(named)) == 2
    assert all(re.fullmatch(r"article \(network [0-9a-f]{8}\)", name) for name in named)
    scheduled = [
        {"optimiser": {"name": "adamw", "epochs": epochs}, "protocol_digest": f"{epochs}" * 16} for epochs in (1, 2)
    ]
    made = [
        run_of(count, 128, rate, **each) for count, rate, each in zip((1, 2), (1000.0, 1500.0), scheduled, strict=True)
    ]
    assert row(devices(made), devices="2")["speed-up"] == "1.50"  # the schedule's length is no other network
    other_batch = run_of(2, 128, 1500.0, protocol_digest="e" * 16)  # as another batch has, too
    assert row(devices([RUNS[0], other_batch]), devices="2")["speed-up"] == "1.50"


def test_a_table_that_is_folded_names_the_devices_in_each_part_and_what_failed_below():
    failed = run_of(4, 128, 1.0, "jax", status="failed", reason="no room")
    table = devices([*RUNS, failed])
    assert {"devices", "mode", "batch"} & {*table.shown} <= {*table.labels}
    assert "Not complete: jax, AMD EPYC, 2 cores, 4 devices, article, float32: failed (no room)." in table.caption


def test_the_reduction_by_itself_stands_beside_the_step_and_its_floor():
    two, one = (row(devices(RUNS), devices=count, batch="128") for count in ("2", "1"))
    assert (two["step, ms"], two["floor, ms"], two["reduction alone, ms"]) == ("85.33", "50.0", "12.6")  # 128/1500
    assert (one["step, ms"], one["floor, ms"], one["reduction alone, ms"]) == ("128.0", "–", "–")


def test_speed_up_is_over_one_device_in_the_same_mode_or_else_in_the_fastest():
    single = [run_of(1, 128, rate, mode=mode) for mode, rate in (("eager", 500.0), ("graph", 800.0), ("slow", 100.0))]
    table = devices([*single, run_of(2, 128, 900.0, mode="eager"), run_of(2, 128, 1200.0, mode="other")])
    assert row(table, devices="2", mode="eager")["speed-up"] == "1.80"
    assert row(table, devices="2", mode="other")["speed-up"] == "1.50"
    assert row(table, devices="1", mode="slow")["speed-up"] == "1.00"


def test_speed_up_is_over_the_same_backend():
    table = devices([run_of(1, 128, 500.0), run_of(2, 128, 900.0, "jax"), run_of(2, 128, 750.0)])
    assert row(table, backend="torch", devices="2")["speed-up"] == "1.50"
    assert row(table, backend="jax", devices="2")["speed-up"] == "–"


def test_what_was_disturbed_has_no_speed_up_and_is_no_base():
    def disturbed(run):
        busy = measurement("training", "others_share", 0.6, "1", round=1)
        return run.model_copy(update={"measurements": [*run.measurements, busy]})

    one, two, *_ = RUNS
    assert row(devices([disturbed(one), two]), devices="2")["images/s"] == "1500"
    assert devices([disturbed(one), two]).raw["speed_up"].isna().all()
    shown = row(devices([one, disturbed(two)]), devices="2")
    assert shown["images/s"] == "1500, disturbed: others used 60 % of the machine"
    assert (shown["efficiency, strong"], shown["efficiency, weak"]) == ("–", "–")


@pytest.mark.parametrize("runs", [RUNS[:1], [record(status="failed", reason="boom")], []])
def test_without_devices_side_by_side_there_is_no_table(runs):
    assert devices(runs).raw.empty


def test_what_failed_is_no_base():
    failed = run_of(1, 128, 1.0).model_copy(update={"status": "failed", "reason": "it broke"})
    assert devices([failed, RUNS[1]]).raw["speed_up"].isna().all()
