"""Pictures of scenes, maps and reconstructions for reports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PANEL = 320  # longer side in pixels of each picture of a map


def stretched(bands: np.ndarray) -> np.ndarray:
    """Three bands `(3, H, W)` as a picture `(H, W, 3)` uint8, from their 2nd to their 98th percentile."""
    low, high = np.percentile(bands, [2, 98], axis=(1, 2), keepdims=True)
    scaled = np.clip((bands - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (scaled.transpose(1, 2, 0) * 255).round().astype(np.uint8)


def reconstruction_panel(
    path: Path, images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], bands: Sequence[int]
) -> None:
    """Write a PNG: a row for each image, with what the encoder saw, the reconstruction of the rest, and the image.

    Args:
        path: of the picture.
        images: image, reconstruction and removed pixels, each `(C, H, W)`.
        bands: numbers of the three that are shown.
    """
    rows = []
    for image, guess, gone in images:
        chosen = list(bands)
        whole, removed = image[chosen], gone[chosen]
        filled = np.where(removed, guess[chosen], whole)
        pictures = stretched(np.concatenate([whole, filled], 2))  # one stretch for both
        width = whole.shape[2]
        seen = pictures[:, :width].copy()
        seen[removed.transpose(1, 2, 0)] = 128
        gap = np.full((len(seen), 4, 3), 255, np.uint8)
        rows.append(np.concatenate([seen, gap, pictures[:, width:], gap, pictures[:, :width]], 1))
        rows.append(np.full((4, rows[-1].shape[1], 3), 255, np.uint8))
    Image.fromarray(np.concatenate(rows[:-1])).save(path, "PNG")


def map_panel(
    path: Path,
    scene: Any,
    target: Path,
    labels: Any,
    classes: Sequence[Mapping[str, Any]],
    bands: Sequence[str],
) -> None:
    """Write a PNG of a scene beside its labels and its map, with the classes' colours below.

    Args:
        path: of the picture.
        scene: `geovision.scenes.Scene`, open.
        target: its map.
        labels: `geovision.datasets.patches.LabelRaster`, open.
        classes: `name` and `color` of each.
        bands: names of the three that are shown.
    """
    from geovision.rasters import open_raster

    values, _ = scene.sample()
    picture = Image.fromarray(stretched(values[[scene.bands.index(band) for band in bands]]))
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(classes)] = np.array([entry["color"] for entry in classes], np.uint8)
    with open_raster(target) as source:
        scale = max(source.shape) / _PANEL
        shape = tuple(max(1, round(side / max(scale, 1.0))) for side in source.shape)
        found = source.read(1, out_shape=shape)
    size = max(1, round(scene.shape[1] / scale)), max(1, round(scene.shape[0] / scale))
    parts = [picture, Image.fromarray(palette[labels.sample(shape)]), Image.fromarray(palette[found])]
    sheet = Image.new("RGB", (3 * (size[0] + 8), size[1] + 24 + 18 * len(classes)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (part, title) in enumerate(zip(parts, ("scene", "labels", "map"), strict=True)):
        sheet.paste(part.resize(size, Image.Resampling.NEAREST), (number * (size[0] + 8), 0))
        draw.text((number * (size[0] + 8), size[1] + 3), title, fill="#222", font=font)
    for number, entry in enumerate(classes):
        top = size[1] + 24 + 18 * number
        draw.rectangle((0, top, 12, top + 12), fill=tuple(entry["color"]), outline="#222")
        draw.text((18, top - 1), str(entry["name"]), fill="#222", font=font)
    sheet.save(path, "PNG")
