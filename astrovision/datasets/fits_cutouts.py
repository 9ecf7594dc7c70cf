"""FITS cut-outs of one labelled object each as training data: a folder of them and a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from astrovision import fluxes
from astrovision.catalogues import Catalogue
from astrovision.cutouts import open_mosaic
from astrovision.datasets.mosaics import (
    Cutting,
    SkyImage,
    SkyItem,
    as_in_a_recipe,
    check_seen,
    check_stretch,
    names_of,
    parity_of,
)
from astrovision.datasets.objects import ObjectFiles, by_band, by_file, is_fits, object_named
from astrovision.fluxes import FluxScale
from astrovision.tables import read_table
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document
from shared_backbones.labelled_files import RELABELLING, labelled
from shared_backbones.labelled_images import ImageSource, Layout


@dataclass(frozen=True, kw_only=True)
class ObjectItem(SkyItem):
    """A labelled object with a FITS cut-out of its own, of whose middle the network sees something."""

    files: tuple[Path, ...]

    @property
    def facts(self) -> tuple[str, int, tuple[int, ...] | None, tuple[float, float] | None]:
        """Key, label and labels; the place is the middle."""
        return self.key, self.label, self.labels, None


class FitsCutouts(Layout[ObjectItem]):
    """FITS files of one object each, or of each object and band (`m51_g.fits` or `m51/g.fits`), and a table.

    Those without a pixel that has a value are left out. All others are brought to one parity, one pixel scale and one
    flux scale: those of the first file where the recipe asks for no others.

    Options: `images` (images, a folder), `catalogue` (labels.csv, any table), its columns `key` (id: names of files
    without ending and band) and `label` (label) and `split` (none), `bands` (their names, needed where files are named
    by them), `hdu` and `parity` as `open_mosaic` takes them, `centre` (false; true takes the middle of images larger
    than the cut-outs); `merge`, `drop` and `test_rule` as in a table.

    Args:
        cutting: How cut-outs are taken; None is refused, as the files hold fluxes.
    """

    name = "fits"
    options = (
        "images",
        "catalogue",
        "key",
        "label",
        "split",
        "bands",
        "hdu",
        "parity",
        "centre",
        *RELABELLING,
        "test_rule",
    )

    def __init__(self, cutting: Cutting | None = None) -> None:
        self.cutting = cutting

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[ObjectItem]:
        """List the rows of the table, each with its files."""
        if self.cutting is None:
            raise InputError("data.stretch is needed by the layout fits, whose images hold fluxes")
        folder, path = root / str(options.get("images", "images")), root / str(options.get("catalogue", "labels.csv"))
        objects = {item.key: item for item in _objects_in(folder, names_of(options, "bands"))}
        table = Catalogue(printable(path), read_table(path), None, None, None, None)
        keys = table.texts(str(options.get("key", "id")))
        labels = table.texts(str(options.get("label", "label")))
        splits = table.texts(str(options["split"])) if options.get("split") else [""] * len(keys)
        if not keys:
            raise InputError(f"{printable(path)}: has no row; expected one for each object")
        matches = [object_named(objects, key, printable(path)) for key in keys]
        image = self._settled(matches[0], path, options)
        seen = [bool(_middle(item.files, image)[1].any()) for item in matches]
        image = replace(image, unseen=seen.count(False))
        check_seen(seen.count(True), image.unseen, printable(path))
        return labelled(
            (
                (
                    ObjectItem(item.files[0], -1, key, split, place=(0.0, 0.0), mosaic=image, files=item.files),
                    label,
                )
                for item, key, split, label, is_seen in zip(matches, keys, splits, labels, seen, strict=True)
                if is_seen
            ),
            path,
            classes,
            options,
        )

    def read(self, source: ImageSource[ObjectItem], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Cut the middles out."""
        for number, item in enumerate(source.items):
            yield number, _middle(item.files, item.mosaic)[0]

    def files(self, items: Sequence[ObjectItem]) -> list[Path]:
        """The objects' files and the table."""
        return [*dict.fromkeys(path for item in items for path in item.files), items[0].mosaic.catalogue]

    def bands(self, items: Sequence[ObjectItem]) -> tuple[str, ...]:
        """Names of the bands."""
        return items[0].mosaic.bands

    def _settled(self, first: ObjectFiles, path: Path, options: Document) -> SkyImage:
        """What the first object decides for all."""
        assert self.cutting is not None  # noqa: S101 - refused by the caller
        hdu, parity = options.get("hdu"), parity_of(options)
        bands = first.bands or names_of(options, "bands")
        with as_in_a_recipe(), open_mosaic(first.files, bands=bands, hdu=hdu, parity=parity) as mosaic:
            check_stretch(mosaic, self.cutting.stretch)
            scale = FluxScale(mosaic.unit, mosaic.zero_points)
            image = SkyImage((), path, hdu, mosaic.bands, self.cutting.on(mosaic), 0, parity, scale, mosaic.notices)
            return image if options.get("centre") else replace(image, whole=True)


def _objects_in(folder: Path, bands: Sequence[str] | None) -> list[ObjectFiles]:
    if not folder.is_dir():
        raise InputError(
            f"{printable(folder)}: no such folder; expected FITS files, give theirs as data.options.images"
        )
    files = sorted(path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.is_file() and is_fits(path))
    if not files:
        raise InputError(f"{printable(folder)}: holds no FITS file; expected one for each object")
    return (by_band(files, bands) if bands else None) or by_file(files)


def _middle(files: Sequence[Path], image: SkyImage) -> tuple[np.ndarray, np.ndarray]:
    """The stretched cut-out `(side, side, C)` of an object, and which of its pixels have a value."""
    cutting = image.cutting
    with (
        as_in_a_recipe(),
        open_mosaic(files, bands=image.bands, hdu=image.hdu, parity=image.own_parity) as mosaic,
    ):
        height, width = mosaic.shape
        ratio = 1.0
        if cutting.pixel_scale_arcsec is not None and mosaic.pixel_scale_arcsec is not None:
            ratio = mosaic.pixel_scale_arcsec / cutting.pixel_scale_arcsec
        if image.whole and max(height, width) * ratio > cutting.side * 1.01:
            raise InputError(
                f"{mosaic.label}: has {height} x {width} pixels, more than a cut-out of {cutting.side}; give "
                "data.options.centre=true to take its middle, or another data.stored"
            )
        factors, _ = FluxScale(mosaic.unit, mosaic.zero_points).factors(image.flux_scale, mosaic.label)
        centre = [[(width - 1) / 2, (height - 1) / 2]]
        scale = None if mosaic.wcs is None else cutting.pixel_scale_arcsec
        cutouts = mosaic.cut(centre, cutting.side, pixel_scale_arcsec=scale, parity=cutting.parity)
        return np.moveaxis(cutting.stretch.apply(fluxes.apply(cutouts.values, factors)), 1, 3)[0], cutouts.valid[0]
