"""The interactive viewer of a page: its program, and a display copy of the scan and its labels.

The program is package data that `make viewer` builds from `apps/review/`. Where it was not built, pages do without.
"""

import gzip
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from medvision.pictures.colours import contour_colours
from medvision.volumes.geometry import Grid
from pipelines.report.grey_levels import GreyLevels
from pipelines.report.page import source_digest
from pipelines.report.sections import Block, Embedded, data_uri, hex_colour
from shared_backbones.card import ClassEntry

_COMPRESSION = 4  # of gzip: within 1 % of the default's size, in half the time or less
_LABELS = 1002  # NIfTI's intent of labels; NiiVue draws contours of no other volume
_MOST_VOXELS = 20_000_000  # that a graphics card and a page can take
_FEWEST_VOXELS = 1_000  # of a reduced scan; below this there is nothing to look at
_MOST_STRUCTURES = 255
_SAMPLED = 8  # every eighth slice tells how well the rest will compress


@dataclass(frozen=True)
class Program:
    """The viewer's program: `packed` is its gzip file, `digest` allows it in a policy, `notices` are its licences."""

    packed: bytes
    digest: str
    notices: str


@cache
def viewer_program() -> Program | None:
    """The built program, or None where this installation came without it."""
    assets = resources.files("pipelines.report") / "assets"
    try:
        packed = (assets / "viewer.js.gz").read_bytes()
        notices = (assets / "viewer-licenses.txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Program(packed, source_digest(gzip.decompress(packed).decode()), notices)


@dataclass(frozen=True)
class Structure:
    """A structure that the viewer shows.

    Attributes:
        code: Its value in the label volume.
        name: Its name.
        rgb: Colour of its contours.
        point_mm: A point inside it in scanner coordinates; None where it has no voxel.
    """

    code: int
    name: str
    rgb: tuple[int, int, int]
    point_mm: list[float] | None

    @property
    def colour(self) -> str:
        """The colour as a page writes it."""
        return hex_colour(self.rgb)


@dataclass(frozen=True)
class Viewer(Block):
    """The viewer as a block of a page: the display copy, how it was made, windows and structures.

    Attributes:
        program: The viewer's program.
        scan: The reduced scan, compressed NIfTI.
        labels: The reduced labels, compressed NIfTI.
        reference: The reduced labels to compare with, compressed NIfTI; None where there are none.
        reference_name: What they are, such as "reference".
        certainty: The reduced certainty of the labels, 0 to 255, compressed NIfTI; None where it is not known.
        structures: Structures in the order of their codes.
        windows: (black, white) of each window, by name.
        factors: How many voxels of the scan became one along each axis.
        shape: Voxels of the display copy.
        unit: Unit of the intensities; empty where there is none.
        step: Difference of two neighbouring intensities of the display copy.
        grey: Which intensities the display copy holds, in words.
    """

    program: Program
    scan: bytes
    labels: bytes
    reference: bytes | None
    reference_name: str
    certainty: bytes | None
    structures: Sequence[Structure]
    windows: Mapping[str, tuple[float, float]]
    factors: tuple[int, int, int]
    shape: tuple[int, ...]
    unit: str
    step: float
    grey: str
    macro: ClassVar[str] = "viewer"

    @property
    def copy(self) -> str:
        """How the display copy was reduced, in words."""
        if self.factors == (1, 1, 1):
            return "all voxels"
        factors, shape = (" × ".join(map(str, sizes)) for sizes in (self.factors, self.shape))
        return f"reduced {factors} to {shape} voxels (means; the most frequent label)"

    @property
    def embedded(self) -> list[Embedded]:
        """What the page holds for the viewer's script."""
        structures = [
            {"code": each.code, "name": each.name, "color": each.rgb, "mm": each.point_mm} for each in self.structures
        ]
        data = {
            "unit": self.unit,
            "step": self.step,
            "windows": list(self.windows.values()),
            "structures": structures,
        }
        files = {"program": self.program.packed, "scan": self.scan, "labels": self.labels}
        files |= {"reference": self.reference} if self.reference is not None else {}
        files |= {"certainty": self.certainty} if self.certainty is not None else {}
        return [
            Embedded("viewer-data", "application/json", htmlsafe_json_dumps(data, sort_keys=True)),
            *(
                Embedded(f"viewer-{name}", "text/plain", data_uri(content, "application/gzip"))
                for name, content in files.items()
            ),
        ]


def make_viewer(
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    classes: Sequence[ClassEntry],
    *,
    modality: str,
    window: tuple[float, float],
    room: int,
    reference: np.ndarray | None = None,
    reference_name: str = "reference",
    certainty: np.ndarray | None = None,
) -> Viewer | None:
    """A viewer of a display copy of a scan and its labels.

    Scan and labels are reduced by whole factors until both fit: the scan by the mean of each block of voxels, the
    labels by the most frequent one (of equally frequent ones the highest id, so that thin structures stay).

    Args:
        image: Scan as it was read, (X, Y, Z).
        labels: Integer labels, (X, Y, Z).
        grid: Grid of both arrays.
        classes: Classes of the labels.
        modality: Modality according to the model's card; CT in HU gets the windows of CT.
        window: (black, white) of the page's pictures, the first of the windows.
        room: Bytes of the page that all of it may take, base64 included.
        reference: Integer labels to compare with, (X, Y, Z), the reference layer.
        reference_name: What they are.
        certainty: How certain each voxel's label is, uint8, (X, Y, Z); 255 is certain.

    Returns:
        None where the program was not built, the room does not suffice, or there are more than 255 structures.
    """
    program = viewer_program()
    names = {
        entry["id"]: str(entry["name"]) for entry in sorted(classes, key=lambda entry: entry["id"]) if entry["id"] != 0
    }
    if program is None or not 0 < len(names) <= _MOST_STRUCTURES:
        return None
    room -= _base64_size(len(program.packed)) + len(program.notices.encode()) + 400 * len(names) + 8_000
    scale = GreyLevels.of(image, modality)
    maps = [labels] if reference is None else [labels, reference]
    copy = _display_copy(image, maps, certainty, grid, list(names), scale, room * 3 // 4)
    if copy is None:
        return None
    points = _points_inside(copy.codes, _reduced_affine(grid, copy.factors), len(names))
    colours = contour_colours(classes)
    structures = [
        Structure(code, name, colours[number], points[code - 1])
        for code, (number, name) in enumerate(names.items(), start=1)
    ]
    return Viewer(
        program,
        copy.scan,
        copy.labels[0],
        copy.labels[1] if len(copy.labels) > 1 else None,
        reference_name,
        copy.certainty,
        structures,
        {"as in the pictures": window, **scale.windows(image)},
        copy.factors,
        copy.codes.shape,
        scale.unit,
        scale.step,
        scale.description,
    )


@dataclass(frozen=True)
class _Copy:
    """A reduced scan and its label maps: factors of the reduction, the first's codes from 1, and all as files."""

    factors: tuple[int, int, int]
    codes: np.ndarray
    scan: bytes
    labels: list[bytes]
    certainty: bytes | None


def _display_copy(
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    certainty: np.ndarray | None,
    grid: Grid,
    ids: Sequence[int],
    scale: GreyLevels,
    most_bytes: int,
) -> _Copy | None:
    """The finest copy whose files stay below a size."""
    for factors in _factors(grid):
        if factors != (1, 1, 1) and np.prod(_reduced_shape(grid.shape, factors)) < _FEWEST_VOXELS:
            break
        sample = np.stack([*_mean_slices(image, factors, scale, _SAMPLED)], axis=-1)
        sampled = sample.shape[2] / _reduced_shape(grid.shape, factors)[2]
        if len(_compressed(sample.tobytes("F"))) > 1.05 * sampled * most_bytes:
            continue
        codes = [_as_codes(np.stack([*_mode_slices(map_, factors)], axis=-1), ids) for map_ in maps]
        label_files = [_nifti(each, grid, factors, intent=_LABELS) for each in codes]
        scan = np.stack([*_mean_slices(image, factors, scale)], axis=-1)
        scan_file = _nifti(scan, grid, factors, slope=scale.step, inter=scale.low)
        left = most_bytes - len(scan_file) - sum(map(len, label_files))
        if left < 0:
            continue
        certain = None if certainty is None else _nifti(_coarse(certainty, factors), grid, factors)
        return _Copy(factors, codes[0], scan_file, label_files, certain if certain and len(certain) <= left else None)
    return None


def _coarse(certainty: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """The mean certainty of each block, in steps of 1/15: more shows nothing, and takes more room."""
    means = [blocks.mean(axis=0, dtype=np.float32) for blocks in _blocks(certainty, factors)]
    return (np.rint(np.stack(means, axis=-1) / 17) * 17).astype(np.uint8)


def _factors(grid: Grid) -> Iterator[tuple[int, int, int]]:
    """Ever coarser factors of reduction: the axis with the finest spacing is always the next to be cut further."""
    factors = [1, 1, 1]
    while any(factor < size for factor, size in zip(factors, grid.shape, strict=True)):
        if np.prod(_reduced_shape(grid.shape, factors)) <= _MOST_VOXELS:
            yield factors[0], factors[1], factors[2]
        reduced_mm = [
            (round(spacing * factor, 3) if factor < size else np.inf)
            for spacing, factor, size in zip(grid.spacing_mm, factors, grid.shape, strict=True)
        ]
        factors[int(np.argmin(reduced_mm))] += 1


def _reduced_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True))


def _reduced_affine(grid: Grid, factors: Sequence[int]) -> np.ndarray:
    """Affine whose voxel centres are the centres of the blocks."""
    step = np.diag([*map(float, factors), 1.0])
    step[:3, 3] = [(factor - 1) / 2 for factor in factors]
    return grid.affine @ step


def _mean_slices(
    image: np.ndarray, factors: tuple[int, int, int], scale: GreyLevels, every: int = 1
) -> Iterator[np.ndarray]:
    """Slices of the reduced scan as codes, one in `every`."""
    for blocks in _blocks(image, factors, every):
        yield scale.codes(blocks.mean(axis=0, dtype=np.float32))


def _mode_slices(labels: np.ndarray, factors: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Slices of the reduced labels: in each block the most frequent one, of several the highest."""
    for blocks in _blocks(labels, factors):
        mode = blocks.max(axis=0)
        mixed = blocks.min(axis=0) != mode
        rows = np.sort(blocks[:, mixed].T, axis=1)[:, ::-1]
        first = np.ones(rows.shape, bool)
        first[:, 1:] = rows[:, 1:] != rows[:, :-1]
        starts = np.flatnonzero(first)
        lengths = np.zeros(rows.shape, np.int64)
        lengths.flat[starts] = np.diff(starts, append=rows.size)
        mode[mixed] = rows[np.arange(len(rows)), lengths.argmax(axis=1)]
        yield mode


def _as_codes(labels: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Labels as numbers from 1 in the order of `ids`; 0 where they are none of them."""
    codes = np.zeros(max(int(labels.max()), *ids) + 1, np.uint8)
    codes[ids] = np.arange(1, len(ids) + 1)
    return codes[labels]


def _blocks(volume: np.ndarray, factors: tuple[int, int, int], every: int = 1) -> Iterator[np.ndarray]:
    """For one in `every` slices of a reduced volume (voxels in a block, X, Y): its voxels, by their place in a block.

    A block that the volume's border cuts off is filled up with its last voxels.
    """
    across, along, through = factors
    missing = [(0, -size % factor) for size, factor in zip(volume.shape[:2], (across, along), strict=True)]
    for first in range(0, volume.shape[2], through * every):
        slab = volume[:, :, first : first + through]
        if any(end for _, end in missing):
            slab = np.pad(slab, [*missing, (0, 0)], mode="edge")
        places = itertools.product(range(across), range(along), range(slab.shape[2]))
        yield np.stack([slab[x::across, y::along, z] for x, y, z in places])


def _points_inside(codes: np.ndarray, affine: np.ndarray, count: int) -> list[list[float] | None]:
    """For each code from 1, of its voxels the one nearest to their centroid, in scanner mm; None where it has none."""
    from scipy import ndimage

    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    points: list[list[float] | None] = []
    for code, box in enumerate(ndimage.find_objects(codes, count), start=1):
        if box is None:
            points.append(None)
            continue
        voxels = np.argwhere(codes[box] == code)
        distance = (((voxels - voxels.mean(axis=0)) * spacing_mm) ** 2).sum(axis=1)
        voxel = voxels[distance.argmin()] + [part.start for part in box]
        points.append([round(float(mm), 3) for mm in (affine @ [*voxel, 1.0])[:3]])
    return points


def _nifti(
    data: np.ndarray, grid: Grid, factors: tuple[int, int, int], slope: float = 1.0, inter: float = 0.0, intent: int = 0
) -> bytes:
    """A compressed NIfTI file whose header has geometry, scale and intent, and nothing else."""
    header = Grid.from_affine(data.shape, _reduced_affine(grid, factors)).header
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(slope, inter)
    header["intent_code"] = intent
    header["vox_offset"] = header.single_vox_offset
    return _compressed(header.binaryblock + bytes(4) + data.tobytes("F"))


def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, _COMPRESSION, mtime=0)


def _base64_size(size: int) -> int:
    return -(-size // 3) * 4
