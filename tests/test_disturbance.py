"""What others use of cores, quota and GPU: measured, in the tables, and in comparisons."""

import os
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from record_factories import measurement, record, row, seconds

from bench import tables
from bench.comparison.matching import sides
from bench.comparison.observations import observations
from bench.measures import disturbance
from bench.tables.headline_tables import headline


def stat(busy, steal=0):
    """A /proc/stat of two cores with these ticks of user time each, and some idle and waiting time."""
    core = f"{busy} 0 0 1000 50 0 0 {steal} 7 0"
    return f"cpu  1 2 3 4\ncpu0 {core}\ncpu1 {core}\ncpu2 999999 0 0 0 0 0 0 0 0 0\nintr 5\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two cores of three, 100 ticks a second, and a clock, ticks and times of this process to set."""

    class Machine:
        path, wall, own = tmp_path / "stat", 0.0, 0.0

        def set(self, wall, own, **ticks):
            self.wall, self.own = wall, own
            self.path.write_text(stat(**ticks), encoding="ascii")

    made = Machine()
    monkeypatch.setattr(disturbance, "STAT", made.path)
    monkeypatch.setattr(disturbance.environment, "cpu_quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2} if pid else {0, 1})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    monkeypatch.setattr(os, "times", lambda: (made.own, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(time, "perf_counter", lambda: made.wall)
    return made


def test_what_is_not_its_own_is_others(machine):
    machine.set(0.0, 5.0, busy=1000)
    others = disturbance.Others()
    machine.set(10.0, 17.0, busy=1700)  # 14 of 20 seconds busy, 12 of them its own
    assert others.share() == pytest.approx(0.1)
    machine.set(20.0, 17.0, busy=1700, steal=500)  # 10 seconds were stolen from both together
    assert others.share() == pytest.approx(0.5)


def test_waiting_guests_other_cores_and_children_are_counted_for_what_they_are(machine, monkeypatch):
    def set_to(wall, user, waiting, guest, elsewhere, own):
        core = f"{user} 0 0 0 {waiting} 0 0 0 {guest} {guest}"
        machine.wall = wall
        machine.path.write_text(f"cpu0 {core}\ncpu1 {core}\ncpu2 {elsewhere} 0 0 0 0 0 0 0 0 0\n", encoding="ascii")
        monkeypatch.setattr(os, "times", lambda: (*own, wall))

    set_to(0.0, user=0, waiting=0, guest=0, elsewhere=0, own=(0.0, 0.0, 0.0, 0.0))
    others = disturbance.Others()
    # Of 20 s on two cores 10 were busy (a guest's are among the user's), of which 1 + 2 + 1 + 2 were its own.
    set_to(10.0, user=500, waiting=300, guest=200, elsewhere=900, own=(1.0, 2.0, 1.0, 2.0))
    assert others.share() == pytest.approx(4 / 20)


SPIN = "import time\nwhile time.process_time() < 0.6: pass\nprint(flush=True); input()"
START = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"


@pytest.mark.parametrize("program", [SPIN, START])
def test_of_several_devices_what_its_living_processes_use_is_its_own(program):
    """As the ranks of a training, which end after its last epoch."""
    before, alone = disturbance._own(True), disturbance._own(False)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        living = disturbance._own(True)
        assert disturbance._own(False) - alone < 0.5
        child.communicate(b"\n")
    assert living - before >= 0.5
    assert living <= disturbance._own(True) < living + 0.5  # waited for, it is counted once


def test_a_process_that_has_just_ended_is_no_error(machine, monkeypatch):
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        ended = disturbance.psutil.Process(child.pid)
        child.wait()
    monkeypatch.setattr(disturbance.psutil.Process, "children", lambda self, recursive: [ended])
    machine.set(0.0, 5.0, busy=0)
    assert disturbance._own(True) == 5.0


def test_only_of_several_devices_are_the_processes_asked_for(machine, monkeypatch):
    child = SimpleNamespace(cpu_times=lambda: (100 + machine.wall / 2, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(disturbance.psutil.Process, "children", lambda self, recursive: [child])
    machine.set(0.0, 0.0, busy=0)
    one, two = disturbance.Others("cpu"), disturbance.Others("cpu", 2)
    machine.set(10.0, 5.0, busy=600)  # 12 of 20 seconds, 5 of this process and 5 of its child
    assert (one.share(), two.share()) == (pytest.approx(7 / 20), pytest.approx(2 / 20))


def test_a_share_is_never_negative_nor_more_than_all(machine):
    machine.set(0.0, 0.0, busy=0)
    others = disturbance.Others()
    machine.set(1.0, 2.5, busy=100)
    assert others.share() == 0.0
    machine.set(2.0, 2.5, busy=900)
    assert others.share() == 1.0


@pytest.mark.parametrize(("processes", "share"), [(4, 0.75), (1, 0.1)])
def test_on_a_gpu_the_larger_share_counts_of_it_and_of_the_cores(machine, monkeypatch, processes, share):
    monkeypatch.setattr(disturbance.environment, "gpu_state", lambda: {"processes": processes})
    machine.set(0.0, 0.0, busy=0)
    others = disturbance.Others("gpu")
    machine.set(10.0, 0.0, busy=100)
    assert others.share() == pytest.approx(share)


def test_a_share_of_no_time_is_not_known(machine):
    machine.set(5.0, 1.0, busy=100)
    others = disturbance.Others()
    assert others.share() is None


@pytest.mark.parametrize(("share", "busy"), [(0.1, False), (0.1001, True), (None, False)])
def test_more_than_a_tenth_disturbs_and_what_is_not_known_does_not(share, busy):
    measured = [
        measurement("training", quantity, value, "1") for quantity, value in (("others_share", share), ("x", 1.0))
    ]
    assert disturbance.disturbed(record(measurements=measured)) == busy


@pytest.mark.parametrize(
    ("periods", "own", "share"),
    [
        ((100, 100), 5.0, 0.0),  # its own threads use up the quota of half a core: that is a limit, and no disturbance
        ((100, 100), 2.0, 0.6),
        ((100, 25), 2.0, 0.15),
        ((100, 0), 2.0, 0.0),
        ((0, 0), 2.0, 0.0),
    ],
)
def test_of_a_quota_others_used_what_this_process_had_not_while_it_was_used_up(
    machine, monkeypatch, periods, own, share
):
    found = iter([(1000, 50), (1000 + periods[0], 50 + periods[1])])
    monkeypatch.setattr(disturbance.environment, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(disturbance.environment, "quota_periods", lambda: next(found))
    machine.set(70.0, 30.0, busy=0)
    others = disturbance.Others()
    machine.set(80.0, 30.0 + own, busy=0)
    assert others.share() == pytest.approx(share)


@pytest.mark.parametrize("periods", [(None, (1100, 150)), ((1000, 50), None), (None, None)])
def test_a_quota_whose_periods_are_not_known_says_nothing(machine, monkeypatch, periods):
    found = iter(periods)
    monkeypatch.setattr(disturbance.environment, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(disturbance.environment, "quota_periods", lambda: next(found))
    machine.set(70.0, 30.0, busy=0)
    others = disturbance.Others()
    machine.set(80.0, 30.0, busy=0)
    assert others.share() == 0.0


def test_of_a_quota_of_more_than_the_cores_the_cores_count(machine, monkeypatch):
    found = iter([(1000, 50), (1100, 150)])
    monkeypatch.setattr(disturbance.environment, "cpu_quota", lambda: 8.0)
    monkeypatch.setattr(disturbance.environment, "quota_periods", lambda: next(found))
    machine.set(70.0, 30.0, busy=0)
    others = disturbance.Others()
    machine.set(80.0, 45.0, busy=0)
    assert others.share() == pytest.approx(1 - 15 / 20)


@pytest.mark.parametrize(("processes", "share"), [(1, 0.0), (0, 0.0), (2, 0.5), (4, 0.75), (None, None)])
def test_on_a_gpu_others_are_the_other_processes_that_compute_on_it(monkeypatch, tmp_path, processes, share):
    monkeypatch.setattr(disturbance, "STAT", tmp_path / "none")
    monkeypatch.setattr(disturbance.environment, "gpu_state", lambda: {"processes": processes})
    assert disturbance.Others("gpu").share() == share
    assert disturbance.Others("cpu").share() is None


@pytest.mark.parametrize(
    ("busy", "state", "words"),
    [
        (0, {"utilisation": 0.1, "processes": 0}, None),
        (20, {}, None),  # a tenth, and no more
        (180, {}, "90 % of this machine's cores"),
        (0, {"utilisation": 0.0, "processes": 2}, "the GPU (2 processes)"),
        (100, {"utilisation": 0.9, "processes": None}, "50 % of this machine's cores and the GPU (hidden processes)"),
    ],
)
def test_what_is_busy_at_the_start_is_said(machine, monkeypatch, busy, state, words):
    monkeypatch.setattr(disturbance.environment, "gpu_state", lambda: state)
    monkeypatch.setattr(time, "sleep", lambda seconds: machine.set(2.0 * seconds, 0.0, busy=busy))
    machine.set(0.0, 0.0, busy=0)
    assert disturbance.busy_at_start("gpu") == words


def test_before_work_on_a_cpu_no_gpu_is_asked(machine, monkeypatch):
    monkeypatch.setattr(disturbance.environment, "gpu_state", lambda: {"utilisation": 0.9, "processes": 3})
    monkeypatch.setattr(time, "sleep", lambda seconds: machine.set(2.0, 0.0, busy=0))
    machine.set(0.0, 0.0, busy=0)
    assert disturbance.busy_at_start("cpu") is None


def test_where_nothing_can_be_read_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(disturbance, "STAT", tmp_path / "none")
    assert disturbance.Others().share() is None


@pytest.mark.skipif(not disturbance.STAT.exists(), reason="no /proc/stat")
def test_a_busy_process_beside_this_one_is_seen():
    others = disturbance.Others()
    start = f"{shlex.quote(sys.executable)} -c 'while True: pass' >/dev/null & echo $!"  # left by its parent: no child
    busy = int(subprocess.run(["sh", "-c", start], stdout=subprocess.PIPE, check=True).stdout)
    time.sleep(1.0)
    share = others.share()
    os.kill(busy, signal.SIGKILL)
    assert share > 0.5 / len(os.sched_getaffinity(0))


def run_of(backend, time_, share):
    made = [*seconds(time_, time_)]
    made += [measurement("training", "others_share", s, "1", round=i) for i, s in enumerate(share, 1)]
    return record(backend, measurements=made)


@pytest.mark.parametrize("table", [tables.speed, headline])
def test_a_disturbed_run_is_shown_and_never_the_fastest(table):
    made = table([run_of("torch", 1.0, [0.02, 0.35]), run_of("jax", 2.0, [0.02, 0.02]), run_of("numpy", 4.0, [])])
    assert "35 % of the machine" in " ".join(row(made, backend="torch"))
    assert "disturbed" not in " ".join(row(made, backend="jax"))
    assert [row(made, backend=name)["× fastest"] for name in ("torch", "jax", "numpy")] == ["–", "1.00", "2.00"]


@pytest.mark.parametrize("table", [tables.speed, headline])
@pytest.mark.parametrize(("share", "times"), [(0.099, "1.00"), (0.101, "–")])
def test_a_tenth_of_the_cores_is_the_limit(table, share, times):
    made = table([run_of("torch", 1.0, [0.0, share]), run_of("jax", 2.0, [0.0])])
    assert row(made, backend="torch")["× fastest"] == times


@pytest.mark.parametrize(("share", "reason"), [(0.09, None), (0.11, "disturbed by other processes (B)")])
def test_a_disturbed_run_is_not_compared(share, reason):
    a, b = ([*observations([run_of("torch", 1.0, [part])])] for part in (0.0, share))
    (pair,) = [pair for pair in sides(a, b) if pair.quantity.topic == "speed"]
    assert pair.reason == reason


def test_what_it_computed_is_compared_nevertheless():
    loss = measurement("training", "final_train_loss", -5.0, "nats")
    share = measurement("training", "others_share", 0.9, "1", round=1)
    a, b = ([*observations([record(measurements=[loss, share])])] for _ in range(2))
    assert {pair.reason for pair in sides(a, b) if pair.quantity.topic == "loss"} == {None}
