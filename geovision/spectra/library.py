"""Measured and simulated spectra of land surfaces: the open library inside the package `earthlib`."""

import functools
import hashlib
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geovision.spectra.responses import GRID
from shared_backbones.errors import require

if TYPE_CHECKING:
    from collections.abc import Mapping

Part = Literal["train", "validation", "test"]
SURFACES = {"green": "vegetation", "dry": "npv", "soil": "bare", "built": "built", "burned": "burned"}
"""Surfaces of which the library has spectra, and what it calls them."""
_TESTED, _VALIDATED = 0.2, 0.1  # of the sources of each surface


@functools.cache
def spectra(part: Part) -> "Mapping[str, np.ndarray]":
    """Reflectances of each surface, from 0 to 1, `(N, len(GRID))` float32.

    The library gathers green canopies (simulated with PROSAIL), dry vegetation, soils (ICRAF-ISRIC), and built-up and
    burned surfaces (field and laboratory measurements), 400 to 2450 nm, without the bands in which air is opaque; those
    are interpolated, as no satellite band lies there.

    Args:
        part: `train`, or `validation` (a tenth) or `test` (a fifth of the sources): each source (a soil's site, the
            material of roofs and streets, a canopy) is in one part alone, in the order of a digest of its name.

    Raises:
        InputError: `earthlib` is not installed.
    """
    full = require("earthlib.endmembers", "train").full_library
    centres = np.asarray(full.sensor.band_centers, np.float64) * 1000
    table = full.metadata
    sources = np.array([_source(row) for row in table.to_dict("records")])
    chosen = {}
    for surface, name in SURFACES.items():
        own = (table["LEVEL_2"] == name).to_numpy()
        rows = np.flatnonzero(own & np.isin(sources, _of_part(set(sources[own]), part)))
        chosen[surface] = np.stack([np.interp(GRID, centres, full.data[row]) for row in rows]).astype(np.float32)
    return chosen


def _of_part(sources: set[str], part: Part) -> list[str]:
    """The sources of a part."""
    ordered = sorted(sources, key=lambda source: hashlib.sha256(source.encode()).digest())
    tested = math.ceil(_TESTED * len(ordered))
    trained = tested + math.ceil(_VALIDATED * len(ordered))
    return {"test": ordered[:tested], "validation": ordered[tested:trained], "train": ordered[trained:]}[part]


def _source(row: "Mapping[str, Any]") -> str:
    """What several spectra may be of: the site of a soil, or the material of a roof."""
    if row["SOURCE"] == "icraf-isric-soil-database":
        return f"{row['LAT']} {row['LON']}"
    name = str(row["NAME"])
    return name if row["LEVEL_2"] == "vegetation" else name.partition(".")[0]
