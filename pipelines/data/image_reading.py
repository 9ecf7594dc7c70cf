"""Data sets of labelled images: their splits, and their images as they are stored."""

import functools
import hashlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.data.image_files import WITH_TIFF, read_image
from pipelines.data.image_layouts import Item, find_items
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from astrovision.datasets.mosaics import Cutting, SkyImage

COLORS = ("red", "green", "blue")
"""Bands of colour images."""
GREY = ("grey",)
_PART = 256  # images that are prepared together


@dataclass(frozen=True)
class ImageSource:
    """Images of one split that are prepared together.

    Attributes:
        items: the images; of an HDF5 file in the order of their rows.
        split: of all of them.
        bands: names of the images' bands.
        repeats_grey: whether grey images are repeated where colours are asked for.
    """

    items: tuple[Item, ...]
    split: str
    bands: tuple[str, ...] = COLORS
    repeats_grey: bool = False

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        if self.mosaic is not None:
            return [*dict.fromkeys(self.mosaic.files), self.mosaic.catalogue]
        return list(dict.fromkeys(item.path for item in self.items if item.drawn is None))

    @property
    def mosaic(self) -> "SkyImage | None":
        """That all images are cut from; None where they are files or rows of one."""
        return self.items[0].mosaic

    @property
    def digest(self) -> str:
        """Sha256 of what the data set says of the images: keys, labels, places in a mosaic."""
        said = [(item.key, item.label, item.labels, item.place) for item in self.items]
        return hashlib.sha256(repr([self.split, *said]).encode()).hexdigest()


def find_images(
    layout: str,
    root: Path,
    classes: Sequence[str],
    *,
    test: float,
    validation: float,
    seed: int,
    options: Mapping[str, Any] | None = None,
    cutting: "Cutting | None" = None,
    bands: tuple[str, ...] = COLORS,
    repeats_grey: bool = False,
) -> list[ImageSource]:
    """The images of a data set, by split, in parts that are prepared together.

    A data set's own splits are kept. Where there is no test split, and where there is no validation split, shares are
    drawn within each class, by a hash of the image's key and the seed; blocks of a mosaic are drawn as wholes, until
    they hold the share of all its sources.

    Args:
        layout: one of `pipelines.data.image_layouts.LAYOUTS`.
        root: folder of the data set, or its file.
        classes: their names, in the order of their numbers.
        test: share of the images.
        validation: share of the training images.
        seed: of the draw.
        options: of the layout.
        cutting: how cut-outs are taken from a mosaic; of the layout `mosaic`, which needs it.
        bands: that images are to have, `COLORS` or `GREY`; a mosaic's has its own.
        repeats_grey: take grey images where colours are asked for, and repeat them.

    Raises:
        InputError: the layout is unknown, the files do not have it, a class is unknown or has no image.
    """
    items = find_items(layout, root, classes, options or {}, cutting)
    if not items:
        raise InputError(f"{printable(root)}: holds no image in the layout {layout}")
    counts = np.bincount([label for item in items for label in labels_of(item)], minlength=len(classes))
    if not counts.all():
        empty = classes[int(np.argmin(counts))]
        raise InputError(
            f"{printable(root)}: class {empty} has no image; give images of it, or take it out of card.classes"
        )
    there = {item.split for item in items}
    strata: dict[int, list[Item]] = {}
    for item in items:
        strata.setdefault(-1 if item.group else item.label, []).append(item)
    divided: dict[str, list[Item]] = {}
    for members in strata.values():
        shares = (0 if "test" in there else test, 0 if "validation" in there else validation)
        for item in _drawn(members, *shares, seed):
            divided.setdefault(item.split, []).append(item)
    mosaic = items[0].mosaic
    parts = _parts(divided, bands if mosaic is None else mosaic.bands)
    return [replace(part, repeats_grey=repeats_grey) for part in parts]


def _drawn(items: Sequence[Item], test: float, validation: float, seed: int) -> Iterator[Item]:
    """Items with splits: those that they have, or shares of the others, in whole groups by hash of group or key."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        if item.split in {"test", "validation"}:
            yield item
        else:
            groups.setdefault(item.group or item.key, []).append(item)
    count = sum(map(len, groups.values()))
    tested = held = 0
    for name in sorted(groups, key=lambda name: _hash(f"{seed}:{name}")):
        members = groups[name]
        if tested < round(count * test):
            split, tested = "test", tested + len(members)
        elif held < round((count - tested) * validation):
            split, held = "validation", held + len(members)
        else:
            split = "train"
        yield from (replace(item, split=split) for item in members)


def labels_of(item: Item) -> tuple[int, ...]:
    """Numbers of an image's classes."""
    return (item.label,) if item.labels is None else item.labels


def split_digest(items: Iterable[Item]) -> str:
    """Sha256 that names a split: of all keys with their splits."""
    lines = sorted(f"{item.key}:{item.split}" for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_images(
    source: ImageSource, size: int, crop: float, classes: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Images of one part of a data set, all `size` pixels a side.

    The middle `crop` of each side is cut out and resized (bicubic, smoothed where it shrinks).

    Args:
        source: the images.
        size: side in pixels.
        crop: share of the side, more than 0 and at most 1.
        classes: how many there are.

    Returns:
        Arrays: `image` `(N, C, size, size)` uint8 and `targets` `(N, classes)` uint8. And a record: sha256 of the
        images, their number, and per band sums and sums of squares over all `pixels`.

    Raises:
        InputError: an image cannot be read, or has other bands.
    """
    images = np.empty((len(source.items), len(source.bands), size, size), np.uint8)
    digest, sums = hashlib.sha256(), np.zeros((2, len(source.bands)), np.int64)
    for number, image in _read(source, size):
        digest.update(image.tobytes())
        images[number] = resized(image, size, crop).transpose(2, 0, 1)
        counts = np.stack([np.bincount(band.ravel(), minlength=256) for band in images[number]])
        sums += np.arange(256) ** np.array([[1], [2]]) @ counts.T
    targets = np.zeros((len(images), classes), np.uint8)
    for target, item in zip(targets, source.items, strict=True):
        target[list(labels_of(item))] = 1
    return {"image": images, "targets": targets}, {
        "sha256": digest.hexdigest(),
        "images": len(images),
        "pixels": len(images) * size * size,
        "sums": sums[0].tolist(),
        "squares": sums[1].tolist(),
    }


def resized(image: np.ndarray, size: int, crop: float) -> np.ndarray:
    """The middle `crop` of an image, or of its square middle, as `(size, size, C)` uint8.

    Args:
        image: `(H, W, 1)` or `(H, W, 3)` uint8, or `(H, W, C)` float32 from 0 to 1.
        size: side in pixels.
        crop: share of the side, more than 0 and at most 1.
    """
    from PIL import Image

    height, width = image.shape[:2]
    side = crop * min(height, width)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)

    def resize(part: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.BICUBIC, box=box))

    if image.dtype == np.uint8:
        return resize(image) if image.shape[2] == 3 else resize(image[..., 0])[..., None]
    planes = np.stack([resize(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, 2, 0)], 2)
    return (planes.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def open_image(path: Path, bands: tuple[str, ...] = COLORS, repeats_grey: bool = False) -> np.ndarray:
    """An image `(H, W, C)` uint8 with such bands; of colours that are all equal one is taken where grey is asked for.

    Raises:
        InputError: no JPEG, PNG or TIFF file, damaged, or with other bands than grey or red, green and blue.
    """
    either = repeats_grey or len(bands) == 1
    values, _ = read_image(path, None if either else len(bands), WITH_TIFF, taker="expected")
    return _with_bands(values.transpose(1, 2, 0), bands, path)


def _parts(divided: Mapping[str, list[Item]], bands: tuple[str, ...]) -> Iterator[ImageSource]:
    """Parts of all splits: of an HDF5 file all splits of a block of rows in turn; else with classes mixed."""
    blocks: dict[tuple[int, str], list[Item]] = {}
    for split, members in sorted(divided.items()):
        if members[0].place is not None:  # in the order of the mosaic's rows, so that a part reads few of them
            blocks[0, split] = sorted(members, key=lambda item: (item.place or ())[::-1])
        elif members[0].path.suffix.lower() == ".npz":  # in its order, by which a split's images are numbered
            blocks[0, split] = sorted(members, key=lambda item: item.row or 0)
        elif members[0].path.suffix.lower() not in {".h5", ".hdf5"}:
            blocks[0, split] = sorted(members, key=lambda item: _hash(item.key))
        else:
            from astrovision.datasets.galaxy10 import blocks_of

            members.sort(key=lambda item: item.row or 0)
            homes = blocks_of(members[0].path, [item.row or 0 for item in members])
            for (first, _), item in zip(homes, members, strict=True):
                blocks.setdefault((first, split), []).append(item)
    for (_, split), members in sorted(blocks.items(), key=lambda entry: entry[0]):
        for start in range(0, len(members), _PART):
            yield ImageSource(tuple(members[start : start + _PART]), split, bands)


def _read(source: ImageSource, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Number of each image and what `resized` takes."""
    first, rows = source.items[0], [item.row or 0 for item in source.items]
    if source.mosaic is not None:
        yield from source.mosaic.cutouts([item.place for item in source.items])
    elif first.drawn is not None:
        from astrovision.datasets.phantoms import phantom

        for number, item in enumerate(source.items):
            name, seed = item.drawn or ("", 0)
            yield number, phantom(name, np.random.default_rng(seed), size)
    elif first.path.suffix.lower() == ".npz":
        images = _rows_of(first.path, first.key.partition("-")[0], first.path.stat().st_mtime_ns).read(rows)
        yield from enumerate(_with_bands(image, source.bands, first.path) for image in images)
    elif first.row is not None:
        from astrovision.datasets.galaxy10 import read_rows

        yield from enumerate(read_rows(first.path, rows))
    else:
        yield from enumerate(open_image(item.path, source.bands, source.repeats_grey) for item in source.items)


class _Rows:
    """Images of a split of MedMNIST, which the file is read on for while its parts are asked for in turn."""

    def __init__(self, path: Path, split: str) -> None:
        from medvision.datasets.medmnist import iter_images

        self._begin = functools.partial(iter_images, path, split)
        self._images, self._next = self._begin(), 0

    def read(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Images of rising rows; for one that was passed the file is read anew."""
        for row in rows:
            if row < self._next:
                self._images, self._next = self._begin(), 0
            passed, self._next = row - self._next, sys.maxsize  # until it is there: nothing comes after damage
            image = next(itertools.islice(self._images, passed, None))
            self._next = row + 1
            yield image


@functools.lru_cache(maxsize=1)
def _rows_of(path: Path, split: str, changed_ns: int) -> _Rows:
    """The rows of a file that is not changed."""
    return _Rows(path, split)


def _with_bands(image: np.ndarray, bands: tuple[str, ...], path: Path) -> np.ndarray:
    """An image `(H, W)` or `(H, W, C)` with so many bands: grey is repeated; colours are grey where all are equal.

    Raises:
        InputError: colours where grey was expected.
    """
    values = image[..., None] if image.ndim == 2 else image
    if values.shape[2] == len(bands):
        return values
    if values.shape[2] == 1:
        return np.repeat(values, len(bands), 2)
    if (values == values[..., :1]).all():
        return values[..., :1]
    raise InputError(
        f"{printable(path)}: has colours, the network takes grey images; give it model.arguments.in_chans=3, or "
        "convert them"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
