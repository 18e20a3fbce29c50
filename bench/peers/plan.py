"""What passes between the runner of the peers and its workers: the plan going in, events coming back, both as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from bench.records import Json, Measurement, Status
from bench.running.messages import Finished, Measured, Started


class PeersPlan(BaseModel):
    """The peers of one framework.

    Attributes:
        framework: whose peers, and whose backend is timed beside them.
        peers: names, as the registry has them.
        modes: whether the harness' own backend takes turns in its other modes too.
        lost: those of its modes, by their names among the peers, that are not to be tried again.
        architecture: as `Architecture.to_dict` makes it.
        steps: training steps that are timed together.
        rounds: how often everyone's turn comes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    framework: str
    peers: list[str]
    modes: bool = False
    lost: list[str] = []
    architecture: Json
    device: Literal["cpu", "gpu"]
    precision: Literal["float32", "tf32"]
    batch: int
    steps: int
    rounds: int
    seed: int


class Begun(BaseModel):
    """Whose turn it is: where a worker dies without a word, it was this one's doing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: Literal["begun"] = "begun"
    peer: str
    stage: str


PeerEvent = Begun | Started | Measured | Finished
PEER_EVENT: TypeAdapter[PeerEvent] = TypeAdapter(Annotated[PeerEvent, Field(discriminator="event")])


def missed(peer: str, status: Status, reason: str) -> Measurement:
    """The row of a peer that has no time: its status, and why."""
    return Measurement(
        measure="peers",
        quantity="step_seconds",
        value=None,
        unit="s",
        note=f"{status}: {reason}",
        context={"peer": peer},
    )
