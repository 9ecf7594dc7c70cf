"""Sections with figures of structures: what a segmentation measures, and how it compares with a reference."""

import math
from collections.abc import Mapping, Sequence

from pipelines.report.sections import Cell, Column, Section, Table, Text
from pipelines.report.text import DASH, as_text, fixed, moment, number_at, part_at, percent, rows_at, text_at
from shared_backbones.json_values import Json

_REASONS = {
    "empty": "no voxel has this label",
    "touches_border": "the structure reaches the edge of the scan, so only a part of it is in view",
    "not_finite": "the image holds NaN or infinite values inside the structure",
    "not_measured": "the segmentation came without a confidence",
    "not_calibrated": "what its confidence stands for was not measured, or not with these settings",
}
_STATES = {
    "missed": "missed",
    "false_positive": "false positive",
    "scored": "scored",
    "both_empty": "empty in both",
}


def volumes_section(data: Mapping[str, Json], card: Mapping[str, Json], colours: Mapping[int, str]) -> Section:
    """Figures of each structure; a letter says why one is missing.

    Args:
        data: Side-car.
        card: Card of the model.
        colours: Colours of the classes by their id.
    """
    rows = rows_at(data, "structures")
    calibration = part_at(card, "input", "expected_dice")
    titles = {"volume_ml": "Volume (mL)", "voxels": "Voxels", "mean_intensity": "Mean intensity"}
    titles |= {"mean_confidence": "Mean confidence", "expected_dice": "Expected Dice", "components": "Components"}
    digits = {"volume_ml": 2, "mean_intensity": _digits(rows), "mean_confidence": 3, "expected_dice": 2}
    if not calibration:
        del titles["expected_dice"]
    letters: dict[str, str] = {}
    cells = []
    for row in rows:
        marks = _marks(row, letters)
        figures = [Cell(fixed(number_at(row, key), digits.get(key, 0)), note=marks.get(key, "")) for key in titles]
        border = row.get("touches_border")
        largest = Cell(percent(number_at(row, "largest_share")))
        cells.append([_structure(row, colours), *figures, largest, Cell(as_text(border), alert=bool(border))])
    numeric = [Column(title, numeric=True) for title in [*titles.values(), "In the largest"]]
    remark = (
        f"Expected Dice: what a structure of that confidence reached on average in "
        f"{as_text(calibration.get('cases'))} cases: {as_text(calibration.get('of'))}. It is no promise for this scan."
    )
    table = Table(
        [Column("Structure"), *numeric, Column("Touches border")],
        cells,
        notes=[(letter, f"Not given: {_REASONS.get(reason, reason)}.") for reason, letter in letters.items()],
        remark=remark if calibration else "",
    )
    return Section("volumes", "Volumes", [table], contents="Volumes")


def _marks(row: Mapping[str, Json], letters: dict[str, str]) -> dict[str, str]:
    """Letters of a row's missing figures; a reason that has none yet gets the next one."""
    return {
        figure: letters.setdefault(str(reason), chr(ord("a") + len(letters) % 26))
        for figure, reason in part_at(row, "reasons").items()
        if row.get(figure) is None
    }


def _digits(rows: Sequence[Mapping[str, Json]]) -> int:
    """Decimals with which the largest mean intensity has four digits, at most six."""
    largest = max((abs(number_at(row, "mean_intensity") or 0.0) for row in rows), default=0.0)
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest > 0 else 0


def comparison_section(data: Mapping[str, Json], colours: Mapping[int, str]) -> Section:
    """Overlap with the reference, worst first: missed and false positives, rising Dice, then empty in both.

    Args:
        data: Side-car with a `reference`.
        colours: Colours of the classes by their id.
    """
    comparison = part_at(data, "reference")
    tolerance = number_at(comparison, "nsd_tolerance_mm")
    within = "the tolerance" if tolerance is None else f"{as_text(tolerance)} mm"
    text = (
        "Worst structure first. HD95: 95th percentile of the surface distances, the larger of the two directions. NSD: "
        f"share of both surfaces within {within} of the other. A missed or falsely found structure has Dice 0 and no "
        "distance; one that is empty in both is left out of the means."
    )
    rows = sorted(rows_at(comparison, "rows"), key=_badness)
    columns = [
        Column("Structure"),
        Column("State"),
        Column("Dice", numeric=True),
        Column("HD95 (mm)", numeric=True),
        Column("NSD" if tolerance is None else f"NSD at {within}", numeric=True),
    ]
    cells = [
        [
            _structure(row, colours),
            _state(text_at(row, "state")),
            Cell(fixed(number_at(row, "dice"), 3), bar=number_at(row, "dice")),
            *_surfaces(row),
        ]
        for row in rows
    ]
    means = part_at(comparison, "summary")
    foot = [Cell("Mean"), Cell(), Cell(fixed(number_at(means, "dice"), 3)), *_surfaces(means)] if means else []
    blocks = [Text(text, small=True), Table(columns, cells, foot=foot)]
    return Section("reference", "Comparison with the reference", blocks, contents="Reference")


def changes_section(data: Mapping[str, Json], colours: Mapping[int, str]) -> Section:
    """What changed since the earlier result, the largest change first.

    Args:
        data: Side-car with `earlier`.
        colours: Colours of the classes by their id.
    """
    earlier = part_at(data, "earlier")
    model = part_at(earlier, "model")
    by = " ".join(text_at(model, key) for key in ("name", "version")).strip() or "an unnamed model"
    same = bool(earlier.get("same_scan"))
    text = f"{text_at(earlier, 'case')}, {moment(text_at(earlier, 'created'))}, by {by}: " + (
        "the same scan. Overlap is the Dice of both results."
        if same
        else "another scan, as the table says. Volumes alone are compared, since the scans do not lie on one another."
    )
    rows = sorted(rows_at(earlier, "rows"), key=lambda row: -abs(number_at(row, "change_share") or 0.0))
    titles = ["Earlier (mL)", "Now (mL)", "Change (mL)", "Change", *(["Dice"] if same else [])]
    cells = [
        [
            _structure(row, colours),
            *(Cell(fixed(number_at(row, key), 2)) for key in ("earlier_ml", "volume_ml")),
            Cell(_signed(number_at(row, "change_ml"), "{:+.2f}")),
            Cell(_signed(number_at(row, "change_share"), "{:+.1%}")),
            *([Cell(fixed(number_at(row, "dice"), 3))] if same else []),
        ]
        for row in rows
    ]
    remark = "A change of some per cent is within what another scan, another session or another version makes of it."
    table = Table([Column("Structure"), *(Column(title, numeric=True) for title in titles)], cells, remark=remark)
    return Section("earlier", "Change since the earlier result", [Text(text, small=True), table], contents="Change")


def _signed(value: float | None, form: str) -> str:
    return DASH if value is None else form.format(value).replace("-", "−")


def _structure(row: Mapping[str, Json], colours: Mapping[int, str]) -> Cell:
    """The name of a row's structure, with its colour."""
    return Cell(str(row["name"]), swatch=colours.get(int(number_at(row, "id") or 0), "#000000"))


def _badness(row: Mapping[str, Json]) -> tuple[bool, float]:
    dice = number_at(row, "dice")
    return row.get("state") == "both_empty", math.inf if dice is None else dice


def _state(state: str) -> Cell:
    return Cell(_STATES.get(state, state) or DASH, alert=state in ("missed", "false_positive"))


def _surfaces(row: Mapping[str, Json]) -> list[Cell]:
    """Figures of the surfaces."""
    return [Cell(fixed(number_at(row, "hd95_mm"), 2)), Cell(fixed(number_at(row, "nsd"), 3))]
