"""The estimates of `estimates.py`, in an interpreter of their own: what other tests leave in memory is not measured."""

import os
import subprocess
import sys

from tests.conftest import ROOT


def test_estimates_of_memory_are_within_a_factor_of_two():
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests/hostile/estimates.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    for name in [name for name in environment if name.startswith(("PYTEST_XDIST", "DOMAIN_VISION_SKIPPED"))]:
        del environment[name]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:]
