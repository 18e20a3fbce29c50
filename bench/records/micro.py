"""Micro-benchmarks: what pytest-benchmark saved of tests/test_benchmarks.py, as records.

A saved file (`--benchmark-json`, `--benchmark-autosave`) is one run: of each backend, mode, device, precision and batch
it makes a record with a figure an operation, the median time of a call over the calls in one process. The file itself
stays as pytest-benchmark wrote it, so that its own `compare` reads it too.
"""

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import explain
from bench.records import Measurement, Plan, PrecisionSeen, Record, RecordError
from bench.records.fields import Figure, Json, Positive, digest_of

CAPTION = "Single operations, called over and over in one process"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)  # pytest-benchmark says more than is read here


class _Info(_Part):
    """A benchmark's entry by tests/test_benchmarks.py: its setting, calls a round, interval of the median."""

    backend: str
    mode: str
    device: str
    precision: PrecisionSeen
    operation: str
    batch: Positive
    size: str
    architecture: Json
    optimiser: Json
    calls: Positive
    interval: tuple[Figure, Figure]


class _Benchmark(_Part):
    extra_info: _Info
    median: Figure = Field(validation_alias=AliasPath("stats", "median"))
    rounds: Positive = Field(validation_alias=AliasPath("stats", "rounds"))


class _Output(_Part):
    environment: Json = Field(validation_alias=AliasPath("machine_info", "nice_bench"))
    commit: str | None = Field(default=None, validation_alias=AliasPath("commit_info", "id"))
    dirty: bool | None = Field(default=None, validation_alias=AliasPath("commit_info", "dirty"))
    benchmarks: Annotated[list[_Benchmark], Field(min_length=1)]
    datetime: datetime


def records_of(path: Path, data: Any) -> list[Record]:
    """Return the records in what pytest-benchmark wrote.

    Raises:
        RecordError: the benchmarks are others than this project's.
    """
    try:
        return _records(_Output.model_validate(data))
    except ValidationError as error:
        what = "pytest-benchmark output, but not of tests/test_benchmarks.py"
        raise RecordError(f"{path}: {what}: {explain(error)}") from error


def _records(output: _Output) -> list[Record]:
    """Return a record for each backend, mode, device, precision and batch."""
    groups: dict[str, list[_Benchmark]] = defaultdict(list)
    for benchmark in output.benchmarks:
        of_call = {"operation", "calls", "interval"}
        groups[benchmark.extra_info.model_dump_json(exclude=of_call)].append(benchmark)
    created = output.datetime.astimezone(UTC).isoformat(timespec="seconds")
    commit = {"commit": output.commit, "dirty": output.dirty}
    return [
        Record(
            run=f"micro-{output.datetime.astimezone(UTC):%Y%m%dT%H%M%S%f}",
            created=created,
            status="ok",
            plan=_plan(its[0].extra_info),
            environment=output.environment | {"git": commit},
            precision=its[0].extra_info.precision,
            measurements=[_measurement(benchmark) for benchmark in its],
        )
        for its in groups.values()
    ]


def _plan(info: _Info) -> Plan:
    """Return the plan of a record of micro-benchmarks."""
    return Plan(
        kind="micro",
        protocol=f"micro-{info.size}",
        protocol_digest=digest_of([info.architecture, info.optimiser]),
        backend=info.backend,
        device=info.device,
        precision=info.precision.asked,
        mode=info.mode,
        seed=0,
        epochs=0,
        batch=info.batch,
        rounds=1,
        architecture=info.architecture,
        optimiser=info.optimiser,
        loss="article",
        caption=CAPTION,
    )


def _measurement(benchmark: _Benchmark) -> Measurement:
    """Return the time of a call in one benchmark."""
    info = benchmark.extra_info
    seconds, low, high = (value / info.calls for value in (benchmark.median, *info.interval))
    at = {"operation": info.operation, "batch": info.batch}
    return Measurement.of("micro", "seconds", seconds, "s", low=low, high=high, n=benchmark.rounds, **at)
