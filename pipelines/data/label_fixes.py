"""Labels that readers gave images in galleries, in place of those of the data set."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TypeAlias

from pipelines.report.gallery import ARTEFACT, CANNOT_TELL
from pipelines.report.results import ResultTable
from shared_backbones.documents import read_bounded
from shared_backbones.errors import InputError
from shared_backbones.files import printable, spreadsheet_safe
from shared_backbones.labelled_images import ImageSource, Item

Source: TypeAlias = ImageSource[Item]
_COLUMNS = ("id", "label", "again", "drawn")
_OF_READERS = ("reader", "created")  # who gave a label, and when; tables made by hand may lack them


@dataclass(frozen=True)
class Fix:
    """What readers said of an image.

    Attributes:
        label: Number of its class; None where it is an artefact, or they were not sure.
        random: Whether it was shown because it was drawn at random, not because it was doubtful.
    """

    label: int | None
    random: bool


def read_fixes(tables: Sequence[Path], classes: Sequence[str]) -> dict[str, Fix]:
    """Fixes by the image's id. Of an image with two labels that differ, readers were not sure.

    Of what a reader saved more than once, the latest counts; a table without names is of a reader of its own.

    Raises:
        InputError: a table cannot be read, lacks a column, or names an unknown class.
    """
    said: dict[str, dict[str, tuple[str, list[int | None]]]] = {}  # by image and reader: when, and which labels
    random: dict[str, bool] = {}
    numbers: dict[str, int | None] = {printable(name): number for number, name in enumerate(classes)}
    numbers |= {CANNOT_TELL: None, ARTEFACT: None}
    for place, table in enumerate(tables):
        for line, row in _rows(table):
            labels = [text for text in (row["label"], row["again"]) if text]
            unknown = [text for text in labels if _plain(text) not in numbers]
            if unknown or not labels:
                what = printable(unknown[0])[:60] if unknown else "no label"
                raise InputError(
                    f"{printable(table)}: line {line} has {what!r}; expected a class of the card, {CANNOT_TELL} or "
                    f"{ARTEFACT}"
                )
            key = _plain(row["id"])
            given = said.setdefault(key, {})
            reader, when = row["reader"].strip() or f"\0{place}", row["created"]
            known, before = given.get(reader, (when, []))
            if when >= known:
                given[reader] = when, [*(before if when == known else ()), *(numbers[_plain(text)] for text in labels)]
            random[key] = random.get(key, False) or row["drawn"] == "random"
    fixes = {}
    for key, given in said.items():
        labels = {label for _, own in given.values() for label in own}
        fixes[key] = Fix(labels.pop() if len(labels) == 1 else None, random[key])
    return fixes


def fix_labels(
    sources: Sequence[Source], tables: Sequence[str], classes: Sequence[str], *, test: bool
) -> tuple[Sequence[Source], ResultTable | None]:
    """Give images the labels that readers gave them; splits stay as they are.

    Images of training and validation that are artefacts, or that readers were not sure of, are left out. Test images
    are never left out, and keep their labels unless `test` is given.

    Args:
        sources: Images of all splits.
        tables: Tables that galleries saved.
        classes: Names of the classes, in the order of their numbers.
        test: Whether labels of test images are replaced, too.

    Returns:
        The images, and how many labels were replaced in each split; None without tables.

    Raises:
        InputError: a table cannot be used, or names none of the images; images have several classes; or test labels
            are to be replaced of fewer random images than doubtful ones.
    """
    if not tables:
        return sources, None
    if sources[0].items[0].labels is not None:
        raise InputError("data.label_fixes: images have several classes, a gallery gives one; leave it out")
    if sources[0].items[0].label < 0:
        raise InputError(
            "data.label_fixes: labels of these images show when they are read, expected those of a table or of "
            "folders; leave it out"
        )
    fixes = read_fixes(list(map(Path, tables)), classes)
    names = _by_name([item for source in sources for item in source.items])
    known = {names[name]: fix for name, fix in fixes.items() if name in names}
    if not known:
        raise InputError(
            f"{', '.join(map(printable, tables))}: none of its {len(fixes)} ids is an image of the data; give the "
            "table of a gallery of these images"
        )
    counts: dict[str, Counter[str]] = {}
    fixed = []
    for source in sources:
        split = "test" if source.split == "test" else "training and validation"
        count = counts.setdefault(split, Counter())
        items = [_fixed(item, known.get(item.key), split == "test", test, count) for item in source.items]
        left = tuple(item for item in items if item is not None)
        if left:
            fixed.append(replace(source, items=left))
    if test:
        _check_drawn(counts.get("test", Counter()), tables)
    return fixed, _table(counts, test)


def _fixed(item: Item, fix: Fix | None, is_test: bool, test: bool, count: Counter[str]) -> Item | None:
    """An image with its label; None where it is left out."""
    if fix is None:
        return item
    count["random" if fix.random else "doubtful"] += 1
    if is_test and (not test or fix.label is None):
        count["kept"] += 1
        return item
    if fix.label is None:
        count["left out"] += 1
        return None
    count["confirmed" if fix.label == item.label else "changed"] += 1
    return replace(item, label=fix.label)


def _check_drawn(count: Mapping[str, int], tables: Sequence[str]) -> None:
    """Refuse test labels that were looked at mostly where the network was in doubt: its figures would be too good."""
    if count["doubtful"] > count["random"]:
        raise InputError(
            f"{', '.join(map(printable, tables))}: {count['doubtful']} test images were looked at as doubtful and "
            f"{count['random']} at random; to fix test labels label as many random ones (--gallery-random), or leave "
            "out data.fix_test_labels"
        )


def _table(counts: Mapping[str, Counter[str]], test: bool) -> ResultTable:
    columns = ("changed", "confirmed", "left out", "kept", "doubtful", "random")
    about = "test labels, too" if test else "test labels stay"
    return {
        "title": f"Labels fixed by readers; {about}",
        "columns": ["split", *columns],
        "rows": [[split, *(count[name] for name in columns)] for split, count in sorted(counts.items())],
    }


def _by_name(items: Sequence[Item]) -> dict[str, str]:
    """Keys of images by what a gallery may call them: the key, or its last part without ending where that is one's."""
    times = Counter(PurePath(item.key).stem for item in items)
    short = {PurePath(item.key).stem: item.key for item in items if times[PurePath(item.key).stem] == 1}
    return {
        **{printable(name): key for name, key in short.items()},
        **{printable(item.key): item.key for item in items},
    }


def _plain(text: str) -> str:
    """A cell without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return text[1:] if text.startswith("'") and spreadsheet_safe(text[1:]) == text else text


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a table with their numbers.

    Raises:
        InputError: it cannot be read, or lacks a column.
    """
    name = printable(table)
    content = read_bounded(table)
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{name}: has no column {missing[0]}; expected a table that a gallery saved")
        for line, row in enumerate(reader, 2):
            yield line, {column: row.get(column) or "" for column in (*_COLUMNS, *_OF_READERS)}
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{name}: is no table of text; expected one that a gallery saved") from None
