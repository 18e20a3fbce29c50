"""A worker that measures something every hundredth of a second, of whatever it is asked for, and does nothing else.

It stands in for an interpreter: `steady_worker.py -m MODULE`. Asked for 300, it falls silent after the sixth, as one
does that is busy: it never notices by itself that nobody listens.
"""

import json
import sys
import time

from bench.running.worker_io import end_with_runner


def say(event, **parts):
    time.sleep(0.01)  # what a measurement takes
    print(json.dumps({"event": event, **parts}), flush=True)


def items(found):
    """What is asked for, and no end where that is 300."""
    for number, item in enumerate(found):
        if number == 6 and len(found) == 300:
            time.sleep(600)
        yield item


def measured(measure, quantity, context):
    figure = {"measure": measure, "quantity": quantity, "value": 0.5, "unit": "s", "context": context}
    say("measured", measurement=figure)


def main():
    plan = json.loads(sys.stdin.readline())
    end_with_runner()
    seen = {"asked": "float32", "seen": "float32", "mantissa_bits": 23}
    say("started", environment={"cpu": "none"}, mode="eager", precision=seen, digests={})
    if sys.argv[2] == "bench.running.worker":
        for epoch in items(range(1, plan["epochs"] + 1)):
            say("epoch", point={"epoch": epoch, "train_loss": -50.0, "seconds": 0.01, "round": 1})
    for point in items(plan.get("points", [])):
        say("point", point=point)
        measured("sweep", "seconds", point)
    if sys.argv[2] == "bench.peers.worker":
        for round_ in items(range(1, plan["rounds"] + 1)):
            measured("peers", "step_seconds", {"peer": "zuko", "round": round_})
    say("finished", status="ok")


if __name__ == "__main__":
    main()
