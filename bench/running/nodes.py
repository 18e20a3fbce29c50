"""Several nodes: the same command on each, of which the first runs the protocol and the others lend it their devices.

Which node a command is on is in its environment, as `srun` leaves it or scripts for MPI do. The others reach the first
one's command by a connection, and for each worker there get the same plan and the same training state; they run the
same worker, of which they keep nothing. The frameworks then find each other by themselves, at addresses in the plan.
What goes wrong on any node ends the worker on all of them, and is the reason in the record.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from backends import Nodes
from bench.errors import BenchError
from bench.running.messages import Event, Finished, WorkerPlan
from bench.running.supervisor import End, supervise
from bench.running.variant import worker_command
from bench.running.worker_environment import cache_environment, worker_environment

PATIENCE_SECONDS = 120.0
"""For the commands of all nodes to begin."""

STOP = b""
FILES = ("state", "best")
"""What a worker reads, by its field in the plan."""


class Place(NamedTuple):
    """Where this command is: on which of how many nodes, and where the first one listens."""

    rank: int
    nodes: int
    host: str
    port: int


class Ready(BaseModel):
    """A node can carry a plan out, its framework on this port; how its last worker ended, and whether it said so."""

    rank: int
    port: int
    finished: Finished | None = None
    said: bool = True


class _NodeFailedError(Exception):
    """A worker on another node has ended before its time."""

    def __init__(self, end: End) -> None:
        self.end = end


def here(variables: Mapping[str, str] = os.environ) -> Place | None:
    """The place of this command by its environment; None where it is alone.

    Raises:
        BenchError: the variables make no sense.
    """
    try:
        if "RANK" in variables:
            rank, count = int(variables["RANK"]), int(variables["WORLD_SIZE"])
            host, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
        elif "SLURM_STEP_NUM_TASKS" in variables:  # of `srun` alone: a batch script has none
            rank, count = int(variables["SLURM_PROCID"]), int(variables["SLURM_STEP_NUM_TASKS"])
            first = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", variables["SLURM_STEP_NODELIST"])[0]  # as r[1-2]c[3-4]
            host = variables.get("MASTER_ADDR", re.sub(r"\[(\w+)[^\]]*\]", r"\1", first))
            step = int(variables["SLURM_JOB_ID"]) + int(variables.get("SLURM_STEP_ID", 0))
            port = int(variables.get("MASTER_PORT", 61440 + step % 4096))  # above those that systems give away
        else:
            return None
    except (KeyError, ValueError, IndexError) as error:
        raise BenchError(f"several nodes: the environment has no usable {error}") from error
    if not 0 <= rank < count:
        raise BenchError(f"several nodes: rank {rank} of {count} makes no sense")
    return Place(rank, count, host, port) if count > 1 else None


@contextmanager
def lead(place: Place) -> Iterator[Leader]:
    """Within it the other nodes are at work for this one; at its end so are their commands.

    Raises:
        BenchError: not all of them are there in time.
    """
    local = place.host.startswith("127.")
    others: dict[int, Connection] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    leader = Leader(place, others)
    try:
        with socket.create_server((place.host if local else "", place.port), backlog=place.nodes) as server:
            while missing := sorted(set(range(1, place.nodes)) - set(others)):
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    peer, (host, _) = server.accept()
                except TimeoutError:
                    raise BenchError(f"of {place.nodes} nodes these did not come: {missing}") from None
                connection = Connection(peer.detach())
                with suppress(OSError, EOFError, ValidationError):  # something else that tries all ports
                    if connection.poll(5) and (ready := leader.hear(connection)).rank in missing:
                        others[ready.rank] = connection
                        leader.addresses[ready.rank] = (host, ready.port)
                        continue
                connection.close()
        yield leader
    finally:
        for connection in others.values():
            connection.close()


class Leader:
    """The other nodes, as the first one's command sees them."""

    def __init__(self, place: Place, others: dict[int, Connection]) -> None:
        self._place, self._others = place, others
        self._at_work: set[int] = set()
        self.addresses: dict[int, tuple[str, int]] = {}

    def supervise(
        self,
        command: Sequence[str],
        plan: Any,
        environment: Mapping[str, str],
        timeout: float,
        take: Callable[[list[Event]], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> End:
        """As `supervisor.supervise`, with a worker on each node where the plan is of several devices."""
        if plan.devices == 1:
            return supervise(command, plan, environment, timeout, take, stopped)

        def watch() -> bool:
            for rank in sorted(self._at_work):
                if (end := self._ended(rank)) is not None and end.finished.status != "ok":
                    raise _NodeFailedError(end)
            return stopped()

        try:
            end = supervise(command, self._begin(plan, command[0]), environment, timeout, take, watch)
            if end.finished.status != "ok" and end.said:  # it may have seen no more than the end of another
                ended = [self._ended(rank, 2.0) for rank in sorted(self._at_work)]
                end = next((other for other in ended if other is not None and not other.said), end)
            return end
        except _NodeFailedError as error:
            return error.end
        finally:
            self._stop()

    def _begin(self, plan: WorkerPlan, interpreter: str) -> WorkerPlan:
        """Have the worker begun on the other nodes; the plan for that on this one."""
        with socket.create_server(("", 0)) as free:
            self.addresses[0] = (self._place.host, free.getsockname()[1])
        addresses = tuple(f"{host}:{port}" for _, (host, port) in sorted(self.addresses.items()))
        for rank in range(1, self._place.nodes):
            sent = plan.model_copy(update={"nodes": Nodes(addresses, rank)})
            try:
                self._others[rank].send_bytes(sent.model_dump_json().encode())
                self._others[rank].send_bytes(interpreter.encode())
                for path in (Path(getattr(plan, name)) for name in FILES):
                    self._others[rank].send_bytes(path.read_bytes() if path.is_file() else b"")
            except (OSError, KeyError):
                raise _NodeFailedError(self._lost(rank)) from None
            self._at_work.add(rank)
        return plan.model_copy(update={"nodes": Nodes(addresses)})

    def _ended(self, rank: int, seconds: float = 0.0) -> End | None:
        """How the worker of a node has ended, if it has, or does within so many seconds."""
        try:
            if not self._others[rank].poll(seconds):
                return None
            ready = self.hear(self._others[rank])
        except (EOFError, OSError, ValidationError):
            return self._lost(rank)
        self._at_work.discard(rank)
        self.addresses[rank] = (self.addresses[rank][0], ready.port)
        finished = ready.finished or Finished(status="failed")
        reason = f"{self._name(rank)}: {finished.reason}"
        return End(finished if finished.status == "ok" else Finished(status=finished.status, reason=reason), ready.said)

    def _stop(self) -> None:
        """Have the workers of the other nodes ended."""
        for rank in sorted(self._at_work):
            with suppress(OSError):
                self._others[rank].send_bytes(STOP)
            if self._ended(rank, 60.0) is None:
                self._lost(rank)

    def _lost(self, rank: int) -> End:
        """Do without a node, or rather without all."""
        self._at_work.discard(rank)
        if rank in self._others:
            self._others.pop(rank).close()
        return End(Finished(status="failed", reason=f"{self._name(rank)}: its command has ended"), said=False)

    def _name(self, rank: int) -> str:
        return f"node {rank} of {self._place.nodes} ({self.addresses[rank][0]})"

    @staticmethod
    def hear(connection: Connection) -> Ready:
        """What a node says next."""
        return Ready.model_validate_json(connection.recv_bytes(2**20))


def follow(place: Place, interpreters: Mapping[str, str], timeout: float) -> None:
    """Carry out what the first node asks for, until its command ends.

    Raises:
        BenchError: it can't be reached, or has ended in the middle of something.
    """
    connection, end = _reach(place), None
    while True:
        with socket.create_server(("", 0)) as free:
            ready = Ready(rank=place.rank, port=free.getsockname()[1])
        if end is not None:
            ready = ready.model_copy(update={"finished": end.finished, "said": end.said})
        try:
            connection.send_bytes(ready.model_dump_json().encode())
            while (message := connection.recv_bytes()) == STOP:  # the worker had ended by itself
                pass
            usual = connection.recv_bytes().decode()  # of the first node, as a run that is resumed has it
            files = {name: connection.recv_bytes() for name in FILES}
        except (EOFError, OSError):
            return
        with tempfile.TemporaryDirectory(prefix="nice-bench-") as folder:
            paths = {name: str(Path(folder, f"{name}.safetensors")) for name in (*FILES, "weights")}
            for name, content in files.items():
                if content:
                    Path(paths[name]).write_bytes(content)
            plan = WorkerPlan.model_validate_json(message).model_copy(update=paths)
            try:
                interpreter = interpreters.get(plan.backend, usual)
                end = _carry_out(plan, Path(folder), connection, interpreter, timeout)
            except EOFError:
                raise BenchError(f"the command of the first node, {place.host}, has ended before its time") from None


def _carry_out(plan: WorkerPlan, folder: Path, connection: Connection, interpreter: str, timeout: float) -> End:
    """Run a worker until it ends or the first node says stop; an EOFError if that is gone."""
    command = worker_command("bench.running.worker", "", interpreter)
    variables = worker_environment(plan.backend, command[0], plan.device)
    variables |= cache_environment(folder / "cache", variables)
    try:
        return supervise(command, plan, variables, timeout, lambda events: None, connection.poll)
    except KeyboardInterrupt:
        if not connection.poll():
            raise
        try:
            connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        return End(Finished(status="failed", reason="stopped by the first node"), said=True)


def _reach(place: Place) -> Connection:
    """A connection to the first node's command."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            reached = socket.create_connection((place.host, place.port), timeout=5)
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchError(f"the first node, {place.host}:{place.port}, can't be reached: {error}") from error
            time.sleep(0.2)
        else:
            reached.settimeout(None)
            return Connection(reached.detach())
