"""Labelled images read into arrays of one size."""

import hashlib
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from geovision.datasets.layouts import SatelliteItem, SatelliteLayout
from geovision.datasets.patches import Cutting, packed, sums
from geovision.footprints import noted_corners
from geovision.scene import Scene
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries
from shared_backbones.labelled_images import ImageSource, targets_of


def read_images(
    source: ImageSource[SatelliteItem], cutting: Cutting, classes: int
) -> tuple[dict[str, np.ndarray], Entries]:
    """Images of one part of a data set, all `cutting.patch` pixels a side.

    The shorter side is brought to that size (bicubic, smoothed where it shrinks), and the middle is kept.

    Args:
        source: the images.
        cutting: how they are read.
        classes: number of classes.

    Returns:
        Arrays: `image` `(N, C, P, P)`, uint16 where the images hold whole numbers; `valid` `(N, P, P)` bool; and, where
        there are classes, `targets` `(N, classes)` uint8. And a record: sha256 of all files, the CRS and footprints of
        those that have them, and sums of the numbers.

    Raises:
        InputError: an image cannot be read or lacks a band.
    """
    images, masks, places, items, digest = [], [], [], [], hashlib.sha256()
    layout = cast(SatelliteLayout, source.layout)
    for item in source.items:
        with layout.opened(item, cutting) as (scene, labelled):
            values, valid, place = read_image(scene, labelled, cutting)
        items.append(labelled)
        images.append(values)
        masks.append(valid)
        places.append(place)
        digest.update(bytes.fromhex(place["sha256"]))
    stack, known = np.stack(images), np.stack(masks)
    arrays = {"image": packed(stack), "valid": known}
    return arrays | ({"targets": targets_of(items, classes)} if classes else {}), {
        "sha256": digest.hexdigest(),
        "crs": " ".join(sorted({place["crs"] for place in places if place["crs"]})) or None,
        "footprints": [place["footprint"] for place in places],
        "gsd_m": None,
        "images": len(images),
        **sums(stack, known),
    }


def read_image(scene: Scene, item: SatelliteItem, cutting: Cutting) -> tuple[np.ndarray, np.ndarray, Entries]:
    """An image `(C, P, P)` in the model's numbers, its valid pixels `(P, P)`, and its sha256, CRS and footprint.

    Args:
        scene: the image, opened by its layout.
        item: what the data set says of it.
        cutting: how it is read.
    """
    row, column, height, width = item.box or (0, 0, *scene.shape)
    row, column = max(0, min(row, scene.shape[0] - 1)), max(0, min(column, scene.shape[1] - 1))
    height, width = min(height, scene.shape[0] - row), min(width, scene.shape[1] - column)
    if height < 1 or width < 1:
        raise InputError(f"{printable(item.path)}: its bounding box is empty; fix its JSON file")
    values, valid = scene.read(row, column, height, width, cutting.scale)
    place = {"sha256": scene.sha256(), "crs": None, "footprint": None}
    if scene.grid.crs is not None:
        outline = noted_corners(scene.grid, np.array([row]), np.array([column]), (height, width))[0]
        place |= {"crs": scene.grid.crs.to_string(), "footprint": outline}
    values, valid = brought_to(values, valid, cutting.patch)
    return values, valid, place


def brought_to(values: np.ndarray, valid: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle of an image whose shorter side is brought to `side` (bicubic, smoothed where it shrinks).

    Args:
        values: `(C, H, W)` float32; whole numbers stay whole.
        valid: `(H, W)` bool.
        side: side of the result in pixels.

    Returns:
        `(C, side, side)` float32 and `(side, side)` bool.
    """
    height, width = valid.shape
    if (height, width) == (side, side):
        return values, valid
    whole = bool(np.abs(values - values.round()).max(initial=0) < 1e-2)
    factor = side / min(height, width)
    shape = max(side, round(height * factor)), max(side, round(width * factor))
    tensor = torch.from_numpy(values)[None]
    resized = F.interpolate(tensor, shape, mode="bicubic", antialias=True, align_corners=False)[0].numpy()
    mask = torch.from_numpy(valid.astype(np.float32))[None, None]
    known = F.interpolate(mask, shape, mode="nearest")[0, 0].numpy() > 0
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    middle = resized[:, top : top + side, left : left + side]
    if whole:
        middle = middle.round().clip(values.min(), values.max())
    return np.ascontiguousarray(middle), known[top : top + side, left : left + side]
