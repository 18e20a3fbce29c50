"""Peers: the usual libraries on the same work, with the same weights, beside this harness' own backends.

A peer is a NICE flow as a user of some library would write it. `bench.inputs.peer_registry` says which there are; none
is imported before it is asked for, and none has to be installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from backends import UnavailableError
from bench.inputs.peer_registry import Entry

if TYPE_CHECKING:
    from bench.peers.interface import Peer


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
