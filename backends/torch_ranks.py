"""Data-parallel training in PyTorch: `DistributedDataParallel`, a process a device.

Every rank runs the same training loop on its own slice of each batch; gradients are averaged while they are made, and
the losses at an epoch's end. The first rank starts the others and ends them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

PR_SET_PDEATHSIG = 1
MOST_CPU_RANKS = 64  # each is a process


@contextmanager
def other_ranks(ranks: int, gpu: bool, work: Callable[..., None], arguments: tuple[Any, ...]) -> Iterator[None]:
    """Within it the other ranks work, each in a process; this process is the first rank.

    Args:
        ranks: how many there are, this one included.
        gpu: whether they compute on GPUs, each on that of its number.
        work: called in each other process with its rank and the arguments.
        arguments: what it gets, by pickle.

    Raises:
        RuntimeError: a rank has failed.
    """
    if distributed.is_initialized():
        raise RuntimeError("another training on several devices is under way in this process")
    threads = torch.get_num_threads()
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_other, args=(rank, ranks, port, gpu, threads, work, arguments), daemon=True)
        for rank in range(1, ranks)
    ]
    for process in others:
        process.start()
    try:
        _join(0, ranks, port, gpu, threads)
        yield
    except RuntimeError as error:
        failed = [(rank, process) for rank, process in enumerate(others, 1) if _ended(process)]
        if failed:
            rank, process = failed[0]
            raise RuntimeError(f"rank {rank} of {ranks} ended with exit code {process.exitcode}") from error
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(threads)
        for process in others:
            process.kill()
            process.join()


def _ended(process: Any) -> bool:
    process.join(timeout=1)  # what this rank has seen is a closed connection, which comes before the end
    return process.exitcode not in (None, 0)


def _other(
    rank: int, ranks: int, port: int, gpu: bool, threads: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Be a rank other than the first: the program of its process."""
    if sys.platform == "linux":  # should the first rank be killed, this one is killed, too, whatever it waits for
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _join(rank, ranks, port, gpu, threads)
    work(rank, *arguments)


def _join(rank: int, ranks: int, port: int, gpu: bool, threads: int) -> None:
    """Enter the group; on a CPU the ranks share its cores."""
    if gpu:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, threads // ranks))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the ranks are on this machine
    distributed.init_process_group(
        "nccl" if gpu else "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks
    )


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
