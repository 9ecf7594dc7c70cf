"""Training patches of labelled volumes, and those that cover a volume for validation."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medvision.datasets.slices import Augment, Volumes
from medvision.sliding_windows import window_starts

_PLACES = 10_000  # voxels of a class in a volume that patches are centred on, drawn once


class RandomPatches(Dataset[tuple[Tensor, Tensor]]):
    """Patches of labelled volumes, drawn by a seed.

    Item `i` of `N` volumes is a patch anywhere in volume `i`; item `N + i` has a voxel of a class at its centre, where
    each class of the volume has the same chance, as nnU-Net (arXiv 1904.08128) draws a third of its patches.

    Args:
        volumes: Images and labels.
        size: Voxels of a patch along the three axes; a smaller volume is padded with 0, and labels with background.
        augment: Varies a patch by its seed.

    Attributes:
        labelled: Which items have a class at their centre, of volumes that have one.
        anywhere: Numbers of the items that lie anywhere.
    """

    def __init__(self, volumes: Volumes, size: Sequence[int], augment: Augment | None = None) -> None:
        self.volumes, self.size, self.augment = volumes, tuple(size), augment
        count = len(volumes)
        present = [bool(volumes[number][1].any()) for number in range(count)]
        self.labelled = np.array([False] * count + present)
        self.anywhere = np.arange(count)
        self._places = lru_cache(maxsize=None)(self._find_places)

    def __len__(self) -> int:
        return 2 * len(self.volumes)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image `(C, X, Y, Z)` float32 and labels `(X, Y, Z)` uint8 of an item and a seed."""
        index, seed = key
        number = index % len(self.volumes)
        image, labels = self.volumes[number]
        random = np.random.default_rng(seed)
        if index < len(self.volumes):
            starts = [_anywhere(n, side, random) for n, side in zip(labels.shape, self.size, strict=True)]
        else:
            places = self._places(number)
            centre = random.choice(places[int(random.integers(len(places)))])
            starts = [
                _within(int(at) - side // 2, n, side)
                for at, n, side in zip(np.unravel_index(centre, labels.shape), labels.shape, self.size, strict=True)
            ]
        patch, target = patch_of(image, starts, self.size), patch_of(labels, starts, self.size)
        if self.augment is not None:
            patch, target = self.augment(patch, target, seed)
        return patch, target[0]

    def _find_places(self, number: int) -> list[np.ndarray]:
        """Flat indices of voxels of each class that a volume has."""
        flat = np.asarray(self.volumes[number][1]).ravel()
        places = [np.flatnonzero(flat == label) for label in np.unique(flat[flat > 0])]
        random = np.random.default_rng(number)
        return [each if len(each) <= _PLACES else np.sort(random.choice(each, _PLACES, False)) for each in places]


class CoveringPatches(Dataset[tuple[Tensor, Tensor]]):
    """Patches that together cover every volume; the last along an axis may overlap the one before.

    Args:
        volumes: Images and labels.
        size: Voxels of a patch along the three axes; a smaller volume is padded with 0, and labels with background.
    """

    def __init__(self, volumes: Volumes, size: Sequence[int]) -> None:
        self.volumes, self.size = volumes, tuple(size)
        self.rows: list[tuple[int, list[int]]] = []
        for number in range(len(volumes)):
            shape = volumes[number][1].shape
            axes = [
                window_starts(n, side, 0.0) if n > side else [_within(0, n, side)]
                for n, side in zip(shape, self.size, strict=True)
            ]
            self.rows += [(number, list(starts)) for starts in itertools.product(*axes)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image `(C, X, Y, Z)` float32 and labels `(X, Y, Z)` uint8."""
        number, starts = self.rows[index]
        image, labels = self.volumes[number]
        return patch_of(image, starts, self.size), patch_of(labels, starts, self.size)[0]


def patch_of(volume: np.ndarray, starts: Sequence[int], size: Sequence[int]) -> Tensor:
    """The box of `size` voxels that begins at `starts`; 0 beyond the volume, integers as uint8.

    Args:
        volume: `(X, Y, Z)`, or `(C, X, Y, Z)` of several channels.
        starts: first voxel along the axes.
        size: voxels along the axes.

    Returns:
        `(C, *size)`.
    """
    channels = volume if volume.ndim == 4 else volume[None]
    patch = np.zeros((len(channels), *size), np.uint8 if volume.dtype.kind in "bui" else np.float32)
    source, target = [], []
    for start, n, side in zip(starts, channels.shape[1:], size, strict=True):
        low, high = max(start, 0), min(start + side, n)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    patch[:, *target] = channels[:, *source]
    return torch.from_numpy(patch)


def _anywhere(n: int, side: int, random: np.random.Generator) -> int:
    return int(random.integers(n - side + 1)) if n > side else _within(0, n, side)


def _within(start: int, n: int, side: int) -> int:
    """The nearest start of a patch that lies in the volume, or that has the volume in its middle."""
    return min(max(start, 0), n - side) if n > side else -((side - n) // 2)
