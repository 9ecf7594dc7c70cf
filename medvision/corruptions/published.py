"""Published files of MedMNIST-C (Zenodo 11471504): a file for each corruption, with five severities of every image."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import IO

import numpy as np

from medvision.arrays import read_header
from shared_backbones.errors import InputError
from shared_backbones.files import brief, check_regular, printable
from shared_backbones.memory import expect

_MOST_LABELS = 10**8
_DAMAGE = (ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read_corrupted(path: str | PathLike[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The five severities of a published file of MedMNIST-C (Zenodo 11471504), one after the other.

    Such a file, `<data set>/<corruption>.npz`, holds `test_images` and `test_labels` of all severities, 1 first.
    Only one severity is in memory at a time.

    Args:
        path: the `.npz` file.

    Yields:
        Images `(N, H, W)` or `(N, H, W, 3)` uint8 and labels `(N, L)` int64, five times.

    Raises:
        InputError: when called: no such file, or it lacks these arrays, they have another dtype or shape, or the labels
            of a severity are not those of the first; on the way: the file is damaged.
    """
    name = printable(path)
    shape, dtype, labels, described = _read_arrays(path, name)
    if dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)):
        raise InputError(f"{name}: test_images are {dtype} of shape {shape}; expected uint8 (5 N, H, W) or (..., 3)")
    if not len(labels) or len(labels) != shape[0] or len(labels) % 5 or not math.prod(shape):
        raise InputError(
            f"{name}: test_labels are {described} for {shape[0]} images; expected one row of integers for each, 5 "
            "times as many as test images"
        )
    expect(math.prod(shape) // 5, name, "one severity of its images")
    labels = labels.astype(np.int64).reshape(5, shape[0] // 5, -1)
    if (labels != labels[0]).any():
        raise InputError(f"{name}: test_labels change with the severity; expected the same ones five times")
    return _severities(path, (shape[0] // 5, *shape[1:]), labels)


def _read_arrays(path: str | PathLike[str], name: str) -> tuple[tuple[int, ...], np.dtype, np.ndarray, str]:
    """Shape and type of the images, the labels (none where they are no rows of integers), and the labels' header."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            missing = {"test_images.npy", "test_labels.npy"} - set(archive.namelist())
            if missing:
                members = ", ".join(sorted(printable(member) for member in archive.namelist())[:5]) or "nothing"
                raise InputError(f"{name}: holds {members}; expected test_images.npy and test_labels.npy")
            with archive.open("test_images.npy") as member:
                shape, dtype = _header(member)
            with archive.open("test_labels.npy") as member:
                label_shape, label_dtype = _header(member)
                labels = np.zeros((0, 1))
                if label_dtype.kind in "iu" and len(label_shape) in (1, 2) and math.prod(label_shape) < _MOST_LABELS:
                    labels = np.frombuffer(_read(member, label_shape, label_dtype), label_dtype).reshape(label_shape)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); expected a .npz file") from None
    except _DAMAGE as error:
        raise InputError(f"{name}: is not a readable .npz file ({brief(error)}); copy or download it again") from None
    return shape, dtype, labels, f"{label_dtype} of shape {label_shape}"


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the array that an archive's member holds in C order; the member is then at its data."""
    shape, columns_first, dtype = read_header(member)
    if (columns_first and len(shape) > 1) or dtype.hasobject:
        raise ValueError("an array of objects, or in Fortran order")
    return shape, dtype


def _read(member: IO[bytes], shape: Sequence[int], dtype: np.dtype) -> bytes:
    size = math.prod(shape) * dtype.itemsize
    data = member.read(size)
    if len(data) != size:
        raise EOFError("its data are cut short")
    return data


def _severities(
    path: str | PathLike[str], shape: tuple[int, ...], labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("test_images.npy") as member:
            _header(member)
            for row in labels:
                yield np.frombuffer(_read(member, shape, np.dtype(np.uint8)), np.uint8).reshape(shape), row
    except (OSError, *_DAMAGE) as error:
        raise InputError(f"{printable(path)}: is damaged ({brief(error)}); copy or download it again") from None
