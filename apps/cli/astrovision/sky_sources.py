"""FITS images that `astrovision classify` reads: sources of a mosaic, one cut-out, or a folder of them."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apps.cli.astrovision.catalogue_columns import identifiers, is_plain, kept_columns
from apps.cli.astrovision.classify import ClassifyOptions
from apps.cli.astrovision.sources import Batch, Source
from apps.cli.shared.classification import joint_sha256, read_in_batches, say_unusable
from apps.cli.shared.journal import Journal
from apps.cli.shared.sharding import part_of
from astrovision import fluxes
from astrovision.astropy_types import Table
from astrovision.catalogues import Catalogue, read_catalogue
from astrovision.classification import GalaxyClassifier
from astrovision.cutouts import Cutouts, Mosaic, open_mosaic
from astrovision.datasets.objects import ObjectFiles, by_band, by_file, object_named
from astrovision.pictures import SkyView
from astrovision.tables import listed, read_table
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

_FILES = ("file", "filename", "image", "path")  # of a column that names files
_LARGEST = 512  # side in pixels of an image that a model of colour images, which have any side, takes for a cut-out
_TOLERANCE = 1.01  # how much larger than the model's cut-outs an image may be that is taken for one


def open_fits_source(
    files: list[Path],
    options: ClassifyOptions,
    classifier: GalaxyClassifier,
    stack: contextlib.ExitStack,
    journal: Journal,
) -> tuple[Source, list[Path]]:
    """Open a FITS image that is a cut-out, a catalogue's sources in one, or cut-outs of one object each.

    Args:
        files: FITS files.
        options: how they are read.
        classifier: the model that the images are prepared for.
        stack: closes what is opened.
        journal: notes which file is read.

    Returns:
        The sources, and all files that they are read from.

    Raises:
        InputError: a file cannot be read, or does not go with the options or the model.
    """
    label, contract = printable(options.input), classifier.contract
    if contract.stretch is None:
        raise InputError(
            f"{label}: holds fluxes, the model takes colour images ({', '.join(contract.bands)}) and has no stretch; "
            "give JPEG or PNG images, or a model with a stretch"
        )
    try:
        contract.stretch.apply(np.zeros((1, len(contract.bands), 1, 1), np.float32))
    except ValueError as error:
        raise InputError(f"the model's card cannot be used ({error}); choose another model") from None
    if objects := _objects(files, options, classifier):
        return _Objects(objects, options, classifier, journal), _read_from(files, options)
    mosaic = stack.enter_context(_opened(files, options))
    if options.catalogue is None:
        if options.shard is not None:
            raise InputError(f"--shard: {label} is one image; give sources with --catalogue")
        source = _cutout(files, mosaic, classifier, options)
    elif options.centre:
        raise InputError(
            f"{label}: --centre is for images of one object, with --catalogue it means nothing; leave it out"
        )
    else:
        catalogue = read_catalogue(options.catalogue, ra=options.ra, dec=options.dec, x=options.x, y=options.y)
        source = _sources(mosaic, catalogue, classifier, options)
    return source, _read_from(files, options)


@dataclass(frozen=True)
class _Sight:
    """How a model sees cut-outs of a mosaic.

    Attributes:
        mosaic: the open mosaic.
        classifier: the model.
        order: numbers of the mosaic's bands in the order of the model's.
        factors: what their fluxes are multiplied by.
        side: side of the cut-outs in pixels.
        scale: their pixel scale in arcseconds; None for the mosaic's own.
        parity: their parity; None for as stored.
        warnings: what is uncertain.
    """

    mosaic: Mosaic
    classifier: GalaxyClassifier
    order: list[int]
    factors: np.ndarray
    side: int
    scale: float | None
    parity: int | None
    warnings: list[str]

    @classmethod
    def of(cls, mosaic: Mosaic, side: int, scale: float | None, classifier: GalaxyClassifier) -> "_Sight":
        """The sight on windows of `side` pixels of `scale`.

        Raises:
            InputError: bands, units or parity do not go with the model.
        """
        contract, warnings = classifier.contract, []
        missing = [band for band in contract.flux_bands if band not in mosaic.bands]
        if missing:
            raise InputError(
                f"{mosaic.label}: has bands {listed(mosaic.bands)}, the model takes {', '.join(contract.flux_bands)}; "
                f"name the {len(mosaic.bands)} of the input in their order with --bands"
            )
        order = [mosaic.bands.index(band) for band in contract.flux_bands]
        given = fluxes.scale_of(mosaic.unit, mosaic.zero_points, order)
        factors, uncertain = given.factors(contract.flux_scale, mosaic.label)
        parity = contract.parity
        if parity is None:
            warnings.append("the model's card names no parity; cut-outs are taken as stored, be they mirrored or not")
        elif mosaic.parity is None and classifier.mirror == sorted(classifier.mirror):
            warnings.append("the input's parity is not known; cut-outs are taken as stored")
            parity = None
        sight = cls(mosaic, classifier, order, factors, side, scale, parity, [*warnings, *uncertain])
        mosaic.cut(np.empty((0, 2)), side, pixel_scale_arcsec=scale, parity=parity)  # what cannot be cut says so here
        return sight

    def see(self, cutouts: Cutouts) -> tuple[Tensor, np.ndarray]:
        """What the network sees of cut-outs, and the share of it that is valid."""
        stretch = self.classifier.contract.stretch
        assert stretch is not None  # noqa: S101 - asked for before the file was opened
        values = fluxes.apply(cutouts.values[:, self.order], self.factors)
        images = self.classifier.prepare(torch.from_numpy(stretch.apply(values)))
        return images, cutouts.valid_share(self.classifier.contract.crop)

    def view(self, x: float, y: float) -> SkyView:
        """How a cut-out lies on the sky."""
        contract, compass = self.classifier.contract, None
        if np.isfinite([x, y]).all():
            compass = self.mosaic.compass(x, y, self.parity)
        east, north = compass or (None, None)
        scale = self.scale or self.mosaic.pixel_scale_arcsec
        pixel = None if scale is None else scale * self.side * contract.crop / contract.size
        return SkyView(True, contract.flux_bands, east, north, pixel)

    def described(self) -> Entries:
        """What a side-car says of the mosaic."""
        mosaic = self.mosaic
        return {
            "bands": list(mosaic.bands),
            "shape": list(mosaic.shape),
            "unit": fluxes.known_unit(mosaic.unit),
            "zero_points": list(mosaic.zero_points),
            "flux_factors": self.factors.tolist(),
            "pixel_scale_arcsec": mosaic.pixel_scale_arcsec,
            "parity": mosaic.parity,
            "cutout": self.side,
            "cutout_pixel_scale_arcsec": self.scale or mosaic.pixel_scale_arcsec,
            "cutout_parity": self.parity,
            "notices": list(mosaic.notices),
        }


class _Fits(Source):
    """Cut-outs of an open mosaic around positions `(N, 2)`."""

    sight: _Sight
    positions: np.ndarray

    def cut(self, sight: _Sight, positions: np.ndarray) -> "_Fits":
        """Say what is cut."""
        self.sight, self.positions = sight, positions
        self.described |= sight.described()
        self.warnings += sight.warnings
        return self

    def batches(self) -> Iterator[Batch]:
        sight = self.sight
        for rows, cutouts in sight.mosaic.batches(
            self.positions, sight.side, sight.classifier.batch_size, pixel_scale_arcsec=sight.scale, parity=sight.parity
        ):
            images, valid_share = sight.see(cutouts)
            yield Batch(rows, images, cutouts.flags, valid_share)

    def view(self, row: int) -> SkyView:
        return self.sight.view(*self.positions[row])

    def sha256(self) -> str:
        return self.sight.mosaic.sha256()


class _Objects(Source):
    """Cut-outs in files of their own."""

    def __init__(
        self, objects: list[ObjectFiles], options: ClassifyOptions, classifier: GalaxyClassifier, journal: Journal
    ) -> None:
        ids = np.array([printable(item.key) for item in objects])
        meaning, kept, warnings, described = "name of the file", [], [], {}
        if options.catalogue is not None:
            table = read_table(options.catalogue)
            objects, ids, meaning, warnings = _in_table(objects, table, printable(options.catalogue))
            kept = kept_columns(table, options.keep_columns, printable(options.catalogue), warnings)
            described = {"catalogue_sha256": file_sha256(options.catalogue)}
        rows = range(len(objects)) if options.shard is None else options.shard.rows(len(objects))
        part = slice(rows.start, rows.stop)
        super().__init__(
            "cutouts", ids[part], meaning, {}, described, warnings, numbers=np.array(rows) + 1,
            kept=[column.part(part) for column in kept], inputs=len(objects),
        )  # fmt: skip
        self.objects, self.options, self.classifier = part_of(objects, options.shard), options, classifier
        self.journal = journal
        self.places = {name: np.full(len(self), np.nan) for name in ("ra", "dec")}
        self.views = [SkyView()] * len(self)
        self.digests: list[bytes] = []

    def batches(self) -> Iterator[Batch]:
        rows = {item.files[0]: row for row, item in enumerate(self.objects)}

        def read(path: Path) -> Batch:
            return self._read(rows[path])

        for _, matches in read_in_batches(
            list(rows),
            self.classifier.batch_size,
            self.journal.noting(read),
            self._fail,
            skip_unreadable=self.options.skip_unreadable,
        ):
            yield Batch(
                np.concatenate([batch.rows for batch in matches]),
                torch.cat([batch.images for batch in matches]),
                np.concatenate([batch.flags for batch in matches]),
                np.concatenate([batch.valid_share for batch in matches]),
            )

    def _read(self, row: int) -> Batch:
        item = self.objects[row]
        with _opened(item.files, self.options, item.bands) as mosaic:
            sight, centre = _at_centre(mosaic, self.classifier, self.options.centre)
            cutouts = mosaic.cut(centre, sight.side, pixel_scale_arcsec=sight.scale, parity=sight.parity)
            images, valid_share = sight.see(cutouts)
            self.digests.append(bytes.fromhex(mosaic.sha256()))
            self.views[row] = sight.view(*centre[0])
            if mosaic.wcs is not None:
                self.places["ra"][row], self.places["dec"][row] = mosaic.sky(centre)[0]
            self.warnings += [warning for warning in sight.warnings if warning not in self.warnings]
        return Batch(np.array([row]), images, cutouts.flags, valid_share)

    def view(self, row: int) -> SkyView:
        return self.views[row]

    def sha256(self) -> str:
        return joint_sha256(self.digests)

    def facts(self) -> Entries:
        return {"digests": [digest.hex() for digest in self.digests]}

    def _fail(self, reason: str) -> None:
        self.failed += 1
        say_unusable(reason)


def _opened(files: Sequence[Path], options: ClassifyOptions, bands: Sequence[str] | None = None) -> Mosaic:
    """A mosaic, after what its headers leave open was said."""
    parity = None if options.parity is None else int(options.parity)
    mosaic = open_mosaic(files, bands=options.bands or bands, hdu=options.hdu, parity=parity)
    for notice in mosaic.notices:
        say(f"warning: {mosaic.label}: {notice}", file=sys.stderr, flush=True)
    return mosaic


def _read_from(files: list[Path], options: ClassifyOptions) -> list[Path]:
    return files if options.catalogue is None else [*files, options.catalogue]


def _objects(files: list[Path], options: ClassifyOptions, classifier: GalaxyClassifier) -> list[ObjectFiles] | None:
    """What the files of a folder are of, where they are cut-outs of one object each."""
    bands = classifier.contract.flux_bands
    if len(files) < 2 or not Path(options.input).is_dir():
        return None
    alone = _bands_of_one(files, options)
    if alone == len(bands) > 1:
        return by_file(files)
    # with one band in each file, as many files as bands are one image
    return by_band(files, bands) or (by_file(files) if alone == len(bands) else None)


def _bands_of_one(files: list[Path], options: ClassifyOptions) -> int:
    """Number of bands of the first file that can be read."""
    for number, path in enumerate(files, 1):
        try:
            with open_mosaic(path, hdu=options.hdu) as mosaic:
                return len(mosaic.bands)
        except InputError:
            if not options.skip_unreadable or number == len(files):
                raise
    return 0


def _at_centre(mosaic: Mosaic, classifier: GalaxyClassifier, centre: bool) -> tuple[_Sight, np.ndarray]:
    """The sight on a FITS image that is itself a cut-out, or on its middle, and where that is."""
    contract = classifier.contract
    largest = contract.cutout or (_LARGEST if contract.takes_colours else round(contract.size / contract.crop))
    noted, scale, ratio = [], None, 1.0
    if contract.pixel_scale_arcsec is None:
        noted.append("the model's card fixes no pixel scale; the image's own was taken")
    elif mosaic.pixel_scale_arcsec is None:
        noted.append(f"the input has no WCS; it was taken to have the model's {contract.pixel_scale_arcsec:g} arcsec")
    else:
        scale, ratio = contract.pixel_scale_arcsec, mosaic.pixel_scale_arcsec / contract.pixel_scale_arcsec
    height, width = mosaic.shape
    if max(height, width) * ratio > largest * _TOLERANCE and not centre:
        raise InputError(
            f"{mosaic.label}: has {height} x {width} pixels, more than one cut-out of {largest} of the model's; give "
            "the sources with --catalogue, or take its middle with --centre"
        )
    # where no side is fixed, the image is resized as a colour image is
    side = contract.cutout or (min(largest, max(height, width)) if centre else max(height, width))
    sight = _Sight.of(mosaic, side, scale, classifier)
    sight.warnings[:0] = noted
    return sight, np.array([[(width - 1) / 2, (height - 1) / 2]])


def _cutout(files: Sequence[Path], mosaic: Mosaic, classifier: GalaxyClassifier, options: ClassifyOptions) -> Source:
    """A FITS image that is itself a cut-out."""
    sight, centre = _at_centre(mosaic, classifier, options.centre)
    source = _Fits("cutout", np.array([printable(files[0].name)]), "name of the file", _on_sky(mosaic, centre))
    return source.cut(sight, centre)


def _sources(mosaic: Mosaic, catalogue: Catalogue, classifier: GalaxyClassifier, options: ClassifyOptions) -> Source:
    """A catalogue's sources in a mosaic."""
    contract, noted, path = classifier.contract, list(catalogue.notices), options.catalogue
    assert path is not None  # noqa: S101 - asked for by the caller
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
        places = _on_sky(mosaic, positions)
    else:
        positions = mosaic.pixels(catalogue.ra_deg, catalogue.dec_deg)
        places = {"ra": np.asarray(catalogue.ra_deg), "dec": np.asarray(catalogue.dec_deg)}
    places |= {"x": positions[:, 0], "y": positions[:, 1]}
    ids, meaning = identifiers(catalogue.table, noted)
    kept = kept_columns(catalogue.table, options.keep_columns, catalogue.label, noted)
    rows = range(len(catalogue)) if options.shard is None else options.shard.rows(len(catalogue))
    part = slice(rows.start, rows.stop)
    source = _Fits(
        "mosaic", ids[part], meaning, {name: values[part] for name, values in places.items()},
        {"catalogue_sha256": file_sha256(path)}, noted, numbers=np.array(rows) + 1,
        kept=[column.part(part) for column in kept], inputs=len(catalogue),
    )  # fmt: skip
    side = contract.cutout or round(contract.size / contract.crop)
    return source.cut(_Sight.of(mosaic, side, contract.pixel_scale_arcsec, classifier), positions[part])


def _on_sky(mosaic: Mosaic, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Right ascension and declination in degrees (ICRS) of pixels; none where there is no WCS."""
    if mosaic.wcs is None:
        return {}
    ra, dec = mosaic.sky(positions).T
    return {"ra": ra, "dec": dec}


def _in_table(
    objects: list[ObjectFiles], table: Table, label: str
) -> tuple[list[ObjectFiles], np.ndarray, str, list[str]]:
    """The objects of a table's rows, their identifiers, what these are, and what a user should know."""
    if not len(table):
        raise InputError(f"{label}: has no row; expected one for each object")
    notices: list[str] = []
    ids, meaning = identifiers(table, notices)
    files = [name for name in table.colnames if name.lower().replace("_", "") in _FILES and is_plain(table[name])]
    named = [str(value).strip() for value in (table[files[0]] if files else ids)]
    by_name: Mapping[str, ObjectFiles] = {item.key: item for item in objects}
    matches = [object_named(by_name, Path(name).name, label) for name in named]
    if len({item.key for item in matches}) < len(matches):
        raise InputError(f"{label}: names an object twice; expected each once: leave the other rows out")
    if len(matches) < len(objects):
        notices.append(f"{len(objects) - len(matches)} objects are not in the table and were left out")
    return matches, ids, meaning, notices
