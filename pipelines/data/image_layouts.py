"""Layouts of data sets of labelled images, by name, and those that belong to no domain: tables and folders."""

import csv
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from pipelines.data.image_files import open_image
from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable
from shared_backbones.labelled_files import (
    IMAGE_ENDINGS,
    RELABELLING,
    class_number,
    entries_of,
    images_in,
    labelled,
    split_folders,
)
from shared_backbones.labelled_images import ImageSource, Item, Layout

LAYOUTS = {
    "galaxy10": "astrovision.datasets.galaxy10:Galaxy10",
    "table": "pipelines.data.image_layouts:Table",
    "folders": "pipelines.data.image_layouts:Folders",
    "mosaic": "astrovision.datasets.mosaics:MosaicSources",
    "fits": "astrovision.datasets.fits_cutouts:FitsCutouts",
    "medmnist": "medvision.datasets.medmnist:MedMnist",
    "phantoms": "astrovision.datasets.phantoms:Phantoms",
}
"""Layouts of images of 8 bits and of mosaics; a module is imported when its layout is asked for."""
SATELLITE_LAYOUTS = {
    "folders": "geovision.datasets.layouts:Folders",
    "eurosat": "geovision.datasets.layouts:EuroSat",
    "bigearthnet": "geovision.datasets.layouts:BigEarthNet",
    "fmow_sentinel": "geovision.datasets.layouts:FmowSentinel",
    "fmow_rgb": "geovision.datasets.layouts:FmowRgb",
    "torchgeo:NAME": "geovision.datasets.torchgeo:TorchGeoImages",
}
"""Layouts of satellite images, which keep their sensor's numbers; NAME stands for a class of `torchgeo.datasets`."""
MASK_LAYOUTS = {"torchgeo:NAME": "geovision.datasets.torchgeo:TorchGeoMasks"}
"""Layouts of satellite images in which each pixel has a label."""
MASKED_LAYOUTS = {
    "pairs": "medvision.datasets.masked_images:Pairs",
    "kvasir_seg": "medvision.datasets.masked_images:KvasirSeg",
    "cvc_clinicdb": "medvision.datasets.masked_images:CvcClinicDb",
    "polyps": "medvision.datasets.masked_images:Polyps",
}
"""Layouts of medical images with a mask of what is to be found."""


def find_layout(name: str, layouts: Mapping[str, str] = LAYOUTS) -> Any:
    """The layout of a name.

    Args:
        name: Name of the layout; those of a library have the name of a class after a colon.
        layouts: `LAYOUTS`, `SATELLITE_LAYOUTS`, `MASK_LAYOUTS` or `MASKED_LAYOUTS`.

    Raises:
        InputError: no layout has that name.
    """
    library, _, member = name.partition(":")
    known = f"{library}:NAME" if member else name
    if known not in layouts or member == "NAME":
        raise InputError(f"data.layout {name!r} is unknown; expected one of: {', '.join(layouts)}")
    module, _, attribute = layouts[known].partition(":")
    return getattr(importlib.import_module(module), attribute)(*([member] if member else []))


class ImageFiles(Layout[Item]):
    """A layout in which each image is a JPEG, PNG or TIFF file."""

    def read(self, source: ImageSource[Item], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Open the files."""
        for number, item in enumerate(source.items):
            yield number, open_image(item.path, source.bands, source.repeats_grey)


class Table(ImageFiles):
    """A CSV with a row for each image: its key, its class and maybe its split.

    The key is the file's name without ending, or its path below the folder of images, such as `b/7.png`.

    Options: `table` (labels.csv), `images` (images), the columns `key` (id), `label` (label: a class's name or number)
    and `split` (none), `merge` (new names of labels), `drop` (labels left out) and `test_rule`:
    `{hash: md5, modulo: 5, equals: [1]}` puts an image into the test split by the hash of its key.
    """

    name = "table"
    options = ("table", "images", "key", "label", "split", *RELABELLING, "test_rule")

    def find(self, root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
        """List the rows, each with its file."""
        table, folder = root / str(options.get("table", "labels.csv")), root / str(options.get("images", "images"))
        defaults = {"key": "id", "label": "label", "split": ""}
        key, label, split = (str(options.get(name, default)) for name, default in defaults.items())
        files = images_in(folder)
        named = (
            (Item(files.get(row[key]) or _below(folder, row[key]), -1, row[key], row[split] if split else ""), row)
            for row in _rows(table, [name for name in (key, label, split) if name])
        )
        items, seen = labelled(((item, row[label]) for item, row in named), table, classes, options), set()
        for item in items:
            if item.path == folder:
                raise InputError(
                    f"{printable(table)}: names {printable(item.key)}, but {printable(folder)} has no such image; "
                    "fetch it, or leave it out of the table"
                )
            if item.path in seen:
                raise InputError(f"{printable(table)}: names {printable(item.path.name)} twice; leave one of them out")
            seen.add(item.path)
        return items


class Folders(ImageFiles):
    """`<class>/<image>`, or `<split>/<class>/<image>`."""

    name = "folders"

    def find(self, root: Path, classes: Sequence[str], options: Mapping[str, Any]) -> list[Item]:
        """List the images in the folders of classes."""
        items = []
        for folder, split in split_folders(root):
            for entry in (entry for entry in entries_of(folder) if entry.is_dir()):
                number, paths = class_number(entry.name, classes, entry), images_in(entry).values()
                items += [Item(path, number, path.relative_to(root).as_posix(), split) for path in paths]
        return items


def _rows(table: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        check_regular(table)
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


def _below(folder: Path, name: str) -> Path:
    """The image with a path below a folder; the folder itself where there is none."""
    path = PurePath(name)
    inside = not path.is_absolute() and ".." not in path.parts and path.suffix.lower() in IMAGE_ENDINGS
    return folder / path if inside and (folder / path).is_file() else folder
