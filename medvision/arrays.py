"""Arrays of NumPy archives and HDF5 files, judged by what their headers claim before a value is read."""

import math
import warnings
import zipfile
from typing import IO, Any

import numpy as np

from shared_backbones.errors import require
from shared_backbones.memory import expect


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of an array at whose start a file is; then it is at the values.

    Raises:
        ValueError: it is no such array.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has the format {version}, expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arrays that old programs wrote
        return read(file)


def read_member(archive: zipfile.ZipFile, name: str, label: str) -> np.ndarray:
    """An array of an archive, in rows; `label` names the file in messages.

    Raises:
        InputError: it takes more memory than the budget.
        Exception: whatever a damaged archive makes zipfile and NumPy raise.
    """
    with archive.open(f"{name}.npy") as file:
        shape, columns_first, dtype = read_header(file)
    copies = 1 + columns_first  # which are brought into rows
    expect(copies * math.prod(shape) * dtype.itemsize, label, name)
    with archive.open(f"{name}.npy") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False))


def read_dataset(file: Any, name: str, label: str) -> np.ndarray:
    """A data set of an open `h5py.File` that lies in the file itself; `label` names the file in messages.

    Raises:
        InputError: it takes more memory than the budget.
        KeyError: it is not there.
        ValueError: it is a link, or lies in other files.
        Exception: whatever a damaged file makes h5py raise.
    """
    hard_link, dataset = (getattr(require("h5py", "astro"), kind) for kind in ("HardLink", "Dataset"))
    if name not in file:
        raise KeyError(name)
    if not isinstance(file.get(name, getlink=True), hard_link) or not isinstance(file[name], dataset):
        raise ValueError(f"its {name} is no data set of its own")
    if file[name].external or file[name].is_virtual:
        raise ValueError(f"its {name} lies in other files")
    expect(file[name].size * file[name].dtype.itemsize, label, name)
    return file[name][()]
