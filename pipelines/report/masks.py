"""Pictures of masks of one thing over the images that they are of."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipelines.report.sheets import picture_sheet

REFERENCE, RESULT, BOTH = (86, 160, 255), (255, 84, 70), (120, 220, 120)
_SIDE = 220  # pixels of each picture


def mask_sheet(images: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], beside: Sequence[str]) -> Image.Image:
    """A row for each image: as it is, and with what is marked in both masks and in one of them alone.

    Args:
        images: Image `(H, W, 3)` uint8, its reference and the mask of a model, `(H, W)` bool each.
        beside: A line of text for each row.
    """
    rows = []
    for image, reference, mask in images:
        shown, *masks = (_reduced(part) for part in (image, reference, mask))
        there, marked = (part > 127 for part in masks)
        over = shown.copy()
        for where, colour in ((there & marked, BOTH), (there & ~marked, REFERENCE), (marked & ~there, RESULT)):
            over[where] = (over[where] * 0.5 + np.array(colour) * 0.5).astype(np.uint8)
        rows.append([shown, over])
    legend = [("in both", BOTH), ("in the reference alone", REFERENCE), ("in the result alone", RESULT)]
    return picture_sheet(rows, size=(_SIDE, _SIDE), beside=beside, legend=legend)


def _reduced(values: np.ndarray) -> np.ndarray:
    """An image or a mask at the size of the sheet's pictures."""
    picture = Image.fromarray(values if values.dtype == np.uint8 else values.astype(np.uint8) * 255)
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))
