"""Which signals ask a training to leave, where a batch job or `nohup` has them ignored."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys
from pipelines.runtime import preemption
with preemption.listening():
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    print(preemption.asked())
"""


@pytest.mark.parametrize(("name", "heard"), [("SIGTERM", True), ("SIGUSR1", True), ("SIGHUP", False)])
def test_ignored_signals_of_a_scheduler_are_heard_and_that_of_a_terminal_is_not(name: str, heard: bool):
    command = ["bash", "-c", 'trap "" USR1 TERM HUP; exec "$@"', "job", sys.executable, "-c", CODE, name]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{heard}\n"
