"""What the regression check runs, and the running of it: by the runner of every other command, on as many threads.

A folder that holds some of the records already is completed: what was interrupted, goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench import collection, environment, protocol, runner
from bench.records import Record
from bench.runner import Listener, Request


@dataclass(frozen=True)
class Part:
    """A part of the check.

    Attributes:
        kind: "trajectory", one seed compared step by step, or "convergence", several seeds by their distribution.
        protocol: its name.
        precision: of the backends; a trajectory's reference is of NumPy in float64 in any case.
        threads: that a check runs on; None for all cores.
        seeds: of a check: for convergence others than those of the reference.
        reference_seeds: of the reference.
        repeats: how often each backend makes a trajectory's reference, so that the noise of its speed is known.
        usual: whether a check that names no part has it: all together would take more than ten minutes.
    """

    kind: Literal["trajectory", "convergence"]
    protocol: str
    precision: str
    threads: int | None
    seeds: tuple[int, ...] = (0,)
    reference_seeds: tuple[int, ...] = (0,)
    repeats: int = 1
    usual: bool = True

    @property
    def name(self) -> str:
        """For people, and to choose it by."""
        return f"{self.protocol}-{self.precision}"


OLD_SEEDS, NEW_SEEDS = tuple(range(10)), (10, 11, 12, 13)

PARTS = (
    Part("trajectory", "trajectory-full", "float32", threads=None, repeats=5),
    Part("trajectory", "trajectory-narrow", "float32", threads=1, repeats=8),
    Part("trajectory", "trajectory-narrow", "float64", threads=1, repeats=5),
    Part("convergence", "convergence-narrow", "float32", 1, NEW_SEEDS, OLD_SEEDS),
    Part("convergence", "convergence-paper-narrow", "float32", 1, NEW_SEEDS, OLD_SEEDS, usual=False),
)


@dataclass(frozen=True)
class Job:
    """One run of one backend: a protocol with a seed on so many threads (None: all cores)."""

    protocol: str
    backend: str
    precision: str
    seed: int
    threads: int | None

    @property
    def cores(self) -> int:
        """How many cores that is here."""
        return min(self.threads or environment.cores(), environment.cores())


@dataclass(frozen=True)
class Where:
    """Where jobs are run: device, folder, backend → interpreter, most seconds for a job, a fault to plant in each."""

    folder: Path
    device: str = "cpu"
    interpreters: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 1800.0
    fault: str | None = None


def check_jobs(part: Part, backends: Sequence[str]) -> list[Job]:
    """What a check runs; the backends take turns."""
    return [Job(part.protocol, name, part.precision, seed, part.threads) for seed in part.seeds for name in backends]


def reference_jobs(part: Part, backends: Sequence[str]) -> list[Job]:
    """What a reference is made of: repeats and seeds; for a trajectory also other threads, and NumPy in float64."""
    usual = [
        Job(part.protocol, name, part.precision, seed, part.threads)
        for seed in part.reference_seeds
        for _ in range(part.repeats)
        for name in backends
    ]
    if part.kind == "convergence":
        return usual
    other = 1 if part.threads is None else 2
    others = [Job(part.protocol, name, part.precision, 0, other) for name in backends]
    oracle = Job(part.protocol, "numpy", "float64", 0, 1)  # which adds up in one order, and needs no quiet machine
    return [oracle, *others, *usual]


def run(jobs: Sequence[Job], where: Where, listener: Listener) -> list[Record]:
    """Run the jobs that the folder has no good record of yet, and return the records of all of them.

    Raises:
        BenchError: as `bench.runner.run`, or the folder holds a file that is no record.
    """
    device = runner.resolve_device(where.device)
    there = _by_job(where.folder, device)
    return [record for job in jobs for record in _one(job, where, listener, there)]


def _one(job: Job, where: Where, listener: Listener, there: dict[tuple, list[Record]]) -> Iterator[Record]:
    loaded = protocol.load(job.protocol)
    found = there.get((loaded.digest(), job.backend, job.precision, job.seed, job.cores), [])
    if found:
        yield found.pop()
        return
    request = Request(
        protocol=loaded,
        backends=[job.backend],
        device=where.device,
        precision=job.precision,
        seed=job.seed,
        folder=where.folder,
        interpreters=where.interpreters,
        timeout=where.timeout,
    )

    def command(backend: str, interpreter: str) -> list[str]:
        planted = [where.fault] if where.fault else []
        return [interpreter, "-m", "bench.regression.check_worker", backend, str(job.cores), *planted]

    yield from runner.run(request, listener, command)


def _by_job(folder: Path, device: str) -> dict[tuple, list[Record]]:
    found: dict[tuple, list[Record]] = {}
    for record in collection.load_all(folder) if folder.is_dir() else []:
        plan = record.plan
        if record.status == "ok" and plan.device == device:
            key = (plan.protocol_digest, plan.backend, plan.precision, plan.seed, record.environment.get("cores"))
            found.setdefault(key, []).append(record)
    return found
