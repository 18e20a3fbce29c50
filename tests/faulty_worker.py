"""A worker with a fault, which its argument names: `python faulty_worker.py FAULT`.

Most are the real worker with the NumPy reference inside, in which something goes wrong after the first epoch. The
others only talk like one, in no time.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path


def raising(error):
    def fault():
        raise error

    return fault


AFTER_THE_FIRST_EPOCH = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "memory": raising(MemoryError()),
    "exhausted": raising(RuntimeError("RESOURCE_EXHAUSTED: failed to allocate 75.1 GiB")),
    "bug": raising(ValueError("shapes don't match")),
    "chatty": lambda: (print("from Python"), os.write(1, b"from a library\n")),
    "garbage": None,
    "missing": None,
    "nan": None,
}


def real_worker(fault):
    """The worker itself, with a fault in its training."""
    import backends
    from bench.running import worker
    from bench.running.messages import EpochDone

    backends.REGISTRY[fault] = backends.REGISTRY["numpy"]
    if fault == "missing":
        sys.modules["jax"] = None
        backends.REGISTRY[fault] = backends.REGISTRY["jax"]
    train = worker._train

    def faulty(model, *arguments):
        if fault == "nan":
            model_train = model.train
            model.train = lambda *arguments: map(not_a_number, model_train(*arguments))
        events = train(model, *arguments)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            yield event
            if AFTER_THE_FIRST_EPOCH[fault] and isinstance(event, EpochDone):
                AFTER_THE_FIRST_EPOCH[fault]()

    worker._train = faulty
    return worker.main()


def not_a_number(report):
    """The report of epoch 2 with a loss that isn't a number from its fourth step on."""
    if report.epoch == 2:
        report.losses[3:] = float("nan")
    return report


def stand_in(fault):
    """No worker, but its words: losses of −50 an epoch, 2 seconds each, and a file for the weights."""
    plan = json.loads(sys.stdin.readline())

    def say(event, **parts):
        print(json.dumps({"event": event, **parts}), flush=True)

    def measured(measure, quantity, value, unit="s", **context):
        figure = {"measure": measure, "quantity": quantity, "value": value, "unit": unit, "context": context}
        say("measured", measurement=figure)

    seen = {"asked": "float32", "seen": "float32", "mantissa_bits": 23}
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    measured("startup", "cache_found", float(cache.exists()), "1", round=plan["round"])
    cache.mkdir(parents=True, exist_ok=True)
    say("started", environment={"cpu": "none"}, mode=plan["mode"] or "eager", precision=seen, digests={"data": "d"})
    done = sum(epochs_of(plan, round_) for round_ in range(1, plan["round"]))
    for epoch in range(done + 1, done + plan["epochs"] + 1):
        point = {"epoch": epoch, "train_loss": -50.0 * epoch, "seconds": 2.0, "round": plan["round"]}
        say("epoch", point=point, first_epoch_losses=[1.0, 2.0] if epoch == 1 else [])
        if fault == "hang":
            time.sleep(600)
    measured("training", "seconds_per_epoch", 2.0, round=plan["round"])
    measured("floor", "train_epoch_seconds", 0.5, round=plan["round"])
    if fault == "silent":
        return 0
    if plan["round"] == plan["rounds"]:
        Path(plan["weights"]).write_bytes(b"weights of " + fault.encode())
    if fault == "child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", plan["weights"]])
    say("finished", status="ok", digests={"final_parameters": "f"})
    return 0


def epochs_of(plan, round_):
    epochs, rounds = plan["protocol"]["training"]["epochs"], plan["rounds"]
    return epochs // rounds + (round_ <= epochs % rounds)


def main(fault):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if fault == "at-once":
        return 4
    while fault == "endless":
        os.write(1, 65536 * b"x")
    if fault == "garbage":
        os.write(1, b'no JSON\n{"event": "unknown"}\n\xfe\xff\n[1, 2]\n\n')
    return real_worker(fault) if fault in AFTER_THE_FIRST_EPOCH else stand_in(fault)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
