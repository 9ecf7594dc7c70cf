"""Patches of drawn volumes, cut without waiting for the volume's device."""

from collections.abc import Sequence

import torch
from torch import Tensor

_MARGIN = 16  # voxels by which a patch at the brain may reach beyond where it covers most of it


def patches_of(
    image: Tensor,
    targets: Tensor,
    *,
    size: Sequence[int],
    count: int,
    border_share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Random patches: most at the brain, the others anywhere, as a rule at the face, the neck or the border.

    Args:
        image: `(X, Y, Z)` float32, axes RAS.
        targets: `(X, Y, Z)` uint8; what is not 0 is the brain.
        size: voxels of a patch along the three axes.
        count: number of patches.
        border_share: probability that a patch is placed without regard to the brain.
        generator: source of all random choices, on the CPU.

    Returns:
        images `(count, *size)` and targets `(count, *size)`, 0 beyond the volume.
    """
    boxes = [_extent(targets > 0, axis) for axis in range(3)]
    images, labels = [], []
    for _ in range(count):
        anywhere = bool(torch.rand((), generator=generator) < border_share)
        starts = [
            _anywhere(n, side, axis, generator) if anywhere else _near(box, side, generator)
            for axis, (n, side, box) in enumerate(zip(image.shape, size, boxes, strict=True))
        ]
        images.append(cut(image, starts, size))
        labels.append(cut(targets, starts, size))
    return torch.stack(images), torch.stack(labels)


def cut(volume: Tensor, starts: Sequence[int | Tensor], size: Sequence[int]) -> Tensor:
    """The box of `size` voxels that begins at `starts`, integers on the volume's device; 0 beyond the volume."""
    for axis, (start, side) in enumerate(zip(starts, size, strict=True)):
        n = volume.shape[axis]
        at = start + torch.arange(side, device=volume.device)
        inside = ((at >= 0) & (at < n)).view([-1 if other == axis else 1 for other in range(3)])
        volume = volume.index_select(axis, at.clamp(0, n - 1)) * inside
    return volume


def _extent(mask: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and last index of the true voxels along an axis, on the mask's device; those of the axis where none is."""
    filled = mask.amax([other for other in range(3) if other != axis])
    index, empty = torch.arange(len(filled), device=mask.device), ~filled.any()
    first = torch.where(filled | empty, index, len(filled)).amin()
    return first, torch.where(filled | empty, index, -1).amax()


def _near(box: tuple[Tensor, Tensor], side: int, generator: torch.Generator) -> Tensor:
    """Start of a patch that covers the brain along this axis or, where it is smaller, lies in it."""
    first, last = box
    low, high = torch.minimum(first, last + 1 - side), torch.maximum(first, last + 1 - side)
    place = float(torch.rand((), generator=generator))
    return (low - _MARGIN + place * (high - low + 2 * _MARGIN)).round().long()


def _anywhere(n: int, side: int, axis: int, generator: torch.Generator) -> int:
    """Start of a patch anywhere in the volume; half of them at an end, more at the front and below: face and neck."""
    room = n - side
    if room <= 0:
        return room // 2
    if torch.rand((), generator=generator) < 0.5:
        first = 0.25 if axis == 1 else 0.75 if axis == 2 else 0.5
        return 0 if torch.rand((), generator=generator) < first else room
    return int(torch.randint(room + 1, (), generator=generator))
