"""Threads that wait do not take the CPU from others."""

import os
import re
import subprocess
import sys

import pytest

PROGRAM = """
from apps.cli.medvision.program import app
from apps.cli.shared.program import run
run(app, ["models", "list"])
import torch
torch.zeros(10).sum()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("chosen", "spins"), [({}, "0"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"), ({"GOMP_SPINCOUNT": "100"}, "100")]
)
def test_waiting_threads_sleep_unless_the_user_has_chosen(chosen: dict[str, str], spins: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, **chosen, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    spun = re.search(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    assert spun is not None, done.stderr[:500]
    assert spun[1] == spins
