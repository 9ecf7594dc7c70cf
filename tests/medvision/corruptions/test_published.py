"""Published files of MedMNIST-C: severity after severity, and what is no such file."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medvision.corruptions.published import read_corrupted
from shared_backbones.errors import InputError
from tests.hostile.sound_files import medmnist_c


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def write(tmp_path: Path):
    def write(images: Any, labels: Any, **more: Any) -> Path:
        names = {"test_images": images, "test_labels": labels} | more
        np.savez_compressed(
            tmp_path / "pixelate.npz", **{name: value for name, value in names.items() if value is not None}
        )
        return tmp_path / "pixelate.npz"

    return write


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_published_file_is_read_severity_after_severity(write, channels: tuple[int, ...]):
    images = generator().integers(256, size=(5 * 4, 6, 7, *channels), dtype=np.uint8)
    labels = np.tile(np.array([[0], [2], [1], [2]], np.uint8), (5, 1))
    found = list(read_corrupted(write(list(images), list(labels))))  # as the reference saves them
    assert len(found) == 5
    for severity, (part, classes) in enumerate(found):
        np.testing.assert_array_equal(part, images[4 * severity : 4 * severity + 4])
        assert classes.dtype == np.int64 and classes.tolist() == [[0], [2], [1], [2]]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((10, 4, 4), np.uint8), None, "holds test_images.npy; expected test_images.npy and test_labels.npy"),
        (np.zeros((10, 4, 4), np.float32), np.zeros((10, 1), int), "test_images are float32 of shape"),
        (np.zeros((10, 4), np.uint8), np.zeros((10, 1), int), "test_images are uint8 of shape"),
        (np.zeros((10, 4, 4, 2), np.uint8), np.zeros((10, 1), int), "test_images are uint8 of shape"),
        (np.zeros((9, 4, 4), np.uint8), np.zeros((9, 1), int), "test_labels are int64 of shape .* for 9 images"),
        (np.zeros((10, 4, 4), np.uint8), np.zeros((5, 1), int), "for 10 images; expected one row of integers for each"),
        (np.zeros((10, 4, 4), np.uint8), np.zeros((10, 1)), "test_labels are float64"),
        (np.zeros((0, 4, 4), np.uint8), np.zeros((0, 1), int), "for 0 images"),
        (np.zeros((10, 4, 4), np.uint8), np.arange(10), "test_labels change with the severity"),
        (np.zeros((10, 4, 4), np.uint8), np.array([None] * 10), "array of objects"),
    ],
)
def test_other_files_are_refused(write, images, labels, message: str):
    with pytest.raises(InputError, match=message) as refused:
        read_corrupted(write(images, labels))
    assert "pixelate.npz" in str(refused.value) and "\n" not in str(refused.value)


def test_damaged_files_are_refused(write, tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        read_corrupted(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot be read"):
        read_corrupted(tmp_path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"is not a readable \.npz file"):
        read_corrupted(tmp_path / "text.npz")
    path = write(generator().integers(256, size=(10, 8, 8), dtype=np.uint8), np.zeros((10, 1), np.uint8))
    whole = path.read_bytes()
    place = whole.index(b"test_images.npy") + 400
    path.write_bytes(whole[:place] + bytes(byte ^ 255 for byte in whole[place : place + 40]) + whole[place + 40 :])
    with pytest.raises(InputError, match=r"damaged|readable"):
        list(read_corrupted(path))
    header, labels = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10, 9, 9)})
    np.save(labels, np.zeros((10, 1), np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test_images.npy", header.getvalue() + bytes(200))
        archive.writestr("test_labels.npy", labels.getvalue())
    parts = read_corrupted(path)
    next(parts)
    with pytest.raises(InputError, match=r"is damaged .its data are cut short.; copy or download it again"):
        next(parts)


def test_what_a_library_quotes_of_a_file_is_cut_short(tmp_path: Path):
    path = medmnist_c(tmp_path)
    content = bytearray(path.read_bytes())
    content[26:28] = (500).to_bytes(2, "little")  # the length of its first member's name, which zipfile quotes
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a readable") as raised:
        list(read_corrupted(path))
    assert len(str(raised.value)) < 300 + len(str(path))
