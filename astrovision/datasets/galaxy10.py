"""The HDF5 files of Galaxy10: what was published, what is checked, and images read in blocks of whole chunks."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from shared_backbones.errors import InputError, require
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_files import only_file
from shared_backbones.labelled_images import ImageSource, Layout, RowItem
from shared_backbones.memory import expect

File: TypeAlias = Any
"""An open `h5py.File`, in whose annotations data sets cannot be told from groups."""
Dataset: TypeAlias = Any
"""An `h5py.Dataset`."""

_BLOCK_BYTES = 2**26  # of images that are decoded at once, and kept
_BLOCK_ROWS = 512  # more at once would save nothing
_CHUNK_BYTES = 2**27  # of a compressed chunk, which HDF5 decodes as a whole


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        name: Name of the data set.
        images: Number of images.
        side: Side of the images in pixels.
        classes: Names of the classes, in the order of their numbers.
        counts: Images of each class; empty where the publication contradicts itself.
    """

    name: str
    images: int
    side: int
    classes: tuple[str, ...]
    counts: tuple[int, ...] = ()


DECALS = Published(
    "Galaxy10 DECaLS",
    17736,
    256,
    (
        "Disturbed Galaxies",
        "Merging Galaxies",
        "Round Smooth Galaxies",
        "In-between Round Smooth Galaxies",
        "Cigar Shaped Smooth Galaxies",
        "Barred Spiral Galaxies",
        "Unbarred Tight Spiral Galaxies",
        "Unbarred Loose Spiral Galaxies",
        "Edge-on Galaxies without Bulge",
        "Edge-on Galaxies with Bulge",
    ),
    (1081, 1853, 2645, 2027, 334, 2043, 1829, 2628, 1423, 1873),
)
"""`Galaxy10_DECals.h5`."""
SDSS = Published(
    "Galaxy10 SDSS",
    21785,
    69,
    (
        "Disk, Face-on, No Spiral",
        "Smooth, Completely round",
        "Smooth, in-between round",
        "Smooth, Cigar shaped",
        "Disk, Edge-on, Rounded Bulge",
        "Disk, Edge-on, Boxy Bulge",
        "Disk, Edge-on, No Bulge",
        "Disk, Face-on, Tight Spiral",
        "Disk, Face-on, Medium Spiral",
        "Disk, Face-on, Loose Spiral",
    ),
    # astroNN's page gives counts that sum to 21,830
)
"""`Galaxy10.h5`, the older one."""


class Galaxy10(Layout[RowItem]):
    """`images` `(N, S, S, 3)` uint8 and `ans` `(N,)` in the only `.h5` file of the folder, or that of `file`.

    Options: `file`.
    """

    name = "galaxy10"
    options = ("file",)
    takes_file = True

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[RowItem]:
        """List the rows of the file."""
        path = only_file(root, options, (".h5", ".hdf5"), "HDF5")
        return [RowItem(path, int(label), str(row), row=row) for row, label in enumerate(read_labels(path, classes))]

    def read(self, source: ImageSource[RowItem], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read the rows, block by block."""
        yield from enumerate(read_rows(source.items[0].path, [item.row for item in source.items]))

    def blocks(self, items: Sequence[RowItem]) -> Mapping[int, list[RowItem]]:
        """Rows in their order, by the block of the file that is read for them."""
        rows, blocks = sorted(items, key=lambda item: item.row), dict[int, list[RowItem]]()
        places = blocks_of(rows[0].path, [item.row for item in rows])
        for (first, _), item in zip(places, rows, strict=True):
            blocks.setdefault(first, []).append(item)
        return blocks


def read_labels(path: Path, classes: Sequence[str]) -> np.ndarray:
    """Numbers of the classes, `(N,)` int64, after checking the file.

    A file with as many images as a published one must be that one; any other, such as a part of it, only needs labels
    within the classes.

    Args:
        path: File to read.
        classes: names, in the order of their numbers.

    Raises:
        InputError: no such file, or its data sets, labels or classes are not as they should be.
    """
    with open_hdf5(path) as file:
        count, side = file["images"].shape[:2]
        answers = plain_dataset(file, "ans", path)
        with _intact(path, "ans"):
            if answers.shape != (count,) or answers.dtype.kind not in "iu":
                raise InputError(
                    f"{printable(path)}: ans is {answers.shape} {answers.dtype}, expected {count} whole numbers, one "
                    "for each image; fetch it again"
                )
            expect(count * (answers.dtype.itemsize + 8), printable(path), "ans")
            labels = answers[()].astype(np.int64)
    if count and not 0 <= labels.min() <= labels.max() < len(classes):
        raise InputError(
            f"{printable(path)}: labels from {labels.min()} to {labels.max()}, expected 0 to {len(classes) - 1} for "
            "the recipe's classes; fix card.classes"
        )
    for published in (DECALS, SDSS):
        if count == published.images:
            _check_published(path, published, side, classes, np.bincount(labels, minlength=len(classes)))
    return labels


def open_hdf5(path: Path) -> File:
    """An HDF5 file of this form, open, with its images checked.

    Raises:
        InputError: no HDF5 file; `images` is not there, not `(N, S, S, 3)` uint8, empty, or in chunks too large to be
            decoded.
    """
    h5py = require("h5py", "astro")
    try:
        check_regular(path)
        file = h5py.File(path, "r")
    except OSError as error:
        reason = brief(error, path)
        raise InputError(f"{printable(path)}: cannot be read as HDF5 ({reason}); use an intact copy") from None
    try:
        with _intact(path, "images"):
            images = plain_dataset(file, "images", path)
            shape = images.shape
            if images.dtype != np.uint8 or images.ndim != 4 or shape[3] != 3 or shape[1] != shape[2] or not shape[1]:
                raise InputError(
                    f"{printable(path)}: images are {shape} {images.dtype}, expected (N, S, S, 3) uint8; use another "
                    "file, or convert it"
                )
            if shape[0] and not images.id.get_storage_size():
                raise InputError(f"{printable(path)}: images were announced but never written; use an intact copy")
            depth, size, count = _form(images)
            first, end = block_of(0, depth, size, count)
            expect((end - first) * size, printable(path), "a block of its images")
            if images.chunks and images.id.get_create_plist().get_nfilters() and np.prod(images.chunks) > _CHUNK_BYTES:
                raise InputError(
                    f"{printable(path)}: compressed in chunks of {np.prod(images.chunks) / 2**20:.0f} MiB, expected at "
                    f"most {_CHUNK_BYTES / 2**20:.0f}; run: h5repack -l images:CHUNK=1x{shape[1]}x{shape[2]}x3 OLD NEW"
                )
    except InputError:
        file.close()
        raise
    return file


def plain_dataset(file: File, name: str, path: Path) -> Dataset:
    """A data set that lies in the file itself: no link is followed, and no other file is read.

    Raises:
        InputError: it is not there, or is no such data set.
    """
    h5py = require("h5py", "astro")
    with _intact(path, name):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
            there = ", ".join(printable(entry) for entry in list(file)[:10]) or "nothing"
            raise InputError(
                f"{printable(path)}: has no data set {name} of its own, found {there}; expected the file of Galaxy10"
            )
        if file[name].external or file[name].is_virtual:
            raise InputError(
                f"{printable(path)}: its data set {name} lies in other files, expected one in the file itself; use a "
                "complete copy"
            )
        return file[name]


def block_of(row: int, depth: int, bytes_per_row: int, count: int) -> tuple[int, int]:
    """First row and end of the block of rows that is read with a row.

    Blocks are of whole chunks, as many as memory is granted for, so that no chunk is decoded for two blocks. A chunk
    that alone has more rows than that is divided, and decoded for each part of it.

    Args:
        row: Row of an image.
        depth: rows of a chunk; 1 where there are no chunks.
        bytes_per_row: Bytes of one image.
        count: rows in all.
    """
    most = max(1, _BLOCK_BYTES // bytes_per_row)
    if depth <= most:
        span = piece = max(1, min(most, _BLOCK_ROWS) // depth) * depth
    else:
        span, piece = depth, -(-depth // -(-depth // most))
    first = row // span * span
    end = min(first + span, count)
    first += (row - first) // piece * piece
    return first, min(first + piece, end)


def blocks_of(path: Path, rows: Sequence[int]) -> list[tuple[int, int]]:
    """The block of each row of a file: see `block_of`."""
    with open_hdf5(path) as file:
        return [block_of(row, *_form(file["images"])) for row in rows]


def read_rows(path: Path, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Images `(S, S, 3)` uint8 of some rows; the last block is kept, as other splits have images in it.

    Raises:
        InputError: the file is not as it should be, or damaged.
    """
    with open_hdf5(path) as file:
        depth, *form = _form(file["images"])
        if depth == 1:
            for row in rows:
                yield _read(file, path, row, row + 1)[0]
            return
        blocks = [block_of(row, depth, *form) for row in rows]
    stat = path.stat()
    for row, (first, end) in zip(rows, blocks, strict=True):
        yield _kept(path, first, end, (stat.st_size, stat.st_mtime_ns))[row - first]


@functools.lru_cache(maxsize=1)
def _kept(path: Path, first: int, end: int, stamp: tuple[int, int]) -> np.ndarray:
    with open_hdf5(path) as file:
        return _read(file, path, first, end)


def _read(file: File, path: Path, first: int, end: int) -> np.ndarray:
    with _intact(path, f"images {first} to {end - 1}"):
        return file["images"][first:end]


def _form(images: Dataset) -> tuple[int, int, int]:
    """Rows of a chunk, bytes of an image, and images."""
    return images.chunks[0] if images.chunks else 1, int(np.prod(images.shape[1:])), len(images)


def _check_published(path: Path, published: Published, side: int, classes: Sequence[str], counts: np.ndarray) -> None:
    what = f"{printable(path)}: has the {published.images} images of {published.name}"
    if side != published.side:
        raise InputError(f"{what}, but of {side} pixels, expected {published.side}; fetch it again")
    if tuple(classes) != published.classes:
        raise InputError(f"{what}; name card.classes in its order: {'; '.join(published.classes)}")
    for name, count, expected in zip(classes, counts, published.counts or counts, strict=True):
        if count != expected:
            raise InputError(f"{what}, but {count} of class {name}, published {expected}; fetch it again")


@contextlib.contextmanager
def _intact(path: Path, what: str) -> Iterator[None]:
    """Whatever a damaged file makes h5py raise, in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{printable(path)}: {what} cannot be read ({brief(error)}); use an intact copy") from None
