"""Contours of labels as vector paths along the edges of their pixels."""

import numpy as np
from scipy import ndimage

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up


def contour_paths(labels: np.ndarray) -> dict[int, str]:
    """The border of each label > 0 as SVG path data: closed loops with the label on their right, holes included.

    Args:
        labels: (H, W), integer.

    Returns:
        Path data by label; one unit is a pixel, and (0, 0) the upper left corner of the first one.
    """
    numbers = np.unique(labels[labels > 0])
    codes = np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)
    paths = {}
    for number, box in zip(numbers.tolist(), ndimage.find_objects(codes), strict=True):
        rows, columns = box
        paths[int(number)] = _path(labels[box] == number, columns.start, rows.start)
    return paths


def bounded_contours(labels: np.ndarray, most_bytes: int) -> tuple[dict[int, str], int]:
    """Contours of a slice, of every second pixel only, or fourth, and so on, where more would be too long a text.

    Args:
        labels: (H, W), integer.
        most_bytes: characters that all paths may have.

    Returns:
        The paths, and how many pixels of `labels` one of their units is.
    """
    step = 1
    while True:
        shown = labels[step // 2 :: step, step // 2 :: step]
        if _crossings(shown) <= most_bytes:  # a border between two pixels takes two characters or more
            paths = contour_paths(shown)
            if sum(map(len, paths.values())) <= most_bytes:
                return paths, step
        step *= 2


def _crossings(labels: np.ndarray) -> int:
    """Borders between neighbouring pixels of two labels."""
    return sum(int(np.count_nonzero(np.diff(labels.astype(np.int32), axis=axis))) for axis in (0, 1))


def _path(mask: np.ndarray, left: int, top: int) -> str:
    """Path data of a mask (H, W) whose first pixel is at (left, top)."""
    width = mask.shape[1] + 1  # of the grid of corners
    leaving, second = _leaving(mask, width)
    moves = [dx + dy * width for dx, dy in _STEPS]
    parts = []
    while leaving:
        start, first = next(iter(leaving.items()))
        parts.append(f"M{left + start % width} {top + start // width}")
        corner, heading, length = start, first, 0
        while True:
            if corner in second and leaving[corner] != heading:
                del second[corner]
            elif corner in second:
                leaving[corner] = second.pop(corner)
            else:
                del leaving[corner]
            corner += moves[heading]
            length += 1
            ways = {leaving.get(corner), second.get(corner), first if corner == start else None}
            turned = (heading + 1) % 4
            if turned not in ways:
                turned = heading if heading in ways else (heading + 3) % 4
            if turned != heading:
                parts.append(_run(heading, length))
                length = 0
            if corner == start and turned == first:
                break
            heading = turned
        parts.append("z")
    return "".join(parts)


def _leaving(mask: np.ndarray, width: int) -> tuple[dict[int, int], dict[int, int]]:
    """For each corner of the grid, the direction in which a border leaves it with the mask on its right.

    Where pixels touch at a corner alone there are two; the other one is in the second dictionary.
    """
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    sides = (
        (inside & ~padded[:-2, 1:-1], 0, 0, 0),
        (inside & ~padded[1:-1, 2:], 0, 1, 1),
        (inside & ~padded[2:, 1:-1], 1, 1, 2),
        (inside & ~padded[1:-1, :-2], 1, 0, 3),
    )
    leaving: dict[int, int] = {}
    second: dict[int, int] = {}
    for border, down, across, heading in sides:
        rows, columns = np.nonzero(border)
        for corner in ((rows + down) * width + columns + across).tolist():
            (second if corner in leaving else leaving)[corner] = heading
    return leaving, second


def _run(heading: int, length: int) -> str:
    dx, dy = _STEPS[heading]
    return f"h{dx * length}" if dx else f"v{dy * length}"
