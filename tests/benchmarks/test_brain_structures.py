"""What the bundled model reaches on real scans: `make bench` prints the tables that the README quotes."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medvision.metrics.overlap import compare
from medvision.segmentation import Segmenter
from medvision.volumes.files import Volume, read_volume
from tests.brain_references import SCORED, reference_scans, without_unscored

CASES = {"default": {}, "fast": {"fast": True}, "version 1": {"model": "brain-structures-1"}}


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_dice_on_scans_with_references(data_root: Path, options: dict):
    segmenter = Segmenter(**options)
    names = [entry["name"] for entry in segmenter.contract.classes if entry["id"]]
    print(f"\n{options or 'default'}\n{'scan':14}  mean " + " ".join(f"{name[:9]:>9}" for name in names))
    for name, volume, reference in reference_scans(data_root):
        result = segmenter.segment(volume)
        labels, truth = without_unscored(result.labels, reference)
        rows = compare(labels, truth, volume.grid.spacing_mm, segmenter.contract.classes)
        dice = {row["id"]: row["dice"] for row in rows}
        mean = np.mean([score for number in SCORED if (score := dice[number]) is not None])
        figures = " ".join(f"{'-' if value is None else format(value, '.3f'):>9}" for value in dice.values())
        ratios = [np.count_nonzero(labels == n) / max(1, np.count_nonzero(truth == n)) for n in SCORED]
        figures += "  volumes " + " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name:14} {mean:.3f} {figures}  network {result.timings_s['network']:.1f} s", flush=True)


def test_bfloat16_agreement_on_real_scans(data_root: Path):
    full = Segmenter("brain-structures", precision="float32")
    half = Segmenter("brain-structures", precision="bfloat16")
    print()
    for name, volume, _ in list(reference_scans(data_root))[:2]:
        first, second = full.segment(volume).labels, half.segment(volume).labels
        same, labelled = first == second, (first > 0) | (second > 0)
        print(f"{name}: {same.mean():.5f} of all voxels agree, {same[labelled].mean():.5f} of the labelled")


DEEPBET = ["deepbet==1.0.2", "fill-voids==2.1.2", "connected-components-3d==4.1.1"]
"""A brain extraction of others (GPL): installed for the benchmark alone, and run in a process of its own."""


@pytest.fixture(scope="module")
def whole_heads(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, tuple[Volume, np.ndarray]]:
    """Whole heads, and where their brain is, its holes filled."""
    folder, data = tmp_path_factory.mktemp("deepbet"), data_root / "medical/brain_t1"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "packages")]
    subprocess.run([*pip, *DEEPBET], check=True)
    program = "import sys; from deepbet import run_bet; run_bet([sys.argv[1]], mask_paths=[sys.argv[2]], no_gpu=True)"
    command = [sys.executable, "-c", program, str(data / "chris_t1.nii.gz"), str(folder / "mask.nii.gz")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(folder / "packages")})
    masks = {
        data / "chris_t1.nii.gz": folder / "mask.nii.gz",
        data / "colin27/ch2.nii.gz": data / "colin27/ch2bet.nii.gz",
    }
    return {
        head.name: (read_volume(head), np.asarray(ndimage.binary_fill_holes(read_volume(mask).data > 0)))
        for head, mask in masks.items()
    }


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_whole_heads_stay_inside_the_brain(whole_heads: dict[str, tuple[Volume, np.ndarray]], options: dict):
    print()
    for name, (volume, brain) in whole_heads.items():
        labels = Segmenter(**options).segment(volume).labels > 0
        spacing = volume.grid.spacing_mm
        far = np.asarray(ndimage.distance_transform_edt(~brain, sampling=spacing)) > 2
        deep = np.asarray(ndimage.distance_transform_edt(brain, sampling=spacing)) > 2
        former = np.isin(Segmenter("brain-structures-1").segment(volume).labels, [1, 2, 3]) & deep
        print(
            f"{name}: {(labels & far).sum() / labels.sum():.2%} of the labelled voxels lie more than 2 mm outside the "
            f"brain; {(labels & former).sum() / former.sum():.2%} of what version 1 calls white matter, cortex or deep "
            "grey, 2 mm inside the brain, is labelled"
        )


def test_seconds_and_memory_of_a_256_cube(tmp_path: Path, data_root: Path):
    """A whole process: start, read, segment with the model's own views, report, write."""
    source = read_volume(data_root / "medical/brain_t1/colin27/ch2.nii.gz").data
    cube = np.zeros((256, 256, 256), np.int16)
    cube[37:218, 19:236, 37:218] = source
    nib.Nifti1Image(cube, np.diag([1.0, 1, 1, 1])).to_filename(tmp_path / "cube.nii.gz")
    print()
    for options in ([], ["--detail", "full"], ["--model", "brain-structures-1"]):
        code = (
            "import sys; from apps.cli.medvision.program import app; from apps.cli.shared.program import run; "
            "assert run(app, sys.argv[1:]) == 0; "
            "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
        )
        command = [sys.executable, "-c", code, "segment", "-i", str(tmp_path / "cube.nii.gz"), "-q", *options]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        laps = json.loads((tmp_path / "cube_seg.json").read_text())["timings_s"]
        share = 1 - laps["network"] / sum(laps.values())
        print(
            f"{' '.join(options) or 'default':16} {sum(laps.values()):6.1f} s in the engine, {share:.0%} of it outside "
            f"the network; {cpu:.1f} s CPU; peak {int(done.stdout.split()[-1]) / 2**20:.2f} GB"
        )
