"""Memory: what a run needs, and what it took."""

import subprocess
import sys
from resource import RUSAGE_SELF
from types import SimpleNamespace

import numpy as np
import pytest

from backends import Adam, Architecture, Pixels, RMSProp
from bench.inputs.streams import TrainingStream
from bench.measures import resources


def stream(architecture, pixels):
    return TrainingStream(0, 60_000, architecture.dim, 128, pixels)


class OnADevice:
    def peak_memory(self):
        return 3000


class OnTheCPU:
    def peak_memory(self):
        return None


def figures(measurements):
    return {measurement.quantity: measurement.value for measurement in measurements}


def test_the_full_network_needs_its_numbers_four_times_and_the_images_once():
    architecture = Architecture.article()
    plain = resources.needed(architecture, Adam(), stream(architecture, Pixels(1 / 255)), 4)
    assert plain == 4 * 19_158_352 * 4 + 60_000 * 784 + 468 * 128 * 4
    noisy = resources.needed(architecture, RMSProp(), stream(architecture, Pixels(1 / 256, 1 / 256)), 8)
    assert noisy == 4 * 19_158_352 * 8 + 60_000 * 784 + 468 * 128 * (4 + 2 * 784)


def test_a_device_is_asked_itself():
    found = figures(resources.memory(OnADevice(), before=10**9, least=1000, round_=1))
    assert found == {"peak_memory": 3000, "training_memory": 3000, "training_memory_ratio": 3}


def test_the_peak_of_a_process_is_its_own_in_kib(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t   9000 kB\nVmHWM:\t    3000 kB\nVmRSS:\t 2000 kB\n")
    found = figures(resources.memory(OnTheCPU(), before=1024 * 1000, least=1024 * 500, round_=1))
    assert found == {"peak_memory": 1024 * 3000, "training_memory": 1024 * 2000, "training_memory_ratio": 4}


@pytest.mark.skipif(not resources.STATUS.is_file(), reason="only Linux has it")
def test_what_the_process_before_held_is_not_counted():
    most = "import bench.measures.resources as r; print(r.most_held())"
    program = f"import subprocess, sys; held = bytearray(2**28); subprocess.run([sys.executable, '-c', {most!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**28


def test_elsewhere_the_peak_of_a_process_is_counted_in_kib_by_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "STATUS", tmp_path / "none")
    usage = SimpleNamespace(ru_maxrss=3000)
    monkeypatch.setattr(resources.resource, "getrusage", lambda who: usage if who == RUSAGE_SELF else None)
    found = figures(resources.memory(OnTheCPU(), before=1024 * 1000, least=1024 * 500, round_=1))
    assert found == {"peak_memory": 1024 * 3000, "training_memory": 1024 * 2000, "training_memory_ratio": 4}


def test_of_a_process_only_what_came_on_top_counts():
    before = resources.resident()
    least = figures(resources.memory(OnTheCPU(), 0, 1, 1))["peak_memory"] + 2**27 - before
    held = np.ones(int(least), np.uint8)  # until the process holds 128 MiB more than it ever did
    found = figures(resources.memory(OnTheCPU(), before, held.size, 1))
    assert found["training_memory"] == pytest.approx(held.size, rel=0.05)
    assert found["training_memory_ratio"] == pytest.approx(1, rel=0.05)
