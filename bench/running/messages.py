"""What passes between runner and worker: the plan going in, events coming back, both as JSON."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import backends
from backends import Architecture, Backend, Nodes
from backends.parameters import Parameters, rounded
from bench.inputs.protocol import Point, Protocol
from bench.records import EpochPoint, Json, Measurement, PrecisionSeen, Status


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ModelPlan(_Message):
    """What a worker is asked for with a model of its own; the protocol is there in full, so that it reads no file."""

    protocol: Protocol
    backend: str
    device: Literal["cpu", "gpu"]
    precision: str
    mode: str | None

    def model(self, architecture: Architecture, initial: Parameters, **devices: Any) -> Backend:
        """The model at these weights, rounded to its dtype; `devices` are what `backends.create` takes of several."""
        chosen: dict[str, Any] = {"device": self.device, "precision": self.precision, "mode": self.mode}
        return backends.create(self.backend, architecture, rounded(initial, self.precision), **chosen, **devices)


class WorkerPlan(_ModelPlan):
    """One round of one backend.

    Attributes:
        nodes: which machines have the devices, and which of them this worker is on.
        epochs: how many epochs this round trains; `round` of `rounds`, from 1.
        state: where training goes on from; absent at its start. States are left in files of other names beside it.
        best_loss: the lowest test loss up to that state, None at the start; the weights that had it lie at `best`.
        weights: where the weights that the protocol keeps are left, in the last round.
        resumed: whether this process goes on inside the round, where another one was cut off.
    """

    devices: int = 1
    nodes: Nodes = Nodes()
    seed: int
    round: int
    rounds: int
    epochs: int
    state: str
    best: str
    best_loss: float | None = None
    weights: str
    resumed: bool = False


class SweepPlan(_ModelPlan):
    """Points of a sweep around a protocol for one backend, in this order.

    Attributes:
        rates: operation → seconds a FLOP, of what was measured before; says what would take too long.
        seconds: to spend on a point, about.
        longest_call: most seconds that one call may take.
    """

    points: list[Point]
    rates: dict[str, float] = Field(default_factory=dict)
    seconds: float = Field(gt=0)
    longest_call: float = Field(gt=0)


class PreflightPlan(_Message):
    """What `nice-bench doctor` asks of one backend: a check of everything that a run would need of it."""

    backend: str
    device: Literal["cpu", "gpu"]


class PeersPlan(_Message):
    """The peers of one framework.

    Attributes:
        framework: whose peers, and whose backend is timed beside them.
        peers: names, as the registry has them.
        modes: whether the harness' own backend is timed in its other modes too.
        lost: peers and modes (by their names among the peers) that took a process down; they are not tried again.
        architecture: as `Architecture.to_dict` makes it.
        steps: training steps that are timed together.
        rounds: how often each is timed.
    """

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


class Started(_Message):
    """The model stands; what it stands on."""

    event: Literal["started"] = "started"
    environment: Json
    mode: str
    precision: PrecisionSeen
    digests: dict[str, str]


class EpochDone(_Message):
    """An epoch is over, or a part of one, which counts from 1; the first epoch brings its loss per step."""

    event: Literal["epoch"] = "epoch"
    part: int = 1
    point: EpochPoint
    first_epoch_losses: list[float | None] = Field(default_factory=list)


class Measured(_Message):
    """A figure."""

    event: Literal["measured"] = "measured"
    measurement: Measurement


class StateLeft(_Message):
    """The training state after what was said so far lies at `path`; it counts once that is in a record on disk."""

    event: Literal["state"] = "state"
    path: str


class PointBegun(_Message):
    """A point of a sweep is at work; its figures follow."""

    event: Literal["point"] = "point"
    point: Point


class PeerBegun(_Message):
    """A peer is at work: if the worker dies without a word, it was this one's doing."""

    event: Literal["begun"] = "begun"
    peer: str
    stage: str


class Checked(_Message):
    """One check of a preflight: what was found, or what is wrong and what to do about it."""

    event: Literal["checked"] = "checked"
    ok: bool
    found: str


class Finished(_Message):
    """The plan is carried out, or not; `environment` is what has become known of it since the start."""

    event: Literal["finished"] = "finished"
    status: Status
    reason: str | None = None
    digests: dict[str, str] = Field(default_factory=dict)
    environment: Json = Field(default_factory=dict)


Event = Started | EpochDone | StateLeft | PointBegun | PeerBegun | Measured | Checked | Finished
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
