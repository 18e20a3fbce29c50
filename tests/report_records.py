"""Records that fill every part of the report: two machines, two precisions, three seeds, a sweep, what failed."""

from record_factories import EPYC, XEON, measurement, points, record

from bench.records import Measurement

SLOW = {"torch": 60.0, "tensorflow": 46.0, "jax": 45.0}
SEEDS = (0, 1, 2)


def timed(*values):
    return [measurement("training", "seconds_per_epoch", value, "s", round=i) for i, value in enumerate(values, 1)]


def floor(seconds, ratio):
    return [
        measurement("floor", "product_rate", 1e12, "FLOP/s", round=1),
        measurement("floor", "bandwidth", 1e10, "bytes/s", round=1),
        measurement("floor", "products_seconds", seconds / 10, "s", round=1),
        measurement("floor", "bytes_seconds", seconds / 20, "s", round=1),
        measurement("floor", "train_step_seconds", seconds / 10, "s", round=1),
        measurement("floor", "train_epoch_seconds", seconds, "s", round=1),
        measurement("floor", "training_ratio", ratio, "1", round=1),
    ]


def sampled(rate):
    found = []
    for batch in (1, 16, 256):
        value = rate * batch
        found.append(
            measurement(
                "sampling", "samples_per_second", value, "samples/s", 0.95 * value, 1.05 * value, 9, batch=batch
            )
        )
    return found


def inverted(error, weights="trained"):
    where = {"weights": weights, "inputs": "test", "direction": "x-z-x", "trips": 1}
    return [measurement("invertibility", "max_error", error, "grey levels", **where)]


def agreeing(error):
    return [
        measurement("agreement", "log_prob", error, "relative", weights="trained"),
        measurement("agreement", "z", 2 * error, "relative", weights="trained"),
    ]


def swept(backend, fixed):
    found = []
    for size in (1, 4, 16, 64, 256):
        seconds = fixed + 1e-3 * size
        at = {"axis": "batch", "value": size, "operation": "train"}
        around = {"low": 0.9 * seconds, "high": 1.1 * seconds}
        for quantity, value, unit, more in (
            ("seconds", seconds, "s", around),
            ("examples_per_second", size / seconds, "examples/s", {}),
            ("flop_rate", 1e6 * size / seconds, "FLOP/s", {}),
        ):
            found.append(Measurement(measure="sweep", quantity=quantity, value=value, unit=unit, context=at, **more))
    return record(backend, kind="sweep", mode="fast", measurements=found)


def trained(backend, *, seed=0, precision="float32", machine=EPYC, scale=1.0, **options):
    seconds, place = SLOW[backend], list(SLOW).index(backend)
    shift = 0.25 * place + 2.0 * seed
    return record(
        backend,
        run=f"{machine['cores']}-{precision}-{seed}",
        seed=seed,
        precision=precision,
        machine=machine,
        target_loss=-20.0,
        measurements=[
            *timed(scale * seconds, scale * (seconds + 1), scale * (seconds + 0.5), scale * (seconds + 0.75)),
            *floor(40.0, scale * seconds / 40.0),
            *sampled(100.0 + 10 * place),
            *inverted(1e-4 * (1 + place) * (1e-8 if precision == "float64" else 1)),
            *inverted(1e-5 * (1 + place), "initial"),
            *agreeing(1e-7 * (1 + place)),
        ],
        curve=points(-10.0 - shift, -20.0 - shift, -30.0 - shift, test=(-9.0 - shift, -18.0 - shift, -27.0 - shift)),
        **options,
    )


FAILED = record(
    "numpy", run="2-float32-0", status="out_of_memory", reason="<b>40 GiB</b> & more were asked for", target_loss=-20.0
)
MARKUP = "<b>40 GiB</b> & more"


def everything():
    """Twelve runs, two sweeps, one failure."""
    made = [trained(backend, seed=seed) for backend in SLOW for seed in SEEDS]
    made += [trained(backend, precision="float64", scale=2.0) for backend in ("torch", "jax")]
    made += [trained("jax", machine=XEON)]
    return [*made, FAILED, swept("torch", 8e-3), swept("jax", 2e-3)]


def many(count):
    """As many records, over machines, precisions and seeds."""
    made, number = [], 0
    while len(made) < count:
        at = {"seed": number % 4, "precision": ("float32", "float64", "tf32", "bfloat16")[number // 4 % 4]}
        machine = {"cpu": f"CPU {number // 16 % 5}", "cores": 2 + number // 16 % 5}
        made += [trained(backend, machine=machine, **at) for backend in SLOW]
        number += 1
    return made[:count]
