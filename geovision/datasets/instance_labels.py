"""Labels of single objects, such as fields: rasters of their numbers, or polygons, each one an object."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geovision.datasets.labels import LabelRaster, read_shapes
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from geovision.datasets.labels import Shape


class InstanceRaster(LabelRaster):
    """The objects of a scene, read as codes that have number and class of an object; see `split_codes`.

    A raster has a number for each object, and 0 where there is none; its objects are of the only class. Polygons have
    a column of classes where there are several. Where two cover a pixel it is the later one's.
    """

    nothing = 0
    dtype = "uint32"

    def _labelled(self, numbers: np.ndarray, valid: np.ndarray) -> np.ndarray:
        if len(self.values) > 1:
            raise InputError(
                f"{printable(str(self.path))}: is a raster of objects, whose classes it cannot say, and the recipe has "
                f"{len(self.values)}; give polygons with a column of classes"
            )
        return np.where(valid & (numbers > 0), numbers, 0).astype(self.dtype)

    def _read_shapes(self, path: Path) -> "list[Shape]":
        shapes = read_shapes(path, self.scene, self.values, self.names, self.column, one_class=len(self.values) == 1)
        classes = len(self.values)
        return [(shape, 1 + label + classes * number) for number, (shape, label) in enumerate(shapes)]


def split_codes(codes: np.ndarray, classes: int) -> tuple[np.ndarray, list[int]]:
    """Objects of a window, numbered from 1.

    Args:
        codes: `(H, W)`, as `InstanceRaster` reads them.
        classes: how many there are.

    Returns:
        Number of each pixel's object, `(H, W)` int64, 0 for none; and their classes, object 1 first.
    """
    known, numbers = np.unique(codes, return_inverse=True)
    numbers = numbers.reshape(codes.shape)
    objects = known[known > 0]
    if len(objects) == len(known):  # no pixel is of none
        numbers = numbers + 1
    return numbers.astype(np.int64), ((objects.astype(np.int64) - 1) % classes).tolist()
