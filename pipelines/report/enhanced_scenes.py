"""The report of an enhanced scene: pictures of it, in bounded memory, and its sections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geovision.grids import Grid, crs_name
from geovision.lattice import placed
from geovision.pictures import limits, stretched
from geovision.rasters import open_raster
from geovision.scene import Scene
from pipelines.report.enhanced import EnhancedPictures, Samples, Wording, enhanced_report
from pipelines.report.map_blocks import PlacedChip
from pipelines.report.map_pictures import CHIP, LEVELS, Chip, jpeg, palette, ramp, thinned, within
from pipelines.report.maps import model_of, place_of, scene_provenance, warnings_of
from pipelines.report.sections import Cell, Column, Section, Table, data_uri
from pipelines.report.text import list_at, moment, number_at, part_at, percent, rows_at, text_at, without_paths
from shared_backbones.json_values import Document, Json

_LONGEST, _PLACES, _STRIP, _CHIPS = 2048, 96, 256, 12  # pixels a side, places a side, rows at once, and parts
_LEAST = 0.01  # of the largest change, that a part is shown for
_ROOM = 1_700_000  # bytes of a picture
_MISSING = 255
_WORDING = Wording(
    kind="Enhancement report",
    difference="Root mean square of the change over the sharpened bands, each in standard deviations of the training.",
    curve="Spectrum",
    number="Band",
    remark="Detail finer than the measured pixels is inferred from the fine bands, and was not measured.",
)


@dataclass
class _Drawn:
    """Strips as they come, thinned."""

    before: list[np.ndarray] = field(default_factory=list)
    after: list[np.ndarray] = field(default_factory=list)
    change: list[np.ndarray] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    samples: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))


def enhanced_pictures(
    scene: Scene, result: Path, names: Sequence[str], coarse: Sequence[str], deviations: Sequence[float]
) -> EnhancedPictures:
    """Draw what an enhancement changed; both files are read once, strip by strip.

    Args:
        scene: Open scene, coarse values repeated.
        result: The enhanced scene, a GeoTIFF on the same grid.
        names: Bands of the result, in order.
        coarse: Those of them that were sharpened.
        deviations: Standard deviation of each of `coarse`, in the bands' unit.
    """
    height, width = scene.shape
    factor = 2 ** max(0, math.ceil(math.log2(max(scene.shape) / _LONGEST)))
    step = max(1, math.ceil(max(scene.shape) / _PLACES))
    places, shown = [names.index(band) for band in coarse], _shown(coarse or names[:1])
    rows, columns = (list(range(step // 2, side, step)) for side in scene.shape)
    scales, drawn = np.asarray(deviations, np.float32)[:, None, None], _Drawn()
    parts = [names.index(band) for band in shown]
    strip = max(_STRIP, factor)
    with open_raster(result) as source:
        for top in range(0, height, strip):
            here = min(strip, height - top)
            before, valid = scene.read(top, 0, here, width, bands=list(names))
            after = source.read(window=((top, top + here), (0, width)))
            before[:, ~valid] = np.nan
            apart = (after[places] - before[places]) / scales
            change = np.sqrt(np.mean(apart**2, 0)) if places else np.zeros((here, width), np.float32)
            first = min(factor // 2, here - 1), min(factor // 2, width - 1)
            thin = np.s_[first[0] :: factor, first[1] :: factor]
            drawn.before.append(before[parts][:, *thin])
            drawn.after.append(after[parts][:, *thin])
            drawn.change.append(change[thin])
            drawn.blocks.append(_means(change, CHIP))
            wanted = [row - top for row in rows if top <= row < top + here]
            for part, values in zip(drawn.samples, (before, after), strict=True):
                part.append(values[:, wanted][:, :, columns].transpose(1, 2, 0))
    first_picture, second = (np.concatenate(part, 1) for part in (drawn.before, drawn.after))
    between = limits(first_picture).astype(np.float32)
    change, blocks = np.concatenate(drawn.change), np.concatenate(drawn.blocks)
    known = change[np.isfinite(change)]
    largest = max(float(np.percentile(known, 99)) if known.size else 0.0, 1e-6)
    levels = np.clip(np.nan_to_num(change) / largest * LEVELS, 0, LEVELS - 1)
    colours = np.where(np.isfinite(change), levels, _MISSING).astype(np.uint8)
    samples = Samples(rows, columns, list(names), *(np.concatenate(part) for part in drawn.samples))
    cut = [_chip(scene, result, place, shown, parts, between, number) for place, number in _largest(blocks)]
    return EnhancedPictures(
        shape=scene.shape,
        aspect=scene.grid.aspect,
        shown=", ".join(dict.fromkeys(shown)),
        before=_picture(stretched(first_picture, between)),
        after=_picture(stretched(second, between)),
        difference=within(_ROOM, lambda side: palette(thinned(colours, side), ramp(), _MISSING), "image/png"),
        largest=f"{largest:.2g}",
        samples=samples,
        chips=[chip for chip in cut if chip is not None],
    )


def scene_report(sidecar: Document, pictures: EnhancedPictures, grid: Grid) -> str:
    """The report of an enhanced scene as an HTML page.

    Args:
        sidecar: Content of the side-car.
        pictures: What is shown.
        grid: Grid of the scene.
    """
    data = without_paths(sidecar)
    scan = part_at(data, "input")
    size, gsd = " × ".join(str(side) for side in reversed(list_at(scan, "shape"))), number_at(scan, "gsd_m")
    facts = [
        ("Date", text_at(scan, "acquired", "date") or "not stated"),
        ("Pixels", size + (f", {gsd:.4g} m" if gsd else "")),
        ("Warnings", str(len(list_at(data, "warnings")))),
    ]
    rows = [
        [Cell(text_at(row, "name")), Cell(percent(number_at(row, "rms"))), Cell(percent(number_at(row, "worst")))]
        for row in rows_at(data, "consistency")
    ]
    columns = [Column("Band"), Column("Root mean square", numeric=True), Column("Worst pixel", numeric=True)]
    remark = (
        "The result, degraded again by the sensor’s point-spread, against what was measured, as shares of the mean."
    )
    consistency = Section(
        "consistency", "Consistency", [Table(columns, rows, "Degraded again", remark=remark)], contents="Consistency"
    )
    where, sides = placed(grid), grid.gsd_sides_m
    place: dict[str, Json] = {
        "crs": None if grid.crs is None else crs_name(grid.crs),
        "transform": [float(part) for part in list(grid.transform)[:6]],
        "degrees": None if where is None else vars(where),
        "metres": None if sides is None else sides[0],
    }
    lead = f"{model_of(data)}, {moment(text_at(data, 'created'))}"
    sections = [*([consistency] if rows else []), *warnings_of(data), scene_provenance(data)]
    return enhanced_report(str(data["case"]), lead, facts, pictures, _WORDING, sections, placed=place)


def _shown(bands: Sequence[str]) -> list[str]:
    """Three bands that make a picture, the last as red: the longest waves, in the order of sensors."""
    return [bands[-1], bands[len(bands) // 2], bands[0]]


def _means(values: np.ndarray, side: int) -> np.ndarray:
    """Means of blocks of a side; of what is known, 0 where nothing is."""
    known = np.isfinite(values)
    sums, counts = (
        np.add.reduceat(np.add.reduceat(part, range(0, part.shape[0], side), 0), range(0, part.shape[1], side), 1)
        for part in (np.where(known, values, 0.0), known.astype(float))
    )
    return sums / np.maximum(counts, 1)


def _largest(blocks: np.ndarray) -> list[tuple[tuple[int, int], float]]:
    """Middles of the blocks that changed most, and how much."""
    order = np.argsort(-blocks, axis=None)[:_CHIPS]
    places = [(int(place) // blocks.shape[1], int(place) % blocks.shape[1]) for place in order]
    return [
        ((row * CHIP + CHIP // 2, column * CHIP + CHIP // 2), float(blocks[row, column])) for row, column in places
        if blocks[row, column] > _LEAST * blocks.max()
    ]  # fmt: skip


def _chip(
    scene: Scene,
    result: Path,
    place: tuple[int, int],
    shown: Sequence[str],
    parts: Sequence[int],
    between: np.ndarray,
    change: float,
) -> PlacedChip | None:
    (top, height), (left, width) = (
        (max(0, min(at - CHIP // 2, side - CHIP)), min(CHIP, side)) for at, side in zip(place, scene.shape, strict=True)
    )
    row, column = (min(at, side - 1) for at, side in zip(place, scene.shape, strict=True))
    before, valid = scene.read(top, left, height, width, bands=list(dict.fromkeys(shown)))
    before = before[[list(dict.fromkeys(shown)).index(band) for band in shown]]
    if not valid.any():
        return None
    before[:, ~valid] = np.nan
    with open_raster(result) as source:
        after = source.read([part + 1 for part in parts], window=((top, top + height), (left, left + width)))
    first, second = (data_uri(jpeg(stretched(part, between)), "image/jpeg") for part in (before, after))
    chip = Chip(row, column, top, left, height, width, first, second)
    return PlacedChip(chip, scene.grid.aspect, place_of(chip, scene.grid), f"mean change {change:.2g}")


def _picture(picture: np.ndarray) -> str:
    return within(_ROOM, lambda side: jpeg(thinned(picture, side)))
