"""Pictures of scenes, maps and reconstructions for reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.pictures import drawn_size, stretched
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


def _color(entry: ClassEntry) -> tuple[int, int, int]:
    red, green, blue = entry["color"]
    return red, green, blue
