"""Peers: the usual libraries on the same work, with the same weights, beside this harness' own backends.

A peer is a NICE flow as a user of some library would write it. The registry says which there are; none is imported
before it is asked for, and none has to be installed.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends import UnavailableError

if TYPE_CHECKING:
    from bench.peers.interface import Peer

OURS = "this harness"
"""What the harness' own backend is called among the peers, in its default mode."""

FRAMEWORKS = ("torch", "tensorflow", "jax")


@dataclass(frozen=True)
class Entry:
    """A peer on one framework.

    Attributes:
        name: as the tables have it, unique within a framework.
        framework: what it computes with.
        package: the distribution that it is installed from, whose version is recorded.
        location: "module:class", below `bench.peers`.
    """

    name: str
    framework: str
    package: str
    location: str


REGISTRY = (
    *(
        entry
        for framework in FRAMEWORKS
        for entry in (
            Entry("keras fit", framework, "keras", "keras_peers:KerasFit"),
            Entry("keras train_on_batch", framework, "keras", "keras_peers:KerasTrainOnBatch"),
        )
    ),
    Entry("zuko", "torch", "zuko", "torch_peers:Zuko"),
    Entry("nflows", "torch", "nflows", "torch_peers:NFlows"),
    Entry("normflows", "torch", "normflows", "torch_peers:NormFlows"),
    Entry("FrEIA", "torch", "FrEIA", "torch_peers:FrEIA"),
    Entry("flowjax", "jax", "flowjax", "jax_peers:FlowJax"),
    Entry("distrax", "jax", "distrax", "jax_peers:Distrax"),
    Entry("tensorflow-probability", "tensorflow", "tensorflow-probability", "tensorflow_peers:TensorFlowProbability"),
)


def our_mode(mode: str) -> str:
    """What the harness' own backend is called among the peers in another mode than its default one."""
    return f"{OURS}: {mode}"


def of_framework(framework: str) -> list[Entry]:
    """The peers on a framework, in the order of the tables."""
    return [entry for entry in REGISTRY if entry.framework == framework]


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
