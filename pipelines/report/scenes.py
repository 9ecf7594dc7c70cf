"""Pictures of scenes, maps and reconstructions for reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.pictures import drawn_size, instance_colours, stretched
from pipelines.report.sheets import picture_sheet
from shared_backbones.card import ClassEntry

if TYPE_CHECKING:
    from geovision.datasets.labels import LabelRaster
    from geovision.scene import Scene

_PANEL = 320  # longer side in pixels of each picture of a map


def reconstruction_panel(
    path: Path, images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], bands: Sequence[int]
) -> None:
    """Write a PNG: a row for each image, with what the encoder saw, the reconstruction of the rest, and the image.

    Args:
        path: File to write.
        images: Image, reconstruction and mask of the removed pixels, each `(C, H, W)`.
        bands: Numbers of the three bands that are shown.
    """
    rows = []
    for image, reconstruction, mask in images:
        chosen = list(bands)
        whole, removed = image[chosen], mask[chosen]
        filled = np.where(removed, reconstruction[chosen], whole)
        pictures = stretched(np.concatenate([whole, filled], 2))  # one stretch for both
        original, completed = np.split(pictures, 2, 1)
        visible = original.copy()
        visible[removed.transpose(1, 2, 0)] = 128
        rows.append([visible, completed, original])
    picture_sheet(rows).save(path, "PNG")


def map_panel(
    path: Path,
    scene: "Scene",
    target: Path,
    labels: "LabelRaster",
    classes: Sequence[ClassEntry],
    bands: Sequence[str],
) -> None:
    """Write a PNG of a scene beside its labels and its map, with the classes' colours below.

    Args:
        path: File to write.
        scene: Open scene.
        target: Its map.
        labels: Its labels, open.
        classes: `name` and `color` of each class.
        bands: Names of the three bands that are shown.
    """
    from geovision.rasters import open_raster

    values, valid = scene.sample()
    values[:, ~valid] = np.nan
    colors = [_color(entry) for entry in classes]
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(classes)] = np.array(colors, np.uint8)
    with open_raster(target) as source:
        scale = max(1.0, max(source.shape) / _PANEL)
        shape = tuple(max(1, round(side / scale)) for side in source.shape)
        mapped = source.read(1, out_shape=shape)
    width, height = drawn_size(scene.grid, _PANEL)
    picture_sheet(
        [
            [
                stretched(values[[scene.bands.index(band) for band in bands]]),
                palette[labels.sample(shape)],
                palette[mapped],
            ]
        ],
        size=(max(1, round(width)), max(1, round(height))),
        gap=(8, 0),
        below=[["scene"], ["labels"], ["map"]],
        legend=[(str(entry["name"]), color) for entry, color in zip(classes, colors, strict=True)],
        font=12,
    ).save(path, "PNG")


def object_panel(
    path: Path, scene: "Scene", target: Path, bands: Sequence[str], labels: "LabelRaster | None" = None
) -> None:
    """Write a PNG of a scene beside the objects that are in it and those of a map, each in a colour.

    Args:
        path: File to write.
        scene: Open scene.
        target: Raster of the numbers of the map's objects.
        bands: Names of the three bands that are shown.
        labels: Objects that are there, open, where they are known.
    """
    from geovision.rasters import open_raster

    values, valid = scene.sample()
    values[:, ~valid] = np.nan
    with open_raster(target) as source:
        scale = max(1.0, max(source.shape) / _PANEL)
        shape = tuple(max(1, round(side / scale)) for side in source.shape)
        mapped = source.read(1, out_shape=shape)
    width, height = drawn_size(scene.grid, _PANEL)
    pictures = [stretched(values[[scene.bands.index(band) for band in bands]])]
    known = [] if labels is None else [labels.sample(shape)]
    pictures += [_in_colours(numbers) for numbers in (*known, mapped)]
    picture_sheet(
        [pictures],
        size=(max(1, round(width)), max(1, round(height))),
        gap=(8, 0),
        below=[["scene"], *([["labels"]] if known else []), ["objects"]],
        font=12,
    ).save(path, "PNG")


def _in_colours(numbers: np.ndarray) -> np.ndarray:
    """Objects of a raster, each in a colour, on black."""
    known, places = np.unique(np.append(numbers.ravel(), 0), return_inverse=True)
    return instance_colours(len(known) - 1)[places[:-1].reshape(numbers.shape)]


def _color(entry: ClassEntry) -> tuple[int, int, int]:
    red, green, blue = entry["color"]
    return red, green, blue
