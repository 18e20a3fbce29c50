"""The peers of one framework beside its backend, in one process: each is checked first, then all are timed in rounds.

A time counts only where the work is the same. So a peer has to give the float64 reference's log p before it trains,
and after a few steps the log p of the backend after the same; else it is a row that says by how much not. It also has
to move every array that the backend's steps move: in log p, biases that stand still don't show enough.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

import backends
from backends import Adam, Architecture, Backend, EpochReport, Pixels, TrainingState, UnavailableError
from backends.architecture import kernel_name
from backends.layout import from_layout, make_layout
from backends.parameters import Parameters, astype, digest
from bench.errors import BenchError
from bench.inputs import data
from bench.inputs.peer_registry import OURS, Entry, of_framework, our_mode
from bench.inputs.streams import TrainingStream, initial_parameters, normals
from bench.measures.agreement import relative
from bench.measures.precision import SIZE, seen
from bench.peers.interface import Peer
from bench.records import Measurement, PrecisionSeen
from bench.running.messages import Event, Finished, PeerBegun, PeersPlan
from bench.running.variant import rotated
from bench.running.worker_io import reason_of, serve, started, status_of

PIXELS = Pixels(1 / 255, 0.0)
CHECKED_ROWS = 32
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2}
"""The largest error of log p at the same weights, relative to the reference's largest."""

PRODUCTS_OF_JAX = {"float32": "highest", "tf32": "default"}
"""As the backend has them. "tensorfloat32" is another name of "high", of which XLA makes float32 on some paths."""

CHECKED_STEPS = 3
"""After how many steps training is checked. After 20, another ε comes to as much as a step left out."""

TRAINED_TOLERANCE = 0.01
"""The largest error of the change of log p by these steps, relative to the largest change.

At the article's size a step left out gives 0.1 or more, a learning rate that is 5 % off 0.014 to 0.06. Rounding gives
1e-4, that of TF32 0.0025, the Adam of Keras, whose ε is in another place, 0.005. An array that isn't trained may give
as little, all biases 0.008: `begun` sees those.
"""


class PeerError(BenchError):
    """A peer that does other work than it should."""


@dataclass(frozen=True)
class Work:
    """What the backend and its peers are given.

    Attributes:
        weights: canonical, float32, no bias 0: one that were left out would show.
        images: uint8 [steps · batch, D].
        stream: the order of the images in each epoch of `steps` steps.
    """

    architecture: Architecture
    weights: Parameters
    images: NDArray[np.uint8]
    stream: TrainingStream
    optimiser: Adam

    @classmethod
    def of(cls, plan: PeersPlan) -> Work:
        """Make it, from the embedded subset of MNIST, repeated as often as need be."""
        architecture = Architecture.from_dict(plan.architecture)
        weights = initial_parameters(architecture, plan.seed, "glorot_uniform", "glorot_normal")
        for index, (name, array) in enumerate(weights.items()):
            if name.endswith(".bias"):
                weights[name] = (0.05 * normals(plan.seed, "weights", 1000 + index, array.shape)).astype(np.float32)
        count = plan.steps * plan.batch
        images = np.resize(data.load("mnist-subset").train_images, (count, architecture.dim))
        stream = TrainingStream(plan.seed, count, architecture.dim, plan.batch, PIXELS)
        return cls(architecture, weights, images, stream, Adam())

    def beginning(self) -> Work:
        """The work of the steps after which training is checked."""
        stream = replace(self.stream, examples=CHECKED_STEPS * self.stream.batch)
        return replace(self, images=np.resize(self.images, (stream.examples, stream.dim)), stream=stream)

    @property
    def checked(self) -> NDArray[np.float32]:
        """The rows at which log p is compared, [32, D]."""
        return (self.images[:CHECKED_ROWS] * np.float32(PIXELS.scale)).astype(np.float32)

    def batches(self) -> NDArray[np.float32]:
        """The first epoch as x, [steps, batch, D]."""
        return (self.images[self.stream.epoch(1).order] * np.float32(PIXELS.scale)).astype(np.float32)

    def reference(self) -> NDArray[np.float64]:
        """log p of the checked rows by the float64 reference."""
        arrays = astype(self.weights, "float64")
        model = backends.create("numpy", self.architecture, arrays, device="cpu", precision="float64")
        return model.log_prob(self.checked)


@dataclass(frozen=True)
class Timed:
    """What is timed.

    Attributes:
        log_prob: log p of x in nats, [B, D] → [B].
        arrays: what is trained, as `Peer.arrays`.
        begin: make the training steps that are checked, before any other.
        seconds: make `steps` training steps; how long they took.
    """

    log_prob: Callable[[NDArray[np.float32]], NDArray]
    arrays: Callable[[], Iterable[NDArray]]
    begin: Callable[[], None]
    seconds: Callable[[], float]


def measure(plan: PeersPlan) -> Iterator[Event | Measurement]:
    """Build, check and time the backend and its peers; one that fails at any stage is a row, and the others go on."""
    work = Work.of(plan)
    yield PeerBegun(peer=OURS, stage="build")
    model = make_model(plan, work)
    yield started(model, initial_parameters=digest(work.weights))
    expected = work.reference()
    yield PeerBegun(peer=OURS, stage="warm-up")
    ours = make_ours(model, plan, work)
    at_start = ("log_prob_error", expected, TOLERANCES[plan.precision], "log p at the same weights")
    yield from _checked(OURS, ours.log_prob(work.checked), *at_start)
    change, moved = begun(ours, work)
    ours.seconds()
    after_training = ("trained_error", change - expected, TRAINED_TOLERANCE, "the change of log p by training")
    timed = {OURS: ours}
    others: dict[str, Callable[[], Timed]] = {
        our_mode(mode): partial(lambda mode: make_ours(make_model(plan, work, mode), plan, work), mode)
        for mode in (model.modes_on(plan.device) if plan.modes else ())
        if mode != model.mode and our_mode(mode) not in plan.lost
    }
    wanted = [entry for entry in of_framework(plan.framework) if entry.name in plan.peers]
    others |= {entry.name: partial(make_peer, entry, work, plan.precision) for entry in wanted}
    for name, make in others.items():
        yield PeerBegun(peer=name, stage="check and warm-up")
        try:
            found = make()
            yield from _checked(name, found.log_prob(work.checked), *at_start)
            trained, its_moved = begun(found, work)
            still = [array for array in moved if array not in its_moved]
            yield from _checked(name, trained - expected, *after_training, n=CHECKED_STEPS, still=still)
            found.seconds()
            timed[name] = found
        except Exception as error:
            yield _missed(name, error)
    yield from _rounds(timed, plan)
    yield Finished(status="ok")


def carry_out(plan: PeersPlan) -> Iterator[Event | Measurement]:
    """Measure, with what has to be set before the frameworks are imported."""
    os.environ["KERAS_BACKEND"] = plan.framework
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = PRODUCTS_OF_JAX[plan.precision]
    return measure(plan)


def make_model(plan: PeersPlan, work: Work, mode: str | None = None) -> Backend:
    """The harness' own backend, in its default mode if none is named."""
    name, device, precision = plan.framework, plan.device, plan.precision
    return backends.create(name, work.architecture, work.weights, device=device, precision=precision, mode=mode)


def make_ours(model: Backend, plan: PeersPlan, work: Work) -> Timed:
    """The harness' own backend in its own training loop; an epoch is `steps` steps, timed as `nice-bench run` does."""
    first = work.beginning()

    def begin() -> None:
        for _ in model.train(first.images, first.optimiser, first.stream, 1):
            pass

    def epochs() -> Iterator[EpochReport]:
        model.resume(TrainingState(work.weights))  # training can't go on from inside an epoch
        yield from model.train(work.images, work.optimiser, work.stream, plan.rounds + 1)

    reports = epochs()
    return Timed(model.log_prob, lambda: model.parameters().values(), begin, lambda: next(reports).seconds)


def make_peer(entry: Entry, work: Work, precision: str) -> Timed:
    """Build a peer.

    Raises:
        UnavailableError: it, or what it needs, isn't installed or can't be imported.
        PeerError: it multiplies in another precision.
    """
    kind = peer_class(entry)
    try:
        found = probe_peer(kind, precision)
        peer = kind(work.architecture, work.weights, work.optimiser)
    except ImportError as error:
        raise UnavailableError(f"{entry.name}: can't be imported here ({error})") from error
    if found.seen != precision:
        raise PeerError(f"it multiplies in {found.seen}, and {precision} was asked for")

    def begin() -> None:
        peer.load(work.beginning().batches())
        peer.train()
        peer.load(work.batches())

    def seconds() -> float:
        start = time.perf_counter()
        peer.train()
        return time.perf_counter() - start

    return Timed(peer.log_prob, peer.arrays, begin, seconds)


def begun(timed: Timed, work: Work) -> tuple[NDArray, list[str]]:
    """Make the steps that are checked: log p after them, and the canonical names of the arrays that they moved."""
    names = {_numbers(array): name for name, array in work.weights.items()}
    before = [np.array(array) for array in timed.arrays()]
    timed.begin()
    pairs = zip(before, timed.arrays(), strict=True)
    moved = {names.get(_numbers(old)) for old, new in pairs if not np.array_equal(old, new)}
    return timed.log_prob(work.checked), [name for name in work.weights if name in moved]


def _numbers(array: NDArray) -> bytes:
    """What an array is known by, in whichever order and with whichever sign a library holds its numbers."""
    return np.sort(np.abs(array), axis=None).tobytes()


def peer_class(entry: Entry) -> type[Peer]:
    """Import a peer's adapter. The library itself is imported when an instance is made.

    Raises:
        UnavailableError: its framework can't be imported here; the message says why.
    """
    module, _, name = entry.location.partition(":")
    try:
        return getattr(importlib.import_module(f"bench.peers.{module}"), name)
    except Exception as error:  # a broken installation fails in whatever way it likes
        raise UnavailableError(f"{entry.name}: can't be imported here ({type(error).__name__}: {error})") from error


def probe_peer(kind: type[Peer], precision: str) -> PrecisionSeen:
    """Find how many bits a peer's products keep, from log p alone.

    All kernels are 0 but those of coupling 0, which are unit matrices. So x = 1 + 2⁻ᵏ everywhere becomes z = 0 in what
    that coupling changes, unless its products lose bits; the scale makes a loss there large, and all the rest small.
    """
    architecture = replace(Architecture.article(), dim=2 * SIZE, couplings=2, hidden_layers=1, hidden_units=SIZE)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in architecture.trainable_shapes.items()}
    arrays |= {kernel_name(0, i): np.eye(SIZE, dtype=np.float32) for i in range(2)}
    arrays["log_scale"] = np.repeat(np.array([-16, 16], np.float32), SIZE)  # e¹⁶ · 2⁻²³ is about 1
    weights = from_layout(architecture, make_layout(architecture, arrays), arrays)
    x = np.zeros((SIZE, architecture.dim), np.float32)
    most = np.finfo(np.float32).nmant
    x[:most] = 1 + 2.0 ** -np.arange(1, most + 1)[:, None]
    found = kind(architecture, weights, Adam()).log_prob(x)
    return seen(precision, found[:most] > found[-1] - 1)


def _checked(
    name: str,
    found: NDArray,
    quantity: str,
    expected: NDArray,
    allowed: float,
    what: str,
    n: int | None = None,
    still: Sequence[str] = (),
) -> Iterator[Measurement]:
    """Record how far log p, or its change by training, is from what it should be.

    Args:
        name: the peer.
        found: log p, or its change.
        quantity: what the error is called in the record.
        expected: what it should be.
        allowed: the largest error.
        what: what it is of, for a message.
        n: after how many steps.
        still: the arrays that training should have moved.

    Raises:
        PeerError: farther than is allowed, or there are such arrays.
    """
    error = relative(found, expected) if found.shape == expected.shape else float("inf")
    yield Measurement.of("peers", quantity, error, "relative", n=n, peer=name)
    if still:
        more = f" and {len(still) - 1} more" if still[1:] else ""
        raise PeerError(f"training leaves {still[0]}{more} as before")
    if not error <= allowed:
        raise PeerError(f"{what} is off by {error:.1e}, more than {allowed:g}")


def _rounds(timed: dict[str, Timed], plan: PeersPlan) -> Iterator[Event | Measurement]:
    """Time each one in each round, in changing order, so that a drift of the machine hits all alike."""
    for round_ in range(1, plan.rounds + 1):
        for name in order_of(list(timed), round_):
            yield PeerBegun(peer=name, stage=f"round {round_}")
            try:
                seconds = timed[name].seconds() / plan.steps
            except Exception as error:
                if name == OURS:
                    raise
                del timed[name]
                yield _missed(name, error)
                continue
            yield Measurement.of("peers", "step_seconds", seconds, "s", n=plan.steps, peer=name, round=round_)


def order_of(names: list[str], round_: int) -> list[str]:
    """The order of a round, from 1: there in one, back in the next, then there again from another start."""
    order = rotated(names, (round_ - 1) // 2)
    return order if round_ % 2 else order[::-1]


def _missed(name: str, error: Exception) -> Measurement:
    reason = str(error) if isinstance(error, BenchError) else reason_of(error)
    return Measurement.of("peers", "step_seconds", None, "s", note=f"{status_of(error)}: {reason}", peer=name)


if __name__ == "__main__":
    sys.exit(serve(PeersPlan, carry_out))
