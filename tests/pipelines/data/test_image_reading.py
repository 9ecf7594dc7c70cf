"""Labelled galaxies as data sets lay them out, on miniatures in their true layout and on the real cut-outs."""

import csv
import hashlib
import io
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from astrovision.datasets import galaxy10
from astrovision.datasets.galaxy10 import DECALS, SDSS, block_of, read_labels, read_rows
from pipelines.data.image_files import open_image
from pipelines.data.image_layouts import find_layout
from pipelines.data.image_reading import read_images, resized
from shared_backbones.errors import InputError
from shared_backbones.labelled_images import find_images, split_digest
from tests.needs import missing

CLASSES = ["smooth", "spiral", "merger"]


def pixels(seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def hdf5(path: Path, count: int = 60, side: int = 8, classes: int = 3, **layout: Any) -> np.ndarray:
    """A file of Galaxy10's form, ordered by class as theirs is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, **layout)
        file["ans"] = np.sort(np.arange(count) % classes).astype(np.uint8)
        file["ra"] = np.zeros(count)
    return images


def table(root: Path, rows: list[tuple[Any, ...]], header: str = "id,label", ending: str = ".jpg") -> Path:
    (root / "images").mkdir(parents=True)
    for number, (key, *_) in enumerate(rows):
        if key:
            Image.fromarray(pixels(number)).save(root / "images" / f"{key}{ending}")
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return root


def found(layout: str, root: Path, classes: list[str] | None = None, **changes: Any) -> list[Any]:
    settings = {"test": 0.2, "validation": 0.25, "seed": 0, **changes}
    sources = find_images(find_layout(layout), root, classes or CLASSES, **settings)
    assert all(source.split == item.split for source in sources for item in source.items)
    return [item for source in sources for item in source.items]


@pytest.mark.parametrize(
    "layout",
    [{}, {"chunks": (1, 8, 8, 3)}, {"chunks": (7, 4, 4, 1), "compression": "gzip"}, {"chunks": (60, 2, 8, 3)}],
)
@pytest.mark.parametrize("memory", [2**26, 20 * 192])
def test_every_image_is_read_whatever_the_chunks(tmp_path: Path, monkeypatch: Any, layout: dict, memory: int):
    monkeypatch.setattr(galaxy10, "_BLOCK_BYTES", memory)
    galaxy10._kept.cache_clear()
    images = hdf5(tmp_path / "g.h5", **layout)
    read, reads = galaxy10._read, []
    monkeypatch.setattr(galaxy10, "_read", lambda file, path, *rows: reads.append(rows) or read(file, path, *rows))
    seen = {}
    for source in find_images(find_layout("galaxy10"), tmp_path, CLASSES, test=0.2, validation=0.25, seed=0):
        assert source.files == [tmp_path / "g.h5"]
        arrays, record = read_images(source, 8, 1.0, 3)
        assert record["images"] == len(source.items)
        for item, image, target in zip(source.items, arrays["image"], arrays["targets"], strict=True):
            np.testing.assert_array_equal(image, images[int(item.key)].transpose(2, 0, 1))
            assert target.tolist() == np.eye(3)[item.label].tolist() and item.label == item.row // 20  # type: ignore
            seen[item.key] = item.split
    assert Counter(seen.values()) == {"train": 36, "validation": 12, "test": 12}
    assert max(end - first for first, end in reads) * 192 <= memory
    rows = [row for first, end in reads for row in range(first, end)]
    assert sorted(rows) == list(range(60))  # each once, although three splits have images in each block


@given(st.integers(1, 900), st.integers(1, 3000), st.integers(1, 4000))
def test_blocks_are_of_whole_chunks_and_of_bounded_memory(depth: int, kilobytes: int, count: int):
    bytes_per_row = kilobytes * 1024
    blocks = {block_of(row, depth, bytes_per_row, count) for row in range(count)}
    ends = sorted(blocks)
    assert ends[0][0] == 0 and ends[-1][1] == count
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(ends))
    most = 2**26 // bytes_per_row
    assert all(end - first <= max(most, 1) for first, end in blocks)
    reads = Counter(chunk for first, end in blocks for chunk in range(first // depth, (end - 1) // depth + 1))
    assert max(reads.values()) == 1 if depth <= most else max(reads.values()) <= -(-depth // most)


def test_a_draw_is_stratified_seeded_and_named_by_its_digest(tmp_path: Path):
    hdf5(tmp_path / "g.h5")
    items = found("galaxy10", tmp_path)
    assert all(Counter(i.label for i in items if i.split == "test")[label] == 4 for label in range(3))
    assert all(Counter(i.label for i in items if i.split == "validation")[label] == 4 for label in range(3))
    again, other = found("galaxy10", tmp_path / "g.h5"), found("galaxy10", tmp_path, seed=1)
    assert again == items and {item.key for item in other} == {item.key for item in items}
    assert split_digest(items) == split_digest(reversed(items)) != split_digest(other)
    lines = "\n".join(sorted(f"{item.key}:{item.split}" for item in items))
    assert split_digest(items) == hashlib.sha256(lines.encode()).hexdigest()
    assert {i.split for i in found("galaxy10", tmp_path, test=0, validation=0)} == {"train"}


def published(path: Path, count: int, side: int, labels: np.ndarray) -> Path:
    """A file of the published shape, of which one image was written."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (count, side, side, 3), np.uint8, chunks=(1, side, side, 3))
        images[0] = 1
        file["ans"] = labels
    return path


def test_the_published_files_are_known(tmp_path: Path):
    assert sum(DECALS.counts) == DECALS.images == 17736 and len(SDSS.classes) == 10
    labels = np.repeat(np.arange(10), DECALS.counts)
    path = published(tmp_path / "g.h5", 17736, 256, labels)
    np.testing.assert_array_equal(read_labels(path, DECALS.classes), labels)
    with pytest.raises(InputError, match=r"of Galaxy10 DECaLS; name card.classes in its order: Disturbed Galaxies; M"):
        read_labels(path, DECALS.classes[::-1])
    with pytest.raises(InputError, match="but 1080 of class Disturbed Galaxies, published 1081"):
        read_labels(published(tmp_path / "h.h5", 17736, 256, np.where(np.arange(17736), labels, 1)), DECALS.classes)
    with pytest.raises(InputError, match="but of 64 pixels, expected 256"):
        read_labels(published(tmp_path / "i.h5", 17736, 64, labels), DECALS.classes)
    older = published(tmp_path / "j.h5", 21785, 69, np.arange(21785) % 10)
    assert len(read_labels(older, SDSS.classes)) == 21785
    with pytest.raises(InputError, match=r"of Galaxy10 SDSS; name card.classes"):
        read_labels(older, DECALS.classes)


def replaced(name: str, **options: Any) -> Callable[[Any, Path], None]:
    def change(file: Any, folder: Path) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def linked(link: Callable[[Path], Any]) -> Callable[[Any, Path], None]:
    def change(file: Any, folder: Path) -> None:
        del file["images"]
        file["images"] = link(folder)

    return change


def virtual(file: Any, folder: Path) -> None:
    del file["images"]
    layout = h5py.VirtualLayout((60, 8, 8, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "images", (60, 8, 8, 3))
    file.create_virtual_dataset("images", layout)


def outside(file: Any, folder: Path) -> None:
    del file["images"]
    (folder / "raw").write_bytes(bytes(60 * 192))
    file.create_dataset("images", (60, 8, 8, 3), np.uint8, external=[(str(folder / "raw"), 0, 60 * 192)])


BYTES = {"shape": (60, 8, 8, 3), "dtype": np.uint8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked(lambda folder: h5py.ExternalLink(str(folder / "other.h5"), "images")), "no data set images of its own"),
        (linked(lambda folder: h5py.SoftLink("/ra")), "no data set images of its own, found ans, images, ra"),
        (virtual, "lies in other files, expected one in the file itself"),
        (outside, "lies in other files, expected one in the file itself"),
        (lambda file, folder: file.__delitem__("ans"), "no data set ans of its own, found images, ra"),
        (lambda file, folder: (file.__delitem__("images"), file.create_group("images")), "no data set images"),
        (replaced("images", shape=(60,), dtype=h5py.vlen_dtype(np.uint8)), r"images are \(60,\) object, expected"),
        (replaced("images", **BYTES | {"dtype": np.float32}), r"float32, expected \(N, S, S, 3\) uint8"),
        (replaced("images", **BYTES | {"shape": (60, 3, 8, 8)}), r"images are \(60, 3, 8, 8\) uint8, expected"),
        (replaced("images", **BYTES | {"shape": (60, 8, 9, 3)}), r"images are \(60, 8, 9, 3\) uint8, expected"),
        (replaced("images", **BYTES, chunks=(1, 8, 8, 3)), "announced but never written"),
        (replaced("ans", data=np.zeros(59, np.uint8)), r"ans is \(59,\) uint8, expected 60 whole numbers"),
        (replaced("ans", data=np.zeros(60)), r"ans is \(60,\) float64, expected 60 whole numbers"),
        (replaced("ans", data=["a"] * 60), r"ans is \(60,\) object, expected 60 whole numbers"),
        (replaced("ans", data=np.arange(60)), "labels from 0 to 59, expected 0 to 2"),
        (replaced("ans", data=np.arange(60) - 1), "labels from -1 to 58, expected 0 to 2"),
        (replaced("ans", data=np.arange(60) % 2), "class merger has no image; give images of it"),
    ],
)
def test_hdf5_files_that_are_not_as_they_should_be_are_refused(tmp_path: Path, change: Any, message: str):
    hdf5(tmp_path / "data" / "g.h5")
    hdf5(tmp_path / "other.h5")
    with h5py.File(tmp_path / "data" / "g.h5", "a") as file:
        change(file, tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        found("galaxy10", tmp_path / "data")
    assert str(raised.value).startswith(str(tmp_path / "data")) and "\n" not in str(raised.value)


def test_chunks_that_cannot_be_decoded_in_bounded_memory_are_refused(tmp_path: Path, monkeypatch: Any):
    hdf5(tmp_path / "g.h5", chunks=(60, 8, 8, 3), compression="gzip")
    monkeypatch.setattr(galaxy10, "_CHUNK_BYTES", 60 * 192 - 1)
    with pytest.raises(InputError, match="h5repack -l images:CHUNK=1x8x8x3"):
        found("galaxy10", tmp_path)


def test_damaged_absent_and_several_files_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"holds 0 HDF5 files, expected one; give data.options.file"):
        found("galaxy10", tmp_path)
    hdf5(tmp_path / "a.h5", chunks=(7, 8, 8, 3), compression="gzip")
    hdf5(tmp_path / "b.h5")
    with pytest.raises(InputError, match="holds 2 HDF5 files"):
        found("galaxy10", tmp_path)
    assert len(found("galaxy10", tmp_path, options={"file": "a.h5"})) == 60
    content = bytearray((tmp_path / "a.h5").read_bytes())
    (tmp_path / "cut.h5").write_bytes(content[:-100])
    (tmp_path / "text.h5").write_text("no HDF5\n")
    for name in ("cut.h5", "text.h5", "absent.h5"):
        with pytest.raises(InputError, match=f"{name}: cannot be read as HDF5") as raised:
            found("galaxy10", tmp_path, options={"file": name})
        assert "\n" not in str(raised.value)
    with h5py.File(tmp_path / "a.h5") as file:
        place = file["images"].id.get_chunk_info(1).byte_offset  # type: ignore[union-attr]
    content[place : place + 40] = bytes(40)
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.h5: images 0 to 59 cannot be read .*; use an intact copy"):
        list(read_rows(tmp_path / "bad.h5", [0, 8]))


def test_a_table_gives_keys_classes_and_splits(tmp_path: Path):
    rows = [(f"k{n}", CLASSES[n % 3], ("train", "VAL", "test", "")[n % 4]) for n in range(24)]
    root = table(tmp_path / "a", rows, "name,kind,part", ".png")
    options = {"key": "name", "label": "kind", "split": "part"}
    items = found("table", root, options=options)
    assert Counter(item.split for item in items) == {"train": 12, "validation": 6, "test": 6}
    assert all(item.path == root / "images" / f"{item.key}.png" for item in items)
    assert {item.key: CLASSES[item.label] for item in items} == {key: kind for key, kind, _ in rows}
    numbered = table(tmp_path / "b", [(f"k{n}", n % 3) for n in range(24)], ending=".jpeg")
    content = (numbered / "labels.csv").read_bytes()
    (numbered / "labels.csv").write_bytes(b"\xef\xbb\xbf" + content)  # so spreadsheets save it
    assert {item.key: item.label for item in found("table", numbered)} == {f"k{n}": n % 3 for n in range(24)}


def test_a_table_may_name_files_as_they_lie(tmp_path: Path):
    root = table(tmp_path / "a", [(f"k{n}", CLASSES[n % 3]) for n in range(6)])
    (root / "images" / "b").mkdir()
    for number in range(3, 6):
        (root / "images" / f"k{number}.jpg").rename(root / "images" / "b" / f"k{number}.jpg")
    names = ["k0", "k1.jpg", "k2.jpg", *(f"images/b/k{number}.jpg" for number in range(3, 6))]

    def write(*names: str) -> None:
        lines = [f"{name},{CLASSES[number % 3]}" for number, name in enumerate(names)]
        (root / "labels.csv").write_text("\n".join(["id,label", *lines]) + "\n")

    write("k0", "k1.jpg", "b/k5.jpg")
    assert {item.path.relative_to(root).as_posix() for item in found("table", root)} == {
        "images/k0.jpg", "images/k1.jpg", "images/b/k5.jpg",
    }  # fmt: skip
    write(*names[3:])
    items = found("table", root, options={"images": "."})
    assert {item.path.relative_to(root).as_posix() for item in items} == set(names[3:])
    write("k0", "k1", "k2", "k1.jpg")
    with pytest.raises(InputError, match=r"labels.csv: names k1.jpg twice; leave one of them out"):
        found("table", root)
    for outside in ("../images/k2.jpg", str(root / "images" / "k2.jpg"), "b", "../labels.csv"):
        write("k0", "k1", outside)
        with pytest.raises(InputError, match=r"but .* has no such image"):
            found("table", root)


def test_labels_are_merged_and_dropped(tmp_path: Path):
    root = table(tmp_path / "a", [(f"k{n}", ("spiral_acw", "spiral_cw", "smooth", "star")[n % 4]) for n in range(16)])
    options = {"merge": {"spiral_acw": "spiral", "spiral_cw": "spiral"}, "drop": ["star"]}
    items = found("table", root, ["smooth", "spiral"], options=options)
    assert Counter(item.label for item in items) == {0: 4, 1: 8}


def test_a_rule_says_what_is_tested_and_the_rest_is_drawn_from(tmp_path: Path):
    root = table(tmp_path / "a", [(f"k{n}", CLASSES[n % 3]) for n in range(60)])
    rule = {"hash": "md5", "modulo": 5, "equals": [1]}
    items = found("table", root, options={"test_rule": rule})
    for item in items:
        ruled = int(hashlib.md5(item.key.encode(), usedforsecurity=False).hexdigest(), 16) % 5 == 1
        assert (item.split == "test") == ruled
    for label in range(3):
        free = [item for item in items if item.label == label and item.split != "test"]
        assert sum(item.split == "validation" for item in free) == round(len(free) * 0.25)


def test_folders_are_classes_and_may_lie_in_splits(tmp_path: Path):
    for split, each in (("train", 8), ("test", 4)):
        for number, name in enumerate(CLASSES):
            for place in range(each):
                path = tmp_path / "a" / split / name / f"{place}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels(number)).save(path)
    items = found("folders", tmp_path / "a")
    assert Counter(item.split for item in items) == {"train": 18, "validation": 6, "test": 12}
    assert all(item.key.split("/")[0] == item.split for item in items if item.split != "validation")
    plain = found("folders", tmp_path / "a" / "train")
    assert len(plain) == 24 and {CLASSES[item.label] for item in plain if item.key.startswith("merger/")} == {"merger"}


def images(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(0)).save(path)


THREE = [("k0", "smooth"), ("k1", "spiral"), ("k2", "merger")]


@pytest.mark.parametrize(
    ("layout", "prepare", "options", "message"),
    [
        ("galaxyzoo", lambda root: root.mkdir(), {}, "expected one of: galaxy10, table, folders"),
        ("folders", lambda root: root.mkdir(), {}, "holds no image in the layout folders"),
        ("folders", lambda root: None, {}, "cannot be listed"),
        ("folders", lambda root: images(root, "smooth/a.png", "disk/a.png"), {}, "class disk is none of the recipe's"),
        ("folders", lambda root: images(root, "smooth/a.png", "smooth/a.jpg"), {}, "expected one image of a name"),
        ("folders", lambda root: images(root, "smooth/a.png", "spiral/a.png"), {}, "class merger has no image"),
        ("folders", lambda root: table(root, THREE), {"key": "id"}, "options.key is unknown to the layout folders"),
        (
            "table",
            lambda root: table(root, THREE),
            {"lable": "x"},
            "options.lable is unknown .* expected: table, image",
        ),
        ("table", lambda root: table(root, [*THREE, ("k0", "smooth")]), {}, "labels.csv: names k0 twice"),
        ("table", lambda root: table(root, [*THREE, ("k3", "disk")]), {}, "class disk is none of the recipe's 3"),
        ("table", lambda root: table(root, [*THREE, ("k3", "3")]), {}, "class 3 is none of the recipe's 3"),
        ("table", lambda root: table(root, THREE[:2]), {}, "class merger has no image"),
        ("table", lambda root: table(root, [*THREE, ("", "smooth")]), {}, "labels.csv: names , but .* no such image"),
        ("table", lambda root: (table(root, THREE), images(root, "images/k0.png")), {}, "holds k0.png and k0.jpg"),
        ("table", lambda root: (table(root, THREE) / "images/k1.jpg").unlink(), {}, "names k1, but .* no such image"),
        ("table", lambda root: table(root, THREE, "objid,class"), {}, "has no column id, found objid, class; name it"),
        ("table", lambda root: table(root, [*THREE, ("k3",)]), {}, "labels.csv: line 5 is too short"),
        ("table", lambda root: table(root, THREE), {"table": "x.csv"}, "x.csv: cannot be read"),
        ("table", lambda root: table(root, THREE), {"images": "x"}, "x: cannot be listed"),
        ("table", lambda root: (table(root, THREE) / "labels.csv").write_bytes(b"\xff\xfe\0"), {}, "no table of text"),
        ("table", lambda root: (table(root, THREE) / "labels.csv").write_text(""), {}, "has no column id"),
        ("table", lambda root: table(root, THREE), {"split": "label"}, "split smooth is unknown; expected train"),
        ("table", lambda root: table(root, THREE), {"test_rule": {"hash": "md5"}}, "test_rule: cannot be used"),
        (
            "table",
            lambda root: table(root, THREE),
            {"test_rule": {"hash": "md5", "modulo": 0, "equals": [1]}},
            "test_rule: cannot be used",
        ),
        (
            "table",
            lambda root: table(root, THREE),
            {"test_rule": {"hash": "crc", "modulo": 5, "equals": [1]}},
            "test_rule: cannot be used",
        ),
    ],
)
def test_data_sets_that_are_not_as_they_should_be_are_refused(
    tmp_path: Path, layout: str, prepare: Any, options: dict, message: str
):
    prepare(tmp_path / "data")
    with pytest.raises(InputError, match=message) as raised:
        found(layout, tmp_path / "data", options=options)
    assert "\n" not in str(raised.value)


def test_images_of_any_size_are_cut_and_resized(tmp_path: Path):
    for number, (width, height) in enumerate(((40, 40), (60, 30), (20, 80))):
        values = np.full((height, width, 3), (10, 20, 30), np.uint8)
        side = round(min(width, height) * 0.9)  # more than is kept, as pixels beside it are smoothed in
        top, left = (height - side) // 2, (width - side) // 2
        values[top : top + side, left : left + side] = (200, 100, 50)
        path = tmp_path / CLASSES[number] / "a.png"
        path.parent.mkdir()
        Image.fromarray(values).save(path)
    [source] = find_images(find_layout("folders"), tmp_path, CLASSES, test=0, validation=0, seed=0)
    arrays, record = read_images(source, 12, 0.5, 3)
    assert arrays["image"].shape == (3, 3, 12, 12) and arrays["image"].dtype == np.uint8
    assert (arrays["image"] == np.array([200, 100, 50])[:, None, None]).all()
    assert arrays["targets"].dtype == np.uint8 and arrays["targets"].sum(0).tolist() == [1, 1, 1]
    assert (record["images"], record["pixels"]) == (3, 3 * 144)
    assert record["sums"] == [432 * 200, 432 * 100, 432 * 50]
    assert record["squares"] == [432 * 200**2, 432 * 100**2, 432 * 50**2]


def test_a_record_sums_what_is_stored_and_names_the_contents(tmp_path: Path):
    hdf5(tmp_path / "g.h5")
    [source] = find_images(find_layout("galaxy10"), tmp_path, CLASSES, test=0, validation=0, seed=0)
    arrays, record = read_images(source, 20, 0.9, 3)
    values = arrays["image"].astype(np.int64)
    assert record["sums"] == values.sum((0, 2, 3)).tolist()
    assert record["squares"] == (values**2).sum((0, 2, 3)).tolist()
    assert record["sha256"] == read_images(source, 10, 1.0, 3)[1]["sha256"]
    with h5py.File(tmp_path / "g.h5", "a") as file:
        file["images"][3, 0, 0, 0] ^= 1  # type: ignore[index]
    assert record["sha256"] != read_images(source, 20, 0.9, 3)[1]["sha256"]


@given(st.integers(4, 40), st.integers(1, 30), st.floats(0.3, 1))
def test_the_middle_is_kept(side: int, size: int, crop: float):
    image = pixels(0, side)
    ahead, back = resized(image, size, crop), resized(np.ascontiguousarray(image[::-1, ::-1]), size, crop)
    # Rows and columns are resampled one after the other and each rounds to uint8; the second's weights, whose
    # absolute values sum to more than one, enlarge a difference of the first.
    assert np.abs(ahead.astype(int) - back[::-1, ::-1]).max() <= 2
    assert ahead.shape == (size, size, 3)


@pytest.mark.parametrize(
    ("mode", "dtype", "shape", "message"),
    [
        ("L", np.uint8, (8, 8), r"has 1 bands \(L\), expected 3 of 8 bits"),
        ("RGBA", np.uint8, (8, 8, 4), r"has 4 bands \(R, G, B, A\), expected 3 of 8 bits"),
        ("I;16", np.uint16, (8, 8), "has 1 bands of 16 bits"),
        ("CMYK", np.uint8, (8, 8, 4), "has 4 bands"),
    ],
)
def test_other_bands_are_refused(tmp_path: Path, mode: str, dtype: Any, shape: tuple[int, ...], message: str):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    values = np.zeros(shape, dtype)
    image = Image.fromarray(values) if mode != "CMYK" else Image.frombytes("CMYK", (8, 8), values.tobytes())
    assert image.mode == mode
    image.save(path)
    with pytest.raises(InputError, match=message) as raised:
        open_image(path)
    assert str(path) in str(raised.value)


def test_colours_of_16_bits_are_refused_rather_than_cut_to_8(tmp_path: Path):
    import struct
    import zlib

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(2 * 13))) + part(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(InputError, match="has 3 bands of 16 bits"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif"])
def test_damaged_images_are_refused_in_one_line(tmp_path: Path, ending: str):
    path = tmp_path / f"a{ending}"
    Image.fromarray(pixels(0, 64)).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"GIF89a" + whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"a{ending}: cannot be read .*; use an intact copy") as raised:
            open_image(path)
        assert "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        open_image(path)


def test_images_larger_than_pillow_s_limit_are_refused(tmp_path: Path, monkeypatch: Any):
    Image.fromarray(pixels(0, 64)).save(tmp_path / "a.png")
    for limit in (64 * 64 - 1, 64 * 64 // 3):  # Pillow warns of the first, and refuses the second itself
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(
            InputError, match=r"a.png: cannot be read as JPEG, PNG or TIFF \(Image size \(4096 pixels\) exceeds limit"
        ):
            open_image(tmp_path / "a.png")


@given(st.sampled_from(["JPEG", "PNG", "TIFF"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=9))
def test_an_image_with_any_bytes_changed_is_read_or_refused(
    tmp_path_factory: Any, kind: str, changes: list[tuple[float, int]]
):
    stream = io.BytesIO()
    Image.fromarray(pixels(1, 24)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for place, value in changes:
        content[int(place**3 * (len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content)
    try:
        assert open_image(path).ndim == 3
    except InputError as error:
        assert "\n" not in str(error)


def test_the_real_cut_outs_have_the_known_counts_and_split(data_root: Path):
    root, names = data_root / "astro" / "galaxyzoo1_256", ["elliptical", "edge_on", "spiral_acw", "spiral_cw", "merger"]
    if not root.is_dir():
        missing("data", f"no cut-outs at {root}")
    rule = {"hash": "md5", "modulo": 5, "equals": [1]}
    options = {"key": "objid", "label": "class_name", "test_rule": rule}
    sources = find_images(find_layout("table"), root, names, test=0, validation=0.1, seed=1, options=options)
    items = [item for source in sources for item in source.items]
    counts = Counter(names[item.label] for item in items)
    assert counts == {"elliptical": 3676, "edge_on": 786, "spiral_acw": 354, "spiral_cw": 328, "merger": 95}
    assert all(len(source.items) <= 256 for source in sources)
    tested = {item.key for item in items if item.split == "test"}
    md5 = {item.key: hashlib.md5(item.key.encode(), usedforsecurity=False).hexdigest() for item in items}
    assert tested == {key for key, digest in md5.items() if int(digest, 16) % 5 == 1}
    last = min(sources, key=lambda source: len(source.items))
    arrays, record = read_images(last, 92, 0.64, 5)
    assert arrays["image"].shape == (len(last.items), 3, 92, 92)
    assert 5 < record["sums"][0] / record["pixels"] < 100
    merge = {"merge": {"spiral_acw": "spiral", "spiral_cw": "spiral"}, "label": "class_name", "key": "objid"}
    merged = found("table", root, ["elliptical", "edge_on", "spiral", "merger"], validation=0, options=merge)
    assert Counter(item.label for item in merged)[2] == 682


@pytest.mark.parametrize("name", ["images", "ans"])
def test_a_damaged_header_of_a_data_set_is_one_line(tmp_path: Path, name: str):
    path = tmp_path / "g.h5"
    hdf5(path)
    with h5py.File(path) as file:
        place = h5py.h5o.get_info(file[name].id).addr  # pyright: ignore
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF  # the version of the header
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"g\.h5: .*cannot be read .*use an intact copy"):
        read_labels(path, DECALS.classes)
