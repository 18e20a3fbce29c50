"""Campaigns: what is done once, what is done again, and what a file must say."""

import os
import shutil
import signal
import subprocess
import sys
import time
from threading import Thread

import pytest
from record_factories import record

from bench import records
from bench.errors import BenchError
from bench.records import collection, environment
from bench.running import campaign, engines, job
from bench.running.campaign_state import STATE, locked

# A command of which the third argument says what comes of it; it leaves a mark in its folder each time.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
kind, fate, *options = sys.argv[1:]
folder = Path(options[options.index("--output") + 1])
(folder / "process").write_text(str(os.getpid()))
(folder / "traces").mkdir()
(folder / "made.safetensors").touch()
(folder / "record.json").write_text(kind)
with (folder / "calls").open("a") as calls:
    print(kind, fate, *options, file=calls)
if fate == "long":
    try:
        (folder / "begun").touch()
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "kept").touch()
        raise SystemExit(130)
sys.exit(3 if fate == "fails" else 0)
"""


def of(*fates):
    steps = [campaign.Step(name=fate, folder=fate, command=("run", fate)) for fate in fates]
    return campaign.Campaign(device="cpu", step=steps)


def carry_out(wanted, folder, budget=60.0, interpreters=(), retries=None):
    told = []
    program = (sys.executable, "-c", PROGRAM)
    rows = engines.local(wanted, folder, told.append, budget, retries, interpreters, program)
    return {row.step: row.status for row in rows}, told


def remaining(wanted, folder):
    """What is not done, and how it stands with that."""
    with locked(folder) as (state, _):
        return {row.step: row.status for row in engines._rows(wanted, state, {}) if row.status != "done"}


def calls(folder, fate):
    """The command line of every time that a step was begun."""
    return [path.read_text().strip() for path in sorted((folder / "runs").glob(f"{fate}*/calls"))]


def test_a_step_that_fails_keeps_no_other_from_being_done(tmp_path):
    wanted = of("fails", "works")
    ends, told = carry_out(wanted, tmp_path)
    assert ends == {"fails": "failed", "works": "done"}
    assert remaining(wanted, tmp_path) == {"fails": "failed"}
    assert any(line.startswith("fails: failed after") for line in told)


def test_what_has_been_done_is_not_done_again_unless_it_is_asked_for_otherwise(tmp_path):
    wanted = of("fails", "works")
    carry_out(wanted, tmp_path)
    carry_out(wanted, tmp_path)
    assert len(calls(tmp_path, "works")) == 1
    assert len(calls(tmp_path, "fails")) == 2  # what kept it from working may have been mended
    changed = campaign.Step(name="works", folder="works", command=("sweep", "works"))
    other = campaign.Campaign(device="cpu", step=[changed])
    assert remaining(other, tmp_path) == {"works": "not begun"}
    carry_out(other, tmp_path)
    assert remaining(other, tmp_path) == {}
    assert sorted(call.split()[0] for call in calls(tmp_path, "works")) == ["run", "sweep"]


def test_what_is_at_work_when_the_budget_ends_is_interrupted_and_begun_again(tmp_path):
    wanted = of("works", "long", "never")
    ends, _ = carry_out(wanted, tmp_path, budget=3.0)
    assert ends == {"works": "done", "long": "cut off", "never": "not begun"}
    assert (tmp_path / "runs" / "long" / "kept").exists()
    assert not (tmp_path / "long").exists()
    assert remaining(wanted, tmp_path) == {"long": "cut off", "never": "not begun"}
    ends, told = carry_out(of("works", "long", "fails"), tmp_path, budget=3.0)
    assert ends == {"works": "done", "long": "cut off", "fails": "failed"}
    assert [line.split(":")[0] for line in told] == ["fails", "fails", "long", "long"]  # lest it keep all others
    assert len(calls(tmp_path, "long")) == 2
    assert len(calls(tmp_path, "works")) == 1


@pytest.fixture
def handlers():
    """The signal handlers of the command line, and afterwards those that were there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    for number in before:  # in the background of a shell, or under nohup, tests inherit that some are ignored
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    job.interrupt_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(120)  # less than the grace that an interrupted command has
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_campaign_alone_ends_what_is_at_work_at_once(tmp_path, monkeypatch, handlers, number):
    monkeypatch.setattr(job, "GRACE_SECONDS", 600.0)

    def interrupt():
        while not (tmp_path / "runs" / "long" / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    Thread(target=interrupt, daemon=True).start()
    wanted = of("long", "works")
    with pytest.raises(KeyboardInterrupt):
        carry_out(wanted, tmp_path)
    assert (tmp_path / "runs" / "long" / "kept").exists()
    assert remaining(wanted, tmp_path) == {"long": "cut off", "works": "not begun"}


def test_only_the_first_of_several_signals_interrupts(handlers):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    try:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    except KeyboardInterrupt:  # which would end all tests
        pytest.fail("a later signal interrupts too")


def test_a_signal_that_was_ignored_stays_so():
    """As `nohup` has it."""
    code = (
        "import signal; from bench.running import job; job.interrupt_on_signals(); signal.raise_signal(signal.SIGHUP)"
    )
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a child inherits
    try:
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    finally:
        signal.signal(signal.SIGHUP, hang_up)


def test_a_command_that_was_asked_to_end_is_never_done_whatever_its_exit_code():
    """Python says 0 of a process that ended while a signal interrupted the wait for it."""
    command = [sys.executable, "-c", "import signal, time; signal.signal(15, lambda *_: exit(0)); time.sleep(60)"]
    assert job.carry_out(command, 3.0).exit_code == job.INTERRUPTED
    assert job.carry_out([sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"]).exit_code == job.INTERRUPTED
    assert job.carry_out([sys.executable, "-c", "raise SystemExit(5)"]).exit_code == 5


def test_two_campaigns_in_one_folder_are_refused_and_a_dead_one_keeps_nobody_out(tmp_path):
    script = "\n".join(
        [
            "import sys",
            "from pathlib import Path",
            "from bench.running import campaign, engines",
            "step = campaign.Step(name='long', folder='long', command=('run', 'long'))",
            "wanted = campaign.Campaign(device='cpu', step=[step])",
            "engines.local(wanted, Path(sys.argv[1]), print, program=(sys.executable, '-c', sys.argv[2]))",
        ]
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), PROGRAM], stdout=subprocess.DEVNULL)
    begun = tmp_path / "runs" / "long" / "begun"
    while not begun.exists():
        time.sleep(0.05)
    with pytest.raises(BenchError, match=f"a campaign is at work here .process {other.pid} on"):
        carry_out(of("works"), tmp_path)
    other.kill()
    other.wait()
    with pytest.raises(BenchError, match="or a step that it began"):  # which is still at work
        carry_out(of("works"), tmp_path)
    os.kill(int((begun.parent / "process").read_text()), signal.SIGKILL)
    while True:  # until the kernel has ended it
        try:
            carry_out(of("works"), tmp_path)
            break
        except BenchError:
            time.sleep(0.05)
    assert remaining(of("works", "long"), tmp_path) == {"long": "cut off"}


def test_a_step_is_begun_again_as_often_as_is_allowed_in_all_calls(tmp_path):
    wanted = of("fails", "works")
    carry_out(wanted, tmp_path, retries=0)
    assert len(calls(tmp_path, "fails")) == 1
    ends, _ = carry_out(wanted, tmp_path, retries=2)
    assert ends == {"fails": "failed", "works": "done"}
    assert len(calls(tmp_path, "fails")) == 3
    carry_out(wanted, tmp_path, retries=2)
    assert len(calls(tmp_path, "fails")) == 3
    assert len(calls(tmp_path, "works")) == 1
    assert [path.name for path in (tmp_path / "fails").glob("*.json")] == ["record.json"]  # its own one is replaced


def unfinished(attempt):
    """Leave what a run leaves that was cut off."""
    (attempt / ".unfinished-run").mkdir(exist_ok=True)
    (attempt / ".unfinished-run" / "request.json").touch()


def test_each_attempt_has_a_name_of_its_own_though_the_folder_before_becomes_the_next(tmp_path):
    (wanted,) = of("long").step
    with locked(tmp_path) as (state, _):
        for expected in ("long", "long-2", "long-3", "long-4"):
            folder = state.begin(wanted, tmp_path, "cut off")
            assert folder.name == expected
            unfinished(folder)
            for suffix in (".job", ".ended", ".log"):  # as a job leaves them
                job.beside(folder, suffix).touch()
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["long-4"]


def test_steps_that_share_folder_and_command_keep_all_their_records(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "record.json").write_text("of an earlier campaign")
    steps = [campaign.Step(name=name, folder="kept", command=("run", "works")) for name in ("a", "a b", "a-b")]
    carry_out(campaign.Campaign(device="cpu", step=steps), tmp_path)
    kept = sorted((tmp_path / "kept").glob("record*.json"))
    assert [path.name for path in kept] == ["record-2.json", "record-3.json", "record-4.json", "record.json"]
    assert kept[3].read_text() == "of an earlier campaign"
    assert "runs/a-b-2" in (tmp_path / "kept" / "calls-4").read_text()


def test_device_and_folder_are_handed_on_and_each_command_gets_the_interpreters(tmp_path, monkeypatch):
    """`agree` is run by that of its backend, with a worker's variables; the others hand them to their workers."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nenv > {tmp_path}/of-jax\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    commands = {"run": (), "agree": ("--backends", "jax"), "agree-other": ("--backends=torch",)}
    steps = [
        campaign.Step(name=name, folder=name, command=(name.partition("-")[0], "works", *more))
        for name, more in commands.items()
    ]
    ends, told = carry_out(campaign.Campaign(device="gpu", step=steps), tmp_path, interpreters=[f"jax={python}"])
    assert set(ends.values()) == {"done"}
    handed = {name: calls(tmp_path, name)[0] for name in commands}
    where = {name: f"--device gpu --output {tmp_path / 'runs' / name}" for name in commands}
    assert handed["run"] == f"run works {where['run']} --python jax={python}"
    assert handed["agree"] == f"agree works --backends jax {where['agree']}"
    assert handed["agree-other"] == f"agree works --backends=torch {where['agree-other']}"
    variables = (tmp_path / "of-jax").read_text().splitlines()
    assert "XLA_PYTHON_CLIENT_PREALLOCATE=false" in variables
    threads = [name for name in variables if name.startswith("OMP_NUM_THREADS=")]
    assert threads == [f"OMP_NUM_THREADS={environment.cores()}"]
    given = (steps[1], of("works"), tmp_path / "there", [f"jax={python}"], ())
    assert threads[0] in engines._command(*given)
    assert threads[0] not in engines._command(*given, elsewhere=True)  # which has other cores
    by = {line.split(":")[0]: str(python) in line.split(" -c ")[0] for line in told if " -c " in line}
    assert by == {"run": False, "agree": True, "agree-other": False}


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on(tmp_path):
    """A real one; killed with the campaign, when its first state lies on disk."""
    (tmp_path / "c.toml").write_text(
        'device = "cpu"\n[[step]]\nname = "a"\nfolder = "a"\n'
        'command = ["run", "--protocol", "smoke", "--epochs", "40", "--backends", "numpy"]\n'
    )
    output = tmp_path / "made"
    command = [sys.executable, "-m", "bench", "campaign", str(tmp_path / "c.toml"), "--output", str(output)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        while not list(output.glob("runs/a/.unfinished-*/numpy/state.safetensors")):
            assert first.poll() is None
            time.sleep(0.01)
        first.terminate()
    assert first.returncode == 130
    assert not (output / "a").exists()
    subprocess.run(command, check=True, capture_output=True)
    [record] = collection.load_all(output / "a")
    assert [point.epoch for point in record.curve] == list(range(1, 41))
    assert next(m.value for m in record.measurements if m.quantity == "resumed_after_epochs") >= 1
    assert [path.name for path in (output / "runs").iterdir()] == ["a-2"]


def test_records_are_kept_in_the_steps_folder_without_weights_and_traces_the_newest_of_a_name(tmp_path):
    for kind in ("run", "sweep"):
        step = campaign.Step(name="works", folder="kept", command=(kind, "works"))
        carry_out(campaign.Campaign(device="cpu", step=[step]), tmp_path)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["calls", "process", "record.json"]
    assert (tmp_path / "kept" / "record.json").read_text() == "sweep"
    assert (tmp_path / "runs" / "works" / "record.json").read_text() == "run"


def ended(folder, step, code, *made, cut_off=False):
    """Let an attempt at a step end with this exit code; what became of it."""
    with locked(folder) as (state, _):
        attempt = state.begin(step, folder, "cut off")
        for each in made:
            records.save(each, attempt)
        if cut_off:
            unfinished(attempt)
        return state.end(step.name, job.Ending(exit_code=code, seconds=1.0), folder)


def test_a_run_that_was_asked_to_end_while_it_wrote_its_tables_is_done(tmp_path):
    (step,) = of("long").step
    assert ended(tmp_path / "a", step, job.INTERRUPTED, record(), record("jax")).status == "done"
    assert sorted(path.name for path in (tmp_path / "a" / "long").iterdir()) == [
        "article-jax-cpu-float32-seed0.json",
        "article-torch-cpu-float32-seed0.json",
    ]
    for name, (made, more) in {
        "nothing": ((), {}),
        "unfinished": ((record(),), {"cut_off": True}),
        "failed": ((record(), record("jax", status="failed", reason="r")), {}),
    }.items():
        assert ended(tmp_path / name, step, job.INTERRUPTED, *made, **more).status == "cut off"
        assert not (tmp_path / name / "long").exists()
    missing = record("jax", status="unavailable", reason="no jax")
    assert ended(tmp_path / "m", step, job.INTERRUPTED, record(), missing).status == "done"
    named = campaign.Step(name="n", folder="n", command=("run", "--backends=torch,jax"))
    assert ended(tmp_path / "n", named, job.INTERRUPTED, record(), missing).status == "cut off"
    assert ended(tmp_path / "none", step, job.INTERRUPTED, missing).status == "cut off"
    sweep = campaign.Step(name="s", folder="s", command=("sweep",))  # whose other axes are yet to be measured
    assert ended(tmp_path / "s", sweep, job.INTERRUPTED, record(kind="sweep")).status == "cut off"


@pytest.mark.parametrize("code", [-9, 137])
def test_a_run_that_was_killed_goes_on(tmp_path, code):
    (step,) = of("long").step
    outcome = ended(tmp_path, step, code, cut_off=True)
    assert (outcome.status, outcome.reason) == ("cut off", f"killed (exit code {code})")
    with locked(tmp_path) as (state, _):
        assert (state.begin(step, tmp_path, "cut off") / ".unfinished-run" / "request.json").exists()


@pytest.mark.parametrize("code", [-11, 137])
def test_what_was_killed_and_cannot_go_on_has_failed_and_its_records_are_kept(tmp_path, code):
    sweep = campaign.Step(name="s", folder="s", command=("sweep",))
    assert ended(tmp_path, sweep, code, record(kind="sweep")).status == "failed"
    assert len(list((tmp_path / "s").iterdir())) == 1
    (run,) = of("long").step
    assert ended(tmp_path / "whole", run, code, record()).status == "done"  # while it wrote its tables
    assert ended(tmp_path / "begun", run, code, record(status="failed", reason="r")).status == "failed"


def test_an_attempt_that_was_killed_before_it_said_what_it_is_of_begins_anew(tmp_path):
    (step,) = of("long").step
    with locked(tmp_path) as (state, _):
        (state.begin(step, tmp_path, "cut off") / ".unfinished-run").mkdir()
        again = state.begin(step, tmp_path, "cut off")
        assert list(again.iterdir()) == []
        assert "--resume" not in engines._command(step, of("long"), again, (), ())
        unfinished(again)
        assert "--resume" in engines._command(step, of("long"), again, (), ())


def test_pages_are_not_kept_so_that_records_have_their_names(tmp_path):
    steps = [campaign.Step(name=name, folder="kept", command=("run", name)) for name in ("a", "b")]
    for seed, step in enumerate(steps):
        with locked(tmp_path) as (state, _):
            attempt = state.begin(step, tmp_path, "cut off")
            records.save(record(seed=seed), attempt)
            (attempt / "report.html").touch()
            state.end(step.name, job.Ending(exit_code=0, seconds=1.0), tmp_path)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        f"article-torch-cpu-float32-seed{seed}.json" for seed in (0, 1)
    ]


def test_a_step_that_fails_keeps_what_it_made(tmp_path):
    carry_out(of("fails"), tmp_path)
    assert (tmp_path / "fails" / "record.json").exists()


def test_what_a_failed_attempt_left_under_another_name_goes_once_there_is_a_better_one(tmp_path):
    """A record has no mode in its name where its worker never said it."""
    step = campaign.Step(name="works", folder="kept", command=("run", "works"))
    with locked(tmp_path) as (state, _):
        for name, code in (("torch.json", 1), ("torch-eager.json", 0)):
            (state.begin(step, tmp_path, "cut off") / name).write_text(name)
            state.end("works", job.Ending(exit_code=code, seconds=1.0), tmp_path)
            assert [path.name for path in (tmp_path / "kept").iterdir()] == [name]
        assert state.steps["works"].kept == ("kept/torch-eager.json",)
        state.begin(step, tmp_path, "cut off")
        state.end("works", job.Ending(exit_code=1, seconds=1.0), tmp_path)  # it made nothing
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["torch-eager.json"]


def test_a_campaign_that_ends_while_it_copies_leaves_no_record_twice(tmp_path, monkeypatch):
    copied = []

    def copy(*paths):
        copied.append(copy2(*paths))
        if len(copied) == 3:
            raise KeyboardInterrupt

    copy2 = shutil.copy2
    monkeypatch.setattr(shutil, "copy2", copy)
    with pytest.raises(KeyboardInterrupt):
        carry_out(of("works"), tmp_path)
    assert sorted(path.name for path in (tmp_path / "works").glob("[!.]*")) == ["calls", "process"]
    assert carry_out(of("works"), tmp_path)[0] == {"works": "done"}
    assert sorted(path.name for path in (tmp_path / "works").iterdir()) == ["calls", "process", "record.json"]


def test_a_folder_with_something_else_in_it_is_refused(tmp_path):
    (tmp_path / STATE).write_text("[]")
    with pytest.raises(BenchError, match="not the state of a campaign"):
        carry_out(of("works"), tmp_path)
    assert (tmp_path / STATE).read_text() == "[]"
