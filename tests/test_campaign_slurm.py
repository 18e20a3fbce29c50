"""Campaigns on a real SLURM: what is submitted, how often, and what remains when something is killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from slurm_cluster import Cluster, wait_for

from bench.errors import BenchError
from bench.records import collection
from bench.running import campaign, engines
from bench.running.campaign_state import locked

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

# A command of which the second argument says what comes of it: "holds" goes on until the campaign's folder is released.
PROGRAM = """
import sys, time
from pathlib import Path
kind, fate, *options = sys.argv[1:]
folder = Path(options[options.index("--output") + 1])
(folder / "record.json").write_text(fate)
with (folder / "calls").open("a") as calls:
    print(kind, fate, *options, file=calls)
while fate.startswith("holds") and not (folder.parent.parent / "released").exists():
    time.sleep(0.05)
sys.exit(3 if fate == "fails" else 0)
"""

# The same engine in a process of its own, which can be killed.
SUBMITTER = """
import sys
from pathlib import Path
from bench.running import campaign, engines
file, output, program = sys.argv[1:]
engines.Slurm(campaign.load(file), Path(output), program=(sys.executable, "-c", program)).advance()
"""

SMOKE = """
device = "cpu"
slurm = { time = "10", mem = "900", constraint = "on-n2" }

[[step]]
name = "smoke"
folder = "smoke"
command = ["run", "--protocol", "smoke", "--epochs", "20"]
matrix = { backends = ["numpy"], seeds = [0, 1] }
slurm = { constraint = "on-n1" }

[[step]]
name = "lost"
folder = "smoke"
command = ["run", "--protocol", "smoke", "--epochs", "20", "--backends", "numpy", "--seed", "2"]
"""


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as running:
        yield running


@pytest.fixture(scope="module")
def late(cluster, tmp_path_factory):
    """A job that will reach its time limit: begun first, since SLURM's least is a minute."""
    jobs = engine(of("holds"), tmp_path_factory.mktemp("late"), slurm={"time": "1", "constraint": "on-n3"})
    jobs.advance()
    return jobs


def of(*fates, **options):
    steps = [campaign.Step(name=fate, folder=fate, command=("run", fate), **options) for fate in fates]
    return campaign.Campaign(device="cpu", step=steps)


def engine(wanted, output, retries=0, slurm=()):
    resources = campaign.Resources(**dict(slurm))
    return engines.Slurm(wanted, output, retries, resources, program=(sys.executable, "-c", PROGRAM))


def running(jobs):
    """The rows of a campaign once all its jobs run."""
    return wait_for(lambda: (rows := by_name(jobs)) and all(row.status == "running" for row in rows.values()) and rows)


def ended(jobs):
    """The rows of a campaign once none of its jobs is queued or running."""
    return wait_for(lambda: (rows := by_name(jobs)) and not any(row.job for row in rows.values()) and rows)


def by_name(jobs):
    return {row.step: row for row in jobs.advance()}


def submitted(cluster, output):
    """The names of all jobs that were ever submitted for a campaign, as SLURM remembers them."""
    with locked(output, 60) as (state, _):
        key = state.key
    names = cluster.ask("squeue", "--noheader", "--states=all", "--format=%j").split()
    return sorted(name.removesuffix(f".{key}") for name in names if name.endswith(key))


def process_of(output, attempt):
    """The process of a job's own Python, by its attempt's folder."""
    command = ["-m", "bench.running.job", str(output / "runs" / attempt)]
    return wait_for(lambda: next((one for one in psutil.process_iter() if cmdline(one)[1:4] == command), None))


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_steps_become_jobs_once_and_their_records_are_kept(cluster, late, tmp_path):
    wanted = of("works", "fails", "holds")
    first, second = engine(wanted, tmp_path), engine(wanted, tmp_path)
    first.advance()
    assert wait_for(lambda: by_name(second)["holds"].status == "running")
    with pytest.raises(BenchError, match="SLURM jobs that may not have ended"):
        engines.local(wanted, tmp_path, print)
    (tmp_path / "released").touch()
    rows = ended(second)
    assert {name: row.status for name, row in rows.items()} == {"works": "done", "fails": "failed", "holds": "done"}
    assert rows["fails"].reason == f"exit code 3, see {tmp_path}/runs/fails.log"
    assert submitted(cluster, tmp_path) == ["fails", "holds", "works"]
    assert {name: (tmp_path / name / "record.json").read_text() for name in rows} == {name: name for name in rows}
    ended(engine(wanted, tmp_path, retries=2))
    assert submitted(cluster, tmp_path) == ["fails", "fails-2", "fails-3", "holds", "works"]
    assert [path.name for path in (tmp_path / "fails").glob("*.json")] == ["record.json"]


def test_a_killed_submitter_and_two_at_once_submit_nothing_twice(cluster, late, tmp_path):
    (tmp_path / "c.toml").write_text(
        'device = "cpu"\n'
        + "".join(f'[[step]]\nname="s{n}"\nfolder="s"\ncommand=["run", "works"]\n' for n in range(30))
    )
    output = tmp_path / "made"
    command = [sys.executable, "-c", SUBMITTER, str(tmp_path / "c.toml"), str(output), PROGRAM]
    first = subprocess.Popen(command)
    wait_for(lambda: len(list((output / "runs").glob("s*"))) > 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len({path.stem for path in (output / "runs").glob("s*")}) < 30
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    jobs = engine(campaign.load(str(tmp_path / "c.toml")), output)
    assert {row.status for row in ended(jobs).values()} == {"done"}
    # A submitter that is killed before SLURM has the job of an attempt has used that number up: `s9-2` is then its job.
    steps = sorted(name.partition("-")[0] for name in submitted(cluster, output))
    assert steps == sorted(f"s{n}" for n in range(30))
    assert len(list((output / "s").glob("record*.json"))) == 30  # of one name and one folder: none replaces another
    assert all(len(path.read_text().splitlines()) == 1 for path in (output / "s").glob("calls*"))


def test_a_job_that_slurm_knows_but_no_note_does_is_not_submitted_again(cluster, late, tmp_path):
    """What a submitter leaves that was killed after SLURM took the job, and what one leaves that was killed before."""
    jobs = engine(of("holds"), tmp_path)
    with locked(tmp_path) as (state, _):
        state.begin(jobs.campaign.step[0], tmp_path, "submitted")
    running(jobs)
    assert submitted(cluster, tmp_path) == ["holds"]
    log = tmp_path / "runs" / "twice.log"
    script = f"{sys.executable} -m bench.running.job {tmp_path / 'runs' / 'holds'} touch {tmp_path / 'twice'}"
    cluster.ask("sbatch", "--wait", f"--output={log}", "--wrap", script)  # as if it had been
    assert "nothing is done twice" in log.read_text()
    assert not (tmp_path / "twice").exists()
    (tmp_path / "released").touch()
    assert ended(jobs)["holds"].status == "done"


def test_a_job_that_is_killed_cancelled_or_preempted_says_so_and_is_begun_again(cluster, late, tmp_path):
    steps = [
        campaign.Step(name=name, folder=name, command=("run", "holds"), slurm={"constraint": f"on-{node}"})
        for name, node in [("killed", "n1"), ("cancelled", "n1"), ("preempted", "n2")]
    ]
    jobs = engine(campaign.Campaign(device="cpu", step=steps), tmp_path)
    jobs.advance()
    rows = running(jobs)
    wait_for(lambda: len(list(tmp_path.glob("runs/*/record.json"))) == 3)
    process_of(tmp_path, "killed").kill()
    cluster.ask("scancel", rows["cancelled"].job)
    cluster.ask(
        "sbatch", "--wait", "--partition=urgent", "--nodelist=n2", "--exclusive", "--output=/dev/null", "--wrap=:"
    )
    rows = ended(jobs)
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys(rows, "cut off")
    assert rows["killed"].reason.startswith("it could not say how it ended")
    assert rows["cancelled"].reason == "SLURM: CANCELLED"
    assert rows["preempted"].reason == "SLURM: PREEMPTED"
    (tmp_path / "released").touch()
    again = ended(engine(jobs.campaign, tmp_path, retries=1))
    assert {row.status for row in again.values()} == {"done"}
    assert {path.read_text() for path in tmp_path.glob("runs/*/record.json")} == {"holds"}
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 6  # what was measured before the end is still there


def test_what_slurm_refuses_is_a_row_with_its_words_and_is_submitted_when_mended(cluster, late, tmp_path):
    wrong = engine(of("works"), tmp_path, slurm={"partition": "nowhere"})
    for _ in range(2):
        assert "invalid partition" in by_name(wrong)["works"].reason
    assert not by_name(wrong)["works"].job
    assert ended(engine(of("works"), tmp_path))["works"].status == "done"
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == ["works"]


def test_nothing_is_lost_when_a_job_a_node_and_the_submitter_are_killed(cluster, late, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the jobs run side by side
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    (tmp_path / "smoke.toml").write_text(SMOKE)
    output = tmp_path / "made"
    runs = output / "runs"
    command = [sys.executable, "-m", "bench", "campaign", str(tmp_path / "smoke.toml"), "--output", str(output)]
    command += ["--engine", "slurm", "--retries", "1", "--slurm", "cpus-per-task=1"]
    with subprocess.Popen([*command, "--watch"], stderr=subprocess.DEVNULL) as watcher:
        try:
            for attempt in ("smoke-seed-0-numpy", "lost"):
                wait_for(lambda log=runs / f"{attempt}.log": log.exists() and "epoch 1" in log.read_text())
        finally:
            watcher.kill()
    process_of(output, "smoke-seed-0-numpy").send_signal(signal.SIGTERM)
    cluster.lose_node("n2")
    left = ended(engines.Slurm(campaign.load(str(tmp_path / "smoke.toml")), output, retries=0))
    assert [row.status for row in left.values()] == ["cut off", "done", "cut off"]
    assert left["lost"].reason == "SLURM: NODE_FAIL"
    cluster.begin_node("n2")
    done = subprocess.run([*command, "--watch"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "smoke, seed 0, numpy: done" in done.stderr
    kept = collection.load_all(output)
    assert sorted((record.plan.seed, record.status) for record in kept) == [(0, "ok"), (1, "ok"), (2, "ok")]
    assert submitted(cluster, output) == [
        *("lost", "lost-2", "smoke-seed-0-numpy", "smoke-seed-0-numpy-2", "smoke-seed-1-numpy")
    ]
    attempts = sorted(path.name for path in runs.iterdir() if path.is_dir())
    assert attempts == ["lost-2", "smoke-seed-0-numpy-2", "smoke-seed-1-numpy"]  # what was cut off went on there
    assert all([point.epoch for point in record.curve] == list(range(1, 21)) for record in kept)


def test_srun_on_two_nodes_makes_one_record_with_the_losses_of_one_device(cluster, late, tmp_path, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # in place of n1, a name that is known to this SLURM alone
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = [
        "srun",
        "-N2",
        "--ntasks-per-node=1",
        "--nodelist=n1,n2",
        "--time=5",
        sys.executable,
        "-m",
        "bench",
        "run",
    ]
    command += ["--protocol", "smoke", "--device", "cpu", "--precision", "float64", "--rounds", "1", "--tables", "none"]
    command += ["--backends", "torch", "--devices", "1,2", "--output", str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    alone, together = sorted(collection.load_all(tmp_path / "made"), key=lambda record: record.plan.devices)
    assert (together.plan.devices, together.plan.nodes, together.status) == (2, 2, "ok")
    losses, expected = ([point.train_loss for point in record.curve] for record in (together, alone))
    assert losses == pytest.approx(expected, rel=1e-11, abs=0)
    assert len(losses) == 2


def test_a_job_that_reaches_its_time_limit_says_so(cluster, late):
    row = ended(late)["holds"]
    assert (row.status, row.reason) == ("cut off", "SLURM: TIMEOUT")
    assert "DUE TO TIME LIMIT" in (late.output / "runs" / "holds.log").read_text()
    assert "TIME LIMIT" in engines._reason(late.output / "runs" / "holds.log", None)  # for who asks when SLURM forgot


def test_no_squeue_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PATH", "")
    with pytest.raises(BenchError, match="needs SLURM's sbatch and squeue"):
        engine(of("works"), tmp_path).advance()
