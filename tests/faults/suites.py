"""Plant faults one at a time, and say what each suite found of them."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pandas as pd

import backends
from bench.errors import BenchError
from bench.records import collection, environment
from bench.regression import check as checks
from bench.regression.check_runs import PARTS
from bench.regression.verdicts import Verdict
from bench.tables.render import MISSING, Table, number

from .plant import ROOT, Fault, planted, python

PART = next(part for part in PARTS if part.name == "trajectory-narrow-float32")
REFERENCES = ROOT / "results" / "references"
MOST_ABREAST = 4
"""How many faults are judged side by side, each on a core of its own: several frameworks take much memory."""


def agreement(fault: Fault, device: str) -> str | None:
    """The first check of the agreement suite that fails, or the error that ends it; None if nothing was noticed.

    Raises:
        BenchError: the patch does not apply, or the suite could not be run.
    """
    variant = fault.backend + (f"×{fault.devices}" if fault.devices != "1" else "")
    variant += f":{fault.mode}" if fault.mode else ""
    with planted(fault) as tree:
        done = python(tree, "-m", "faults.walk", variant, device)
    if done.returncode:
        raise BenchError(f"{fault}: the agreement suite ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(fault: Fault, device: str) -> str | None:
    """How many times what is allowed the narrow trajectory is off; None if the check did not find the fault.

    Raises:
        BenchError: the patch does not apply, or the check could not be run.
    """
    with planted(fault) as tree:
        options = {"--only": PART.name, "--backends": fault.backend, "--device": device}
        options |= {"--references": str(REFERENCES), "--output": str(tree / "records")}
        done = python(tree, "-m", "bench", "check", *(part for option in options.items() for part in option))
        records = collection.load_all(tree / "records") if (tree / "records").is_dir() else []
    if not records:
        raise BenchError(f"{fault}: the check ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found = found_by(fault, checks.judge(records, REFERENCES, [fault.backend]))
    return None if found is None else f"× {number(found.share, 3)}"


def found_by(fault: Fault, judged: Sequence[Verdict]) -> Verdict | None:
    """The verdict that found a fault. A run that failed has found nothing, nor has a slow one if its loss is off."""
    regressions = [verdict for verdict in judged if verdict.outcome == "regression"]
    if fault.verdict == "regression":
        return next((verdict for verdict in regressions if verdict.check == "trajectory"), None)
    slower = [verdict for verdict in judged if verdict.outcome == "slower"]
    return slower[0] if slower and not regressions else None


SUITES: dict[str, Callable[[Fault, str], str | None]] = {"agreement": agreement, "check": check}
FINDINGS = {
    "agreement": "the first check of the agreement suite that failed, its error and its tolerance",
    "check": "how far off the narrow trajectory in float32 is by the regression check, in multiples of what is allowed",
}


def run(suite: str, faults: Sequence[Fault], device: str) -> Iterator[tuple[Fault, str | None]]:
    """Plant each fault and say what the suite found, None if nothing: side by side, but for those found by their time.

    Args:
        suite: a key of `SUITES`.
        faults: what to plant.
        device: "cpu" or "gpu", where faults take turns.

    Raises:
        BenchError: as the suite's function.
    """
    timed = [fault for fault in faults if fault.verdict == "slower"]
    others = [fault for fault in faults if fault not in timed]
    parallel = min(environment.cores(), MOST_ABREAST) if device == "cpu" else 1
    for together, workers in ((others, parallel), (timed, 1)):
        cores = SimpleQueue[int]()
        if device == "cpu" and hasattr(os, "sched_setaffinity"):
            for core in sorted(os.sched_getaffinity(0)):
                cores.put(core)

        def take_a_core(cores: SimpleQueue[int] = cores) -> None:
            """Keep a thread, and the processes that it starts, on a core of its own."""
            if not cores.empty():
                os.sched_setaffinity(0, {cores.get()})

        with ThreadPoolExecutor(workers, initializer=take_a_core) as pool:
            yield from zip(together, pool.map(lambda fault: SUITES[suite](fault, device), together), strict=True)


def table(suite: str, results: Sequence[tuple[Fault, str | None]]) -> Table:
    """A row for each fault and number of devices, a column for each backend: what found it."""
    names = [name for name in backends.REGISTRY if any(fault.backend == name for fault, _ in results)]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for fault, found in sorted(results, key=lambda each: (each[0].name, each[0].devices)):
        head = {"fault": fault.name, "devices": fault.devices, "description": fault.description}
        row = rows.setdefault((fault.name, fault.devices), head | dict.fromkeys(names, MISSING))
        row[fault.backend] = "NOT FOUND" if found is None else found
    missed = sum(found is None for _, found in results)
    caption = (
        f"Faults planted in each backend's sources, one at a time, and {FINDINGS[suite]}. {len(results)} planted, "
        f"{missed} not found. {MISSING}: the backend can't have this fault, or it was not planted."
    )
    shown = pd.DataFrame([*rows.values()])
    shown = shown.drop(columns="devices") if set(shown["devices"]) == {"1"} else shown
    return Table("mutations", "Planted faults", caption, shown, shown, ("fault",))
