"""Micro-benchmarks: what pytest-benchmark saves of tests/test_benchmarks.py, as records, in tables, in comparisons."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from record_factories import EPYC, record, seconds

from bench import records, tables
from bench.comparison.compare import compare
from bench.comparison.matching import sides
from bench.comparison.observations import observations
from bench.errors import BenchError
from bench.records import collection

ROOT = Path(__file__).parent.parent


def benchmark(operation="encode", batch=16, median=2e-4, calls=1, **info):
    return {
        "name": f"test_operation[{operation}-{batch}-torch-eager]",
        "stats": {"median": median, "rounds": 40, "mean": 9.0},
        "extra_info": {
            "backend": "torch",
            "mode": "eager",
            "device": "cpu",
            "precision": {"asked": "float32", "seen": "float32", "mantissa_bits": 23},
            "operation": operation,
            "batch": batch,
            "size": "small",
            "architecture": {"dim": 784, "hidden_units": 64},
            "optimiser": {"name": "adam"},
            "calls": calls,
            "interval": [0.9 * median, 1.1 * median],
        }
        | info,
    }


def saved(path, *benchmarks, moment="2026-01-02T04:04:05.678901+01:00"):
    """A file as pytest-benchmark lays it out."""
    machine = {"node": "a-host", "nice_bench": {**EPYC, "packages": {"torch": "2.13.0", "jax": "0.10.2"}}}
    output = {
        "machine_info": machine,
        "commit_info": {"id": "abc", "dirty": True, "branch": "main"},
        "benchmarks": list(benchmarks),
        "datetime": moment,
        "version": "5.2.3",
    }
    path.write_text(json.dumps(output), encoding="utf-8")
    return path


def test_a_file_is_a_record_for_each_backend_mode_and_batch(tmp_path):
    found = collection.load_all(
        saved(
            tmp_path / "0001.json",
            benchmark("encode"),
            benchmark("training step", median=8e-3, calls=4),
            benchmark("encode", batch=256),
            benchmark("encode", backend="jax", mode="scan"),
        )
    )
    assert [(each.plan.backend, each.plan.batch, len(each.measurements)) for each in found] == [
        ("torch", 16, 2),
        ("torch", 256, 1),
        ("jax", 16, 1),
    ]
    first = found[0]
    assert (first.run, first.created) == ("micro-20260102T030405678901", "2026-01-02T03:04:05+00:00")
    assert (first.plan.kind, first.plan.protocol, first.plan.precision) == ("micro", "micro-small", "float32")
    assert first.environment["git"] == {"commit": "abc", "dirty": True}
    assert "a-host" not in first.model_dump_json()
    encode, step = first.measurements
    assert (encode.value, encode.low, encode.high, encode.n) == pytest.approx((2e-4, 1.8e-4, 2.2e-4, 40))
    assert (step.value, step.low, step.high) == pytest.approx((2e-3, 1.8e-3, 2.2e-3))
    assert step.context == {"operation": "training step", "batch": 16}


def test_they_are_a_table_of_their_own_beside_other_records(tmp_path):
    saved(
        tmp_path / "micro.json",
        benchmark(),
        benchmark(batch=256, median=3e-3),
        benchmark(backend="jax", mode="scan", median=1e-4),
    )
    records.save(record(measurements=seconds(1.0, 2.0)), tmp_path)
    found = {table.name: table for table in tables.all_tables(collection.load_all(tmp_path))}
    assert {"micro", "speed"} <= found.keys()
    micro = found["micro"]
    assert micro.title == "Micro-benchmarks, µs"
    assert micro.shown.values.tolist() == [
        ["encode", "16", "200.0 [180.0–220.0]", "100.0 [90.0–110.0]".replace("90.0", "90.00")],
        ["encode", "256", "3000 [2700–3300]", "–"],
    ]
    assert list(micro.shown) == ["operation", "batch", "torch", "jax"]
    for message in (
        "Machine: AMD EPYC, 2 cores.",
        "Precision: float32.",
        "torch 2.13.0; jax 0.10.2",
        "micro-small: Single",
    ):
        assert message in micro.caption
    frame = tables.frame(collection.load_all(tmp_path))
    assert set(frame.loc[frame["measure"] == "micro", "at_operation"]) == {"encode"}


def test_several_files_are_runs_that_can_be_compared(tmp_path):
    def made(name, hour, *medians):
        paths = [
            saved(tmp_path / f"{name}{i}.json", benchmark(median=median), moment=f"2026-01-02T{hour}:04:0{i}+00:00")
            for i, median in enumerate(medians)
        ]
        return observations(collection.load_all(paths))

    (row,) = compare(sides(made("a", "03", 1.0, 1.01, 0.99), made("b", "04", 1.2, 1.21, 1.19)))
    assert (row.verdict, row.noise, row.pair.context) == ("worse", "runs", "batch 16, operation encode")
    (row,) = compare(sides(made("a", "03", 1.0), made("b", "04", 1.2)))
    assert (row.verdict, row.noise) == ("unclear", "one process")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"extra_info": {}}, "benchmarks.0.extra_info.backend: found nothing, expected this field"),
        ({"stats": {"median": "fast", "rounds": 4}}, 'benchmarks.0.stats.median: found "fast"'),
    ],
)
def test_other_benchmarks_are_refused_in_one_line(tmp_path, broken, message):
    path = saved(tmp_path / "other.json", benchmark() | broken)
    with pytest.raises(BenchError) as caught:
        collection.load_all(tmp_path)
    assert str(caught.value).startswith(
        f"{path}: pytest-benchmark output, but not of tests/test_benchmarks.py: {message}"
    )
    assert "\n" not in str(caught.value)


def test_a_file_without_benchmarks_is_refused(tmp_path):
    saved(tmp_path / "empty.json")
    with pytest.raises(BenchError, match=r"empty\.json: pytest-benchmark output, .* benchmarks: found \[\]"):
        collection.load_all(tmp_path)


@pytest.mark.slow
def test_what_pytest_benchmark_saves_here_is_read_and_its_own_compare_reads_it_too(tmp_path):
    """The reference alone, since no framework has to be loaded for it."""
    variables = {"NICE_BENCH_TEST_BACKENDS": "numpy", "NICE_BENCH_BENCHMARK_BATCH": "4,8"}
    options = ["--benchmark-only", "--benchmark-autosave", f"--benchmark-storage={tmp_path}", "-p", "no:cacheprovider"]
    options += ["-k", "encode or training"]  # for the time they take
    subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_benchmarks.py", *options],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        check=True,
    )
    made = collection.load_all(tmp_path)
    assert sorted(each.plan.batch for each in made) == [4, 8]
    for each in made:
        assert (each.plan.backend, each.plan.protocol, each.precision.seen) == ("numpy", "micro-small", "float32")
        assert each.environment["cores"] >= 1
        assert "numpy" in each.environment["packages"]
        assert [m.context["operation"] for m in each.measurements] == ["encode", "training step"]
        assert all(0 < m.low <= m.value <= m.high < 1 for m in each.measurements)
    message = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", f"--storage={tmp_path}", "compare"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "test_operation[encode-4-numpy" in message.stdout.replace("\n", "")
