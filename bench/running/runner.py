"""The runner of protocols: puts each variant through one, round by round, and keeps records and trained weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.inputs import data
from bench.inputs.protocol import Protocol
from bench.records import Kind, Measurement, Plan, Record
from bench.running import variant
from bench.running.messages import Finished, WorkerPlan
from bench.running.variant import Device, Listener, Variant, carry_out, new_run_id, resolve_device, scratch
from bench.running.worker_environment import cache_environment


@dataclass(frozen=True, kw_only=True)
class Request(variant.Request):
    """What to run.

    Attributes:
        protocol: what each variant is put through.
        kind: of its records.
        devices: how many devices train side by side; each number is a variant of its own.
        weak: whether the batch is the protocol's on each device, rather than on all of them together.
    """

    protocol: Protocol
    devices: Sequence[int] = (1,)
    weak: bool = False
    timeout: float = 6 * 3600.0
    kind: Kind = "run"


def run(request: Request, listener: Listener) -> list[Record]:
    """Run a protocol.

    Returns:
        One record a variant, as written to the request's folder.

    Raises:
        BenchError: nothing can be run: no images, a folder that can't be written, no GPU where one is asked for.
    """
    device, protocol, training = resolve_device(request.device), request.protocol, request.protocol.training
    data.load(protocol.data.dataset)  # one clear error now, rather than one for each backend
    shared = {"kind": request.kind, "target_loss": training.target_loss, "caption": protocol.caption}
    shared |= {"epochs": training.epochs, "rounds": training.rounds}
    run_id = new_run_id()
    with scratch(request.folder) as folder:
        variants = [
            Training(request, label + (f"-x{count}" if count > 1 else ""), plan, run_id, folder)
            for label, (backend, mode) in request.variants().items()
            for count in request.devices
            for plan in [plan_of(request, protocol_of(request, count), device, backend, mode, devices=count, **shared)]
        ]
        return carry_out(variants, epochs_by_round(protocol), listener)


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
    """A variant's way through a protocol; its state lies in `scratch` between rounds, as does what it compiled."""

    worker = "bench.running.worker"

    def __init__(self, request: Request, label: str, plan: Plan, run_id: str, scratch: Path) -> None:
        super().__init__(request, label, plan, run_id)
        self.protocol, self.scratch = protocol_of(request, plan.devices), scratch

    def worker_plan(self, round_: int) -> WorkerPlan:
        """The epochs of a round, from the state that the round before has left."""
        plan, epochs = self.record.plan, epochs_by_round(self.protocol)
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
            rounds=len(epochs),
            epochs=epochs[round_ - 1],
            state=self._file("state"),
            best=self._file("best"),
            best_loss=min(test_losses, default=None),
            weights=self._file("weights"),
        )

    def _file(self, name: str) -> str:
        return str(self.scratch / f"{self.label}-{name}.safetensors")

    def variables(self) -> dict[str, str]:
        """Those of every worker, and a cache of its own for what is compiled."""
        variables = super().variables()
        return variables | cache_environment(self.scratch / f"{self.label}-cache", variables)

    def conclude(self) -> Finished:
        """What follows from the whole curve; and the weights are put beside the record."""
        training, curve, measurements = self.protocol.training, self.record.curve, self.record.measurements
        if curve and curve[-1].train_loss is not None:
            self.add(_figure("training", "final_train_loss", curve[-1].train_loss, "nats"))
        if training.target_loss is not None:
            losses = [p.train_loss if training.target_of == "training" else p.test_loss for p in curve]
            there = [i for i, loss in enumerate(losses) if loss is not None and loss <= training.target_loss]
            seconds = sum(point.seconds for point in curve[: there[0] + 1]) if there else None
            self.add(_figure("training", "epochs_to_target", curve[there[0]].epoch if there else None, "epochs"))
            self.add(_figure("training", "seconds_to_target", seconds, "s"))
        for round_ in range(1, training.rounds + 1):
            of_round = {m.quantity: m.value for m in reversed(measurements) if m.context.get("round") == round_}
            floor, seconds = of_round.get("train_epoch_seconds"), of_round.get("seconds_per_epoch")
            if floor and seconds:
                self.add(_figure("floor", "training_ratio", seconds / floor, "1", round=round_))
        weights = Path(self._file("weights"))
        if weights.is_file():
            weights.replace(self.save().with_suffix(".safetensors"))
        return Finished(status="ok")


def _figure(measure: str, quantity: str, value: float | None, unit: str, **context: Any) -> Measurement:
    return Measurement(measure=measure, quantity=quantity, value=value, unit=unit, context=context)
