"""A picture of a map beside its scene, with a legend, areas and a scale bar."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from geovision.pictures import drawn_size, scale_bar, shown_bands, stretched
from geovision.rasters import open_raster
from geovision.scene import Scene
from pipelines.report.sheets import picture_sheet
from shared_backbones.card import ClassEntry
from shared_backbones.json_values import Entries

_SIDE = 512  # longer side in pixels of each picture
_UNKNOWN = (255, 255, 255)


def write_quicklook(
    path: Path, scene: Scene, classes_map: Path, classes: Sequence[ClassEntry], rows: Sequence[Entries]
) -> None:
    """Write a PNG of a scene and its map.

    Args:
        path: file to write.
        scene: open scene.
        classes_map: its map.
        classes: classes of the map, with colours.
        rows: for each class `pixels` and `hectares`, None where the scene has no place.
    """
    values, valid = scene.sample()
    values[:, ~valid] = np.nan
    width, height = drawn_size(scene.grid, _SIDE)
    size = max(1, round(width)), max(1, round(height))
    palette = np.full((256, 3), _UNKNOWN, np.uint8)
    for entry in classes:
        palette[int(entry["id"])] = entry["color"]
    with open_raster(classes_map) as source:
        shape = tuple(max(1, min(length, pixels)) for length, pixels in zip(source.shape, size[::-1], strict=True))
        mapped = palette[source.read(1, out_shape=shape)]
    total = max(1, sum(row["pixels"] for row in rows))
    legend = [(_entry(row, total), _color(entry)) for entry, row in zip(classes, rows, strict=True)]
    shown = stretched(values[[scene.bands.index(band) for band in shown_bands(scene.bands)]])
    bar, length = scale_bar(scene.grid, width)
    sheet = picture_sheet(
        [[shown, mapped]], size=size, gap=(8, 0), below=[["scene"], ["map" + (f", bar: {length}" if length else "")]],
        legend=[*legend, ("no data", _UNKNOWN)], font=12,
    )  # fmt: skip
    if bar:
        _draw_bar(sheet, size, max(1, round(bar)))
    sheet.save(path, "PNG")


def _entry(row: Entries, total: int) -> str:
    area = "" if row["hectares"] is None else f", {row['hectares']:,.1f} ha"
    return f"{row['name']}  {row['pixels'] / total:.1%}{area}"


def _color(entry: ClassEntry) -> tuple[int, int, int]:
    red, green, blue = entry["color"]
    return red, green, blue


def _draw_bar(sheet: Image.Image, size: tuple[int, int], bar: int) -> None:

    left, bottom = size[0] + 8 + 6, size[1] - 6
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left - 2, bottom - 7, left + bar + 2, bottom + 2), fill="white")
    draw.rectangle((left, bottom - 5, left + bar, bottom), fill="black")
