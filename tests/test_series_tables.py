"""The tables with a column per backend, from synthetic records."""

import math

import pytest
from record_factories import measurement, record, row

from bench import tables
from bench.tables import series_tables
from bench.tables.labels import prepare


def test_agreement_takes_the_worst_and_never_hides_what_is_not_finite():
    def errors(*values):
        return [
            measurement("agreement", "log_prob", value, "relative", weights="trained", round=i)
            for i, value in enumerate(values)
        ]

    records = [record(measurements=errors(1e-7, 3.21e-7)), record("jax", measurements=errors(1e-7, math.nan))]
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


AGREEMENT = [measurement("agreement", "z", 1e-7, "relative", weights=weights) for weights in ("initial", "trained")]
SAMPLING = [measurement("sampling", "latency", 0.5, "s", batch=8)]
TIMED = [measurement("micro", "seconds", 1.5e-6, "s", 1e-6, 2e-6, 9, operation="encode", batch=16)]
TRIPS = [
    measurement("invertibility", "max_error", 1e-5, "grey levels", weights="initial", inputs="test", direction="x-z-x")
]


@pytest.mark.parametrize(
    ("make", "measured", "name", "title"),
    [
        (tables.agreement, AGREEMENT, "agreement", "Agreement"),
        (tables.sampling, SAMPLING, "sampling", "Sampling and density throughput"),
        (tables.micro, TIMED, "micro", "Micro-benchmarks, µs"),
        (tables.invertibility, TRIPS, "invertibility", "Invertibility"),
    ],
)
def test_tables_have_their_names_and_say_what_they_are_of(make, measured, name, title):
    table = make([record(measurements=measured), record("jax", status="failed", reason="boom")])
    assert (table.name, table.title) == (name, title)
    assert "Machine: AMD EPYC, 2 cores." in table.caption
    assert "Not complete: jax" in table.caption
    other = [measurement("other", "z", 1.0, "s")]
    assert make([record(measurements=other)]).raw.empty


def test_agreement_has_a_row_for_each_weights():
    table = tables.agreement([record(measurements=AGREEMENT)])
    assert list(table.shown) == ["weights", "quantity", "torch"]
    assert list(table.shown["weights"]) == ["initial", "trained"]


def test_density_stands_with_sampling_and_what_has_no_name_of_its_own_keeps_its_own():
    measured = [
        *SAMPLING,
        measurement("sampling", "other", 2.0, "s", batch=8),
        measurement("likelihood", "images_per_second", 8000.0, "images/s", batch=8),
        measurement("likelihood", "bits_per_dim", 3.0, "bits"),
        measurement("training", "images_per_second", 9.0, "images/s"),
    ]
    shown = tables.sampling([record(measurements=measured)]).shown
    assert dict(zip(shown["quantity"], shown["torch"], strict=True)) == {
        "latency, s": "0.5000",
        "log p, images/s": "8000",
        "other": "2.000",
    }
    assert list(shown) == ["quantity", "batch", "torch"]


def test_micro_benchmarks_are_in_microseconds_with_their_intervals():
    made = [record(kind="micro", measurements=[*TIMED, *SAMPLING]), record("jax", kind="micro", measurements=TIMED)]
    table = tables.micro(made)
    assert list(table.shown) == ["operation", "batch", "torch", "jax"]
    assert table.shown.values.tolist() == [["encode", "16", "1.500 [1.000–2.000]", "1.500 [1.000–2.000]"]]
    assert (table.raw["torch low"].item(), table.raw["torch high"].item()) == (1.0, 2.0)


def test_micro_benchmarks_of_one_protocol_are_told_apart_by_its_digest_alone():
    made = [record(kind="micro", measurements=TIMED, batch=batch, epochs=batch) for batch in (1, 2)]
    assert set(tables.micro(made).raw["protocol"]) == {"article"}
    made += [record(kind="micro", measurements=TIMED, protocol_digest="fedcba9876543210", run="b")]
    made += [record(kind="micro", measurements=TIMED, protocol="paper", run="c")]
    found = set(tables.micro(made).raw["protocol"])
    assert found == {"article (digest 01234567)", "article (digest fedcba98)", "paper"}


def test_an_error_that_is_missing_without_a_word_is_a_dash():
    gone = [measurement("agreement", "z", None, "relative", weights="initial", note="not asked for")]
    shown = tables.agreement([record(measurements=gone), record("jax", measurements=AGREEMENT)]).shown
    assert shown["jax"].tolist() == ["1.00e-07"] * 2
    assert "torch" not in shown
    unsaid = [measurement("agreement", "z", None, "relative", weights="initial")]
    assert "torch" not in tables.agreement([record(measurements=unsaid), record("jax", measurements=AGREEMENT)]).shown


def test_contexts_stand_in_the_order_in_which_one_asks_for_them_and_others_behind():
    where = {"weights": "initial", "inputs": "test", "direction": "x-z-x", "coupling": 1, "trips": 2, "a": 3}
    trip = [measurement("invertibility", "max_error", 1e-5, "grey levels", **where)]
    shown = list(tables.invertibility([record(measurements=trip)]).shown)
    assert shown == ["weights", "inputs", "direction", "coupling", "trips", "quantity", "a", "torch"]
    latency = [measurement("sampling", "latency", 1.0, "s", batch=8, a=3)]
    assert list(tables.sampling([record(measurements=latency)]).shown) == ["quantity", "batch", "a", "torch"]
    timed = [measurement("micro", "seconds", 1.0, "s", operation="encode", batch=8, a=3)]
    assert list(tables.micro([record(measurements=timed)]).shown) == ["operation", "batch", "a", "torch"]


def test_brief_invertibility_says_where_the_rest_is_and_leaves_noise_out():
    inputs = [*TRIPS, measurement("invertibility", "max_error", 9.0, "grey levels", inputs="noise", weights="initial")]
    inputs += [measurement("invertibility", "max_error", 8.0, "grey levels", weights="initial")]  # of none that is said
    made = record(measurements=[*inputs, measurement("invertibility", "unknown", 3.0, "any", inputs="test")])
    brief, whole = tables.invertibility([made], brief=True), tables.invertibility([made])
    assert list(brief.raw["torch"]) == [1e-5]
    assert "in the CSV file" in brief.caption
    assert "in the CSV file" not in whole.caption
    assert set(whole.shown["quantity"]) == {"max, grey levels", "unknown"}


def test_the_round_trips_of_a_flow_are_those_of_test_images_once_there_and_back():
    where = {"inputs": "test", "direction": "x-z-x", "trips": 1}
    wanted = [measurement("invertibility", "max_error", 1.0, "grey levels", **where)]
    others = [
        measurement("invertibility", quantity, 2.0, "any", **where | more)
        for quantity, more in (
            ("rms_error", {}),
            ("max_error", {"inputs": "noise"}),
            ("max_error", {"direction": "z-x-z"}),
            ("max_error", {"trips": 2}),
            ("max_error", {"coupling": 1}),
        )
    ]
    others += [measurement("invertibility", "max_error", 2.0, "any")]  # of before these were said
    found = series_tables.round_trips_of(prepare([record(measurements=[*wanted, *others])]))
    assert list(found["value"]) == [1.0]
    assert series_tables.worst_of(found[:0])[1] == "–"
