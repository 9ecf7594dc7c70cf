"""Labelled sources of FITS mosaics as training data: where they lie, and what a network is to see of them."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from astrovision.catalogues import Catalogue, read_catalogue
from astrovision.cutouts import Mosaic, open_mosaic
from astrovision.fluxes import FluxScale
from astrovision.grids import PARITY, Compass
from astrovision.stretches import Stretch
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document, Json
from shared_backbones.labelled_files import RELABELLING, labelled
from shared_backbones.labelled_images import ImageSource, Item, Layout

_AT_ONCE = 64  # cut-outs
_IN_RECIPES = {"pixel-scale": "data.pixel_scale_arcsec", "size": "data.stored"}  # other options are data.options


@dataclass(frozen=True)
class Cutting:
    """How cut-outs are taken.

    Attributes:
        side: in pixels.
        stretch: from fluxes to values from 0 to 1.
        pixel_scale_arcsec: Scale of the cut-outs; None takes the mosaic's own pixels.
        parity: Parity of the cut-outs; None takes them as stored.
        is_handed: whether classes are mirror images of one another, so that a mosaic's parity must be known.
    """

    side: int
    stretch: Stretch
    pixel_scale_arcsec: float | None = None
    parity: int | None = PARITY
    is_handed: bool = False

    def on(self, mosaic: Mosaic) -> "Cutting":
        """The cutting with the mosaic's scale where none is asked for, as stored where its parity is not known.

        Raises:
            InputError: the parity has to be known, and is not.
        """
        parity = self.parity if mosaic.parity is not None else None
        if parity is None and self.parity is not None and self.is_handed:
            raise InputError(
                f"{mosaic.label}: has no WCS, so that its parity is unknown, and classes are each other's mirror "
                "images; give data.options.parity, -1 where east is left of north when the first row is at the bottom, "
                "else 1"
            )
        return replace(self, pixel_scale_arcsec=self.pixel_scale_arcsec or mosaic.pixel_scale_arcsec, parity=parity)


@dataclass(frozen=True)
class SkyImage:
    """A mosaic with a catalogue, and how cut-outs are taken from it.

    Attributes:
        files: Files of the mosaic.
        catalogue: file of its sources.
        hdu: HDU of the images, as `open_mosaic` takes it.
        bands: names, in the order of the cut-outs' channels.
        cutting: its scale is that of the mosaic where no other was asked for; None where there is no WCS.
        left_out: sources of the catalogue that lie off the image, or have no position.
        unseen: further ones that were left out, as no pixel of their cut-outs has a value.
        own_parity: the images' own, where it is known better than by their WCS.
        flux_scale: unit and zero points of the bands.
        notices: what a user should know of the headers and the catalogue.
        compass: unit vectors east and north on the cut-outs, as `Mosaic.compass` gives them in the mosaic's middle;
            None where they are not known, or differ.
        whole: whether images larger than the cut-outs are refused where each is of one object.
    """

    files: tuple[Path, ...]
    catalogue: Path
    hdu: int | str | None
    bands: tuple[str, ...]
    cutting: Cutting
    left_out: int
    own_parity: int | None = None
    flux_scale: FluxScale = field(default_factory=FluxScale)
    notices: tuple[str, ...] = ()
    compass: Compass | None = None
    whole: bool = False
    unseen: int = 0

    def cutouts(self, places: Sequence[tuple[float, float]]) -> Iterator[tuple[int, np.ndarray]]:
        """Stretched cut-outs around places `(x, y)`: number of each, and `(side, side, C)` float32 from 0 to 1.

        Raises:
            InputError: a file cannot be read, or is damaged.
        """
        cutting = self.cutting
        with (
            as_in_a_recipe(),
            open_mosaic(self.files, bands=self.bands, hdu=self.hdu, parity=self.own_parity) as mosaic,
        ):
            scale, parity = cutting.pixel_scale_arcsec, cutting.parity
            for rows, batch in mosaic.batches(places, cutting.side, _AT_ONCE, pixel_scale_arcsec=scale, parity=parity):
                yield from zip(rows.tolist(), np.moveaxis(cutting.stretch.apply(batch.values), 1, 3), strict=True)


@dataclass(frozen=True, kw_only=True)
class SkyItem(Item):
    """A labelled source that lies on a mosaic.

    Attributes:
        place: x and y in pixels; the centre of the first one is 0, 0.
        mosaic: Mosaic that the image is cut from.
    """

    place: tuple[float, float]
    mosaic: SkyImage = field(repr=False)

    @property
    def facts(self) -> tuple[str, int, tuple[int, ...] | None, tuple[float, float] | None]:
        """What the catalogue says of the source: key, label, labels and place."""
        return self.key, self.label, self.labels, self.place


class MosaicSources(Layout[SkyItem]):
    """Sources of a FITS mosaic, cut out around the positions of a catalogue.

    Those off the image, and those without a pixel that has a value, are left out.

    Cut-outs of neighbours overlap, so that a source of the test split may have been seen beside one of the training
    split: a column of splits by place is better than a draw of single sources, and without one `blocks_arcmin` or
    `blocks_pixels` draws whole square blocks of the image, where only those at the borders of blocks overlap.

    Options: `images` (a FITS file, or a list with one for each band), `catalogue` (a table that `read_catalogue`
    takes), its columns `label` (label: a class's name or number), `id` (by default the number of the row), `split`
    (none), `ra` and `dec` or `x` and `y`, `hdu`, `bands` and `parity` as `open_mosaic` takes them, side of the blocks
    `blocks_arcmin` or `blocks_pixels` (none); `merge`, `drop` and `test_rule` as in a table, the last by the hash of
    the block where there are blocks.

    Args:
        cutting: How cut-outs are taken; None is refused, as the files hold fluxes.
    """

    name = "mosaic"
    options = ("images", "catalogue", "id", "label", "split", "ra", "dec", "x", "y", "hdu", "bands", "parity",
               "blocks_arcmin", "blocks_pixels", *RELABELLING, "test_rule")  # fmt: skip

    def __init__(self, cutting: Cutting | None = None) -> None:
        self.cutting = cutting

    def find(self, root: Path, classes: Sequence[str], options: Document) -> list[SkyItem]:
        """List the sources that lie on the mosaic, be it in part."""
        if self.cutting is None:
            raise InputError("data.stretch is needed by the layout mosaic, whose images hold fluxes")
        image, named = _find_sources(root, options, self.cutting)
        return labelled(named, image.catalogue, classes, options)

    def read(self, source: ImageSource[SkyItem], size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Cut the sources out."""
        yield from source.items[0].mosaic.cutouts([item.place for item in source.items])

    def files(self, items: Sequence[SkyItem]) -> list[Path]:
        """The mosaic's files and the catalogue."""
        image = items[0].mosaic
        return [*dict.fromkeys(image.files), image.catalogue]

    def bands(self, items: Sequence[SkyItem]) -> tuple[str, ...]:
        """Names of the mosaic's bands."""
        return items[0].mosaic.bands

    def blocks(self, items: Sequence[SkyItem]) -> Mapping[int, list[SkyItem]]:
        """One block in the order of the mosaic's rows, so that a part reads few of them."""
        return {0: sorted(items, key=lambda item: item.place[::-1])}


def _find_sources(root: Path, options: Document, cutting: Cutting) -> tuple[SkyImage, list[tuple[SkyItem, str]]]:
    """The mosaic, and the sources of its catalogue that lie on it, each with its label as text.

    Args:
        root: Folder of the files.
        options: Options of `MosaicSources`.
        cutting: How cut-outs are taken, as the recipe asks for it.

    Raises:
        InputError: a file cannot be read, or lacks what the options or `cutting` ask for; no source is on the image.
    """
    files = tuple(root / name for name in names_of(options, "images") or ())
    if not files or not options.get("catalogue"):
        lacking = "catalogue" if files else "images"
        raise InputError(f"data.options.{lacking} is needed by the layout mosaic; name the file in {printable(root)}")
    path, hdu, given = root / str(options["catalogue"]), options.get("hdu"), names_of(options, "bands")
    parity = parity_of(options)
    with as_in_a_recipe(), open_mosaic(files, bands=given, hdu=hdu, parity=parity) as mosaic:
        check_stretch(mosaic, cutting.stretch)
        columns = {name: str(options[name]) for name in ("ra", "dec", "x", "y") if options.get(name) is not None}
        catalogue = read_catalogue(path, **columns)
        if not len(catalogue):
            raise InputError(f"{catalogue.label}: has no row; expected one for each source")
        places = _places(mosaic, catalogue)
        here = mosaic.touches(places, cutting.side, pixel_scale_arcsec=cutting.pixel_scale_arcsec)
        if not here.any():
            raise InputError(f"{catalogue.label}: none of its {len(here)} sources lies on {mosaic.label}; give its own")
        blocks = _blocks(mosaic, places, options)
        settled, (height, width) = cutting.on(mosaic), mosaic.shape
        off_image, here[here] = int((~here).sum()), _have_values(mosaic, places[here], settled)
        unseen = len(here) - off_image - int(here.sum())
        check_seen(int(here.sum()), unseen, catalogue.label)
        compass = mosaic.compass((width - 1) / 2, (height - 1) / 2, settled.parity)
        image = SkyImage(
            files, path, hdu, mosaic.bands, settled, off_image, parity,
            FluxScale(mosaic.unit, mosaic.zero_points), (*mosaic.notices, *catalogue.notices),
            compass, unseen=unseen,
        )  # fmt: skip
    keys = catalogue.texts(str(options["id"])) if options.get("id") else list(map(str, range(1, len(here) + 1)))
    labels = catalogue.texts(str(options.get("label", "label")))
    splits = catalogue.texts(str(options["split"])) if options.get("split") else [""] * len(here)
    return image, [
        (SkyItem(files[0], -1, keys[row], splits[row], blocks[row], place=(x, y), mosaic=image), labels[row])
        for row, (x, y) in zip(np.flatnonzero(here).tolist(), places[here].tolist(), strict=True)
    ]


def _have_values(mosaic: Mosaic, places: np.ndarray, cutting: Cutting) -> np.ndarray:
    """Whether any pixel of the cut-outs has a value, `(N,)` bool."""
    seen = np.zeros(len(places), bool)
    for rows, batch in mosaic.batches(
        places, cutting.side, _AT_ONCE, pixel_scale_arcsec=cutting.pixel_scale_arcsec, parity=cutting.parity
    ):
        seen[rows] = batch.valid.any((1, 2))
    return seen


def check_seen(seen: int, unseen: int, label: str) -> None:
    """Refuse images of which none has a pixel with a value.

    Raises:
        InputError: there is none to learn from.
    """
    if not seen:
        raise InputError(
            f"{label}: none of the cut-outs of its {unseen} sources has a pixel with a value; give other images"
        )


def parity_of(options: Document) -> int | None:
    """The parity that `data.options` gives the images.

    Raises:
        InputError: it is none.
    """
    given = options.get("parity")
    if given not in (None, -1, 1) or isinstance(given, bool):
        raise InputError(f"data.options.parity is {given!r}; expected -1 or 1")
    return given


def check_stretch(mosaic: Mosaic, stretch: Stretch) -> None:
    """Refuse a stretch of another number of bands.

    Raises:
        InputError: it does not go with the mosaic.
    """
    try:
        stretch.apply(np.zeros((1, len(mosaic.bands), 1, 1), np.float32))
    except ValueError as error:
        raise InputError(
            f"{mosaic.label}: has bands {', '.join(mosaic.bands)}, which data.stretch does not take ({error}); give "
            "other data.options.images, or another stretch"
        ) from None


def _places(mosaic: Mosaic, catalogue: Catalogue) -> np.ndarray:
    """Where the sources are in pixels, `(N, 2)`."""
    if catalogue.x is not None and catalogue.y is not None:
        return np.stack([catalogue.x, catalogue.y], -1)
    return mosaic.pixels(catalogue.ra_deg, catalogue.dec_deg)


def _blocks(mosaic: Mosaic, places: np.ndarray, options: Document) -> list[str]:
    """Names of the square blocks of the image that places lie in."""
    named = [name for name in ("blocks_arcmin", "blocks_pixels") if options.get(name) is not None]
    if not named:
        return [""] * len(places)
    if len(named) > 1:
        raise InputError("data.options.blocks_arcmin and blocks_pixels are given; expected one of them")
    side = options[named[0]]
    if isinstance(side, bool) or not isinstance(side, int | float) or not 0 < side < math.inf:
        raise InputError(f"data.options.{named[0]} is {side!r}; expected the side of a block, more than 0")
    if named[0] == "blocks_arcmin":
        if mosaic.pixel_scale_arcsec is None:
            raise InputError(f"{mosaic.label}: has no WCS, so that it has no arcmin; give data.options.blocks_pixels")
        side *= 60 / mosaic.pixel_scale_arcsec
    return [f"block {x:.0f} {y:.0f}" for x, y in np.floor((places + 0.5) / side).tolist()]


def names_of(options: Document, name: str) -> list[str] | None:
    """A name or names that `data.options` gives.

    Raises:
        InputError: they are none.
    """
    given = options.get(name)
    names = [given] if isinstance(given, str) else given
    if names is not None and not (isinstance(names, list | tuple) and names and all(map(_is_name, names))):
        raise InputError(f"data.options.{name} is {given!r}; expected a name, or a list of names")
    return None if names is None else list(names)


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and bool(value)


@contextlib.contextmanager
def as_in_a_recipe() -> Iterator[None]:
    """Name options in messages as a recipe has them, not as the program does."""
    try:
        yield
    except InputError as error:
        message = re.sub(
            r"--(ra|dec|x|y|hdu|bands|parity|centre|pixel-scale|size)\b",
            lambda match: _IN_RECIPES.get(match[1], f"data.options.{match[1]}"),
            str(error),
        )
        raise InputError(message) from None
