"""Labelled images as published data sets lay them out: which files, which labels, which split."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shared_backbones.errors import InputError
from shared_backbones.files import printable

_ENDINGS = {".tif", ".tiff", ".jpg", ".jpeg", ".png", ".jp2"}
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "valid": "validation", "test": "test"}
_PART = 256  # images that are prepared together


@dataclass(frozen=True)
class Item:
    """A labelled image.

    Attributes:
        path: of a file, or of a folder with one file for each band.
        labels: numbers of its classes: one, or of multi-label data any number.
        split: `train`, `validation` or `test`; empty where the data set does not say.
        box: row, column, height and width of what is cut out, or None for the whole.
    """

    path: Path
    labels: tuple[int, ...]
    split: str = ""
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class ImageSource:
    """Images of one split that are prepared together.

    Attributes:
        items: the images.
        split: of all of them.
    """

    items: tuple[Item, ...]
    split: str

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        found = []
        for item in self.items:
            found += sorted(item.path.iterdir()) if item.path.is_dir() else [item.path]
        return found


@dataclass(frozen=True)
class Layout:
    """A data set's form.

    Attributes:
        find: lists the images of a folder, given the classes' names and the layout's options.
        multi_label: whether an image has several labels.
        bands: names of the files' bands in order, where the files do not say them.
    """

    find: Callable[[Path, Sequence[str], Mapping[str, Any]], list[Item]]
    multi_label: bool = False
    bands: tuple[str, ...] | None = field(default=None)


def find_images(
    layout: str,
    root: Path,
    classes: Sequence[str],
    *,
    test: float,
    validation: float,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> list[ImageSource]:
    """The images of a data set, by split, in parts that are prepared together.

    A data set's own splits are kept. Where there is no test split, and where there is no validation split, shares are
    drawn within each class (with several labels: from all), by a hash of the file's name and the seed.

    Args:
        layout: name of one of `LAYOUTS`.
        root: folder of the data set.
        classes: their names, in the order of their numbers.
        test: share of the images.
        validation: share of the training images.
        seed: of the draw.
        options: of the layout.

    Raises:
        InputError: the layout is unknown, the folder does not have it, a class is unknown, or a file is missing.
    """
    items = find_layout(layout).find(root, classes, options or {})
    if not items:
        raise InputError(f"{printable(root)}: holds no image in the layout {layout}")
    there = {item.split for item in items}
    divided: dict[str, list[Item]] = {}
    for members in _groups(items):
        order = sorted(members, key=lambda item: _hash(f"{seed}:{item.path.relative_to(root).as_posix()}"))
        ends = round(len(order) * test) if "test" not in there else 0
        rest = len(order) - ends
        held = ends + (round(rest * validation) if "validation" not in there else 0)
        for place, item in enumerate(order):
            drawn = "test" if place < ends else "validation" if place < held else "train"
            divided.setdefault(item.split if item.split in {"test", "validation"} else drawn, []).append(item)
    sources = []
    for split, members in sorted(divided.items()):
        members.sort(key=lambda item: _hash(item.path.name))  # classes are mixed within a part
        sources += [ImageSource(tuple(members[i : i + _PART]), split) for i in range(0, len(members), _PART)]
    return sources


def find_layout(name: str) -> Layout:
    """The layout of a name.

    Raises:
        InputError: none has it.
    """
    if name not in LAYOUTS:
        raise InputError(f"data.layout {name!r} is unknown; expected one of: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _folders(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """`<class>/<image>`, or `<split>/<class>/<image>`; so come EuroSAT, RESISC-45 and UC Merced.

    Lists `<any name>-{train,val,test}.txt` of file names, which torchgeo brings for all three, are heeded.
    """
    parts = [(entry, _SPLITS[entry.name]) for entry in _inside(root) if entry.is_dir() and entry.name in _SPLITS]
    items = []
    for folder, split in parts or [(root, "")]:
        for entry in _inside(folder):
            if entry.is_dir():
                number = _number(entry.name, classes, entry)
                items += [Item(path, (number,), split) for path in _inside(entry) if path.suffix.lower() in _ENDINGS]
    listed: dict[str, str] = {}
    for path in _inside(root):
        split = _SPLITS.get(path.stem.rpartition("-")[2])
        if split and "-" in path.stem and path.suffix == ".txt":
            listed |= {Path(line.strip()).stem: split for line in _lines(path) if line.strip()}
    if not listed:
        return items
    return [replace(item, split=listed[item.path.stem]) for item in items if item.path.stem in listed]


def _bigearthnet(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """`<patch>/<patch>_B02.tif ...` with `<patch>_labels_metadata.json`; `{train,val,test}.csv` list the patches."""
    merged = {str(old): str(new) for old, new in dict(options.get("merge", {})).items()}
    listed: dict[str, str] = {}
    for name in ("train", "val", "test"):
        path = root / f"{name}.csv"
        if path.is_file():
            listed |= {row[0]: _SPLITS[name] for row in csv.reader(_lines(path)) if row}
    items = []
    for folder in _inside(root):
        notes = folder / f"{folder.name}_labels_metadata.json"
        if not notes.is_file() or (listed and folder.name not in listed):
            continue
        try:
            names = [merged.get(str(name), str(name)) for name in json.loads(notes.read_text("utf-8"))["labels"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{printable(notes)}: is no list of labels; fetch the patch again") from None
        dropped = set(map(str, options.get("drop", ())))
        numbers = {_number(name, classes, notes) for name in names if name not in dropped}
        if numbers:
            items.append(Item(folder, tuple(sorted(numbers)), listed.get(folder.name, "")))
    return items


def _fmow_sentinel(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """Tables `train.csv`, `val.csv` and `test_gt.csv` with `category`, `location_id` and `image_id`."""
    items = []
    for name, split in (("train", "train"), ("val", "validation"), ("test_gt", "test")):
        table = root / f"{name}.csv"
        if not table.is_file():
            continue
        for row in csv.DictReader(_lines(table)):
            try:
                place = f"{row['category']}_{row['location_id']}"
                found = Path(name, row["category"], place, f"{place}_{row['image_id']}.tif")
            except KeyError as error:
                raise InputError(
                    f"{printable(table)}: has no column {error}; expected category, location_id and image_id"
                ) from None
            if ".." in found.parts:
                raise InputError(f"{printable(table)}: names a file outside of its folder; expected a plain category")
            items.append(Item(_there(root / found, table), (_number(row["category"], classes, table),), split))
    return items


def _fmow_rgb(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """`<split>/<category>/<place>/<name>_rgb.jpg`, each with a JSON file that gives the box."""
    items = []
    for name, split in (("train", "train"), ("val", "validation"), ("test_gt", "test")):
        for notes in sorted((root / name).glob("*/*/*_rgb.json")):
            try:
                box = json.loads(notes.read_text("utf-8"))["bounding_boxes"][0]
                column, row, width, height = (int(value) for value in box["box"])
                number = _number(str(box["category"]), classes, notes)
            except (OSError, ValueError, KeyError, TypeError, IndexError):
                raise InputError(f"{printable(notes)}: gives no bounding box; fetch it again") from None
            items.append(Item(_there(notes.with_suffix(".jpg"), notes), (number,), split, (row, column, height, width)))
    return items


LAYOUTS = {
    "folders": Layout(_folders),
    # of the 13 bands, B8A stands last
    "eurosat": Layout(_folders, bands=(*(f"B{n}" for n in range(1, 13)), "B8A")),
    "bigearthnet": Layout(_bigearthnet, multi_label=True),
    "fmow_sentinel": Layout(
        _fmow_sentinel, bands=(*(f"B{n}" for n in range(1, 9)), "B8A", *(f"B{n}" for n in range(9, 13)))
    ),
    "fmow_rgb": Layout(_fmow_rgb),
}


def _groups(items: Sequence[Item]) -> Iterable[list[Item]]:
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(item.labels if len(item.labels) == 1 else (), []).append(item)
    return groups.values()


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); expected a folder") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{printable(path)}: cannot be read as text; expected a list of images") from None


def _number(name: str, classes: Sequence[str], path: Path) -> int:
    if name not in classes:
        raise InputError(
            f"{printable(path)}: class {printable(name)} is none of the recipe's {len(classes)}; add it to card.classes"
        )
    return classes.index(name)


def _there(path: Path, listed_in: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{printable(path)}: listed in {printable(listed_in.name)}, but not there; fetch it")
    return path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def one_hot(items: Sequence[Item], count: int) -> np.ndarray:
    """Labels as `(N, classes)` uint8, 1 for those that an image has."""
    labels = np.zeros((len(items), count), np.uint8)
    for row, item in enumerate(items):
        labels[row, list(item.labels)] = 1
    return labels
