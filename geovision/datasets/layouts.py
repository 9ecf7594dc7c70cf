"""Published data sets of labelled satellite images: how each lies in files."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from geovision.datasets.splits import DRAWN, PublishedSplit, find_split, folder_below
from geovision.scenes import open_scene
from shared_backbones.documents import read_csv, read_csv_rows, read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_files import RELABELLING, SPLITS, Relabelling, class_number, entries_of, split_folders
from shared_backbones.labelled_images import Item, Layout, text_hash

if TYPE_CHECKING:
    from geovision.datasets.patches import Cutting
    from geovision.scene import Scene

_ENDINGS = {".tif", ".tiff", ".jpg", ".jpeg", ".png", ".jp2"}
_TABLES = (("train", "train"), ("val", "validation"), ("test_gt", "test"))  # of fMoW, with their splits


@dataclass(frozen=True)
class SatelliteItem(Item):
    """A labelled satellite image: a file, or a folder of one file for each band.

    Attributes:
        box: Row, column, height and width of what is cut out; None for the whole image.
    """

    box: tuple[int, int, int, int] | None = None


class SatelliteLayout(Layout[SatelliteItem]):
    """A layout whose images `geovision.datasets.images.read_images` reads, in the sensor's numbers.

    Attributes:
        multi_label: Whether an image has several labels.
        file_bands: Names of the files' bands in order, where the files do not say them.
    """

    needs_every_class = False
    draws_from_all = True
    multi_label: ClassVar[bool] = False
    file_bands: ClassVar[tuple[str, ...] | None] = None

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """What decides the split: the names of lists or tables; `drawn` where nothing does."""
        return DRAWN

    @contextlib.contextmanager
    def opened(self, item: SatelliteItem, cutting: "Cutting") -> "Iterator[tuple[Scene, SatelliteItem]]":
        """An image as an open scene, with its labels as far as they are known by now; closed in the end.

        Raises:
            InputError: the image cannot be read, or lacks a band.
        """
        with open_scene(item.path, sensor=cutting.sensor, wanted=cutting.bands, **cutting.options) as scene:
            yield scene, item

    def files(self, items: Sequence[SatelliteItem]) -> list[Path]:
        """The images, or the bands in their folders."""
        return [path for item in items for path in (sorted(item.path.iterdir()) if item.path.is_dir() else [item.path])]

    def blocks(self, items: Sequence[SatelliteItem]) -> Mapping[int, list[SatelliteItem]]:
        """One block, with the classes mixed."""
        return {0: sorted(items, key=lambda item: text_hash(item.path.name))}


class Folders(SatelliteLayout):
    """`<class>/<image>`, or `<split>/<class>/<image>`; so come RESISC-45 and UC Merced.

    The folders of classes may lie deeper, as downloads lay them. Lists `<any name>-{train,val,test}.txt` of file names,
    which torchgeo brings for both and for EuroSAT, are heeded from there up to the root, or up to six levels above.
    Option: `lists` (what the names of the lists begin with, where several fit).
    """

    name = "folders"
    options = ("lists",)

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SatelliteItem]:
        """List the images in the folders of classes."""
        items = self._all(root, classes)
        listed = self._listed(root, classes, items, options).split_of
        if not listed:
            return items
        return [replace(item, split=listed[item.path.stem]) for item in items if item.path.stem in listed]

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """The lists, or the folders that are named after splits."""
        items = self._all(root, classes)
        names = self._listed(root, classes, items, options).names
        return names or ("folders" if any(item.split for item in items) else DRAWN)

    def _home(self, root: Path, classes: Sequence[str]) -> Path:
        named = {*classes, *SPLITS}
        return folder_below(root, lambda folder: any(e.name in named for e in entries_of(folder) if e.is_dir()))

    def _all(self, root: Path, classes: Sequence[str]) -> list[SatelliteItem]:
        items = []
        for folder, split in split_folders(self._home(root, classes)):
            for entry in (entry for entry in entries_of(folder) if entry.is_dir()):
                number = class_number(entry.name, classes, entry)
                items += [
                    _item(root, path, (number,), split) for path in entries_of(entry) if path.suffix.lower() in _ENDINGS
                ]
        return items

    def _listed(
        self, root: Path, classes: Sequence[str], items: Sequence[SatelliteItem], options: Document
    ) -> PublishedSplit:
        def read(path: Path) -> list[str]:
            return [Path(line.strip()).stem for line in _lines(path) if line.strip()]

        stems, chosen = [item.path.stem for item in items], options.get("lists")
        return find_split(self._home(root, classes), root, stems, ending=".txt", read=read, chosen=chosen)


class EuroSat(Folders):
    """EuroSAT's 13 bands in folders of classes; B8A stands last in its files. Option: `lists` (as for folders)."""

    name = "eurosat"
    file_bands = (*(f"B{n}" for n in range(1, 13)), "B8A")


class BigEarthNet(SatelliteLayout):
    """`<patch>/<patch>_B02.tif ...` with `<patch>_labels_metadata.json`; `{train,val,test}.csv` list the patches.

    The lists may be called `bigearthnet-train.csv` and so on, as torchgeo does, and lie above the patches. Options:
    `merge` (new names of labels), `drop` (labels left out), and `lists` (as for folders).
    """

    name = "bigearthnet"
    options = (*RELABELLING, "lists")
    multi_label = True

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SatelliteItem]:
        """List the patches that have a label left."""
        relabelled, listed = Relabelling(options), self._listed(root, options).split_of
        items = []
        for folder in self._patches(root):
            notes = _notes(folder)
            if listed and folder.name not in listed:
                continue
            try:
                names = [relabelled(str(name)) for name in read_json(notes)["labels"]]
            except (InputError, KeyError, TypeError):
                raise InputError(f"{printable(notes)}: is no list of labels; fetch the patch again") from None
            numbers = sorted({class_number(name, classes, notes) for name in names if name is not None})
            if numbers:
                item = _item(root, folder, tuple(numbers), listed.get(folder.name, ""))
                items.append(replace(item, labels=tuple(numbers)))
        return items

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """The lists of patches."""
        return self._listed(root, options).names or DRAWN

    def _home(self, root: Path) -> Path:
        return folder_below(root, lambda folder: any(_notes(e).is_file() for e in entries_of(folder) if e.is_dir()))

    def _patches(self, root: Path) -> list[Path]:
        return [folder for folder in entries_of(self._home(root)) if folder.is_dir() and _notes(folder).is_file()]

    def _listed(self, root: Path, options: Document) -> PublishedSplit:
        def read(path: Path) -> list[str]:
            return [row[0] for row in read_csv(path)]

        names = [folder.name for folder in self._patches(root)]
        return find_split(self._home(root), root, names, ending=".csv", read=read, chosen=options.get("lists"))


class FmowSentinel(SatelliteLayout):
    """Tables `train.csv`, `val.csv` and `test_gt.csv` with `category`, `location_id` and `image_id`."""

    name = "fmow_sentinel"
    file_bands = (*(f"B{n}" for n in range(1, 9)), "B8A", *(f"B{n}" for n in range(9, 13)))

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SatelliteItem]:
        """List the images that the tables name."""
        items = []
        for name, split in _TABLES:
            table = root / f"{name}.csv"
            if not table.is_file():
                continue
            for row in read_csv_rows(table):
                try:
                    place = f"{row['category']}_{row['location_id']}"
                    path = Path(name, row["category"], place, f"{place}_{row['image_id']}.tif")
                except KeyError as error:
                    raise InputError(
                        f"{printable(table)}: has no column {error}; expected category, location_id and image_id"
                    ) from None
                if ".." in path.parts:
                    raise InputError(
                        f"{printable(table)}: names a file outside of its folder; expected a plain category"
                    )
                number = class_number(row["category"], classes, table)
                items.append(_item(root, _existing(root / path, table), (number,), split))
        return items

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """The tables."""
        return ", ".join(f"{name}.csv" for name, _ in _TABLES if (root / f"{name}.csv").is_file()) or DRAWN


class FmowRgb(SatelliteLayout):
    """`<split>/<category>/<place>/<name>_rgb.jpg`, each with a JSON file that gives the box."""

    name = "fmow_rgb"

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SatelliteItem]:
        """List the images that have a JSON file."""
        items = []
        for name, split in _TABLES:
            for notes in sorted((root / name).glob("*/*/*_rgb.json")):
                try:
                    box = read_json(notes)["bounding_boxes"][0]
                    column, row, width, height = (int(value) for value in box["box"])
                    number = class_number(str(box["category"]), classes, notes)
                except (ValueError, KeyError, TypeError, IndexError):
                    raise InputError(f"{printable(notes)}: gives no bounding box; fetch it again") from None
                item = _item(root, _existing(notes.with_suffix(".jpg"), notes), (number,), split)
                items.append(replace(item, box=(row, column, height, width)))
        return items

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """The folders of the splits."""
        return ", ".join(name for name, _ in _TABLES if (root / name).is_dir()) or DRAWN


def _notes(folder: Path) -> Path:
    """Labels of a patch of BigEarthNet."""
    return folder / f"{folder.name}_labels_metadata.json"


def _item(root: Path, path: Path, labels: tuple[int, ...], split: str) -> SatelliteItem:
    return SatelliteItem(path, labels[0], path.relative_to(root).as_posix(), split)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{printable(path)}: cannot be read as text; expected a list of images") from None


def _existing(path: Path, listed_in: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{printable(path)}: listed in {printable(listed_in.name)}, but not there; fetch it")
    return path
