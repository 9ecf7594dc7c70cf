"""Notes of shards: an input that kills its process is named, and left out at the next start."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from apps.cli.geovision.program import app
from apps.cli.shared.journal import KILLED, journal_folder
from apps.cli.shared.program import run
from tests.apps.conftest import SHAPE, contents
from tests.conftest import ROOT
from tests.geovision import small_models as land_models
from tests.geovision.rasters import ramp, write_scene
from tests.medvision import small_models
from tests.medvision.phantoms import make_affine, make_image, write_scan

# Reads as the program does, but is killed by one of its inputs, as a decoder that crashes would.
DEADLY = """
import os, signal, sys
import pipelines.report.segmentation
pipelines.report.segmentation._LONGEST_SIDE = 24
{setup}
from apps.cli.medvision.program import app
from apps.cli.shared.program import run
sys.exit(run(app, sys.argv[1:]))
"""
SCANS = """
import apps.cli.medvision.scans as scans
read = scans.read_volume
def deadly(path, **options):
    if path.name == os.environ["DEADLY"]: os.kill(os.getpid(), signal.SIGKILL)
    return read(path, **options)
scans.read_volume = deadly
"""
IMAGES = """
import apps.cli.medvision.image_sources as sources
read = sources.read_image
def deadly(path, *options):
    if path.name == os.environ["DEADLY"]: os.kill(os.getpid(), signal.SIGSEGV)
    return read(path, *options)
sources.read_image = deadly
"""


def start(setup: str, *arguments: object, deadly: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, which one input kills."""
    return subprocess.run(
        [sys.executable, "-c", DEADLY.format(setup=setup), *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DEADLY": deadly, **variables},
    )  # fmt: skip


def typed(model: Path, scans: Path, *arguments: object) -> list[object]:
    """What the fixture `segment` types."""
    return ["segment", "--model", model, "--device", "cpu", "--input", scans, *arguments]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(4):
        write_scan(folder / f"{seed}.nii.gz", make_image(SHAPE, seed=seed), make_affine(spacing=(4, 4, 4)))
    return folder


def test_a_scan_that_kills_its_process_is_named_and_left_out_on_the_retry(
    scans: Path, model: Path, tmp_path: Path, segment, medvision
):
    out, notes = tmp_path / "out", journal_folder(tmp_path / "out")
    command = ["-o", out, "--resume", "--journal", notes]
    dead = start(SCANS, *typed(model, scans, *command, "--shard=1/2"), deadly="1.nii.gz")
    assert dead.returncode == -9, dead.stderr
    assert not list(out.glob("1_*")) and list(out.glob("0_*"))
    for _ in range(2):  # what was killed once is not tried again
        again = segment(scans, *command, "--shard=1/2")
        assert again.code == 5 and f"1.nii.gz: {KILLED}" in again.err and "[1/2]" in again.out
    assert segment(scans, *command, "--shard=2/2").code == 0
    merged = medvision("merge", "-o", out)
    assert merged.code == 5 and f"1.nii.gz: {KILLED}" in merged.err
    cases = json.loads((out / "index.json").read_text())["cases"]
    assert sorted(case["status"] for case in cases) == ["done", "done", "done", "failed"]
    assert "1.nii" not in "".join(path.read_text() for path in notes.glob("*-of-*"))
    alone = segment(scans, "-o", out, "--resume")  # without notes, everything is tried
    assert alone.code == 0 and alone.out.count("skipped") == 3


def test_an_image_that_crashes_its_process_is_left_out_of_the_table(tmp_path: Path, medvision):
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(small_models.radiographs(4, 28)):
        Image.fromarray(image).save(images / f"{number}.png")
    model = small_models.classifier(tmp_path / "m", contract={**small_models.GREY, "size": 28})
    table = tmp_path / "t.csv"
    command = ["classify", "-i", images, "-o", table, "--model", model, "--device=cpu", "--batch-size=1"]
    notes = ["--journal", journal_folder(table)]
    assert medvision(*command, *notes, "--shard=1/2").code == 0
    assert start(IMAGES, *command, *notes, "--shard=2/2", deadly="3.png").returncode == -11
    assert "t.csv: shard 2 of 2 did not end" in medvision("merge", "-o", table).error
    again = medvision(*command, *notes, "--shard=2/2")
    assert again.code == 5 and f"3.png: {KILLED}" in again.err
    assert medvision("merge", "-o", table, "-q").code == 5
    assert [line.partition(",")[0] for line in table.read_text().splitlines()] == ["id", "0.png", "1.png", "2.png"]
    assert json.loads(table.with_suffix(".json").read_text())["failed"] == 1


def test_a_scan_is_not_blamed_where_slurm_put_the_job_back(
    scans: Path, model: Path, tmp_path: Path, segment, monkeypatch
):
    command = ["-o", tmp_path / "out", "--resume", "--journal", tmp_path / "notes", "--shard=1/2"]
    dead = start(SCANS, *typed(model, scans, *command), deadly="0.nii.gz", SLURM_JOB_ID="7")
    assert dead.returncode == -9, dead.stderr
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert segment(scans, *command).code == 0


def test_a_shard_that_is_asked_to_leave_blames_nobody(scans: Path, model: Path, tmp_path: Path, segment):
    slow = SCANS.replace("os.kill(os.getpid(), signal.SIGKILL)", "__import__('time').sleep(60)")
    command = ["-o", tmp_path / "out", "--resume", "--journal", tmp_path / "notes", "--shard=1/2"]
    process = subprocess.Popen(
        [sys.executable, "-c", DEADLY.format(setup=slow), *map(str, typed(model, scans, *command))],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "DEADLY": "0.nii.gz"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    mark = tmp_path / "notes/1-of-2.begun"
    deadline = time.monotonic() + 120
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.terminate()
    assert "preempted" in process.communicate(timeout=60)[1] and process.returncode == 143
    assert segment(scans, *command).code == 0


def test_a_shard_without_inputs_is_no_failure_and_writes_nothing(scans: Path, model: Path, tmp_path: Path, medvision):
    done = medvision("segment", "-i", scans, "-o", tmp_path / "out", "--model", model, "--shard=1/9")
    assert done.code == 0 and "shard 1/9: has none of 4 inputs" in done.err and contents(tmp_path) == {}


def test_parts_of_one_folder_with_other_settings_are_not_merged(scans: Path, model: Path, tmp_path: Path, medvision):
    for number, more in ((1, []), (2, ["--views=coronal"])):
        command = ["segment", "-i", scans, "-o", tmp_path / "out", "--model", model, "--device=cpu", *more]
        notes = ["--journal", journal_folder(tmp_path / "out"), f"--shard={number}/2"]
        assert medvision(*command, *notes).code == 0
    assert "with different models or settings; repeat all" in medvision("merge", "-o", tmp_path / "out").error
    assert "has no notes of shards" in medvision("merge", "-o", tmp_path / "other").error


def test_maps_of_shards_have_the_index_of_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number in range(3):
        write_scene(tmp_path / "scenes" / f"{number}.tif", ramp(3, 40, 40) + number, land_models.BANDS)
    (tmp_path / "scenes" / "broken.tif").write_bytes(b"II*\0damaged")
    model = land_models.mapper(tmp_path / "m")

    def geovision(*arguments: object) -> int:
        return run(app, [str(argument) for argument in arguments])

    command = ("map", "-i", tmp_path / "scenes", "--model", model, "--sensor=sentinel2_l1c", "--device=cpu")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert geovision(*command, "-o", whole) == 5
    notes = ("--journal", journal_folder(parts))
    assert [geovision(*command, "-o", parts, *notes, f"--shard={number}/3") for number in (1, 2)] == [0, 0]
    capsys.readouterr()
    assert geovision("merge", "-o", parts) == 2
    assert "parts: shard 3 of 3 did not end; repeat with --resume" in capsys.readouterr().err
    assert geovision(*command, "-o", parts, *notes, "--shard=3/3") == 5
    assert geovision("merge", "-o", parts) == 5
    one, other = (json.loads((folder / "index.json").read_text()) for folder in (whole, parts))
    for key in ("count", "cases", "model"):
        assert one[key] == other[key]
