"""Volumes written as NIfTI-1 and NIfTI-2 files."""

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from medvision.volumes.geometry import Grid
from medvision.volumes.names import scan_suffix
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

_BLOCK = 1 << 22  # bytes written at a time


def write_volume(
    path: str | os.PathLike[str], data: np.ndarray, grid: Grid, *, slope: float = 1.0, description: str = ""
) -> None:
    """Write numbers as `.nii` or `.nii.gz` on a grid, with a header made from scratch.

    The file appears complete or not at all, and equal input gives equal bytes.

    Args:
        path: file to write; replaced where it exists. Its folder must exist.
        data: (X, Y, Z) or (X, Y, Z, C) integers, or floating-point numbers, on `grid`.
        grid: Grid, whose qform, sform, codes, voxel sizes and units are written exactly.
        slope: factor by which a reader has to multiply, such as 1/255 for probabilities stored as uint8.
        description: text of at most 79 ASCII letters that the header has room for.

    Raises:
        InputError: the file cannot be written.
    """
    volumes = [data] if data.ndim == 3 else (data[..., channel] for channel in range(data.shape[3]))
    _write(path, volumes, data.shape, data.dtype, grid, slope, description)


def write_stack(
    path: str | os.PathLike[str],
    volumes: Iterable[np.ndarray],
    count: int,
    dtype: np.typing.DTypeLike,
    grid: Grid,
    slope: float = 1.0,
) -> None:
    """Write `count` volumes (X, Y, Z) as one (X, Y, Z, C) file like `write_volume`, with one in memory at a time."""
    _write(path, volumes, (*grid.shape, count), np.dtype(dtype), grid, slope)


def _write(
    path: str | os.PathLike[str],
    volumes: Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: np.dtype,
    grid: Grid,
    slope: float,
    description: str = "",
) -> None:
    suffix = scan_suffix(Path(path).name)
    if suffix not in (".nii", ".nii.gz"):
        raise InputError(
            f"{printable(path)}: cannot be written in this format; expected a name ending in .nii.gz or .nii"
        )
    if shape[:3] != grid.shape or not (dtype.kind in "iu" or dtype in (np.float32, np.float64)):
        raise ValueError(f"expected numbers on the grid {grid.shape}, found {dtype} of shape {shape}")
    header = grid.header.copy()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = slope, 0
    header["descrip"] = description.encode("ascii")
    with replacing(path) as temporary, temporary.open("wb") as file:
        # An empty name and no time keep the gzip header free of both, and the bytes the same from run to run.
        packed = suffix == ".nii.gz"
        with gzip.GzipFile("", "wb", 1, file, mtime=0) if packed else nullcontext(file) as stream:
            stream.write(header.binaryblock.ljust(header.single_vox_offset, b"\0"))
            written = 0
            for volume in volumes:
                if volume.shape != grid.shape or volume.dtype != dtype:
                    raise ValueError(f"expected {dtype} of shape {grid.shape}, found {volume.dtype} {volume.shape}")
                for slab in _slabs(volume):
                    stream.write(slab)
                written += 1
                del volume  # its memory is free before a generator makes the next one
            if written != int(np.prod(shape[3:])):
                raise ValueError(f"expected {shape[3:]} volumes, found {written}")


def _slabs(volume: np.ndarray) -> Iterator[bytes]:
    """The volume's little-endian bytes, first axis fastest, a few MB at a time."""
    thickness = max(1, _BLOCK // (volume[..., 0].size * volume.itemsize))
    for start in range(0, volume.shape[2], thickness):
        slab = volume[:, :, start : start + thickness]
        yield slab.astype(volume.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
