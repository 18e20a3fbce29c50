"""A worker that only talks, of a sweep; its argument names what befalls it: `python sweeping_worker.py FAULT`.

Every call takes half a second. `dies` and `hangs` do so when they sample anything larger than 1; `slower`
multiplies at a rate that falls with the size.
"""

import json
import os
import signal
import sys
import time


def say(event, **parts):
    print(json.dumps({"event": event, **parts}), flush=True)


def figure(point, quantity, value, unit, note=None):
    told = {"measure": "sweep", "quantity": quantity, "value": value, "unit": unit, "note": note, "context": point}
    say("measured", measurement=told)


def measure(fault, point):
    say("point", point=point)
    if point["operation"] == "sample" and point["value"] > 1:
        if fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hangs":
            time.sleep(600)
    if fault == "empty":
        figure(point, "seconds", None, "s", "failed: ValueError: a bug")
        return
    figure(point, "seconds", 0.5, "s")
    figure(point, "flop_rate", 1e9 / point["value"] if fault == "slower" else 1e9, "FLOP/s")


def main(fault):
    plan = json.loads(sys.stdin.readline())
    if fault == "at-once":
        return 4
    if fault == "absent":
        say("finished", status="unavailable", reason="no such framework")
        return 1
    seen = {"asked": "float32", "seen": "float32", "mantissa_bits": 23}
    say("started", environment={"cpu": "none"}, mode="eager", precision=seen, digests={})
    for point in plan["points"]:
        measure(fault, point)
    say("finished", status="ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
