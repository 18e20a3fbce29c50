"""The table of sweeps, from synthetic records of which the law is known."""

import math

import pytest
from record_factories import XEON, record

from bench.records import Measurement
from bench.tables.labels import prepare
from bench.tables.scaling import Scaling
from bench.tables.sweep_tables import curves, exponent, knee, scaling, sweeps

SIZES = [2**k for k in range(11)]


def point(size, seconds, operation="train", axis="batch", note=None, around=(0.9, 1.25)):
    at = {"axis": axis, "value": size, "operation": operation}
    if seconds is None:
        return [Measurement.of("sweep", "seconds", None, "s", note=note, **at)]
    low, high = (factor * seconds for factor in around)
    return [
        Measurement.of("sweep", "seconds", seconds, "s", low=low, high=high, n=7, **at),
        Measurement.of("sweep", "examples_per_second", size / seconds, "examples/s", **at),
        Measurement.of("sweep", "flop_rate", 2e9 * size / seconds, "FLOP/s", **at),
    ]


def swept(backend="torch", fixed=8e-3, each=3e-4, power=1.0, more=(), run="a", **at):
    made = [m for size in SIZES for m in point(size, fixed + each * size**power, **at)]
    return record(backend, kind="sweep", run=run, measurements=[*made, *more])


def row_of(table, **wanted):
    raw, shown = table.raw, table.shown
    for name, value in wanted.items():
        chosen = raw[name] == value
        raw, shown = raw[chosen], shown[chosen]
    assert len(raw) == 1
    return raw.iloc[0], shown.iloc[0]


def test_a_linear_law_with_a_fixed_cost():
    raw, shown = row_of(scaling([swept()]))
    assert (raw["exponent"], raw["fixed_seconds"], raw["knee"]) == pytest.approx((1.0, 8e-3, 80 / 3), rel=1e-3)
    assert (raw["least_seconds"], raw["smallest"], raw["largest"], raw["points"]) == (8.3e-3, 1, 1024, 11)
    best = 1024 / (8e-3 + 3e-4 * 1024)
    assert (raw["best_examples_per_second"], raw["best_flop_rate"]) == pytest.approx((best, 2e9 * best))
    assert (raw["axis"], raw["operation"], raw["left_out"]) == ("batch", "train", "")
    assert shown["exponent p"] == "1.000 ± 0.000"
    assert (shown["knee"], shown["fixed cost, ms"], shown["least time, ms"]) == ("26.7", "8.00", "8.300")
    assert (shown["best examples/s"], shown["best GFLOP/s"], shown["sizes"]) == ("3249", "6497", "1–1024")
    assert (shown["axis"], shown["operation"], shown["backend"]) == ("batch", "training step", "torch")
    assert "not measured" not in shown


def test_each_axis_operation_backend_and_machine_has_a_row():
    made = [
        swept("jax", operation="sample"),
        swept("torch", power=2.0, axis="width", operation="log_prob"),
        swept("torch", operation="sample"),
        record("torch", kind="sweep", machine=XEON, measurements=point(1, 0.5, "sample")),
    ]
    table = scaling(made)
    found = [tuple(table.shown.iloc[i][["axis", "operation", "backend"]]) for i in range(len(table.shown))]
    assert found == [
        ("batch", "sampling", "torch"),
        ("batch", "sampling", "jax"),
        ("width", "log p", "torch"),
        ("batch", "sampling", "torch"),
    ]
    assert table.raw["exponent"][2] == pytest.approx(2.0, rel=1e-3)
    assert math.isnan(table.raw["exponent"][3])
    assert table.shown["exponent p"][3] == "too few points (1)"
    assert list(table.shown["machine"])[2:] == ["AMD EPYC, 2 cores", "Intel Xeon, 4 cores"]
    assert (table.name, table.title) == ("scaling", "How cost grows")
    assert "Machines: AMD EPYC, 2 cores; Intel Xeon, 4 cores." in table.caption


def test_several_records_are_their_median_between_the_lowest_and_the_highest():
    made = [swept(run=str(i), fixed=fixed) for i, fixed in enumerate((8e-3, 9e-3, 20e-3))]
    (curve,) = curves(sweeps(prepare(made)))
    first = curve.points.iloc[0]
    assert (first["seconds"], first["low"], first["high"]) == pytest.approx((9.3e-3, 8.3e-3, 20.3e-3))
    (curve,) = curves(sweeps(prepare(made[:1])))
    first = curve.points.iloc[0]
    assert (first["low"], first["high"]) == pytest.approx((0.9 * 8.3e-3, 1.25 * 8.3e-3))
    assert list(curve.points["size"]) == SIZES
    assert (curve.axis, curve.operation, curve.key["series"]) == ("batch", "train", "torch")


def test_two_records_are_the_mean_between_both_and_a_time_alone_is_a_point():
    def alone(seconds, run):
        (time, *_) = point(8, seconds)
        return record("torch", kind="sweep", run=run, measurements=[time])

    (curve,) = curves(sweeps(prepare([alone(2e-3, "a"), alone(4e-3, "b")])))
    (only,) = curve.points.to_dict("records")
    assert (only["size"], only["seconds"], only["low"], only["high"]) == pytest.approx((8, 3e-3, 2e-3, 4e-3))
    assert math.isnan(only["flop_rate"])


def left_out(*sizes, note="left out: a call would take about 99 s"):
    return [m for size in sizes for m in point(size, None, note=note)]


@pytest.mark.parametrize(
    ("more", "shown", "raw"),
    [
        (left_out(4096), "4096: a call would take about 99 s", "4096: left out: a call would take about 99 s"),
        (left_out(2048, 4096, note="out of memory"), "2048 and larger: out of memory", None),
        (left_out(4096, 2048, note="out of memory"), "2048 and larger: out of memory", None),
        (left_out(3, 4096, note="failed: x"), "3, 4096: failed: x", "3: failed: x; 4096: failed: x"),
    ],
)
def test_sizes_without_a_time_are_told_with_the_reason_of_the_smallest(more, shown, raw):
    found, cells = row_of(scaling([swept(more=more)]))
    assert cells["not measured"] == shown
    assert raw is None or found["left_out"] == raw
    assert cells["sizes"] == "1–1024"


def test_a_size_that_one_record_has_is_not_left_out():
    made = [swept(run="a"), record("torch", kind="sweep", run="b", measurements=left_out(64))]
    assert "not measured" not in scaling(made).shown


def test_nothing_measured_has_no_sizes():
    _, cells = row_of(scaling([record("torch", kind="sweep", measurements=left_out(1, 2, note="failed: x"))]))
    assert cells["not measured"] == "1 and larger: failed: x"
    assert "sizes" not in cells


def test_an_exponent_has_as_many_decimals_as_its_error():
    assert exponent(Scaling(exponent=1.0, exponent_error=0.01)) == "1.00 ± 0.01"
    assert exponent(Scaling(exponent=1.0, exponent_error=0.0099)) == "1.000 ± 0.010"
    assert exponent(Scaling()) == ""


def test_a_knee_below_the_smallest_size_is_only_a_bound():
    assert knee(Scaling(knee=4.0), 4.0) == "4.00"
    assert knee(Scaling(knee=3.9), 4.0) == "< 4.00"
    assert knee(Scaling(), 4.0) == ""
