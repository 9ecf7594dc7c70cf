"""How data sets of labelled images lie in files: which images there are, what they show, and their own splits."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from astrovision.datasets.mosaics import Cutting, SkyImage

_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_SPLITS = {"train": "train", "val": "validation", "validation": "validation", "valid": "validation", "test": "test"}
_PHANTOMS = 20_000


@dataclass(frozen=True)
class Item:
    """A labelled image.

    Attributes:
        path: of the file; of a drawn image nothing.
        label: number of its class.
        key: what names it in the data set; splits are drawn by it.
        row: of the image in a file of many; None where the file is the image.
        split: `train`, `validation` or `test`; empty where the data set does not say.
        group: images of one group are drawn into one split; empty where each is drawn by itself.
        place: x and y in pixels of a mosaic; None where the image is a file's or a row's.
        mosaic: that the image is cut from; likewise.
        labels: numbers of all its classes where an image can have several, or none; else None.
        drawn: name and number of a drawn image; else None.
    """

    path: Path
    label: int
    key: str
    row: int | None = None
    split: str = ""
    group: str = ""
    place: tuple[float, float] | None = None
    mosaic: "SkyImage | None" = field(default=None, repr=False)
    labels: tuple[int, ...] | None = None
    drawn: tuple[str, int] | None = None


def find_items(
    layout: str, root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None" = None
) -> list[Item]:
    """The images of a data set.

    Args:
        layout: one of `LAYOUTS`.
        root: folder of the data set, or its file.
        classes: their names, in the order of their numbers.
        options: of the layout.
        cutting: how cut-outs are taken from a mosaic; of the layout `mosaic`, which needs it.

    Raises:
        InputError: the layout or an option is unknown, or the files do not have that layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"data.layout {layout!r} is unknown; expected one of: {', '.join(LAYOUTS)}")
    for name in options:
        if name not in _OPTIONS[layout]:
            known = ", ".join(_OPTIONS[layout]) or "none"
            raise InputError(f"data.options.{name} is unknown to the layout {layout}; expected: {known}")
    return LAYOUTS[layout](root, classes, options, cutting)


def _galaxy10(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """`images` `(N, S, S, 3)` uint8 and `ans` `(N,)`, in the only `.h5` file there or that of `options.file`."""
    path = _only(root, options, (".h5", ".hdf5"), "HDF5")
    from astrovision.datasets.galaxy10 import read_labels

    return [Item(path, int(label), str(row), row) for row, label in enumerate(read_labels(path, classes))]


def _table(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """A CSV with a row for each image: its key, its class and maybe its split.

    The key is the file's name without ending, or its path below the folder of images, such as `b/7.png`.

    Options: `table` (labels.csv), `images` (images), the columns `key` (id), `label` (label: a class's name or number)
    and `split` (none), `merge` (new names of labels), `drop` (labels left out) and `test_rule`:
    `{hash: md5, modulo: 5, equals: [1]}` puts an image into the test split by the hash of its key.
    """
    table, folder = (root / str(options.get(name, usual)) for name, usual in (("table", "labels.csv"), ("images",) * 2))
    wanted = {"key": "id", "label": "label", "split": ""}
    key_name, label_name, split_name = (str(options.get(name, usual)) for name, usual in wanted.items())
    there = _by_name(folder, _images_in(folder))
    rows = _rows(table, [name for name in (key_name, label_name, split_name) if name])
    named = (
        (Item(there.get(row[key_name]) or _below(folder, row[key_name]), -1, row[key_name],
              split=row[split_name] if split_name else ""), row[label_name]) for row in rows
    )  # fmt: skip
    items, seen = _labelled(named, table, classes, options), set()
    for item in items:
        if item.path == folder:
            raise InputError(
                f"{printable(table)}: names {printable(item.key)}, but {printable(folder)} has no such image; fetch "
                "it, or leave it out of the table"
            )
        if item.path in seen:
            raise InputError(f"{printable(table)}: names {printable(item.path.name)} twice; leave one of them out")
        seen.add(item.path)
    return items


def _mosaic(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """Sources of a FITS mosaic, cut out around the positions of a catalogue; those off the image are left out.

    Cut-outs of neighbours overlap, so that a source of the test split may have been seen beside one of the training
    split: a column of splits by place is better than a draw of single sources, and without one `blocks_arcmin` or
    `blocks_pixels` draws whole square blocks of the image, where only those at the borders of blocks overlap.

    Options: `images` (a FITS file, or a list with one for each band), `catalogue` (a table that `read_catalogue`
    takes), its columns `label` (label: a class's name or number), `id` (by default the number of the row), `split`
    (none), `ra` and `dec` or `x` and `y`, `hdu` and `bands` as `open_mosaic` takes them, side of the blocks
    `blocks_arcmin` or `blocks_pixels` (none); `merge`, `drop` and `test_rule` as in a table, the last by the hash of
    the block where there are blocks.
    """
    if cutting is None:
        raise InputError("data.stretch is needed by the layout mosaic, whose images hold fluxes")
    from astrovision.datasets.mosaics import find_sources

    image, sources = find_sources(root, options, cutting)
    named = (
        (Item(image.files[0], -1, one.key, split=one.split, group=one.block, place=one.place, mosaic=image), one.label)
        for one in sources
    )
    return _labelled(named, image.catalogue, classes, options)


def _labelled(
    named: Iterable[tuple[Item, str]], table: Path, classes: Sequence[str], options: Mapping[str, Any]
) -> list[Item]:
    """Items with the numbers of their labels and the names of their splits, under `merge`, `drop` and `test_rule`."""
    merged = {str(old): str(new) for old, new in dict(options.get("merge", {})).items()}
    dropped, rule = set(map(str, options.get("drop", ()))), options.get("test_rule")
    items, seen = [], set()
    for item, given in named:
        label = merged.get(given, given)
        if {label, given} & dropped:
            continue
        if item.key in seen:
            raise InputError(f"{printable(table)}: names {printable(item.key)} twice; leave one of them out")
        seen.add(item.key)
        split = _split(item.split, table)
        if rule is not None and _follows(item.group or item.key, rule):
            split = "test"
        items.append(replace(item, label=_number(label, classes, table), split=split))
    return items


def _folders(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """`<class>/<image>`, or `<split>/<class>/<image>`."""
    parts = [(entry, _SPLITS[entry.name]) for entry in _inside(root) if entry.is_dir() and entry.name in _SPLITS]
    items = []
    for folder, split in parts or [(root, "")]:
        for entry in (entry for entry in _inside(folder) if entry.is_dir()):
            number, found = _number(entry.name, classes, entry), _images_in(entry)
            _by_name(entry, found)
            items += [Item(path, number, path.relative_to(root).as_posix(), split=split) for path in found]
    return items


def _medmnist(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """A 2-D set of MedMNIST with its splits: a `.npz` file, or that of `options.file` in a folder.

    Options: `file` (by default the only `.npz` file there), whose name begins with that of the set.
    """
    import numpy as np

    from medvision.datasets.medmnist import SPLITS, find_set, read_targets

    path = _only(root, options, (".npz",), "MedMNIST")
    facts = find_set(path)
    if list(classes) != list(facts.classes):
        raise InputError(
            f"{printable(path)}: the {len(facts.classes)} classes of {facts.name} are {', '.join(facts.classes)}; give "
            "card.classes those, in that order"
        )
    items = []
    for split in SPLITS:
        for row, target in enumerate(read_targets(path, split)):
            labels = tuple(int(number) for number in np.flatnonzero(target))
            several = labels if facts.multi_label else None
            first = labels[0] if labels else 0
            items.append(Item(path, first, f"{split}-{row}", row, split=_SPLITS[split], labels=several))
    return items


def _phantoms(root: Path, classes: Sequence[str], options: Mapping[str, Any], cutting: "Cutting | None") -> list[Item]:
    """Drawn images, of every class as many: see `astrovision.datasets.phantoms`. Options: `count` (20000) of all."""
    from astrovision.datasets.phantoms import PHANTOMS

    count = options.get("count", _PHANTOMS)
    if not isinstance(count, int) or not 1 <= count <= 10_000_000:
        raise InputError(f"data.options.count is {count!r}; expected the number of images, 1 to 10000000")
    for name in classes:
        if name not in PHANTOMS:
            raise InputError(
                f"class {printable(name)} is none that can be drawn; expected card.classes of {', '.join(PHANTOMS)}"
            )
    numbers = ((number, number % len(classes)) for number in range(count))
    return [Item(Path(), label, f"phantom-{n}", drawn=(classes[label], n)) for n, label in numbers]


LAYOUTS: Mapping[str, Callable[[Path, Sequence[str], Mapping[str, Any], "Cutting | None"], list[Item]]] = {
    "galaxy10": _galaxy10,
    "table": _table,
    "folders": _folders,
    "mosaic": _mosaic,
    "medmnist": _medmnist,
    "phantoms": _phantoms,
}
"""How a data set's files lie; the functions' docstrings say it, with the options of each."""
_OPTIONS = {
    "galaxy10": ("file",),
    "table": ("table", "images", "key", "label", "split", "merge", "drop", "test_rule"),
    "folders": (),
    "mosaic": (
        "images", "catalogue", "id", "label", "split", "ra", "dec", "x", "y", "hdu", "bands", "blocks_arcmin",
        "blocks_pixels", "merge", "drop", "test_rule",
    ),
    "medmnist": ("file",),
    "phantoms": ("count",),
}  # fmt: skip


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


def _below(folder: Path, name: str) -> Path:
    """The image with a path below a folder; the folder itself where there is none."""
    path = PurePath(name)
    inside = not path.is_absolute() and ".." not in path.parts and path.suffix.lower() in _ENDINGS
    return folder / path if inside and (folder / path).is_file() else folder


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
        f"{printable(path)}: class {printable(name) or 'without a name'} is none of the recipe's {len(classes)}; add "
        "it to card.classes"
    )


def _only(root: Path, options: Mapping[str, Any], endings: tuple[str, ...], kind: str) -> Path:
    """The data set's file: the root itself, the one that the options name, or the only one of its kind there."""
    if root.is_file():
        return root
    if "file" in options:
        return root / Path(str(options["file"])).name
    found = [entry for entry in _inside(root) if entry.suffix.lower() in endings]
    if len(found) != 1:
        raise InputError(f"{printable(root)}: holds {len(found)} {kind} files, expected one; give data.options.file")
    return found[0]
