"""Patches: cut where they should be, divided by place, kept without loss, read fast and in an order of their own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geovision.datasets.patches import (
    Cutting,
    Patches,
    PatchOrder,
    PatchSource,
    cut,
    divide,
    find_labelled,
    statistics,
)
from shared_backbones.errors import InputError
from tests.geovision.rasters import ramp, write_scene

BANDS = ("B2", "B3", "B8A")


def cutting(**changes) -> Cutting:
    settings = {"sensor": "sentinel2_l1c", "bands": BANDS, "scale": 1e-4, "patch": 16, "stride": 16, "min_valid": 0.5}
    return Cutting(**{**settings, "options": {}, **changes})


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    block=st.integers(8, 90),
    by=st.sampled_from(["blocks", "halves", "scenes", "last"]),
    scenes=st.integers(1, 6),
    seed=st.integers(0, 5),
)
def test_every_pixel_is_in_one_split(height: int, width: int, block: int, by: str, scenes: int, seed: int):
    pairs = [(Path(f"{number}.tif"), None) for number in range(scenes)]
    parts = divide(pairs, [(height, width)] * scenes, by=by, test=0.3, validation=0.2, block=block, seed=seed)
    counts = np.zeros((scenes, height, width), int)
    for part in parts:
        number = int(part.scene.stem)
        for row, column, rows, columns in part.regions:
            counts[number, row : row + rows, column : column + columns] += 1
    assert (counts == 1).all()
    if by == "blocks":  # several dates of one place are divided alike
        assert len({tuple((p.split, p.regions) for p in parts if p.scene == scene) for scene, _ in pairs}) == 1


def test_a_large_scene_is_cut_in_portions():
    pairs = [(Path("large.tif"), None)]
    parts = divide(pairs, [(10_980, 9_000)], by="halves", test=0, validation=0.1, block=1, seed=0)
    areas = [sum(height * width for _, _, height, width in part.regions) for part in parts]
    assert max(areas) <= 2**22 and sum(areas) == 10_980 * 9_000 and len(parts) > 20
    assert {part.split for part in parts} == {"train", "validation", "test"}
    assert all(row >= 5490 for part in parts if part.split == "test" for row, *_ in part.regions)


def test_whole_scenes_and_the_last_ones():
    pairs = [(Path(f"{number}.tif"), None) for number in range(10)]
    shapes = [(5, 5)] * 10
    parts = divide(pairs, shapes, by="last", test=0.3, validation=0.3, block=9, seed=0)
    assert [part.scene.stem for part in parts if part.split == "test"] == ["7", "8", "9"]
    assert [part.scene.stem for part in parts if part.split == "validation"] == ["4", "5", "6"]
    drawn = [
        sorted(p.scene.stem for p in divide(pairs, shapes, by="scenes", test=0.3, validation=0, block=9, seed=seed)
               if p.split == "test")
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert drawn[0] == drawn[1] != drawn[2] and all(len(names) == 3 for names in drawn)


def test_patches_hold_the_stored_numbers(tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", ramp(3, 40, 50), BANDS)
    arrays, record = cut(PatchSource(path, None, "train", ((0, 0, 40, 50),)), cutting())
    assert arrays["image"].dtype == np.uint16 and arrays["image"].shape == (12, 3, 16, 16)
    assert record["places"][:4] == [(0, 0), (0, 16), (0, 32), (0, 34)] and record["places"][-1] == (24, 34)
    for (row, column), image in zip(record["places"], arrays["image"], strict=True):
        np.testing.assert_array_equal(image, ramp(3, 40, 50)[:, row : row + 16, column : column + 16])
    assert record["crs"] == "EPSG:32633" and np.shape(record["footprints"]) == (12, 5, 2)
    found = statistics([record])
    np.testing.assert_allclose(found["mean"], arrays["image"].mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found["std"], arrays["image"].std((0, 2, 3)), rtol=1e-4)


def test_numbers_that_are_not_whole_stay_float32(tmp_path: Path):
    values = (ramp(3, 20, 20) * 1e-4 + 3e-5).astype(np.float32)
    path = write_scene(tmp_path / "s.tif", values, BANDS)
    arrays, _ = cut(PatchSource(path, None, "train", ((0, 0, 20, 20),)), cutting(options={"scale": 1.0}))
    assert arrays["image"].dtype == np.float32
    np.testing.assert_allclose(arrays["image"][0], values[:, :16, :16] * 1e4, rtol=1e-6)


def test_patches_stay_inside_their_regions_and_need_valid_labelled_pixels(tmp_path: Path):
    values, labels = ramp(3, 64, 64), np.full((1, 64, 64), 7, np.uint8)
    values[:, :16, :16] = 0
    labels[:, :, 32:] = 3
    labels[:, 32:] = 9  # no class
    scene = write_scene(tmp_path / "s.tif", values, BANDS, nodata=0)
    raster = write_scene(tmp_path / "l.tif", labels)
    source = PatchSource(scene, raster, "train", ((0, 0, 32, 64), (32, 0, 32, 64)))
    arrays, record = cut(source, cutting(label_values=(7, 3)))
    assert sorted(record["places"]) == [(0, 16), (0, 32), (0, 48), (16, 0), (16, 16), (16, 32), (16, 48)]
    assert {place: int(patch[0, 0]) for place, patch in zip(record["places"], arrays["labels"], strict=True)} == {
        (row, column): int(column >= 32) for row, column in record["places"]
    }


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (np.zeros((1, 20, 64), np.uint8), {}, "20 x 64 pixels, on another grid than its scene of 64 x 64"),
        (np.zeros((1, 64, 64), np.uint8), {"crs": "EPSG:32634"}, "on another grid"),
        (np.zeros((1, 64, 64), np.float32), {}, "holds float32, expected labels as whole numbers"),
    ],
)
def test_label_rasters_that_do_not_fit_are_refused(tmp_path: Path, labels, changes: dict, message: str):
    scene = write_scene(tmp_path / "s.tif", ramp(3, 64, 64), BANDS)
    raster = write_scene(tmp_path / "l.tif", labels, **changes)
    with pytest.raises(InputError, match=message):
        cut(PatchSource(scene, raster, "train", ((0, 0, 64, 64),)), cutting(label_values=(0, 1)))


def test_scenes_find_their_label_rasters(tmp_path: Path):
    for name in ("a", "b"):
        write_scene(tmp_path / "images" / f"{name}.tif", ramp())
    with pytest.raises(InputError, match="has no folder labels"):
        find_labelled(tmp_path)
    write_scene(tmp_path / "labels" / "all.tif", ramp(1))
    assert [(scene.stem, labels.stem) for scene, labels in find_labelled(tmp_path)] == [("a", "all"), ("b", "all")]
    write_scene(tmp_path / "labels" / "a.tif", ramp(1))
    with pytest.raises(InputError, match=r"b\.tif: no label raster b\.tif"):
        find_labelled(tmp_path)


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_any_batch_is_gathered_from_all_parts(sizes: list[int], seed: int):
    ends = np.cumsum(sizes)
    parts = []
    for size, end in zip(sizes, ends, strict=True):
        numbers = np.arange(end - size, end, dtype=np.uint16)[:, None, None, None]
        parts.append({"image": np.tile(numbers, (1, 2, 3, 3)), "valid": np.ones((size, 3, 3), bool)})
    patches = Patches(parts)
    assert len(patches) == ends[-1]
    if len(patches):
        wanted = np.random.default_rng(seed).integers(0, len(patches), 9).tolist()
        batch = patches.__getitems__(wanted)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0].numpy(), wanted)
        assert batch["image"].dtype == patches[0]["image"].dtype and batch["valid"].shape == (9, 3, 3)


def test_an_order_can_be_entered_anywhere_and_sees_every_patch_once_an_epoch():
    def order(start: int = 0, **changes):
        return list(PatchOrder(10, batch_size=2, steps=20, seed=3, start=start, **changes))

    assert order(7) == order()[7:] and len(PatchOrder(10, batch_size=2, steps=20, seed=3)) == 20
    assert Counter(number for batch in order()[:5] for number in batch) == Counter(range(10))
    assert order()[:5] != order()[5:10]
    for whole, *parts in zip(order(), order(rank=0, world_size=2), order(rank=1, world_size=2), strict=True):
        assert Counter(whole) == Counter(parts[0] + parts[1]) and len(parts[0]) == len(parts[1]) == 1
