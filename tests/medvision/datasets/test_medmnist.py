"""Files of MedMNIST: what is read, and what is refused in one line."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvision.datasets.medmnist import SETS, SPLITS, find_set, iter_images, read_medmnist, read_targets
from shared_backbones import memory
from shared_backbones.errors import InputError


def write(path: Path, **arrays: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            if isinstance(array, bytes):
                buffer.write(array)
            else:
                np.lib.format.write_array(buffer, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """An array that claims to be of a shape, and holds nothing."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def arrays(name: str, count: int = 6, side: int = 28, split: str = "test") -> dict[str, np.ndarray]:
    random, facts = np.random.default_rng(0), SETS[name]
    images = random.integers(0, 256, (count, side, side, 3)[: 3 + (facts.channels == 3)], np.uint8)
    classes = len(facts.classes)
    shape, last = ((count, classes), 2) if facts.multi_label else ((count, 1), classes)
    return {f"{split}_images": images, f"{split}_labels": random.integers(0, last, shape).astype(np.uint8)}


def test_the_table_is_the_published_one():
    assert len(SETS) == 12 and all(SETS[name].name == name for name in SETS)
    assert sum(sum(facts.counts.values()) for facts in SETS.values()) == 707962  # as in medmnist 3.0.2
    tasks = {task: [name for name in SETS if SETS[name].task == task] for task in {f.task for f in SETS.values()}}
    assert tasks["binary"] == ["pneumoniamnist", "breastmnist"] and tasks["ordinal"] == ["retinamnist"]
    assert tasks["multi-label"] == ["chestmnist"] and len(tasks["multi-class"]) == 8
    assert [len(facts.classes) for facts in SETS.values()] == [9, 14, 7, 4, 2, 5, 2, 8, 8, 11, 11, 11]
    coloured = {name for name, facts in SETS.items() if facts.channels == 3}
    assert coloured == {"pathmnist", "dermamnist", "retinamnist", "bloodmnist"}
    assert all(
        tuple(facts.counts) == SPLITS and len(set(facts.classes)) == len(facts.classes) for facts in SETS.values()
    )


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("pneumoniamnist.npz", "pneumoniamnist"),
        ("PathMNIST_224.npz", "pathmnist"),
        ("organamnist-64.npz", "organamnist"),
    ],
)
def test_a_files_name_says_the_set(file: str, name: str):
    assert find_set(Path("somewhere") / file).name == name
    assert find_set("x.npz", name) is SETS[name]


@pytest.mark.parametrize("file", ["cases.npz", "organmnist3d.npz", "mnist.npz", "xpathmnist.npz"])
def test_other_names_are_no_set(file: str):
    with pytest.raises(InputError, match="names no 2-D set of MedMNIST; expected pathmnist"):
        find_set(file)
    with pytest.raises(InputError, match="'pathmnist_224' names no"):
        find_set("pathmnist.npz", "pathmnist_224")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("side", [28, 64])
def test_images_and_targets_of_every_set(tmp_path: Path, name: str, side: int):
    given = arrays(name, side=side, split="val")
    found = read_medmnist(write(tmp_path / f"{name}_{side}.npz", **given), "val")
    np.testing.assert_array_equal(found.images, given["val_images"])
    assert found.images.dtype == found.targets.dtype == np.uint8 and found.facts is SETS[name]
    assert found.targets.shape == (6, len(SETS[name].classes))
    if SETS[name].multi_label:
        np.testing.assert_array_equal(found.targets, given["val_labels"])
    else:
        np.testing.assert_array_equal(found.targets.argmax(1), given["val_labels"][:, 0])
        np.testing.assert_array_equal(found.targets.sum(1), 1)
    published = SETS[name].counts["val"]
    assert found.notices == [f"val holds 6 images, {name} was published with {published}; figures do not compare"]


def test_a_published_count_is_no_notice_and_an_array_can_be_in_columns(tmp_path: Path):
    given = arrays("breastmnist", 156, 8)
    found = read_medmnist(write(tmp_path / "breastmnist.npz", **given), "test")
    assert found.notices == []
    turned = {name: np.asfortranarray(array) for name, array in given.items()}
    same = read_medmnist(write(tmp_path / "other.npz", **turned), "test", "breastmnist")
    np.testing.assert_array_equal(same.images, found.images)
    np.testing.assert_array_equal(same.targets, found.targets)
    assert same.images.flags.c_contiguous


def test_other_splits_may_be_absent_and_are_not_looked_at(tmp_path: Path):
    path = write(tmp_path / "breastmnist.npz", **arrays("breastmnist"), train_images=b"damaged")
    assert len(read_medmnist(path, "test").images) == 6
    with pytest.raises(InputError, match="cannot be read as"):
        read_medmnist(path, "train")


def test_whole_numbers_of_any_type_are_labels(tmp_path: Path):
    given = arrays("breastmnist")
    for kind in (np.int64, np.uint16, bool):
        labels = given["test_labels"].astype(kind)
        path = write(tmp_path / "breastmnist.npz", test_images=given["test_images"], test_labels=labels)
        np.testing.assert_array_equal(read_medmnist(path, "test").targets.argmax(1), given["test_labels"][:, 0])


GREY = np.zeros((6, 28, 28), np.uint8)
LABELS = np.zeros((6, 1), np.uint8)
X, Y = "test_images", "test_labels"
HOSTILE = {
    "images missing": ({Y: LABELS}, "has no test_images, found test_labels"),
    "labels missing": ({X: GREY}, "has no test_labels, found test_images"),
    "nothing": ({}, "has no test_images, found nothing"),
    "floats": ({X: GREY.astype(np.float32), Y: LABELS}, "test_images is float32, expected uint8"),
    "sixteen bits": ({X: GREY.astype(">u2"), Y: LABELS}, "test_images is >u2, expected uint8"),
    "objects": (
        {X: np.array([{}] * 6, object), Y: LABELS}, "test_images holds Python objects"
    ),
    "labels are objects": (
        {X: GREY, Y: np.array([[{}]] * 6, object)}, "test_labels holds Python objects"
    ),
    "labels are text": ({X: GREY, Y: np.array([["a"]] * 6)}, "test_labels is <U1, expected whole"),
    "two dimensions": ({X: GREY[0], Y: LABELS}, r"is \(28, 28\), expected \(N, H, W\)"),
    "colours": ({X: np.zeros((6, 28, 28, 3), np.uint8), Y: LABELS}, r"expected \(N, H, W\) for"),
    "scalar": ({X: np.uint8(3), Y: LABELS}, r"is \(\), expected \(N, H, W\)"),
    "counts differ": ({X: GREY, Y: LABELS[:5]}, r"is \(5, 1\), expected \(6, 1\)"),
    "flat labels": ({X: GREY, Y: LABELS[:, 0]}, r"is \(6,\), expected \(6, 1\)"),
    "many labels": ({X: GREY, Y: np.zeros((6, 14), np.uint8)}, r"is \(6, 14\), expected \(6, 1\)"),
    "labels outside": ({X: GREY, Y: LABELS + 2}, "runs from 2 to 2, expected 0 to 1"),
    "labels below": ({X: GREY, Y: LABELS.astype(int) - 1}, "runs from -1 to -1, expected 0 to 1"),
    "empty": ({X: GREY[:0], Y: LABELS[:0]}, "test holds no image"),
    "no side": ({X: GREY[:, :0], Y: LABELS}, "test holds no image"),
    "bomb of images": ({X: header((10**12, 28, 28)), Y: LABELS}, "claims 1000000000000 images"),
    "bomb of pixels": ({X: header((6, 10**6, 10**6)), Y: LABELS}, "would take 5,588 GB of memory"),
    "endless": ({X: header((6, 10**400, 2)), Y: LABELS}, "cannot be read as .npz"),
    "bomb of labels": ({X: GREY, Y: header((10**12, 1))}, "expected (6, 1)"),
    "negative": ({X: header((6, -28, 28)), Y: LABELS}, "test holds no image"),
    "truncated": ({X: header((6, 28, 28)) + b"x" * 99, Y: LABELS}, "cannot be read as .npz"),
    "labels truncated": ({X: GREY, Y: header((6, 1))}, "cannot be read as .npz"),
    "no array": ({X: b"no array", Y: LABELS}, "cannot be read as .npz"),
    "odd header": ({X: b"\x93NUMPY\x01\x00\x04\x00({[\n", Y: LABELS}, "cannot be read as .npz"),
    "format 3": ({X: b"\x93NUMPY\x03\x00\x04\x00{}  ", Y: LABELS}, r"has the format \(3, 0\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_one_line(tmp_path: Path, kind: str):
    content, message = HOSTILE[kind]
    path = write(tmp_path / "breastmnist.npz", **content)
    pattern = message if "\\" in message else message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=pattern) as caught:
        read_medmnist(path, "test")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(InputError, match=re.escape(str(path))):  # images one after the other are no way around
        list(zip(iter_images(path, "test"), read_targets(path, "test"), strict=True))


def test_images_come_one_after_the_other_whatever_the_file_would_take(tmp_path: Path):
    given = arrays("bloodmnist", 9)
    path = write(tmp_path / "bloodmnist.npz", **given)
    np.testing.assert_array_equal(np.stack(list(iter_images(path, "test"))), given["test_images"])
    given["test_images"] = np.asfortranarray(given["test_images"])
    path = write(tmp_path / "bloodmnist_columns.npz", **given)
    np.testing.assert_array_equal(np.stack(list(iter_images(path, "test"))), given["test_images"])
    shape = SETS["octmnist"].counts["train"], 224, 224  # 4.6 GB, of which the file holds the first image
    labels = np.zeros((shape[0], 1), np.uint8)
    path = write(tmp_path / "octmnist_224.npz", train_images=header(shape) + b"x" * 224 * 224, train_labels=labels)
    assert len(read_targets(path, "train")) == shape[0]
    images = iter_images(path, "train")
    assert (next(images) == ord("x")).all()
    with pytest.raises(InputError, match="its images are cut short"):
        next(images)


def test_what_is_no_archive_is_one_line(tmp_path: Path):
    path = tmp_path / "breastmnist.npz"
    with pytest.raises(InputError, match="no such file; expected a"):
        read_medmnist(path, "test")
    good = write(path, **arrays("breastmnist")).read_bytes()
    for content in (b"", b"PK", b"\x93NUMPY", good[:-40], good[: len(good) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as") as caught:
            read_medmnist(path, "test")
        assert "\n" not in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="cannot be read as"):
        read_medmnist(path, "test")


def test_damage_anywhere_is_one_line_or_harmless(tmp_path: Path):
    given = arrays("retinamnist", 3, 8)
    good = bytearray(write(tmp_path / "retinamnist.npz", **given).read_bytes())
    random = np.random.default_rng(0)
    for place in random.integers(0, len(good), 150):
        damaged = bytearray(good)
        damaged[place] ^= int(random.integers(1, 256))
        (tmp_path / "retinamnist.npz").write_bytes(damaged)
        try:
            found = read_medmnist(tmp_path / "retinamnist.npz", "test")
        except InputError as error:
            assert "\n" not in str(error)
        else:
            np.testing.assert_array_equal(found.images, given["test_images"])


def test_the_limit_can_be_raised_and_an_unknown_split_is_refused(tmp_path: Path):
    path = write(tmp_path / "breastmnist.npz", **arrays("breastmnist"))
    memory.set_budget(1e-6)
    with pytest.raises(InputError, match=r"test_images would take .* GB of memory; the limit is 1e-06 GB; raise it"):
        read_medmnist(path, "test")
    memory.set_budget(None)
    with pytest.raises(InputError, match="split 'all' is unknown; expected one of train, val, test"):
        read_medmnist(path, "all")


def test_the_real_file(data_root: Path):
    path = data_root / "medical" / "medmnist" / "pneumoniamnist.npz"
    counts = {"train": 4708, "val": 524, "test": 162}
    for split, count in counts.items():
        found = read_medmnist(path, split)
        assert found.images.shape == (count, 28, 28) and found.targets.shape == (count, 2)
        assert (found.targets.sum(1) == 1).all() and found.targets.any(0).all()
        assert len(found.notices) == (split == "test")
