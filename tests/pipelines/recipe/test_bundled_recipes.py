"""Every bundled recipe, on a miniature of its data set in the true layout."""

from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import bundled_recipes, load_recipe
from pipelines.recipe.volumes import PatchData, VolumeData
from pipelines.stages import run_stages

SHAPE = (36, 32, 9)  # X, Y, Z


def case(number: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """An image in [0, 1] and labels, both with every class somewhere."""
    random = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    for label in range(1, classes):
        labels[3 * label : 3 * label + 3, 6:26, 2:7] = label
    return (labels / classes + random.random(SHAPE) * 0.2).astype(np.float32), labels


def save(path: Path, data: np.ndarray, edge_mm: float = 8.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([1.5, 1.5, edge_mm, 1])), path)


def slices_and_volumes(root: Path, train: str, test: str, names: tuple[str, str], classes: int) -> None:
    """Arrays as papers share them, the slice first."""
    for folder in (train, test):
        (root / folder).mkdir()
    image, labels = case(0, classes)
    for z in range(SHAPE[2]):
        np.savez(root / train / names[0].format(z), image=image[..., z], label=labels[..., z].astype(np.float32))
    image, labels = case(1, classes)
    with h5py.File(root / test / names[1], "w") as file:
        file["image"], file["label"] = np.moveaxis(image, 2, 0), np.moveaxis(labels, 2, 0).astype(np.float32)


def synapse(root: Path) -> None:
    slices_and_volumes(root, "train_npz", "test_vol_h5", ("case0005_slice{:03}.npz", "case0008.npy.h5"), 9)


def avt(root: Path) -> None:
    slices_and_volumes(root, "train", "test", ("R2 (AD)_slice_{}.npz", "R1 (AD).h5"), 2)


def acdc(root: Path) -> None:
    for number, split in enumerate(("training", "training", "testing")):
        for frame in (1, 12):
            image, labels = case(10 * number + frame, 4)
            folder = root / split / f"patient{number + 1:03}"
            thin = slice(0, 6)  # fewer slices than a head would have
            save(folder / f"patient{number + 1:03}_frame{frame:02}.nii.gz", image[..., thin] * 500)
            save(folder / f"patient{number + 1:03}_frame{frame:02}_gt.nii.gz", labels[..., thin])
        save(folder / f"patient{number + 1:03}_4d.nii.gz", np.zeros((*SHAPE, 2), np.float32))
        (folder / "Info.cfg").write_text("ED: 1\n")


def lits(root: Path) -> None:
    for number in range(5):
        image, labels = case(number, 3)
        save(root / f"Training Batch {1 + number % 2}" / f"volume-{number}.nii", image * 400 - 200, 3.0)
        save(root / f"Training Batch {1 + number % 2}" / f"segmentation-{number}.nii", labels, 3.0)


def hippocampus(root: Path) -> None:
    for number in (1, 2, 3, 221):
        image, labels = case(number, 3)
        save(root / "imagesTr" / f"hippocampus_{number:03}.nii.gz", image * 300, 1.5)
        save(root / "labelsTr" / f"hippocampus_{number:03}.nii.gz", labels, 1.5)


SMALL = {
    "hbformer": {"stem_channels": 3, "feature_size": 4, "depths": [1, 1, 1, 1], "head_dim": 4, "window_size": 4},
    "paratranscnn": {"heads": 2, "dim": 8, "depth": [1, 1, 1], "resnet_depth": 18, "resnet_width": 4},
    "smp_unet": {"decoder_channels": [16, 8, 8, 4, 4]},
    "monai": {"filters": [4, 8, 8], "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
    | {"deep_supr_num": 1},
}
MINIATURES = {
    "synapse_paratranscnn": (synapse, 1),
    "synapse_hbformer": (synapse, 1),
    "avt_paratranscnn": (avt, 1),
    "acdc_paratranscnn": (acdc, 2),
    "lits_hbformer": (lits, 1),
    "hippocampus": (hippocampus, 1),
    "hippocampus_hbformer_cpu": (hippocampus, 1),
    "hippocampus_paratranscnn_cpu": (hippocampus, 1),
    "hippocampus_unet_cpu": (hippocampus, 1),
}


def test_every_recipe_has_a_miniature_or_a_test_of_its_own():
    medical = {name for name, path in bundled_recipes().items() if path.parent.name == "medvision"}
    elsewhere = {"medical_images", "image_segmentation", "thick_slices"}  # tests of these kinds
    medical = {name for name in medical if load_recipe(name).data.kind not in elsewhere}
    assert medical == {*MINIATURES, "brain_structures"}


@pytest.mark.parametrize("name", MINIATURES)
def test_a_recipe_runs_on_its_data_set_in_miniature(name: str, tmp_path: Path, store: str):
    make: Callable[[Path], None]
    make, tests = MINIATURES[name]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    where = [f"data.root={tmp_path / 'data'}", f"output={tmp_path / 'out'}"]
    full = load_recipe(name, where)
    assert isinstance(full.data, VolumeData | PatchData)
    find_kind(full)  # the network and the contract of the recipe as it stands
    small = [f"model.arguments.{key}={value}" for key, value in SMALL[full.model.architecture].items()]
    if full.model.architecture == "hbformer":
        small.append("model.arguments.img_size=[32, 32]")
    length = ["train.epochs=1", "train.steps_per_epoch=2", "train.batch_size=2", "train.steps=null"]
    sizes = ["data.size=32", "data.spacing_mm=[1.5, 1.5, null]", "tracking.system_metrics=false"]
    if isinstance(full.data, PatchData):
        sizes[0] = "data.patch=[16, 16, 16]"
    if "arrays" in full.data.layout or full.data.layout == "avt":
        sizes[1] = "data.spacing_mm=[1.0, 1.0, null]"
    job = run_stages(load_recipe(name, [*where, *small, *length, *sizes]), ["prepare", "train", "evaluate"])
    assert job.summary is not None and job.summary["cases"] == tests
    assert job.summary["protocol"] == full.evaluate.protocol
    names = [entry["name"] for entry in full.card["classes"][1:]]
    assert [entry["name"] for entry in job.summary["classes"]] == names
    for entry in job.summary["classes"]:
        assert entry["states"]["both_empty"] == entry["states"]["false_positive"] == 0  # every case has every class
