"""Slices of a scan as grey PNG pictures, with the contours of its labels as vector paths over them."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medvision.pictures.colours import Colour
from medvision.pictures.contours import bounded_contours
from medvision.pictures.keyslices import (
    AXES,
    ShownSlice,
    SlicePlan,
    label_box,
    plan_slices,
    ras_affine,
    sample_intensities,
)
from medvision.volumes.geometry import Grid, to_ras

#: Colours of what differs: too much, missed, and labelled differently in both.
DIFFERENCE: dict[str, Colour] = {
    "only in the result": (255, 84, 70),
    "only in the reference": (86, 160, 255),
    "another structure": (255, 196, 61),
}

_OBLIQUE = math.sin(math.radians(15))  # from this tilt on, a second letter says where a border faces
_SMALLEST = 72  # pixels; a thinner picture is set on black so that its letters fit
_MARGIN_MM = 6.0
_PATHS = 2_400_000  # characters of all contours of a page


@dataclass(frozen=True)
class Contours:
    """Contours over a picture.

    Attributes:
        paths: SVG path data by label, large labels first, or by the number of a `DIFFERENCE` from 1.
        scale: Pixels of the picture, across and down, that one unit of the paths is.
        origin: Place in the picture of the paths' (0, 0).
    """

    paths: Mapping[int, str]
    scale: tuple[float, float]
    origin: tuple[int, int]


@dataclass(frozen=True)
class Slice:
    """One slice, drawn: a picture of `width` and `height` in pixels, and what lies over it.

    Attributes:
        plane: Plane: `axial`, `coronal` or `sagittal` (the nearest one, on an oblique grid).
        index: Number of the slice along the plane's axis, counted from 0 at the left, posterior or inferior end.
        position: Position of the slice's centre in scanner coordinates, such as `S 12.0 mm`.
        letters: Directions that the borders `left`, `right`, `top` and `bottom` face, as drawn: R, L, A, P, S, I.
        bar: Length in pixels of the scale bar, `Rendering.scale_bar_mm` long.
        corner: Where the picture's left upper corner lies in scanner coordinates (RAS+), mm.
        across: From that corner to the right upper one, mm.
        down: From that corner to the left lower one, mm.
        present: Ids of the labels in the slice.
        grey: PNG of the image alone.
        result: Contours of the labels.
        reference: Contours of the reference, or None without one.
        difference: Borders of what differs, by `DIFFERENCE`, or None without a reference.
    """

    plane: str
    index: int
    position: str
    letters: dict[str, str]
    width: int
    height: int
    bar: float
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    present: tuple[int, ...]
    grey: bytes
    result: Contours
    reference: Contours | None
    difference: Contours | None


@dataclass(frozen=True)
class Rendering:
    """The slices of one scan: `window` is (black, white) in image units, `window_rule` says how it was chosen."""

    window: tuple[float, float]
    window_rule: str
    scale_bar_mm: float
    slices: tuple[Slice, ...]


def render_slices(
    image: np.ndarray,
    labels: np.ndarray,
    grid: Grid,
    *,
    reference: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
    count: int = 6,
    plan: SlicePlan | None = None,
    side: int = 380,
) -> Rendering:
    """Draw `count` slices of each of the three planes, and the contours of the labels over them.

    Pictures follow the radiological convention whatever the grid's axes: the patient's right is on the left of axial
    and coronal pictures, anterior on the left of sagittal ones. All pictures have one scale (pixels per mm), so
    anisotropic voxels have their true aspect. Only slices are copied, never the volume.

    Args:
        image: (X, Y, Z), any real dtype.
        labels: (X, Y, Z), integer; 0 is background.
        grid: the grid of all arrays.
        reference: (X, Y, Z), integer, labels to compare with.
        window: (black, white); default: percentiles 0.5-99.5 of what is brighter than air.
        count: slices per plane, spread over the extent of labels > 0 (of the volume when there are none).
        plan: window and slices that `plan_slices` chose for these arrays; `window` and `count` then have no effect.
        side: longest side of a picture in pixels.

    Raises:
        ValueError: arrays and grid differ in shape.
    """
    arrays = [image, labels] if reference is None else [image, labels, reference]
    if any(array.shape != tuple(grid.shape) for array in arrays):
        raise ValueError(f"shapes {[array.shape for array in arrays]} do not all equal the grid's {grid.shape}")
    plan = plan or plan_slices(image, labels, grid, reference=reference, window=window, count=count)
    scan, *label_maps = [to_ras(array, grid)[0] for array in arrays]
    affine = ras_affine(grid)
    spacing = np.linalg.norm(affine[:, :3], axis=0)
    low, high = plan["window"]
    extent = label_box(label_maps)
    frame = _frame(_bright_box(*sample_intensities(scan), scan.shape, (low, high)), extent, scan.shape, spacing)
    scale = side / max((stop - start) * mm for (start, stop), mm in zip(frame, spacing, strict=True))
    artist = _Artist(
        scan=scan,
        label_maps=label_maps,
        affine=affine,
        window=(low, high),
        frame=frame,
        scale=scale,
        bar_mm=_scale_bar(side / scale),
        most_bytes=_PATHS // max(1, len(plan["slices"]) * (1 if reference is None else 3)),
    )
    slices = tuple(artist.draw(entry) for entry in plan["slices"])
    return Rendering((low, high), plan["window_rule"], artist.bar_mm, slices)


@dataclass(frozen=True)
class _Artist:
    """Draws slices of one scan, all at one scale.

    Attributes:
        scan: (X, Y, Z) intensities, axes RAS.
        label_maps: (X, Y, Z) labels, axes RAS; the result, and a reference where there is one.
        affine: (3, 4) from index to mm.
        window: (black, white).
        frame: half-open range along each axis that is shown.
        scale: pixels per mm.
        bar_mm: length of the scale bar.
        most_bytes: characters that the contours of one kind may have in a slice.
    """

    scan: np.ndarray
    label_maps: Sequence[np.ndarray]
    affine: np.ndarray
    window: tuple[float, float]
    frame: Sequence[tuple[int, int]]
    scale: float
    bar_mm: float
    most_bytes: int

    def draw(self, entry: ShownSlice) -> Slice:
        """One slice of a plan."""
        index, axis = entry["index"], AXES[entry["plane"]]
        across, up = (other for other in range(3) if other != axis)
        letters = {
            "left": direction_letters(self.affine[:, across]),
            "right": direction_letters(-self.affine[:, across]),
            "top": direction_letters(self.affine[:, up]),
            "bottom": direction_letters(-self.affine[:, up]),
        }
        spacing = np.linalg.norm(self.affine[:, :3], axis=0)
        lengths = [stop - start for start, stop in self.frame]
        size = [max(1, round(lengths[a] * spacing[a] * self.scale)) for a in (across, up)]
        grey = _pad(_picture(_cut(self.scan, axis, index, self.frame), self.window, size))
        result, *references = [_cut(labels, axis, index, self.frame) for labels in self.label_maps]
        drawn = [result, *references, *(_difference(result, reference) for reference in references)]
        contours = [self._contours(labels, size, grey.shape) for labels in drawn]
        corner, right, down = self._place(index, (axis, across, up), size, grey.shape)
        return Slice(
            plane=entry["plane"],
            index=index,
            position=entry["position"],
            letters=letters,
            width=grey.shape[1],
            height=grey.shape[0],
            bar=self.bar_mm * self.scale,
            corner=corner,
            across=right,
            down=down,
            present=tuple(int(i) for i in np.unique(result) if i),
            grey=_png(Image.fromarray(grey)),
            result=contours[0],
            reference=contours[1] if references else None,
            difference=contours[2] if references else None,
        )

    def _place(
        self, index: int, axes: tuple[int, int, int], size: Sequence[int], shape: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corner of a slice's picture, and its sides to the right and down, in mm; arguments as of `_contours`."""
        axis, *sides = axes
        corner, vectors = self.affine[:, 3] + self.affine[:, axis] * index, []
        for side, pixels, whole in zip(sides, size, reversed(shape), strict=True):
            start, stop = self.frame[side]
            vector = -self.affine[:, side] * (stop - start) / pixels  # of a pixel
            corner = corner + self.affine[:, side] * (stop - 0.5) - vector * ((whole - pixels) // 2)
            vectors.append(vector * whole)
        return corner, vectors[0], vectors[1]

    def _contours(self, labels: np.ndarray, size: Sequence[int], shape: Sequence[int]) -> Contours:
        """Contours of a slice's labels over its picture of a `size` (width, height) in one of a padded `shape`."""
        paths, step = bounded_contours(labels, self.most_bytes)
        voxels = {number: np.count_nonzero(labels == number) for number in paths}
        order = sorted(paths, key=lambda number: -voxels[number])
        width, height = size
        return Contours(
            paths={number: paths[number] for number in order},
            scale=(step * width / labels.shape[1], step * height / labels.shape[0]),
            origin=((shape[1] - width) // 2, (shape[0] - height) // 2),
        )


def direction_letters(vector: np.ndarray) -> str:
    """What a picture's border faces along `vector` (3, in RAS+ mm): `R`, or `RA` if tilted by 15 degrees or more."""
    length = float(np.linalg.norm(vector))
    if length == 0:
        return ""
    order = np.argsort(-np.abs(vector), kind="stable")[:2]
    tilted = [axis for axis in order[1:] if abs(vector[axis]) >= _OBLIQUE * length]
    return "".join("RAS"[axis] if vector[axis] > 0 else "LPI"[axis] for axis in [order[0], *tilted])


def outline(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of a label > 0 with a neighbour (of four) of another label; outside the picture is 0."""
    padded = np.pad(labels, 1)
    centre = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (centre != 0) & np.logical_or.reduce([centre != other for other in neighbours])


def _difference(result: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Where two label maps differ, numbered as in `DIFFERENCE` from 1."""
    labelled, expected = result != 0, reference != 0
    states = [result == reference, labelled & ~expected, expected & ~labelled]
    return np.select(states, [0, 1, 2], 3).astype(np.uint8)


def _bright_box(
    sample: np.ndarray, step: int, shape: Sequence[int], window: tuple[float, float]
) -> list[tuple[int, int]]:
    """Half-open range along each axis that contains tissue: where over 0.5 % of a slice is brighter than a tenth."""
    bright = sample > window[0] + 0.1 * (window[1] - window[0])
    box = []
    for axis, size in enumerate(shape):
        fraction = bright.mean(axis=tuple(other for other in range(3) if other != axis))
        used = np.flatnonzero(fraction > 0.005)
        box.append((int(used[0]) * step, min(size, int(used[-1] + 1) * step)) if used.size else (0, size))
    return box


def _frame(
    bright: Sequence[tuple[int, int]], extent: Sequence[tuple[int, int]], shape: Sequence[int], spacing: np.ndarray
) -> list[tuple[int, int]]:
    """What the pictures show: tissue and labels with a margin; only air is cut away."""
    frame = []
    for (low, high), (first, last), size, mm in zip(bright, extent, shape, spacing, strict=True):
        margin = math.ceil(_MARGIN_MM / mm)
        frame.append((max(0, min(low, first) - margin), min(size, max(high, last) + margin)))
    return frame


def _cut(view: np.ndarray, axis: int, index: int, frame: Sequence[tuple[int, int]]) -> np.ndarray:
    """One slice as (row, column) in radiological order: both remaining axes run from their RAS end to the other."""
    where = [slice(low, high) for low, high in frame]
    cut = view[tuple(index if a == axis else part for a, part in enumerate(where))]
    return cut[::-1, ::-1].T


def _picture(cut: np.ndarray, window: tuple[float, float], size: Sequence[int]) -> np.ndarray:
    """(H, W) uint8: the slice windowed and resampled to `size` (width, height)."""
    low, high = window
    inside = np.nan_to_num(cut.astype(np.float32), nan=low, posinf=high, neginf=low).clip(low, high)
    grey = (inside - low) * (255 / (high - low))
    picture = Image.fromarray(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))
    return np.array(picture.resize((size[0], size[1]), Image.Resampling.BICUBIC))


def _pad(picture: np.ndarray) -> np.ndarray:
    """The picture centred on black, at least `_SMALLEST` pixels wide and high."""
    missing = [max(0, _SMALLEST - size) for size in picture.shape]
    return np.pad(picture, [(gap // 2, gap - gap // 2) for gap in missing])


def _scale_bar(extent_mm: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50 … mm that takes at most a quarter of the extent."""
    power = 10.0 ** math.floor(math.log10(extent_mm / 4))
    return max(power * digit for digit in (1, 2, 5) if power * digit <= extent_mm / 4)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()
