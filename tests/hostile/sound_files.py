"""One sound, small file of every format that is read, and the readers of each."""

import contextlib
import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from apps.cli.medvision.label_maps import read_label_map
from apps.cli.shared.outputs import read_sidecar
from astrovision.cutouts import open_mosaic
from astrovision.datasets.galaxy10 import read_labels as read_galaxy_labels
from astrovision.datasets.galaxy10 import read_rows
from astrovision.tables import read_table
from geovision.embedding import Embedded, join_embeddings, write_embeddings
from geovision.rasters import open_raster, read_values, reading
from geovision.scenes import open_scene
from medvision.bundles.configs import Config
from medvision.corruptions.published import read_corrupted
from medvision.datasets.layouts import Case
from medvision.datasets.medmnist import read_medmnist
from medvision.datasets.preparation import read_case
from medvision.dicom.projections import read_projection
from medvision.dicom.series import read_series
from medvision.models.hbformer import HBFormer
from medvision.volumes.files import count_volumes, read_labels, read_volume
from pipelines.data.image_files import read_image
from pipelines.data.label_fixes import read_fixes
from pipelines.recipe.loading import load_recipe
from pipelines.report.verdict_files import read_review_files
from pipelines.report.worklist import read_batch
from pipelines.training.checkpoints import SafetensorsCheckpoints, steps_in
from shared_backbones import weights
from shared_backbones.catalogue import Catalogue
from shared_backbones.classification.outliers import Outliers
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.official import read_foreign
from tests.conftest import ROOT
from tests.geovision.rasters import ramp, write_scene
from tests.medvision.dicom.dicoms import make_slices, write_series, zip_of
from tests.medvision.phantoms import make_affine, make_image, make_labels, write_scan

NETWORK: dict[str, Any] = {
    "num_classes": 2, "feature_size": 4, "depths": [1, 1, 1, 1], "head_dim": 4, "window_size": 4, "img_size": 32,
}  # fmt: skip
_TABLE = {"id": ["a", "=b"], "ra": [150.0, 151.0], "dec": [2.0, 2.5]}


def nifti(path: Path) -> Path:
    return write_scan(path / "scan.nii.gz", make_image((16, 14, 12)))


def plain_nifti(path: Path) -> Path:
    return write_scan(path / "scan.nii", make_image((16, 14, 12)))


def labels(path: Path) -> Path:
    return write_scan(path / "labels.nii", make_labels((16, 14, 12)))


def mgh(path: Path) -> Path:
    return write_scan(path / "scan.mgh", make_image((16, 14, 12)).astype(np.float32))


def dicom(path: Path) -> Path:
    data = make_image((16, 14, 12)).astype(np.int16)
    return write_series(path / "series", make_slices(data, make_affine())) / "IM00003"


def dicom_zip(path: Path) -> Path:
    return zip_of(path / "series.zip", dicom(path).parent)


def geotiff(path: Path) -> Path:
    return write_scene(path / "scene.tif", ramp(), ["B2", "B3", "B4"])


def jp2(path: Path) -> Path:
    return write_scene(path / "scene.jp2", ramp(), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")


def vrt(path: Path) -> Path:
    import rasterio.shutil

    target = path / "scene.vrt"
    rasterio.shutil.copy(geotiff(path), target, driver="VRT")
    return target


def scene_zip(path: Path) -> Path:
    return zipped(path / "scene.zip", {"product/B2.tif": write_scene(path / "B2.tif", ramp(1)).read_bytes()})


def scene_tar(path: Path) -> Path:
    import tarfile

    with tarfile.open(path / "scene.tar.gz", "w:gz") as archive:
        archive.add(write_scene(path / "B2.tif", ramp(1)), "product/B2.tif")
    return path / "scene.tar.gz"


def stac(path: Path) -> Path:
    write_scene(path / "b2.tif", ramp(1))
    assets = {"blue": {"href": "./b2.tif", "type": "image/tiff", "eo:bands": [{"name": "B02"}]}}
    about = {"type": "Feature", "stac_version": "1.0.0", "collection": "sentinel-2-l2a", "properties": {}}
    (path / "item.json").write_text(json.dumps({**about, "assets": assets}))
    return path / "item.json"


def embeddings(path: Path, ending: str) -> Path:
    import shapely

    part = Embedded(
        np.zeros((2, 3), np.float32), np.arange(2), np.arange(2), (8, 8), np.ones(2), np.zeros((2, 5, 2)),
        [shapely.box(0, 0, 1, 1)] * 2,
    )  # fmt: skip
    write_embeddings(path / f"part{ending}", [("scene", "0" * 64, part)], "0" * 64)
    return path / f"part{ending}"


def fits(path: Path) -> Path:
    from astropy.io import fits as files

    target = path / "mosaic.fits"
    files.PrimaryHDU(np.arange(1600, dtype=np.float32).reshape(40, 40)).writeto(target)
    return target


def fits_table(path: Path) -> Path:
    return _written(path / "table.fits")


def votable(path: Path) -> Path:
    return _written(path / "table.vot", format="votable")


def csv(path: Path) -> Path:
    return _written(path / "table.csv", format="ascii.csv")


def ecsv(path: Path) -> Path:
    return _written(path / "table.ecsv", format="ascii.ecsv")


def parquet(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(_TABLE), path / "table.parquet")
    return path / "table.parquet"


def hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path / "galaxies.h5", "w") as file:
        file["images"] = np.zeros((4, 8, 8, 3), np.uint8)
        file["ans"] = np.array([0, 1, 2, 3], np.uint8)
    return path / "galaxies.h5"


def npz(path: Path) -> Path:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    np.savez_compressed(path / "breastmnist.npz", test_images=images, test_labels=np.array([[0], [1]], np.uint8))
    return path / "breastmnist.npz"


def medmnist_c(path: Path) -> Path:
    images = np.arange(10 * 28 * 28).astype(np.uint8).reshape(10, 28, 28)
    np.savez_compressed(path / "blur.npz", test_images=images, test_labels=np.zeros((10, 1), np.uint8))
    return path / "blur.npz"


def slices(path: Path) -> Path:
    image = make_image((16, 14, 12))[..., 5].astype(np.float32)
    np.savez_compressed(path / "slice.npz", image=image, label=np.zeros(image.shape, np.uint8))
    return path / "slice.npz"


def volume_hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path / "volume.h5", "w") as file:
        file["image"], file["label"] = make_image((16, 14, 12)), np.zeros((16, 14, 12), np.uint8)
    return path / "volume.h5"


def picture(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(make_image((30, 40, 8))[..., 3].astype(np.uint8)).save(path / "image.png")
    return path / "image.png"


def card(path: Path) -> Path:
    torch.manual_seed(0)
    weights.save(path / "model", HBFormer(**NETWORK), {"name": "tiny"})
    return path / "model" / "model.json"


def safetensors(path: Path) -> Path:
    return card(path).with_name("model.safetensors")


def outliers(path: Path) -> Path:
    Outliers.fit(np.random.default_rng(0).random((20, 3))).with_threshold(np.zeros((4, 3))).save(path)
    return path / "outliers.safetensors"


def training(path: Path) -> Path:
    state: Any = {"global_step": 3, "weight": torch.zeros(2), "sizes": (1, 2)}
    SafetensorsCheckpoints().save_checkpoint(state, path / "last.ckpt")
    return path / "last.ckpt"


def bundle(path: Path) -> Path:
    (path / "inference.yaml").write_text("network: {_target_: UNet, channels: [4, 8]}")
    return path / "inference.yaml"


def checkpoint(path: Path) -> Path:
    torch.save({"weight": torch.zeros(3)}, path / "official.pth")
    return path / "official.pth"


def recipe(path: Path) -> Path:
    content = yaml.safe_load((ROOT / "pipelines/recipes/medvision/hippocampus_unet_cpu.yaml").read_text())
    (path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return path / "recipe.yaml"


def verdict(path: Path) -> Path:
    about = {"id": "case-00000000-00000000", "sha256": "0" * 64}
    content = {"report": about, "verdict": "accept", "created": "2026-01-01T00:00:00+00:00"}
    (path / "case-00000000-00000000_review.json").write_text(json.dumps(content))
    return path / "case-00000000-00000000_review.json"


def sidecar(path: Path) -> Path:
    (path / "scan_seg.json").write_text(json.dumps({"outputs": {}, "seal": "0" * 64}))
    return path / "scan_seg.json"


def label_map(path: Path) -> Path:
    (path / "labels.json").write_text('{"17": 1}')
    return path / "labels.json"


def index(path: Path) -> Path:
    row = {"report": "reports/case-00000000.html", "report_id": "case-00000000-00000000", "report_sha256": "0" * 64}
    (path / "reports").mkdir()
    (path / "reports" / "case-00000000.html").touch()
    (path / "index.json").write_text(json.dumps({"cases": [row]}))
    return path / "index.json"


def label_fixes(path: Path) -> Path:
    (path / "labels-fixed.csv").write_text("id,row,label,again,answer,drawn\ng0,1,round,round,edge-on,random\n")
    return path / "labels-fixed.csv"


def _written(path: Path, **options: Any) -> Path:
    from astropy.table import Table

    Table(_TABLE).write(path, **options)
    return path


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


def _galaxies(path: Path) -> None:
    read_galaxy_labels(path, [str(number) for number in range(10)])
    list(read_rows(path, [0, 3]))


FORMATS: dict[str, tuple[Callable[[Path], Path], tuple[Callable[[Path], Any], ...]]] = {
    "nifti.gz": (nifti, (read_volume, count_volumes)),
    "nifti": (plain_nifti, (read_volume,)),
    "labels": (labels, (read_labels,)),
    "mgh": (mgh, (read_volume,)),
    "dicom": (dicom, (lambda path: read_series(path.parent), read_projection)),
    "dicom.zip": (dicom_zip, (read_series,)),
    "geotiff": (geotiff, (_raster, _scene)),
    "jp2": (jp2, (_raster,)),
    "vrt": (vrt, (_raster,)),
    "fits": (fits, (_mosaic,)),
    "fits.table": (fits_table, (read_table,)),
    "hdf5": (hdf5, (_galaxies,)),
    "npz": (npz, (_medmnist,)),
    "votable": (votable, (read_table,)),
    "csv": (csv, (read_table,)),
    "ecsv": (ecsv, (read_table,)),
    "parquet": (parquet, (read_table,)),
    "medmnist-c": (medmnist_c, (lambda path: list(read_corrupted(path)),)),
    "slices": (slices, (_case,)),
    "volume.hdf5": (volume_hdf5, (_case,)),
    "scene.zip": (scene_zip, (_product,)),
    "scene.tar": (scene_tar, (_product,)),
    "stac": (stac, (_product,)),
    "embeddings": (lambda path: embeddings(path, ".npz"), (_joined,)),
    "embeddings.parquet": (lambda path: embeddings(path, ".parquet"), (_joined,)),
    "outliers": (outliers, (lambda path: Outliers.load(path.parent),)),
    "training": (training, (_training,)),
    "bundle": (bundle, (lambda path: Config(path, path.parent),)),
    "picture": (picture, (lambda path: read_image(path, None),)),
    "card": (card, (lambda path: weights.load(path.parent),)),
    "safetensors": (safetensors, (lambda path: weights.load(path.parent),)),
    "checkpoint": (checkpoint, (read_foreign,)),
    "recipe": (recipe, (lambda path: load_recipe(str(path)),)),
    "verdict": (verdict, (_collect,)),
    "side-car": (sidecar, (read_sidecar,)),
    "index": (index, (lambda path: read_batch(path.parent),)),
    "label fixes": (label_fixes, (lambda path: read_fixes([path], ["round", "edge-on"]),)),
    "label map": (label_map, (lambda path: read_label_map(path, range(5)),)),
    "json": (label_map, (read_json,)),
}
"""By name: what makes a sound file, and what reads it."""
TRANSLATED = ("side-car",)
"""Formats whose readers take a damaged file for none."""


def packed(path: Path) -> Path:
    """A file in gzip, under the same name with `.gz`."""
    target = path.with_name(f"{path.name}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """A zip archive of members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def fifo(path: Path) -> Path:
    """A pipe in place of a file."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    os.mkfifo(path)
    return path


def catalogue_of(folder: Path) -> dict[str, Any]:
    """The card of a folder, as programs read it."""
    return dict(Catalogue("medvision").model_card(folder))
