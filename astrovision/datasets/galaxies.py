"""Labelled galaxy images as data sets lay them out: which images, which labels, which split, and how they are read."""

import csv
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astrovision.datasets.galaxy10 import blocks_of, read_labels, read_rows
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_FORMATS = ("JPEG", "PNG", "TIFF")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "valid": "validation", "test": "test"}
_PART = 256  # images that are prepared together


@dataclass(frozen=True)
class Item:
    """A labelled image.

    Attributes:
        path: of the file.
        label: number of its class.
        key: what names it in the data set; splits are drawn by it.
        row: of the image in an HDF5 file; None where the file is the image.
        split: `train`, `validation` or `test`; empty where the data set does not say.
    """

    path: Path
    label: int
    key: str
    row: int | None = None
    split: str = ""


@dataclass(frozen=True)
class ImageSource:
    """Images of one split that are prepared together.

    Attributes:
        items: the images; of an HDF5 file in the order of their rows.
        split: of all of them.
    """

    items: tuple[Item, ...]
    split: str

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        return list(dict.fromkeys(item.path for item in self.items))


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
    drawn within each class, by a hash of the image's key and the seed.

    Args:
        layout: `galaxy10`, `table` or `folders`.
        root: folder of the data set; of `galaxy10` also the HDF5 file itself.
        classes: their names, in the order of their numbers.
        test: share of the images.
        validation: share of the training images.
        seed: of the draw.
        options: of the layout.

    Raises:
        InputError: the layout is unknown, the files do not have it, a class is unknown or has no image.
    """
    if layout not in LAYOUTS:
        raise InputError(f"data.layout {layout!r} is unknown; expected one of: {', '.join(LAYOUTS)}")
    for name in options or {}:
        if name not in _OPTIONS[layout]:
            known = ", ".join(_OPTIONS[layout]) or "none"
            raise InputError(f"data.options.{name} is unknown to the layout {layout}; expected: {known}")
    items = LAYOUTS[layout](root, classes, options or {})
    if not items:
        raise InputError(f"{printable(root)}: holds no image in the layout {layout}")
    counts = np.bincount([item.label for item in items], minlength=len(classes))
    if not counts.all():
        empty = classes[int(np.argmin(counts))]
        raise InputError(
            f"{printable(root)}: class {empty} has no image; give images of it, or take it out of card.classes"
        )
    there = {item.split for item in items}
    divided: dict[str, list[Item]] = {}
    for label in range(len(classes)):
        order = sorted((item for item in items if item.label == label), key=lambda item: _hash(f"{seed}:{item.key}"))
        fixed = [item for item in order if item.split in {"test", "validation"}]
        free = [item for item in order if item.split not in {"test", "validation"}]
        ends = round(len(free) * test) if "test" not in there else 0
        held = ends + (round((len(free) - ends) * validation) if "validation" not in there else 0)
        for place, item in enumerate(free):
            drawn = "test" if place < ends else "validation" if place < held else "train"
            fixed.append(replace(item, split=drawn))
        for item in fixed:
            divided.setdefault(item.split, []).append(item)
    return list(_parts(divided))


def split_digest(items: Iterable[Item]) -> str:
    """Sha256 that names a split: of all keys with their splits."""
    lines = sorted(f"{item.key}:{item.split}" for item in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_galaxies(
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
        Arrays: `image` `(N, 3, size, size)` uint8 and `targets` `(N, classes)` uint8. And a record: sha256 of the
        images, their number, and per band sums and sums of squares over all `pixels`.

    Raises:
        InputError: an image cannot be read, or has other bands than red, green and blue.
    """
    images = np.empty((len(source.items), 3, size, size), np.uint8)
    digest, sums = hashlib.sha256(), np.zeros((2, 3), np.int64)
    for number, image in enumerate(_read(source)):
        digest.update(image.tobytes())
        images[number] = resized(image, size, crop).transpose(2, 0, 1)
        counts = np.stack([np.bincount(band.ravel(), minlength=256) for band in images[number]])
        sums += np.arange(256) ** np.array([[1], [2]]) @ counts.T
    targets = np.zeros((len(images), classes), np.uint8)
    targets[np.arange(len(images)), [item.label for item in source.items]] = 1
    return {"image": images, "targets": targets}, {
        "sha256": digest.hexdigest(),
        "images": len(images),
        "pixels": len(images) * size * size,
        "sums": sums[0].tolist(),
        "squares": sums[1].tolist(),
    }


def resized(image: np.ndarray, size: int, crop: float) -> np.ndarray:
    """The middle `crop` of an image `(H, W, 3)` uint8, or of its square middle, as `(size, size, 3)`."""
    from PIL import Image

    height, width = image.shape[:2]
    side = crop * min(height, width)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box))


def open_image(path: Path) -> np.ndarray:
    """A colour image `(H, W, 3)` uint8.

    Raises:
        InputError: no JPEG, PNG or TIFF file, damaged, or with other bands than red, green and blue.
    """
    from PIL import Image

    problems = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                bands, stored = image.getbands(), str(image.tile[0][3] if image.tile else "")
                if bands != ("R", "G", "B") or ";16" in stored:
                    depth = " of 16 bits" if "16" in image.mode + stored else ""
                    raise InputError(
                        f"{printable(path)}: has {len(bands)} bands{depth} ({', '.join(bands)}), expected 3 of 8 bits "
                        "(R, G, B); convert it"
                    )
                return np.asarray(image)
    except FileNotFoundError:
        raise InputError(f"{printable(path)}: no such file; fetch it again") from None
    except (*problems, Image.DecompressionBombWarning) as error:
        reason = printable(str(error).replace(str(path), path.name))[:200]
        raise InputError(f"{printable(path)}: cannot be read ({reason}); fetch it again") from None


def _galaxy10(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """`images` `(N, S, S, 3)` uint8 and `ans` `(N,)`, in the only `.h5` file there or that of `options.file`."""
    if root.is_file():
        path = root
    elif "file" in options:
        path = root / Path(str(options["file"])).name
    else:
        found = [entry for entry in _inside(root) if entry.suffix.lower() in {".h5", ".hdf5"}]
        if len(found) != 1:
            raise InputError(f"{printable(root)}: holds {len(found)} HDF5 files, expected one; give data.options.file")
        path = found[0]
    return [Item(path, int(label), str(row), row) for row, label in enumerate(read_labels(path, classes))]


def _table(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """A CSV with a row for each image: its key, which is the file's name without ending, its class and maybe its split.

    Options: `table` (labels.csv), `images` (images), the columns `key` (id), `label` (label: a class's name or number)
    and `split` (none), `merge` (new names of labels), `drop` (labels left out) and `test_rule`:
    `{hash: md5, modulo: 5, equals: [1]}` puts an image into the test split by the hash of its key.
    """
    table, folder = (root / str(options.get(name, usual)) for name, usual in (("table", "labels.csv"), ("images",) * 2))
    wanted = {"key": "id", "label": "label", "split": ""}
    key_name, label_name, split_name = (str(options.get(name, usual)) for name, usual in wanted.items())
    merged = {str(old): str(new) for old, new in dict(options.get("merge", {})).items()}
    dropped, rule = set(map(str, options.get("drop", ()))), options.get("test_rule")
    there = _by_name(folder, _images_in(folder))
    items, seen = [], set()
    for row in _rows(table, [name for name in (key_name, label_name, split_name) if name]):
        key, label = row[key_name], merged.get(row[label_name], row[label_name])
        if {label, row[label_name]} & dropped:
            continue
        if key in seen:
            raise InputError(f"{printable(table)}: names {printable(key)} twice; leave one of them out")
        seen.add(key)
        if key not in there:
            raise InputError(
                f"{printable(table)}: names {printable(key)}, but {printable(folder)} has no such image; fetch it, or "
                "leave it out of the table"
            )
        split = _split(row[split_name], table) if split_name else ""
        if rule is not None and _follows(key, rule):
            split = "test"
        items.append(Item(there[key], _number(label, classes, table), key, split=split))
    return items


def _folders(root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
    """`<class>/<image>`, or `<split>/<class>/<image>`."""
    parts = [(entry, _SPLITS[entry.name]) for entry in _inside(root) if entry.is_dir() and entry.name in _SPLITS]
    items = []
    for folder, split in parts or [(root, "")]:
        for entry in (entry for entry in _inside(folder) if entry.is_dir()):
            number, found = _number(entry.name, classes, entry), _images_in(entry)
            _by_name(entry, found)
            items += [Item(path, number, path.relative_to(root).as_posix(), split=split) for path in found]
    return items


LAYOUTS: Mapping[str, Callable[[Path, Sequence[str], Mapping[str, Any]], list[Item]]] = {
    "galaxy10": _galaxy10,
    "table": _table,
    "folders": _folders,
}
_OPTIONS = {
    "galaxy10": ("file",),
    "table": ("table", "images", "key", "label", "split", "merge", "drop", "test_rule"),
    "folders": (),
}


def _parts(divided: Mapping[str, list[Item]]) -> Iterator[ImageSource]:
    """Parts of all splits: of an HDF5 file all splits of a block of rows in turn; else with classes mixed."""
    blocks: dict[tuple[int, str], list[Item]] = {}
    for split, members in sorted(divided.items()):
        if members[0].row is None:
            blocks[0, split] = sorted(members, key=lambda item: _hash(item.key))
        else:
            members.sort(key=lambda item: item.row or 0)
            homes = blocks_of(members[0].path, [item.row or 0 for item in members])
            for (first, _), item in zip(homes, members, strict=True):
                blocks.setdefault((first, split), []).append(item)
    for (_, split), members in sorted(blocks.items(), key=lambda entry: entry[0]):
        for start in range(0, len(members), _PART):
            yield ImageSource(tuple(members[start : start + _PART]), split)


def _read(source: ImageSource) -> Iterator[np.ndarray]:
    if source.items[0].row is None:
        for item in source.items:
            yield open_image(item.path)
    else:
        yield from read_rows(source.items[0].path, [item.row or 0 for item in source.items])


def _rows(table: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for name in columns:
                if name not in (reader.fieldnames or ()):
                    there = ", ".join(printable(field) for field in reader.fieldnames or ())
                    raise InputError(
                        f"{printable(table)}: has no column {name}, found {there}; name it in data.options"
                    )
            for number, row in enumerate(reader, 2):
                if any(row[name] is None for name in columns):
                    raise InputError(f"{printable(table)}: line {number} is too short; mend it")
                yield row
    except OSError as error:
        raise InputError(f"{printable(table)}: cannot be read ({error.strerror}); expected a table of labels") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{printable(table)}: is no table of text; expected CSV with labels") from None


def _follows(key: str, rule: Mapping[str, Any]) -> bool:
    try:
        digest = hashlib.new(str(rule["hash"]), key.encode(), usedforsecurity=False).hexdigest()
        return int(digest, 16) % int(rule["modulo"]) in [int(value) for value in rule["equals"]]
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"data.options.test_rule: cannot be used ({error}); expected {{hash: md5, modulo: 5, equals: [1]}}"
        ) from None


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); expected a folder") from None


def _images_in(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.suffix.lower() in _ENDINGS]


def _by_name(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their name without ending, which must be theirs alone."""
    named: dict[str, Path] = {}
    for path in paths:
        if path.stem in named:
            raise InputError(
                f"{printable(folder)}: holds {printable(path.name)} and {printable(named[path.stem].name)}, expected "
                "one image of a name; keep one of them"
            )
        named[path.stem] = path
    return named


def _split(name: str, table: Path) -> str:
    if name.strip().lower() not in {*_SPLITS, ""}:
        raise InputError(
            f"{printable(table)}: split {printable(name)} is unknown; expected train, validation, test, or nothing"
        )
    return _SPLITS.get(name.strip().lower(), "")


def _number(name: str, classes: Sequence[str], path: Path) -> int:
    """Number of a class, by its name or that number."""
    if name in classes:
        return classes.index(name)
    if name in map(str, range(len(classes))):
        return int(name)
    raise InputError(
        f"{printable(path)}: class {printable(name)} is none of the recipe's {len(classes)}; add it to card.classes"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
