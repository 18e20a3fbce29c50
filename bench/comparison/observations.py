"""Observations: the figures of records that can be compared, each with what it is of and what it was taken on.

What is left out says the same in other words: throughput of training and sampling (one over the time), bits a
dimension (a line through the log-likelihood), rates and parts of the floor, shares of a profile.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from bench.measures.disturbance import disturbed
from bench.records import Measurement, Record
from bench.records.environment import machine
from bench.records.fields import digest_of
from bench.tables.frame import machine_of, versions_of

Form = Literal["time", "rate", "size", "floor", "loss", "gain", "error"]
"""How a figure is compared.

time, rate, size, floor: by a ratio, rates upside down, so that more than 1 is worse; a floor's ratio is the machine's
own and may be compared across machines. loss, gain: by a difference in nats, never by a ratio, since they have no zero.
error: of rounding, by its order of magnitude.
"""


@dataclass(frozen=True)
class Quantity:
    """A figure's topic (what a condition names), its name and unit as people read them, and how it is compared."""

    topic: str
    label: str
    unit: str
    form: Form

    @property
    def ratio(self) -> bool:
        """Whether it is compared by a ratio."""
        return self.form in ("time", "rate", "size", "floor")

    @property
    def on_machine(self) -> bool:
        """Whether it says something of the machine too, so that another machine's is no comparison."""
        return self.form in ("time", "rate", "size")


MEASURED = {  # measure, quantity
    ("training", "seconds_per_epoch"): Quantity("speed", "s/epoch", "s", "time"),
    ("training", "seconds_to_target"): Quantity("target", "s to target", "s", "time"),
    ("training", "peak_memory"): Quantity("memory", "peak memory", "bytes", "size"),
    ("startup", "import_seconds"): Quantity("startup", "start-up", "s", "time"),
    ("startup", "first_call_seconds"): Quantity("startup", "first call cold", "s", "time"),
    ("startup", "warm_first_call_seconds"): Quantity("startup", "first call warm", "s", "time"),
    ("sampling", "latency"): Quantity("sampling", "sampling", "s", "time"),
    ("likelihood", "images_per_second"): Quantity("density", "log p", "images/s", "rate"),
    ("floor", "training_ratio"): Quantity("floor", "s/epoch × floor", "× floor", "floor"),
    ("sweep", "seconds"): Quantity("sweep", "sweep", "s", "time"),
    ("peers", "step_seconds"): Quantity("peers", "peer's step", "s", "time"),
    ("profile", "step_seconds"): Quantity("profile", "profiled step", "s", "time"),
    ("micro", "seconds"): Quantity("micro", "micro", "s", "time"),
    ("likelihood", "dequantised_log_likelihood"): Quantity("likelihood", "test log-likelihood", "nats", "gain"),
}
TOPICS = {quantity.topic: quantity for quantity in MEASURED.values()} | {
    "loss": Quantity("loss", "loss", "nats", "loss"),
    "agreement": Quantity("agreement", "error", "relative", "error"),
}
"""Topic → one of its quantities."""


@dataclass(frozen=True)
class About:
    """What a record is of, and what it was taken on; `network` stands for architecture, optimiser, batch, epochs, loss.

    `host` is the computer's processor even where the device is a GPU, so that both devices of one can be told apart.
    """

    kind: str
    protocol: str
    digest: str
    network: str
    backend: str
    mode: str
    device: str
    machine: str
    host: str
    precision: str
    version: str


@dataclass(frozen=True)
class Observation:
    """One figure of one round (or of a whole record: round 0), of `n` observations between `low` and `high`.

    `record` is the record that it is from, as JSON.

    A round is a process of its own in a run alone: what other records call rounds are repetitions within one process,
    and are all of round 0 here.
    """

    quantity: Quantity
    context: str
    about: About
    record: str
    run: str
    seed: int
    round: int
    value: float
    low: float | None
    high: float | None
    n: int | None
    disturbed: bool = False


def about(record: Record) -> About:
    """What a record is of."""
    plan, seen = record.plan, record.precision
    settings = [plan.architecture, plan.optimiser, plan.batch, plan.epochs, plan.loss]
    return About(
        kind=plan.kind,
        protocol=plan.protocol,
        digest=plan.protocol_digest,
        network=digest_of(settings),
        backend=plan.backend,
        mode=plan.mode or "",
        device=plan.device,
        machine=machine_of(record),
        host=machine("cpu", record.environment),
        precision=plan.precision + (f" (seen {seen.seen})" if seen and seen.seen != plan.precision else ""),
        version=versions_of(record),
    )


def observations(records: Iterable[Record]) -> Iterator[Observation]:
    """The figures of records that ended well; a record that is given twice counts once."""
    for text, record in {record.model_dump_json(): record for record in records}.items():
        if record.status != "ok":
            continue
        described, busy, first_call = about(record), disturbed(record), _first_call(record)
        for measurement in [*record.measurements, *_losses(record)]:
            quantity = _quantity(measurement)
            if quantity is None or measurement.value is None:
                continue
            context = sorted((key, value) for key, value in measurement.context.items() if key != "round")
            yield Observation(
                quantity=quantity,
                context=", ".join(f"{key} {value}" for key, value in context),
                about=described,
                record=text,
                run=record.run,
                seed=record.plan.seed,
                round=int(measurement.context.get("round", 0)) if described.kind == "run" else 0,
                value=measurement.value + (first_call if quantity.topic == "target" else 0),
                low=measurement.low,
                high=measurement.high,
                n=measurement.n,
                disturbed=busy,
            )


def _first_call(record: Record) -> float:
    """The seconds of the first call, which "to target" counts in, as the tables do."""
    return sum(m.value or 0 for m in record.measurements if m.quantity == "first_call_seconds")


def _quantity(measurement: Measurement) -> Quantity | None:
    known = MEASURED.get((measurement.measure, measurement.quantity))
    if known is None and measurement.measure == "agreement":
        return Quantity("agreement", f"error of {measurement.quantity}", "relative", "error")
    if known is None and measurement.measure == "loss":
        return Quantity("loss", measurement.quantity, "nats", "loss")
    return known if known is None or known.ratio is False or (measurement.value or 0) > 0 else None


def _losses(record: Record) -> Iterator[Measurement]:
    """Final and best losses, as the table of accuracy has them: measured where they were, else from the curve."""
    measured = {m.quantity: m.value for m in record.measurements if m.measure in ("training", "likelihood")}
    points = sorted(record.curve, key=lambda point: point.epoch)
    train, selection = ([getattr(point, f"{part}_loss") for point in points] for part in ("train", "test"))
    for name, value in (
        ("final train loss", measured.get("final_train_loss", train[-1] if train else None)),
        ("best train loss", min((loss for loss in train if loss is not None), default=None)),
        ("final test loss", measured.get("test_loss")),
        ("best selection loss", min((loss for loss in selection if loss is not None), default=None)),
    ):
        yield Measurement.of("loss", name, value, "nats")
