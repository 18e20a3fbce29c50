"""Training on several devices side by side: each framework's own engine against the reference, and what goes wrong."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys

import psutil
import pytest
from factories import TINY, Stream, backend_names, create, images, requires

from backends import Adam, UnavailableError
from bench.commands.options import device_counts
from bench.errors import BenchError
from bench.inputs import protocol
from bench.records import Plan, collection
from bench.running.runner import Request, protocol_of

needs_torch = requires("torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in backend_names() if name != "numpy"])
def test_several_devices_train_as_the_reference_does_and_twice_the_same(name):
    """In a process of its own, since a framework settles how many devices it has when it starts."""
    counts = "1,2,4" if name == "jax" else "1,2"  # which take long: each rank of torch imports it anew
    command = [sys.executable, "-m", "bench", "agree", "--devices", counts, "--backends", name, "--steps", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert all(f"{name}×{count}" in done.stdout for count in counts.split(","))
    assert "checks are within their tolerances" in done.stdout


@pytest.mark.slow
def test_a_run_has_one_devices_losses_and_how_long_the_reduction_takes_by_itself(tmp_path):
    names = [name for name in backend_names() if name != "numpy"]
    command = [sys.executable, "-m", "bench", "run", "--protocol", "smoke", "--device", "cpu", "--precision", "float64"]
    command += ["--devices", "1,2", "--rounds", "1", "--backends", ",".join(names), "--output", str(tmp_path)]
    done = subprocess.run([*command, "--tables", "none"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "reduction alone, ms" in (tmp_path / "tables" / "devices.md").read_text()
    found = {(made.plan.backend, made.plan.devices): made for made in collection.load_all(tmp_path)}
    assert len(found) == 2 * len(names)
    for name in names:
        alone, together = found[name, 1], found[name, 2]
        assert len(losses_of(together)) > 10
        assert losses_of(together) == pytest.approx(losses_of(alone), rel=1e-11, abs=0)
        floors = {one.quantity: one.value for one in together.measurements if one.measure == "floor"}
        assert 0 < floors["reduction_seconds"] <= floors["train_step_seconds"]
        assert not [one for one in alone.measurements if one.quantity == "reduction_seconds"]


def losses_of(made):
    """All losses of a record."""
    return [*made.first_epoch_losses, *(loss for p in made.curve for loss in (p.train_loss, p.test_loss))]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in backend_names() if name != "numpy"])
def test_what_is_timed_as_the_reduction_sums_all_gradients_over_the_devices(name):
    program = (
        "import sys, numpy as np; sys.path[:0] = ['tests']\n"
        "from factories import *; from bench.measures.floor import workloads\n"
        "if __name__ == '__main__':\n"
        f"    model = create({name!r}, TINY, replicas=2)\n"
        "    with workloads(model).reducing(model, 3) as call:\n"
        "        numbers = np.array(call())\n"
        "        call(), call()\n"
        "    assert numbers.shape[-1] == TINY.trainable_count and numbers.dtype == model.dtype, numbers\n"
        "    assert (numbers == 2).all(), numbers\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_backend_that_trains_on_one_device_says_so():
    with pytest.raises(UnavailableError, match="numpy: trains on at most 1 cpu here; 2 were asked for"):
        create("numpy", TINY, replicas=2)


@needs_torch
def test_a_batch_that_the_devices_cannot_share_is_refused():
    model = create("torch", TINY, replicas=3)
    with pytest.raises(ValueError, match="a batch has 4 rows, which 3 devices can't share evenly"):
        next(model.train(images(), Adam(), Stream(), 1))
    assert not multiprocessing.active_children()


@pytest.mark.slow
@needs_torch
def test_a_group_is_there_when_what_trained_in_it_is_gone():
    """Else its end would hold Python's lock while it waits for a thread that may want it."""
    from backends import torch_ranks

    before = len(torch_ranks.GROUPS)
    list(create("torch", TINY, replicas=2).train(images(), Adam(), Stream(), 1))
    gc.collect()
    (group,) = torch_ranks.GROUPS[before:]
    assert group.size() == 2
    assert not distributed_is_on()
    assert not multiprocessing.active_children()


def distributed_is_on():
    from torch import distributed

    return distributed.is_initialized()


@pytest.mark.slow
@needs_torch
def test_a_rank_that_dies_is_named_and_no_process_is_left():
    model = create("torch", TINY, replicas=2)
    reports = model.train(images(), Adam(), Stream(), 50)
    next(reports)
    (other,) = multiprocessing.active_children()
    other.kill()
    with pytest.raises(RuntimeError, match="rank 1 of 2 ended with exit code -9"):
        list(reports)
    assert not multiprocessing.active_children()


@pytest.mark.slow
@needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a process with its parent on Linux alone")
def test_ranks_end_with_the_first_one_even_if_it_is_killed():
    program = (
        "import sys, multiprocessing; sys.path[:0] = ['tests']\n"
        "from factories import *; from backends import Adam\n"
        "if __name__ == '__main__':\n"
        "    reports = create('torch', TINY, replicas=2).train(images(), Adam(), Stream(), 9)\n"
        "    next(reports)\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        other = psutil.Process(int(first.stdout.readline()))
        other.suspend()  # so that it can't notice a closed connection
        os.kill(first.pid, signal.SIGKILL)
        other.wait(timeout=60)


@pytest.mark.parametrize(
    ("given", "batch", "message"),
    [
        ("0", 128, "--devices '0': expected numbers from 1 up"),
        ("two", 128, "--devices 'two': expected numbers"),
        (",", 128, "--devices ',': expected numbers"),
        ("2,3", 128, "3 devices can't share a batch of 128 evenly"),
    ],
)
def test_a_number_of_devices_that_makes_no_sense_is_refused(given, batch, message):
    with pytest.raises(BenchError, match=message):
        device_counts(given, batch)


def test_each_number_of_devices_is_taken_once_and_in_order():
    assert device_counts("4,2,4,1", 128) == [4, 2, 1]
    assert device_counts("3", None) == [3]


def test_weak_scaling_has_the_protocols_batch_on_each_device():
    smoke = protocol.load("smoke")
    strong, weak = (protocol_of(Request(protocol=smoke, weak=each), 4) for each in (False, True))
    assert strong == smoke
    assert weak.training.batch == 4 * smoke.training.batch
    assert weak.digest() != smoke.digest()


def test_an_old_record_is_of_one_device():
    assert Plan.model_fields["devices"].default == 1
