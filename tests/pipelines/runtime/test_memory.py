"""Memory that a step frees serves the next one."""

import json
import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource
import torch
from pipelines.runtime.memory import keep_freed_memory

kept = keep_freed_memory()
def step():
    return torch.ones(16_000_000).add_(1).sum()
for _ in range(10):  # until the heap has found its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and how many pages five steps of 64 MB ask the system for."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=clean | environment, capture_output=True, text=True, check=True
    )
    kept, count = json.loads(run.stdout)
    return kept, count


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_step_asks_the_system_for_nothing_new():
    kept, count = faults()
    assert kept
    assert count < 1000  # one step's pages are 15,625


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_the_user_s_own_choice_stays():
    kept, count = faults(MALLOC_MMAP_MAX_="1000")
    assert not kept
    assert count > 1000
