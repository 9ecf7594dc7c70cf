"""The budget of memory: found, chosen, and held against what a header says before anything else is read."""

import functools
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.outputs import read_sidecar
from apps.cli.shared.program import run
from astrovision.tables import read_table
from medvision.volumes.files import read_volume
from medvision.volumes.geometry import Grid
from shared_backbones import memory
from shared_backbones.errors import InputError
from tests.hostile.bombs import CLAIMS, lying_footer
from tests.hostile.confined import GIB, confined
from tests.hostile.sound_files import dicom, nifti


def test_the_budget_is_most_of_what_is_free():
    assert 0 < memory.budget() <= 0.8 * memory.free_memory() * 1.05
    try:
        memory.set_budget(0.5)
        assert memory.budget() == GIB // 2
        with pytest.raises(InputError, match=r"scan: it would take 0.6 GB of memory; the limit is 0.5 GB; raise it"):
            memory.expect(0.6 * GIB, "scan", "it")
    finally:
        memory.set_budget(None)


def test_a_limit_of_the_process_counts(tmp_path: Path):
    def look() -> None:
        assert memory.free_memory() <= GIB

    assert confined(look, tmp_path, memory=GIB).code == 0


def test_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("400")
    assert list(memory._left(tmp_path / "memory.max", tmp_path / "memory.current")) == [600]
    (tmp_path / "memory.max").write_text("max")
    assert list(memory._left(tmp_path / "memory.max", tmp_path / "memory.current")) == []


def _refuse(grid: Grid, label: str) -> None:
    raise InputError(f"{label}: {grid.shape}")


def test_a_grid_is_judged_before_a_voxel_is_read(tmp_path: Path):
    scan = nifti(tmp_path)
    scan = scan.rename(tmp_path / "whole.nii.gz")
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(scan.read_bytes()[:600])
    with pytest.raises(InputError, match=r"cut\.nii\.gz: \(16, 14, 12\)"):
        read_volume(cut, accept=_refuse)


@pytest.mark.parametrize("claim", ["a cube of a thousand", "a needle", "a slab"])
def test_segment_refuses_by_the_header(claim: str, tmp_path: Path):
    scan = CLAIMS[claim](tmp_path)
    ended = confined(
        functools.partial(run, app, ["segment", "-i", str(scan), "-o", str(tmp_path / "out"), "--max-gigabytes", "1"]),
        tmp_path, program=True,
    )  # fmt: skip
    assert ended.code == 2 and ended.err.count("\n") == 1 and "GB" in ended.err, ended.err
    assert ended.peak < GIB
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_side_car_of_a_hundred_megabytes_is_none_of_ours(tmp_path: Path):
    path = tmp_path / "scan_seg.json"
    path.write_text("{")
    os.truncate(path, 100 * 2**20)
    ended = confined(functools.partial(read_sidecar, path), tmp_path)
    assert ended.code == 0 and ended.peak < 2**27


def test_a_series_is_judged_by_its_headers(tmp_path: Path):
    from medvision.dicom.series import read_series

    with pytest.raises(InputError, match=r"\(16, 14, 12\)"):
        read_series(dicom(tmp_path).parent, accept=_refuse)


@pytest.mark.parametrize("rows", [0, 1, 10, 4_999_999])
def test_a_footer_that_claims_too_little_is_read_within_the_budget(rows: int, tmp_path: Path):
    memory.set_budget(0.25)
    try:
        ended = confined(functools.partial(read_table, lying_footer(tmp_path, rows)), tmp_path / "out")
    finally:
        memory.set_budget(None)
    assert ended.code in (0, 2) and ended.err.count("\n") <= 1, ended.err
    assert ended.peak <= 1.25 * GIB


def test_what_nobody_announces_is_held_against_the_budget(tmp_path: Path):
    def fill() -> None:
        memory.set_budget(0.25)
        with memory.hold("scan", "the table"):
            np.ones(2 * GIB, np.uint8)

    ended = confined(fill, tmp_path)
    assert ended.code == 2 and "scan: the table would take more memory than the limit, 0.25 GB" in ended.err
    assert ended.peak < GIB


def test_the_limit_of_a_block_ends_with_it():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with memory.hold("scan", "the table"):
        assert resource.getrlimit(resource.RLIMIT_AS) != before
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_estimates_grow_with_the_work():
    from medvision.segmentation import Segmenter

    scorer = Segmenter("brain-structures").scorer
    cube, needle, slab = (scorer.memory(shape, "cpu") for shape in ((96, 96, 96), (2000, 8, 8), (400, 400, 8)))
    assert cube < needle and cube < slab  # which are padded to the network's windows
    assert np.isfinite([cube, needle, slab]).all()
