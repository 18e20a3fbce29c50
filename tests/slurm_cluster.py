"""A real SLURM on the loopback address: munged, a controller and three nodes, begun and ended by their process ids."""

import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

NODES = ("n1", "n2", "n3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
SETTINGS = """
ClusterName=nice
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
ReturnToService=2
SlurmdTimeout=5
KillWait=10
PartitionName=main Nodes=ALL PriorityTier=1 Default=YES MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=60 State=UP
"""


def wait_for(condition, seconds=120):
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)
    return answer


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Use it in a `with` statement; `SLURM_CONF` names it to SLURM's commands meanwhile."""

    def __enter__(self):
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
        self.programs = {name: shutil.which(name, path=path) for name in PROGRAMS}
        missing = [name for name, found in self.programs.items() if found is None]
        if missing or os.geteuid() != 0:
            refuse(f"not here: {', '.join(missing)}" if missing else "its daemons are started by root alone")
        self.folder = Path(tempfile.mkdtemp(prefix="nice-slurm-"))
        self.folder.chmod(0o755)  # munged wants its socket to be reached by everybody
        self.settings, self.daemons = self.folder / "slurm.conf", {}
        (self.folder / "state").mkdir()
        nodes = [
            f"NodeName={name} NodeHostname={platform.node().partition('.')[0]} NodeAddr=127.0.0.1 Port={free_port()} "
            f"CPUs=4 RealMemory=1000 Feature=on-{name}\n"
            for name in NODES
        ]
        filled = SETTINGS.format(host=platform.node().partition(".")[0], port=free_port(), folder=self.folder)
        # Nodes come before the partitions that hold them.
        self.settings.write_text(filled.replace("PartitionName=main", "".join(nodes) + "PartitionName=main"))
        os.environ["SLURM_CONF"] = str(self.settings)
        try:
            key = self.folder / "munge.key"
            key.touch(mode=0o600)
            key.write_bytes(os.urandom(128))
            files = {
                "key-file": key,
                **{f"{kind}-file": self.folder / f"munge.{kind}" for kind in ("pid", "log", "seed")},
            }
            given = [f"--{option}={file}" for option, file in files.items()]
            self.begin("munged", "munged", "--foreground", f"--socket={self.folder}/munge.socket", *given)
            wait_for((self.folder / "munge.socket").exists, 30)
            self.begin("slurmctld", "slurmctld", "-D", "-c")
            for name in NODES:
                self.begin_node(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self, name, program, *options):
        """Start a daemon."""
        with (self.folder / f"{name}.log").open("a") as log:
            command = [self.programs[program], *options]
            self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def begin_node(self, name):
        """Start a node, and wait until work can be given to it."""
        self.begin(name, "slurmd", "-D", "-N", name)
        wait_for(
            lambda: self.ask("sinfo", "--noheader", f"--nodes={name}", "--format=%T", check=False).startswith("idle")
        )

    def lose_node(self, name):
        """End a node at once, as a power cut does: its daemon, and all that it began."""
        begun = self.begun(name)
        self.daemons[name].kill()
        self.daemons[name].wait()
        end(begun)

    def begun(self, node):
        """The processes that jobs have begun on a node, and those that watch over them (slurmstepd)."""
        variables = {"SLURM_CONF": str(self.settings), "SLURMD_NODENAME": node}.items()
        spool, found = str(self.folder / node), []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                sockets = process.net_connections("unix") if process.name().startswith("slurmstepd") else []
                # (slurmstepd wipes its own environment, but listens on a socket in the node's folder.)
                if variables <= process.environ().items() or any(spool in str(one.laddr) for one in sockets):
                    found.append(process)
        return found

    @staticmethod
    def ask(*command, check=True):
        """What one of SLURM's commands prints."""
        return subprocess.run(command, capture_output=True, text=True, check=check).stdout

    def __exit__(self, *_):
        begun = [process for node in NODES for process in self.begun(node)]
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self.daemons.values()):
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        end(begun)
        del os.environ["SLURM_CONF"]
        shutil.rmtree(self.folder)


def end(processes):
    """End processes that may have ended meanwhile."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def refuse(reason):
    """Fail where `nox -s slurm` has installed SLURM and nobody would miss a skipped test; skip elsewhere."""
    if os.environ.get("NICE_BENCH_TEST_SLURM") == "required":
        pytest.fail(f"no SLURM: {reason}")
    pytest.skip(f"THE ENGINE FOR SLURM IS NOT TESTED: {reason}; `nox -s slurm` installs it on Debian, as root")
