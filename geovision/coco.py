"""Objects of a scene in the form of COCO, which tools for labels and for scores read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geovision.instances import Objects
from geovision.rasters import open_raster
from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Entries, Json


def coco(numbers: Path, objects: Objects, classes: Sequence[ClassEntry], case: str) -> Entries:
    """The objects of a raster of their numbers, in pixels from its upper left corner.

    `segmentation` is a list of outlines, or a run-length code where an object has a hole, which outlines cannot say.

    Args:
        numbers: GeoTIFF of the objects' numbers, 0 for none.
        objects: What each is.
        classes: Classes of the objects; categories are numbered from 1.
        case: Name of the scene that says nothing of its file.
    """
    from rasterio.features import shapes
    from scipy.ndimage import find_objects

    with open_raster(numbers) as source:
        values = source.read(1).astype(np.int32)
    rings: dict[int, list[list[list[tuple[float, float]]]]] = {}
    for outline, value in shapes(values, values > 0, 4):
        rings.setdefault(int(value), []).append(outline["coordinates"])
    annotations: list[Json] = []
    for number, place in enumerate(find_objects(values, len(objects.classes)), 1):
        rows, columns = place
        holes = any(len(part) > 1 for part in rings[number])
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": int(objects.classes[number - 1]) + 1,
                "segmentation": (
                    _run_lengths(values[place] == number, rows.start, columns.start, values.shape)
                    if holes
                    else [[float(c) for point in part[0][:-1] for c in point] for part in rings[number]]
                ),
                "area": int(objects.pixels[number - 1]),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
                "score": round(float(objects.scores[number - 1]), 6),
            }
        )
    return {
        "images": [{"id": 1, "width": values.shape[1], "height": values.shape[0], "file_name": f"{case}.tif"}],
        "categories": [{"id": number, "name": str(entry["name"])} for number, entry in enumerate(classes, 1)],
        "annotations": annotations,
    }


def _run_lengths(mask: np.ndarray, row: int, column: int, shape: tuple[int, int]) -> Entries:
    """COCO's code of a mask that lies at a place of an image: lengths of its runs down the columns, 0 first."""
    across, down = np.nonzero(mask.T)
    places = (across + column) * shape[0] + down + row
    starts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    lengths = np.diff(np.append(starts, len(places)))
    ends = places[starts] + lengths
    gaps = places[starts] - np.append(0, ends[:-1])
    counts = np.stack([gaps, lengths], 1).ravel().tolist()
    return {"size": list(shape), "counts": [*counts, shape[0] * shape[1] - int(ends[-1])]}
