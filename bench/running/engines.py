"""What carries a campaign out: this machine, one step after the other, or SLURM, a job for each step.

What has been done lies in the campaign's folder, so that the next call goes on where this one ended, however that came.
SLURM is asked by `sbatch` and `squeue` alone, and needs no accounting. A job is known by its name, which is that of its
attempt's folder and the campaign's key: even one that was submitted by a process which was killed before it could note
its number is found again, and none is submitted twice.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from bench.errors import BenchError
from bench.running import job
from bench.running.campaign import Campaign, Resources, Step
from bench.running.campaign_state import ATTEMPTS, Outcome, State, can_go_on, locked
from bench.running.worker_environment import cache_environment, worker_environment

PROGRAM = (sys.executable, "-m", "bench")
PATIENCE_SECONDS = 60.0
"""For another call to submit its jobs."""

ENDED = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT"
"""The states of a job that has ended, as `squeue` writes them."""


class Row(NamedTuple):
    """How it stands with a step, in words."""

    step: str
    status: str
    job: str = ""
    left: str = ""
    reason: str = ""


def local(
    campaign: Campaign,
    output: Path,
    say: Callable[[str], None],
    budget: float = 1e9,
    retries: int | None = None,
    interpreters: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
) -> list[Row]:
    """Do what has not been done yet on this machine, for as long as the budget lasts.

    Args:
        campaign: what to do.
        output: folder for everything.
        say: is given a sentence when a step begins and when it has ended.
        budget: seconds; a command that is still at work then is interrupted.
        retries: how often a step that failed or was cut off is begun again, in all calls; None is once in each call.
        interpreters: BACKEND=INTERPRETER, for each command that runs the backend.
        program: what the commands are arguments of.

    Raises:
        BenchError: the folder can't be used, or another campaign works in it.
        KeyboardInterrupt: this process was interrupted; so was the command, and that is noted.
    """
    begun: set[str] = set()
    deadline = time.monotonic() + budget
    with locked(output) as (state, lock):
        if any(outcome.status == "submitted" for outcome in state.steps.values()):
            raise BenchError(f"{output}: some steps are SLURM jobs that may not have ended; --engine slurm looks")
        while (steps := state.to_do(campaign, retries, begun)) and time.monotonic() < deadline:
            step = steps[0]
            begun.add(step.name)
            command = _command(step, campaign, state.begin(step, output, "cut off"), interpreters, program)
            say(f"{step.name}: {shlex.join(command)}")
            ending = job.carry_out(command, max(0.0, deadline - time.monotonic()), [lock])
            outcome = state.end(step.name, ending, output)
            say(f"{step.name}: {outcome.status} after {outcome.seconds:.0f} s")
            if ending.stopped == "signal":
                raise KeyboardInterrupt
        return _rows(campaign, state, {})


class Job(NamedTuple):
    """What `squeue` says of a job."""

    number: str
    state: str
    left: str
    why: str

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in ENDED.split()


class Slurm:
    """A campaign as SLURM jobs; `advance` can be called again and again, by any process."""

    def __init__(
        self,
        campaign: Campaign,
        output: Path,
        retries: int | None = None,
        resources: Resources | None = None,
        interpreters: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """As `local`; `resources` go before those in the campaign's file. The folder must be shared with the nodes."""
        self.campaign, self.output, self.retries = campaign, output.resolve(), retries
        self.resources, self.interpreters, self.program = resources or Resources(), interpreters, program
        self._begun: set[str] = set()

    def advance(self) -> list[Row]:
        """Collect what has ended, submit what is missing or failed, and say how it stands with each step.

        Raises:
            BenchError: SLURM can't be asked. (A job that it refuses is a row with the reason, and ends the submitting.)
        """
        with locked(self.output, PATIENCE_SECONDS) as (state, lock):
            self._collect(state, _queue(state.key))
            for step in state.to_do(self.campaign, self.retries, self._begun):
                if not self._submit(step, state, lock):
                    break
                self._begun.add(step.name)
            return _rows(self.campaign, state, _queue(state.key))

    def _collect(self, state: State, jobs: dict[str, Job]) -> None:
        """Note what has ended. The queue was read first: a job that ends meanwhile is seen at the next call."""
        for name, outcome in state.steps.items():
            if outcome.status != "submitted":
                continue
            attempt, found = self.output / ATTEMPTS / outcome.attempt, jobs.get(outcome.attempt)
            ending, log = _ending(attempt), job.beside(attempt, ".log")
            if ending is not None:
                reason = ending.exit_code and (_reason(log, found) or f"exit code {ending.exit_code}, see {log}")
                state.end(name, ending, self.output, reason or "")
            elif found is None and not (log.exists() or job.beside(attempt, ".job").exists()):
                outcome.status, outcome.attempts, outcome.reason = "cut off", outcome.attempts - 1, "it was not begun"
                with suppress(OSError):
                    attempt.rmdir()
            elif found is None or (found.over and found.state != "COMPLETED"):
                # (COMPLETED: it wrote how it ended, and the file system has not shown that to this machine yet.)
                unknown = f"it could not say how it ended: it was killed or its node was lost, see {log}"
                outcome.status, outcome.reason = "cut off", _reason(log, found) or unknown
        state.save(self.output)

    def _submit(self, step: Step, state: State, lock: int) -> bool:
        """Hand a step to SLURM; noted before, so that a process that comes after a killed one looks for the job."""
        attempt = state.begin(step, self.output, "submitted")
        command = _command(step, self.campaign, attempt, self.interpreters, self.program, elsewhere=True)
        log = str(job.beside(attempt, ".log")).replace("%", "%%")
        options = self.resources.over(step.slurm).over(self.campaign.slurm).options()
        options += ["--no-requeue", f"--job-name={attempt.name}.{state.key}", f"--output={log}"]
        script = "exec " + shlex.join([sys.executable, "-m", job.__name__, str(attempt), *command])
        try:
            _ask("sbatch", *options, "--wrap", script, keep_open=[lock])
        except BenchError as error:  # it may have been taken nevertheless: the queue tells
            state.steps[step.name].reason = str(error)
            state.save(self.output)
            return False
        return True


def _command(
    step: Step,
    campaign: Campaign,
    attempt: Path,
    interpreters: Sequence[str],
    program: Sequence[str],
    *,
    elsewhere: bool = False,
) -> list[str]:
    """The command line of an attempt at a step, which goes on with a run that was cut off and lies in its folder.

    `agree` starts no process for a backend: it is run by that backend's interpreter, with a worker's variables. What it
    compiles is kept for the next attempt: most of its time on a GPU goes there.
    """
    command = [*step.command, "--device", campaign.device, "--output", str(attempt)]
    if can_go_on(attempt):
        command += ["--resume", str(attempt)]
    if step.command[0] != "agree":
        return [*program, *command, *(part for given in interpreters for part in ("--python", given))]
    backend = " ".join([*step.command, ""]).partition("--backends")[2][1:].partition(" ")[0]
    python = dict(given.split("=", 1) for given in interpreters).get(backend)
    if python is None:
        return [*program, *command]
    variables = worker_environment(backend, python, campaign.device)
    variables |= cache_environment(attempt.with_name(".compiled").absolute() / backend, variables)
    if elsewhere:
        del variables["OMP_NUM_THREADS"]  # of this machine's cores
    changed = sorted(f"{name}={value}" for name, value in variables.items() - os.environ.items())
    return ["env", *changed, python, *program[1:], *command]


def _ending(attempt: Path) -> job.Ending | None:
    """How a job says that it ended, if it could."""
    try:
        return job.Ending.model_validate_json(job.beside(attempt, ".ended").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def _reason(log: Path, found: Job | None) -> str:
    """Why SLURM ended a job, by the word in its memory or in the job's log; empty if it did not."""
    if found is not None and found.over and found.state not in ("COMPLETED", "FAILED"):
        return f"SLURM: {found.state}"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return (["", *re.findall(r"error: \*\*\* (JOB .*?) \*\*\*", text)])[-1]


def _queue(key: str) -> dict[str, Job]:
    """The jobs of a campaign that SLURM remembers, by attempt: also, for some minutes, those that have ended."""
    found: dict[str, Job] = {}
    user = f"--user={os.getuid()}"
    for line in _ask("squeue", "--all", "--noheader", user, "--states=all", "--format=%i|%T|%L|%r|%j").splitlines():
        *values, name = line.split("|", 4)
        attempt, _, its_key = name.rpartition(".")
        if its_key == key and (attempt not in found or found[attempt].over):
            found[attempt] = Job(*values)
    return found


def _ask(*command: str, keep_open: Sequence[int] = ()) -> str:
    """What one of SLURM's commands prints.

    Raises:
        BenchError: it isn't there, or fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, pass_fds=keep_open, check=False)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not here: --engine slurm needs SLURM's sbatch and squeue") from error
    if done.returncode:
        raise BenchError(f"{command[0]} failed with exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _rows(campaign: Campaign, state: State, jobs: dict[str, Job]) -> list[Row]:
    """How it stands with each step."""
    rows = []
    for step in campaign.step:
        outcome = state.of(step) or Outcome(status="cut off", command=step.command, attempts=0)
        found = jobs.get(outcome.attempt)
        status = "not begun" if not outcome.attempts else outcome.status
        if status == "submitted" and found is not None:
            why = found.why if found.why != "None" else ""
            rows.append(Row(step.name, found.state.lower(), found.number, found.left, why))
        else:
            rows.append(Row(step.name, status, reason=outcome.reason))
    return rows
