"""What a framework has here: its devices, precisions, modes and versions, known before a model is made."""

from abc import ABC, abstractmethod
from typing import ClassVar

from backends.choices import PRECISIONS, UnavailableError
from backends.values import Nodes


class Framework(ABC):
    """The part of a backend that is the same for all of its models."""

    name: ClassVar[str]
    modes: ClassVar[tuple[str, ...]]
    parallel_modes: ClassVar[tuple[str, ...]] = ()
    """Those of `modes` in which several devices train side by side; the first is used where none is asked for."""
    over_nodes: ClassVar[bool] = False
    """Whether these devices can be of several nodes."""
    # Modules of whatever measures a backend, imported only by that: bare products for a floor, and its profiler.
    workloads: ClassVar[str | None] = None
    profiler: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def devices(cls) -> tuple[str, ...]:
        """Which of "cpu" and "gpu" the framework sees here."""

    @classmethod
    def why_no_gpu(cls) -> str:
        """What the framework itself says of why it sees no GPU, in one line; "" where it says nothing."""
        return ""

    @classmethod
    def cuda(cls) -> str | None:
        """The CUDA version that the installed build is made for; None for a build without CUDA."""
        return None

    @classmethod
    def precisions(cls, device: str) -> tuple[str, ...]:
        """Which precisions this backend has on a device."""
        return PRECISIONS if device == "gpu" else ("float64", "float32", "bfloat16")

    @classmethod
    def modes_on(cls, device: str) -> tuple[str, ...]:
        """Which of its modes this backend has on a device."""
        return cls.modes

    @classmethod
    def default_mode(cls, device: str) -> str:
        """The mode that is used where none is asked for: the fastest that needs nothing beside the framework."""
        return cls.modes[0]

    @classmethod  # noqa: B027 - to some frameworks a CPU is one device
    def offer_cpus(cls, count: int) -> None:
        """Have the framework offer its CPU as so many devices or more, where it hasn't started yet."""

    @classmethod
    def join(cls, nodes: Nodes, device: str, local_replicas: int) -> None:
        """Have the framework train over several nodes, once in a process and before it has started.

        Raises:
            UnavailableError: it can't.
        """
        if not cls.over_nodes:
            raise UnavailableError(f"{cls.name}: trains on one node alone; there are {len(nodes.addresses)}")

    @classmethod
    def replicas_on(cls, device: str) -> int:
        """How many devices of a kind can train side by side here, on this node."""
        return 1

    @classmethod
    @abstractmethod
    def versions(cls) -> dict[str, str]:
        """The framework's version, and those of the libraries that it computes with."""
