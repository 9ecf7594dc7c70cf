"""`segment --watch`: what comes into a folder is segmented once it is there whole, by a model that stays loaded."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medvision.segmentation import Segmenter
from tests.apps.conftest import SHAPE
from tests.medvision.dicom.dicoms import make_slices, write_series
from tests.medvision.phantoms import make_affine, make_image, write_scan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def scan_at(path: Path, seed: int = 0) -> Path:
    image = make_image(SHAPE)
    return write_scan(path, image + seed, make_affine(spacing=(4, 4, 4)))


def statuses(results: Path) -> dict[str, str]:
    return {case["case"]: case["status"] for case in json.loads((results / "index.json").read_text())["cases"]}


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_files_and_dicom_folders_are_taken_as_they_come(segment, folder: Path, tmp_path: Path, monkeypatch):
    loaded: list[int] = []
    begin = Segmenter.__init__
    monkeypatch.setattr(Segmenter, "__init__", lambda self, *a, **k: (loaded.append(1), begin(self, *a, **k))[1])
    scan_at(folder / "first.nii")
    (folder / "notes.txt").write_text("no scan")
    slices = make_slices((make_image((24, 24, 8)) * 10).astype(np.int16), make_affine(spacing=(4, 4, 4)))

    def come() -> None:
        time.sleep(0.3)
        content = scan_at(tmp_path / "whole.nii", 1).read_bytes()
        with (folder / "second.nii").open("wb") as file:  # for longer than it takes to settle
            for part in range(8):
                file.write(content[part * len(content) // 8 : (part + 1) * len(content) // 8])
                file.flush()
                time.sleep(0.15)
        write_series(folder / "third", slices)

    thread = in_background(come)
    done = segment(folder, "-o", tmp_path / "out", "--watch", "--settle", "0.5", "--idle", "6", "--any-modality")
    thread.join()
    assert done.code == 0, done.err
    assert loaded == [1] and done.out.startswith("watching ")
    labels = sorted(path.name for path in (tmp_path / "out").glob("*_seg.nii.gz"))
    assert len(labels) == 3 and labels[:2] == ["first_seg.nii.gz", "second_seg.nii.gz"]
    assert list(statuses(tmp_path / "out").values()) == ["done"] * 3
    assert len((tmp_path / "out/volumes.csv").read_text().splitlines()) == 4
    again = segment(folder, "-o", tmp_path / "out", "--watch", "--settle", "0.2", "--idle", "0.5", "--any-modality")
    assert again.code == 0 and set(statuses(tmp_path / "out").values()) == {"skipped"}


def test_a_scan_that_is_replaced_comes_again_and_one_that_fails_ends_nothing(segment, folder: Path, tmp_path: Path):
    (folder / "a.nii").write_bytes(b"no scan")
    scan_at(folder / "b.nii")

    def come() -> None:
        time.sleep(1.5)
        shutil.move(scan_at(tmp_path / "mended.nii", 2), folder / "a.nii")
        scan_at(folder / "b.nii.gz")

    thread = in_background(come)
    done = segment(folder, "-o", tmp_path / "out", "--watch", "--settle", "0.2", "--idle", "6")
    thread.join()
    assert done.code == 5 and "1 of 3 scans failed" in done.err
    assert (tmp_path / "out/a_seg.nii.gz").exists() and "b.nii.gz: would write the same results" in done.err
    assert sorted(statuses(tmp_path / "out").values()) == ["done", "done", "failed"]


def test_it_ends_with_a_signal_and_nothing_half_written(folder: Path, tmp_path: Path, model: Path):
    scan_at(folder / "a.nii")
    program = "import sys; from apps.cli.medvision.program import main; sys.argv[0] = 'medvision'; main()"
    arguments = ["segment", "-i", folder, "-o", tmp_path / "out", "--model", model, "--watch", "--settle", "0.2"]
    process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)])
    try:
        for _ in range(600):
            if (tmp_path / "out/index.html").exists():
                break
            time.sleep(0.1)
        process.terminate()  # and not SIGINT, which what runs in the background of a shell ignores
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
    assert {"a_seg.nii.gz", "a_seg.json", "index.html"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert not [*tmp_path.rglob(".domain-vision-*")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--watch"], "give --output"),
        (["--watch", "-o", "."], "is watched"),
        (["--watch", "-o", "out", "--recursive"], "--recursive has no meaning with --watch"),
        (["--watch", "-o", "out", "--json"], "--json has no meaning with --watch"),
        (["--idle", "3"], "--idle is of --watch"),
    ],
)
def test_options_that_do_not_go_together(segment, folder: Path, monkeypatch, options: list[str], said: str):
    monkeypatch.chdir(folder)
    done = segment(folder, *options)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
