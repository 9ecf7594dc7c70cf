"""SLURM on one machine: two nodes and a spare one, each a daemon on a free port of the loopback interface."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

# `cred_expire` is also how long a requeued job waits. The partition `high` preempts jobs of `low`, which are told with
# the signal they asked for and have `GraceTime` to leave.
_CONF = """
ClusterName=small
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdTimeout=10
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
KillWait=5
MinJobAge=600
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n3 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[3]} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=n1,n2,n3 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2,n3 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


def why_not() -> str | None:
    """Why it cannot start here."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed; on Debian: apt-get install munge slurmctld slurmd slurm-client"
    return None if os.geteuid() == 0 else "SLURM's daemons need root to start the steps of jobs"


class SmallCluster:
    """Started in a folder that is empty; every program that is to see it needs `SLURM_CONF`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.folder.chmod(0o755)  # everyone must reach munge's socket, and nobody else may write beside it
        self.conf.write_text(_CONF.format(folder=self.folder, ports=_free_ports(4)))
        options = {
            "key-file": key, "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
            "seed-file": "munge.seed",
        }  # fmt: skip
        subprocess.run(
            ["munged", *(f"--{name}={self.folder / str(value)}" for name, value in options.items())], check=True
        )
        self.run("slurmctld", "-c", "-f", str(self.conf))
        for node in ("n1", "n2", "n3"):
            self.restore(node)

    def stop(self) -> None:
        for name in ("slurmd-n1", "slurmd-n2", "slurmd-n3", "slurmctld", "munged"):
            self._end(name, signal.SIGTERM)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        return self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def wait_for(self, job: str, *states: str) -> str:
        wait_until(lambda: self.state(job) in states, f"job {job} does not become {' or '.join(states)}", 600)
        return self.state(job)

    @contextlib.contextmanager
    def without(self, node: str) -> Iterator[None]:
        """Lose a node for a while."""
        self.lose(node)
        try:
            yield
        finally:
            self.restore(node)

    def lose(self, node: str) -> None:
        """Kill a node's daemon and all it has started, as if the machine were gone."""
        self._end(f"slurmd-{node}", signal.SIGKILL)
        tasks, steps = set(), set()
        for process in psutil.process_iter():
            try:
                own = process.environ()
                if own.get("SLURMD_NODENAME") == node and own.get("SLURM_CONF") == str(self.conf):
                    tasks.add(process)
                    steps |= {parent for parent in process.parents() if parent.name() == "slurmstepd"}
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        assert tasks and steps, f"nothing ran on {node}"
        for victim in (*steps, *tasks):  # in this order: nobody is left who could tell of a killed task
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()

    def restore(self, node: str) -> None:
        self.run("slurmd", "-f", str(self.conf), "-N", node)
        wait_until(
            lambda: self.run("sinfo", "-h", "-n", node, "-p", "low", "-o", "%t") == "idle", f"{node} is not idle"
        )

    def _end(self, name: str, number: signal.Signals) -> None:
        note = self.folder / f"{name}.pid"
        if note.exists():
            process = psutil.Process(int(note.read_text()))
            process.send_signal(number)
            process.wait(20)
            note.unlink(missing_ok=True)


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
