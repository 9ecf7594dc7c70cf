"""Position embeddings: sine-cosine tables, and their resampling to another grid."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LARGEST_TABLE = 2**26  # numbers


def sine_cosine(positions: Tensor, width: int) -> Tensor:
    """Sine-cosine code of positions along one axis (arXiv 1706.03762, section 3.5): all sines, then all cosines.

    Args:
        positions: `(N,)`, on the CPU; angles are computed in float32 for float32 positions, in float64 for integers.
        width: even number of columns of the code; frequencies are 10000 ** (-2 i / width).

    Returns:
        `(N, width)` float32, on torch's default device.

    Raises:
        ValueError: the width is odd, or the table too large for a network's.
    """
    if width % 2:
        raise ValueError(f"width {width} of a sine-cosine code: expected an even number")
    check_table(len(positions), width)
    # numpy's promotion, sines and cosines: published tables were made so, and torch rounds otherwise
    angles = np.outer(positions.numpy(), frequencies(width))
    return torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32))


def check_table(places: int, width: int) -> None:
    """Raise a ValueError where a table of positions is too large for a network's, before it is computed."""
    if places * width > _LARGEST_TABLE:
        raise ValueError(f"{places} places of {width} channels are too many; expected {_LARGEST_TABLE} numbers at most")


def frequencies(width: int) -> np.ndarray:
    """Frequencies of a sine-cosine code, `(width // 2,)` float32.

    Powers are rounded from float64: those of float32 differ by a last digit from one kind of processor to another.
    """
    half = np.arange(width // 2, dtype=np.float32) / np.float32(width / 2)
    return np.float32(1) / np.power(10000.0, half.astype(np.float64)).astype(np.float32)


def sine_cosine_2d(grid: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine codes of a grid's places in raster order: the first half codes the column, the second the row.

    Args:
        grid: rows and columns.
        width: number of columns of the codes, a multiple of 4.

    Returns:
        `(rows * columns, width)` float32.

    Raises:
        ValueError: the width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width} of a 2-D sine-cosine code: expected a multiple of 4")
    places = (torch.arange(length, dtype=torch.float32, device="cpu") for length in grid)
    rows, columns = torch.meshgrid(*places, indexing="ij")
    return torch.cat([sine_cosine(axis.flatten(), width // 2) for axis in (columns, rows)], 1)


def fit_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A table behind one row for a class token: as it is where it fits the grid, else resampled from a square one.

    One that fits neither way is returned as it is, and is refused for its shape by whoever loads it.
    """
    places = table.shape[1] - 1
    side = math.isqrt(places)
    if places == grid[0] * grid[1] or side * side != places:
        return table
    return resample_positions(table.float(), (side, side), grid)


def resample_positions(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """A table of positions for another grid, by bicubic interpolation; rows in front of the grid's stay as they are.

    Args:
        table: `(1, extra + rows * columns, width)` for the `source` grid (rows, columns).
        source: grid it was made for.
        target: grid wanted.

    Returns:
        `(1, extra + target rows * columns, width)`.
    """
    if source == target:
        return table
    extra = table.shape[1] - source[0] * source[1]
    plane = table[:, extra:].transpose(1, 2).unflatten(2, source)
    plane = F.interpolate(plane, target, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :extra], plane.flatten(2).transpose(1, 2)], 1)
