"""Labels, splits and files of data sets, as layouts of labelled images read them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_images import ItemT

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "valid": "validation", "test": "test"}
"""Splits by the names that data sets give them."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
"""Endings of image files, in lower case."""
RELABELLING = ("merge", "drop")
"""Options that `Relabelling` takes."""


class Relabelling:
    """New names of labels, and labels that are left out.

    Args:
        options: Options of a layout: `merge` (new names by the old ones) and `drop` (names, old or new).
    """

    def __init__(self, options: Document) -> None:
        self.merged = {str(old): str(new) for old, new in dict(options.get("merge", {})).items()}
        self.dropped = set(map(str, options.get("drop", ())))

    def __call__(self, label: str) -> str | None:
        """The name that a label has; None where it is left out."""
        name = self.merged.get(label, label)
        return None if {name, label} & self.dropped else name


def labelled(named: Iterable[tuple[ItemT, str]], table: Path, classes: Sequence[str], options: Document) -> list[ItemT]:
    """Images of a table with the numbers of their labels and the names of their splits.

    Args:
        named: Images, each with the label that the table gives it.
        table: File of the table, for messages.
        classes: Names of the classes, in the order of their numbers.
        options: Options of the layout, of which `merge`, `drop` and `test_rule` are heeded.

    Raises:
        InputError: a key stands there twice, a class or split is unknown, or the rule cannot be used.
    """
    relabelled, rule = Relabelling(options), options.get("test_rule")
    items, seen = [], set()
    for item, given in named:
        label = relabelled(given)
        if label is None:
            continue
        if item.key in seen:
            raise InputError(f"{printable(table)}: names {printable(item.key)} twice; leave one of them out")
        seen.add(item.key)
        split = _split(item.split, table)
        if rule is not None and _follows(item.group or item.key, rule):
            split = "test"
        items.append(replace(item, label=class_number(label, classes, table), split=split))
    return items


def class_number(name: str, classes: Sequence[str], path: Path) -> int:
    """Number of a class, by its name or that number.

    Raises:
        InputError: there is no such class; the message names `path`.
    """
    if name in classes:
        return classes.index(name)
    if name in map(str, range(len(classes))):
        return int(name)
    raise InputError(
        f"{printable(path)}: class {printable(name) or 'without a name'} is none of the recipe's {len(classes)}; add "
        "it to card.classes"
    )


def entries_of(folder: Path) -> list[Path]:
    """Files and folders of a folder by name, without hidden ones.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be listed ({error.strerror}); expected a folder") from None


def images_in(folder: Path) -> dict[str, Path]:
    """JPEG, PNG and TIFF files of a folder by their name without ending, which must be theirs alone.

    Raises:
        InputError: the folder cannot be listed, or two images have one name.
    """
    named: dict[str, Path] = {}
    for path in entries_of(folder):
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        if path.stem in named:
            raise InputError(
                f"{printable(folder)}: holds {printable(path.name)} and {printable(named[path.stem].name)}, expected "
                "one image of a name; keep one of them"
            )
        named[path.stem] = path
    return named


def split_folders(root: Path) -> list[tuple[Path, str]]:
    """Folders of a data set that are named after splits, each with its split; else the root, which has none."""
    named = [(entry, SPLITS[entry.name]) for entry in entries_of(root) if entry.name in SPLITS and entry.is_dir()]
    return named or [(root, "")]


def only_file(root: Path, options: Document, endings: Sequence[str], kind: str) -> Path:
    """The data set's file: the root itself, the one that the option `file` names, or the only one of its kind.

    Raises:
        InputError: the folder contains no file of that kind, or several.
    """
    if root.is_file():
        return root
    if "file" in options:
        return root / Path(str(options["file"])).name
    files = [entry for entry in entries_of(root) if entry.suffix.lower() in endings]
    if len(files) != 1:
        raise InputError(f"{printable(root)}: holds {len(files)} {kind} files, expected one; give data.options.file")
    return files[0]


def _follows(key: str, rule: Document) -> bool:
    """Whether a rule `{hash, modulo, equals}` puts a key into the test split."""
    try:
        digest = hashlib.new(str(rule["hash"]), key.encode(), usedforsecurity=False).hexdigest()
        return int(digest, 16) % int(rule["modulo"]) in [int(value) for value in rule["equals"]]
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"data.options.test_rule: cannot be used ({error}); expected {{hash: md5, modulo: 5, equals: [1]}}"
        ) from None


def _split(name: str, table: Path) -> str:
    """The split that a table names."""
    if name.strip().lower() not in {*SPLITS, ""}:
        raise InputError(
            f"{printable(table)}: split {printable(name)} is unknown; expected train, validation, test, or nothing"
        )
    return SPLITS.get(name.strip().lower(), "")
