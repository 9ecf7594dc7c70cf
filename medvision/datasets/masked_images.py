"""Data sets of medical images with masks: which files belong together, and which split they are of."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_files import entries_of, images_in, split_folders
from shared_backbones.labelled_images import Item, Layout

POLYP_TESTS = ("CVC-300", "CVC-ClinicDB", "CVC-ColonDB", "ETIS-LaribPolypDB", "Kvasir")
"""Test sets that papers on polyps share (Fan et al., PraNet, 2020)."""


@dataclass(frozen=True, kw_only=True)
class MaskedItem(Item):
    """An image with a mask.

    Attributes:
        mask: File of the mask, bright where there is what is to be found.
        test_set: Published name of the test set that it is of; empty where there is one alone.
    """

    mask: Path
    test_set: str = ""

    @property
    def facts(self) -> tuple[object, ...]:
        """What the data set says of the image."""
        return *super().facts, self.test_set


class MaskedImages(Layout[MaskedItem]):
    """What the layouts share: an image and its mask have one name, in two folders."""

    needs_every_class = False

    def files(self, items: Sequence[MaskedItem]) -> list[Path]:
        """Images and masks."""
        return [path for item in items for path in (item.path, item.mask)]


class Pairs(MaskedImages):
    """`images/<name>` and `masks/<name>`, also below folders `train`, `validation` and `test`; endings may differ.

    Options: `images` and `masks`, other names of the two folders.
    """

    name = "pairs"
    options = ("images", "masks")

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[MaskedItem]:
        """List the images with their masks."""
        folders = str(options.get("images", "images")), str(options.get("masks", "masks"))
        return [item for folder, split in split_folders(root) for item in _paired(folder, folders, split)]


class KvasirSeg(MaskedImages):
    """Kvasir-SEG (Jha et al., 2020): `images/<name>.jpg` and `masks/<name>.jpg`, maybe in a folder `Kvasir-SEG`."""

    name = "kvasir_seg"

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[MaskedItem]:
        """List the images with their masks."""
        return _paired(_inner(root, "Kvasir-SEG"), ("images", "masks"))


class CvcClinicDb(MaskedImages):
    """CVC-ClinicDB (Bernal et al., 2015): `Original/<number>.tif` and `Ground Truth/<number>.tif`, or PNG.

    They may lie in a folder `CVC-ClinicDB`, `PNG` or `TIF`. Images are frames of few sequences, of which each is drawn
    into one split where a table says which (`metadata.csv`, as one copy of the data set has it).

    Options: `sequences`, the name of that table, with columns `frame_id` and `sequence_id`.
    """

    name = "cvc_clinicdb"
    options = ("sequences",)

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[MaskedItem]:
        """List the images with their masks and sequences."""
        folder = _inner(root, "CVC-ClinicDB")
        table = folder / str(options.get("sequences", "metadata.csv"))
        groups = _sequences(table) if "sequences" in options or table.exists() else {}
        return _paired(_inner(folder, "PNG", "TIF"), ("Original", "Ground Truth"), groups=groups)


class Polyps(MaskedImages):
    """The form that papers on polyps share (Fan et al., PraNet, 2020).

    `TrainDataset/{images,masks}/<name>.png`, and `TestDataset/<set>/{images,masks}/<name>.png` for each of the five
    sets that are tested on, which are scored apart.
    """

    name = "polyps"

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[MaskedItem]:
        """List the images with their masks and test sets."""
        items = []
        for name in ("TrainDataset", "TestDataset"):
            if not (root / name).is_dir():
                raise InputError(f"{printable(root)}: has no folder {name}; expected TrainDataset and TestDataset")
        items += _paired(root / "TrainDataset", _names(root / "TrainDataset"), "train", before="train/")
        for folder in (entry for entry in entries_of(root / "TestDataset") if entry.is_dir()):
            if folder.name not in POLYP_TESTS:
                raise InputError(
                    f"{printable(folder)}: is none of the test sets {', '.join(POLYP_TESTS)}; rename it, or take it out"
                )
            items += _paired(folder, _names(folder), "test", before=f"{folder.name}/", test_set=folder.name)
        return items


def _paired(
    root: Path,
    folders: tuple[str, str],
    split: str = "",
    *,
    before: str = "",
    test_set: str = "",
    groups: Mapping[str, str] | None = None,
) -> list[MaskedItem]:
    """Images of a folder with the masks of their names.

    Raises:
        InputError: a folder is missing, or an image has no mask.
    """
    for name in folders:
        if not (root / name).is_dir():
            raise InputError(f"{printable(root)}: has no folder {name}; expected {' and '.join(folders)}")
    masks = images_in(root / folders[1])
    items = []
    for stem, path in images_in(root / folders[0]).items():
        if stem not in masks:
            raise InputError(
                f"{printable(path)}: has no mask in {printable(root / folders[1])}; add it, or remove the image"
            )
        key = f"{before or (split and f'{split}/')}{stem}"
        group = (groups or {}).get(stem, "")
        items.append(MaskedItem(path, 0, key, split, group, mask=masks[stem], test_set=test_set))
    return items


def _inner(root: Path, *names: str) -> Path:
    """The first folder of these names, or the root where there is none."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def _names(folder: Path) -> tuple[str, str]:
    """Names of the folders of images and masks, which copies write in singular or plural."""
    return ("image", "mask") if (folder / "image").is_dir() else ("images", "masks")


def _sequences(table: Path) -> dict[str, str]:
    """The sequence of each frame.

    Raises:
        InputError: the table cannot be read, or lacks a column.
    """
    try:
        check_regular(table)
        with table.open(encoding="utf-8-sig", newline="") as file:
            return {row["frame_id"].strip(): f"sequence {row['sequence_id']}" for row in csv.DictReader(file)}
    except OSError as error:
        raise InputError(f"{printable(table)}: cannot be read ({error.strerror}); expected a table of frames") from None
    except (AttributeError, KeyError, UnicodeDecodeError, csv.Error):
        raise InputError(
            f"{printable(table)}: is no table of frames; expected CSV with the columns frame_id and sequence_id"
        ) from None
