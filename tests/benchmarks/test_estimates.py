"""Estimates of memory: half of what a file takes refuses it, and twice as much reads it, from needles to slabs.

What is measured depends on what a process holds already, so it is no part of `make test`: run this file alone.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astrovision.datasets.galaxy10 import read_rows
from astrovision.tables import read_table
from geovision.mapping import Mapper
from geovision.polygons import write_polygons
from geovision.rasters import open_raster, read_values
from geovision.scenes import open_for_model
from medvision.datasets.medmnist import iter_images, read_medmnist
from medvision.dicom.series import read_series
from medvision.segmentation import Segmenter
from medvision.volumes.files import read_labels, read_volume
from shared_backbones import weights
from shared_backbones.memory import set_budget
from shared_backbones.networks.skip_unet import SkipUnet
from tests.geovision import small_models
from tests.geovision.rasters import write_scene
from tests.hostile.confined import GIB, confined
from tests.medvision.dicom.dicoms import make_enhanced, make_slices, write_series, zip_of
from tests.medvision.phantoms import make_affine, write_scan
from tests.medvision.test_segmentation import make_card

NOISE = np.random.default_rng(0)
_LEAST = 64 * 2**20  # bytes; below, what libraries take for themselves is more than the data


@pytest.fixture(autouse=True)
def own_budget() -> Iterator[None]:
    yield
    set_budget(None)


def _numbers(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return NOISE.integers(0, 200, shape, np.uint8).astype(dtype, copy=False)


def _scan(path: Path, shape: tuple[int, ...], dtype: type = np.int16, **header: Any) -> Path:
    return write_scan(path / "a.nii", _numbers(shape, dtype), make_affine("RAS", (1, 1, 1), (0, 0, 0)), **header)


def _series(path: Path, shape: tuple[int, ...], *, lacking: int | None = None) -> Path:
    slices = make_slices(_numbers(shape, np.int16), make_affine())
    if lacking is not None:
        del slices[lacking]
    return write_series(path / "series", slices)


def _multi_frame(path: Path, shape: tuple[int, ...]) -> Path:
    (path / "series").mkdir()
    make_enhanced(_numbers(shape, np.int16), make_affine()).save_as(path / "series/a.dcm", enforce_file_format=True)
    return path / "series"


def _zipped(path: Path, make: Callable[[Path, Any], Path], shape: tuple[int, ...]) -> Path:
    return zip_of(path / "series.zip", make(path, shape))


def _npz(path: Path, shape: tuple[int, ...], order: Any = "C") -> Path:
    images = np.asarray(_numbers(shape), order=order)
    np.savez(path / "pathmnist.npz", train_images=images, train_labels=np.zeros((len(images), 1), np.uint8))
    return path / "pathmnist.npz"


def _hdf5(path: Path, shape: tuple[int, ...], **options: Any) -> Path:
    import h5py

    with h5py.File(path / "galaxies.h5", "w") as file:
        file.create_dataset("images", data=_numbers(shape), **options)
    return path / "galaxies.h5"


def _fits(path: Path, columns: dict[str, tuple[str, np.ndarray]]) -> Path:
    from astropy.io import fits

    made = [fits.Column(name, form, array=values) for name, (form, values) in columns.items()]
    fits.BinTableHDU.from_columns(made).writeto(path / "table.fits")
    return path / "table.fits"


def _names(count: int) -> np.ndarray:
    return np.array([f"object {number:012d}" for number in range(count)])


def _raster(path: Path, height: int, width: int, bands: int = 1, **options: Any) -> Path:
    return write_scene(path / "scene.tif", _numbers((bands, height, width), np.uint16), **options)


def _map(path: Path) -> None:
    from rasterio.windows import Window

    with open_raster(path) as source:
        read_values(source, [1], [None], Window(0, 0, 8, 8))  # pyright: ignore


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "nifti, a cube": (lambda path: _scan(path, (300, 300, 300)), read_volume),
    "nifti, a needle": (lambda path: _scan(path, (20_000, 32, 32), np.uint8), read_volume),
    "nifti, a slab": (lambda path: _scan(path, (1500, 1500, 8), np.uint8), read_volume),
    "nifti, wide numbers": (lambda path: _scan(path, (300, 300, 300), np.float64), read_volume),
    "nifti, one of many": (
        lambda path: _scan(path, (200, 200, 600, 4), np.uint8),
        functools.partial(read_volume, volume_index=1),
    ),
    "labels, narrow": (lambda path: _scan(path, (500, 500, 500), np.uint8), read_labels),
    "nifti, scaled bytes": (lambda path: _scan(path, (200, 200, 500), np.uint8, slope=0.5, inter=0.0), read_volume),
    "labels, wide": (lambda path: _scan(path, (200, 200, 500), np.float64), read_labels),
    "labels, scaled bytes": (lambda path: _scan(path, (200, 200, 500), np.uint8, slope=2.0, inter=0.0), read_labels),
    "dicom, a block": (lambda path: _series(path, (512, 512, 100)), read_series),
    "dicom, a needle": (lambda path: _series(path, (160, 128, 900)), read_series),
    "dicom, frames": (lambda path: _multi_frame(path, (256, 256, 400)), read_series),
    "dicom, frames in an archive": (lambda path: _zipped(path, _multi_frame, (256, 256, 400)), read_series),
    "dicom, irregular": (
        lambda path: _series(path, (512, 512, 100), lacking=50),
        functools.partial(read_series, resample_irregular=True),
    ),
    "npz, many": (lambda path: _npz(path, (30_000, 64, 64, 3)), lambda path: read_medmnist(path, "train")),
    "npz, few": (lambda path: _npz(path, (9, 3000, 3000, 3)), lambda path: read_medmnist(path, "train")),
    "npz, in columns": (
        lambda path: _npz(path, (9, 2000, 2000, 3), "F"),
        lambda path: [None for _ in iter_images(path, "train")],
    ),
    "hdf5, large": (lambda path: _hdf5(path, (1, 6000, 6000, 3)), lambda path: [None for _ in read_rows(path, [0])]),
    "fits, numbers": (
        lambda path: _fits(path, {name: ("D", NOISE.random(2_000_000)) for name in "abcd"}),
        read_table,
    ),
    "fits, texts": (lambda path: _fits(path, {"id": ("20A", _names(500_000))}), read_table),
    "geotiff, a tile": (
        lambda path: _raster(path, 8192, 8192, tiled=True, blockxsize=8192, blockysize=8192),
        _map,
    ),
    "geotiff, a strip": (lambda path: _raster(path, 8192, 8192, blockysize=8192, compress="deflate", zlevel=1), _map),
    "geotiff, bands in one": (
        lambda path: _raster(path, 2048, 2048, 9, interleave="pixel", blockysize=2048, compress="deflate", zlevel=1),
        _map,
    ),
}  # fmt: skip


def read_under(read: Callable[[Path], Any], path: Path, folder: Path, gigabytes: float | None) -> tuple[int, int]:
    """Exit code and peak of a reading under a budget."""

    def call() -> None:
        set_budget(gigabytes)
        read(path)

    ended = confined(call, folder, memory=8 * GIB, seconds=120)
    assert ended.code == 0 or ("GB" in ended.err and "--max-gigabytes" in ended.err), ended.err
    return ended.code, ended.peak


def expect_within_two(read: Callable[[Path], Any], path: Path, folder: Path) -> None:
    """Refused with half of what it takes, read with twice as much."""
    code, peak = read_under(read, path, folder, 64)
    assert code == 0 and peak > _LEAST, peak / 2**20
    assert read_under(read, path, folder, peak / 2 / GIB)[0] == 2, f"read with half of {peak / 2**20:.0f} MiB"
    assert read_under(read, path, folder, 2 * peak / GIB)[0] == 0, f"refused with twice {peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("name", CASES)
def test_readers_know_what_they_take(name: str, tmp_path: Path):
    make, read = CASES[name]
    expect_within_two(read, make(tmp_path), tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Segmenter]:
    """A network of windows, and one that sees a scan whole."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    card = {"spacing_mm": 1.0, "normalisation": "zscore", "smallest_piece": 0}
    weights.save(folder / "windows", SkipUnet(4, widths=(8, 8, 8)), make_card(**card, patch=[96, 96, 96], overlap=0.25))
    whole = make_card(**card, patch=[512, 512, 512], any_size=True)
    weights.save(folder / "whole", SkipUnet(4, widths=(8, 8, 8)), whole)
    made = {name: Segmenter(folder / name, device="cpu", threads=1) for name in ("windows", "whole")}
    for segmenter in made.values():  # code that libraries load with the first scan is no part of what a scan takes
        segmenter.segment(_scan(folder, (48, 48, 48)), any_modality=True)
    return made


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that maps, of which libraries have loaded what they need."""
    folder = tmp_path_factory.mktemp("mapping")
    model = small_models.mapper(folder / "model", 256)
    write_scene(folder / "scene.tif", _numbers((3, 64, 64), np.uint16), bands=small_models.BANDS)
    _mapped(model, folder / "scene.tif", folder, {}, polygons=True)
    return model


def _mapped(model: Path, scene: Path, folder: Path, options: dict[str, int], *, polygons: bool) -> None:
    mapper = Mapper(model, device="cpu", threads=1, tile=options.get("tile"), batch_size=options.get("batch_size", 8))
    confidence = folder / "confidence.tif" if polygons else None
    with open_for_model(scene, mapper.contract, sensor="sentinel2_l1c") as opened:
        mapper.map(opened, folder / "map.tif", confidence=confidence)
    if confidence is not None:
        write_polygons(folder / "map.gpkg", folder / "map.tif", confidence, mapper.classes, smallest_m2=0)


MAPS: dict[str, tuple[dict[str, int], tuple[int, int], bool]] = {
    "map, small tiles": ({}, (1000, 1000), False),
    "map, one at a time": ({"batch_size": 1}, (1000, 1000), False),
    "map, large tiles": ({"tile": 1024, "batch_size": 2}, (2048, 2048), False),
    "map, many at once": ({"batch_size": 64}, (512, 8192), False),
    "map, with polygons": ({"batch_size": 1}, (3000, 3000), True),
}


@pytest.mark.parametrize("name", MAPS)
def test_mapping_knows_what_it_takes(name: str, mapping: Path, tmp_path: Path):
    options, shape, polygons = MAPS[name]
    values = np.repeat(_numbers((3, shape[0] // 100, shape[1] // 100 + 1), np.uint16), 100, 1).repeat(100, 2)
    scene = write_scene(tmp_path / "scene.tif", values, bands=small_models.BANDS)
    expect_within_two(lambda path: _mapped(mapping, path, tmp_path, options, polygons=polygons), scene, tmp_path)


SHAPES: dict[str, tuple[str, tuple[int, int, int]]] = {
    "whole, a cube": ("whole", (112, 112, 112)),
    "whole, a needle": ("whole", (500, 48, 48)),
    "whole, a slab": ("whole", (256, 256, 16)),
    "whole, a slab on edge": ("whole", (16, 256, 256)),
    "windows, a cube": ("windows", (120, 120, 120)),
    "windows, a needle": ("windows", (300, 24, 24)),
    "windows, a slab": ("windows", (200, 200, 16)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_segmenting_knows_what_it_takes(name: str, models: dict[str, Segmenter], tmp_path: Path):
    kind, shape = SHAPES[name]
    segmenter = models[kind]
    expect_within_two(lambda path: segmenter.segment(path, any_modality=True), _scan(tmp_path, shape), tmp_path)
