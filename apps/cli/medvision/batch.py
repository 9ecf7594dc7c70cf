"""The index of a batch: what `medvision segment` leaves beside the results of a folder of scans."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.cli.medvision.scans import Scan
from shared_backbones.errors import InputError
from shared_backbones.files import printable, replacing

INDEX = "index.html"
_TWIN = "index.json"
_REPORTS = "reports"


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        scan: its file.
        case: what it is called where its file's name must not appear.
        status: `done`, `skipped` or `failed`.
        reason: why it failed, in words that may hold names of files.
        sidecar: the file of its side-car, where it has results.
        report: the file of its report, where it has results.
    """

    scan: Path
    case: str
    status: str
    reason: str | None = None
    sidecar: Path | None = None
    report: Path | None = None


def case_of(scan: Scan, number: int) -> str:
    """Name of a case where its file's name must not appear; one that cannot be read has its number in the batch."""
    try:
        return f"case-{scan.sha256()[:8]}"
    except InputError:
        return f"unreadable-{number}"


def check_index(folder: Path) -> None:
    """Refuse to write an index over a page that is none.

    Raises:
        InputError: it would be.
    """
    from pipelines.report.index import TITLE

    target = folder / INDEX
    if not target.exists():
        return
    try:
        ours = f"<title>{TITLE}</title>".encode() in target.read_bytes()[:4096]
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{printable(target)}: is there and no index of this program; move it, or choose another --output folder"
        )


def write_index(folder: Path, outcomes: Sequence[Outcome], card: Mapping[str, Any], private: Sequence[Path]) -> Path:
    """Write `index.html` and `index.json`, and hash-named copies of the reports that they link to.

    Args:
        folder: folder of the results.
        outcomes: what became of each scan.
        card: card of the model.
        private: further files and folders whose names must not appear.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written to.
    """
    from pipelines.report.index import batch_index, case_row, index_page, thumbnail

    rows, pictures = [], {}
    for outcome in outcomes:
        case, link = outcome.case, None
        sidecar = outcome.sidecar and json.loads(outcome.sidecar.read_text(encoding="utf-8"))
        if sidecar and outcome.report is not None:
            link = _hash_named(folder, outcome.report, case)
            picture = thumbnail(outcome.report.read_text(encoding="utf-8"))
            if picture:
                pictures[case] = picture
        reason = _without_names(outcome.reason, outcome.scan, [folder, *private], case)
        rows.append(case_row(case, outcome.status, reason=reason, sidecar=sidecar, report=link))
    index = batch_index(rows, {key: card.get(key) for key in ("name", "version", "license", "weights_sha256")})
    with replacing(folder / _TWIN) as temporary:
        temporary.write_text(json.dumps(index, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    with replacing(folder / INDEX) as temporary:
        temporary.write_text(index_page(index, pictures), encoding="utf-8")
    return folder / INDEX


def _hash_named(folder: Path, report: Path, case: str) -> str:
    """Where the index finds a report, by a name that tells nothing: a hard link, or a copy where there are none."""
    if report.name.startswith(case):
        return report.name
    target = folder / _REPORTS / f"{case}.html"
    try:
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".medvision-", dir=target.parent) as staging:
            staged = Path(staging) / target.name
            try:
                os.link(report, staged)
            except OSError:
                shutil.copyfile(report, staged)
            os.replace(staged, target)
    except OSError as error:
        raise InputError(
            f"{printable(target)}: cannot be written ({error.strerror}); make room, or choose another --output folder"
        ) from None
    return f"{_REPORTS}/{target.name}"


def _without_names(reason: str | None, scan: Path, others: Sequence[Path], case: str) -> str | None:
    """A reason without any of the paths, in whole or in part."""
    if reason is None:
        return None
    for path, instead in [(scan, case), *((other, "[path left out]") for other in others)]:
        for name in (printable(path.absolute()), printable(path), printable(path.name)):
            if name.strip("."):
                reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, reason)
    return reason.removeprefix(f"{case}: ")
