"""Mutation testing of the agreement suite: plant a fault in a backend and see whether the suite turns red.

    for result in run():
        print(result.mutation.name, result.backend, result.caught_by or result.crash or "SURVIVED")

A fault is a change to the text of a backend's file (`mutants` and the files beside it). The changed text is
written to a temporary folder and imported beside the original under a name of its own; while a fault is planted,
`backends.create` makes the mutant. One that survives is a hole in the suite, not a property of the fault.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

import backends
from backends import Architecture, UnavailableError
from bench.agreement.agree import Check, Setting
from bench.agreement.agree_matrix import matrix, sampling
from bench.agreement.agree_training import lockstep, resume
from bench.agreement.mutants import FLOW, PRECISION, SAMPLING, Mutation
from bench.agreement.mutants_averaged import AVERAGED
from bench.agreement.mutants_score import SCORE
from bench.agreement.mutants_training import EXAMPLES_AND_NOISE, OPTIMISERS, TRAINING
from bench.errors import BenchError
from bench.inputs import data
from bench.tables.render import MISSING, Table, number

MUTATIONS: tuple[Mutation, ...] = (*FLOW, *SCORE, *EXAMPLES_AND_NOISE, *OPTIMISERS, *AVERAGED)
MUTATIONS += (*TRAINING, *PRECISION, *SAMPLING)

LOCKSTEPS = (
    *("article, noise, Adam, epochs of 4", "paper, RMSProp", "paper, RMSProp, epochs of 4"),
    *("recipe, AdamW", "article, Adam"),
)
"""All of `agree_training.LOCKSTEPS`, those first that have the most to find."""

CHECK_FIELDS = ("suite", "case", "precision", "weights", "quantity", "error", "tolerance")
"""What the table's numbers say of the check that failed."""


@dataclass(frozen=True)
class Result:
    """What the suite said of one fault in one backend.

    Attributes:
        mutation: the fault.
        backend: where it was planted.
        caught_by: the first check that failed, or None.
        crash: the error, where the mutant raised one before a check failed, or None. This is a catch, too.
        seconds: how long it took.
    """

    mutation: Mutation
    backend: str
    caught_by: Check | None
    crash: str | None
    seconds: float

    @property
    def survived(self) -> bool:
        """Whether nothing was noticed."""
        return self.caught_by is None and self.crash is None


def small_setting() -> Setting:
    """Small enough for a mutant to be judged in seconds: 4 × 4 pixels of real images, two couplings, 12 steps."""
    images = data.load("mnist-subset").train_images[:64].reshape(-1, 28, 28)[:, 12:16, 12:16].reshape(-1, 16)
    article, paper = (
        replace(named, dim=images.shape[1], couplings=2, hidden_layers=2, hidden_units=12)
        for named in (Architecture.article(), Architecture.paper())
    )
    architectures = {"article": article, "paper": paper, "article, shuffle": replace(article, permutation="shuffle")}
    return Setting(np.ascontiguousarray(images), architectures, steps=12, batch=16)


def first_breach(arm: str, setting: Setting | None = None, device: str = "cpu") -> Check | None:
    """Go through the suite, cheapest part first, up to the first check that fails; None if none does.

    A framework is compared with the reference; the reference, with the first framework that is there.
    """
    return next((check for check in walk(arm, setting or small_setting(), device) if not check.passed), None)


def walk(arm: str, setting: Setting, device: str) -> Iterator[Check]:
    """The whole suite for one arm, in the order of `first_breach`.

    A framework that compiles does so anew for every quantity of the matrix, which makes that the dearest part.
    """
    chosen = [arm if arm != "numpy" else _companion(), "numpy"]
    frameworks = chosen[:1]
    cases = list(setting.architectures)
    first, rest = (
        replace(setting, architectures={case: setting.architectures[case] for case in part})
        for part in (cases[:1], cases[1:])
    )
    yield from matrix(first, frameworks, ["float64"], device)
    yield from lockstep(setting, frameworks, "float64", device, LOCKSTEPS)
    yield from resume(setting, chosen, device)
    yield from sampling(setting, chosen, device)
    yield from matrix(rest, frameworks, ["float64"], device)
    yield from matrix(first, frameworks, ["float32"], device)


def _companion() -> str:
    for name, reason in ((name, _unavailable(name)) for name in backends.REGISTRY if name != "numpy"):
        if reason is None:
            return name
    raise UnavailableError("numpy: no framework is here to compare the reference with")


def source(backend: str) -> str:
    """The text of a backend's file."""
    return Path(backends.__file__).with_name(f"{backend}_backend.py").read_text(encoding="utf-8")


def mutate(mutation: Mutation, backend: str) -> str:
    """The text of a backend's file with the fault in it.

    Raises:
        BenchError: a text to be replaced isn't there exactly once: the backend has changed, and the list must follow.
    """
    text, places = source(backend), []
    for old, new in mutation.changes[backend]:
        if (count := text.count(old)) != 1:
            raise BenchError(
                f"mutation {mutation.name}: its text occurs {count} times in backends/{backend}_backend.py; "
                f"expected once: {old!r}"
            )
        places.append((text.index(old), old, new))
    for start, old, new in sorted(places, reverse=True):  # from the end, so that what stands before doesn't move
        text = text[:start] + new + text[start + len(old) :]
    return text


@contextmanager
def planted(mutation: Mutation, backend: str) -> Iterator[None]:
    """While this lasts, `backends.create(backend, …)` makes the mutant.

    Raises:
        BenchError: as `mutate`.
    """
    text, registered = mutate(mutation, backend), backends.REGISTRY[backend]
    module_name = f"mutant_{backend}_{mutation.name}"
    with tempfile.TemporaryDirectory(prefix="nice-bench-") as folder:
        path = Path(folder, f"{module_name}.py")
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
            backends.REGISTRY[backend] = f"{module_name}:{registered.partition(':')[2]}"
            yield
        finally:
            backends.REGISTRY[backend] = registered
            del sys.modules[module_name]


def run(
    chosen: Sequence[Mutation] = MUTATIONS,
    names: Iterable[str] | None = None,
    setting: Setting | None = None,
    device: str = "cpu",
) -> Iterator[Result]:
    """Plant each fault in each of the backends that can have it, one at a time.

    Args:
        chosen: the faults; those that need a GPU are left out on a CPU.
        names: the backends; all that can be used here, if None.
        setting: what the suite runs on; `small_setting()`, if None.
        device: "cpu" or "gpu".
    """
    setting = setting or small_setting()
    present = [name for name in backends.REGISTRY if _unavailable(name) is None] if names is None else list(names)
    for backend in present:
        for mutation in chosen:
            if backend in mutation.changes and (device == "gpu" or not mutation.needs_gpu):
                yield _judge(mutation, backend, setting, device)


def _unavailable(name: str) -> str | None:
    try:
        backends.backend_class(name)
    except UnavailableError as error:
        return str(error)
    return None


def _judge(mutation: Mutation, backend: str, setting: Setting, device: str) -> Result:
    start = time.perf_counter()
    caught_by, crash = None, None
    with planted(mutation, backend), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a mutant may overflow
        try:
            mode = mutation.modes.get(backend)
            caught_by = first_breach(f"{backend}:{mode}" if mode else backend, setting, device)
        except UnavailableError:
            raise
        except Exception as error:  # whatever a broken backend raises
            crash = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return Result(mutation, backend, caught_by, crash, time.perf_counter() - start)


def table(results: Iterable[Result]) -> Table:
    """A row for each fault, a column for each backend: what caught it, by how much."""
    results = list(results)
    names = [name for name in backends.REGISTRY if any(result.backend == name for result in results)]
    found = {(result.mutation.name, result.backend): result for result in results}
    mutations = {result.mutation.name: result.mutation for result in results}
    rows = [
        {"fault": name, "description": mutation.description}
        | {backend: _verdict(found.get((name, backend))) for backend in names}
        for name, mutation in mutations.items()
    ]
    raw = [
        {"fault": result.mutation.name, "description": result.mutation.description, "backend": result.backend}
        | {"survived": result.survived, "crash": result.crash, "seconds": result.seconds}
        | {field: getattr(result.caught_by, field, None) for field in CHECK_FIELDS}
        for result in results
    ]
    survived = sum(result.survived for result in results)
    caption = (
        f"Faults planted in each backend's own file, one at a time, and the first check of the agreement suite that "
        f"failed, its error and its tolerance. {len(results)} mutants, {survived} of them not caught. {MISSING}: the "
        f"backend can't have this fault, or it was not planted."
    )
    return Table("mutations", "Planted faults", caption, pd.DataFrame(rows), pd.DataFrame(raw), ("fault",))


def _verdict(result: Result | None) -> str:
    if result is None:
        return MISSING
    if result.crash is not None:
        return f"crashed: {result.crash}"
    if (check := result.caught_by) is None:
        return "SURVIVED"
    where = ", ".join(part for part in (check.suite, check.case, check.weights) if part)
    return f"{where}: {check.quantity} {number(check.error, 2)} > {number(check.tolerance, 2)}"
