"""Voxels of a stack of slices: every file read once, and what is padding filled in."""

from collections import defaultdict

import numpy as np

from medvision.dicom.decoding import Decoder
from medvision.dicom.files import Member
from medvision.dicom.frames import Frame
from medvision.dicom.pixels import decode
from medvision.dicom.reading import read_whole
from medvision.dicom.stacks import Stack
from medvision.volumes.voxels import LARGEST_VALUE
from shared_backbones.errors import InputError


def read_voxels(
    stack: Stack, name: str, max_bytes: int, *, skip_unreadable: bool
) -> tuple[np.ndarray, dict[Member, str], list[Member]]:
    """Voxels (columns, rows, slices) float32, the digest of each file, and the files that cannot be read.

    Args:
        stack: the slices.
        name: how errors call the series.
        max_bytes: largest size of a file.
        skip_unreadable: list files that cannot be read; their slices are then left as they are.

    Raises:
        InputError: a file cannot be read, or the values cannot be used.
    """
    data = np.empty(stack.shape, np.float32, order="F")
    positions: dict[Member, list[tuple[int, Frame]]] = defaultdict(list)
    for index, frame in enumerate(stack.frames):
        positions[frame.member].append((index, frame))
    digests, lost = {}, []
    with Decoder() as decoder:
        for member, placed in positions.items():
            try:
                dataset, digests[member] = read_whole(member, max_bytes)
                decoded = decode(dataset, [frame for _, frame in placed], member.name, decoder)
                for (index, _), (_, values) in zip(placed, decoded, strict=True):
                    data[:, :, index] = values
                del dataset, decoded  # before the next file is read
            except InputError as error:
                if len(positions) == 1:
                    raise
                if not skip_unreadable:
                    raise InputError(f"{error}; or use --skip-unreadable to leave it out") from None
                lost.append(member)
    if not lost:
        _fill_padding(data, name)
        _check_values(data, name)
    return data, digests, lost


def _fill_padding(data: np.ndarray, name: str) -> None:
    """Put the lowest value in place of NaN, slice by slice."""
    slices = [data[:, :, index] for index in range(data.shape[2])]
    lowest = np.fmin.reduce([np.fmin.reduce(plane, axis=None) for plane in slices])
    if np.isnan(lowest):
        raise InputError(f"{name}: every pixel is padding; expected an image; check how the series was exported")
    for plane in slices:
        plane[np.isnan(plane)] = lowest


def _check_values(data: np.ndarray, name: str) -> None:
    low, high = float(data.min()), float(data.max())
    if not max(abs(low), abs(high)) <= LARGEST_VALUE:
        raise InputError(
            f"{name}: its slope and intercept give values beyond {LARGEST_VALUE:g}; expected smaller ones; "
            "export it again"
        )
    if low == high:
        raise InputError(f"{name}: every voxel is {low:g}; expected an image; check how the series was exported")
