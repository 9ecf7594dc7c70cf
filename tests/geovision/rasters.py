"""Small scenes with known content."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

TRANSFORM = from_origin(500_000, 5_100_000, 10, 10)


def write_scene(
    path: Path,
    values: np.ndarray,
    bands: Sequence[str | None] = (),
    *,
    scales: Any = None,
    offsets: Any = None,
    **changes: Any,
) -> Path:
    """A GeoTIFF of `(C, H, W)` in EPSG:32633 with pixels of 10 m."""
    profile = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2],
        "dtype": values.dtype, "crs": "EPSG:32633", "transform": TRANSFORM, **changes,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as target:
        target.write(values)
        for number, name in enumerate(bands, 1):
            if name:
                target.set_band_description(number, name)
        if scales is not None:
            target.scales = scales
        if offsets is not None:
            target.offsets = offsets
    return path


def ramp(bands: int = 3, height: int = 40, width: int = 50) -> np.ndarray:
    """Stored numbers that tell band, row and column: 1000 * band + 10 * row + column, uint16."""
    band, row, column = np.meshgrid(*map(np.arange, (bands, height, width)), indexing="ij")
    return (1000 * (band + 1) + 10 * row + column).astype(np.uint16)
