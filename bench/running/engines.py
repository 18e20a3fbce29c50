"""What carries a campaign out: this machine, one step after the other.

What has been done lies in the campaign's folder, so that the next call goes on where this one ended, however that came.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.running import job
from bench.running.campaign import Campaign, Step
from bench.running.campaign_state import State, locked

PROGRAM = (sys.executable, "-m", "bench")


class Row(NamedTuple):
    """How it stands with a step, in words."""

    step: str
    status: str
    reason: str = ""


def local(
    campaign: Campaign,
    output: Path,
    tell: Callable[[str], None],
    budget: float = 1e9,
    retries: int | None = None,
    interpreters: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
) -> list[Row]:
    """Do what has not been done yet on this machine, for as long as the budget lasts.

    Args:
        campaign: what to do.
        output: folder for everything.
        tell: is given a sentence when a step begins and when it has ended.
        budget: seconds; a command that is still at work then is interrupted.
        retries: how often a step that failed or was cut off is begun again, in all calls; None is once in each call.
        interpreters: BACKEND=INTERPRETER, for commands that take them.
        program: what the commands are arguments of.

    Raises:
        BenchError: the folder can't be used, or another campaign works in it.
        KeyboardInterrupt: this process was interrupted; so was the command, and that is noted.
    """
    begun: set[str] = set()
    deadline = time.monotonic() + budget
    with locked(output) as (state, lock):
        while (steps := state.to_do(campaign, retries, begun)) and time.monotonic() < deadline:
            step = steps[0]
            begun.add(step.name)
            command = _command(step, campaign, state.begin(step, output), interpreters)
            tell(f"{step.name}: {shlex.join(command)}")
            ending = job.carry_out([*program, *command], max(0.0, deadline - time.monotonic()), [lock])
            outcome = state.end(step.name, ending, output)
            tell(f"{step.name}: {outcome.status} after {outcome.seconds:.0f} s")
            if ending.stopped == "signal":
                raise KeyboardInterrupt
        return _rows(campaign, state)


def _command(step: Step, campaign: Campaign, attempt: Path, interpreters: Sequence[str]) -> list[str]:
    """The arguments of `nice-bench` for an attempt at a step."""
    chosen = [part for given in interpreters for part in ("--python", given)] if step.command[0] != "agree" else []
    return [*step.command, *chosen, "--device", campaign.device, "--output", str(attempt)]


def _rows(campaign: Campaign, state: State) -> list[Row]:
    """How it stands with each step."""
    found = [(step, state.of(step)) for step in campaign.step]
    return [Row(step.name, end.status if end else "not begun", end.reason if end else "") for step, end in found]
