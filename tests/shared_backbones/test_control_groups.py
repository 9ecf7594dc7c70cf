"""What control groups leave to a process, read from trees of files as Linux has them."""

import os
from pathlib import Path

import pytest
import torch

from shared_backbones import control_groups, devices, memory

CPUS = len(os.sched_getaffinity(0))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Groups of version 2: this process is in `job/step`."""
    monkeypatch.setattr(control_groups, "_TOP", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "cgroup/job/step").mkdir(parents=True)
    return tmp_path / "cgroup"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", CPUS), ("50000 100000", 1), ("100000 100000", 1), ("6400000 100000", CPUS), ("none", CPUS)],
)
def test_a_quota_of_version_2_bounds_the_cpus(tree: Path, limit: str, expected: int):
    (tree / "job/cpu.max").write_text(f"{limit}\n")
    (tree / "job/step/cpu.max").write_text("max 100000\n")
    assert control_groups.usable_cpus() == expected


@pytest.mark.parametrize(("quota", "period", "expected"), [(-1, 100000, CPUS), (90000, 100000, 1), (5, 0, CPUS)])
def test_a_quota_of_version_1_bounds_the_cpus(tree: Path, quota: int, period: int, expected: int):
    (tree.parent / "own").write_text("5:cpu,cpuacct:/job\n4:memory:/other\n")
    (tree / "cpu/job").mkdir(parents=True)
    (tree / "cpu/job/cpu.cfs_quota_us").write_text(str(quota))
    (tree / "cpu/job/cpu.cfs_period_us").write_text(str(period))
    assert control_groups.usable_cpus() == expected


def test_the_mask_of_a_process_bounds_the_cpus(tree: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3})
    assert control_groups.usable_cpus() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert control_groups.usable_cpus() == 8
    (tree / "job/cpu.max").write_text("250000 100000\n")
    assert control_groups.usable_cpus() == 3


def test_torch_has_no_more_threads_than_the_quota(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(devices, "usable_cpus", lambda: 8)
        devices.choose_threads(None)
        assert torch.get_num_threads() == 4
        monkeypatch.setattr(devices, "usable_cpus", lambda: 1)
        devices.choose_threads(3)
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        devices.choose_threads(None)
        assert torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        devices.choose_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_smallest_room_of_all_groups_is_what_is_free(tree: Path):
    for group, limit, used in ((tree / "job", 10_000, 4_000), (tree / "job/step", 9_000, 500)):
        (group / "memory.max").write_text(str(limit))
        (group / "memory.current").write_text(str(used))
    assert memory.free_memory() == 6_000
