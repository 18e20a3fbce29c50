"""Synthetic records, and a look at the tables made of them."""

from bench.records import EpochPoint, Measurement, Plan, PrecisionSeen, Record

EPYC = {"cpu": "AMD EPYC", "cores": 2}
XEON = {"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 4}


def measurement(measure, quantity, value, unit, low=None, high=None, n=None, note=None, **context):
    return Measurement(
        measure=measure,
        quantity=quantity,
        value=value,
        unit=unit,
        low=low,
        high=high,
        n=n,
        note=note,
        context=context,
    )


def seconds(*values):
    return [measurement("training", "seconds_per_epoch", value, "s", round=i) for i, value in enumerate(values, 1)]


def points(*losses, test=(), round=1, start=1):
    test = [*test, *[None] * (len(losses) - len(test))]
    return [
        EpochPoint(epoch=i, train_loss=train, test_loss=held_out, seconds=1.5, round=round)
        for i, (train, held_out) in enumerate(zip(losses, test, strict=True), start)
    ]


def record(
    backend="torch",
    *,
    run="a",
    status="ok",
    reason=None,
    measurements=(),
    curve=(),
    seen=None,
    machine=EPYC,
    packages=None,
    **plan,
):
    plan = {
        "protocol": "article",
        "protocol_digest": "0123456789abcdef",
        "device": "cpu",
        "precision": "float32",
        "mode": None,
        "seed": 0,
        "epochs": 3,
        "batch": 128,
        "rounds": 2,
        "architecture": {"dim": 4},
        "optimiser": {"name": "adam"},
        "loss": "article",
        "target_loss": None,
        "caption": "Selected on the test set",
    } | plan
    return Record(
        run=run,
        created="2026-01-02T03:04:05+00:00",
        status=status,
        reason=reason,
        plan=Plan(backend=backend, **plan),
        environment={**machine, "packages": {"torch": "2.13.0", "jax": "0.10.2"} if packages is None else packages},
        precision=PrecisionSeen(asked=plan["precision"], seen=seen, mantissa_bits=10) if seen else None,
        curve=list(curve),
        measurements=list(measurements),
    )


def row(table, **wanted):
    """Return the only row of the shown table with these labels."""
    found = table.shown
    for name, value in wanted.items():
        found = found[found[name] == value]
    assert len(found) == 1, table.shown.to_string()
    return found.iloc[0]


def likelihood(value, error):
    return [
        measurement("likelihood", "dequantised_log_likelihood", value, "nats", value - error, value + error, 10),
        measurement("likelihood", "bits_per_dim", 4.3612345, "bits"),
    ]


def both_kinds():
    return [
        record(curve=points(-5.0, test=[-4.0]), measurements=likelihood(1800.0, 0.5)),
        record(protocol="paper", loss="nll", curve=points(-6.0, test=[-3.0]), measurements=likelihood(1900.0, 0.5)),
    ]
