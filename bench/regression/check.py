"""The regression check: any set of records against the references that their protocols have, and against each other.

Nothing is run here; see `check_runs`. A run that is missing or failed is a regression, whatever the others say.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.records import Record
from bench.regression import check_speed, convergence, reference, trajectory
from bench.regression.check_runs import PARTS
from bench.regression.reference import Reference, Trajectory
from bench.regression.verdicts import Verdict

Group = tuple[str, str, str]
"""Protocol, device, precision: what has one reference."""


def judge(runs: Sequence[Record], references: Path, backends: Sequence[str] | None = None) -> list[Verdict]:
    """Hold records against their references; protocols without one are left out.

    Args:
        runs: the records.
        references: the folder of the references.
        backends: must all have records of each protocol; without them, those that have records of it.

    Raises:
        BenchError: no record has a reference, or one can't be read.
    """
    groups = grouped(runs)
    known = with_reference(runs, references)
    if not known:
        missing = ", ".join(" ".join(group) for group in groups) or "nothing"
        raise BenchError(f"no reference in {references} for {missing}; `nice-bench check --update` makes references")
    verdicts, held = [], []
    for group, its in known.items():
        against = reference.load(references / reference.name_of(*group))
        wanted = backends or sorted({run.plan.backend for run in its} - {"numpy"})
        verdicts += judge_losses(its, against, wanted)
        held.append((_good(_present(its, against, wanted), against), against))
    return verdicts + check_speed.judge(held)


def judge_losses(runs: Sequence[Record], against: Reference, backends: Sequence[str]) -> list[Verdict]:
    """Hold the losses of one protocol, device and precision against its reference.

    A run that failed and was made again since, as a check that was interrupted goes on, counts no more.
    """
    present = _present(runs, against, backends)
    seeds = {against.seed} if isinstance(against, Trajectory) else {run.plan.seed for run in present} or {0}
    there = {(run.plan.backend, run.plan.seed) for run in present}
    wanted = itertools.product(backends, sorted(seeds))
    verdicts = [_no_run(against, *each, "no run") for each in wanted if each not in there]
    verdicts += [
        _no_run(against, run.plan.backend, run.plan.seed, fault) for run in present if (fault := _fault(run, against))
    ]
    good = _good(present, against)
    if isinstance(against, Trajectory):
        verdicts += [trajectory.judge(run, against) for run in good]
    elif good:
        verdicts += convergence.judge(good, against)
    return verdicts


def make(runs: Sequence[Record], margin: float) -> Reference:
    """A reference of one protocol, device and precision from its records; those of the oracle are in float64.

    Raises:
        BenchError: there are too few, one has failed, or by this reference they would not pass.
    """
    compared = [run for run in runs if run.plan.backend != "numpy"]
    if not compared:
        raise BenchError("no records to make a reference of")
    plan = compared[0].plan
    made, speed = reference.made_of(runs), check_speed.make(compared)
    found: Reference
    if any(part.kind == "trajectory" and part.protocol == plan.protocol for part in PARTS):
        found = trajectory.make(runs, plan.precision, made, speed)
    else:
        found = convergence.make(compared, margin, made, speed)
    backends = sorted({run.plan.backend for run in compared})
    bad = [verdict for verdict in judge_losses(compared, found, backends) if verdict.outcome == "regression"]
    if bad:
        raise BenchError(
            f"{plan.protocol}: its own runs would not pass: {bad[0].check}, {bad[0].backend}, {bad[0].quantity}: "
            f"{bad[0].found}, allowed is {bad[0].allowed}; no reference is made of them"
        )
    return found


def grouped(runs: Iterable[Record]) -> dict[Group, list[Record]]:
    """Records of runs by what has one reference."""
    groups: dict[Group, list[Record]] = {}
    for run in runs:
        if run.plan.kind == "run":
            groups.setdefault((run.plan.protocol, run.plan.device, run.plan.precision), []).append(run)
    return groups


def with_reference(runs: Iterable[Record], references: Path) -> dict[Group, list[Record]]:
    """Those of the groups that have a reference in a folder."""
    groups = grouped(runs)
    return {group: its for group, its in groups.items() if (references / reference.name_of(*group)).is_file()}


def _present(runs: Sequence[Record], against: Reference, backends: Sequence[str]) -> list[Record]:
    """The runs that count: of these backends and of the reference's seed; of failed ones those not made again since."""
    seeds = {against.seed} if isinstance(against, Trajectory) else {run.plan.seed for run in runs}
    chosen = [run for run in runs if run.plan.backend in backends and run.plan.seed in seeds]
    good = sorted((run for run in chosen if run.status == "ok"), key=lambda run: run.created)
    last = {(run.plan.backend, run.plan.seed): run.created for run in good}
    return [
        run for run in chosen if run.status == "ok" or run.created >= last.get((run.plan.backend, run.plan.seed), "")
    ]


def _good(runs: Sequence[Record], against: Reference) -> list[Record]:
    return [run for run in runs if not _fault(run, against)]


def _fault(run: Record, against: Reference) -> str | None:
    if run.status != "ok":
        return f"{run.status}: {run.reason}"
    if run.plan.protocol_digest != against.protocol_digest:
        return "the protocol is not that of the reference: edited, or shortened"
    if run.digests.get("data") != against.data:
        return "the images are not those of the reference"
    return None


def _no_run(against: Reference, backend: str, seed: int, found: str) -> Verdict:
    who = (against.protocol, against.precision, backend)
    return Verdict("run", *who, f"seed {seed}", found, "a run that ends well", "regression")
