"""What the regression check runs, and the running of it: by the runner of every other command, on cores of its own.

Runs of one thread may go side by side, each on a core of its own. A folder that holds some of the records already is
completed: what was interrupted goes on.
"""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import Literal

from bench.inputs import protocol
from bench.records import Record, collection, environment
from bench.running import runner, variant
from bench.running.variant import Listener, resolve_device


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
        parallel: how many of its runs go side by side where there are cores for it, the reference's too: what their
            memory has to share is in the noise of their speed.
    """

    kind: Literal["trajectory", "convergence"]
    protocol: str
    precision: str
    threads: int | None
    seeds: tuple[int, ...] = (0,)
    reference_seeds: tuple[int, ...] = (0,)
    repeats: int = 1
    parallel: int = 1

    @property
    def name(self) -> str:
        """For people, and to choose it by."""
        return f"{self.protocol}-{self.precision}"


OLD_SEEDS, NEW_SEEDS = tuple(range(10)), (10, 11, 12, 13)

PARTS = (
    Part("trajectory", "trajectory-full", "float32", threads=None, repeats=5),
    Part("trajectory", "trajectory-narrow", "float32", threads=1, repeats=8),
    Part("trajectory", "trajectory-narrow", "float64", threads=1, repeats=5),
    Part("convergence", "recipe-narrow", "float32", 1, NEW_SEEDS, OLD_SEEDS, parallel=2),
    Part("convergence", "convergence-paper-narrow", "float32", 1, NEW_SEEDS, OLD_SEEDS, parallel=2),
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


def check_jobs(part: Part, backends: Sequence[str]) -> list[Job]:
    """What a check runs; the backends alternate."""
    return [Job(part.protocol, name, part.precision, seed, part.threads) for seed in part.seeds for name in backends]


def reference_jobs(part: Part, backends: Sequence[str]) -> list[Job]:
    """What a reference is made of: repeats and seeds; for a trajectory also other threads, and NumPy in float64."""
    each = itertools.product(part.reference_seeds, range(part.repeats), backends)
    usual = [Job(part.protocol, name, part.precision, seed, part.threads) for seed, _, name in each]
    if part.kind == "convergence":
        return usual
    other = 1 if part.threads is None else 2
    others = [Job(part.protocol, name, part.precision, 0, other) for name in backends]
    oracle = Job(part.protocol, "numpy", "float64", 0, 1)  # which adds up in one order, and needs no quiet machine
    return [oracle, *others, *usual]


def run(jobs: Sequence[Job], where: variant.Request, listener: Listener, parallel: int = 1) -> list[Record]:
    """Run the jobs that the folder has no good record of yet, and return a record for each job, in their order.

    A record of another commit, of sources that were changed, of another machine or of other packages (but for a backend
    that has an interpreter of its own) is none.

    Of `where`, device, folder, interpreters and timeout count. `parallel` is how many jobs go side by side where there
    are cores for them; on a GPU they go one after the other.

    Raises:
        BenchError: as `bench.running.runner.run`, or a folder holds a file that is no record.
    """
    device = resolve_device(where.device)
    there = _by_job(where)
    found = [kept.pop() if (kept := there.get(_key(job, device))) else None for job in jobs]
    missing = [job for job, record in zip(jobs, found, strict=True) if record is None]
    made = iter(_run_all(missing, where, listener, parallel if device == "cpu" else 1))
    return [record or next(made) for record in found]


def _run_all(jobs: Sequence[Job], where: variant.Request, listener: Listener, parallel: int) -> list[Record]:
    widest = max((job.cores for job in jobs), default=1)
    slots = max(1, min(parallel, environment.cores() // widest))
    interrupted = Event()
    if slots == 1:
        return [_run_one(job, range(job.cores), where, listener, interrupted) for job in jobs]
    free = SimpleQueue[int]()
    for slot in range(slots):
        free.put(slot)

    def in_a_slot(job: Job) -> Record:
        slot = free.get()
        try:
            cores = range(slot * widest, slot * widest + job.cores)
            return _run_one(job, cores, where, listener, interrupted)
        finally:
            free.put(slot)

    with ThreadPoolExecutor(slots) as pool:
        try:
            return list(pool.map(in_a_slot, jobs))
        except BaseException:
            interrupted.set()  # what has not begun is cancelled by `map` itself
            raise


def _run_one(job: Job, cores: Sequence[int], where: variant.Request, listener: Listener, interrupted: Event) -> Record:
    def command(backend: str, interpreter: str) -> list[str]:
        return [interpreter, "-m", "bench.regression.check_worker", ",".join(map(str, cores))]

    request = runner.Request(
        protocol=protocol.load(job.protocol),
        backends=[job.backend],
        device=_device(job, where.device),
        precision=job.precision,
        seed=job.seed,
        folder=where.folder,
        interpreters=where.interpreters,
        timeout=where.timeout,
        command=command,
        stopped=interrupted.is_set,
    )
    (record,) = runner.run(request, listener)
    return record


def _device(job: Job, asked: str) -> str:
    """The oracle is NumPy, which has no GPU."""
    return "cpu" if job.backend == "numpy" else asked


def _key(job: Job, device: str) -> tuple:
    digest = protocol.load(job.protocol).digest()
    return (digest, job.backend, _device(job, device), job.precision, job.seed, job.cores)


def _by_job(where: variant.Request) -> dict[tuple, list[Record]]:
    found: dict[tuple, list[Record]] = {}
    now = environment.fingerprint()
    for record in collection.load_all(where.folder) if where.folder.is_dir() else []:
        plan = record.plan
        alike = ["git", "cpu", *(["packages"] if plan.backend not in where.interpreters else [])]
        same = not (now["git"] or {}).get("dirty") and all(record.environment.get(key) == now[key] for key in alike)
        if plan.device == "gpu":
            same &= environment.machine("gpu", record.environment) == environment.machine("gpu", now)
        if record.status == "ok" and same:
            what = (plan.protocol_digest, plan.backend, plan.device, plan.precision, plan.seed)
            found.setdefault((*what, record.environment.get("cores")), []).append(record)
    return found
