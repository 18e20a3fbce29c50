"""Speed, accuracy and curves from synthetic records, whose figures are worked out by hand here."""

import pytest
from record_factories import XEON, both_kinds, likelihood, measurement, points, record, row, seconds

from bench import tables

# Speed


def test_speed_is_what_a_calculation_by_hand_gives():
    torch = record(
        measurements=[
            *seconds(2.0, 4.0, 2.5),
            measurement("training", "images_per_second", 1000.0, "images/s", round=1),
            measurement("training", "images_per_second", 3000.0, "images/s", round=2),
            measurement("likelihood", "images_per_second", 9e9, "images/s", batch=128),
            measurement("floor", "training_ratio", 3.456, "1", round=1),
            measurement("startup", "first_call_seconds", 7.0, "s", round=1),
            *(measurement("startup", "warm_first_call_seconds", 0.5 * i, "s", round=i) for i in (2, 3, 5)),
            measurement("startup", "import_seconds", 1.5, "s", round=1),
            measurement("training", "peak_memory", 3 * 2**20, "bytes", round=1),
            measurement("training", "peak_memory", 9 * 2**20, "bytes", round=2),
            measurement("training", "epochs_to_target", 12.0, "epochs"),
            measurement("training", "seconds_to_target", None, "s", note="the target was not reached"),
        ],
        target_loss=-2200.0,
    )
    jax = record("jax", measurements=seconds(1.0, 1.25))
    table = tables.speed([jax, torch])
    assert list(table.shown["backend"]) == ["torch", "jax"]
    shown = row(table, backend="torch")
    assert shown["s/epoch [min–max]"] == "2.500 [2.000–4.000]"
    assert shown["images/s"] == "2000"
    assert shown["× fastest"] == "2.22"  # 2.5 / 1.125
    assert shown["× floor"] == "3.46"
    assert (shown["first call cold, s"], shown["first call warm, s"]) == ("7.000", "1.500")
    assert (shown["start-up, s"], shown["peak MiB"]) == ("1.500", "3.000")
    assert (shown["epochs to target"], shown["s to target"]) == ("12.00", "not reached")
    raw = table.raw.set_index("backend")
    assert raw.loc["torch", "times_fastest"] == 2.5 / 1.125
    assert raw.loc["jax", "times_fastest"] == 1.0
    assert raw.loc["torch", "times_floor"] == 3.456
    assert "Target: a loss of -2200.00." in table.caption
    assert "Machine: AMD EPYC, 2 cores." in table.caption
    assert "Precision: float32. 2 rounds, 1 run, 1 seed (0)." in table.caption
    assert "Selected on the test set." in table.caption
    assert "Versions: torch 2.13.0; jax 0.10.2." in table.caption


def test_columns_of_speed_are_in_their_units_and_memory_is_that_of_the_first_round():
    made = [
        *seconds(1.0, 1.0, 1.0),
        *(
            measurement("training", "wait_fraction", part, "1", round=i)
            for i, part in ((1, 0.01), (2, 0.02), (3, 0.06))
        ),
        *(measurement("training", "harness_fraction", part, "1", round=i) for i, part in ((1, 0.005), (2, 0.05))),
        *(measurement("training", "peak_memory", i * 2**30, "bytes", round=i) for i in (1, 2, 3)),
        *(measurement("training", "training_memory_ratio", 1.0 + i, "1", round=i) for i in (1, 2, 3)),
        *(measurement("floor", "training_ratio", ratio, "1", round=i) for i, ratio in ((1, 1.25), (2, 1.5), (3, 4.0))),
    ]
    shown = row(tables.speed([record(measurements=made)]))
    assert (shown["waits for input, %"], shown["harness, %"]) == ("2.0", "2.8")
    assert (shown["peak MiB"], shown["memory × needed"]) == ("1024", "2.00")
    assert shown["× floor"] == "1.50"


def test_the_fastest_is_told_by_its_median_not_by_its_best_round():
    torch, jax = record(measurements=seconds(1.0, 4.0, 4.0)), record("jax", measurements=seconds(2.0, 2.0, 2.0))
    assert list(tables.speed([torch, jax]).raw["times_fastest"]) == [2.0, 1.0]


def test_the_spread_within_a_single_round_is_shown():
    one = measurement("training", "seconds_per_epoch", 2.0, "s", 1.75, 2.25, 20, round=1)
    assert row(tables.speed([record(measurements=[one])]))["s/epoch [min–max]"] == "2.000 [1.750–2.250]"


def test_seeds_are_one_row_with_median_and_range():
    records = [record(seed=seed, measurements=seconds(*values)) for seed, values in enumerate([(1, 2, 9), (3,), (7,)])]
    table = tables.speed(records)
    assert table.raw["seconds_per_epoch"].item() == 3  # the median of 2, 3 and 7, not of all five
    assert row(table)["s/epoch [min–max]"] == "3.000 [1.000–9.000]"
    assert table.raw["seeds"].item() == 3
    assert "3 seeds (0, 1, 2)" in table.caption


def test_a_seed_that_missed_the_target_is_not_left_out_of_the_median():
    def reached(value):
        return [*seconds(1.0), measurement("training", "epochs_to_target", value, "epochs")]

    some = [record(seed=seed, measurements=reached(value)) for seed, value in enumerate([5, None, None])]
    assert row(tables.speed(some))["epochs to target"] == "not reached"
    most = [record(seed=seed, measurements=reached(value)) for seed, value in enumerate([5, 6, None])]
    assert row(tables.speed(most))["epochs to target"] == "6.000 [5.000–∞]"


def test_a_run_of_which_nothing_worked_has_its_rows_too():
    made = tables.all_tables([record(name, status="unavailable", reason="no GPU") for name in ("torch", "jax")])
    assert "unavailable: no GPU" in tables.render(made, "text")


def test_failures_are_rows_with_status_and_reason():
    records = [
        record(measurements=seconds(1.0)),
        record("jax", status="out_of_memory", reason="needs 90 GiB | has\n80 GiB"),
        record("tensorflow", status="unavailable", packages={}),
        record(seed=1, status="timeout", reason="after 60 s", measurements=seconds(0.25)),
    ]
    table = tables.speed(records)
    assert row(table, backend="jax")["status"] == "out_of_memory: needs 90 GiB | has\n80 GiB"
    assert row(table, backend="tensorflow")["status"] == "unavailable: no reason recorded"
    # What a failed run measured is shown beside its status, and neither averaged with the others nor the fastest.
    assert row(table, backend="torch", status="ok")["× fastest"] == "1.00"
    assert row(table, backend="torch", status="timeout: after 60 s")["× fastest"] == "–"
    markdown = tables.render([table], "markdown")
    assert r"out_of_memory: needs 90 GiB \| has 80 GiB" in markdown
    for format in ("text", "csv", "latex"):
        assert "after 60 s" in tables.render([table], format)


def test_failures_are_named_under_the_tables_that_have_no_rows_for_them():
    latency = measurement("sampling", "latency", 1.0, "s", batch=1)
    caption = tables.sampling([record(measurements=[latency]), record("jax", status="failed", reason="boom")]).caption
    assert "Not complete: jax, AMD EPYC, 2 cores, article, float32: failed (boom)." in caption


def test_machines_are_kept_apart():
    records = [record(measurements=seconds(1.0)), record(machine=XEON, run="b", measurements=seconds(2.0))]
    table = tables.speed(records)
    assert list(table.shown["machine"]) == ["AMD EPYC, 2 cores", "Intel Xeon, 4 cores"]
    assert list(table.raw["times_fastest"]) == [1.0, 1.0]
    assert "Machines: AMD EPYC, 2 cores; Intel Xeon, 4 cores." in table.caption
    assert "not to be compared" in table.caption
    assert "machine" not in tables.speed(records[:1]).shown


def test_a_caption_names_only_the_machines_whose_figures_are_shown():
    records = [record(measurements=seconds(1.0)), record(machine=XEON, run="b", measurements=likelihood(1980.0, 0.5))]
    _, speed, accuracy = tables.all_tables(records)
    assert "Machine: AMD EPYC, 2 cores." in speed.caption
    assert "Machine: Intel Xeon, 4 cores." in accuracy.caption


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"epochs": 2}, "article (epochs 2)"),
        ({"batch": 64}, "article (batch 64)"),
        ({"protocol_digest": "fedcba9876543210"}, "article (digest fedcba98)"),
    ],
)
def test_an_edited_protocol_is_another_protocol(change, label):
    table = tables.speed([record(measurements=seconds(1.0)), record(seed=1, measurements=seconds(4.0), **change)])
    assert row(table, protocol=label)["s/epoch [min–max]"] == "4.000"
    assert list(table.raw["times_fastest"]) == [1.0, 1.0]


def test_versions_modes_and_precisions_as_seen_are_kept_apart():
    records = [
        record(measurements=seconds(1.0)),
        record(run="b", measurements=seconds(2.0), packages={"torch": "2.14.0"}),
        record(run="c", measurements=seconds(3.0), mode="compile", packages={"torch": "2.14.0"}),
        record(run="d", measurements=seconds(4.0), seen="tf32"),
    ]
    table = tables.speed(records)
    assert list(table.shown["backend"]) == [
        "torch (torch 2.13.0)",
        "torch (torch 2.14.0)",
        "torch (torch 2.14.0)",
        "torch (torch 2.13.0)",
    ]
    assert list(table.shown["precision"]) == ["float32"] * 3 + ["float32 (seen tf32)"]
    assert list(table.raw["times_fastest"]) == [1.0, 2.0, 3.0, 1.0]


# Accuracy and curves


def test_losses_and_likelihood_are_what_the_records_hold():
    one = record(
        curve=[
            *points(-5.0, -9.0, -8.0, test=[-4.0, -7.5, -7.0]),
            *points(-8.5, -8.25, test=[-7.0, -6.5], round=2, start=4),
        ],
        measurements=likelihood(1980.504, 0.31),
    )
    shown = row(tables.accuracy([one]))
    assert shown["final train article loss"] == "-8.25000"
    assert shown["best train article loss"] == "-9.00000 (epoch 2)"
    assert "final test article loss" not in shown  # which is measured at the end: a curve is of what is selected on
    assert shown["best selection article loss"] == "-7.50000 (epoch 2)"
    assert shown["test log-likelihood, nats"] == "1980.50 ± 0.31"
    assert shown["bits/dim"] == "4.361"


def test_measured_final_losses_take_the_place_of_the_last_point():
    given = [
        measurement("training", "final_train_loss", -1.5, "nats"),
        measurement("likelihood", "test_loss", -1.25, "nats", weights="trained"),
        measurement("likelihood", "test_loss", 99.0, "nats", weights="initial"),
    ]
    table = tables.accuracy([record(curve=points(-5.0, test=[-4.0]), measurements=given)])
    assert table.raw["final train article loss"].item() == -1.5
    assert table.raw["final test article loss"].item() == -1.25


@pytest.mark.parametrize("make", [tables.accuracy, tables.curves])
def test_the_articles_loss_and_log_p_share_no_column(make):
    table = make(both_kinds())
    for part in ("train", "selection"):
        article = [name for name in table.raw if f"{part} article loss" in name]
        nll = [name for name in table.raw if f"{part} −log p, nats" in name]
        assert article
        assert nll
        raw = table.raw.set_index("protocol")
        assert raw.loc["paper", article].isna().all()
        assert raw.loc["article", nll].isna().all()
        assert raw.loc["paper", nll].notna().any()
    assert "no likelihood of dequantised data" in table.caption


def test_each_protocol_has_its_own_table_of_curves():
    names = [table.name for table in tables.all_tables(both_kinds())]
    assert names == ["likelihood-times", "accuracy", "curves-article", "curves-paper"]
    assert "Article loss" not in tables.all_tables(both_kinds())[3].caption


def test_failures_alone_make_no_table_of_accuracy():
    assert [table.name for table in tables.all_tables([record(status="failed", reason="boom")])] == ["speed"]


def test_curves_have_a_column_per_backend_and_their_difference():
    records = [
        record(curve=[*points(-4.0, -8.0), *points(-4.0, -8.0, round=2)]),
        record("jax", curve=[*points(-4.0, -8.5), *points(-4.25, -8.0, round=2)]),
        record("numpy", precision="float64", curve=points(-100.0)),
    ]
    table = tables.curves(records)
    raw = table.raw[table.raw["precision"] == "float32"].set_index("epoch")
    assert list(raw["torch train article loss"]) == [-4.0, -8.0]
    assert list(raw["jax train article loss"]) == [-4.125, -8.25]
    assert list(raw["max difference train article loss"]) == [0.25, 0.5]  # the worst round, not the medians' difference
    assert list(raw["relative difference train article loss"]) == [0.25 / 4.25, 0.5 / 8.5]
    assert row(table, precision="float32", epoch="2")["jax train article loss"] == "-8.25000"


def test_backends_are_compared_seed_by_seed():
    records = [record(name, seed=seed, curve=points(-10.0 * seed - 10)) for name in ("torch", "jax") for seed in (0, 1)]
    assert tables.curves(records).raw["max difference train article loss"].item() == 0.0


def test_differences_of_two_seeds_do_not_cancel():
    losses = {("torch", 0): -10.0, ("jax", 0): -10.5, ("torch", 1): -20.0, ("jax", 1): -19.5}
    records = [record(name, seed=seed, curve=points(loss)) for (name, seed), loss in losses.items()]
    assert tables.curves(records).raw["max difference train article loss"].item() == 0.5
