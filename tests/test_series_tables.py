"""The tables with a column per backend, from synthetic records."""

import math

from record_factories import measurement, record, row

from bench import tables


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
