"""Settings of the test session. What the tests share is in `factories`.

`NICE_BENCH_TEST_BACKENDS=torch,jax` tests only these backends (and the NumPy reference). Without it all are tested, and
one that can't be imported here is a failure, not a skip.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    """What `bench.records.micro` wants to know of the machine: as records have it, less what changes by the hour."""
    from bench.records.environment import fingerprint

    found = fingerprint()
    del found["git"]  # commit_info says it
    lasting = ("index", "name", "driver", "memory_bytes", "mig")
    found["gpus"] = [{key: gpu[key] for key in lasting} for gpu in found["gpus"]]
    machine_info["nice_bench"] = found


@pytest.fixture
def nice_bench(monkeypatch, capsys):
    """Call the command line: exit code, what went to standard output and to standard error."""
    from bench.commands import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nice-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to work in, in no checkout, and no data anywhere, nor a network to fetch it from."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("NICE_BENCH_DATA", str(tmp_path / "mnist"))
    monkeypatch.setattr("bench.inputs.data.collect", lambda *_: pytest.fail("a test that wants the network"))
    return tmp_path / "here"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that NICE_BENCH_DATA names, which doesn't exist yet; no proxy stands before the loopback."""
    monkeypatch.setenv("NICE_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def steps():
    """The reference of a trajectory."""
    from check_factories import steps_reference

    return steps_reference()


@pytest.fixture
def seeds():
    """The reference of a distribution over seeds."""
    from check_factories import seeds_reference

    return seeds_reference()


@pytest.fixture
def usual():
    """The reference of the usual records."""
    from check_factories import usual_reference

    return usual_reference()


@pytest.fixture
def talkers(monkeypatch):
    """Workers that only talk: NumPy and torch do well, JAX fails."""
    from bench.commands import options
    from bench.running import variant

    script = str(Path(__file__).with_name("faulty_worker.py"))
    behaviour = {"numpy": "well", "torch": "well", "jax": "at-once"}
    monkeypatch.setattr(variant, "worker_command", lambda _, backend, python: [python, script, behaviour[backend]])
    monkeypatch.setattr(options, "DEFAULT_BACKENDS", ("numpy", "torch"))
