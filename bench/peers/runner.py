"""The runner of the peers: one process a framework, and a record of it, whatever befalls a peer in there."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import ValidationError

from backends import Adam, Architecture
from bench import records
from bench.errors import BenchError
from bench.inputs.peer_registry import FRAMEWORKS, OURS, of_framework, our_mode
from bench.peers.plan import PEER_EVENT, Begun, PeersPlan, missed
from bench.records import Measurement, Plan, Record, Status, environment
from bench.running.messages import Finished, Measured, Started
from bench.running.runner import resolve_device
from bench.running.supervisor import converse
from bench.running.worker_environment import worker_environment

COMMAND = ("-m", "bench.peers.worker")
Precision = Literal["float32", "tf32"]
CAPTION = "the same network and weights in other libraries, each trained as its documentation shows."


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        architecture: of the article, of any size.
        frameworks: whose peers, in this order.
        peers: which of them, by name; all where it is empty.
        interpreters: framework → the Python that has it and its peers; this one where it isn't named.
        timeout: most seconds for one framework.
    """

    architecture: Architecture = field(default_factory=Architecture.article)
    frameworks: Sequence[str] = FRAMEWORKS
    peers: Sequence[str] = ()
    device: str = "auto"
    precision: Precision = "float32"
    batch: int = 128
    steps: int = 20
    rounds: int = 5
    seed: int = 0
    folder: Path = Path("results/runs")
    interpreters: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 3600.0

    @classmethod
    def checked(cls, *, frameworks: str, peers: str | None, precision: str, **rest: Any) -> Request:
        """Make one from what a user typed.

        Args:
            frameworks: names with commas between.
            peers: the same; None for all.
            precision: "float32" or "tf32".
            rest: the other attributes.

        Raises:
            BenchError: a name that isn't known.
        """
        chosen = _among("--frameworks", frameworks, FRAMEWORKS)
        known = [entry.name for framework in chosen for entry in of_framework(framework)]
        only = _among("--peers", peers, known) if peers is not None else ()
        if precision not in get_args(Precision):
            raise BenchError(f"--precision is {precision!r}; expected one of {', '.join(get_args(Precision))}")
        return cls(frameworks=chosen, peers=only, precision=cast("Precision", precision), **rest)


def _among(option: str, given: str, known: Sequence[str]) -> list[str]:
    """The names in a comma-separated list, each once."""
    names = list(dict.fromkeys(name.strip() for name in given.split(",")))
    if not set(names) <= set(known):
        raise BenchError(f"{option} {given!r}: expected some of {', '.join(dict.fromkeys(known))}, with commas between")
    return names


def run(request: Request, tell: Callable[[str], None], command: Sequence[str] = COMMAND) -> list[Record]:
    """Measure the peers of each framework.

    Args:
        request: what to measure.
        tell: is told whose turn it is.
        command: the worker's arguments after the interpreter.

    Returns:
        One record a framework, as written to the request's folder.

    Raises:
        BenchError: no GPU where one is asked for, or a folder that can't be written.
    """
    device = resolve_device(request.device)
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(3).hex()}"
    made = []
    for framework in request.frameworks:
        turn = Turn(request, framework, device, tell, command)
        try:
            turn.measure()
        finally:  # interrupted, what was measured until then is kept
            records.save(turn.record(run_id), request.folder)
        made.append(turn.record(run_id))
    return made


class Turn:
    """One framework's peers, measured; its worker is started anew without the peer or the mode that took it down."""

    def __init__(
        self, request: Request, framework: str, device: str, tell: Callable[[str], None], command: Sequence[str]
    ) -> None:
        self._request, self._framework, self._device = request, framework, device
        self._tell, self._command = tell, command
        self._interpreter = request.interpreters.get(framework, sys.executable)
        self._created = records.now()
        self._lost: list[Measurement] = []
        self._lost_modes: list[str] = []
        self._measurements: list[Measurement] = []
        self._started: Started | None = None
        self._status: Status = "failed"
        self._reason: str | None = "interrupted"

    def measure(self) -> None:
        """Run workers until one comes to its end, or dies by no peer's doing."""
        names = [entry.name for entry in of_framework(self._framework)]
        wanted = [name for name in names if name in self._request.peers or not self._request.peers]
        while culprit := self._attempt(wanted):
            if culprit in wanted:
                wanted.remove(culprit)
            else:
                self._lost_modes.append(culprit)
            self._lost.append(missed(culprit, self._status, self._reason or "no reason known"))

    def _attempt(self, wanted: list[str]) -> str | None:
        """Run a worker; the peer during whose turn it died, or None."""
        self._measurements, self._started = [], None
        self._status, self._reason = "failed", "interrupted"
        self._finished: Finished | None = None
        self._begun = OURS
        variables = worker_environment(self._framework, self._interpreter, self._device)
        command = [self._interpreter, *self._command]
        plan = self._plan(wanted).model_dump_json()
        end = converse(command, plan, variables, self._request.timeout, self._take)
        told = self._told()
        if told is not None:
            self._status, self._reason = told.status, told.reason
            return None
        self._status, self._reason = end
        return self._begun if self._begun in wanted or self._begun.startswith(our_mode("")) else None

    def _told(self) -> Finished | None:
        """What the worker said of its end, if it came so far."""
        return self._finished

    def _plan(self, wanted: list[str]) -> PeersPlan:
        request = self._request
        return PeersPlan(
            framework=self._framework,
            peers=wanted,
            modes=not request.peers,
            lost=self._lost_modes,
            architecture=request.architecture.to_dict(),
            device="gpu" if self._device == "gpu" else "cpu",
            precision=request.precision,
            batch=request.batch,
            steps=request.steps,
            rounds=request.rounds,
            seed=request.seed,
        )

    def _take(self, line: bytes) -> None:
        try:
            event = PEER_EVENT.validate_json(line)
        except ValidationError:
            return  # not ours: a library that writes to the descriptor itself
        match event:
            case Begun():
                self._begun = event.peer
                self._tell(f"{self._framework}: {event.peer}: {event.stage}")
            case Started():
                self._started = event
            case Measured():
                self._measurements.append(event.measurement)
            case Finished():
                self._finished = event

    def record(self, run_id: str) -> Record:
        """What came of it."""
        request, started = self._request, self._started
        settings: dict[str, Any] = {"batch": request.batch, "steps": request.steps, "rounds": request.rounds}
        settings |= {"architecture": request.architecture.to_dict(), "optimiser": Adam().to_dict()}
        plan = Plan(
            kind="peers",
            protocol="article",
            protocol_digest=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
            backend=self._framework,
            device=self._device,
            precision=request.precision,
            mode=started.mode if started else None,
            seed=request.seed,
            epochs=request.rounds,
            batch=request.batch,
            rounds=request.rounds,
            architecture=settings["architecture"],
            optimiser=settings["optimiser"],
            loss="article",
            caption=f"{CAPTION} Batch {request.batch}, {request.steps} steps a turn.",
        )
        return Record(
            run=run_id,
            created=self._created,
            status=self._status,
            reason=self._reason,
            plan=plan,
            environment=started.environment if started else environment.fingerprint(),
            precision=started.precision if started else None,
            digests=started.digests if started else {},
            measurements=[*self._measurements, *self._lost],
        )
