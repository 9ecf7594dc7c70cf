"""What `astrovision classify` reads: colour images, HDF5 files of them, and FITS images (`sky_sources`)."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apps.cli.astrovision.classify import ClassifyOptions
from apps.cli.shared.classification import joint_sha256, list_files, read_in_batches, say_unusable
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import is_ours
from apps.cli.shared.sharding import Shard, part_of
from astrovision.catalogues import Column
from astrovision.classification import GalaxyClassifier
from astrovision.datasets.galaxy10 import open_hdf5, plain_dataset, read_rows
from astrovision.datasets.objects import FITS, is_fits
from astrovision.pictures import SkyView
from astrovision.planes import reading
from pipelines.data.image_files import read_image
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.json_values import Entries

_IMAGES = (".jpg", ".jpeg", ".png")
_HDF5 = (".h5", ".hdf5")
_FITS_OPTIONS = ("catalogue", "hdu", "bands", "parity", "keep_columns")  # which mean nothing to other inputs


class Batch(NamedTuple):
    """Sources that are read together.

    Attributes:
        rows: `(n,)` numbers of the sources, from 0.
        images: `(n, C, size, size)` float32, what the network sees of each.
        flags: `(n,)` uint8, bits of `astrovision.cutouts.FLAGS`.
        valid_share: `(n,)` share of the pixels that the network sees which have a value.
    """

    rows: np.ndarray
    images: Tensor
    flags: np.ndarray
    valid_share: np.ndarray


@dataclass
class Source:
    """Images of sources, read batch by batch.

    Attributes:
        kind: `images`, `hdf5`, `cutout`, `cutouts` or `mosaic`.
        ids: what the user knows each source by, `(N,)` text or numbers.
        id_meaning: what they are, in one line.
        places: `ra` and `dec` in degrees (ICRS), `x` and `y` in pixels of a mosaic; those that are known.
        described: what a side-car says of the input, without its names.
        warnings: what a user should know.
        failed: images that could not be used, as far as they were read.
        numbers: `(N,)` number of each source in the whole input, from 1; by default 1, 2, ...
        kept: columns of a catalogue that are kept in the table, `(N,)` values each.
        inputs: number of sources of all shards together; by default those that there are.
    """

    kind: str
    ids: np.ndarray
    id_meaning: str
    places: dict[str, np.ndarray] = field(default_factory=dict)
    described: Entries = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: int = 0
    numbers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    kept: list[Column] = field(default_factory=list)
    inputs: int = 0

    def __post_init__(self) -> None:
        if not len(self.numbers):
            self.numbers = np.arange(1, len(self.ids) + 1)
        self.inputs = self.inputs or len(self.ids)

    @property
    def from_fits(self) -> bool:
        """Whether pixels may have no value."""
        return self.kind in ("cutout", "cutouts", "mosaic")

    def view(self, row: int) -> SkyView:
        """How a source's image lies on the sky, for pictures of it."""
        return SkyView()

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[Batch]:
        """The sources, batch by batch."""
        raise NotImplementedError

    def sha256(self) -> str:
        """SHA-256 of the input, once its batches were read."""
        raise NotImplementedError

    def facts(self) -> Entries:
        """What the side-car of a shard says of its sources, so that the whole one can be made of all."""
        return {}


def open_source(
    options: ClassifyOptions, classifier: GalaxyClassifier, stack: contextlib.ExitStack, journal: Journal
) -> tuple[Source, list[Path]]:
    """Open an input.

    Args:
        options: the input, a file or folder or FITS files with commas between them, and how it is read.
        classifier: the model that the images are prepared for.
        stack: closes what is opened.
        journal: notes which file is read.

    Returns:
        The sources, and all files that they are read from.

    Raises:
        InputError: the input is absent or of no known kind, or does not go with the options or the model.
    """
    kind, files = find_input(options.input)
    label, contract = printable(options.input), classifier.contract
    for name in () if kind == "fits" else _FITS_OPTIONS:
        if getattr(options, name) is not None:
            raise InputError(f"{label}: is no FITS image, so --{name.replace('_', '-')} means nothing; leave it out")
    if options.centre and kind != "fits":
        raise InputError(f"{label}: is no FITS image, so --centre means nothing; leave it out")
    if options.catalogue is None:
        if any(getattr(options, name) is not None for name in ("ra", "dec", "x", "y")):
            raise InputError("--ra, --dec, --x and --y name columns of a catalogue; give it with --catalogue")
        if options.keep_columns is not None:
            raise InputError("--keep-columns names columns of a catalogue; give it with --catalogue")
    if kind == "fits":
        from apps.cli.astrovision.sky_sources import open_fits_source

        return open_fits_source(files, options, classifier, stack, journal)
    if not contract.takes_colours:
        raise InputError(
            f"{label}: holds colour images, the model takes fluxes of {', '.join(contract.bands)}; give FITS"
        )
    if kind == "hdf5":
        return _Hdf5(files[0], classifier, options.shard), files
    return _Images(files, classifier, options, journal), files


class _Images(Source):
    """Image files, each a source."""

    def __init__(
        self,
        files: Sequence[Path],
        classifier: GalaxyClassifier,
        options: ClassifyOptions,
        journal: Journal,
    ) -> None:
        numbers = part_of(range(len(files)), options.shard)
        self.files = [files[number] for number in numbers]
        times = Counter(path.stem for path in files)  # of two files that differ in their endings, both keep these
        ids = np.array([printable(path.stem if times[path.stem] == 1 else path.name) for path in self.files])
        super().__init__(
            "images", ids, "name of the image file without its ending", numbers=np.array(numbers) + 1, inputs=len(files)
        )
        self.classifier, self.skip_unreadable, self.journal = classifier, options.skip_unreadable, journal
        self.digests: list[bytes] = []

    def batches(self) -> Iterator[Batch]:
        size, read = self.classifier.batch_size, self.journal.noting(self._read)
        for rows, images in read_in_batches(self.files, size, read, self._fail, skip_unreadable=self.skip_unreadable):
            yield Batch(np.array(rows), torch.cat(images), np.zeros(len(rows), np.uint8), np.ones(len(rows)))

    def sha256(self) -> str:
        return joint_sha256(self.digests)

    def facts(self) -> Entries:
        return {"digests": [digest.hex() for digest in self.digests]}

    def _read(self, path: Path) -> Tensor:
        image, digest = read_image(path, len(self.classifier.contract.bands))
        self.digests.append(digest)
        return self.classifier.prepare(torch.from_numpy(image)[None])

    def _fail(self, reason: str) -> None:
        self.failed += 1
        say_unusable(reason)


class _Hdf5(Source):
    """The images of an HDF5 file."""

    def __init__(self, path: Path, classifier: GalaxyClassifier, shard: Shard | None) -> None:
        with open_hdf5(path) as file:
            count = len(file["images"])
            places = {}
            if all(name in file for name in ("ra", "dec")):
                for name in ("ra", "dec"):
                    values = plain_dataset(file, name, path)
                    if values.shape != (count,) or values.dtype.kind not in "fiu":
                        raise InputError(
                            f"{printable(path)}: {name} is {values.shape} {values.dtype}, expected {count} numbers, "
                            "one for each image; fix the file, or leave ra and dec out of it"
                        )
                    with reading(path):
                        places[name] = values[()].astype(np.float64)
        if not count:
            raise InputError(f"{printable(path)}: contains no image; expected one or more")
        self.rows = range(count) if shard is None else shard.rows(count)
        places = {name: values[self.rows.start : self.rows.stop] for name, values in places.items()}
        rows = np.array(self.rows)
        super().__init__("hdf5", rows, "row in the HDF5 file, from 0", places, numbers=rows + 1, inputs=count)
        self.path, self.classifier = path, classifier

    def batches(self) -> Iterator[Batch]:
        size = self.classifier.batch_size
        images = read_rows(self.path, self.rows)
        for first in range(0, len(self), size):
            part = np.stack(list(itertools.islice(images, size))).transpose(0, 3, 1, 2)
            rows = np.arange(first, first + len(part))
            seen = self.classifier.prepare(torch.from_numpy(np.ascontiguousarray(part)))
            yield Batch(rows, seen, np.zeros(len(rows), np.uint8), np.ones(len(rows)))

    def sha256(self) -> str:
        return file_sha256(self.path)


def find_input(text: str) -> tuple[str, list[Path]]:
    """Kind of an input and its files.

    Raises:
        InputError: it is absent or of no known kind.
    """
    paths = [Path(text)]
    if not paths[0].exists() and "," in text:
        paths = [Path(part.strip()) for part in text.split(",") if part.strip()]
    for path in paths:
        if not path.exists():
            raise InputError(f"{printable(path)}: no such file or folder; expected JPEG, PNG, HDF5 or FITS")
    if len(paths) == 1 and paths[0].is_dir():
        kinds = _by_kind(paths[0])
        there = [name for name, files in kinds.items() if files]
        if len(there) != 1:
            content = "both images and FITS files" if there else "neither JPEG or PNG images nor FITS files"
            raise InputError(
                f"{printable(text)}: holds {content}, expected one of both; give another folder, or a file"
            )
        return there[0], kinds[there[0]]
    if all(path.is_file() and is_fits(path) for path in paths):
        return "fits", paths
    if len(paths) > 1:
        raise InputError(f"{printable(text)}: names several inputs; expected FITS files alone, one for each band")
    for kind, endings in (("images", _IMAGES), ("hdf5", _HDF5)):
        if paths[0].suffix.lower() in endings:
            return kind, paths
    known = ", ".join((*_IMAGES, *_HDF5, *FITS))
    raise InputError(f"{printable(text)}: ends in {printable(paths[0].suffix) or 'nothing'}; expected {known}")


def _by_kind(folder: Path) -> dict[str, list[Path]]:
    """Images and FITS files of a folder, without tables of ours; where it has none, FITS files of the folders in it."""
    paths = list_files(folder)
    images, fits = (
        [path for path in paths if path.suffix.lower() in _IMAGES],
        [path for path in paths if is_fits(path) and not is_ours(path)],
    )
    if not images and not fits:
        within = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        fits = [path for inner in within for path in list_files(inner) if is_fits(path)]
    return {"images": images, "fits": fits}
