"""What `review collect` makes of readers' answers on maps: a table of areas, and polygons as labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Entries

if TYPE_CHECKING:
    from pipelines.report.verdicts import Reviews, Row


@dataclass(frozen=True)
class ResultsOfMaps:
    """What is written beside the table of verdicts.

    Attributes:
        files: Paths by kind.
        areas: Rows of the table of areas.
        columns: Its columns.
        fixes: GeoJSON by kind of file.
    """

    files: Mapping[str, Path]
    areas: "Sequence[Row]"
    columns: Sequence[str]
    fixes: Mapping[str, Entries]

    def make_folder(self) -> None:
        """Make the folder of polygons.

        Raises:
            InputError: It cannot be made.
        """
        for kind in self.fixes:
            folder = self.files[kind].parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"cannot be made ({error.strerror})"
                raise InputError(f"{printable(folder)}: {reason}; choose another --fixes") from None

    def write_fixes(self, staged: Mapping[str, Path]) -> None:
        """Write the polygons where they are staged."""
        for kind, collection in self.fixes.items():
            staged[kind].write_text(json.dumps(collection) + "\n", encoding="utf-8")

    def lines(self) -> Iterator[str]:
        """What a user should know of the results, a line for each map and reader, and for each class."""
        seen = set()
        for row in self.areas:
            about = (row["report_id"], row["reviewer"])
            if about not in seen:
                seen.add(about)
                accuracy = _with_margin(row["accuracy"], row["accuracy_margin"], ".3f")
                said = f"{row['answered']} of {row['points']} points, {row['cannot_tell']} cannot be told"
                note = f"; {row['note']}" if row["note"] else ""
                yield printable(f"{row['case']}, {row['reviewer'] or 'no name'}: {said}; accuracy {accuracy}{note}")
            if row["area"]:
                area = _with_margin(row["area"], row["area_margin"], ",.1f")
                yield printable(f"  {row['class']!s:<24} {area} {row['unit']}; on the map {row['mapped_area']:,.1f}")
        if self.fixes:
            yield f"polygons: {', '.join(printable(self.files[kind]) for kind in self.fixes)}"


def results_of_maps(reviews: "Reviews", table: Path, folder: Path | None) -> ResultsOfMaps:
    """What readers' answers on maps amount to; nothing where there are no maps.

    Args:
        reviews: Collected verdicts and reports.
        table: File of the table of verdicts.
        folder: Where polygons go; None where they are not wanted.

    Raises:
        InputError: Polygons of two scenes have one name.
    """
    if not any(report.kind == "map" for report in reviews.reports):
        return ResultsOfMaps({}, [], (), {})
    from pipelines.report.map_areas import AREA_COLUMNS, area_rows, fix_collections

    areas = area_rows(reviews)
    files = {"areas": table.with_name(f"{table.stem}_areas{table.suffix}")} if areas else {}
    drawn = {} if folder is None else fix_collections(reviews)
    paths = {f"fixes {name}": Path(str(folder), f"{name}.geojson") for name in drawn}
    return ResultsOfMaps(files | paths, areas, AREA_COLUMNS, dict(zip(paths, drawn.values(), strict=True)))


def _with_margin(value: object, margin: object, form: str) -> str:
    if not isinstance(value, float):
        return "not known"
    return f"{value:{form}} ± {margin:{form}}" if isinstance(margin, float) else f"{value:{form}}"
