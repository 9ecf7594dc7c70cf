"""Data sets of torchgeo as layouts: images, labels, bands and splits are what torchgeo's own classes say they are.

A sample is written as a GeoTIFF into a folder of its own, in which it is read as any other scene is, and which is gone
once it has been read.
"""

import contextlib
import functools
import hashlib
import json
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from geovision.datasets.layouts import SatelliteItem, SatelliteLayout
from geovision.datasets.patches import Cutting, PatchSource, packed
from geovision.datasets.splits import DRAWN
from geovision.datasets.torchgeo_classes import (
    EXTRA,
    Target,
    TorchGeo,
    fetches,
    find_class,
    has_splits,
    options_of,
    reading_alone,
    reason_against,
)
from geovision.datasets.torchgeo_samples import Sample, band_names, folder_labels, image_of, mask_of, write_bands
from geovision.scene import Scene
from geovision.scenes import open_scene
from shared_backbones.arguments import plain
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_images import text_hash
from shared_backbones.work_folders import work_folder

_SPLITS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}  # by torchgeo's names for them
_SHOWN = 6  # names that a message lists


@dataclass(frozen=True, kw_only=True)
class SampleItem(SatelliteItem):
    """A sample of a data set of torchgeo; its label is known once it has been read, or where folders say it.

    Attributes:
        part: Torchgeo's name of the split; empty where the class has none.
        number: Place of the sample in that split.
        state: Digest of the data set's files, by their names, sizes and times.
    """

    part: str
    number: int
    state: str

    @property
    def facts(self) -> tuple[object, ...]:
        """What is known of the sample, with the state of the files."""
        return *super().facts, self.part, self.state


class _TorchGeo(SatelliteLayout):
    """A data set of torchgeo.

    Args:
        member: Name of a class of `torchgeo.datasets`.

    Raises:
        InputError: torchgeo is not installed, has no such class, or the class is none that can be read here.
    """

    target: ClassVar[Target]

    def __init__(self, member: str) -> None:
        self.name = f"torchgeo:{member}"
        self.member, dataset = member, find_class(member)
        reason = reason_against(dataset, self.target)
        if reason is not None and reason_against(dataset, "image") is not None:
            raise InputError(f"data.layout {self.name}: {reason}")
        self.reason = reason
        self.options = (*(("splits",) if has_splits(dataset) else ()), *options_of(dataset))
        self._arguments = "{}"
        self._numbers: dict[str, tuple[int, ...]] = {}

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SatelliteItem]:
        """Number the samples of each split; one of each is read, to see what it has."""
        if classes and self.reason is not None:
            raise InputError(f"data.layout {self.name}: {self.reason}")
        self._arguments = _arguments(options, self.name)
        parts, items, state = self._parts(root, options), [], _state(root)
        for split, part in parts.items():
            dataset = self._open(root, part)
            self._numbers[part] = self._class_numbers(dataset, classes)
            items += self._items(root, dataset, split, part, state, bool(classes), "splits" in options)
        return items

    def split_origin(self, root: Path, classes: Sequence[str], options: Document) -> str:
        """The names of torchgeo's splits."""
        parts = dict.fromkeys(item.part for item in self.find(root, classes, options) if isinstance(item, SampleItem))
        return f"{self.name}, {', '.join(parts)}" if any(parts) else DRAWN

    def files(self, items: Sequence[SatelliteItem]) -> list[Path]:
        """None by name: which files a sample is made of is torchgeo's own matter; each sample has their state."""
        return []

    def blocks(self, items: Sequence[SatelliteItem]) -> Mapping[int, list[SatelliteItem]]:
        """One block, with the classes mixed."""
        return {0: sorted(items, key=lambda item: text_hash(item.key))}

    @contextlib.contextmanager
    def as_files(self, item: SatelliteItem, cutting: Cutting) -> Iterator[tuple[Path, Path | None, SatelliteItem]]:
        """A sample as a GeoTIFF, one of its mask if it has one, and the item with its labels; the files go in the end.

        Raises:
            InputError: the sample cannot be read, or the names of its bands are not known.
        """
        name = f"{self.name} {item.key}"
        with work_folder() as folder:
            path, mask = folder / "image.tif", folder / "mask.tif"
            with _in_words(name):
                sample = self._sample(item)
                image = image_of(sample)
                write_bands(path, packed(image), band_names(self._open(item.path, _part(item)), image, cutting))
                if self.target == "mask":
                    write_bands(mask, mask_of(sample, image.shape[1:])[None], ())
                labelled = self._labelled(item, sample)
            try:
                yield path, mask if mask.exists() else None, labelled
            except InputError as error:  # which names the file that nobody else will see
                raise InputError(str(error).replace(printable(path), name)) from None

    @contextlib.contextmanager
    def opened(self, item: SatelliteItem, cutting: Cutting) -> Iterator[tuple[Scene, SatelliteItem]]:
        """A sample as an open scene, with its labels."""
        with (
            self.as_files(item, cutting) as (path, _, labelled),
            open_scene(path, sensor=cutting.sensor, wanted=cutting.bands, **cutting.options) as scene,
        ):
            yield scene, labelled

    def _parts(self, root: Path, options: Document) -> dict[str, str]:
        """Torchgeo's names of the splits by ours: those that the recipe names, or those that the class has."""
        if "splits" not in self.options:
            return {"": ""}
        given = options.get("splits")
        if given is not None:
            return self._given_parts(root, given)
        parts = {split: next((name for name in names if self._has(root, name)), "") for split, names in _SPLITS.items()}
        known = {split: name for split, name in parts.items() if name}
        if not known:
            raise InputError(
                f"data.layout {self.name}: has no split train, val or test; name its own with data.options.splits, "
                "such as {train: NAME}"
            )
        return known

    def _given_parts(self, root: Path, given: TorchGeo) -> dict[str, str]:
        if not isinstance(given, Mapping) or not given or not {*given} <= {*_SPLITS}:
            raise InputError(
                f"data.options.splits is {given!r}; expected torchgeo's names by train, validation and test, such as "
                "{train: train, test: val}"
            )
        for name in map(str, given.values()):
            if not self._has(root, name):
                there = [known for names in _SPLITS.values() for known in names if self._has(root, known)]
                has = f"it has {', '.join(there)}" if there else "see the class in torchgeo's documentation"
                raise InputError(f"data.options.splits: {self.name} has no split {printable(name)}; {has}")
        return {split: str(given[split]) for split in _SPLITS if split in given}

    def _has(self, root: Path, part: str) -> bool:
        """Whether the class has a split: the line of torchgeo that refuses one names it."""
        try:
            self._open(root, part)
        except _NoSplit:
            return False
        return True

    def _open(self, root: Path, part: str) -> TorchGeo:
        try:
            return _opened(self.member, str(root), part, self._arguments)
        except _NoSplit:
            raise
        except InputError as error:
            raise InputError(f"{printable(root)}: {self.name} {part}: {error}") from None

    def _sample(self, item: SatelliteItem) -> Sample:
        dataset = self._open(item.path, _part(item))
        return dataset[item.number if isinstance(item, SampleItem) else 0]

    def _items(
        self, root: Path, dataset: TorchGeo, split: str, part: str, state: str, labelled: bool, asked: bool
    ) -> list[SatelliteItem]:
        """The samples of one split; none where they have no labels and nobody asked for the split."""
        count = len(dataset)
        if not count:
            return []
        first = SampleItem(root, -1, f"{part or 'sample'}/0", split, part=part, number=0, state=state)
        with _in_words(f"{self.name} {first.key}"):
            sample = self._sample(first)
            image_of(sample)
        if labelled and self.target not in sample:
            if asked or not part:
                raise InputError(
                    f"{self.name} {first.key}: has no {self.target}; leave the split out of data.options.splits"
                )
            return []
        with _in_words(f"{self.name} {first.key}"):
            seen = self._labelled(first, sample) if labelled else first
        known = [self._numbers[part][number] for number in folder_labels(dataset, count)] if labelled else []
        labels = known if known and known[0] == seen.label else [-1] * count
        several = seen.labels is not None
        return [
            replace(first, key=f"{part or 'sample'}/{n}", number=n, label=labels[n], labels=() if several else None)
            for n in range(count)
        ]

    def _class_numbers(self, dataset: TorchGeo, classes: Sequence[str]) -> tuple[int, ...]:
        """The recipe's number of each class of torchgeo: by name where the recipe has all names, else by number."""
        names = getattr(dataset, "classes", None)
        if self.target != "label" or not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
            return tuple(range(len(classes)))
        places = {_simple(name): number for number, name in enumerate(classes)}
        if {_simple(name) for name in names} <= {*places}:
            return tuple(places[_simple(name)] for name in names)
        if len(names) != len(classes) and classes:
            shown = ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
            raise InputError(
                f"{self.name}: has {len(names)} classes ({shown}), the recipe {len(classes)}; give card.classes those"
            )
        return tuple(range(len(classes)))

    def _labelled(self, item: SatelliteItem, sample: Sample) -> SatelliteItem:
        """An item with the labels of its sample.

        Raises:
            ValueError: they are no classes of the recipe.
        """
        given = self._numbers.get(_part(item), ())
        if self.target != "label" or not given or item.label >= 0:
            return item
        values = np.atleast_1d(np.asarray(sample["label"]))
        whole = values.round().astype(int)
        if values.ndim != 1 or not np.array_equal(whole, values):
            raise ValueError(f"its label is {values.dtype} of shape {values.shape}; expected the number of a class")
        count = len(given)
        if len(whole) > 1:
            if len(whole) != count or not np.isin(whole, (0, 1)).all():
                raise ValueError(f"has {len(whole)} numbers as labels; expected 0 or 1 for each of {count} classes")
            numbers = tuple(sorted(given[place] for place in np.flatnonzero(whole)))
            return replace(item, label=numbers[0] if numbers else -1, labels=numbers)
        if not 0 <= whole[0] < count:
            raise ValueError(f"its class is {whole[0]}; the recipe has {count}: add them to card.classes")
        return replace(item, label=given[whole[0]])


class TorchGeoImages(_TorchGeo):
    """A data set of torchgeo whose samples hold an `image` and a `label`, one class or several.

    Options: `splits` (torchgeo's names by train, validation and test; by default those that the class has), and the
    arguments of the class, such as `bands`.
    """

    target = "label"


class TorchGeoMasks(_TorchGeo):
    """A data set of torchgeo whose samples hold an `image` and a `mask`.

    Options: `splits` and the arguments of the class, such as `bands`, as for `TorchGeoImages`.
    """

    target = "mask"

    @contextlib.contextmanager
    def whole(self, item: SatelliteItem, split: str, cutting: Cutting) -> Iterator[PatchSource]:
        """A sample as a scene with a label raster, all of it of one split; its files go in the end."""
        with self.as_files(item, cutting) as (path, mask, _):
            with open_scene(path, sensor=cutting.sensor, wanted=cutting.bands, **cutting.options) as scene:
                region = (0, 0, *scene.shape)
            yield PatchSource(path, mask, split, (region,))


class _NoSplit(InputError):
    """A class refuses a split."""


@functools.lru_cache(maxsize=8)
def _opened(member: str, root: str, part: str, arguments: str) -> TorchGeo:
    """A data set, opened where it lies: nothing is fetched, unpacked or checked.

    Raises:
        InputError: its files are not there, or it refuses the arguments.
    """
    dataset, errors = find_class(member), require("torchgeo.datasets", EXTRA)
    given = {"root": root, **({"split": part} if part else {}), **json.loads(arguments)}
    try:
        with reading_alone(dataset):
            return dataset(**given)
    except InputError:
        raise
    except errors.DatasetNotFoundError:
        how = f", fetch it with torchgeo.datasets.{member}(root, download=True)" if fetches(dataset) else ""
        some = ", or name the splits that are there with data.options.splits" if part else ""
        raise InputError(f"torchgeo finds no such data set there; give the folder that holds it{how}{some}") from None
    except Exception as error:  # each class refuses in its own way
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        refused = isinstance(error, AssertionError | KeyError | ValueError)
        if part and refused and "split" in line:
            raise _NoSplit(f"has no split {printable(part)}; name others with data.options.splits") from None
        raise InputError(
            f"torchgeo cannot open it ({_reason(error, line)}); look at its files, or at data.options"
        ) from None


def _arguments(options: Document, name: str) -> str:
    """The arguments of a class as JSON, which stands for them.

    Raises:
        InputError: one is no plain number or name.
    """
    given = {key: value for key, value in options.items() if key != "splits"}
    for key, value in given.items():
        if not plain(value):
            raise InputError(f"data.options.{key} of {name} is {value!r}; expected plain numbers and names")
    return json.dumps(given, sort_keys=True)


def _part(item: SatelliteItem) -> str:
    return item.part if isinstance(item, SampleItem) else ""


def _state(root: Path) -> str:
    """Digest of all files below a folder, by their names, sizes and times; hidden ones do not count."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("[!.]*") if path.is_file()):
        about = path.stat()
        digest.update(f"{path.relative_to(root)}:{about.st_size}:{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Say of which sample something is wrong, whatever torchgeo raises of it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        raise InputError(f"{name}: {_reason(error)}") from None


def _reason(error: Exception, line: str = "") -> str:
    words = " ".join(str(error).split()) or f"{type(error).__name__} at {line}"
    return printable(words[:200])


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
