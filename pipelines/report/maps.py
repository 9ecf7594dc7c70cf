"""The report of one map, as one HTML page, and its JSON twin."""

import re
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from jinja2.utils import htmlsafe_json_dumps

from geovision.grids import Grid, crs_name
from geovision.lattice import placed
from geovision.pictures import drawn_size, scale_bar
from geovision.sampling import Point
from pipelines.report.map_blocks import Chips, LegendEntry, MapLayer, MapView, PlacedChip, PointForm
from pipelines.report.map_pictures import LEVELS, Chip, MapPictures, ramp
from pipelines.report.page import render_page
from pipelines.report.sections import (
    Block,
    Bullets,
    Cell,
    Column,
    Embedded,
    Page,
    Pairs,
    Section,
    Table,
    Text,
    hex_colour,
    verdict_section,
)
from pipelines.report.text import (
    as_text,
    code,
    fixed,
    list_at,
    moment,
    number_at,
    part_at,
    percent,
    rows_at,
    text_at,
    without_paths,
    words,
)
from pipelines.report.verdicts import report_identity
from shared_backbones.json_values import Document, Json

_SIDE = 512  # of the longer side of pictures without the script


class MapContent(TypedDict):
    """The JSON twin of a report on a map, by which answers at its points become areas.

    Attributes:
        case: `case-` and 8 hex digits.
        report: `id` and `sha256`, the same for the same map of the same scene with the same points.
        model: Name, version and hash of the weights.
        classes: `id`, `name`, `pixels`, `hectares` and `confidence` of each class.
        summary: `mean_confidence`, and the class with the `lowest_confidence`.
        seed: Seed of the draw of points.
        points: `number` from 1, `row`, `column` and `class` (on the map) of each point.
    """

    schema_version: int
    case: str
    report: dict[str, str]
    model: dict[str, Json]
    classes: list[dict[str, Json]]
    summary: dict[str, Json]
    seed: int
    points: list[dict[str, Json]]


def map_content(sidecar: Document, points: Sequence[Point], seed: int) -> MapContent:
    """The JSON twin of a report: `sidecar` is the map's, and `points` were drawn with `seed`."""
    names = {row["id"]: row["name"] for row in sidecar["classes"]}
    drawn: list[dict[str, Json]] = [
        {"number": number, "row": point.row, "column": point.column, "class": names[point.number]}
        for number, point in enumerate(points, 1)
    ]
    case, classes = sidecar["case"], [dict(row) for row in sidecar["classes"]]
    about = [sidecar["input"]["sha256"], sidecar["model"]["sha256"], sidecar["settings"], classes, drawn]
    content: MapContent = {
        "schema_version": 1,
        "case": case,
        "report": report_identity(case, about),
        "model": {key: sidecar["model"].get(key) for key in ("name", "version", "sha256")},
        "classes": classes,
        "summary": dict(sidecar["summary"]),
        "seed": seed,
        "points": drawn,
    }
    return without_paths(content)


def map_report(sidecar: Document, content: MapContent, pictures: MapPictures, grid: Grid) -> str:
    """Build the page: scene, classes and confidence over one another, doubtful places, and points to judge.

    The page is one file under 8 MB; its content security policy runs its script alone and lets nothing be fetched.
    Without the script the pictures stand side by side, and points cannot be judged. No path and no name of an input
    is in it.

    Args:
        sidecar: Content of the map's side-car.
        content: The JSON twin.
        pictures: Pictures of the map.
        grid: Grid of the map.

    Returns:
        The page's HTML, to be written as UTF-8.

    Raises:
        ValueError: `case` is no pseudonym.
    """
    if not re.fullmatch(r"case-[0-9a-f]{8}", content["case"]):
        raise ValueError(f"case is {content['case']!r}; expected case- and 8 hex digits")
    data = without_paths(sidecar)
    page = Page(
        title=f"{content['case']}: report on a map",
        kind="Map report",
        heading=content["case"],
        lead=f"{model_of(data)}, {moment(text_at(data, 'created'))}",
        facts=_facts(data),
        sections=[
            Section("first", "Map", [_view(data, pictures, grid), *_explained(pictures, grid)], contents="Map"),
            *_doubtful(pictures, grid),
            *_points(data, pictures, grid),
            _classes(data, pictures),
            *warnings_of(data),
            verdict_section(content["report"], content["case"], "Is this map fit for use?", "geovision", "scene"),
            scene_provenance(data),
        ],
        footer="Every figure of this page is in the JSON files beside it. The page loads nothing; its script lays the "
        "pictures on one another, and keeps answers and the verdict.",
        medical=False,
        noun="scene",
        embedded=[Embedded("map-data", "application/json", htmlsafe_json_dumps(_page_data(data, pictures, grid)))],
    )
    return render_page(page, styles=["verdict.css", "map.css"], script="map.js", bar="report")


def model_of(data: Mapping[str, Json]) -> str:
    """Name and version of the model."""
    name, version = text_at(data, "model", "name") or "unnamed model", text_at(data, "model", "version")
    return f"{name} {version}" if version else name


def _facts(data: Mapping[str, Json]) -> list[tuple[str, str]]:
    scan = part_at(data, "input")
    height, width = (int(str(side)) for side in list_at(scan, "shape"))
    gsd = number_at(scan, "gsd_m")
    size = f"{width} × {height}" + (f", {gsd:.4g} m" if gsd else "")
    return [
        ("Date", text_at(scan, "acquired", "date") or "not stated"),
        ("Pixels", size),
        ("Cloud", _clouds(data)),
        ("Mean confidence", fixed(number_at(data, "summary", "mean_confidence"), 2)),
        ("Warnings", str(len(list_at(data, "warnings")))),
    ]


def _clouds(data: Mapping[str, Json]) -> str:
    """What is covered by clouds: as the product says it, or the map."""
    masked = number_at(data, "input", "cloud_fraction")
    if masked is not None:
        return f"{masked:.1%} masked"
    rows = rows_at(data, "classes")
    total = sum(number_at(row, "pixels") or 0 for row in rows)
    clouds = [number_at(row, "pixels") or 0 for row in rows if "cloud" in text_at(row, "name").lower()]
    if not clouds or not total:
        return "not known"
    return f"{sum(clouds) / total:.1%} on the map"


def _view(data: Mapping[str, Json], pictures: MapPictures, grid: Grid) -> MapView:
    size = drawn_size(grid, _SIDE)
    bar, text = scale_bar(grid, size[0])
    bands = ", ".join(dict.fromkeys(pictures.bands))
    return MapView(
        layers=[
            MapLayer("scene", pictures.scene, f"scene: {bands}", "The scene"),
            MapLayer("classes", pictures.classes, "classes", "The map of classes"),
            MapLayer("confidence", pictures.confidence, "confidence", "The probability of the class that was taken"),
        ],
        size=size,
        legend=[
            LegendEntry(int(str(row["id"])), text_at(row, "name"), hex_colour(colour), _area(row, _total(data)))
            for row, colour in zip(rows_at(data, "classes"), pictures.colours, strict=True)
        ],
        ramp=[hex_colour(colour) for colour in ramp()[:: LEVELS // 8]],
        bar=bar,
        bar_text=text,
        north=grid.north_deg,
        placed=placed(grid) is not None,
    )


def _total(data: Mapping[str, Json]) -> float:
    return sum(number_at(row, "pixels") or 0 for row in rows_at(data, "classes")) or 1.0


def _area(row: Mapping[str, Json], total: float) -> str:
    hectares = number_at(row, "hectares")
    part = percent((number_at(row, "pixels") or 0) / total)
    return part if hectares is None else f"{part}, {hectares:,.1f} ha"


def _explained(pictures: MapPictures, grid: Grid) -> list[Block]:
    longest = max(pictures.shape)
    text = (
        "The pictures of this page have at most 2048 pixels a side; classes of coarser ones are those that most of "
        "their pixels have. "
        if longest > 2048
        else ""
    )
    text += (
        "Confidence is the probability of the class that was taken, as the model gives it: high where it is wrong, too."
    )
    if not grid.on_earth:
        text += " The scene has no place on the earth: there are no coordinates, and no polygons to draw."
    return [Text(text, small=True)]


def place_of(chip: Chip, grid: Grid) -> str:
    """Latitude and longitude of a chip's middle, as maps take them; row and column where there are none."""
    if grid.on_earth:
        longitude, latitude = grid.to_degrees(np.array([chip.column + 0.5]), np.array([chip.row + 0.5]))
        if np.isfinite(longitude[0]) and np.isfinite(latitude[0]):
            return f"{latitude[0]:.6f}, {longitude[0]:.6f}"
    return f"row {chip.row}, column {chip.column}"


def _doubtful(pictures: MapPictures, grid: Grid) -> list[Section]:
    chips = [
        PlacedChip(chip, grid.aspect, place_of(chip, grid), f"mean confidence {fixed(chip.confidence, 2)}")
        for chip in pictures.doubtful
    ]
    if not chips:
        return []
    text = Text(
        f"The places with the lowest mean confidence, the worst first: the scene, and the map, "
        f"{pictures.doubtful[0].width} pixels wide.",
        small=True,
    )
    return [Section("doubtful", "Doubtful places", [text, Chips(chips)], contents="Doubtful places")]


def _points(data: Mapping[str, Json], pictures: MapPictures, grid: Grid) -> list[Section]:
    if not pictures.points:
        return []
    names = [text_at(row, "name") for row in rows_at(data, "classes")]
    chips = [
        PlacedChip(chip, grid.aspect, place_of(chip, grid), f"{number}")
        for number, chip in enumerate(pictures.points, 1)
    ]
    text = Text(
        f"{len(chips)} points, drawn at random from each class of the map, in random order. Say what is at the marked "
        "pixel without looking at the map. From the answers, geovision review collect estimates the map’s "
        "accuracy and the area of each class, with 95 % intervals."
    )
    return [
        Section(
            "points", "Areas with error bars", [text, PointForm(chips, names)], contents=f"Areas: {len(chips)} points"
        )
    ]


def _classes(data: Mapping[str, Json], pictures: MapPictures) -> Section:
    total = _total(data)
    columns = [
        Column("Class"),
        *(Column(name, numeric=True) for name in ("Pixels", "Of the map", "Hectares", "Mean confidence")),
    ]
    rows = [
        [
            Cell(words(text_at(row, "name")), swatch=hex_colour(colour)),
            Cell(fixed(number_at(row, "pixels"), 0)),
            Cell(percent((number_at(row, "pixels") or 0) / total)),
            Cell(fixed(number_at(row, "hectares"), 1)),
            Cell(fixed(number_at(row, "confidence"), 2)),
        ]
        for row, colour in zip(rows_at(data, "classes"), pictures.colours, strict=True)
    ]
    remark = "Areas are counted pixels, with the map’s errors in them."
    return Section("classes", "Classes", [Table(columns, rows, "Areas on the map", remark=remark)], contents="Classes")


def warnings_of(data: Mapping[str, Json]) -> list[Section]:
    """The section of a side-car's warnings; none where there are none."""
    warnings = [as_text(warning) for warning in list_at(data, "warnings")]
    return [Section("warnings", "Warnings", [Bullets(warnings, alert=True)], contents="Warnings")] if warnings else []


def scene_provenance(data: Mapping[str, Json]) -> Section:
    """The section that says of what and by what a result was made."""
    model, scan = part_at(data, "model"), part_at(data, "input")
    about = [(words(key), as_text(model[key])) for key in ("name", "version", "architecture") if model.get(key)]
    about.append(("weights, SHA-256", code(text_at(model, "sha256"))))
    date, source = text_at(scan, "acquired", "date"), text_at(scan, "acquired", "by")
    rows = [
        ("sensor", text_at(scan, "sensor")),
        ("bands", as_text(scan.get("bands"))),
        ("date", f"{date}, as its {source} says" if date else "not stated"),
        ("CRS", text_at(scan, "crs") or "none"),
        ("clouds", text_at(scan, "clouds")),
        ("file, SHA-256", code(text_at(scan, "sha256"))),
    ]
    settings = {key: value for key, value in part_at(data, "settings").items() if value is not None}
    blocks: list[Block] = [Pairs(about, "Model"), Pairs(rows, "Scene")]
    for title, values in (
        ("Settings", settings),
        ("Tiles", part_at(data, "tile")),
        ("Software", part_at(data, "versions")),
    ):
        blocks.append(Pairs([(words(key), as_text(value)) for key, value in values.items()], title))
    return Section("provenance", "Provenance", blocks, contents="Provenance", columns=True)


def _page_data(data: Mapping[str, Json], pictures: MapPictures, grid: Grid) -> dict[str, Json]:
    """What the script knows: where things are, and no class of a point."""
    where = placed(grid)
    transform = [float(part) for part in list(grid.transform)[:6]]
    sides = grid.gsd_sides_m
    return {
        "height": pictures.shape[0],
        "width": pictures.shape[1],
        "crs": None if grid.crs is None else crs_name(grid.crs),
        "transform": transform,
        "degrees": None if where is None else vars(where),
        "aspect": grid.aspect,
        "metres": None if sides is None else sides[0],
        "classes": [
            {"code": row["id"], "name": row["name"], "colour": list(colour)}
            for row, colour in zip(rows_at(data, "classes"), pictures.colours, strict=True)
        ],
        "ramp": [list(colour) for colour in ramp()],
        "doubtful": [_where(chip) for chip in pictures.doubtful],
        "points": [_where(chip) for chip in pictures.points],
    }


def _where(chip: Chip) -> dict[str, Json]:
    return {
        "row": chip.row,
        "column": chip.column,
        "top": chip.top,
        "left": chip.left,
        "height": chip.height,
        "width": chip.width,
    }
