"""A command that ends too early, however it does, loses nothing that it has printed as measured, and leaves no worker.

Real processes: `nice-bench` with workers that only talk (see `steady_worker`), ended at moments that a seed chooses.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.records import collection
from bench.running.variant import scratch
from bench.running.worker_io import RUNNER

COMMANDS = {
    "run": ["run", "--protocol", "smoke", "--rounds", "1", "--backends", "torch"],
    "sweep": ["sweep", "--protocol", "smoke", "--axis", "batch", "--operations", "log_prob", "--backends", "torch"],
    "peers": ["peers", "--frameworks", "torch", "--peers", "zuko"],
}
NUMBER = re.compile(r"(?:epoch|value|round) (\d+)")


def of(count):
    """The commands, of so many measurements."""
    values = f"batch={','.join(map(str, range(1, count + 1)))}"
    more = {"run": ["--epochs", str(count)], "peers": ["--rounds", str(count)], "sweep": ["--values", values]}
    return {name: [*arguments, *more[name]] for name, arguments in COMMANDS.items()}


SHORT, LONG = of(5), of(300)


class Server:
    """Starts commands; see `command_server`."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.worker = folder / "steady_worker"
        self.worker.write_text(f"#!{sys.executable}\n{Path(__file__).with_name('steady_worker.py').read_text()}")
        self.worker.chmod(0o755)
        script = Path(__file__).with_name("command_server.py")
        variables = {**os.environ, "PYTHONPATH": str(script.parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, script], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments, out=os.devnull, err=None, largest_file=0):
        """Start a command: its process id, its folder, and the reading end of its standard error."""
        self.count += 1
        folder, pipe = self.folder / f"out-{self.count}", self.folder / f"err-{self.count}"
        os.mkfifo(pipe)
        options = ["--device", "cpu", "--python", f"torch={self.worker}", "--output", str(folder)]
        order = {"arguments": [*arguments, *options], "out": out, "err": err or str(pipe), "largest_file": largest_file}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        number = int(self.process.stdout.readline())
        return number, folder, None if err else pipe.open(encoding="utf-8")

    def code(self):
        """The exit code of the command that was started last; −N if signal N ended it."""
        return int(self.process.stdout.readline())

    def survivors(self):
        """The workers that are still there after a while in which they may die."""
        left = [p for p in psutil.process_iter(["cmdline"]) if str(self.worker) in (p.info["cmdline"] or [])]
        return psutil.wait_procs(left, timeout=20)[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("interrupted"))
    yield server
    server.process.communicate()
    for process in server.survivors():
        process.kill()


def kept(folder):
    """The record in a folder, and the numbers of the epochs, points or rounds that it has; none where there is none."""
    records = collection.load_all(folder) if folder.exists() else []
    numbers = {point.epoch for record in records for point in record.curve}
    for record in records:
        numbers |= {m.context.get("value", m.context.get("round")) for m in record.measurements}
    return records[0] if records else None, numbers


def until_measured(count, lines):
    """The lines that are printed until so many measurements are among them."""
    printed = []
    while len(list(filter(NUMBER.search, printed))) < count:
        printed.append(next(lines))
    return printed


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_what_was_printed_as_measured_is_on_disk_and_no_worker_survives(server, name, number):
    moments = random.Random(f"{name} {number}")
    for _ in range(6):
        process, folder, err = server.start(LONG[name])
        printed = until_measured(moments.randrange(number == signal.SIGHUP, 7), err)
        time.sleep(moments.uniform(0, 0.03))  # so that it is hit at anything that it may be at
        os.kill(process, number)
        printed += err  # until nobody has the other end: it is over
        err.close()
        assert server.code() == (-number if number == signal.SIGKILL else 130)
        record, numbers = kept(folder)
        told = {int(found[1]) for line in printed if (found := NUMBER.search(line))}
        assert told <= numbers
        if number == signal.SIGHUP:
            assert (record.status, record.reason) == ("failed", "interrupted in round 1")
            assert printed[-1] == "nice-bench: interrupted; what was measured until then is kept\n"
    assert server.survivors() == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_standard_error_that_breaks_ends_no_measurement(server, name):
    _, folder, err = server.start(SHORT[name])
    until_measured(1, err)
    err.close()
    assert server.code() == 0
    record, numbers = kept(folder)
    assert (record.status, numbers - {None}) == ("ok", {1, 2, 3, 4, 5})


def test_a_standard_error_on_a_full_disk_ends_no_measurement(server):
    _, folder, _ = server.start(SHORT["sweep"], err="/dev/full")
    assert server.code() == 0
    assert kept(folder)[0].status == "ok"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_standard_output_that_is_closed_is_an_error_after_all_was_measured(server, name):
    read, write = os.pipe()
    os.close(read)
    try:
        _, folder, err = server.start(SHORT[name], out=f"/proc/{os.getpid()}/fd/{write}")
        assert "Traceback" not in err.read()
        err.close()
    finally:
        os.close(write)
    assert server.code() == 1
    assert kept(folder)[0].status == "ok"
    assert (folder / "tables").exists() is (name == "run")


@pytest.mark.parametrize("name", COMMANDS)
def test_where_a_record_has_no_room_the_one_before_stays(server, name):
    _, folder, err = server.start(of(150)[name], largest_file=8_000)
    *printed, last = err
    err.close()
    assert server.code() == 1
    assert re.fullmatch(r"nice-bench: .*: cannot write a record here: File too large\n", last)
    told = {int(found[1]) for line in printed if (found := NUMBER.search(line))}
    assert told
    assert told <= kept(folder)[1]


# The output's folder


@pytest.mark.parametrize("name", [*COMMANDS, "profile"])
def test_an_output_that_cannot_be_written_is_one_error_before_any_worker(nice_bench, tmp_path, name):
    (tmp_path / "file").write_text("")
    arguments = LONG.get(name, ["profile", "--protocol", "smoke", "--backends", "torch"])
    started = tmp_path / "started"
    worker = tmp_path / "worker"
    worker.write_text(f"#!/bin/sh\ntouch {started}\n")
    worker.chmod(0o755)
    output = ["--device", "cpu", "--python", f"torch={worker}", "--output", tmp_path / "file" / "out"]
    done = nice_bench(*arguments, *output)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1] == f"nice-bench: {tmp_path / 'file' / 'out'}: can't be written (Not a directory)"
    assert not started.exists()


def test_what_passes_between_processes_is_removed_whatever_ends_them(tmp_path):
    def interrupted():
        with scratch(tmp_path) as folder:
            (folder / "state").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


# A worker's end


BUSY = """
from bench.running.worker_io import end_with_runner
end_with_runner({platform!r})
print("begun", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("platform", ["linux", "elsewhere"])
def test_a_worker_whose_runner_is_gone_ends(platform):
    """By its closed input, where there is no signal, or where it comes too late: the runner isn't the parent."""
    runner = os.getppid() if platform == "linux" else os.getpid()
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(platform=platform)],
        env={**os.environ, RUNNER: str(runner)},
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout.readline() == b"begun\n"
            process.stdin.close()
            assert process.wait(timeout=60) == -signal.SIGKILL
        finally:
            process.kill()
