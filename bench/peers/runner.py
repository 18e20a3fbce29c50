"""The runner of the peers: each framework has one process, and a record of it, whatever happens to a peer in there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from backends import Adam, Architecture
from bench.inputs.peer_registry import OURS, of_framework, our_mode
from bench.records import Measurement, Plan, Record
from bench.records.fields import digest_of
from bench.running import variant
from bench.running.messages import Event, Finished, PeerBegun, PeersPlan
from bench.running.variant import Listener, Variant, carry_out, new_run_id, resolve_device, scratch

Precision = Literal["float32", "tf32"]
CAPTION = "the same network and weights in other libraries, each trained as its documentation shows."


@dataclass(frozen=True, kw_only=True)
class Request(variant.Request):
    """What to measure; `backends` are the frameworks whose peers are measured.

    Attributes:
        architecture: of the article, of any size.
        peers: which of them, by name; all where it is empty.
    """

    architecture: Architecture = field(default_factory=Architecture.article)
    peers: Sequence[str] = ()
    batch: int = 128
    steps: int = 20
    rounds: int = 5


def run(request: Request, listener: Listener) -> list[Record]:
    """Measure the peers of each framework.

    Returns:
        One record a framework, as written to the request's folder.

    Raises:
        BenchError: no GPU where one is asked for, or a folder that can't be written.
    """
    device, run_id = resolve_device(request.device), new_run_id()
    settings: dict[str, Any] = {"batch": request.batch, "steps": request.steps, "rounds": request.rounds}
    settings |= {"architecture": request.architecture.to_dict(), "optimiser": Adam().to_dict()}
    with scratch(request.folder):
        variants = []
        for framework in request.backends:
            plan = Plan(
                kind="peers",
                protocol="article",
                protocol_digest=digest_of(settings),
                backend=framework,
                device=device,
                precision=request.precision,
                seed=request.seed,
                epochs=request.rounds,
                batch=request.batch,
                rounds=request.rounds,
                architecture=settings["architecture"],
                optimiser=settings["optimiser"],
                loss="article",
                caption=f"{CAPTION} Batch {request.batch}, {request.steps} steps a round.",
            )
            variants.append(Peers(request, framework, plan, run_id))
        return carry_out(variants, [None], listener)


class Peers(Variant[PeersPlan]):
    """One framework's peers; its worker is started anew without the peer or the mode that took it down."""

    worker = "bench.peers.worker"
    request: Request
    _at = OURS

    def worker_plan(self, round_: int) -> PeersPlan:
        """Everything at once: the worker has rounds of its own."""
        plan, request = self.record.plan, self.request
        names = [entry.name for entry in of_framework(plan.backend)]
        return PeersPlan(
            framework=plan.backend,
            peers=[name for name in names if name in request.peers or not request.peers],
            modes=not request.peers,
            architecture=plan.architecture,
            device=self.device,
            precision=cast("Precision", plan.precision),
            batch=request.batch,
            steps=request.steps,
            rounds=request.rounds,
            seed=plan.seed,
        )

    def take(self, event: Event) -> None:
        """Keep which peer is at work."""
        if isinstance(event, PeerBegun):
            self._at = event.peer

    def after_death(self, plan: PeersPlan, end: Finished) -> PeersPlan | Finished:
        """A row for the peer, or the mode of ours, that was at work; the others are measured anew, in one process."""
        culprit, self._at = self._at, OURS
        if end.status == "timeout" or (culprit not in plan.peers and not culprit.startswith(our_mode(""))):
            return end  # whoever is at work when the time is over has done nothing wrong
        note = f"{end.status}: {end.reason or 'no reason known'}"
        self.add(Measurement.of("peers", "step_seconds", None, "s", note=note, peer=culprit))
        peers = [name for name in plan.peers if name != culprit]
        return plan.model_copy(update={"peers": peers, "lost": [*plan.lost, culprit]})

    def add(self, measurement: Measurement) -> None:
        """Add a figure, in place of the one that a worker which died had measured."""
        kept = self.record.measurements
        kept[:] = [m for m in kept if (m.quantity, m.context) != (measurement.quantity, measurement.context)]
        kept.append(measurement)
