"""What has been done of a campaign: a file in its folder, which one process at a time may change.

The attempts at a step are folders below `runs`, which tables and reports leave out. Once an attempt has ended, its
records, not the weights and traces, are copied to where they are kept. A step that was cut off and is begun again thus
leaves no failed record beside the good one, and what it had measured until then can still be found: in its own folder
or, where the command is `run`, which goes on with it, in that of the next attempt.
"""

import fcntl
import os
import platform
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from bench import records
from bench.errors import BenchError, writing
from bench.records import RecordError, numbered, slug
from bench.running.campaign import Campaign, Step
from bench.running.job import INTERRUPTED, Ending, beside
from bench.running.runner import UNFINISHED

STATE = "campaign.state"
LOCK = "campaign.lock"
ATTEMPTS = "runs"
WEIGHTS, PAGE = ".safetensors", ".html"
KILLED = (137, 143)  # exit codes of a shell or a container for SIGKILL and SIGTERM


class Outcome(BaseModel):
    """How it stands with a step.

    Attributes:
        status: "submitted" is a SLURM job that has not been seen to end.
        attempt: name of the folder of the latest attempt.
        attempts: how many there have been of this command.
        folder: where its records are kept.
        kept: the files that came of it, below the campaign's folder.
    """

    status: Literal["done", "failed", "cut off", "submitted"]
    command: tuple[str, ...]
    exit_code: int | None = None
    seconds: float = 0.0
    attempt: str = ""
    attempts: int = 1
    folder: str = ""
    reason: str = ""
    kept: tuple[str, ...] = ()


class State(BaseModel):
    """What has been done, by the names of the steps.

    Attributes:
        key: tells this campaign's jobs from others'.
    """

    steps: dict[str, Outcome] = {}
    key: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])

    def of(self, step: Step) -> Outcome | None:
        """How it stands with a step; None if nothing is known of this very command."""
        outcome = self.steps.get(step.name)
        return outcome if outcome and (outcome.command == step.command or outcome.status == "submitted") else None

    def to_do(self, campaign: Campaign, retries: int | None, begun: Collection[str]) -> list[Step]:
        """The steps to begin now: those never begun, then those that failed or were cut off, rarely tried ones first.

        Args:
            campaign: what is to be done.
            retries: how often a step may be begun again in all; None is once in each call.
            begun: names of the steps that this call has begun.
        """
        attempts: list[tuple[int, Step]] = []
        for step in campaign.step:
            outcome = self.of(step)
            if outcome is None or outcome.status in ("failed", "cut off"):
                count = outcome.attempts if outcome else 0
                if count <= retries if retries is not None else step.name not in begun:
                    attempts.append((count, step))
        return [step for _, step in sorted(attempts, key=lambda pair: pair[0])]

    def begin(self, step: Step, output: Path, status: Literal["submitted", "cut off"]) -> Path:
        """Make the folder of a new attempt and note that it has begun; `status` holds until more is known.

        What a run that was cut off has left is moved there, so that the attempt goes on with it.
        """
        before, outcome = self.steps.get(step.name), self.of(step)
        for name in numbered(slug(step.name)):
            folder = output / ATTEMPTS / name
            if any(beside(folder, suffix).exists() for suffix in (".job", ".ended", ".log")):
                continue  # of an attempt whose folder has become that of the next
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
        cut = output / ATTEMPTS / outcome.attempt if outcome and outcome.status == "cut off" else folder
        if can_go_on(cut):
            cut.replace(folder)
        self.steps[step.name] = Outcome(
            status=status,
            command=step.command,
            attempt=folder.name,
            attempts=outcome.attempts + 1 if outcome else 1,
            folder=step.folder,
            kept=before.kept if before else (),
        )
        self.save(output)
        return folder

    def end(self, name: str, ending: Ending, output: Path, reason: str = "") -> Outcome:
        """Note how the latest attempt at a step has ended, and keep its records unless it was cut off."""
        code, outcome = ending.exit_code, self.steps[name]
        attempt, killed = output / ATTEMPTS / outcome.attempt, code < 0 or code in KILLED
        if (killed or code == INTERRUPTED) and _is_whole(attempt, outcome.command):
            code = 0  # it ended while it wrote its tables
        elif killed and can_go_on(attempt):
            code = INTERRUPTED
            reason = reason or f"killed (exit code {ending.exit_code})"
        if code != INTERRUPTED:
            made, before = _free_names(attempt, output, outcome), outcome.kept
            outcome.kept = tuple(dict.fromkeys([*before, *made]))
            self.save(output)  # first: the copies of a process that is killed now are known to be this step's
            for target, path in made.items():
                copy = (output / target).with_name(f".{path.name}.new")  # which no one takes for a record
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
                copy.replace(output / target)
            if made:
                for left in set(before) - set(made):  # under another name, as before its mode was known
                    (output / left).unlink(missing_ok=True)
                outcome.kept = tuple(made)
        outcome.status = "cut off" if code == INTERRUPTED else "failed" if code else "done"
        outcome.exit_code, outcome.seconds = code, ending.seconds
        outcome.reason = reason or (f"exit code {code}" if code else "")
        self.save(output)
        return outcome

    def save(self, output: Path) -> None:
        """Write the state; it appears whole or not at all."""
        with writing(output / STATE) as temporary:
            temporary.write_text(self.model_dump_json(indent=1), encoding="utf-8")


@contextmanager
def locked(output: Path, patience: float = 0.0) -> Iterator[tuple[State, int]]:
    """The state of the campaign in a folder, and the descriptor of the lock that keeps others away from it.

    The kernel releases the lock when the process and the children that inherited the descriptor have ended, however
    that came. On NFS this needs version 4, or version 3 with its lock service; on Lustre the mount option `flock`.

    Args:
        output: the folder; it is made if need be.
        patience: seconds to wait for whoever has the lock.

    Raises:
        BenchError: another campaign has the lock, the folder can't be written or locked, or holds something else.
    """
    deadline = time.monotonic() + patience
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / LOCK).open("a+", encoding="utf-8") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        lock.seek(0)
                        owner = f"{lock.read().strip() or 'its process is unknown'}, or a step that it began"
                        advice = "wait until it has ended, or choose another --output"
                        raise BenchError(f"{output}: a campaign is at work here ({owner}); {advice}") from None
                    time.sleep(0.1)
            lock.truncate(0)
            print(f"process {os.getpid()} on {platform.node()}", file=lock, flush=True)
            yield _read(output), lock.fileno()
    except OSError as error:
        raise BenchError(f"{error.filename or output}: can't be used ({error.strerror})") from error


def _read(output: Path) -> State:
    """The state in a folder."""
    path = output / STATE
    try:
        return State.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else State()
    except ValidationError as error:
        raise BenchError(f"{path}: not the state of a campaign; choose another --output") from error


def can_go_on(attempt: Path) -> bool:
    """Whether an attempt has left a run that was cut off after it was written down what it is of."""
    return any(attempt.glob(f"{UNFINISHED}*/request.json"))


def _is_whole(attempt: Path, command: Sequence[str]) -> bool:
    """Whether an attempt at a run has left the records of all that was asked for, and they are good.

    A framework that isn't installed is no failure where none was named, as in the run's own exit code.
    """
    if command[0] != "run" or any(attempt.glob(f"{UNFINISHED}*")):
        return False
    named = any(part.partition("=")[0] == "--backends" for part in command)
    with suppress(RecordError):
        found = {records.load(path).status for path in attempt.glob("*.json")}
        return "ok" in found and found <= ({"ok"} if named else {"ok", "unavailable"})
    return False


def _free_names(attempt: Path, output: Path, outcome: Outcome) -> dict[str, Path]:
    """The files of an attempt, but for weights, pages and those in subfolders, by the names in `output` to copy to.

    They replace what earlier attempts at the same step left. What is there of another step or run stays: where one
    name is taken, all of them get -2, -3, …, so that a picture and its caption stay together.
    """
    made = [path for path in sorted(attempt.iterdir()) if path.is_file() and path.suffix not in (WEIGHTS, PAGE)]
    tried = ({f"{outcome.folder}/{path.stem}{added}{path.suffix}": path for path in made} for added in numbered(""))
    return next(names for names in tried if all(name in outcome.kept or not (output / name).exists() for name in names))
