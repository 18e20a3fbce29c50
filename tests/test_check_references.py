"""The regression check's references, and what it runs."""

import json
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from check_factories import (
    NAMES,
    REFERENCES,
    Silent,
    falling,
    run_of,
)
from factories import requires

from bench import records
from bench.errors import BenchError
from bench.inputs import protocol as protocols
from bench.records import collection
from bench.records.fields import digest_of
from bench.regression import check, check_runs, check_speed, convergence, reference
from bench.regression.check_runs import PARTS, Job
from bench.running import worker
from bench.running.messages import EpochDone, Started, WorkerPlan
from bench.running.variant import Request

# References


def test_a_reference_is_read_as_it_was_written(steps, seeds, tmp_path):
    for made in (steps, seeds):
        path = reference.save(made, tmp_path)
        assert path.name == f"{made.protocol}-cpu-float32.json"
        assert reference.load(path) == made


def test_an_edited_reference_is_refused(steps, tmp_path):
    path = reference.save(steps, tmp_path)
    path.write_text(path.read_text().replace('"factor": 5.0', '"factor": 1000.0'))
    with pytest.raises(BenchError, match="edited since it was made"):
        reference.load(path)


def test_a_reference_without_its_digest_is_refused_and_one_of_other_fields_names_them(steps, tmp_path):
    content = steps.model_dump()
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"some\.json: edited since it was made"):
        reference.load(path)
    content |= {"factor": "five"}
    path.write_text(json.dumps(content | {"sha256": digest_of(content)}))
    with pytest.raises(BenchError, match=r"some\.json: .*factor.* makes it anew"):
        reference.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "expected JSON"), ("{}", "of kind 'reference'"), (None, "no reference: No such file")],
)
def test_what_is_no_reference_is_refused_with_the_files_name(tmp_path, text, message):
    path = tmp_path / "some.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchError, match=f"some.json.*{message}"):
        reference.load(path)


def test_a_reference_says_who_made_it(steps):
    assert steps.made.machines == ["AMD EPYC, 1 core"]
    assert steps.made.packages == {"torch": ["2.13"]}
    assert steps.made.records == 4


def test_references_are_no_records(steps, tmp_path):
    path = reference.save(steps, tmp_path / "references")
    records.save(run_of("torch", losses=falling()), tmp_path)
    assert [record.plan.backend for record in collection.load_all(tmp_path)] == ["torch"]
    with pytest.raises(BenchError, match="not a record, but a reference"):
        collection.load_all([path])


def test_the_committed_references_are_whole_small_and_of_the_present_protocols():
    for part in PARTS:
        found = reference.load(REFERENCES / reference.name_of(part.protocol, "cpu", part.precision))
        assert found.protocol_digest == protocols.load(part.protocol).digest()
        assert {speed.backend for speed in found.speed} == set(NAMES)
        assert found.made.records == len(check_runs.reference_jobs(part, NAMES))  # none is of older rules
        assert part.kind == "trajectory" or (found.margin, found.false_alarms) == (convergence.MARGIN, 0.01) == (
            2.0,
            0.01,
        )
        assert not any("edited" in commit for commit in found.made.commits)
        assert not set(part.seeds) & set(part.reference_seeds) or part.kind == "trajectory"
    assert len(list(REFERENCES.iterdir())) == len(PARTS)
    assert sum(path.stat().st_size for path in REFERENCES.iterdir()) < 60_000


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_committed_references_are_quiet_enough_to_notice_a_step_that_is_twice_as_slow(part):
    found = reference.load(REFERENCES / reference.name_of(part.protocol, "cpu", part.precision))
    cores = part.threads or 2
    quiet = [
        run_of(s.backend, cores=cores, seconds=1.0, floor=1 / np.mean(s.floor), product=1 / np.mean(s.calibration))
        for s in found.speed
        if s.cores == cores
    ]
    verdicts = [verdict for run in quiet for verdict in check_speed.judge([([run], found)])]
    assert {(v.backend, v.quantity) for v in verdicts} == {(n, q) for n in NAMES for q in check_speed.NAMES.values()}
    assert all(v.share is not None for v in verdicts)
    assert max(float(v.allowed.removeprefix("× ")) for v in verdicts) < 2


# What is run


@pytest.fixture
def now(monkeypatch):
    """Software and processor of now, of which records may be."""
    found = {"git": {"commit": "c" * 40, "dirty": False}, "cpu": "AMD EPYC", "packages": {"jax": "0.10.2"}}
    monkeypatch.setattr(check_runs.environment, "fingerprint", lambda: found)
    return found


def of(environment, record):
    return record.model_copy(update={"environment": record.environment | environment})


@pytest.mark.parametrize(
    ("then", "interpreters", "again"),
    [
        ({}, {}, False),
        ({"git": {"commit": "d" * 40, "dirty": False}}, {}, True),
        ({"cpu": "Intel Xeon"}, {}, True),
        ({"packages": {"jax": "0.11.0"}}, {}, True),
        ({"packages": {"jax": "0.11.0"}}, {"jax": "its/python"}, False),  # whose packages are its own
    ],
)
def test_runs_of_other_software_or_another_processor_are_made_again(
    tmp_path, monkeypatch, now, then, interpreters, again
):
    asked = []
    monkeypatch.setattr(check_runs.runner, "run", lambda request, listener: asked.append(1) or [run_of("jax")])
    made = run_of("jax", protocol_digest=protocols.load("trajectory-narrow").digest())
    records.save(of(now | then, made), tmp_path)
    jobs, where = [Job("trajectory-narrow", "jax", "float32", 0, 1)], Request(folder=tmp_path, device="cpu")
    where = replace(where, interpreters=interpreters)
    check_runs.run(jobs, where, Silent())
    assert bool(asked) is again


@pytest.mark.parametrize(("name", "again"), [("H100", False), ("A100", True)])
def test_runs_of_another_gpu_are_made_again(tmp_path, monkeypatch, now, name, again):
    asked = []
    monkeypatch.setattr(check_runs.runner, "run", lambda request, listener: asked.append(1) or [run_of("jax")])
    monkeypatch.setattr(check_runs, "resolve_device", lambda device: device)
    now["gpus"] = [{"name": "H100"}]
    made = run_of("jax", protocol_digest=protocols.load("trajectory-narrow").digest(), device="gpu")
    records.save(of(now | {"gpus": [{"name": name}]}, made), tmp_path)
    check_runs.run([Job("trajectory-narrow", "jax", "float32", 0, 1)], Request(folder=tmp_path, device="gpu"), Silent())
    assert bool(asked) is again


@pytest.mark.parametrize(("git", "again"), [({"commit": "c" * 40, "dirty": True}, True), (None, False)])
def test_two_states_of_changed_sources_are_not_taken_for_the_same(tmp_path, monkeypatch, now, git, again):
    asked = []
    monkeypatch.setattr(check_runs.runner, "run", lambda request, listener: asked.append(1) or [run_of("jax")])
    now["git"] = git  # None where it is installed, and its version says it
    records.save(of(now, run_of("jax", protocol_digest=protocols.load("trajectory-narrow").digest())), tmp_path)
    jobs = [Job("trajectory-narrow", "jax", "float32", 0, 1)]
    check_runs.run(jobs, Request(folder=tmp_path, device="cpu"), Silent())
    assert bool(asked) is again


def test_runs_that_a_folder_has_are_not_made_again(tmp_path, monkeypatch, now):
    asked = []

    def run(request, listener):
        asked.append((request.backends[0], request.command(request.backends[0], "python")))
        return [run_of(request.backends[0])]

    monkeypatch.setattr(check_runs.runner, "run", run)
    digest = protocols.load("trajectory-narrow").digest()
    records.save(of(now, run_of("jax", protocol_digest=digest)), tmp_path)
    records.save(of(now, run_of("torch", protocol_digest=digest, status="failed")), tmp_path)
    jobs = [Job("trajectory-narrow", name, "float32", 0, 1) for name in ("torch", "jax", "torch")]
    assert [run.plan.backend for run in check_runs.run(jobs, Request(folder=tmp_path, device="cpu"), Silent())] == [
        "torch",
        "jax",
        "torch",
    ]
    worker = ["python", "-m", "bench.regression.check_worker"]
    assert asked == [(name, [*worker, "0"]) for name in ("torch", "torch")]


def test_the_oracle_of_a_gpus_reference_is_run_on_a_cpu_and_found_again(tmp_path, monkeypatch, now):
    asked = []

    def run(request, listener):
        asked.append((request.backends[0], request.device))
        digest = protocols.load("trajectory-narrow").digest()
        made = of(now, run_of(request.backends[0], protocol_digest=digest, device=request.device))
        records.save(made, request.folder)
        return [made]

    monkeypatch.setattr(check_runs.runner, "run", run)
    monkeypatch.setattr(check_runs, "resolve_device", lambda device: device)
    jobs = [Job("trajectory-narrow", name, "float32", 0, 1) for name in ("numpy", "jax")]
    for _ in range(2):
        check_runs.run(jobs, Request(folder=tmp_path, device="gpu"), Silent())
    assert asked == [("numpy", "cpu"), ("jax", "gpu")]


def stand_in(monkeypatch, patience):
    """For the runner, on two cores: tells which were in use together; a run waits so many seconds for another."""
    inside, together, begun = [], [], threading.Barrier(2, timeout=patience)

    def run(request, listener):
        core = request.command(request.backends[0], "python")[-1]
        inside.append(core)
        together.append(tuple(inside))
        with suppress(threading.BrokenBarrierError):
            begun.wait()
        inside.remove(core)
        return [run_of(request.backends[0], seed=request.seed)]

    monkeypatch.setattr(check_runs.runner, "run", run)
    monkeypatch.setattr(check_runs.environment, "cores", lambda: 2)
    return together


def test_runs_side_by_side_have_a_core_each_and_their_records_come_in_the_order_of_the_jobs(tmp_path, monkeypatch):
    workers = stand_in(monkeypatch, patience=20)
    jobs = [Job("smoke", name, "float32", seed, 1) for seed in (0, 1) for name in ("torch", "jax", "tensorflow")]
    made = check_runs.run(jobs, Request(folder=tmp_path, device="cpu"), Silent(), parallel=2)
    assert [(run.plan.backend, run.plan.seed) for run in made] == [(job.backend, job.seed) for job in jobs]
    assert {frozenset(cores) for cores in workers if len(cores) == 2} == {frozenset("01")}
    assert max(map(len, workers)) == 2


def test_what_is_side_by_side_is_heard_and_takes_whole_sets_of_cores(tmp_path, monkeypatch):
    """Of three cores two runs on two cores each would share one."""
    asked, listener = [], Silent()
    monkeypatch.setattr(check_runs.runner, "run", lambda *its: asked.append(its) or [run_of("torch")])
    for cores, expected in ((3, ["0,1"] * 2), (4, ["0,1", "2,3"])):
        monkeypatch.setattr(check_runs.environment, "cores", lambda cores=cores: cores)
        asked.clear()
        jobs = [Job("smoke", "torch", "float32", seed, 2) for seed in (0, 1)]
        check_runs.run(jobs, Request(folder=tmp_path, device="cpu"), listener, parallel=2)
        assert {request.command("torch", "python")[-1] for request, _ in asked} <= set(expected)
        assert [its[1] for its in asked] == [listener] * 2


@pytest.mark.parametrize(("threads", "parallel", "device"), [(None, 2, "cpu"), (1, 1, "cpu"), (1, 2, "gpu")])
def test_runs_on_all_cores_or_a_gpu_and_those_that_are_timed_closely_are_alone(
    tmp_path, monkeypatch, threads, parallel, device
):
    monkeypatch.setattr(check_runs, "resolve_device", lambda device: device)
    workers = stand_in(monkeypatch, patience=0.3)
    jobs = [Job("smoke", "torch", "float32", seed, threads) for seed in (0, 1)]
    check_runs.run(jobs, Request(folder=tmp_path, device=device), Silent(), parallel)
    assert max(map(len, workers)) == 1


def test_an_interruption_ends_the_runs_side_by_side_and_begins_no_more(tmp_path, monkeypatch):
    workers, stopped = stand_in(monkeypatch, patience=2), []
    usual = check_runs.runner.run

    def run(request, listener):
        usual(request, listener)
        deadline = time.monotonic() + 20
        while request.backends[0] == "jax" and not request.stopped() and time.monotonic() < deadline:
            time.sleep(0.01)
        stopped.append(request.stopped())
        raise KeyboardInterrupt

    monkeypatch.setattr(check_runs.runner, "run", run)
    jobs = [Job("smoke", name, "float32", 0, 1) for name in ("torch", *["jax"] * 8)]
    with pytest.raises(KeyboardInterrupt):
        check_runs.run(jobs, Request(folder=tmp_path, device="cpu"), Silent(), parallel=2)
    assert stopped[:2] == [False, True]
    assert len(workers) < len(jobs)


# The worker


@pytest.fixture
def one_thread():
    """Torch on one thread, as the check has it for a narrow network."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def first_epoch(rate, folder):
    """What the worker says of the narrow trajectory with torch up to the end of its first epoch, as a record.

    Adam's learning rate is `rate` times what the protocol says.
    """
    part = next(part for part in PARTS if part.name == "trajectory-narrow-float32")
    files = {name: str(folder / name) for name in ("state", "best", "weights")}
    loaded = protocols.load(part.protocol)
    digest = loaded.digest()
    adam = replace(loaded.optimiser, learning_rate=rate * loaded.optimiser.learning_rate)
    loaded = loaded.model_copy(update={"optimiser": adam})
    planned = {"backend": "torch", "device": "cpu", "precision": part.precision, "mode": None, "seed": 0}
    plan = WorkerPlan(protocol=loaded, **planned, round=1, rounds=1, epochs=1, **files)
    events = {}
    for event in worker.carry_out(plan):
        events[type(event)] = event
        if isinstance(event, EpochDone):
            break
    return run_of(
        "torch",
        losses=events[EpochDone].first_epoch_losses,
        digests=events[Started].digests,
        protocol=part.protocol,
        protocol_digest=digest,
    )


@pytest.mark.slow
@requires("torch")
@pytest.mark.parametrize(("rate", "outcome"), [(1, "ok"), (1.05, "regression")])
def test_the_narrow_trajectory_is_a_regression_if_the_learning_rate_is_5_percent_off(
    tmp_path, one_thread, rate, outcome
):
    judged = check.judge([first_epoch(rate, tmp_path)], REFERENCES, ["torch"])
    (trajectory,) = [verdict for verdict in judged if verdict.check == "trajectory"]
    assert trajectory.outcome == outcome
    assert outcome == "ok" or trajectory.share > 2  # not by a hair
    assert "run" not in {verdict.check for verdict in judged}


def test_the_worker_of_the_check_has_as_many_threads_as_the_job_says(tmp_path):
    (made,) = check_runs.run([Job("smoke", "numpy", "float64", 0, 1)], Request(folder=tmp_path, device="cpu"), Silent())
    assert (made.status, made.environment["cores"]) == ("ok", 1)
