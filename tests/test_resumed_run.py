"""A run that was killed goes on where it was, and ends with the very bits of one that was not.

Real runs, each in a process that SIGKILL ends at moments that a seed chooses, ten times, before it may come to its end.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories import assert_same_bits, backend_names

from backends import parameters
from bench import records
from bench.errors import BenchError
from bench.inputs import protocol
from bench.running import runner

pytestmark = pytest.mark.slow

RUN = """
import sys
from pathlib import Path
from bench.inputs import protocol
from bench.running import runner

class Listener:
    def begin(self, *_): pass
    def end(self, *_): pass
    def event(self, _, event):
        if hasattr(event, "point"):
            print(event.point.epoch, flush=True)

folder, backend = Path(sys.argv[1]), sys.argv[2]
if folder.exists():
    request = runner.unfinished(folder)
else:
    loaded = protocol.load(sys.argv[3])
    request = runner.Request(protocol=loaded, backends=[backend], device="cpu", folder=folder)
runner.run(request, Listener())
"""

EPOCHS = 30
KILLS = 10
AVERAGED = {"name": "adamw", "learning_rate": 1e-3, "warmup_steps": 20, "average": 0.9}
PROTOCOLS = {"numpy": {"optimiser": AVERAGED, "keep": "best"}, "torch": {"optimiser": {"name": "adam"}, "keep": "last"}}
BACKENDS = [name for name in PROTOCOLS if name in backend_names()]
ONLY_IN_SOME = {"resumed_after_epochs", "resumed_first_call_seconds", "wait_fraction"}


def start(folder, backend):
    """Begin or resume a run in a folder, in a process that prints its epochs."""
    rule = PROTOCOLS[backend]
    loaded = protocol.load(
        "smoke",
        training__epochs=EPOCHS,
        training__keep=rule["keep"],
        measure__seconds_per_timing=1e-3,
        measure__sampling_batches=[1],
    )
    entries = loaded.model_dump(exclude_none=True) | {"optimiser": rule["optimiser"]}
    path = folder.with_suffix(".toml")
    path.write_text("\n".join(_toml(entries)))
    return subprocess.Popen(
        [sys.executable, "-c", RUN, folder, backend, path],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def _toml(entries):
    """The lines of a protocol's file."""
    sections = {key: value for key, value in entries.items() if isinstance(value, dict)}
    yield from (f"{key} = {json.dumps(value)}" for key, value in entries.items() if key not in sections)
    for name, section in sections.items():
        yield f"[{name}]"
        yield from (f"{key} = {json.dumps(value)}" for key, value in section.items())


def finish(process):
    """Wait for a run's end, which must be a good one."""
    process.communicate()
    assert process.returncode == 0


def kill(process, moments, last):
    """Kill a run after up to four more epochs or after its last one, at anything that it may be at then."""
    if last:
        while process.stdout.readline() not in (f"{EPOCHS}\n", ""):
            pass
    for _ in range(0 if last else moments.randrange(5)):
        process.stdout.readline()
    time.sleep(moments.uniform(0, 0.2))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def the_record(folder):
    [path] = folder.glob("*.json")
    return records.load(path), path


@pytest.fixture(scope="module", params=BACKENDS)
def runs(request, tmp_path_factory):
    """The folder of a run that was never cut off, and that of one that was killed ten times."""
    folder = tmp_path_factory.mktemp(request.param)
    whole, cut = folder / "whole", folder / "cut"
    finish(start(whole, request.param))
    moments, states = random.Random(request.param), 0
    for number in range(KILLS):
        kill(start(cut, request.param), moments, last=number >= KILLS - 3)
        if not list(cut.glob(".unfinished-*/request.json")):
            shutil.rmtree(cut, ignore_errors=True)  # it was killed before it had begun, or it has ended
        states += len(list(cut.glob(".unfinished-*/*/state.safetensors")))
    finish(start(cut, request.param))
    assert states > KILLS / 2  # it was killed with a state on disk
    return whole, cut


def test_a_run_that_was_killed_ten_times_has_the_bits_of_one_that_was_not(runs):
    (whole, whole_path), (cut, cut_path) = map(the_record, runs)
    assert cut.status == whole.status == "ok"
    curves = [[(p.epoch, p.round, p.train_loss, p.test_loss) for p in record.curve] for record in (whole, cut)]
    assert curves[1] == curves[0]
    assert len(curves[0]) == EPOCHS
    assert cut.first_epoch_losses == whole.first_epoch_losses
    assert cut.digests == whole.digests
    weights = [parameters.load(path.with_suffix(".safetensors"))[1] for path in (whole_path, cut_path)]
    assert_same_bits(*weights)


def test_it_has_every_figure_of_one_that_was_not_and_each_once(runs):
    def figures(record):
        found = [
            (m.measure, m.quantity, json.dumps(m.context, sort_keys=True))
            for m in record.measurements
            if m.quantity not in ONLY_IN_SOME
        ]
        return sorted(found)

    whole, cut = (the_record(folder)[0] for folder in runs)
    assert figures(cut) == figures(whole)


def test_its_record_says_where_it_went_on(runs):
    whole, cut = (the_record(folder)[0] for folder in runs)
    resumed = [m for m in cut.measurements if m.quantity == "resumed_after_epochs"]
    calls = [m for m in cut.measurements if m.quantity == "resumed_first_call_seconds"]
    assert resumed
    assert all(0 < m.value < EPOCHS and m.unit == "epochs" for m in resumed)
    assert len(calls) <= len(resumed)
    assert not any(m.quantity.startswith("resumed") for m in whole.measurements)


def test_nothing_is_left_of_a_run_that_has_ended_well(runs):
    for folder in runs:
        left = [path for path in folder.iterdir() if path.suffix != ".tmp"]  # of a record, when it was killed
        assert sorted(path.suffix for path in left) == [".json", ".safetensors"]


# One that was cut off


@pytest.fixture
def cut_off(tmp_path):
    """The folder of a NumPy run that was killed after some epochs."""
    folder = tmp_path / "cut"
    process = start(folder, "numpy")
    for _ in range(3):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return folder


def test_the_command_goes_on_with_it_and_refuses_other_options(nice_bench, cut_off, monkeypatch):
    monkeypatch.setattr("bench.measures.disturbance.LIMIT", 1.0)
    before = {path: path.read_bytes() for path in cut_off.rglob("*") if path.is_file()}
    for options, told in (
        (("--seed", 7), "seed is 7 here, and 0 in the run that was cut off"),
        (("--precision", "float64"), "precision is float64 here, and float32 in"),
        (("--backends", "torch"), "backends is ['torch'] here, and ['numpy'] in"),
        (("--devices", "2"), "devices is [2] here, and [1] in"),
        (("--protocol", "smoke", "--epochs", 9), "epochs is 9 here, and 30 in"),
        (("--protocol", "recipe"), "protocol is recipe here, and smoke ("),
    ):
        done = nice_bench("run", "--resume", cut_off, *options)
        assert (done.code, done.out) == (1, "")
        assert f"nice-bench: --resume {cut_off}: {told}" in done.err
    assert {path: path.read_bytes() for path in cut_off.rglob("*") if path.is_file()} == before
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = nice_bench("run", "--resume", cut_off, "--seed", 0, "--backends", "numpy", "--tables", "none")
    assert done.code == 0, done.err
    assert len(the_record(cut_off)[0].curve) == EPOCHS
    done = nice_bench("run", "--resume", cut_off)
    assert (done.code, done.err) == (1, f"nice-bench: {cut_off}: no run was cut off here, so there is none to resume\n")


def test_another_machines_run_is_not_gone_on_with(cut_off, monkeypatch):
    names = iter(["a laptop", "a server"])
    monkeypatch.setattr(runner.environment, "machine", lambda *_: next(names))
    with pytest.raises(BenchError, match="its run was measured on a server; this is a laptop"):
        runner.run(runner.unfinished(cut_off), None)


def test_a_run_that_has_not_ended_is_not_gone_on_with(tmp_path):
    folder = tmp_path / "cut"
    process = start(folder, "numpy")
    try:
        process.stdout.readline()
        with pytest.raises(BenchError, match=r"its run .* is still going on"):
            runner.run(runner.unfinished(folder), None)
    finally:
        process.kill()
        process.communicate()
