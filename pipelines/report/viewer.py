"""The interactive viewer of a page: its program, and a display copy of the scan and its labels.

The program is package data that `make viewer` builds from `apps/review/`. Where it was not built, pages do without.
"""

import base64
import gzip
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from medvision.pictures.overlays import class_colours
from medvision.volumes.geometry import Grid
from pipelines.report.page import source_digest

_LEVELS = 255  # of grey
_HU_LOW, _HU_STEP = -1024, 8  # up to 1016 HU
_WINDOWS_HU = {"soft tissue": (400, 40), "lung": (1500, -600), "bone": (1800, 400), "brain": (80, 40)}  # width, level
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


def viewer_content(
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    classes: Sequence[Mapping[str, Any]],
    *,
    modality: str | None,
    window: tuple[float, float],
    room: int,
) -> dict[str, Any] | None:
    """What `viewer.html.j2` shows: the display copy, how it was made, windows and structures.

    Scan and labels are reduced by whole factors until both fit: the scan by the mean of each block of voxels, the
    labels by the most frequent one (of equally frequent ones the highest id, so that thin structures stay).

    Args:
        image: (X, Y, Z), the scan as it was read.
        labels: (X, Y, Z), integer.
        grid: the grid of both.
        classes: dicts with `id`, `name` and, where known, `color`.
        modality: text of the model's card; CT in HU gets the windows of CT.
        window: (black, white) of the page's pictures, the first of the windows.
        room: bytes of the page that all of it may take, base64 included.

    Returns:
        None where the program was not built, the room does not suffice, or there are more than 255 structures.
    """
    program = viewer_program()
    entries = sorted((entry for entry in classes if int(entry["id"]) != 0), key=lambda entry: int(entry["id"]))
    if program is None or not 0 < len(entries) <= _MOST_STRUCTURES:
        return None
    room -= _base64_size(len(program.packed)) + len(program.notices.encode()) + 400 * len(entries) + 8_000
    scale = _Scale.of(image, modality)
    ids = [int(entry["id"]) for entry in entries]
    packed = _packed(image, labels, grid, ids, scale, room * 3 // 4)
    if packed is None:
        return None
    factors, reduced, scan_file, label_file = packed
    points = _points_inside(reduced, _reduced_affine(grid, factors), len(ids))
    colours = class_colours(classes)
    structures = [
        {"code": code, "id": number, "name": str(entry["name"]), "color": colours[number], "mm": points[code - 1]}
        for code, (number, entry) in enumerate(zip(ids, entries, strict=True), start=1)
    ]
    windows = {"as in the pictures": window, **scale.windows(image)}
    return {
        "program": _data_uri(program.packed, "gzip"),
        "digest": program.digest,
        "notices": program.notices,
        "scan": _data_uri(scan_file, "gzip"),
        "labels": _data_uri(label_file, "gzip"),
        "structures": structures,
        "windows": [(name, f"{low:.4g} to {high:.4g}") for name, (low, high) in windows.items()],
        "factors": factors,
        "shape": reduced.shape,
        "grey": scale.description,
        "data": {
            "unit": scale.unit,
            "step": scale.step,
            "windows": list(windows.values()),
            "structures": structures,
        },
    }


@dataclass(frozen=True)
class _Scale:
    """How intensities become bytes: an intensity is `low` plus a byte times `step`, in `unit`."""

    unit: str
    low: float
    step: float

    @classmethod
    def of(cls, image: np.ndarray, modality: str | None) -> "_Scale":
        low, high = np.percentile(_sample(image), (0, 99.95))
        if re.search(r"\bCT\b", modality or "") and high - low > 200:  # CT scaled to 0 to 1 is not in HU
            return cls("HU", float(_HU_LOW), float(_HU_STEP))
        return cls("", float(low), float(high - low) / _LEVELS or 1.0)

    @property
    def high(self) -> float:
        return self.low + _LEVELS * self.step

    @property
    def description(self) -> str:
        what = self.unit or "intensities"
        return f"{what} in steps of {self.step:.3g}, cut off at {self.low:.4g} and {self.high:.4g}".replace("-", "−")

    def codes(self, values: np.ndarray) -> np.ndarray:
        codes = (np.nan_to_num(values, nan=self.low) - self.low) / self.step
        return np.rint(np.clip(codes, 0, _LEVELS)).astype(np.uint8)

    def windows(self, image: np.ndarray) -> dict[str, tuple[float, float]]:
        if self.unit:
            return {name: (level - width / 2, level + width / 2) for name, (width, level) in _WINDOWS_HU.items()}
        sample = _sample(image)
        bright = sample[sample > self.low + 0.02 * (self.high - self.low)]
        low, high = np.percentile(bright if bright.size else sample, (5, 95))
        narrow = (float(low), float(high) if high > low else float(low) + self.step)
        return {"percentiles 5 to 95": narrow, "full range": (self.low, self.high)}


def _packed(
    image: np.ndarray, labels: np.ndarray, grid: Grid, ids: Sequence[int], scale: _Scale, most_bytes: int
) -> tuple[tuple[int, int, int], np.ndarray, bytes, bytes] | None:
    """The finest copy whose two files stay below a size: factors, labels as codes from 1, and the files."""
    for factors in _factors(grid):
        if factors != (1, 1, 1) and np.prod(_reduced_shape(grid.shape, factors)) < _FEWEST_VOXELS:
            break
        sample = np.stack([*_mean_slices(image, factors, scale, _SAMPLED)], axis=-1)
        share = sample.shape[2] / _reduced_shape(grid.shape, factors)[2]
        if len(_compressed(sample.tobytes("F"))) > 1.05 * share * most_bytes:
            continue
        reduced = _as_codes(np.stack([*_mode_slices(labels, factors)], axis=-1), ids)
        label_file = _nifti(reduced, grid, factors, intent=_LABELS)
        scan = np.stack([*_mean_slices(image, factors, scale)], axis=-1)
        scan_file = _nifti(scan, grid, factors, slope=scale.step, inter=scale.low)
        if len(scan_file) + len(label_file) <= most_bytes:
            return factors, reduced, scan_file, label_file
    return None


def _factors(grid: Grid) -> Iterator[tuple[int, int, int]]:
    """Ever coarser factors of reduction: the axis with the shortest edge is always the next to be cut further."""
    factors = [1, 1, 1]
    while any(factor < size for factor, size in zip(factors, grid.shape, strict=True)):
        if np.prod(_reduced_shape(grid.shape, factors)) <= _MOST_VOXELS:
            yield factors[0], factors[1], factors[2]
        edges = [
            (round(edge * factor, 3) if factor < size else np.inf)
            for edge, factor, size in zip(grid.spacing_mm, factors, grid.shape, strict=True)
        ]
        factors[int(np.argmin(edges))] += 1


def _reduced_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True))


def _reduced_affine(grid: Grid, factors: Sequence[int]) -> np.ndarray:
    """Affine whose voxel centres are the centres of the blocks."""
    step = np.diag([*map(float, factors), 1.0])
    step[:3, 3] = [(factor - 1) / 2 for factor in factors]
    return grid.affine @ step


def _mean_slices(
    image: np.ndarray, factors: tuple[int, int, int], scale: _Scale, every: int = 1
) -> Iterator[np.ndarray]:
    """Every so manieth slice of the reduced scan, as codes."""
    for blocks in _blocks(image, factors, every):
        yield scale.codes(blocks.mean(axis=0, dtype=np.float32))


def _mode_slices(labels: np.ndarray, factors: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Slices of the reduced labels: in each block the most frequent one, of several the highest."""
    for blocks in _blocks(labels, factors):
        found = blocks.max(axis=0)
        mixed = blocks.min(axis=0) != found
        rows = np.sort(blocks[:, mixed].T, axis=1)[:, ::-1]
        first = np.ones(rows.shape, bool)
        first[:, 1:] = rows[:, 1:] != rows[:, :-1]
        starts = np.flatnonzero(first)
        lengths = np.zeros(rows.shape, np.int64)
        lengths.flat[starts] = np.diff(starts, append=rows.size)
        found[mixed] = rows[np.arange(len(rows)), lengths.argmax(axis=1)]
        yield found


def _as_codes(labels: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Labels as numbers from 1 in the order of `ids`; 0 where they are none of them."""
    codes = np.zeros(max(int(labels.max()), *ids) + 1, np.uint8)
    codes[ids] = np.arange(1, len(ids) + 1)
    return codes[labels]


def _blocks(volume: np.ndarray, factors: tuple[int, int, int], every: int = 1) -> Iterator[np.ndarray]:
    """For every so manieth slice of a reduced volume (voxels in a block, X, Y): its voxels, by their place in a block.

    A block that the volume's edge cuts off is filled up with its last voxels.
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

    edges = np.linalg.norm(affine[:3, :3], axis=0)
    points: list[list[float] | None] = []
    for code, box in enumerate(ndimage.find_objects(codes, count), start=1):
        if box is None:
            points.append(None)
            continue
        voxels = np.argwhere(codes[box] == code)
        distance = (((voxels - voxels.mean(axis=0)) * edges) ** 2).sum(axis=1)
        voxel = voxels[distance.argmin()] + [part.start for part in box]
        points.append([round(float(mm), 3) for mm in (affine @ [*voxel, 1.0])[:3]])
    return points


def _nifti(
    data: np.ndarray, grid: Grid, factors: tuple[int, int, int], slope: float = 1.0, inter: float = 0.0, intent: int = 0
) -> bytes:
    """A compressed NIfTI file whose header has geometry, scale and intent, and nothing else."""
    header = Grid.from_affine(data.shape, _reduced_affine(grid, factors)).header  # type: ignore[arg-type]
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(slope, inter)
    header["intent_code"] = intent
    header["vox_offset"] = header.single_vox_offset
    return _compressed(header.binaryblock + bytes(4) + data.tobytes("F"))


def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, _COMPRESSION, mtime=0)


def _sample(image: np.ndarray) -> np.ndarray:
    """About a million finite voxels, or one 0 where there are none."""
    step = max(1, round((image.size / 1e6) ** (1 / 3)))
    sample = image[::step, ::step, ::step].astype(np.float32)
    finite = sample[np.isfinite(sample)]
    return finite if finite.size else np.zeros(1, np.float32)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:application/{kind};base64," + base64.b64encode(content).decode()


def _base64_size(size: int) -> int:
    return -(-size // 3) * 4
