"""Labelled images of every domain: how a data set's layout gives them, and how they are divided into splits.

Nothing here knows a file format: each format is a `Layout` in its own domain.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.folds import fold_name
from shared_backbones.json_values import Document

COLORS = ("red", "green", "blue")
"""Bands of colour images."""
GREY = ("grey",)
"""Band of grey images."""
_HELD_OUT = {"test", "validation"}
_PART = 256  # images that are prepared together


@dataclass(frozen=True)
class Item:
    """A labelled image.

    Attributes:
        path: File that holds the image, or folder of one file for each band; empty for a drawn image.
        label: Number of its class; the first of them where an image can have several; -1 until the image is read where
            nothing else says it.
        key: Name of the image in the data set, by which splits are drawn.
        split: `train`, `validation` or `test`; empty where the data set does not say.
        group: Name of the images that are drawn into one split together; empty where each is drawn by itself.
        labels: Numbers of all its classes where an image can have several, or none; else None.
    """

    path: Path
    label: int
    key: str
    split: str = ""
    group: str = ""
    labels: tuple[int, ...] | None = None

    @property
    def facts(self) -> tuple[object, ...]:
        """What the data set says of the image: key, label, labels, and the place in a larger image."""
        return self.key, self.label, self.labels, None


@dataclass(frozen=True, kw_only=True)
class RowItem(Item):
    """A labelled image in a file of many.

    Attributes:
        row: Place of the image in the file, from 0.
    """

    row: int


ItemT = TypeVar("ItemT", bound=Item)


class Layout(Generic[ItemT]):
    """How a data set of labelled images lies in files; each format is a subclass, whose docstring names its options.

    Attributes:
        name: Name in recipes (`data.layout`).
        options: Names of the options (`data.options`).
        takes_file: Whether the root may be a file in place of a folder.
        takes_nothing: Whether no root is needed, as the images are drawn.
        needs_every_class: Whether each class must have an image.
        draws_from_all: Whether images with a split of their own count when shares of a class are drawn.
    """

    name: str
    options: tuple[str, ...] = ()
    takes_file: ClassVar[bool] = False
    takes_nothing: ClassVar[bool] = False
    needs_every_class: ClassVar[bool] = True
    draws_from_all: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"<layout {self.name}>"  # the same in every process, as a preparation that goes on is known by it

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[ItemT]:
        """List the images of a data set; `find_items` checks the options first.

        Args:
            root: Folder of the data set, or its file.
            classes: Names of the classes, in the order of their numbers.
            options: Options of the layout.

        Raises:
            InputError: the files do not have the layout, or a class is unknown.
        """
        raise NotImplementedError

    def read(self, source: "ImageSource[ItemT]", size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read images of 8 bits (or fluxes, stretched); layouts of satellite images are read by `geovision`.

        Args:
            source: Images of one part.
            size: Side of the stored images in pixels; only drawn images depend on it.

        Returns:
            Number of each image in the part, and `(H, W, C)` uint8, or float32 from 0 to 1.

        Raises:
            InputError: an image cannot be read, or has other bands.
        """
        raise NotImplementedError

    def files(self, items: Sequence[ItemT]) -> list[Path]:
        """Files that are read for some images."""
        return list(dict.fromkeys(item.path for item in items))

    def bands(self, items: Sequence[ItemT]) -> tuple[str, ...] | None:
        """Names of the images' bands where the files fix them."""
        return None

    def blocks(self, items: Sequence[ItemT]) -> Mapping[int, list[ItemT]]:
        """Images of one split in the order of reading, by the first row of the block of a file that they lie in.

        A block is read for all splits in turn. By default there is one, with the classes mixed.
        """
        return {0: sorted(items, key=lambda item: text_hash(item.key))}


@dataclass(frozen=True)
class ImageSource(Generic[ItemT]):
    """Images of one split that are prepared together.

    Attributes:
        items: The images, in the order of reading.
        split: Split, or fold, of all of them.
        layout: Layout that found them, and reads them.
        bands: Names of the images' bands.
        repeats_grey: Whether grey images are repeated where colours are asked for.
    """

    items: tuple[ItemT, ...]
    split: str
    layout: Layout[ItemT]
    bands: tuple[str, ...] = COLORS
    repeats_grey: bool = False

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return self.layout.files(self.items)

    @property
    def digest(self) -> str:
        """Sha256 of what the data set says of the images: keys, labels, places in a larger image."""
        return text_hash(repr([self.split, *(item.facts for item in self.items)]))


def find_items(
    layout: Layout[ItemT], root: Path, classes: Sequence[str], options: Document | None = None
) -> list[ItemT]:
    """The images of a data set, with the splits that it has of its own.

    Args:
        layout: Layout of the files.
        root: Folder of the data set, or its file.
        classes: Names of the classes, in the order of their numbers.
        options: Options of the layout.

    Raises:
        InputError: an option is unknown, the files do not have the layout, or they contain no image.
    """
    for name in options or {}:
        if name not in layout.options:
            known = ", ".join(layout.options) or "none"
            raise InputError(f"data.options.{name} is unknown to the layout {layout.name}; expected: {known}")
    return layout.find(root, classes, options or {})


def find_images(
    layout: Layout[ItemT],
    root: Path,
    classes: Sequence[str],
    *,
    test: float,
    validation: float,
    seed: int,
    folds: int | None = None,
    options: Document | None = None,
    bands: tuple[str, ...] = COLORS,
    repeats_grey: bool = False,
) -> list[ImageSource[ItemT]]:
    """The images of a data set, by split, in parts that are prepared together.

    A data set's own splits are kept. Where there is no test split, and where there is no validation split, shares are
    drawn within each class (from all images with several classes together), by a hash of the image's key and the
    seed; groups, such as blocks of a mosaic, are drawn as wholes, until they hold the share of all images.

    Args:
        layout: Layout of the files.
        root: Folder of the data set, or its file.
        classes: Names of the classes, in the order of their numbers.
        test: Share of the images.
        validation: Share of the training images.
        seed: Seed of the draw.
        folds: Number of folds that all images outside the test are divided into, each class by itself and groups as
            wholes; in place of training and validation, the data set's own included.
        options: Options of the layout.
        bands: Bands that images are to have, where the files do not fix them: `COLORS` or `GREY`.
        repeats_grey: Whether grey images are taken, and repeated, where colours are asked for.

    Raises:
        InputError: the files do not have the layout, or a class is unknown or has no image.
    """
    items = find_items(layout, root, classes, options)
    if not items:
        raise InputError(f"{printable(root)}: holds no image in the layout {layout.name}")
    if layout.needs_every_class:
        _check_classes(items, classes, root)
    draws_from_all = layout.draws_from_all
    divided = _divided(items, test, 0.0 if folds else validation, seed, folds=folds, draws_from_all=draws_from_all)
    blocks = [
        (first, split, members)
        for split, part in sorted(divided.items())
        for first, members in layout.blocks(part).items()
    ]
    own = layout.bands(items) or bands
    return [
        ImageSource(tuple(members[start : start + _PART]), split, layout, own, repeats_grey)
        for _, split, members in sorted(blocks, key=lambda block: block[:2])
        for start in range(0, len(members), _PART)
    ]


def _check_classes(items: Sequence[Item], classes: Sequence[str], root: Path) -> None:
    """Refuse a class without an image."""
    counts = np.bincount([label for item in items for label in labels_of(item)], minlength=len(classes))
    if not counts.all():
        empty = classes[int(np.argmin(counts))]
        raise InputError(
            f"{printable(root)}: class {empty} has no image; give images of it, or take it out of card.classes"
        )


def _divided(
    items: Sequence[ItemT], test: float, validation: float, seed: int, *, folds: int | None, draws_from_all: bool
) -> dict[str, list[ItemT]]:
    """Images by split or fold: each class is divided by itself, images in groups or with several classes as one."""
    present = {item.split for item in items}
    fractions = (0.0 if "test" in present else test, 0.0 if "validation" in present else validation)
    strata: dict[tuple[int, ...], list[ItemT]] = {}
    for item in items:
        labels = labels_of(item)
        strata.setdefault(labels if len(labels) == 1 and not item.group else (), []).append(item)
    divided: dict[str, list[ItemT]] = {}
    sizes = dict.fromkeys(map(fold_name, range(1, (folds or 0) + 1)), 0)
    for members in strata.values():
        drawn = list(_drawn(members, *fractions, seed, draws_from_all))
        for item in _in_folds(drawn, sizes, seed) if folds else drawn:
            divided.setdefault(item.split, []).append(item)
    return divided


def _in_folds(items: Sequence[ItemT], sizes: dict[str, int], seed: int) -> Iterator[ItemT]:
    """Images with a fold in place of training or validation: whole groups by their hash, each into the smallest fold.

    Args:
        items: Images of a class, or all that are divided together.
        sizes: Images in each fold so far, of all classes; those of this one are added.
        seed: Seed of the draw.
    """
    groups: dict[str, list[ItemT]] = {}
    for item in items:
        if item.split == "test":
            yield item
        else:
            groups.setdefault(item.group or item.key, []).append(item)
    own = dict.fromkeys(sizes, 0)
    for name in sorted(groups, key=lambda name: text_hash(f"{seed}:fold:{name}")):
        fold = min(sizes, key=lambda fold: (own[fold], sizes[fold]))
        own[fold] += len(groups[name])
        sizes[fold] += len(groups[name])
        yield from (replace(item, split=fold) for item in groups[name])


def _drawn(items: Sequence[ItemT], test: float, validation: float, seed: int, draws_from_all: bool) -> Iterator[ItemT]:
    """Images with splits: their own, or shares of the others, in whole groups by the hash of group or key."""
    groups: dict[str, list[ItemT]] = {}
    for item in items:
        if item.split in _HELD_OUT and not draws_from_all:
            yield item
        else:
            groups.setdefault(item.group or item.key, []).append(item)
    count = sum(map(len, groups.values()))
    test_count = validation_count = 0
    for name in sorted(groups, key=lambda name: text_hash(f"{seed}:{name}")):
        members, split = groups[name], "train"
        if test_count < round(count * test):
            split, test_count = "test", test_count + len(members)
        elif validation_count < round((count - test_count) * validation):
            split, validation_count = "validation", validation_count + len(members)
        yield from (item if item.split in _HELD_OUT else replace(item, split=split) for item in members)


def labels_of(item: Item) -> tuple[int, ...]:
    """Numbers of an image's classes, as far as they are known."""
    if item.labels is not None:
        return item.labels
    return (item.label,) if item.label >= 0 else ()


def targets_of(items: Sequence[Item], classes: int) -> np.ndarray:
    """Labels as `(N, classes)` uint8, 1 for the classes that an image has."""
    targets = np.zeros((len(items), classes), np.uint8)
    for row, item in zip(targets, items, strict=True):
        row[list(labels_of(item))] = 1
    return targets


def split_digest(items: Iterable[Item]) -> str:
    """Sha256 that names a split: of all keys with their splits."""
    return text_hash("\n".join(sorted(f"{item.key}:{item.split}" for item in items)))


def text_hash(text: str) -> str:
    """Sha256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def with_bands(image: np.ndarray, bands: Sequence[str], path: Path) -> np.ndarray:
    """An image `(H, W)` or `(H, W, C)` with so many bands: grey is repeated; colours are grey where all are equal.

    Raises:
        InputError: the image has colours where grey was expected.
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
