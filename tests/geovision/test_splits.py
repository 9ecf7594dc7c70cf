"""Published splits: found wherever downloads lay them, named, and never replaced by drawn ones in silence."""

from pathlib import Path

import pytest

from geovision.datasets.layouts import BigEarthNet, EuroSat, Folders
from geovision.datasets.splits import DRAWN
from shared_backbones.errors import InputError

CLASSES = ["Forest", "River"]


def write_images(home: Path) -> None:
    for name in CLASSES:
        for number in range(4):
            (home / name).mkdir(parents=True, exist_ok=True)
            (home / name / f"{name}_{number}.tif").touch()


def write_lists(folder: Path, prefix: str = "eurosat") -> None:
    for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        lines = [f"{name}_{number}.jpg" for name in CLASSES for number in numbers]
        (folder / f"{prefix}-{split}.txt").write_text("\n".join([*lines, ""]))


@pytest.mark.parametrize("levels", range(7))
@pytest.mark.parametrize("from_the_top", [False, True])
def test_lists_are_found_up_to_six_levels_above_the_classes(tmp_path: Path, levels: int, from_the_top: bool):
    home = tmp_path.joinpath("root", *(f"level{number}" for number in range(levels)))
    write_images(home)
    write_lists(tmp_path / "root")
    root = tmp_path / "root" if from_the_top else home
    items = EuroSat().find(root, CLASSES, {})
    assert {item.path.stem: item.split for item in items} == {
        f"{name}_{number}": {2: "validation", 3: "test"}.get(number, "train") for name in CLASSES for number in range(4)
    }
    names = EuroSat().split_origin(root, CLASSES, {})
    assert sorted(names.split(", ")) == ["eurosat-test.txt", "eurosat-train.txt", "eurosat-val.txt"]


def test_without_lists_the_split_is_drawn(tmp_path: Path):
    write_images(tmp_path / "a")
    (tmp_path / "other-train.txt").write_text("nothing_of_these.jpg\n")
    assert Folders().split_origin(tmp_path / "a", CLASSES, {}) == DRAWN
    write_images(tmp_path / "b" / "train")
    assert Folders().split_origin(tmp_path / "b", CLASSES, {}) == "folders"


def test_two_sets_of_lists_are_asked_about(tmp_path: Path):
    write_images(tmp_path / "tif")
    write_lists(tmp_path)
    write_lists(tmp_path, "eurosat-spatial")
    with pytest.raises(InputError, match=r"the lists of eurosat and eurosat-spatial fit, expected one"):
        EuroSat().find(tmp_path, CLASSES, {})
    assert "eurosat-spatial-val.txt" in EuroSat().split_origin(tmp_path, CLASSES, {"lists": "eurosat-spatial"})
    with pytest.raises(InputError, match=r"no lists none-\*\.txt fit"):
        EuroSat().find(tmp_path, CLASSES, {"lists": "none"})


def test_an_image_in_two_lists_is_refused(tmp_path: Path):
    write_images(tmp_path / "tif")
    write_lists(tmp_path)
    with (tmp_path / "eurosat-test.txt").open("a") as file:
        file.write("Forest_0.jpg\n")
    with pytest.raises(InputError, match=r"Forest_0 is in the list of \w+, too"):
        EuroSat().find(tmp_path, CLASSES, {})


def test_one_name_with_two_contents_is_refused(tmp_path: Path):
    write_images(tmp_path / "tif")
    write_lists(tmp_path)
    (tmp_path / "tif" / "eurosat-test.txt").write_text("Forest_0.jpg\n")
    with pytest.raises(InputError, match="is another list of the same name"):
        EuroSat().find(tmp_path, CLASSES, {})


@pytest.mark.parametrize("prefix", ["", "bigearthnet-"])
def test_bigearthnet_s_lists_lie_above_its_patches(tmp_path: Path, prefix: str):
    for number in range(3):
        patch = tmp_path / "BigEarthNet-v1.0" / f"S2A_{number}"
        patch.mkdir(parents=True)
        (patch / f"S2A_{number}_labels_metadata.json").write_text('{"labels": ["Forest"]}')
    for split, number in (("train", 0), ("val", 1), ("test", 2)):
        (tmp_path / f"{prefix}{split}.csv").write_text(f"S2A_{number},S1A_{number}\n")
    for root in (tmp_path, tmp_path / "BigEarthNet-v1.0"):
        items = BigEarthNet().find(root, CLASSES, {})
        assert [item.split for item in items] == ["train", "validation", "test"]
        assert f"{prefix}train.csv" in BigEarthNet().split_origin(root, CLASSES, {})
