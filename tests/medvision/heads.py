"""Label maps of heads made from nothing, with FreeSurfer ids inside the skull and ids from 500 outside it."""

from pathlib import Path

import numpy as np

from tests.medvision.phantoms import make_affine, write_scan

IDS = (0, 2, 3, 4, 7, 8, 10, 16, 17, 24, 41, 42, 43, 46, 47, 49, 53, 502, 507)


def make_head_labels(side: int = 48) -> np.ndarray:
    """Ellipsoids in each other, axes RAS: every structure of `brain-structures`, a skull (507) and a scalp (502)."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")

    def ball(centre, radius):
        (a, b, c) = centre
        return (np.abs(x) - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2

    radius = np.sqrt(x**2 + (y / 1.1) ** 2 + z**2)
    labels = np.zeros((side,) * 3, np.int16)
    for outer, number in ((0.88, 502), (0.8, 507), (0.74, 24), (0.68, 3), (0.48, 2)):
        labels[radius < outer] = number
    labels[ball((0.3, -0.35, -0.45), 0.22)] = 8
    labels[ball((0.3, -0.35, -0.45), 0.12)] = 7
    labels[ball((0.15, 0.0, -0.05), 0.13)] = 10
    labels[ball((0.35, 0.1, -0.2), 0.12)] = 17
    labels[ball((0.12, 0.1, 0.25), 0.14)] = 4
    labels[(np.abs(x) < 0.14) & (np.abs(y + 0.15) < 0.14) & (np.abs(z + 0.5) < 0.2)] = 16
    for left, right in ((2, 41), (3, 42), (4, 43), (7, 46), (8, 47), (10, 49), (17, 53)):
        labels[(labels == left) & (x > 0)] = right
    return labels


def write_heads(folder: Path, *heads: np.ndarray) -> Path:
    """Write label maps with axes RAS (by default one head) at 1 mm into a folder; they are stored with axes LIA."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, head in enumerate(heads or (make_head_labels(),)):
        stored = head.transpose(0, 2, 1)[::-1, ::-1]
        write_scan(folder / f"head_{number}.nii.gz", stored, make_affine("LIA"))
    return folder
