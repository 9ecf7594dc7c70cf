"""Slices of a scan as PNG pictures, with the contours of its labels."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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
from shared_backbones.card import ClassEntry

Colour = tuple[int, int, int]

#: Colours of the agreement picture: contours that coincide, too much, missed, and labelled differently in both.
AGREEMENT: dict[str, Colour] = {
    "same contour": (60, 200, 110),
    "only in the result": (255, 84, 70),
    "only in the reference": (86, 160, 255),
    "another structure": (255, 196, 61),
}

# Okabe and Ito's colours (2008), blue and green raised so that both stand out from grey tissue.
_BASE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 190, 140),
    (240, 228, 66),
    (70, 130, 255),
    (235, 110, 40),
    (224, 140, 190),
    (180, 235, 160),
    (190, 160, 255),
    (0, 220, 220),
)
_MAX_COLOURS = 96  # contour colours in one picture; the other entries of the 256-colour palette are grey levels
_OBLIQUE = math.sin(math.radians(15))  # from this tilt on, a second letter says where a border faces
_SMALLEST = 72  # pixels; a thinner picture is set on black so that its letters fit
_MARGIN_MM = 6.0


@dataclass(frozen=True)
class Slice:
    """One slice, drawn; all its pictures have the same `width` and `height` in pixels.

    Attributes:
        plane: Plane: `axial`, `coronal` or `sagittal` (the nearest one, on an oblique grid).
        index: Number of the slice along the plane's axis, counted from 0 at the left, posterior or inferior end.
        position: Position of the slice's centre in scanner coordinates, such as `S 12.0 mm`.
        letters: Directions that the borders `left`, `right`, `top` and `bottom` face, as drawn: R, L, A, P, S, I.
        present: Ids of the labels in the slice.
        plain: PNG of the image alone.
        contours: PNG of the image with the label contours.
        agreement: PNG of the image with agreement contours (`AGREEMENT`), or None without a reference.
    """

    plane: str
    index: int
    position: str
    letters: dict[str, str]
    width: int
    height: int
    present: tuple[int, ...]
    plain: bytes
    contours: bytes
    agreement: bytes | None


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
    classes: Sequence[ClassEntry],
    *,
    reference: np.ndarray | None = None,
    window: tuple[float, float] | None = None,
    count: int = 6,
    plan: SlicePlan | None = None,
    side: int = 380,
) -> Rendering:
    """Draw `count` slices of each of the three planes, plain and with contours.

    Pictures follow the radiological convention whatever the grid's axes: the patient's right is on the left of axial
    and coronal pictures, anterior on the left of sagittal ones. All pictures have one scale (pixels per mm), so
    anisotropic voxels have their true aspect. Only slices are copied, never the volume.

    Args:
        image: (X, Y, Z), any real dtype.
        labels: (X, Y, Z), integer; 0 is background.
        grid: the grid of all arrays.
        classes: the classes; one without a colour gets one from `palette`.
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
    ids = sorted({int(entry["id"]) for entry in classes} - {0})
    artist = _Artist(
        scan=scan,
        label_maps=label_maps,
        affine=affine,
        window=(low, high),
        frame=frame,
        scale=scale,
        bar_mm=_scale_bar(side / scale),
        pen=_Pen(ids, class_colours(classes)),
        judge=_Pen((1, 2, 3, 4), dict(enumerate(AGREEMENT.values(), start=1))),
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
        pen: draws contours of labels.
        judge: draws contours of agreement.
    """

    scan: np.ndarray
    label_maps: Sequence[np.ndarray]
    affine: np.ndarray
    window: tuple[float, float]
    frame: Sequence[tuple[int, int]]
    scale: float
    bar_mm: float
    pen: "_Pen"
    judge: "_Pen"

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
        grey = _picture(_cut(self.scan, axis, index, self.frame), self.window, size)
        drawn = [_pad(_nearest(_cut(labels, axis, index, self.frame), size)) for labels in self.label_maps]
        canvas, ink = _annotate(_pad(grey), letters, self.bar_mm * self.scale, f"{self.bar_mm:g} mm")
        result, *references = drawn
        return Slice(
            plane=entry["plane"],
            index=index,
            position=entry["position"],
            letters=letters,
            width=canvas.shape[1],
            height=canvas.shape[0],
            present=tuple(int(i) for i in np.unique(result) if i),
            plain=_png(Image.fromarray(canvas)),
            contours=self.pen.draw(canvas, np.where(outline(result), result, 0), ink),
            agreement=self.judge.draw(canvas, _agreement(result, references[0]), ink) if references else None,
        )


def palette(count: int) -> list[Colour]:
    """`count` colours for labels 1, 2, …: colour-blind-friendly, and bright enough for contours on grey tissue.

    The first ten follow Okabe and Ito (2008); later ones repeat them, lighter in one round and darker in the next.
    """
    colours = []
    for number in range(count):
        turn, base = divmod(number, len(_BASE))
        blend = (0.0, 0.45, -0.3, 0.7, -0.5)[turn % 5]  # towards white, or black where negative
        goal = 255 if blend > 0 else 0
        red, green, blue = (round(c + (goal - c) * abs(blend)) for c in _BASE[base])
        colours.append((red, green, blue))
    return colours


def class_colours(classes: Iterable[ClassEntry]) -> dict[int, Colour]:
    """The colour of every class id: its own `color`, or else one from `palette`."""
    classes = list(classes)
    spare = palette(max((int(entry["id"]) for entry in classes), default=0))
    colours: dict[int, Colour] = {}
    for entry in classes:
        number = int(entry["id"])
        own = entry.get("color")
        if own is not None:
            red, green, blue = (min(255, max(0, int(value))) for value in own)
            colours[number] = (red, green, blue)
        else:
            colours[number] = spare[number - 1] if number > 0 else (0, 0, 0)
    return colours


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


class _Pen:
    """Draws contours into 8-bit palette PNGs: grey levels first, label colours at the end of the palette."""

    def __init__(self, ids: Sequence[int], colours: Mapping[int, Colour]) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)
        used = [colours[i] for i in ids[:_MAX_COLOURS]]
        self.colours = max(1, len(used))
        self.greys = 256 - self.colours
        ramp = np.rint(np.linspace(0, 255, self.greys)).astype(np.uint8)
        table = np.concatenate([np.repeat(ramp[:, None], 3, axis=1), np.array(used or [(255, 255, 255)], np.uint8)])
        self.palette = table.tobytes()

    def draw(self, grey: np.ndarray, lines: np.ndarray, ink: np.ndarray) -> bytes:
        """PNG of `grey` with the ids in `lines` (0: no line) in their colours; what is under `ink` stays grey."""
        indexed = np.rint(grey * ((self.greys - 1) / 255)).astype(np.uint8)
        line = (lines != 0) & ~ink
        indexed[line] = self.greys + np.searchsorted(self.ids, lines[line]) % self.colours
        picture = Image.fromarray(indexed)
        picture.putpalette(self.palette)
        return _png(picture)


def _agreement(result: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Lines of agreement, numbered as in `AGREEMENT` from 1: shared contours, and outlines of what differs."""
    labelled, expected = result != 0, reference != 0
    state = np.select([result == reference, labelled & ~expected, expected & ~labelled], [0, 2, 3], 4)
    shared = outline(result) & outline(reference) & (state == 0)
    return np.where(outline(state), state, shared)


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


def _nearest(cut: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A slice of labels resampled to `size` (width, height); pixel centres coincide with those of `_picture`."""
    width, height = size
    rows = ((np.arange(height) + 0.5) * cut.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * cut.shape[1] / width).astype(int)
    return cut[rows[:, None], columns]


def _pad(picture: np.ndarray) -> np.ndarray:
    """The picture centred on black, at least `_SMALLEST` pixels wide and high."""
    missing = [max(0, _SMALLEST - size) for size in picture.shape]
    return np.pad(picture, [(gap // 2, gap - gap // 2) for gap in missing])


def _annotate(grey: np.ndarray, letters: Mapping[str, str], bar: float, bar_text: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture with letters at its borders and a scale bar, and the (H, W) bool mask of what was written."""
    height, width = grey.shape
    places = {
        "left": ((5, height / 2), "lm"),
        "right": ((width - 5, height / 2), "rm"),
        "top": ((width / 2, 4), "mt"),
        "bottom": ((width / 2, height - 5), "mb"),
    }
    font = ImageFont.load_default(size=15)
    small = ImageFont.load_default(size=11)
    layers = [Image.fromarray(grey), Image.new("L", (width, height))]  # the picture, and the mask
    for layer, shade in zip(layers, (0, 255), strict=True):
        draw = ImageDraw.Draw(layer)
        for side, (place, anchor) in places.items():
            draw.text(place, letters[side], fill=255, font=font, anchor=anchor, stroke_width=2, stroke_fill=shade)
        if bar < width / 2 - 24:  # otherwise it would overlap the letter below
            draw.rectangle((6, height - 9, 6 + bar + 2, height - 5), fill=shade)
            draw.rectangle((7, height - 8, 7 + bar, height - 6), fill=255)
            draw.text((7, height - 11), bar_text, fill=255, font=small, anchor="lb", stroke_width=2, stroke_fill=shade)
    return np.array(layers[0]), np.array(layers[1]) > 0


def _scale_bar(extent_mm: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50 … mm that takes at most a quarter of the extent."""
    power = 10.0 ** math.floor(math.log10(extent_mm / 4))
    return max(power * digit for digit in (1, 2, 5) if power * digit <= extent_mm / 4)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=6)
    return stream.getvalue()
