"""Data-parallel training in PyTorch: `DistributedDataParallel`, a process a device.

Every rank runs the same training loop on its own slice of each batch; gradients are averaged while they are made, and
the losses at an epoch's end. The first rank of a node starts its others and ends them.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed import PrefixStore, TCPStore
from torch.nn.parallel import DistributedDataParallel

from backends.values import Nodes

PR_SET_PDEATHSIG = 1
MOST_CPU_RANKS = 64  # each is a process

GROUPS: list[Any] = []
"""The groups of this process' trainings, kept to its end: the last holder of one ends its threads, and if that is the
reducer of a `DistributedDataParallel`, it holds Python's lock, for which such a thread may wait to the end of time."""


@contextmanager
def other_ranks(
    nodes: Nodes, local: int, gpu: bool, work: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[None]:
    """Within it the other ranks of this node work, each in a process; this process is the node's first rank.

    They are ended when it is left: at once where it is left early, at its end when no node needs them any more.

    Args:
        nodes: the machines, whose ranks meet at the first one's address; a single machine needs none.
        local: how many ranks each node has, this one included.
        gpu: whether they compute on GPUs, each on that of its number on its node.
        work: called in each other process with its rank and the arguments.
        arguments: what it gets, by pickle.

    Raises:
        RuntimeError: a rank has failed.
    """
    if distributed.is_initialized():
        raise RuntimeError("another training on several devices is under way in this process")
    threads = torch.get_num_threads()
    first, ranks = nodes.rank * local, len(nodes.addresses) * local
    # Nodes meet in one store for all of their trainings: one that is early must not find that of the training before.
    address = nodes.addresses[0] if nodes.several else f"127.0.0.1:{_free_port()}"
    store = (_store_of_nodes if nodes.several else _store)(address, first == 0)
    training = store.add(f"trainings of node {nodes.rank}", 1)
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(
            target=_other, args=(address, work, arguments, rank, ranks, local, training, gpu, threads), daemon=True
        )
        for rank in range(first + 1, first + local)
    ]
    for process in others:
        process.start()
    try:
        _join(store, first, ranks, local, training, gpu, threads)
        yield
        if nodes.several:  # a node that ends resets connections which another may still read the last sum from
            ends = [f"end of training {training} on node {rank}" for rank in range(len(nodes.addresses))]
            store.set(ends[nodes.rank], "")
            store.wait(ends)
    except RuntimeError as error:
        failed = [(rank, process) for rank, process in enumerate(others, first + 1) if _ended(process)]
        if failed:
            rank, process = failed[0]
            raise RuntimeError(f"rank {rank} of {ranks} ended with exit code {process.exitcode}") from error
        raise
    finally:
        if distributed.is_initialized():
            GROUPS.append(distributed.group.WORLD)
            distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for process in others:
            process.kill()
            process.join()


def _store(address: str, is_master: bool) -> TCPStore:
    """Where ranks meet, on the first one or as another one sees it."""
    host, _, port = address.rpartition(":")
    if host.startswith("127."):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
    return TCPStore(host, int(port), is_master=is_master, wait_for_workers=False)


_store_of_nodes = cache(_store)


def _ended(process: Any) -> bool:
    process.join(timeout=1)  # what this rank has seen is a closed connection, which comes before the end
    return process.exitcode not in (None, 0)


def _other(address: str, work: Callable[..., None], arguments: tuple[Any, ...], rank: int, *group: Any) -> None:
    """Be a rank other than the first: the program of its process."""
    if sys.platform == "linux":  # should the first rank be killed, this one is killed, too, whatever it waits for
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _join(_store(address, False), rank, *group)
    work(rank, *arguments)
    signal.pause()  # until it is killed: others may still read from its connections


def _join(store: TCPStore, rank: int, ranks: int, local: int, training: int, gpu: bool, threads: int) -> None:
    """Enter the group; on a CPU the ranks of a node share its cores."""
    if gpu:
        torch.cuda.set_device(rank % local)
    else:
        torch.set_num_threads(max(1, threads // local))
    apart = PrefixStore(str(training), store)
    distributed.init_process_group("nccl" if gpu else "gloo", store=apart, rank=rank, world_size=ranks)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def parallel(module: nn.Module, gpu: bool) -> nn.Module:
    """The module with its parameters as the first rank has them and its gradients averaged over the ranks."""
    devices = [torch.cuda.current_device()] if gpu else None
    return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True, static_graph=True)


def share(batch: int, rank: int, ranks: int) -> slice:
    """The rows of a batch that are a rank's."""
    size = batch // ranks
    return slice(rank * size, (rank + 1) * size)


def mean_over_ranks(losses: list[Tensor]) -> Tensor:
    """The loss of each step, [steps]: the mean of what the ranks have of it."""
    values = torch.stack(losses)
    distributed.all_reduce(values)
    return values / distributed.get_world_size()
