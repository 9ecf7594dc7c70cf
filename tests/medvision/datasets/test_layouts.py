"""Each published layout in its true form, in miniature: which cases are found, how they are parted and read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from medvision.contract import InputContract
from medvision.datasets.layouts import AVT_TEST, SYNAPSE_TEST, SYNAPSE_TRAIN, find_cases
from medvision.datasets.preparation import bytes_of, prepare, read_case
from shared_backbones.errors import InputError


def write(
    path: Path, value: int = 1, shape: tuple[int, int, int] = (10, 9, 8), affine: np.ndarray | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros(shape, np.int16)
    data[2:4, 1:3, 1:3] = value
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)


def scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(len(path.name)).normal(100, 20, (10, 9, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)


def arrays(path: Path, depth: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (depth, 5, 6) if depth else (5, 6)
    image, label = np.random.default_rng(0).random(shape).astype(np.float32), np.zeros(shape, np.uint8)
    label[..., 1:3, 2:4] = 7
    if depth:
        with h5py.File(path, "w") as file:
            file["image"], file["label"] = image, label
    else:
        np.savez(path, image=image, label=label)


def splits(cases) -> dict[str, str]:
    return {case.name: case.split for case in cases}


def contract(classes: int, spacing_mm: Any, normalisation: str = "rescale_intensity") -> InputContract:
    card = {
        "classes": [{"id": number, "name": str(number), "color": [0, 0, number]} for number in range(classes)],
        "input": {"spacing_mm": spacing_mm, "slices": [0], "views": ["axial"], "normalisation": normalisation},
    }
    return InputContract.from_card(card, "test")


def test_decathlon(tmp_path):
    for number in (1, 3, 220, 221):
        scan(tmp_path / f"imagesTr/hippocampus_{number:03}.nii.gz")
        write(tmp_path / f"labelsTr/hippocampus_{number:03}.nii.gz")
    (tmp_path / "imagesTr/._hippocampus_001.nii.gz").write_bytes(b"resource fork")
    found = splits(find_cases("msd", tmp_path, test_ids_above=220))
    assert found == {f"hippocampus_{n:03}": "test" if n > 220 else "train" for n in (1, 3, 220, 221)}
    named = splits(find_cases("msd", tmp_path, test=["hippocampus_003"]))
    assert [name for name, split in named.items() if split == "test"] == ["hippocampus_003"]
    with pytest.raises(InputError, match=r"no subject hippocampus_9 among 4 cases"):
        find_cases("msd", tmp_path, test=["hippocampus_9"])
    (tmp_path / "labelsTr/hippocampus_003.nii.gz").unlink()
    with pytest.raises(InputError, match=r"hippocampus_003.nii.gz: has no labels in"):
        find_cases("msd", tmp_path)


def test_pairs_are_drawn_by_subject_and_seed(tmp_path):
    for number in range(20):
        scan(tmp_path / f"scans/{number:02}.nii.gz")
        write(tmp_path / f"masks/{number:02}.nii.gz")
    options = {"images": "scans", "labels": "masks", "test_share": 0.2, "validation": 0.25}
    found = splits(find_cases("pairs", tmp_path, seed=3, **options))
    assert sorted(found.values()) == ["test"] * 4 + ["train"] * 12 + ["validation"] * 4
    assert found == splits(find_cases("pairs", tmp_path, seed=3, **options))
    assert found != splits(find_cases("pairs", tmp_path, seed=4, **options))
    with pytest.raises(InputError, match=r"data.options do not suit layout pairs"):
        find_cases("pairs", tmp_path, image="scans")


@pytest.mark.parametrize("folders", [("", ""), ("img/", "label/")])
def test_synapse_volumes_keep_the_eight_organs(tmp_path, folders):
    for number in ("0001", "0005"):
        scan(tmp_path / f"{folders[0]}img{number}.nii.gz")
        write(tmp_path / f"{folders[1]}label{number}.nii.gz", 11 if number == "0001" else 13)
    cases = find_cases("synapse", tmp_path)
    assert splits(cases) == {"0001": "test", "0005": "train"}
    _, pancreas = read_case(cases[0], range(9))
    _, gland = read_case(cases[1], range(9))
    assert set(np.unique(pancreas)) == {0, 6} and set(np.unique(gland)) == {0}
    assert len(SYNAPSE_TEST) == 12 and len(SYNAPSE_TRAIN) == 18 and not set(SYNAPSE_TEST) & set(SYNAPSE_TRAIN)


def test_synapse_slices_become_volumes(tmp_path):
    for number in (2, 0, 1):
        arrays(tmp_path / f"train_npz/case0005_slice{number:03}.npz")
    arrays(tmp_path / "test_vol_h5/case0001.npy.h5", depth=3)
    cases = find_cases("synapse_arrays", tmp_path)
    assert splits(cases) == {"0001": "test", "0005": "train"}
    assert [path.name[-7:-4] for path in cases[1].image] == ["000", "001", "002"]
    for case in cases:
        volume, labels = read_case(case, range(9))
        assert volume.data.shape == labels.shape == (5, 6, 3) and set(np.unique(labels)) == {0, 7}
    np.savez(tmp_path / "train_npz/case0005_slice001.npz", image=np.zeros((5, 6)))
    with pytest.raises(InputError, match=r"case0005_slice001.npz: contains no .*label.*; expected `image` and `label`"):
        read_case(cases[1], range(9))
    (tmp_path / "train_npz/case0005_slice001.npz").write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"case0005_slice001.npz: cannot be read"):
        read_case(cases[1], range(9))


def test_aortas(tmp_path):
    for number in (9, 10):
        arrays(tmp_path / f"train/K1_slice_{number}.npz")
    arrays(tmp_path / "test/R1 (AD).h5", depth=2)
    cases = find_cases("avt", tmp_path)
    assert splits(cases) == {"K1": "train", "R1 (AD)": "test"} and len(AVT_TEST) == 18
    assert [path.name for path in cases[0].image] == ["K1_slice_9.npz", "K1_slice_10.npz"]


def test_hearts_keep_both_phases_of_a_patient_together(tmp_path):
    for patient, split in (("001", "training"), ("002", "training"), ("101", "testing")):
        for frame in ("01", "12"):
            scan(tmp_path / f"{split}/patient{patient}/patient{patient}_frame{frame}.nii.gz")
            write(tmp_path / f"{split}/patient{patient}/patient{patient}_frame{frame}_gt.nii.gz")
        scan(tmp_path / f"{split}/patient{patient}/patient{patient}_4d.nii.gz")
    cases = find_cases("acdc", tmp_path, validation=0.5)
    assert len(cases) == 6 and {case.split for case in cases} == {"train", "validation", "test"}
    by_subject = {case.subject: {other.split for other in cases if other.subject == case.subject} for case in cases}
    assert by_subject["patient101"] == {"test"} and all(len(found) == 1 for found in by_subject.values())


def test_livers(tmp_path):
    for folder, number in (("Training Batch 1", 0), ("Training Batch 2", 10)):
        scan(tmp_path / folder / f"volume-{number}.nii")
        write(tmp_path / folder / f"segmentation-{number}.nii")
    assert splits(find_cases("lits", tmp_path, test_ids_above=5)) == {"0": "train", "10": "test"}


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(InputError, match=r"data.layout 'bids' is unknown; expected one of: msd, pairs"):
        find_cases("bids", tmp_path)
    with pytest.raises(InputError, match=r"no case of layout msd found; expected imagesTr/NAME.nii.gz and labelsTr"):
        find_cases("msd", tmp_path)
    scan(tmp_path / "images/a.nii.gz")
    write(tmp_path / "labels/a.nii.gz", affine=np.diag([1.0, 1, 2, 1]))
    (case,) = find_cases("pairs", tmp_path)
    with pytest.raises(InputError, match=r"a.nii.gz: image and labels lie on different grids"):
        read_case(case, [0, 1])
    write(tmp_path / "labels/a.nii.gz", 5)
    with pytest.raises(InputError, match=r"labels hold 5, expected some of 0, 1; declare them in card.classes"):
        read_case(case, [0, 1])


def test_prepared_volumes_are_those_that_the_segmenter_sees(tmp_path):
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 3], [0, 0, 3.0, 1], [0, 0, 0, 1]])
    random = np.random.default_rng(0)
    image = random.normal(100, 30, (16, 12, 8)).astype(np.float32)
    labels = np.zeros(image.shape, np.int16)
    labels[4:12, 3:9, 2:6] = 1
    for folder, data in (("images", image), ("labels", labels)):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(data, affine), tmp_path / folder / "a.nii.gz")
    (case,) = find_cases("pairs", tmp_path)
    case = replace(case, split="train")
    found = prepare(case, contract(2, 1.5))
    image, marks = found["arrays"]["image"], found["arrays"]["labels"]
    assert image.shape == marks.shape == (16, 16, 16) and image.dtype == np.float16
    assert image.min() >= 0 and image.max() <= 1
    # 8 x 6 x 4 voxels of 1.5 x 2 x 3 mm, in RAS order 6 * 2, 8 * 1.5 and 4 * 3 mm
    assert abs(int((marks == 1).sum()) * 1.5**3 - 12 * 12 * 12) < 250
    own = prepare(case, contract(2, [1.0, 1.5, None]))  # the scan's 3 mm along the third axis
    assert own["arrays"]["image"].shape == (24, 16, 8)
    assert int((own["arrays"]["labels"] == 1).sum()) * 1.0 * 1.5 * 3 == 12 * 12 * 12
    record = found["record"]
    assert record["shape"] == [16, 12, 8] and record["spacing_mm"] == [1.5, 2.0, 3.0]
    assert record["voxels"] == {"0": 16 * 12 * 8 - 8 * 6 * 4, "1": 8 * 6 * 4}
    checked = prepare(replace(case, split="test"), contract(2, 1.5))
    assert checked == {"arrays": {}, "record": record}
    assert bytes_of(case, contract(2, 1.5)) == pytest.approx(3 * 16**3, rel=0.01)
    assert bytes_of(replace(case, split="test"), contract(2, 1.5)) == 0


def test_values_too_large_for_the_store_are_refused(tmp_path):
    for folder in ("images", "labels"):
        write(tmp_path / folder / "a.nii.gz", 30000)
    nib.save(
        nib.Nifti1Image(np.arange(720, dtype=np.float32).reshape(10, 9, 8) * 1e3, np.eye(4)),
        tmp_path / "images/a.nii.gz",
    )
    write(tmp_path / "labels/a.nii.gz", 1)
    (case,) = find_cases("pairs", tmp_path)
    with pytest.raises(InputError, match=r"a.nii.gz: holds values up to 7.19e\+05, too large for float16"):
        prepare(case, contract(2, 1.0, "none"))
    assert prepare(case, contract(2, 1.0))["arrays"]["image"].max() == 1


def test_the_hippocampus_data_is_found_and_parted_as_its_split_says(data_root):
    cases = find_cases("msd", data_root / "medical/msd_hippocampus", test_ids_above=220, validation=0.1, seed=1)
    counts = {split: sum(case.split == split for case in cases) for split in ("train", "validation", "test")}
    assert len(cases) == 178 and counts["test"] == 41 and counts["validation"] == 14
    assert all((int(case.name[-3:]) > 220) == (case.split == "test") for case in cases)
    found = prepare(cases[0], contract(3, 1.0))
    assert set(np.unique(found["arrays"]["labels"])) == {0, 1, 2}
