"""The runner of protocols: puts each variant through one, round by round, and keeps records and trained weights.

A run that was cut off goes on where it was. Beside its records lies a folder with what it was asked for and, for each
variant, the latest training state of which all epochs are in the record. A process that goes on from there is one more
of the processes that a run has anyway; it gives bit for bit what one that was never cut off would have given.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from backends import state
from backends.parameters import atomically
from bench import records
from bench.errors import BenchError, explain
from bench.inputs import data
from bench.inputs.protocol import Protocol
from bench.records import Kind, Measurement, Plan, Record, RecordError, environment
from bench.running import variant
from bench.running.messages import Event, Finished, Started, StateLeft, WorkerPlan
from bench.running.variant import Device, Listener, Variant, carry_out, new_run_id, resolve_device, scratch
from bench.running.worker_environment import cache_environment


@dataclass(frozen=True, kw_only=True)
class Request(variant.Request):
    """What to run.

    Attributes:
        protocol: what each variant is put through.
        kind: of its records.
        devices: how many devices train side by side; each number is a variant of its own.
        nodes: how many machines have them.
        weak: whether the batch is the protocol's on each device, rather than on all of them together.
        run: the name of the run in the folder that was cut off and goes on; a new one where it is None.
    """

    protocol: Protocol
    devices: Sequence[int] = (1,)
    nodes: int = 1
    weak: bool = False
    timeout: float = 6 * 3600.0
    kind: Kind = "run"
    run: str | None = None


UNFINISHED = ".unfinished-"
"""What the name of the folder begins with in which a run leaves what it needs to go on; the run's name follows."""

REQUEST = TypeAdapter(Request)


def run(request: Request, listener: Listener) -> list[Record]:
    """Run a protocol.

    Returns:
        One record a variant, as written to the request's folder.

    Raises:
        BenchError: nothing can be run: no images, a folder that can't be written, no GPU where one is asked for; or
            the run that is to go on has not ended yet, or is another machine's.
    """
    run_id = request.run or new_run_id()
    request = replace(request, device=resolve_device(request.device))
    data.load(request.protocol.data.dataset)  # one clear error now, rather than one for each backend
    with _unfinished_folder(request, run_id) if request.kind == "run" else scratch(request.folder) as folder:
        variants = trainings(request, run_id, folder)
        made = carry_out(variants, epochs_by_round(request.protocol), listener)
        for each in variants:
            if each.record.status == "ok" or not each.state.is_file():
                shutil.rmtree(each.scratch, ignore_errors=True)
        ended = not any(path.is_dir() for path in folder.iterdir())
    if ended:  # after the lock is closed: on NFS an open file leaves its folder
        shutil.rmtree(folder, ignore_errors=True)
    return made


def trainings(request: Request, run_id: str, folder: Path) -> list[Training]:
    """A training for each variant that is asked for, on each number of devices; their states lie in `folder`."""
    device, protocol, training = resolve_device(request.device), request.protocol, request.protocol.training
    shared = {"kind": request.kind, "target_loss": training.target_loss, "caption": protocol.caption}
    shared |= {"epochs": training.epochs, "rounds": training.rounds}
    return [
        Training(request, label + (f"-x{count}" if count > 1 else ""), plan, run_id, folder)
        for label, (backend, mode) in request.variants().items()
        for count in request.devices
        for place in [{"devices": count, "nodes": request.nodes if count > 1 else 1}]
        for plan in [plan_of(request, protocol_of(request, count), device, backend, mode, **place, **shared)]
    ]


def unfinished(folder: Path) -> Request:
    """What the latest run in a folder that was cut off, or that failed, was asked for.

    Raises:
        BenchError: there is none, or what it was asked for can't be read.
    """
    paths = sorted(folder.glob(f"{UNFINISHED}*/request.json"))
    if not paths:
        raise BenchError(f"{folder}: no run was cut off here, so there is none to resume")
    try:
        request = REQUEST.validate_json(paths[-1].read_bytes())
    except ValidationError as error:
        raise BenchError(f"{paths[-1]}: {explain(error)}") from error
    return replace(request, folder=folder, run=paths[-1].parent.name.removeprefix(UNFINISHED))


@contextmanager
def _unfinished_folder(request: Request, run_id: str) -> Iterator[Path]:
    """The folder with what a run needs to go on; within it no other process goes on with the run."""
    folder = request.folder / f"{UNFINISHED}{run_id}"
    with scratch(request.folder):  # which says so where nothing can be written
        folder.mkdir(exist_ok=True)
    path = folder / "request.json"
    if not path.exists():
        with atomically(path) as temporary:
            temporary.write_bytes(
                REQUEST.dump_json(request, exclude={"folder", "command", "stopped", "supervise", "run"})
            )
    with path.open("r+", encoding="utf-8") as lock:  # NFS locks only what is open for writing
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"{request.folder}: its run {run_id} is still going on") from None
        except OSError as error:
            raise BenchError(f"{path}: can't be locked ({error.strerror}); choose another --output") from error
        yield folder


def epochs_by_round(protocol: Protocol) -> list[int]:
    """The protocol's epochs, or their parts, spread over its rounds as evenly as can be."""
    epochs, rounds = protocol.training.epochs * protocol.training.parts, protocol.training.rounds
    return [epochs // rounds + (i < epochs % rounds) for i in range(rounds)]


def protocol_of(request: Request, devices: int) -> Protocol:
    """The protocol on so many devices: with their number times the batch where scaling is weak."""
    training = request.protocol.training
    batch = training.batch * (devices if request.weak else 1)
    return request.protocol.model_copy(update={"training": training.model_copy(update={"batch": batch})})


def plan_of(
    request: variant.Request, protocol: Protocol, device: Device, backend: str, mode: str | None, **more: Any
) -> Plan:
    """What a variant's record says of what was to be done; `more` are the fields of `Plan` that commands differ in."""
    return Plan(
        protocol=protocol.name,
        protocol_digest=protocol.digest(),
        backend=backend,
        device=device,
        precision=request.precision,
        mode=mode,
        seed=request.seed,
        batch=protocol.training.batch,
        architecture=protocol.make_architecture().to_dict(),
        optimiser=protocol.make_optimiser().to_dict(),
        loss=protocol.training.loss,
        **more,
    )


class Training(Variant[WorkerPlan]):
    """A variant's way through a protocol; its state lies in `scratch`, as does what it compiled.

    Attributes:
        done: epochs made before the run was cut off and went on here; 0 where it begins.
    """

    worker = "bench.running.worker"

    def __init__(self, request: Request, label: str, plan: Plan, run_id: str, folder: Path) -> None:
        super().__init__(request, label, plan, run_id)
        self.protocol, self.scratch, self.done = protocol_of(request, plan.devices), folder / label, 0
        self.state = self.scratch / "state.safetensors"
        self.ends = [0, *accumulate(epochs_by_round(self.protocol))]  # epochs after so many rounds
        if request.run is not None:
            self._go_on()
        self.scratch.mkdir(exist_ok=True)

    def _go_on(self) -> None:
        """Take the record up as it was when the latest state was left; without a state all is made anew."""
        found, plan, folder = [], self.record.plan, self.request.folder
        for path in folder.glob("*.json"):
            with suppress(RecordError):
                record = records.load(path)
                its = record.plan
                if (record.run, its.backend, its.devices) == (self.record.run, plan.backend, plan.devices):
                    found += [(its.mode or "", path, record)] if plan.mode in (None, its.mode) else []
        if not found:
            return
        *_, record = max(found)
        self._path = min(found)[1]  # the name of before the mode was known, if it was cut off before that was removed
        if record.status == "ok":
            self.going, self.record = False, record
        elif self.state.is_file() and self.protocol.training.parts == 1:  # else a minute's work is made anew
            steps = self.protocol.data.train // self.protocol.training.batch
            self.done = state.load(self.state)[1].step // steps
            self._take_up(record)
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)  # what it compiled would make the first call a warm one

    def _take_up(self, record: Record) -> None:
        """Go on with a record: without what was measured after the state, which is measured again."""
        here, there = (
            environment.machine(self.device, found)
            for found in (environment.fingerprint() | {"variables": super().variables()}, record.environment)
        )
        if here != there:
            raise BenchError(f"{self.request.folder}: its run was measured on {there}; this is {here}")
        curve = [point for point in record.curve if point.epoch <= self.done]
        if len(curve) != self.done:
            raise BenchError(f"{self.state}: is of epoch {self.done}; the record has {len(curve)} of its epochs")
        self.first_round = next(round_ for round_, end in enumerate(self.ends) if end > self.done)
        inside, kept = self.done > self.ends[self.first_round - 1], []
        for m in record.measurements:
            if m.context.get("round") == self.first_round and (not inside or m.quantity == "seconds_per_epoch"):
                break  # it and what follows belong to epochs that are yet to be made
            kept.append(m)
        kept.append(Measurement.of("startup", "resumed_after_epochs", self.done, "epochs", round=self.first_round))
        self.record = record.model_copy(update={"curve": curve, "measurements": kept})

    def worker_plan(self, round_: int) -> WorkerPlan:
        """The epochs of a round that are yet to be made, from the state that was left."""
        plan, begin = self.record.plan, self.ends[round_ - 1]
        test_losses = [point.test_loss for point in self.record.curve if point.test_loss is not None]
        return WorkerPlan(
            protocol=self.protocol,
            backend=plan.backend,
            device=self.device,
            precision=plan.precision,
            mode=plan.mode,
            devices=plan.devices,
            seed=plan.seed,
            round=round_,
            rounds=self.protocol.training.rounds,
            epochs=self.ends[round_] - max(begin, self.done),
            state=str(self.state),
            best=self._file("best"),
            best_loss=min(test_losses, default=None),
            weights=self._file("weights"),
            resumed=self.done > begin,
        )

    def _share_of_others(self, round_: int) -> None:
        """Put the share that others used in a round that was cut off, if it is larger, in place of the last epochs'.

        Of the round's seconds an epoch's are of the epochs since, those to a target of all.
        """
        known = [(p.others, p.seconds) for p in self.record.curve if p.round == round_ and p.others is not None]
        measured = [m for m in self.record.measurements if m.quantity == "others_share"]
        since = [m for m in measured if m.context.get("round") == round_]
        if known:
            share = sum(others * seconds for others, seconds in known) / sum(seconds for _, seconds in known)
            share = max([share, *(m.value for m in since if m.value is not None)])
            self._change(measurements=[m for m in self.record.measurements if m not in since])
            self.add(Measurement.of("training", "others_share", share, "1", round=round_, n=len(known)))

    def _file(self, name: str) -> str:
        return str(self.scratch / f"{name}.safetensors")

    def _take(self, event: Event) -> None:
        """Keep, where the run goes on under other software, what it began with."""
        before = self.record.environment if self.done and isinstance(event, Started) else {}
        super()._take(event)
        now = self.record.environment
        software = [key for key in ("packages", "framework", "git") if before.get(key, now.get(key)) != now.get(key)]
        if begun := before.get(environment.BEGUN_WITH, {key: before[key] for key in software}):
            self._change(environment=now | {environment.BEGUN_WITH: begun})

    def on_disk(self, event: Event) -> None:
        """A state counts from here on."""
        if isinstance(event, StateLeft):
            Path(event.path).replace(self.state)

    def variables(self) -> dict[str, str]:
        """Those of every worker, and a cache of its own for what is compiled."""
        variables = super().variables()
        return variables | cache_environment(self.scratch / "cache", variables)

    def conclude(self) -> Finished:
        """What follows from the whole curve; and the weights are put beside the record."""
        for m in [m for m in self.record.measurements if m.quantity == "resumed_after_epochs"]:
            round_ = int(m.context["round"])
            if (m.value or 0) > self.ends[round_ - 1]:  # inside of it
                self._share_of_others(round_)
        training, curve, measurements = self.protocol.training, self.record.curve, self.record.measurements
        if curve and curve[-1].train_loss is not None:
            self.add(Measurement.of("training", "final_train_loss", curve[-1].train_loss, "nats"))
        if training.target_loss is not None:
            losses = [p.train_loss if training.target_of == "training" else p.test_loss for p in curve]
            there = [i for i, loss in enumerate(losses) if loss is not None and loss <= training.target_loss]
            seconds = sum(point.seconds for point in curve[: there[0] + 1]) if there else None
            self.add(Measurement.of("training", "epochs_to_target", curve[there[0]].epoch if there else None, "epochs"))
            self.add(Measurement.of("training", "seconds_to_target", seconds, "s"))
        for round_ in range(1, training.rounds + 1):
            of_round = {m.quantity: m.value for m in reversed(measurements) if m.context.get("round") == round_}
            floor, seconds = of_round.get("train_epoch_seconds"), of_round.get("seconds_per_epoch")
            if floor and seconds:
                self.add(Measurement.of("floor", "training_ratio", seconds / floor, "1", round=round_))
        weights = Path(self._file("weights"))
        if weights.is_file():
            weights.replace(self.save().with_suffix(".safetensors"))
        return Finished(status="ok")
