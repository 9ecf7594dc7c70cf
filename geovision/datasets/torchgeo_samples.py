"""Samples of torchgeo's data sets as arrays: images, masks, names of bands, and labels that folders give."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from geovision.datasets.patches import Cutting
from geovision.datasets.torchgeo_classes import TorchGeo
from geovision.sensors import find_sensor
from shared_backbones.errors import require

Sample: TypeAlias = Mapping[str, object]
"""What a data set of torchgeo gives by a number: tensors by name."""


def folder_labels(dataset: TorchGeo, count: int) -> list[int]:
    """Labels that the names of folders give, without reading an image; empty where they do not."""
    labels = getattr(dataset, "targets", None)
    known = isinstance(labels, list) and len(labels) == count and all(type(label) is int for label in labels)
    return list(labels) if known and labels is not None and isinstance(dataset.classes, list) else []


def image_of(sample: Sample) -> np.ndarray:
    """The image of a sample, `(C, H, W)` float32.

    Raises:
        ValueError: it has none, or of another shape.
    """
    if "image" not in sample:
        raise ValueError("has no image; give data.options by which torchgeo gives one, such as bands")
    image = np.asarray(sample["image"])
    if image.ndim != 3:
        raise ValueError(f"its image has the shape {image.shape}, a series perhaps; expected (bands, height, width)")
    return image.astype(np.float32)


def mask_of(sample: Sample, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of a sample, `(H, W)` of whole numbers.

    Raises:
        ValueError: it has another shape than the image, or numbers that are no classes.
    """
    mask = np.asarray(sample["mask"])
    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.shape != shape:
        raise ValueError(f"its mask has the shape {mask.shape}, its image {shape}; expected the same")
    whole = mask.round().astype(np.int32) if mask.dtype.kind == "f" and np.isfinite(mask).all() else mask
    if whole.dtype.kind not in "iub" or not np.array_equal(whole, mask):
        raise ValueError("its mask has fractions; expected numbers of classes")
    return whole.astype(np.uint8 if whole.min() >= 0 and whole.max() <= 255 else np.int32)


def band_names(dataset: TorchGeo, image: np.ndarray, cutting: Cutting) -> Sequence[str]:
    """Names of an image's bands; none where the recipe gives those of the files.

    Raises:
        ValueError: they are not known.
    """
    if cutting.options.get("bands"):
        return ()
    own = getattr(dataset, "bands", None) or getattr(dataset, "all_bands", None)
    names = list(own) if isinstance(own, list | tuple) and all(isinstance(name, str) for name in own) else []
    if not names and cutting.sensor == "rgb":
        names = find_sensor("rgb").names()
    if len(names) != len(image):
        says = f"torchgeo names {len(names)}" if names else "torchgeo does not name them"
        raise ValueError(f"its image has {len(image)} bands, {says}; name them in order with data.file_bands")
    optical = cutting.sensor.startswith("sentinel2")
    return [re.sub(r"^S2_", "", name) if optical else name for name in names]


def write_bands(path: Path, values: np.ndarray, names: Sequence[str]) -> None:
    """A GeoTIFF of `(C, H, W)`, without a place on the earth."""
    rasterio = require("rasterio", "geo")
    count, height, width = values.shape
    grid = rasterio.Affine(1, 0, 0, 0, -1, height)
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", transform=grid, **profile) as target:
        target.write(values)
        for number, name in enumerate(names, 1):
            target.set_band_description(number, name)
