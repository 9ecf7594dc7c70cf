"""Labelled images as they are stored: those of 8 bits, all of one size."""

import hashlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from pipelines.data.store import Sample
from shared_backbones.json_values import Entries
from shared_backbones.labelled_images import ImageSource, ItemT, targets_of

Stored: TypeAlias = tuple[dict[str, np.ndarray], Entries]
"""Arrays of some images, such as `image`, `targets` and `valid`, and a record of them, with their `sha256`."""


def to_sample(source: ImageSource[ItemT], read: Callable[[ImageSource[ItemT]], Stored]) -> Sample:
    """A part of the data as the store keeps it, without its names."""
    arrays, record = read(source)
    name = f"case-{record['sha256'][:12]}"
    return Sample(name, name, source.split, arrays, record)


def read_images(source: ImageSource[ItemT], size: int, crop: float, classes: int, detail: int | None = None) -> Stored:
    """Images of one part of a data set, all `size` pixels a side.

    The middle `crop` of each side is cut out and resized (bicubic, smoothed where it shrinks).

    Args:
        source: Images of a part.
        size: Side in pixels.
        crop: Fraction of the side, more than 0 and at most 1.
        classes: Number of classes.
        detail: Side in pixels to which larger images are reduced first; None where they keep what they show.

    Returns:
        Arrays: `image` `(N, C, size, size)` uint8 and `targets` `(N, classes)` uint8. And a record: sha256 of the
        images, their number, and per band sums and sums of squares over all `pixels`.

    Raises:
        InputError: an image cannot be read, or has other bands.
    """
    images = np.empty((len(source.items), len(source.bands), size, size), np.uint8)
    digest, sums = hashlib.sha256(), np.zeros((2, len(source.bands)), np.int64)
    for number, image in source.layout.read(source, size):
        digest.update(image.tobytes())
        images[number] = resized(image, size, crop, detail).transpose(2, 0, 1)
        counts = np.stack([np.bincount(band.ravel(), minlength=256) for band in images[number]])
        sums += np.arange(256) ** np.array([[1], [2]]) @ counts.T
    targets = targets_of(source.items, classes)
    return {"image": images, "targets": targets}, {
        "sha256": digest.hexdigest(),
        "images": len(images),
        "pixels": len(images) * size * size,
        "sums": sums[0].tolist(),
        "squares": sums[1].tolist(),
    }


def resized(image: np.ndarray, size: int, crop: float, detail: int | None = None) -> np.ndarray:
    """The middle `crop` of an image, or of its square middle, as `(size, size, C)` uint8.

    Args:
        image: Image `(H, W, 1)` or `(H, W, 3)` uint8, or `(H, W, C)` float32 from 0 to 1.
        size: Side in pixels.
        crop: Fraction of the side, more than 0 and at most 1.
        detail: Side in pixels to which a larger middle is reduced first.
    """
    from PIL import Image

    height, width = image.shape[:2]
    side = crop * min(height, width)
    if detail is not None and side > detail:
        return resized(resized(image, detail, crop), size, 1.0)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)

    def resize(part: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BICUBIC, box=box))

    if image.dtype == np.uint8:
        return resize(image) if image.shape[2] == 3 else resize(image[..., 0])[..., None]
    planes = np.stack([resize(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, 2, 0)], 2)
    return (planes.clip(0, 1) * 255 + 0.5).astype(np.uint8)
