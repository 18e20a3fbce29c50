"""Tables from synthetic records, whose figures are worked out by hand here."""

import csv
import io
import math

import pandas as pd
import pytest

from bench import tables
from bench.errors import BenchError
from bench.frame import frame
from bench.records import EpochPoint, Measurement, Plan, PrecisionSeen, Record
from bench.render import number, spread

EPYC = {"cpu": "AMD EPYC", "cores": 2}
XEON = {"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 4}


def measurement(measure, quantity, value, unit, low=None, high=None, n=None, note=None, **context):
    return Measurement(
        measure=measure,
        quantity=quantity,
        value=value,
        unit=unit,
        low=low,
        high=high,
        n=n,
        note=note,
        context=context,
    )


def seconds(*values):
    return [measurement("training", "seconds_per_epoch", value, "s", round=i) for i, value in enumerate(values, 1)]


def points(*losses, test=(), round=1):
    test = [*test, *[None] * (len(losses) - len(test))]
    return [
        EpochPoint(epoch=i, train_loss=train, test_loss=held_out, seconds=1.5, round=round)
        for i, (train, held_out) in enumerate(zip(losses, test, strict=True), 1)
    ]


def record(
    backend="torch",
    *,
    run="a",
    status="ok",
    reason=None,
    measurements=(),
    curve=(),
    seen=None,
    machine=EPYC,
    packages=None,
    **plan,
):
    plan = {
        "protocol": "article",
        "protocol_digest": "0123456789abcdef",
        "device": "cpu",
        "precision": "float32",
        "mode": None,
        "seed": 0,
        "epochs": 3,
        "batch": 128,
        "rounds": 2,
        "architecture": {"dim": 4},
        "optimiser": {"name": "adam"},
        "loss": "article",
        "target_loss": None,
        "caption": "Selected on the test set",
    } | plan
    return Record(
        run=run,
        created="2026-01-02T03:04:05+00:00",
        status=status,
        reason=reason,
        plan=Plan(backend=backend, **plan),
        environment={**machine, "packages": {"torch": "2.13.0", "jax": "0.10.2"} if packages is None else packages},
        precision=PrecisionSeen(asked=plan["precision"], seen=seen, mantissa_bits=10) if seen else None,
        curve=list(curve),
        measurements=list(measurements),
    )


def row(table, **wanted):
    """Return the only row of the shown table with these labels."""
    found = table.shown
    for name, value in wanted.items():
        found = found[found[name] == value]
    assert len(found) == 1, table.shown.to_string()
    return found.iloc[0]


# The tidy frame


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
            measurement("training", "peak_memory", 3 * 2**20, "bytes"),
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
    assert "Target loss: article ≤ -2200.00" in table.caption
    assert "Machine: AMD EPYC, 2 cores." in table.caption
    assert "Precision: float32. 2 rounds, 1 run, 1 seed (0)." in table.caption
    assert "Selected on the test set." in table.caption
    assert "Versions: torch 2.13.0; jax 0.10.2." in table.caption


def test_the_spread_within_a_single_round_is_shown():
    one = measurement("training", "seconds_per_epoch", 2.0, "s", 1.75, 2.25, 20, round=1)
    assert row(tables.speed([record(measurements=[one])]))["s/epoch [min–max]"] == "2.000 [1.750–2.250]"


def test_the_ratio_to_the_floor_is_worked_out_where_it_was_not_recorded():
    floor = measurement("floor", "train_epoch_seconds", 0.5, "s", round=1)
    assert tables.speed([record(measurements=[*seconds(2.0), floor])]).raw["times_floor"].item() == 4.0


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
    assert row(tables.speed(most))["epochs to target"] == "6.000"


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
    speed, accuracy = tables.all_tables(records)
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


def likelihood(value, error):
    return [
        measurement("likelihood", "dequantised_log_likelihood", value, "nats", value - error, value + error, 10),
        measurement("likelihood", "bits_per_dim", 4.3612345, "bits"),
    ]


def test_losses_and_likelihood_are_what_the_records_hold():
    one = record(
        curve=[*points(-5.0, -9.0, -8.0, test=[-4.0, -7.5, -7.0]), *points(-5.0, -8.5, -8.25, round=2)],
        measurements=likelihood(1980.504, 0.31),
    )
    shown = row(tables.accuracy([one]))
    assert shown["final train article loss"] == "-8.12500 [-8.25000 to -8.00000]"
    assert shown["best train article loss"] == "-9.00000 (epoch 2)"
    assert shown["final test article loss"] == "-7.00000"
    assert shown["best test article loss"] == "-7.50000 (epoch 2)"
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


def both_kinds():
    return [
        record(curve=points(-5.0, test=[-4.0]), measurements=likelihood(1800.0, 0.5)),
        record(protocol="paper", loss="nll", curve=points(-6.0, test=[-3.0]), measurements=likelihood(1900.0, 0.5)),
    ]


@pytest.mark.parametrize("make", [tables.accuracy, tables.curves])
def test_the_articles_loss_and_log_p_share_no_column(make):
    table = make(both_kinds())
    for part in ("train", "test"):
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
    assert names == ["accuracy", "curves-article", "curves-paper"]
    assert "Article loss" not in tables.all_tables(both_kinds())[2].caption


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


# Agreement, invertibility, sampling


def test_agreement_takes_the_worst_and_never_hides_what_is_not_finite():
    def errors(*values):
        return [
            measurement("agreement", "log_prob", value, "relative", weights="trained", round=i)
            for i, value in enumerate(values)
        ]

    records = [record(measurements=errors(1e-7, -3.21e-7)), record("jax", measurements=errors(1e-7, math.nan))]
    shown = row(tables.agreement(records), weights="trained", quantity="log_prob")
    assert shown["torch"] == "3.21e-07"
    assert shown["jax"] == "not finite"


def test_modes_of_one_backend_are_columns_of_their_own():
    error = [measurement("agreement", "z", 1e-7, "relative", weights="initial")]
    records = [record(mode=mode, measurements=error) for mode in ("graph", "eager")] + [
        record("jax", measurements=error)
    ]
    assert list(tables.agreement(records).shown)[-3:] == ["torch eager", "torch graph", "jax"]


def test_invertibility_is_sorted_by_what_was_inverted_and_shows_all_errors():
    def errors(trips, scale, **more):
        where = {"weights": "trained", "inputs": "test", "direction": "x-z-x", "trips": trips} | more
        return [
            measurement("invertibility", "max_error", 2e-5 * scale, "grey levels", **where),
            measurement("invertibility", "rms_error", 1e-6 * scale, "grey levels", **where),
            measurement("invertibility", "ulp_error", 8.0 * scale, "ULP", **where),
            measurement("invertibility", "log_prob_change", 0.001 * scale, "nats", **where),
        ]

    records = [
        record(measurements=[*errors(9, 9), *errors(3, 3), *errors(1, 1), *errors(1, 5, coupling=2)]),
        record("jax", measurements=errors(3, 4)),
    ]
    table = tables.invertibility(records)
    largest = table.raw[table.raw["quantity"] == "max, grey levels"]
    found = zip(
        largest["trips"], largest["coupling"].fillna(-1), largest["torch"], largest["jax"].fillna(-1), strict=True
    )
    assert list(found) == [
        (1, -1, 2e-5 * 1, -1),
        (3, -1, 2e-5 * 3, 2e-5 * 4),
        (9, -1, 2e-5 * 9, -1),
        (1, 2, 2e-5 * 5, -1),
    ]
    shown = table.shown[table.shown["trips"] == "3"].set_index("quantity")["jax"]
    assert dict(shown) == {
        "max, grey levels": "8.00e-05",
        "RMS, grey levels": "4.00e-06",
        "max, ULP": "32.0",
        "change of log p, nats": "0.00400",
    }


def test_brief_invertibility_keeps_only_the_whole_flow_on_test_images():
    def error(value, **more):
        where = {"weights": "trained", "inputs": "test", "direction": "x-z-x", "trips": 1} | more
        return [
            measurement("invertibility", "max_error", value, "grey levels", **where),
            measurement("invertibility", "ulp_error", 8.0, "ULP", **where),
        ]

    made = record(measurements=[*error(1e-5), *error(3e-5, coupling=2), *error(5e-5, inputs="uniform noise")])
    brief = tables.invertibility([made], brief=True)
    assert list(brief.raw["torch"]) == [1e-5]
    assert len(tables.invertibility([made]).raw) == 6


def test_sampling_shows_throughput_and_latency_with_their_intervals_by_batch():
    def throughput(batch, value):
        return [
            measurement("sampling", "samples_per_second", value, "samples/s", value - 10, value + 10, 30, batch=batch),
            measurement("sampling", "latency", batch / value, "s", batch=batch),
        ]

    records = [record(measurements=[*throughput(1024, 50_000.0), *throughput(1, 200.0)])]
    table = tables.sampling(records)
    assert list(table.shown["quantity"]) == ["latency, s"] * 2 + ["samples/s"] * 2
    assert list(table.shown["batch"]) == ["1", "1024"] * 2
    assert list(table.shown["torch"]) == ["0.005000", "0.02048", "200.0 [190.0–210.0]", "50000 [49990–50010]"]
    assert list(table.raw["torch low"])[2:] == [190.0, 49_990.0]


# Out


def everything():
    sampled = measurement("sampling", "latency", 0.123456789, "s", batch=16)
    error = measurement("agreement", "z", 1e-7, "relative", weights="initial")
    trip = measurement("invertibility", "max_error", 1e-5, "grey levels", weights="initial", trips=1)
    return [
        record(name, mode="fast", curve=points(-5.0, -6.0), measurements=[*seconds(1 / 3), sampled, error, trip])
        for name in ("torch", "tensorflow", "jax")
    ] + [*both_kinds()[1:], record("numpy", status="failed", reason="50% & more_of #1 ~ {x} <y> ^ \\ $")]


@pytest.mark.parametrize("formats", [("text", "markdown", "csv", "latex", "parquet")])
def test_tables_written_twice_are_the_same_bytes(tmp_path, formats):
    first = tables.write(everything(), tmp_path / "a", formats)
    tables.write(list(reversed(everything())), tmp_path / "b", formats)
    assert {path.name for path in first} == {path.name for path in (tmp_path / "b").iterdir()}
    assert {"speed.md", "accuracy.tex", "curves-paper.txt", "measurements.csv", "measurements.parquet"} < {
        path.name for path in first
    }
    for path in first:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_parquet_and_csv_carry_every_digit(tmp_path):
    tables.write(everything(), tmp_path, ["csv", "parquet"])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "measurements.parquet"), frame(everything()))
    read = pd.read_csv(tmp_path / "measurements.csv")
    assert 1 / 3 in set(read["value"])
    assert 0.123456789 in set(pd.read_csv(tmp_path / "sampling.csv")["torch"])


def test_without_a_second_round_no_first_call_is_warm():
    table = tables.speed([record(measurements=[*seconds(1.0), measurement("startup", "first_call_seconds", 7.0, "s")])])
    assert "first call cold, s" in table.shown
    assert "first call warm, s" not in table.shown


def test_parquet_stands_contexts_of_mixed_types(tmp_path):
    mixed = [measurement("sampling", "latency", 1.0, "s", batch=batch) for batch in (1, "all", 2.5)]
    tables.write([record(measurements=mixed)], tmp_path, ["parquet"])
    assert list(pd.read_parquet(tmp_path / "measurements.parquet")["at_batch"]) == ["1", "all", "2.5"]


def test_text_fits_a_terminal():
    full = [
        *seconds(1 / 3, 0.5),
        measurement("training", "images_per_second", 180_000.0, "images/s"),
        measurement("training", "peak_memory", 2e9, "bytes"),
        measurement("training", "epochs_to_target", 17.0, "epochs"),
        measurement("floor", "training_ratio", 1.5, "1"),
        measurement("startup", "first_call_seconds", 12.5, "s"),
        *likelihood(1980.5, 0.3),
    ]
    records = [
        record(name, mode="graph", curve=points(-2200.123, test=[-2100.456]), measurements=full)
        for name in ("torch", "tensorflow", "jax")
    ]
    records += [*both_kinds(), record("numpy", status="failed", reason="word " * 60)]
    for table in tables.all_tables(records):
        text = tables.render([table], "text")
        assert max(map(len, text.splitlines())) <= 120, text
        for cell in table.shown.to_numpy().ravel():
            assert cell.split()[0] in text
    folded = tables.render(tables.speed(records), "text")
    assert folded.count("tensorflow  graph") == 2  # the labels stand before each part, the status once
    assert folded.count("failed: word") == 1


def test_markdown_rows_all_have_the_same_number_of_cells():
    for table in tables.all_tables(everything()):
        lines = [line for line in tables.render([table], "markdown").splitlines() if line.startswith("|")]
        assert len(lines) == len(table.shown) + 2
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
        assert table.caption.replace("<", "&lt;") in tables.render([table], "markdown")


def test_latex_escapes_what_latex_would_stumble_over():
    latex = tables.render(tables.all_tables(everything()), "latex")
    assert r"50\% \& more\_of \#1 \textasciitilde{} \{x\} \textless{}y\textgreater{}" in latex
    assert latex.isascii(), {sign for sign in latex if not sign.isascii()}


def test_csv_is_parsable_and_has_the_provenance():
    (table,) = (table for table in tables.all_tables(everything()) if table.name == "speed")
    rows = list(csv.DictReader(io.StringIO(tables.render([table], "csv"))))
    assert float(rows[0]["seconds_per_epoch"]) == 1 / 3
    assert {"machine", "protocol", "precision", "status", "reason"} < set(rows[0])


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(BenchError, match=r"'pdf': expected one of text, markdown, csv, latex"):
        tables.render([], "pdf")
    with pytest.raises(BenchError, match=r"'pdf'.*parquet"):
        tables.write([], tmp_path, ["pdf"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1.000"),
        (999.96, "1000"),
        (0.00012344, "0.0001234"),
        (1.2344e-7, "1.234e-07"),
        (123456.7, "123457"),
        (-2200.4567, "-2200"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
    ],
)
def test_numbers_are_rounded_to_four_significant_digits(value, text):
    assert number(value) == text


def test_a_spread_says_no_more_than_there_is():
    assert spread(1.0, 1.0, 1.0) == "1.000"
    assert spread(1.0, math.nan, math.nan) == "1.000"
    assert spread(-1.0, -2.0, 3.0) == "-1.000 [-2.000 to 3.000]"
