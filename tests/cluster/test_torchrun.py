"""torchrun on two hosts, for schedulers of any kind: the same weights, and the same answer to being told to leave."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.conftest import STEPS, Home, same_bytes
from tests.cluster.test_slurm import progress, wait_for_step
from tests.needs import missing


@dataclass(frozen=True)
class Host:
    prefix: tuple[str, ...]
    interface: str


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[list[Host], str]]:
    """Two network namespaces with a cable between them, and the address of the first."""
    names = [f"dv{os.getpid()}{side}" for side in "ab"]

    def ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.stderr.strip())

    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "cable0", "netns", names[1])
            for number, name in enumerate(names, start=1):
                ip("-n", name, "address", "add", f"192.0.2.{number}/24", "dev", "cable0")
                for device in ("lo", "cable0"):
                    ip("-n", name, "link", "set", device, "up")
        except OSError as error:
            missing("cluster", f"no network namespaces here: {error}")
        yield [Host(("ip", "netns", "exec", name), "cable0") for name in names], "192.0.2.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(home: Home, hosts: tuple[list[Host], str], output: str) -> list[subprocess.Popen[str]]:
    machines, address = hosts
    return [
        home.start(
            *host.prefix, sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(machines)}",
            "--nproc-per-node=1", f"--node-rank={number}", f"--master-addr={address}", "--master-port=29511",
            "-m", "pipelines", "run", *home.overrides(output), "--stages=prepare,train",
            environment={"GLOO_SOCKET_IFNAME": host.interface},
        )
        for number, host in enumerate(machines)
    ]  # fmt: skip


def test_two_hosts_learn_what_two_nodes_of_slurm_learn_although_told_to_leave(
    home: Home, hosts: tuple[list[Host], str], whole: str
):
    agents = start(home, hosts, "hosts")
    wait_for_step(home, "hosts", 20)
    for agent in agents:
        agent.terminate()
    printed = [agent.communicate(timeout=120)[0] for agent in agents]
    assert all(agent.returncode for agent in agents)
    left = progress(home, "hosts")
    assert 20 <= left < STEPS and f"preempted: checkpoint at step {left} of {STEPS}" in printed[0]
    agents = start(home, hosts, "hosts")
    printed = [agent.communicate(timeout=600)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], printed
    same_bytes(home, "whole", "hosts")
