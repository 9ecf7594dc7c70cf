"""3-D networks learn from patches of volumes, from the recipe to the label map."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.cli.medvision.program import app
from apps.cli.shared.program import run as run_program
from medvision.datasets.volume_patches import CoveringPatches, RandomPatches, patch_of
from shared_backbones import weights
from tests.golden import miniatures

DYNUNET = {
    "network": "DynUNet",
    "num_classes": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "deep_supervision": True,
    "deep_supr_num": 1,
}


class Volumes:
    """Volumes whose voxels hold their own number, with two classes in a corner of each."""

    def __init__(self, *shapes: tuple[int, int, int]) -> None:
        self.shapes = shapes

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        shape = self.shapes[index]
        labels = np.zeros(shape, np.uint8)
        labels[0, 0, 0], labels[1, :2, 0] = 1, 2
        return np.arange(1, labels.size + 1, dtype=np.float32).reshape(shape), labels


@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(*[st.integers(2, 12)] * 3), size=st.tuples(*[st.integers(2, 9)] * 3), seed=st.integers(0, 99))
def test_patches_lie_in_the_volume_and_labels_on_the_image(
    shape: tuple[int, int, int], size: tuple[int, int, int], seed: int
):
    volumes = Volumes(shape, shape)
    patches = RandomPatches(volumes, size)
    image, labels = volumes[0]
    table = dict(zip(image.ravel().tolist(), labels.ravel().tolist(), strict=True)) | {0.0: 0}
    for item in (1, 3):
        patch, target = patches[item, seed]
        assert patch.shape == (1, *size) and target.shape == size
        assert torch.equal(patch, patches[item, seed][0])
        assert [table[value] for value in patch.ravel().tolist()] == target.ravel().tolist()
        inside = patch[0] > 0
        assert inside.sum() == np.prod([min(n, side) for n, side in zip(shape, size, strict=True)])
        if item == 3:
            assert target.any()


def test_each_class_has_the_same_chance():
    patches = RandomPatches(Volumes((30, 30, 30)), (1, 1, 1))
    drawn = [int(patches[1, seed][1].max()) for seed in range(200)]
    assert set(drawn) == {1, 2}
    assert 60 < drawn.count(1) < 140


@settings(deadline=None, max_examples=30)
@given(shape=st.tuples(*[st.integers(2, 12)] * 3), size=st.tuples(*[st.integers(2, 9)] * 3))
def test_covering_patches_hold_every_voxel(shape: tuple[int, int, int], size: tuple[int, int, int]):
    patches = CoveringPatches(Volumes(shape), size)
    values = {value for number in range(len(patches)) for value in patches[number][0].ravel().tolist()}
    assert values - {0.0} == set(Volumes(shape)[0][0].ravel().tolist())


def test_a_patch_beyond_the_volume_is_empty():
    patch = patch_of(np.ones((2, 2, 2), np.float16), (-1, 0, 1), (4, 2, 3))
    assert patch.dtype == torch.float32
    assert patch[0, :, 0, 0].tolist() == [0, 1, 1, 0]
    assert patch[0, 1, 0].tolist() == [1, 0, 0]


def recipe(root: Path, output: Path, **changes: object) -> dict:
    data = {
        "kind": "volume_patches", "layout": "msd", "root": str(root), "patch": [16, 16, 16], "spacing_mm": 1.5,
        "options": {"test_share": 0.34}, "validation": 0.34, "mirror_axes": [1],
    }  # fmt: skip
    names = ["background", "anterior", "posterior"]
    classes = [{"id": number, "name": name, "color": [100 * number, 0, 0]} for number, name in enumerate(names)]
    return {
        "name": "patches", "seed": 1, "output": str(output), "data": {**data, **changes},
        "model": {"architecture": "monai", "arguments": DYNUNET},
        "train": {"steps": 4, "batch_size": 2, "warmup_steps": 1, "ema_decay": 0, "validate_every": 2, "threads": 1},
        "evaluate": {"resamples": 20}, "tracking": {"system_metrics": False},
        "card": {"name": "patches", "version": "1.0.0", "license": "Apache-2.0", "classes": classes},
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    miniatures.msd(tmp_path / "data")
    return tmp_path / "data"


def run(path: Path, content: dict) -> int:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return run_program(app, ["run", str(path)])


def test_a_recipe_trains_and_scores_a_model_that_segments(data: Path, tmp_path: Path):
    assert run(tmp_path / "patches.yaml", recipe(data, tmp_path / "out")) == 0
    (folder,) = (tmp_path / "out").glob("**/model/model.json")
    trained = weights.load(folder.parent)
    assert trained.card["architecture"] == "monai" and trained.card["input"]["patch"] == [16, 16, 16]
    (summary,) = (tmp_path / "out").glob("**/evaluate*/**/summary.json")
    assert json.loads(summary.read_text())["overall"]
    scan = next(data.glob("**/imagesTr/*.nii.gz"))
    command = ["segment", "-i", str(scan), "-o", str(tmp_path / "labels"), "--model", str(folder.parent), "-q"]
    assert run_program(app, command) == 0
    assert list((tmp_path / "labels").glob("*_seg.nii.gz"))


def test_a_patch_that_the_network_cannot_halve_is_refused_before_the_data_are_read(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(tmp_path / "patches.yaml", recipe(data, tmp_path / "out", patch=[16, 16, 17])) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "does not run on images of 1 x 16 x 16 x 17" in lines[0]
    assert not (tmp_path / "out").exists()
