"""A batch of reports on disk, as `medvision segment` leaves it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medvision.findings.flags import structure_flags
from medvision.findings.statistics import structure_rows
from medvision.volumes.geometry import Grid
from pipelines.report import segmentation
from pipelines.report.index import batch_index, case_row, index_page
from pipelines.report.thumbnails import thumbnail
from pipelines.report.verdicts import report_identity
from shared_backbones.card import ClassEntry

CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background"},
    {"id": 1, "name": "shell", "color": [255, 120, 0]},
    {"id": 2, "name": "core", "color": [0, 160, 255]},
]
FIRST = "case-00000000"


def write_batch(folder: Path, count: int) -> list[dict[str, str]]:
    """Reports of one small scan as so many cases, their index, and the identity of each in the order of the index."""
    grid = Grid.from_affine((32, 36, 30), np.diag([2.0, 2.0, 2.0, 1.0]))
    radius = np.linalg.norm([axis - n / 2 for axis, n in zip(np.indices(grid.shape), grid.shape, strict=True)], axis=0)
    labels = np.select([radius < 6, radius < 11], [2, 1], 0).astype(np.uint8)
    image = (200 - 10 * radius).clip(0).astype(np.float32)
    figures = structure_rows(labels, image, grid.affine, CLASSES, {1: 0.9, 2: 0.8})
    first = report_identity(FIRST, [0])
    sidecar = {"case": FIRST, "report": first, "structures": figures, "flags": structure_flags(figures)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "_LONGEST_SIDE", 120)
        page = segmentation.segmentation_report(sidecar, {"classes": CLASSES}, image, labels, grid)
    picture = thumbnail(page)
    assert picture is not None
    (folder / "reports").mkdir(parents=True)
    rows, pictures = [], {}
    for case, report in _identities(count):
        own = sidecar | {
            "case": case,
            "report": report,
            "summary": {"structures": 2, "structures_found": 2, "lowest_confidence": 0.5, "least_certain": "core"},
        }
        text = page.replace(first["sha256"], report["sha256"]).replace(first["id"], report["id"]).replace(FIRST, case)
        (folder / "reports" / f"{case}.html").write_text(text, encoding="utf-8")
        (folder / f"{case}_seg.json").write_text(json.dumps(own), encoding="utf-8")
        rows.append(case_row(case, "done", sidecar=own, report=f"reports/{case}.html"))
        pictures[case] = picture
    index = batch_index(rows, {"name": "balls", "version": "1.0"})
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "index.html").write_text(index_page(index, pictures), encoding="utf-8")
    return [{"id": row["report_id"] or "", "sha256": row["report_sha256"] or ""} for row in index["cases"]]


def _identities(count: int) -> Iterator[tuple[str, dict[str, str]]]:
    for number in range(count):
        case = f"case-{number:08x}"
        yield case, report_identity(case, [number])
