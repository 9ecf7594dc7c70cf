"""Maps with their reports on disk, as `geovision map` leaves those of a folder."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS

from geovision.certainty import Certainty
from geovision.grids import Grid
from geovision.mapping import NODATA
from geovision.rasters import cloud_optimised
from geovision.sampling import draw_points
from geovision.scenes import open_scene
from pipelines.report.map_index import map_index, map_index_page, map_row
from pipelines.report.map_pictures import distinct, map_pictures
from pipelines.report.maps import map_content, map_report
from shared_backbones.card import ClassEntry
from tests.geovision.rasters import TRANSFORM, write_scene

HOSTILE = '<img src=x onerror=alert(1)> & "rock" {{ 1 }}'
CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "open_water", "color": [10, 60, 220]},
    {"id": 1, "name": "soil", "color": [200, 150, 40]},
    {"id": 2, "name": HOSTILE, "color": [200, 150, 40]},  # of the colour of another one
    {"id": 3, "name": "snow", "color": [255, 255, 255]},
]
COLOURS = distinct(
    [(red, green, blue) for red, green, blue in ([10, 60, 220], [200, 150, 40], [200, 150, 40], [255] * 3)]
)
"""Colours of the classes as pages have them."""
BANDS = ["B4", "B3", "B2"]
HEIGHT, WIDTH = 320, 480
GRID = Grid(CRS.from_epsg(32633), TRANSFORM, HEIGHT, WIDTH)


class Written(NamedTuple):
    """What was written for a map: its page, the JSON twin, the map, its numbers, and its row of an index."""

    page: Path
    twin: Path
    map: Path
    numbers: np.ndarray
    row: dict


def numbers_of(number: int = 0) -> np.ndarray:
    """Thirds of three classes, a pixel of another one, and a corner without data."""
    numbers = np.repeat(np.arange(3, dtype=np.uint8), WIDTH // 3)[None].repeat(HEIGHT, 0)
    numbers[100 + number, 241] = 0
    numbers[-40:, -40:] = NODATA
    return numbers


def write_map(folder: Path, number: int = 0, grid: Grid = GRID, points: int = 60) -> Written:
    """A scene whose green is its row and whose red its column, its map, and the map's report."""
    case, stem = f"case-{number:08x}", f"smith42_{number}_map"
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([100 + 6 * columns, 100 + 9 * rows, np.full((HEIGHT, WIDTH), 100 + number)]).astype(np.uint16)
    scene_path = write_scene(folder / f"smith42_{number}.tif", values, BANDS, crs=grid.crs, transform=grid.transform)
    numbers, confidence = numbers_of(number), np.full((HEIGHT, WIDTH), 0.9, np.float32)
    confidence[200:230, 300:330] = 0.35
    valid = numbers != NODATA
    certainty = Certainty((HEIGHT, WIDTH), len(CLASSES))
    certainty.add(0, 0, numbers, confidence, valid)
    target = folder / f"{stem}.tif"
    with cloud_optimised(target, grid, "uint8", ["class"], nodata=NODATA, resampling="mode") as write:
        write(0, 0, numbers[None])
    pixels = {entry["id"]: int((numbers == entry["id"]).sum()) for entry in CLASSES}
    sidecar = {
        "case": case,
        "created": "2026-01-02T03:04:05+00:00",
        "model": {"name": "probe", "version": "1.0.0", "sha256": "ab" * 32},
        "input": {
            "sha256": f"{number:064x}", "shape": [HEIGHT, WIDTH], "bands": BANDS, "crs": "EPSG:32633", "gsd_m": 10.0,
            "acquired": {"date": "2015-07-31", "by": "file"}, "clouds": "not masked", "cloud_fraction": None,
        },
        "settings": {"overlap": 0.25},
        "warnings": [f"number {number} of /data/smith42/scene.tif"],
        "classes": [
            {"id": entry["id"], "name": entry["name"], "pixels": pixels[entry["id"]],
             "hectares": pixels[entry["id"]] / 100, "confidence": certainty.of_class(entry["id"])}
            for entry in CLASSES
        ],
        "summary": {"mean_confidence": certainty.mean, "lowest_confidence": 0.5, "least_certain": "soil"},
    }  # fmt: skip
    drawn = draw_points(target, pixels, points, 3)
    content = map_content(sidecar, drawn, 3)
    with open_scene(scene_path, sensor="sentinel2_l1c", wanted=BANDS) as scene:
        pictures = map_pictures(scene, target, certainty, CLASSES, certainty.doubtful(32, 4), drawn)
    page, twin = folder / f"{stem}_report.html", folder / f"{stem}_report.json"
    page.write_text(map_report(sidecar, content, pictures, grid), encoding="utf-8")
    twin.write_text(json.dumps(content), encoding="utf-8")
    row = map_row(case, "done", {**sidecar, "report": content["report"]}, report=f"reports/{case}.html")
    return Written(page, twin, target, numbers, dict(row))


def write_maps(folder: Path, count: int) -> list[Written]:
    """Reports of so many maps, and their index."""
    written = [write_map(folder, number) for number in range(count)]
    (folder / "reports").mkdir()
    for each in written:
        (folder / each.row["report"]).write_bytes(each.page.read_bytes())
    index = map_index([each.row for each in written], {"name": "probe"})  # pyright: ignore[reportArgumentType]
    (folder / "index.html").write_text(map_index_page(index, {}), encoding="utf-8")
    return written
