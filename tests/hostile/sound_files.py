"""One sound, small file of every format that is read."""

import base64
import contextlib
import gzip
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
import yaml

from geovision.embedding import Embedded, write_embeddings
from medvision.models.hbformer import HBFormer
from pipelines.data.store import Sample, write_store
from pipelines.training.checkpoints import SafetensorsCheckpoints
from shared_backbones import weights
from shared_backbones.classification.outliers import Outliers
from tests.conftest import ROOT
from tests.geovision.landsat import write_product
from tests.geovision.rasters import ramp, write_scene
from tests.medvision.dicom.dicoms import make_slices, write_series, zip_of
from tests.medvision.phantoms import make_affine, make_image, make_labels, write_scan

NETWORK: dict[str, Any] = {
    "num_classes": 2, "feature_size": 4, "depths": [1, 1, 1, 1], "head_dim": 4, "window_size": 4, "img_size": 32,
}  # fmt: skip
AROUND = (0, 0, 10**7, 10**7)
VECTORS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile"}
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


def polygons(path: Path, ending: str) -> Path:
    """A square of the scene that is written beside it, with its class."""
    import pyogrio.raw

    geotiff(path)
    square, columns = np.array([shapely.to_wkb(shapely.box(*AROUND))], object), [np.array([1])]
    made = path / f"labels{ending}"
    pyogrio.raw.write(
        made, square, columns, ["class"], geometry_type="Polygon", crs="EPSG:32633", driver=VECTORS[ending]
    )
    return made


def geojson(path: Path, **changes: Any) -> Path:
    """A triangle over all of the scene's zone in a GeoJSON file; `changes` replace parts of its only feature."""
    geotiff(path)
    corners = {"type": "Polygon", "coordinates": [[[12, 0], [18, 0], [15, 80], [12, 0]]]}
    crs = {"crs": changes.pop("crs")} if "crs" in changes else {}
    feature = {"type": "Feature", "properties": {"class": 1}, "geometry": corners, **changes}
    (path / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature], **crs}))
    return path / "labels.geojson"


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


def frame_table(path: Path) -> Path:
    for folder in ("Original", "Ground Truth"):
        (path / folder).mkdir()
        (path / folder / "1.png").touch()
    (path / "metadata.csv").write_text("frame_id,sequence_id\n1,3\n")
    return path / "metadata.csv"


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


def dicom_compressed(path: Path) -> Path:
    """A series in lossless JPEG, which a process of its own decodes."""
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLosslessSV1

    series = make_slices(make_image((16, 14, 12)).astype(np.int16), make_affine())
    for dataset in series:
        plane = np.frombuffer(dataset.PixelData, np.uint16).reshape(dataset.Rows, dataset.Columns)
        stream = imagecodecs.jpeg8_encode(plane, lossless=True, bitspersample=16)
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset["PixelData"].is_undefined_length = True
    return write_series(path / "series", series) / "IM00003"


def dicom_deflated(path: Path) -> Path:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    series = make_slices(make_image((16, 14, 12)).astype(np.int16), make_affine())
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return write_series(path / "series", series) / "IM00003"


def dicom_segmentation(path: Path) -> Path:
    from medvision.dicom.segmentations import write_segmentation
    from medvision.dicom.series import read_series

    volume = read_series(dicom(path).parent)
    card = {"name": "m", "classes": [{"id": number, "name": f"c{number}", "color": [0, 0, 9]} for number in range(3)]}
    write_segmentation(path / "seg.dcm", make_labels((16, 14, 12), 2), volume, card, "0" * 64)
    return path / "seg.dcm"


def dicom_table(path: Path) -> Path:
    """A radiograph with a table of its grey levels."""
    from tests.medvision.dicom.test_projections import lookup, write

    return write(path / "image.dcm", VOILUTSequence=lookup(256, 0, 8, list(range(256))))


def beside_dicom(path: Path) -> Path:
    """An archive of notes among the files of a series."""
    return zipped(dicom(path).with_name("notes.zip"), {"notes.txt": b"no image"})


def fits_packed(path: Path) -> Path:
    from astropy.io import fits as files

    pixels = np.arange(1600, dtype=np.int16).reshape(40, 40)
    files.HDUList([files.PrimaryHDU(), files.CompImageHDU(pixels)]).writeto(path / "mosaic.fits")
    return path / "mosaic.fits"


def jpeg(path: Path) -> Path:
    return write_scene(path / "scene.jpg", ramp(3).astype(np.uint8), driver="JPEG")


def ascii_grid(path: Path) -> Path:
    about = "ncols 4\nnrows 3\nxllcorner 0\nyllcorner 0\ncellsize 10\n"
    (path / "grid.asc").write_text(about + "1 2 3 4\n5 6 7 8\n9 10 11 12\n")
    return path / "grid.asc"


def store(path: Path) -> Path:
    write_store(path / "store", range(3), _sample, settings={})
    return path / "store/manifest.json"


def _sample(number: int) -> Sample:
    return Sample(f"case-{number}", f"case-{number}", "train", {"image": np.full(64, number, np.uint8)}, {})


def report_page(path: Path) -> Path:
    content = base64.b64encode(picture(path).read_bytes()).decode()
    (path / "report.html").write_text(f'<svg class="drawing" ><image href="data:image/png;base64,{content}"/></svg>')
    return path / "report.html"


def patch_notes(path: Path) -> Path:
    """Labels of a patch of BigEarthNet."""
    (path / "data/patch").mkdir(parents=True)
    (path / "data/patch/patch_labels_metadata.json").write_text('{"labels": ["a"]}')
    return path / "data/patch/patch_labels_metadata.json"


def patch_list(path: Path) -> Path:
    """A list of patches of BigEarthNet, one of three."""
    patch_notes(path)
    for name in ("train", "val", "test"):
        (path / f"data/{name}.csv").write_text("patch\n" if name == "train" else "other\n")
    return path / "data/train.csv"


def box_notes(path: Path) -> Path:
    """What an image of fMoW shows, and where."""
    folder = path / "data/train/a/a_0"
    folder.mkdir(parents=True)
    (folder / "a_0_1_rgb.jpg").touch()
    (folder / "a_0_1_rgb.json").write_text('{"bounding_boxes": [{"box": [0, 0, 4, 4], "category": "a"}]}')
    return folder / "a_0_1_rgb.json"


def image_table(path: Path) -> Path:
    """Images of fMoW with Sentinel-2's bands."""
    folder = path / "data/train/a/a_0"
    folder.mkdir(parents=True)
    (folder / "a_0_3.tif").touch()
    (path / "data/train.csv").write_text("category,location_id,image_id\na,0,3\n")
    return path / "data/train.csv"


def label_table(path: Path) -> Path:
    (path / "images").mkdir()
    picture(path / "images")
    (path / "labels.csv").write_text("id,label\nimage,a\n")
    return path / "labels.csv"


def landsat(path: Path) -> Path:
    (path / "product").mkdir()
    name = write_product(path / "product", ending=".json")
    return path / f"product/{name}_MTL.json"


def case_figures(path: Path) -> Path:
    (path / "cases.csv").write_text("case,name,dice,hd95_mm,nsd\ncase-1,cortex,0.9,1.5,\n")
    return path / "cases.csv"


def image_figures(path: Path) -> Path:
    (path / "predictions.csv").write_text("case,label,p_a,p_b\ncase-1,a,0.9,0.1\n")
    return path / "predictions.csv"


def summary(path: Path) -> Path:
    (path / "summary.json").write_text('{"figures": {}, "tables": []}')
    return path / "summary.json"


def measurement(path: Path) -> Path:
    clean = {"balanced_accuracy": 1, "sha256": "0" * 64}
    content = {"images": 8, "clean": clean, "cells": [], "corruptions": {}, "right": {"clean": "ff", "corrupted": {}}}
    (path / "robustness.json").write_text(json.dumps(content))
    return path / "robustness.json"


def pairs(path: Path) -> Path:
    (path / "pairs.csv").write_text("scan,earlier\na.nii.gz,b.nii.gz\n")
    return path / "pairs.csv"
