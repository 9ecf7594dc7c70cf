"""Pictures of scenes, maps and reconstructions for reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


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
    path: Path, scene: Any, target: Path, colors: Sequence[Sequence[int]], bands: Sequence[str], largest: int
) -> None:
    """Write a PNG of a scene beside its map, reduced to at most `largest` pixels a side.

    Args:
        path: of the picture.
        scene: `geovision.scenes.Scene`, open.
        target: its map.
        colors: of the classes.
        bands: names of the three that are shown.
        largest: side in pixels.
    """
    from geovision.rasters import open_raster

    values, _ = scene.sample()
    picture = Image.fromarray(stretched(values[[scene.bands.index(band) for band in bands]]))
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(colors)] = np.array(colors, np.uint8)
    with open_raster(target) as source:
        scale = max(1.0, max(source.shape) / largest)
        shape = tuple(max(1, round(side / scale)) for side in source.shape)
        found = source.read(1, out_shape=shape)
    colored = Image.fromarray(palette[found])
    picture = picture.resize(colored.size)
    both = Image.new("RGB", (2 * colored.width + 8, colored.height), "white")
    both.paste(picture, (0, 0))
    both.paste(colored, (colored.width + 8, 0))
    both.save(path, "PNG")
