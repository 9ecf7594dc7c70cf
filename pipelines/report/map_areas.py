"""From readers' answers at points of maps to accuracy and error-adjusted areas, and from their polygons to labels."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geovision.accuracy import Estimate, assess
from pipelines.report.map_answers import CANNOT_TELL, Fix, PointSample
from pipelines.report.verdicts import Reviews, Row
from shared_backbones.errors import InputError
from shared_backbones.json_values import Entries

AREA_COLUMNS = (
    "case", "report_id", "reviewer", "points", "answered", "cannot_tell", "accuracy", "accuracy_margin", "class",
    "class_points", "class_right", "users_accuracy", "users_margin", "producers_accuracy", "producers_margin", "unit",
    "mapped_area", "area", "area_margin", "note",
)  # fmt: skip
"""Columns of the table of areas; a margin is half the width of a 95 % interval."""


@dataclass(frozen=True)
class _Answered:
    """Answers of a reader: points by class on the map and class in truth, and how many could not be told."""

    counts: np.ndarray
    cannot_tell: int


def area_rows(reviews: Reviews) -> list[Row]:
    """A row for each map, reader who answered points of it, and class."""
    rows: list[Row] = []
    for report in {report.about: report for report in reviews.reports if report.sample}.values():
        for verdict in reviews.answers.get(report.about, {}).values():
            if report.sample is None or not verdict.points:
                continue
            about: Row = {
                "case": report.about.case, "report_id": report.about.number, "reviewer": verdict.reviewer,
                "points": len(report.sample.points),
            }  # fmt: skip
            rows += [about | row for row in _estimated(report.sample, verdict.points)]
    return rows


def fix_collections(reviews: Reviews) -> dict[str, Entries]:
    """Readers' polygons as GeoJSON by the scene's name, which is the report's but for its ending.

    Raises:
        InputError: two maps of one name have some.
    """
    collections: dict[str, Entries] = {}
    for report in reviews.reports:
        fixes = [fix for verdict in reviews.answers.get(report.about, {}).values() for fix in verdict.fixes]
        if report.kind != "map" or not fixes:
            continue
        name = report.path.name.removesuffix("_report.json").removesuffix("_map")
        if name in collections:
            raise InputError(
                f"--fixes: two maps of scenes named {name} have polygons; collect their folders one by one"
            )
        collections[name] = {"type": "FeatureCollection", "features": [_feature(fix) for fix in fixes]}
    return collections


def _estimated(sample: PointSample, answers: Mapping[str, str]) -> list[Row]:
    """What answers say of each class."""
    answered = _counted(sample, answers)
    in_hectares = all(row.hectares is not None for row in sample.classes)
    mapped = [row.hectares or 0.0 if in_hectares else float(row.pixels) for row in sample.classes]
    points = answered.counts.sum(1)
    common: Row = {
        "answered": int(points.sum()), "cannot_tell": answered.cannot_tell,
        "unit": "hectares" if in_hectares else "pixels",
    }  # fmt: skip
    rows: list[Row] = [
        dict.fromkeys(AREA_COLUMNS[4:])
        | common
        | {
            "class": row.name,
            "class_points": int(points[number]),
            "class_right": int(answered.counts[number, number]),
            "mapped_area": mapped[number],
            "note": "",
        }
        for number, row in enumerate(sample.classes)
    ]
    missing = [row.name for row, area, count in zip(sample.classes, mapped, points, strict=True) if area and not count]
    if missing or not sum(mapped):
        note = f"no estimate: no point of {', '.join(missing)} is answered" if missing else "no estimate: an empty map"
        return [row | {"note": note} for row in rows]
    complete = [number for number, row in enumerate(sample.classes) if 0 < row.pixels <= points[number]]
    result = assess(answered.counts, mapped, complete)
    single = [
        row.name
        for number, row in enumerate(sample.classes)
        if mapped[number] and points[number] == 1 and number not in complete
    ]
    note = f"no interval: one point of {', '.join(single)} is answered, two are needed" if single else ""
    estimates = zip(result.users, result.producers, result.areas, strict=True)
    return [
        row
        | _pair("accuracy", result.accuracy)
        | _pair("users", users, "users_accuracy")
        | _pair("producers", producers, "producers_accuracy")
        | _pair("area", area)
        | {"note": note}
        for row, (users, producers, area) in zip(rows, estimates, strict=True)
    ]


def _pair(name: str, estimate: Estimate, value: str = "") -> Row:
    return {value or name: estimate.value, f"{name}_margin": estimate.margin}


def _counted(sample: PointSample, answers: Mapping[str, str]) -> _Answered:
    numbers = {row.name: number for number, row in enumerate(sample.classes)}
    known = {number: answer for number, answer in answers.items() if number in sample.points}
    pairs = Counter((numbers[sample.points[at]], numbers[name]) for at, name in known.items() if name in numbers)
    counts = np.zeros((len(numbers), len(numbers)), int)
    for place, count in pairs.items():
        counts[place] = count
    return _Answered(counts, sum(answer == CANNOT_TELL for answer in known.values()))


def _feature(fix: Fix) -> Entries:
    """A polygon as GeoJSON has it: closed, and counter-clockwise."""
    ring = list(fix.ring)
    following = [*ring[1:], ring[0]]
    turn = sum((x2 - x) * (y2 + y) for (x, y), (x2, y2) in zip(ring, following, strict=True))
    ring = ring[::-1] if turn > 0 else ring
    corners = [list(corner) for corner in (*ring, ring[0])]
    return {
        "type": "Feature",
        "properties": {"class": fix.name},
        "geometry": {"type": "Polygon", "coordinates": [corners]},
    }
