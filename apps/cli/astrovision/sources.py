"""What `astrovision classify` reads: colour images, HDF5 files of them, FITS cut-outs and sources of FITS mosaics."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apps.cli.astrovision.classify import ClassifyOptions
from apps.cli.shared.classification import joint_sha256, list_files, read_in_batches, say_unusable
from apps.cli.shared.sharding import Shard, part_of
from astrovision.catalogues import Catalogue, read_catalogue
from astrovision.classification import GalaxyClassifier
from astrovision.cutouts import Mosaic, open_mosaic
from astrovision.datasets.galaxy10 import open_hdf5, plain_dataset, read_rows
from astrovision.planes import reading
from pipelines.data.image_files import read_image
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.json_values import Entries

_IMAGES = (".jpg", ".jpeg", ".png")
_HDF5 = (".h5", ".hdf5")
_FITS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz", ".fz")
_NAMES = (
    "id",
    "objid",
    "objectid",
    "sourceid",
    "name",
    "designation",
    "number",
)  # of a catalogue's column, as are usual
_TOLERANCE = 1.01  # how much larger than the model's cut-outs an image may be that is taken for one

Batch = tuple[np.ndarray, Tensor, np.ndarray]


@dataclass
class Source:
    """Images of sources, read batch by batch.

    Attributes:
        kind: `images`, `hdf5`, `cutout` or `mosaic`.
        ids: what the user knows each source by, `(N,)` text or numbers.
        id_meaning: what they are, in one line.
        places: `ra` and `dec` in degrees (ICRS), `x` and `y` in pixels of a mosaic; those that are known.
        described: what a side-car says of the input, without its names.
        warnings: what a user should know.
        failed: images that could not be used, as far as they were read.
    """

    kind: str
    ids: Any
    id_meaning: str
    places: dict[str, np.ndarray] = field(default_factory=dict)
    described: Entries = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    failed: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self) -> Iterator[Batch]:
        """Rows `(n,)`, what the network sees of each `(n, C, size, size)` float32, and flags `(n,)` of cut-outs."""
        raise NotImplementedError

    def sha256(self) -> str:
        """SHA-256 of the input, once its batches were read."""
        raise NotImplementedError


def open_source(
    options: ClassifyOptions, classifier: GalaxyClassifier, stack: contextlib.ExitStack
) -> tuple[Source, list[Path]]:
    """Open an input.

    Args:
        options: the input, a file or folder or FITS files with commas between them, and how it is read.
        classifier: the model that the images are prepared for.
        stack: closes what is opened.

    Returns:
        The sources, and all files that they are read from.

    Raises:
        InputError: the input is absent or of no known kind, or does not go with the options or the model.
    """
    kind, files = _find(options.input)
    label, contract = printable(options.input), classifier.contract
    for name in () if kind == "fits" else ("catalogue", "hdu", "bands"):
        if getattr(options, name) is not None:
            raise InputError(f"{label}: is no FITS image, so --{name} means nothing; leave it out")
    if options.catalogue is None and any(getattr(options, name) is not None for name in ("ra", "dec", "x", "y")):
        raise InputError("--ra, --dec, --x and --y name columns of a catalogue; give it with --catalogue")
    if kind == "fits":
        return _open_fits(files, options, classifier, stack)
    if contract.stretch is not None:
        raise InputError(
            f"{label}: holds colour images, the model takes fluxes of {', '.join(contract.bands)}; give FITS"
        )
    if kind == "hdf5":
        return _Hdf5(files[0], classifier, options.shard), files
    files = part_of(files, options.shard)
    return _Images(files, classifier, say_unusable if options.skip_unreadable else None), files


def _open_fits(
    files: list[Path], options: ClassifyOptions, classifier: GalaxyClassifier, stack: contextlib.ExitStack
) -> tuple[Source, list[Path]]:
    """A FITS image that is a cut-out, or a catalogue's sources in one; and all files that they are read from."""
    label, contract = printable(options.input), classifier.contract
    if contract.stretch is None:
        raise InputError(
            f"{label}: holds fluxes, the model takes colour images ({', '.join(contract.bands)}) and has no stretch; "
            "give JPEG or PNG images, or a model with a stretch"
        )
    mosaic = stack.enter_context(open_mosaic(files, bands=options.bands, hdu=options.hdu))
    if options.catalogue is None:
        if options.shard is not None:
            raise InputError(f"--shard: {label} is one image; give sources with --catalogue")
        return _cutout(files, mosaic, classifier), files
    catalogue = read_catalogue(options.catalogue, ra=options.ra, dec=options.dec, x=options.x, y=options.y)
    source = _sources(files, mosaic, catalogue, options.catalogue, classifier, options.shard)
    return source, [*files, options.catalogue]


class _Images(Source):
    """Image files, each a source."""

    def __init__(
        self, files: Sequence[Path], classifier: GalaxyClassifier, on_failure: Callable[[str], None] | None
    ) -> None:
        super().__init__("images", np.array([printable(path.name) for path in files]), "name of the image file")
        self.files, self.classifier, self.on_failure = files, classifier, on_failure
        self.digests: list[bytes] = []

    def batches(self) -> Iterator[Batch]:
        size, on_failure = self.classifier.batch_size, self.on_failure and self._fail
        for rows, images in read_in_batches(self.files, size, self._read, on_failure):
            yield np.array(rows), torch.cat(images), np.zeros(len(rows), np.uint8)

    def sha256(self) -> str:
        return joint_sha256(self.digests)

    def _read(self, path: Path) -> Tensor:
        image, digest = read_image(path, len(self.classifier.contract.bands))
        self.digests.append(digest)
        return self.classifier.prepare(torch.from_numpy(image)[None])

    def _fail(self, reason: str) -> None:
        assert self.on_failure is not None  # noqa: S101 - else failures are raised
        self.failed += 1
        self.on_failure(reason)


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
        super().__init__("hdf5", np.array(self.rows), "row in the HDF5 file, from 0", places)
        self.path, self.classifier = path, classifier

    def batches(self) -> Iterator[Batch]:
        size = self.classifier.batch_size
        images = read_rows(self.path, self.rows)
        for first in range(0, len(self), size):
            part = np.stack(list(itertools.islice(images, size))).transpose(0, 3, 1, 2)
            rows = np.arange(first, first + len(part))
            yield (
                rows,
                self.classifier.prepare(torch.from_numpy(np.ascontiguousarray(part))),
                np.zeros_like(rows, np.uint8),
            )

    def sha256(self) -> str:
        return file_sha256(self.path)


class _Fits(Source):
    """Cut-outs of an open mosaic around positions."""

    mosaic: Mosaic

    def cut(
        self, mosaic: Mosaic, positions: np.ndarray, side: int, scale: float | None, classifier: GalaxyClassifier
    ) -> None:
        """Say what is cut: windows of `side` pixels of `scale`, in the model's bands."""
        contract, stretch = classifier.contract, classifier.contract.stretch
        missing = [band for band in contract.bands if band not in mosaic.bands]
        if missing:
            raise InputError(
                f"{mosaic.label}: has bands {', '.join(mosaic.bands)}, the model takes {', '.join(contract.bands)}; "
                f"name the {len(mosaic.bands)} of the input in their order with --bands"
            )
        assert stretch is not None  # noqa: S101 - asked for before the file was opened
        try:
            stretch.apply(np.zeros((1, len(contract.bands), 1, 1), np.float32))
        except ValueError as error:
            raise InputError(f"the model's card cannot be used ({error}); choose another model") from None
        self.mosaic, self.positions, self.side, self.scale = mosaic, positions, side, scale
        self.classifier, self.order = classifier, [mosaic.bands.index(band) for band in contract.bands]
        self.described |= {
            "bands": list(mosaic.bands),
            "shape": list(mosaic.shape),
            "unit": mosaic.unit,
            "pixel_scale_arcsec": mosaic.pixel_scale_arcsec,
            "cutout": side,
            "cutout_pixel_scale_arcsec": scale or mosaic.pixel_scale_arcsec,
        }

    def batches(self) -> Iterator[Batch]:
        stretch: Any = self.classifier.contract.stretch
        size = self.classifier.batch_size
        for rows, cutouts in self.mosaic.batches(self.positions, self.side, size, pixel_scale_arcsec=self.scale):
            images = torch.from_numpy(stretch.apply(cutouts.values[:, self.order]))
            yield rows, self.classifier.prepare(images), cutouts.flags

    def sha256(self) -> str:
        return self.mosaic.sha256()


def _cutout(files: Sequence[Path], mosaic: Mosaic, classifier: GalaxyClassifier) -> Source:
    """A FITS image that is itself a cut-out."""
    contract = classifier.contract
    largest = contract.cutout or round(contract.size / contract.crop)
    noted, scale, ratio = [], None, 1.0
    if contract.pixel_scale_arcsec is None:
        noted.append("the model's card fixes no pixel scale; the image's own was taken")
    elif mosaic.pixel_scale_arcsec is None:
        noted.append(f"the input has no WCS; it was taken to have the model's {contract.pixel_scale_arcsec:g} arcsec")
    else:
        scale, ratio = contract.pixel_scale_arcsec, mosaic.pixel_scale_arcsec / contract.pixel_scale_arcsec
    height, width = mosaic.shape
    if max(height, width) * ratio > largest * _TOLERANCE:
        raise InputError(
            f"{mosaic.label}: has {height} x {width} pixels, more than one cut-out of {largest} of the model's; give "
            "the sources with --catalogue"
        )
    centre = np.array([[(width - 1) / 2, (height - 1) / 2]])
    places = _on_sky(files, mosaic, centre)
    source = _Fits("cutout", np.array([printable(files[0].name)]), "name of the file", places, {}, noted)
    # where no side is fixed, the image is resized as a colour image is
    source.cut(mosaic, centre, contract.cutout or max(height, width), scale, classifier)
    return source


def _sources(
    files: Sequence[Path],
    mosaic: Mosaic,
    catalogue: Catalogue,
    path: Path,
    classifier: GalaxyClassifier,
    shard: Shard | None,
) -> Source:
    """A catalogue's sources in a mosaic."""
    contract, noted = classifier.contract, []
    if not len(catalogue):
        raise InputError(f"{catalogue.label}: has no row; expected one for each source")
    if contract.pixel_scale_arcsec is None:
        noted.append("the model's card fixes no pixel scale; cut-outs have that of the mosaic")
    elif mosaic.pixel_scale_arcsec is None:
        raise InputError(
            f"{mosaic.label}: has no celestial WCS, so its pixel scale is unknown, the model takes cut-outs of "
            f"{contract.pixel_scale_arcsec:g} arcsec a pixel; give the mosaic a WCS"
        )
    if catalogue.x is not None and catalogue.y is not None:
        positions = np.stack([catalogue.x, catalogue.y], -1)
        places = _on_sky(files, mosaic, positions)
    else:
        positions = mosaic.pixels(catalogue.ra_deg, catalogue.dec_deg)
        places = {"ra": np.asarray(catalogue.ra_deg), "dec": np.asarray(catalogue.dec_deg)}
    places |= {"x": positions[:, 0], "y": positions[:, 1]}
    ids, meaning = _identifiers(catalogue.table)
    if shard is not None:
        rows = shard.rows(len(catalogue))
        part = slice(rows.start, rows.stop)
        ids, positions = ids[part], positions[part]
        places = {name: values[part] for name, values in places.items()}
    source = _Fits("mosaic", ids, meaning, places, {"catalogue_sha256": file_sha256(path)}, noted)
    side = contract.cutout or round(contract.size / contract.crop)
    source.cut(mosaic, positions, side, contract.pixel_scale_arcsec, classifier)
    return source


def _find(text: str) -> tuple[str, list[Path]]:
    """Kind of an input and its files."""
    paths = [Path(text)]
    if not paths[0].exists() and "," in text:
        paths = [Path(part.strip()) for part in text.split(",") if part.strip()]
    for path in paths:
        if not path.exists():
            raise InputError(f"{printable(path)}: no such file or folder; expected JPEG, PNG, HDF5 or FITS")
    if len(paths) == 1 and paths[0].is_dir():
        paths = list_files(paths[0])
        kinds: Mapping[str, list[Path]] = {
            "images": [path for path in paths if path.suffix.lower() in _IMAGES],
            "fits": [path for path in paths if path.name.lower().endswith(_FITS)],
        }
        there = [name for name, files in kinds.items() if files]
        if len(there) != 1:
            content = "both images and FITS files" if there else "neither JPEG or PNG images nor FITS files"
            raise InputError(
                f"{printable(text)}: holds {content}, expected one of both; give another folder, or a file"
            )
        return there[0], kinds[there[0]]
    if all(path.is_file() and path.name.lower().endswith(_FITS) for path in paths):
        return "fits", paths
    if len(paths) > 1:
        raise InputError(f"{printable(text)}: names several inputs; expected FITS files alone, one for each band")
    for kind, endings in (("images", _IMAGES), ("hdf5", _HDF5)):
        if paths[0].suffix.lower() in endings:
            return kind, paths
    known = ", ".join((*_IMAGES, *_HDF5, *_FITS))
    raise InputError(f"{printable(text)}: ends in {printable(paths[0].suffix) or 'nothing'}; expected {known}")


def _identifiers(table: Any) -> tuple[Any, str]:
    """What a catalogue knows its sources by: a column's values, or numbers of rows from 1, and what they are."""
    described, main, named = [], [], []
    for name in table.colnames:
        column = table[name]
        if column.ndim != 1 or getattr(column, "dtype", np.dtype("V")).kind not in "iuU":
            continue
        words = str((column.info.meta or {}).get("ucd") or "").lower().split(";")
        if words[0] == "meta.id":
            described.append(name)
            if "meta.main" in words:
                main.append(name)
        if name.lower().replace("_", "") in _NAMES:
            named.append(name)
    for names in (main, described if len(described) == 1 else [], named):
        if names:
            values = np.ma.asarray(table[names[0]])
            values = values.astype(values.dtype.newbyteorder("="))  # FITS tables are big-endian, which Parquet has not
            return values, f"{printable(names[0])} of the catalogue"
    return np.arange(1, len(table) + 1), "row of the catalogue, from 1"


def _on_sky(files: Sequence[Path], mosaic: Mosaic, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Right ascension and declination in degrees (ICRS) of pixels; none where there is no WCS."""
    if mosaic.wcs is None:
        return {}
    known = np.isfinite(positions).all(1)
    coordinates = np.full((2, len(positions)), np.nan)
    if known.any():
        with reading(files[0]):
            sky = mosaic.wcs.pixel_to_world(*positions[known].T).icrs
            coordinates[:, known] = sky.ra.deg, sky.dec.deg
    return {"ra": coordinates[0], "dec": coordinates[1]}
