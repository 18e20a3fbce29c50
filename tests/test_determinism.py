"""The same training again: equal bits are seen to be equal, and others are not."""

import sys

import numpy as np
import pytest
from faults.walk import small_setting

from bench.agreement import determinism
from bench.errors import BenchError

pytestmark = pytest.mark.slow


@pytest.fixture
def setting():
    return small_setting()


def test_the_reference_makes_the_same_bits_again_in_process_process_and_on_one_thread(setting):
    checks = list(determinism.determinism(setting, ["numpy"], "cpu"))
    assert {check.quantity: check.error for check in checks} == dict.fromkeys(
        ["again in the process", "in another process", "on 1 thread"][: len(checks)], 0.0
    )
    assert len(checks) >= 2


@pytest.mark.parametrize("change", ["ulp", "zero"])
def test_one_bit_is_a_difference_and_a_breach(change, setting, monkeypatch):
    weights = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([2.0], np.float32)}
    other = {name: array.copy() for name, array in weights.items()}
    if change == "ulp":
        other["a"][0] = np.nextafter(other["a"][0], np.float32(2))
    else:
        other["a"][1] = -0.0
    trainings = iter([[weights, weights], [other], [weights]])
    monkeypatch.setattr(determinism, "_trainings", lambda *_, **__: next(trainings))
    checks = {check.quantity: check for check in determinism.determinism(setting, ["numpy"], "cpu")}
    assert checks["again in the process"].passed
    assert not checks["in another process"].passed


@pytest.mark.parametrize(("device", "quantity"), [("cpu", "on 1 thread"), ("gpu", "in another process")])
def test_what_no_framework_promises_is_reported_and_not_judged(device, quantity, setting, monkeypatch):
    weights, other = {"a": np.ones(2, np.float32)}, {"a": np.array([1, 1.5], np.float32)}
    monkeypatch.setattr(determinism, "_trainings", lambda *_, times: [weights, weights] if times == 2 else [other])
    monkeypatch.setattr(determinism.os, "sched_getaffinity", lambda _: {0, 1})
    checks = {check.quantity: check for check in determinism.determinism(setting, ["numpy"], device)}
    assert checks[quantity].error == 0.5
    assert checks[quantity].passed


def test_the_threads_asked_for_are_the_threads_had(setting, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/order\nprintenv OMP_NUM_THREADS > {tmp_path}/threads\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(BenchError, match="torch on 1 threads ended with 3"):
        determinism._trainings(setting, "torch", "cpu", 1, times=1)
    assert (tmp_path / "threads").read_text() == "1\n"
    assert '"threads": 1' in (tmp_path / "order").read_text()


def test_a_training_that_never_ends_is_one_error(setting, tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(determinism, "TIMEOUT", 0.2)
    with pytest.raises(BenchError, match="torch on 1 threads took more than"):
        determinism._trainings(setting, "torch", "cpu", 1, times=1)
