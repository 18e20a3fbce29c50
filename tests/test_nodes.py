"""Several nodes: commands that are two processes on the loopback address, what they train, and what ends with what."""

import os
import socket
import subprocess
import sys

import psutil
import pytest
from factories import backend_names, requires
from record_factories import measurement, record, row
from slurm_cluster import free_port, wait_for

from bench.commands.options import device_counts
from bench.errors import BenchError
from bench.records import collection
from bench.running import nodes
from bench.tables.device_tables import devices
from bench.tables.frame import machine_of

SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "4096", "SLURM_STEP_ID": "3"}
needs_torch = requires("torch")


class Commands:
    """`nice-bench run` on both nodes; in a `with` statement, at the end of which both have ended."""

    def __init__(self, folder, *options):
        self.folder, self.options = folder, options

    def __enter__(self):
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
        common = ["--protocol", "smoke", "--device", "cpu", "--tables", "none", *self.options]
        self.both = [
            subprocess.Popen(
                [sys.executable, "-m", "bench", "run", *common, "--output", str(self.folder / str(rank))],
                env=os.environ | shared | {"RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        return self

    def __exit__(self, *_):
        for command in self.both:
            command.kill()
            command.communicate()

    def until_training(self):
        """Wait for the end of an epoch; the workers of both nodes."""
        assert any("epoch" in line for line in self.both[0].stderr)
        return [wait_for(psutil.Process(command.pid).children)[0] for command in self.both]

    def end(self):
        """What each has printed, and its exit code."""
        outputs = [command.communicate(timeout=300) for command in self.both]
        return [(*output, command.returncode) for output, command in zip(outputs, self.both, strict=True)]

    def records(self):
        """Those of the first node, by their number of devices; the other has left none."""
        assert not (self.folder / "1").exists()
        return {found.plan.devices: found for found in collection.load_all(self.folder / "0", [])}


def losses(found):
    """All losses of a record."""
    return [*found.first_epoch_losses, *(loss for p in found.curve for loss in (p.train_loss, p.test_loss))]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "rounds"), [("torch", "1,4", 1), ("jax", "1,4", 2), ("tensorflow", "1,2", 2)]
)
def test_nodes_train_as_one_device_does(tmp_path, name, counts, rounds):
    if name not in backend_names():
        pytest.skip(f"NICE_BENCH_TEST_BACKENDS leaves {name} out")
    with Commands(
        tmp_path, "--backends", name, "--devices", counts, "--precision", "float64", "--rounds", str(rounds)
    ) as commands:
        first, other = commands.end()
        assert (first[2], other) == (0, ("", "", 0)), first[1]
        alone, together = commands.records().values()
    assert (alone.plan.nodes, together.plan.nodes) == (1, 2)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-11, abs=0)
    assert len(losses(together)) == 8 + 2 * 2
    assert sum(one.quantity == "reduction_seconds" for one in together.measurements) == rounds
    assert machine_of(together) == f"{machine_of(alone)}, {together.plan.devices} devices on 2 nodes"


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("whole", [False, True])
def test_a_node_that_dies_is_named_and_the_others_go_on(tmp_path, whole):
    """Its worker alone, or its command, with which its worker ends."""
    options = ("--backends", "torch,numpy", "--devices", "2", "--epochs", "300", "--rounds", "1")
    with Commands(tmp_path, *options) as commands:
        workers = commands.until_training()
        (commands.both[1] if whole else workers[1]).kill()
        first, other = commands.end()
        assert not psutil.wait_procs(workers, timeout=60)[1]
    found = {each.plan.backend: each for each in collection.load_all(tmp_path / "0", [])}
    reason = "its command has ended" if whole else "killed by SIGKILL"
    assert found["torch"].reason.startswith(f"node 1 of 2 (127.0.0.1): {reason}")
    assert found["torch"].curve
    assert "its command has ended" in found["numpy"].reason if whole else "on one node alone" in found["numpy"].reason
    assert (first[2], other[2]) == (1, -9 if whole else 0)


@pytest.mark.slow
@needs_torch
def test_the_others_end_with_the_first_node(tmp_path):
    with Commands(tmp_path, "--backends", "torch", "--devices", "2", "--epochs", "300") as commands:
        workers = commands.until_training()
        commands.both[0].kill()
        commands.both[1].wait(timeout=60)
        assert commands.both[1].stderr.read() == (
            "nice-bench: the command of the first node, 127.0.0.1, has ended before its time\n"
        )
        assert commands.both[1].returncode == 1
        assert not psutil.wait_procs(workers, timeout=60)[1]


def test_a_node_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr(nodes, "PATIENCE_SECONDS", 0.5)
    place = nodes.Place(0, 3, "127.0.0.1", free_port())
    with pytest.raises(BenchError, match=r"of 3 nodes these did not come: \[1, 2\]"), nodes.lead(place):
        pass
    with pytest.raises(BenchError, match=f"the first node, 127.0.0.1:{place.port}, can't be reached"):
        nodes.follow(place._replace(rank=1), {}, 60)


def test_something_that_tries_the_port_is_no_node(monkeypatch):
    monkeypatch.setattr(nodes, "PATIENCE_SECONDS", 2)
    place = nodes.Place(0, 2, "127.0.0.1", free_port())
    create = socket.create_server

    def with_stranger(*given, **more):
        server = create(*given, **more)
        with socket.create_connection(("127.0.0.1", place.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return server

    monkeypatch.setattr(socket, "create_server", with_stranger)
    with pytest.raises(BenchError, match=r"these did not come: \[1\]"), nodes.lead(place):
        pass


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n1"}, None),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-4]"}, None),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[003-004,007],big1"}, (1, 4, "gpu003", 61443)),
        (SRUN | {"SLURM_STEP_NODELIST": "n[7,9]-ib"}, (1, 4, "n7-ib", 61443)),
        (SRUN | {"SLURM_STEP_NODELIST": "a-1,b-2"}, (1, 4, "a-1", 61443)),
        (SRUN | {"SLURM_STEP_NODELIST": "r[1-2]c[03-04]-ib,z[5,6]"}, (1, 4, "r1c03-ib", 61443)),
        (SRUN | {"SLURM_STEP_NODELIST": "a", "MASTER_ADDR": "b", "MASTER_PORT": "9"}, (1, 4, "b", 9)),
        ({"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "h", "MASTER_PORT": "9"}, (2, 3, "h", 9)),
    ],
)
def test_a_place_is_what_the_environment_says(variables, expected):
    """A batch script has SLURM_NTASKS too, though it is begun once."""
    assert nodes.here(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "the environment has no usable 'WORLD_SIZE'"),
        ({"RANK": "3", "WORLD_SIZE": "3", "MASTER_ADDR": "h", "MASTER_PORT": "9"}, "rank 3 of 3 makes no sense"),
        (SRUN, "no usable 'SLURM_STEP_NODELIST'"),
        (SRUN | {"SLURM_STEP_NODELIST": ""}, "no usable"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(variables, message):
    with pytest.raises(BenchError, match=message):
        nodes.here(variables)


def test_nodes_have_as_many_devices_each_but_a_single_one_is_the_first_nodes():
    assert device_counts("1,2,4", 128, 2) == [1, 2, 4]
    with pytest.raises(BenchError, match="2 nodes can't have as many each of 3 devices"):
        device_counts("1,3", None, 2)


def test_the_table_keeps_devices_of_one_node_and_of_several_apart():
    runs = [
        record(
            run=f"{count} on {size}",
            devices=count,
            nodes=size,
            batch=128,
            measurements=[measurement("training", "images_per_second", rate, "images/s", round=1)],
        )
        for count, size, rate in ((1, 1, 1000.0), (4, 1, 3000.0), (4, 2, 2000.0))
    ]
    table = devices(runs)
    assert row(table, devices="4", nodes="1")["speed-up"] == "3.00"
    assert row(table, devices="4", nodes="2")["speed-up"] == "2.00"
    assert row(table, devices="4", nodes="2")["efficiency, strong"] == "0.500"
