"""Maps of whole scenes: the same however they are computed, without seams, on the scene's grid, complete or absent."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st

from geovision.contract import input_section
from geovision.frames import Frame
from geovision.mapping import Mapper
from geovision.margins import measure_margin
from geovision.scenes import open_for_model, open_scene
from geovision.tiling import Axis
from shared_backbones.errors import InputError
from shared_backbones.networks.unet import Unet
from tests.geovision import small_models
from tests.geovision.rasters import TRANSFORM, write_scene


@given(length=st.integers(1, 300), size=st.integers(1, 64), share=st.floats(0, 0.95))
def test_tiles_cover_an_axis_and_their_weights_add_up_to_one(length: int, size: int, share: float):
    axis = Axis.cover(length, size, int(size * share))
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + axis.size] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[0] == 0 and axis.starts[-1] + axis.size == length
    assert list(axis.starts) == sorted(set(axis.starts))
    assert [tile for run in axis.runs(3) for tile in run] == list(range(len(axis.starts)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_models.mapper(tmp_path_factory.mktemp("model"))


def scene_values(height: int = 75, width: int = 110, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(height), np.arange(width)) * 8
    return (smooth + random.integers(0, 900, (3, height, width))).astype(np.uint16) + 300


def make_map(
    folder: Path, path: Path, output: Path, *, network=None, margin: int | None = 0, shares: bool = True, **options
) -> np.ndarray:
    mapper = Mapper(folder, **options)
    if network is not None:
        mapper.network, mapper.margin = network, margin or 0
    with open_for_model(path, mapper.contract, sensor="sentinel2_l1c") as scene:
        mapper.map(scene, output, probabilities=output.with_suffix(".prob.tif") if shares else None)
    with rasterio.open(output.with_suffix(".prob.tif") if shares else output) as found:
        return found.read()


def whole(network, path: Path, contract) -> np.ndarray:
    """Probabilities of the scene in one piece."""
    with open_for_model(path, contract, sensor="sentinel2_l1c") as scene:
        values, valid = scene.read(0, 0, *scene.shape, contract.scale)
    images = contract.normalise(torch.from_numpy(values)[None], torch.from_numpy(valid)[None])
    with torch.inference_mode():
        return network(images).softmax(1)[0].numpy()


def test_a_network_that_sees_single_pixels_gives_what_it_gives_for_the_whole_scene(tmp_path: Path, folder: Path):
    torch.manual_seed(1)
    network = torch.nn.Conv2d(3, 3, 1).requires_grad_(False)
    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    found = make_map(folder, path, tmp_path / "m.tif", network=network)
    np.testing.assert_allclose(found, whole(network, path, Mapper(folder).contract), atol=1e-5)


def test_the_map_depends_on_neither_batches_nor_blocks_nor_threads(tmp_path: Path, folder: Path):
    values = scene_values()
    layouts = [{}, {"tiled": True, "blockxsize": 16, "blockysize": 48, "compress": "deflate"}, {"interleave": "pixel"}]
    paths = [
        write_scene(tmp_path / f"{i}.tif", values, small_models.BANDS, **layout) for i, layout in enumerate(layouts)
    ]
    wanted = make_map(folder, paths[0], tmp_path / "w.tif", batch_size=1)
    threads = torch.get_num_threads()
    for path, batch_size, count in ((paths[1], 3, 1), (paths[2], 64, 2), (paths[0], 2, 2)):
        found = make_map(folder, path, tmp_path / "f.tif", batch_size=batch_size, threads=count)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    torch.set_num_threads(threads)
    # and is more than one tile's
    assert np.ptp(wanted, axis=(1, 2)).min() > 0.01


def test_there_are_no_seams_on_a_smooth_scene(tmp_path: Path, folder: Path):
    height, width = 128, 160
    down, right = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    smooth = 1500 + 800 * np.sin(down / 40) * np.cos(right / 50)
    path = write_scene(
        tmp_path / "s.tif", np.stack([smooth, smooth * 0.8, smooth * 1.2]).astype(np.uint16), small_models.BANDS
    )
    torch.manual_seed(2)
    network = torch.nn.Sequential(  # sees 15 pixels each way, and the zeros beyond a tile's border
        torch.nn.Conv2d(3, 8, 15, padding=7), torch.nn.Tanh(), torch.nn.Conv2d(8, 3, 15, padding=7)
    ).requires_grad_(False)
    found = make_map(folder, path, tmp_path / "m.tif", network=network, overlap=0.5)
    abrupt = make_map(folder, path, tmp_path / "a.tif", network=network, overlap=0)
    steps, rough = np.abs(np.diff(found, axis=2)).max((0, 1)), np.abs(np.diff(abrupt, axis=2)).max((0, 1))
    borders = np.array(Axis.cover(width, 32, 16).starts[1:]) - 1
    inside = np.setdiff1d(np.arange(width - 1), [b + o for b in borders for o in (-1, 0, 1)])
    inside = inside[(inside > 8) & (inside < width - 10)]
    assert steps[borders].max() <= steps[inside].max()
    # the same measure does find seams where nothing is blended
    edges = np.array(Axis.cover(width, 32, 0).starts[1:]) - 1
    assert rough[edges].max() > 1.5 * steps[inside].max()


def test_a_map_lies_on_the_scene_s_grid_and_says_what_it_is(tmp_path: Path, folder: Path):
    values = scene_values(700, 600)
    values[:, 100:140, 50:90] = 0
    path = write_scene(tmp_path / "s.tif", values, small_models.BANDS, nodata=0)
    mapper = Mapper(folder)
    with open_for_model(path, mapper.contract, sensor="sentinel2_l1c") as scene:
        figures = mapper.map(scene, tmp_path / "m.tif", probabilities=tmp_path / "p.tif", tags={"run_id": "abc"})
    with (
        rasterio.open(path) as source,
        rasterio.open(tmp_path / "m.tif") as found,
        rasterio.open(tmp_path / "p.tif") as shares,
    ):
        for raster in (found, shares):
            assert (raster.crs, raster.transform, raster.shape) == (source.crs, source.transform, source.shape)
            assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and raster.overviews(1) == [2]
            assert raster.tags()["run_id"] == "abc" and raster.tags()["model_sha256"] == mapper.sha256
        labels, probabilities = found.read(1), shares.read()
        gone = source.read(1) == 0
        assert found.nodata == 255 and found.dtypes == ("uint8",) and found.descriptions == ("class",)
        assert found.colormap(1)[1] == (80, 10, 140, 255) and found.tags()["class_2"] == "class 2"
        assert shares.descriptions == ("class 0", "class 1", "class 2") and np.isnan(shares.nodata)
        np.testing.assert_array_equal(labels == 255, gone)
        np.testing.assert_array_equal(np.isnan(probabilities).all(0), gone)
        np.testing.assert_array_equal(probabilities.argmax(0)[~gone], labels[~gone])
        np.testing.assert_allclose(probabilities.sum(0)[~gone], 1, atol=1e-5)
    assert [figures[f"pixels_{i}"] for i in range(3)] == [int((labels == i).sum()) for i in range(3)]
    assert {path.name for path in tmp_path.iterdir()} == {"s.tif", "m.tif", "p.tif"}


def test_a_scene_smaller_than_a_tile_and_one_without_any_valid_pixel(tmp_path: Path, folder: Path):
    small = write_scene(tmp_path / "s.tif", scene_values(20, 25), small_models.BANDS)
    assert make_map(folder, small, tmp_path / "m.tif").shape == (3, 20, 25)
    empty = write_scene(tmp_path / "e.tif", np.zeros((3, 40, 50), np.uint16), small_models.BANDS, nodata=0)
    assert (make_map(folder, empty, tmp_path / "n.tif", shares=False) == 255).all()


def test_a_scene_that_is_damaged_leaves_no_map(tmp_path: Path, folder: Path):
    path = write_scene(tmp_path / "s.tif", scene_values(400, 400), small_models.BANDS, compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = b"\0" * 3000
    path.write_bytes(content)
    (tmp_path / "m.tif").write_text("before")
    with pytest.raises(InputError, match=r"s\.tif: cannot be read"):
        make_map(folder, path, tmp_path / "m.tif")
    assert (tmp_path / "m.tif").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"s.tif", "m.tif"}


def test_a_full_disk_is_known_beforehand(tmp_path: Path, folder: Path, monkeypatch):
    import shutil

    path = write_scene(tmp_path / "s.tif", scene_values(), small_models.BANDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 100))
    with pytest.raises(InputError, match="the map takes up to"):
        make_map(folder, path, tmp_path / "m.tif")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": small_models.CLASSES[:2]},
            r"gives an output of shape \(1, 3, 32, 32\), expected a map of its 2 classes",
        ),
        (
            {"classes": [{**entry, "color": [300, 0, 0]} for entry in small_models.CLASSES]},
            "expected three numbers from 0",
        ),
        ({"classes": small_models.CLASSES[::-1]}, "classes must be numbered 0, 1"),
        ({"input": input_section("sentinel2_l1c", ["B2", "B3"], 32)}, "does not run on what its card promises"),
        ({"input": {"modality": "MRI"}}, "its card lacks 'sensor'; it is no model for satellite images"),
    ],
)
def test_a_model_that_cannot_map_is_refused(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        Mapper(small_models.mapper(tmp_path / "m", **changes))


@pytest.mark.parametrize("options", [{"overlap": 1.0}, {"overlap": -0.1}, {"batch_size": 0}])
def test_settings_that_make_no_sense_are_refused(folder: Path, options: dict):
    with pytest.raises(InputError, match="expected"):
        Mapper(folder, **options)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A network without zeros beyond its border, in tiles that are larger than what it learnt from."""
    torch.manual_seed(3)
    network = Unet(3, 3, encoder="resnet18", decoder_channels=(16, 8, 8), padding="replicate")
    section = {**input_section("sentinel2_l1c", small_models.BANDS, 32, gsd_m=10), "tile": 64}
    return small_models.save(tmp_path_factory.mktemp("wide"), network, 32, input=section)


def labels_of(folder: Path, path: Path, output: Path, **options) -> np.ndarray:
    return make_map(folder, path, output, shares=False, margin=None, **options)[0]


def test_a_constant_scene_is_mapped_alike_everywhere(tmp_path: Path, wide: Path):
    path = write_scene(tmp_path / "s.tif", np.full((3, 200, 230), 1700, np.uint16), small_models.BANDS)
    labels = labels_of(wide, path, tmp_path / "m.tif")
    assert len(np.unique(labels)) == 1


def test_a_map_of_a_cut_out_is_the_cut_out_of_the_map(tmp_path: Path, wide: Path):
    height, width, row, column = 230, 250, 37, 21
    values = scene_values(height, width)
    mapper = Mapper(wide)
    assert (mapper.tile, mapper.step) == (64, 8) and 0 <= mapper.margin <= 16
    whole_map = labels_of(wide, write_scene(tmp_path / "s.tif", values, small_models.BANDS), tmp_path / "m.tif")
    part = values[:, row : row + 150, column : column + 160]
    cut = TRANSFORM @ TRANSFORM.translation(column, row)
    part_map = labels_of(
        wide, write_scene(tmp_path / "c.tif", part, small_models.BANDS, transform=cut), tmp_path / "d.tif"
    )
    inner = np.s_[16:-16, 16:-16]
    same = part_map[inner] == whole_map[row : row + 150, column : column + 160][inner]
    assert same.mean() >= 0.995 and len(np.unique(whole_map)) > 1


def test_the_margin_is_what_a_change_outside_reaches():
    torch.manual_seed(0)
    for reach in (3, 7, 12):
        network = torch.nn.Conv2d(2, 3, 2 * reach + 1, padding=reach).requires_grad_(False)
        network.weight *= 20
        margin = measure_margin(lambda x, n=network: n(x).softmax(1), 2, 64, any_size=True, step=4)
        assert reach - 3 <= margin <= reach + 4
    pointwise = torch.nn.Conv2d(2, 3, 1).requires_grad_(False)
    assert measure_margin(lambda x: pointwise(x).softmax(1), 2, 64, any_size=True, step=4) == 0


@pytest.mark.parametrize("step", [1, 2, 16])
@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (64, 64), (65, 200)])
def test_a_frame_holds_a_scene_in_phase(tmp_path: Path, step: int, any_size: bool, shape: tuple[int, int]):
    values = scene_values(*shape)
    corner = TRANSFORM @ TRANSFORM.translation(3, 5)
    path = write_scene(tmp_path / "s.tif", values, small_models.BANDS, transform=corner)
    with open_scene(path, sensor="sentinel2_l1c") as scene:
        frame = Frame.around(scene, 64, step, any_size=any_size)
        found, valid = frame.read(0, 0, *frame.shape, 1e-4)
    assert (frame.top, frame.left) == (5 % step, 3 % step) if step > 1 else (frame.top, frame.left) == (0, 0)
    assert valid.sum() == shape[0] * shape[1]
    part = np.s_[frame.top : frame.top + shape[0], frame.left : frame.left + shape[1]]
    np.testing.assert_allclose(found[:, *part], values, rtol=1e-5)
    assert all(side <= frame.tile or (side - frame.tile) % step == 0 for side in frame.shape)
