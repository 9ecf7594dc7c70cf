"""Small volumes made from nothing, in every form that a header can take."""

import gzip
import io
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.mghformat import MGHImage
from nibabel.nifti1 import Nifti1Extension, Nifti1Header
from nibabel.nifti2 import Nifti2Header

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*axes)
]
SHAPE = (9, 10, 11)
TEXTS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")


def make_affine(orientation="RAS", spacing=(1.0, 1.0, 1.0), angles_deg=(0.0, 0.0, 0.0), origin=(-7.5, 11.25, 3.0)):
    """Affine (4, 4) of an orientation, its axes turned about x, y and z of the world by the angles."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        about = np.eye(3)
        about[first, first] = about[second, second] = np.cos(angle)
        about[first, second], about[second, first] = -np.sin(angle), np.sin(angle)
        turn = about @ turn
    directions = np.zeros((3, 3))
    for column, letter in enumerate(orientation):
        row = next(row for row, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        directions[row, column] = 1 if letter in "RAS" else -1
    affine = np.eye(4)
    affine[:3, :3] = turn @ directions * spacing
    affine[:3, 3] = origin
    return affine


def make_image(shape: tuple[int, ...] = SHAPE, dtype: npt.DTypeLike = np.int16, seed: int = 0) -> np.ndarray:
    """A bright noisy ellipsoid on a dark ground, values 0 to 200."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape[:3]), indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.6
    noise = np.random.default_rng(seed).integers(0, 50, shape)
    return (noise + 150 * inside.reshape(*inside.shape, *(1,) * (len(shape) - 3))).astype(dtype)


def make_labels(
    shape: tuple[int, ...] = SHAPE, count: int = 9, dtype: npt.DTypeLike = np.uint8, seed: int = 0
) -> np.ndarray:
    """Labels 0 to `count` drawn at random."""
    return np.random.default_rng(seed).integers(0, count + 1, shape).astype(dtype)


def nifti_bytes(
    data,
    affine=None,
    *,
    qform_code=1,
    sform_code=1,
    units=10,
    version=1,
    endianness="<",
    slope=np.nan,
    inter=np.nan,
    marker=None,
    fields=None,
):
    """A NIfTI file around an array.

    `marker` is planted in every text of the header and in an extension; `fields` are set on the header last.
    """
    header = (Nifti1Header if version == 1 else Nifti2Header)(endianness=endianness)
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    affine = make_affine() if affine is None else affine
    header.set_qform(affine, qform_code)
    header.set_sform(affine, sform_code)
    header["xyzt_units"] = units
    header["scl_slope"], header["scl_inter"] = slope, inter
    extension = b"\0\0\0\0"
    if marker:
        for text in TEXTS:
            if text in header.keys():  # noqa: SIM118 - a header is not a dict; `in` would walk over its values
                header[text] = marker
        header["intent_code"] = 1001
        content = io.BytesIO()
        Nifti1Extension("comment", marker.encode()).write_to(content, endianness == ">")
        extension = b"\1\0\0\0" + content.getvalue()
    header["vox_offset"] = header.single_vox_offset - 4 + len(extension)
    for key, value in (fields or {}).items():
        header[key] = value
    voxels = data.astype(data.dtype.newbyteorder(endianness)).tobytes(order="F")
    return header.binaryblock + extension + voxels


def write_file(path: Path, content: bytes) -> Path:
    """Write bytes, compressed where the name ends in `.gz`; the gzip header then holds the name, as gzip puts it."""
    if path.name.endswith(".gz"):
        with path.open("wb") as file, gzip.GzipFile(path.name[:-3], "wb", 1, file) as stream:
            stream.write(content)
    else:
        path.write_bytes(content)
    return path


def write_scan(path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = None, **header: Any) -> Path:
    """Write an array (by default `make_image()`) as NIfTI, or as MGH where the name says so; see `nifti_bytes`."""
    data = make_image() if data is None else data
    if path.suffix in (".mgz", ".mgh"):
        voxels: Any = data  # nibabel's declared array type is narrower than what it takes
        MGHImage(voxels, make_affine() if affine is None else affine).to_filename(path)
        return path
    return write_file(path, nifti_bytes(data, affine, **header))


def load(path: Path) -> Any:
    """The image as nibabel sees it; its declared types know no volumes."""
    return nib.load(path)


def read_file(path: Path) -> bytes:
    """The file's bytes, decompressed where it is gzip."""
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
