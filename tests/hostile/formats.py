"""Every format that is read: what makes a sound, small file of it, and the readers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apps.cli.geovision.map_index import _thumbnail
from apps.cli.medvision.earlier import _read_pairs
from apps.cli.medvision.label_maps import read_label_map
from apps.cli.shared.outputs import read_sidecar
from astrovision.cutouts import open_mosaic
from astrovision.datasets.galaxy10 import read_labels as read_galaxy_labels
from astrovision.datasets.galaxy10 import read_rows
from astrovision.tables import read_table
from geovision.datasets.labels import LabelRaster
from geovision.datasets.layouts import BigEarthNet, FmowRgb, FmowSentinel
from geovision.embedding import join_embeddings
from geovision.rasters import open_raster, read_values, reading
from geovision.scenes import open_scene
from medvision.bundles.configs import Config
from medvision.corruptions.published import read_corrupted
from medvision.datasets.layouts import Case
from medvision.datasets.masked_images import CvcClinicDb
from medvision.datasets.medmnist import iter_images, read_medmnist
from medvision.datasets.preparation import bytes_of, read_case
from medvision.dicom.projections import read_projection
from medvision.dicom.segmentations import read_segmentation
from medvision.dicom.series import read_series
from medvision.volumes.files import count_volumes, read_labels, read_volume
from pipelines.data.image_files import read_image, read_mask
from pipelines.data.image_layouts import Table
from pipelines.data.label_fixes import read_fixes
from pipelines.data.store import Store
from pipelines.evaluation.paired_cases import read_cases
from pipelines.evaluation.paired_tests import read_measurement
from pipelines.recipe.loading import load_recipe
from pipelines.report.results import read_summary
from pipelines.report.thumbnails import thumbnail
from pipelines.report.verdict_files import read_review_files
from pipelines.report.worklist import read_batch
from pipelines.training.checkpoints import SafetensorsCheckpoints, steps_in
from shared_backbones import weights
from shared_backbones.classification.outliers import Outliers
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.official import read_foreign
from tests.hostile import sound_files as sound
from tests.medvision.datasets.test_layouts import contract as make_contract

_CONTRACT = make_contract(5, 1.0)


def _raster(path: Path) -> None:
    with open_raster(path) as source, reading(path):
        read_values(source, [1], [None])


def _scene(path: Path) -> None:
    with open_scene(path, sensor="sentinel2_l2a") as scene:
        scene.read(0, 0, 8, 8)
        scene.sha256()


def _mosaic(path: Path) -> None:
    with open_mosaic(path) as mosaic:
        mosaic.cut([[20, 20]], 8)


def _product(path: Path) -> None:
    with open_scene(path, sensor="sentinel2_l2a") as scene:
        scene.read(0, 0, 8, 8)
        scene.sha256()


def _any_raster(path: Path) -> None:
    with open_raster(path, any_format=True) as source, reading(path):
        read_values(source, [1], [None])


def _landsat(path: Path) -> None:
    with open_scene(path.parent) as scene:
        scene.read(0, 0, 8, 8)


def _polygons(path: Path) -> None:
    with open_scene(path.with_name("scene.tif"), sensor="sentinel2_l2a") as scene, LabelRaster(path, scene, (1,)) as it:
        it.read(0, 0, *scene.shape)


def _whole_mosaic(path: Path) -> None:
    with open_mosaic(path) as mosaic:
        mosaic.cut([[20, 20]] * 20, 8)


def _verified(path: Path) -> None:
    Store(path.parent).verify()


def _patches(path: Path) -> None:
    BigEarthNet().find(next(folder for folder in path.parents if folder.name == "data"), ["a"], {})


def _boxes(path: Path) -> None:
    FmowRgb().find(path.parents[3], ["a"], {})


def _table(path: Path) -> None:
    Table().find(path.parent, ["a"], {})


def _images(path: Path) -> None:
    FmowSentinel().find(path.parent, ["a"], {})


def _report(path: Path) -> None:
    if os.path.isfile(path):  # as those do who look at it
        thumbnail(path.read_text("utf-8", "replace"))


def _joined(path: Path) -> None:
    target = path.with_name(f"all{path.suffix}")
    join_embeddings(target, [path])
    target.unlink()


def _case(path: Path) -> None:
    read_case(Case("case", "subject", (path,), ()), range(5))


def _training(path: Path) -> None:
    steps_in(path)
    SafetensorsCheckpoints().load_checkpoint(path)


def _collect(path: Path) -> None:
    for problem in read_review_files([path.parent]).problems:  # each is a line, and the others are read all the same
        raise InputError(problem)


def _medmnist(path: Path) -> None:
    read_medmnist(path, "test")
    list(iter_images(path, "test"))


def _galaxies(path: Path) -> None:
    read_galaxy_labels(path, [str(number) for number in range(10)])
    list(read_rows(path, [0, 3]))


def _frames(path: Path) -> None:
    CvcClinicDb().find(path.parent, ["background", "polyp"], {"sequences": path.name})


FORMATS: dict[str, tuple[Callable[[Path], Path], tuple[Callable[[Path], Any], ...]]] = {
    "nifti.gz": (sound.nifti, (read_volume, count_volumes)),
    "nifti": (sound.plain_nifti, (read_volume, lambda path: bytes_of(Case("", "", (path,), (path,)), _CONTRACT))),
    "labels": (sound.labels, (read_labels,)),
    "mgh": (sound.mgh, (read_volume,)),
    "dicom": (sound.dicom, (lambda path: read_series(path.parent), read_projection)),
    "dicom.compressed": (sound.dicom_compressed, (lambda path: read_series(path.parent),)),
    "dicom.deflated": (sound.dicom_deflated, (lambda path: read_series(path.parent),)),
    "dicom.segmentation": (sound.dicom_segmentation, (read_segmentation,)),
    "dicom.table": (sound.dicom_table, (read_projection,)),
    "beside dicom": (sound.beside_dicom, (lambda path: read_series(path.parent),)),
    "dicom.zip": (sound.dicom_zip, (read_series,)),
    "geotiff": (sound.geotiff, (_raster, _scene)),
    "jp2": (sound.jp2, (_raster,)),
    "jpeg": (sound.jpeg, (_raster,)),
    "ascii grid": (sound.ascii_grid, (_any_raster,)),
    "landsat": (sound.landsat, (_landsat,)),
    "vrt": (sound.vrt, (_raster,)),
    "fits": (sound.fits, (_mosaic,)),
    "fits.packed": (sound.fits_packed, (_mosaic, _whole_mosaic)),
    "fits.table": (sound.fits_table, (read_table,)),
    "hdf5": (sound.hdf5, (_galaxies,)),
    "npz": (sound.npz, (_medmnist,)),
    "votable": (sound.votable, (read_table,)),
    "csv": (sound.csv, (read_table,)),
    "ecsv": (sound.ecsv, (read_table,)),
    "parquet": (sound.parquet, (read_table,)),
    "medmnist-c": (sound.medmnist_c, (lambda path: list(read_corrupted(path)),)),
    "slices": (sound.slices, (_case,)),
    "volume.hdf5": (sound.volume_hdf5, (_case,)),
    "scene.zip": (sound.scene_zip, (_product,)),
    "scene.tar": (sound.scene_tar, (_product,)),
    "geopackage": (lambda path: sound.polygons(path, ".gpkg"), (_polygons,)),
    "shapefile": (lambda path: sound.polygons(path, ".shp"), (_polygons,)),
    "geojson": (sound.geojson, (_polygons,)),
    "stac": (sound.stac, (_product,)),
    "embeddings": (lambda path: sound.embeddings(path, ".npz"), (_joined,)),
    "embeddings.parquet": (lambda path: sound.embeddings(path, ".parquet"), (_joined,)),
    "outliers": (sound.outliers, (lambda path: Outliers.load(path.parent),)),
    "training": (sound.training, (_training,)),
    "bundle": (sound.bundle, (lambda path: Config(path, path.parent),)),
    "picture": (sound.picture, (lambda path: read_image(path, None), read_mask, _thumbnail)),
    "frame table": (sound.frame_table, (_frames,)),
    "card": (sound.card, (lambda path: weights.load(path.parent),)),
    "safetensors": (sound.safetensors, (lambda path: weights.load(path.parent),)),
    "checkpoint": (sound.checkpoint, (read_foreign,)),
    "recipe": (sound.recipe, (lambda path: load_recipe(str(path)),)),
    "verdict": (sound.verdict, (_collect,)),
    "side-car": (sound.sidecar, (read_sidecar,)),
    "index": (sound.index, (lambda path: read_batch(path.parent),)),
    "label fixes": (sound.label_fixes, (lambda path: read_fixes([path], ["round", "edge-on"]),)),
    "label map": (sound.label_map, (lambda path: read_label_map(path, range(5)),)),
    "store": (sound.store, (_verified,)),
    "report": (sound.report_page, (_report,)),
    "patch notes": (sound.patch_notes, (_patches,)),
    "patch list": (sound.patch_list, (_patches,)),
    "box notes": (sound.box_notes, (_boxes,)),
    "image table": (sound.image_table, (_images,)),
    "label table": (sound.label_table, (_table,)),
    "case figures": (sound.case_figures, (lambda path: read_cases(path.parent),)),
    "image figures": (sound.image_figures, (lambda path: read_cases(path.parent),)),
    "summary": (sound.summary, (lambda path: read_summary(path.parent),)),
    "measurement": (sound.measurement, (lambda path: read_measurement(path.parent),)),
    "pairs": (sound.pairs, (_read_pairs,)),
    "json": (sound.label_map, (read_json,)),
}
"""By name: what makes a sound file, and what reads it."""
TRANSLATED = ("side-car",)
"""Formats whose readers take a damaged file for none."""
