"""Floors as tables, and the chain that says whether they are right."""

import numpy as np
import pytest
from factories import ARTICLE, backend_names, create
from record_factories import measurement, record, row

from backends.architecture import flops
from bench import tables
from bench.measures.floor import chain, sizes, workloads
from bench.tables import floor_tables
from bench.tables.labels import prepare


def floor(quantity, value, unit="s", **at):
    return measurement("floor", quantity, value, unit, **at)


def run_of(backend, *, products=0.1, chain=0.12, epoch=60.0):
    made = []
    for round_, factor in ((1, 1.0), (2, 2.0)):  # the whole machine is half as fast in the second round
        made += [
            floor("product_rate", 1e11 / factor, "FLOP/s", round=round_),
            floor("bandwidth", 5e10 / factor, "B/s", round=round_),
            floor("products_seconds", products * factor, round=round_),
            floor("bytes_seconds", 0.02 * factor, round=round_),
            floor("train_step_seconds", products * factor, round=round_),
            floor("train_epoch_seconds", products * factor * 500, round=round_),
            floor("chain_seconds", chain * factor, round=round_),
            measurement("floor", "training_ratio", epoch / products / 500, "1", round=round_),
            measurement("training", "seconds_per_epoch", epoch * factor, "s", round=round_),
        ]
    made += [floor("forward_seconds", 0.5, batch=4096), floor("forward_seconds", 0.2, batch=2000)]
    made += [measurement("sampling", "latency", 0.6, "s", batch=4096)]
    made += [measurement("sampling", "latency", None, "s", batch=65536, note="left out")]
    made += [measurement("likelihood", "images_per_second", 8000.0, "images/s", batch=2000)]
    return record(backend, measurements=made)


def test_ratios_are_taken_within_a_round():
    found = row(floor_tables.floors([run_of("torch")]), backend="torch")
    assert (found["chain × floor"], found["step × floor"]) == ("1.20", "1.20")
    assert (found["products, GFLOP/s"], found["step, ms"]) == ("75.0", "180.0")


def test_of_three_rounds_the_median_counts():
    made = []
    for round_, factor, ratio in ((1, 1.0, 1.0), (2, 2.0, 4.0), (3, 12.0, 1.5)):
        made += [
            floor("products_seconds", 0.1 * factor, round=round_),
            floor("bytes_seconds", 0.15 * factor, round=round_),
            floor("train_step_seconds", 0.15 * factor, round=round_),
            floor("train_epoch_seconds", 1.5 * factor, round=round_),
            floor("chain_seconds", 0.15 * ratio * factor, round=round_),
            measurement("floor", "training_ratio", ratio, "1", round=round_),
            measurement("training", "seconds_per_epoch", 1.5 * factor * ratio, "s", round=round_),
        ]
    raw = floor_tables.floors([record("torch", measurements=made)]).raw.iloc[0]
    assert (raw["products_seconds"], raw["step_seconds"]) == pytest.approx((0.2, 1.2))
    assert (raw["chain_over_floor"], raw["step_over_floor"]) == pytest.approx((1.5, 1.5))


def test_of_several_runs_the_median_pass_counts():
    def passes(i):
        return [floor("forward_seconds", 0.1 * i, batch=8), measurement("sampling", "latency", i, "s", batch=8)]

    made = [record(run=f"{i}", measurements=passes(i)) for i in (1, 2, 9)]
    raw = floor_tables.forward_floors(made).raw.iloc[0]
    assert (raw["floor_seconds"], raw["seconds"], raw["over_floor"]) == pytest.approx((0.2, 2.0, 10.0))


@pytest.mark.parametrize(
    ("chain_seconds", "message"),
    [(0.0999, "0.999 †"), (0.1, "1.00"), (0.13, "1.30"), (0.1301, "1.30 †"), (0.2, "2.00 †")],
)
def test_a_chain_that_says_that_the_floor_is_wrong_is_marked(chain_seconds, message):
    table = floor_tables.floors([run_of("torch", chain=chain_seconds)])
    assert row(table, backend="torch")["chain × floor"] == message
    assert "†" in table.caption


def test_sampling_and_density_are_held_against_a_pass_at_their_batch():
    table = floor_tables.forward_floors([run_of("jax")])
    assert row(table, operation="sample")["× floor"] == "1.20"
    assert row(table, operation="log p")["× floor"] == "1.25"
    assert list(table.shown) == ["backend", "operation", "batch", "ms", "floor, ms", "× floor"]
    assert table.shown.values.tolist() == [
        ["jax", "sample", "4096", "600.0", "500.0", "1.20"],
        ["jax", "log p", "2000", "250.0", "200.0", "1.25"],
    ]
    assert list(table.raw["operation"]) == ["sample", "log p"]
    assert (list(table.raw["batch"]), list(table.raw["seconds"])) == ([4096, 2000], [0.6, 0.25])
    assert (table.name, table.title) == ("floor-forward", "Sampling and density against the floor")
    assert "AMD EPYC, 2 cores" in table.caption


def test_only_the_rate_of_densities_is_one():
    likelihood = measurement("likelihood", "test_loss", 3.0, "nats", batch=4096)
    trained = measurement("training", "images_per_second", 3.0, "images/s", batch=4096)
    made = run_of("jax")
    with_more = made.model_copy(update={"measurements": [*made.measurements, likelihood, trained]})
    assert floor_tables.forward_floors([with_more]).raw.equals(floor_tables.forward_floors([made]).raw)


def test_a_run_without_a_floor_says_why_and_keeps_no_other_from_having_one():
    def without(name, note):
        return record(
            name,
            measurements=[
                measurement("floor", "train_step_seconds", None, "s", note=note, round=1),
                measurement("floor", "training_ratio", None, "1", note="no ratio", round=1),
                measurement("training", "seconds_per_epoch", 1.0, "s", round=1),
            ],
        )

    table = floor_tables.floors([without("first", "no rate"), without("second", "no module"), run_of("torch")])
    assert list(table.raw["backend"]) == ["torch"]
    assert "first: no rate." in table.caption
    assert "second: no module." in table.caption
    assert "no ratio" not in table.caption
    assert (table.name, table.title) == ("floor", "The floor of a training step")


def test_floors_need_no_chain_and_show_no_rates_that_were_not_measured():
    parts = ("train_step_seconds", "train_epoch_seconds", "seconds_per_epoch")
    made = run_of("torch")
    few = made.model_copy(update={"measurements": [m for m in made.measurements if m.quantity in parts]})
    (shown,) = floor_tables.floors([few]).shown.to_dict("records")
    assert shown == {"backend": "torch", "step, ms": "180.0"}


def test_rounds_of_several_runs_are_rounds_of_their_own():
    fast, slow = run_of("torch", products=0.1), run_of("torch", products=0.3)
    table = floor_tables.floors([fast, slow.model_copy(update={"run": "b"})])
    assert table.raw["products_seconds"].item() == pytest.approx(0.25)  # the median of 0.1, 0.2, 0.3 and 0.6


def test_the_machines_floor_is_the_least_of_any_library_times_the_steps_of_an_epoch():
    data = prepare([run_of("torch", products=0.1), run_of("jax", products=0.05)])
    assert list(floor_tables.machine_floors(data).values()) == [pytest.approx(0.05 * 500)]
    by_bytes = prepare([run_of("torch", products=0.01)])
    assert list(floor_tables.machine_floors(by_bytes).values()) == [pytest.approx(0.02 * 500)]
    by_reduction = run_of("torch")
    by_reduction.measurements.append(floor("reduction_seconds", 0.7, round=1))
    assert list(floor_tables.machine_floors(prepare([by_reduction])).values()) == [pytest.approx(0.7 * 500)]
    made = run_of("torch")
    for lacking in ("products_seconds", "bytes_seconds", "train_epoch_seconds", "train_step_seconds"):
        without = [m for m in made.measurements if m.quantity != lacking]
        assert floor_tables.machine_floors(prepare([made.model_copy(update={"measurements": without})])) == {}


def test_what_a_run_that_failed_had_measured_is_in_neither_table():
    failed = run_of("torch", chain=0.2).model_copy(update={"status": "failed", "reason": "it broke", "run": "other"})
    for make in (floor_tables.floors, floor_tables.forward_floors):
        assert make([failed]).shown.empty
        assert make([run_of("torch"), failed]).raw.equals(make([run_of("torch")]).raw)


def test_what_failed_is_named_and_a_step_that_was_disturbed_says_so():
    busy = run_of("torch")
    busy.measurements.append(measurement("training", "others_share", 0.6, "1", round=1))
    failed = record("jax", status="failed", reason="boom")
    table = floor_tables.floors([busy, failed])
    assert row(table, backend="torch")["step, ms"] == "180.0, disturbed: others used 60 % of the machine"
    for each in (table, floor_tables.forward_floors([busy, failed])):
        assert "Not complete: jax, AMD EPYC, 2 cores, article, float32: failed (boom)." in each.caption


def test_the_tables_are_among_all_tables():
    runs = [run_of("jax"), run_of("torch")]
    found = {table.name: table for table in tables.all_tables(runs)}
    assert found["floor"].raw.equals(floor_tables.floors(runs).raw)
    assert found["floor-forward"].raw.equals(floor_tables.forward_floors(runs).raw)


def test_the_chain_makes_the_products_of_a_training_step_and_no_others():
    made = []

    def multiply(a, b):
        made.append((a.shape[0], a.shape[1], b.shape[1]))
        return a @ b

    gradients = chain(np.ones((5, ARTICLE.half)), [np.ones(size) for size in sizes(ARTICLE)], multiply, np.transpose)
    assert sorted(made) == sorted(ARTICLE.training_products(5))
    assert flops(made) == flops(ARTICLE.training_products(5))
    assert [g.shape for g in gradients] == sizes(ARTICLE)[::-1]


@pytest.mark.parametrize("name", ["numpy", "torch", "tensorflow", "jax"])
def test_each_frameworks_chain_gives_the_gradients_of_the_product_of_its_kernels(name):
    if name not in backend_names():
        pytest.skip(f"NICE_BENCH_TEST_BACKENDS leaves {name} out")
    model = create(name, ARTICLE, precision="float32")
    found = [model._to_numpy(gradient) for gradient in workloads(model).chained(model, 5)()]
    kernels = [np.full(size, 1 / size[0]) for size in sizes(ARTICLE)]
    expected = chain(np.full((5, ARTICLE.half), 0.5), kernels, np.matmul, np.transpose)
    assert len(found) == len(expected)
    for gradient, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(gradient, exact, rtol=1e-5)
