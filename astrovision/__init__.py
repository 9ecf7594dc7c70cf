"""Specialised vision models for astronomy: from the image to classes, catalogues and figures."""

from typing import TYPE_CHECKING

from shared_backbones.lazy import lazy

if TYPE_CHECKING:
    from astrovision.catalogues import read_catalogue
    from astrovision.classification import GalaxyClassifier
    from astrovision.cutouts import open_mosaic
    from shared_backbones.official import load_official

__all__ = ["GalaxyClassifier", "load_official", "open_mosaic", "read_catalogue"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "GalaxyClassifier": "astrovision.classification",
        "load_official": "shared_backbones.official",
        "open_mosaic": "astrovision.cutouts",
        "read_catalogue": "astrovision.catalogues",
    },
)
