"""What is particular to galaxies: colours or stretched fluxes, no up and down, and what goes wrong with images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astrovision import fluxes
from astrovision.classification import GalaxyClassifier
from astrovision.contract import InputContract
from astrovision.corruptions import CORRUPTIONS, FAMILIES, corrupt
from astrovision.grids import PARITY
from astrovision.pictures import SkyView, annotated
from astrovision.stretches import SDSS_UNIT
from pipelines.data.store import Store
from pipelines.kinds.pictures import PictureKind
from pipelines.recipe.images import GalaxyData
from pipelines.recipe.recipe import Recipe
from shared_backbones.classification.contract import mirror_of
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document, Entries
from shared_backbones.labelled_images import Item, Layout

if TYPE_CHECKING:
    from astrovision.datasets.mosaics import SkyImage

_SHOWN = 112  # side in pixels of pictures in reports, at least


class GalaxyClassification(PictureKind[GalaxyData]):
    """A network learns to classify images of galaxies.

    Args:
        recipe: Recipe of data of kind `galaxies`.
    """

    section = GalaxyData

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.mosaic = _mosaic_of(self.sources[0].items[0]) if self.data.holds_fluxes else None

    def check_settings(self) -> None:
        """Refuse sizes of which cut-outs would have no common middle."""
        super().check_settings()
        data = self.data
        if data.holds_fluxes and (data.stored - data.size) % 2:
            raise InputError(
                f"recipe {self.recipe.name}: data.stored is {data.stored}, data.size {data.size}; the difference must "
                "be even, so that the middle of a cut-out is that of what the network sees: change one by 1"
            )

    @property
    def cutout(self) -> int:
        """Side of a cut-out in pixels, before anything is cut off."""
        return round(self.data.stored / self.data.crop)

    def layout(self) -> Layout[Any]:
        """The layout; that of a mosaic knows how cut-outs are taken."""
        if not self.data.holds_fluxes or self.data.stretch is None:
            return super().layout()
        from astrovision.datasets.fits_cutouts import FitsCutouts
        from astrovision.datasets.mosaics import Cutting, MosaicSources
        from astrovision.stretches import Stretch

        stretch, mirror = Stretch.from_card(self.data.stretch, self.recipe.name), mirror_of(self.recipe.card)
        is_handed = mirror != sorted(mirror)
        cutting = Cutting(self.cutout, stretch, self.data.pixel_scale_arcsec, self.data.parity, is_handed)
        return (FitsCutouts if self.data.layout == FitsCutouts.name else MosaicSources)(cutting)

    def preparation_settings(self) -> Entries:
        """What decides the stored images."""
        settings = super().preparation_settings()
        if self.mosaic is None:
            return settings
        cutting = self.mosaic.cutting
        return {
            **settings,
            "stretch": self.data.stretch,
            "pixel_scale_arcsec": cutting.pixel_scale_arcsec,
            "hdu": self.mosaic.hdu,
            "parity": [cutting.parity, self.mosaic.own_parity],
        }

    def notices(self, prepared: Store) -> list[str]:
        """Images of each split, what names the split, and what was left out."""
        lines = super().notices(prepared)
        if self.mosaic is not None and self.mosaic.left_out:
            lines.append(f"warning: {self.mosaic.left_out} sources that lie off the image were left out")
        if self.mosaic is not None and self.mosaic.unseen:
            lines.append(f"warning: {self.mosaic.unseen} images without a pixel that has a value were left out")
        if self.mosaic is not None:
            lines += [f"warning: the mosaic or its catalogue: {notice}" for notice in self.mosaic.notices]
        return lines

    def batch_settings(self) -> Entries:
        """How batches are drawn and varied, and what the card says of the images' scale."""
        return {**super().batch_settings(), "pixel_scale_arcsec": self.data.pixel_scale_arcsec}

    def contract_section(self, mean: Sequence[float], std: Sequence[float]) -> Entries:
        """What `astrovision.contract.InputContract` holds."""
        scale = self.data.pixel_scale_arcsec if self.mosaic is None else self.mosaic.cutting.pixel_scale_arcsec
        return {
            **super().contract_section(mean, std),
            "pixel_scale_arcsec": scale,
            "cutout": None if scale is None and self.mosaic is None else self.cutout,
            "stretch": self.data.stretch,
            **self._of_fluxes(),
        }

    def _of_fluxes(self) -> Entries:
        """Parity, unit and zero points of the cut-outs, where they are of FITS images or look like them."""
        if self.mosaic is None:
            # pictures of SDSS have north up and east left, and their first row above
            return {} if self.data.stretch is None else {"parity": 1, "unit": SDSS_UNIT}
        scale = self.mosaic.flux_scale
        return {
            "parity": self.mosaic.cutting.parity,
            "unit": fluxes.known_unit(scale.unit),
            "zero_points": list(scale.zero_points) if any(point is not None for point in scale.zero_points) else None,
        }

    def picture(self, image: np.ndarray) -> np.ndarray:
        """An image for those who look at it; one of FITS data has its last row up and the longest wavelength red."""
        if self.mosaic is None:
            return super().picture(image)
        parity = self.mosaic.cutting.parity or PARITY
        east, north = self.mosaic.compass or ((float(parity), 0.0), (0.0, 1.0))
        view = SkyView(True, self.mosaic.bands, east, north, self.mosaic.cutting.pixel_scale_arcsec)
        values = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
        return annotated(values, view, _SHOWN)

    def contract(self, card: Document) -> InputContract:
        """The contract for astronomical images."""
        return InputContract.from_card(card, self.recipe.name)

    def classifier(
        self, model: Path, *, symmetries: bool, threads: int | None = None, calibrated: bool = True
    ) -> GalaxyClassifier:
        """The classifier of galaxies."""
        return GalaxyClassifier(model, symmetries=symmetries, threads=threads, calibrated=calibrated)

    def corruptions(self) -> Mapping[str, str]:
        """Those of `astrovision.corruptions`."""
        return {name: FAMILIES[name] for name in CORRUPTIONS}

    def corrupted(self, name: str, image: np.ndarray, severity: int, number: int) -> np.ndarray:
        """An image under a corruption, floating point from 0 to 1."""
        return corrupt(name, image.astype(np.float32) / 255, severity, seed_key=[self.recipe.seed, number])


def _mosaic_of(item: Item) -> "SkyImage":
    """The mosaic that an image is cut from."""
    from astrovision.datasets.mosaics import SkyItem

    if not isinstance(item, SkyItem):
        raise TypeError(f"an image of a mosaic is {type(item).__name__}, expected SkyItem")
    return item.mosaic
