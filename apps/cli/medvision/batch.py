"""The index of a batch: what `medvision segment` leaves beside the results of a folder of scans."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.medvision.results import make_writable
from apps.cli.medvision.scans import Scan
from apps.cli.medvision.segment import SegmentOptions
from apps.cli.shared.outputs import SIDECAR, Outputs, link_or_copy
from medvision.findings.sidecar import measured
from medvision.findings.tables import Cell, table_text, volume_rows
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import printable

if TYPE_CHECKING:
    from pipelines.report.index import BatchIndex

INDEX = "index.html"
_TWIN = "index.json"
_VOLUMES = "volumes.csv"
_REPORTS = "reports"


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes:
        scan: the scan.
        case: what it is called where its file's name must not appear.
        status: `done`, `skipped`, `changed` (skipped, but with files that were changed since) or `failed`.
        reason: why it failed, in words that may hold names of files.
        sidecar: the file of its side-car, where it has results.
        report: the file of its report, where it has results.
    """

    scan: Scan
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


def index_files(folder: Path, overwrite: bool, cases: Iterable[str] | None = None) -> Outputs:
    """The files of a batch's index, with copies of reports: of some cases, or by default of those that are there."""
    files = {SIDECAR: folder / _TWIN, "index": folder / INDEX, "volumes": folder / _VOLUMES}
    names = [path.stem for path in (folder / _REPORTS).glob("*.html")] if cases is None else cases
    return Outputs(files | {f"report {name}": folder / _REPORTS / f"{name}.html" for name in names}, overwrite)


def write_index(
    folder: Path,
    outcomes: Sequence[Outcome],
    card: Mapping[str, Any],
    private: Sequence[Path],
    options: SegmentOptions,
) -> None:
    """Write `index.html`, `index.json` and `volumes.csv`, and hash-named copies of the reports that they link to.

    Args:
        folder: folder of the results.
        outcomes: what became of each scan.
        card: card of the model.
        private: further files and folders whose names must not appear.
        options: what the user asks for.

    Raises:
        InputError: the folder cannot be written to.
    """
    from pipelines.report.index import batch_index, case_row, index_page
    from pipelines.report.thumbnails import thumbnail

    rows, pictures, copied, table = [], {}, {}, []
    for outcome in outcomes:
        case, link = outcome.case, None
        sidecar: Any = outcome.sidecar and read_json(outcome.sidecar)
        if sidecar and outcome.report is not None:
            link = outcome.report.name
            if not link.startswith(case):
                copied[case], link = outcome.report, f"{_REPORTS}/{case}.html"
            picture = thumbnail(outcome.report.read_text(encoding="utf-8"))
            if picture:
                pictures[case] = picture
        reason = _without_names(outcome.reason, outcome.scan.files, [folder, *private], case)
        volumes = volume_rows(measured(sidecar), options.stats.value) if sidecar else []
        wide = volume_rows(measured(sidecar))[0] if sidecar else None
        rows.append(case_row(case, outcome.status, reason=reason, sidecar=sidecar, report=link, volumes=wide))
        name = case if options.pseudonyms else outcome.scan.name
        about: dict[str, Cell] = {"scan": name, "status": outcome.status}
        table += [about | row for row in volumes] or [about | {"case": case}]
    index = batch_index(rows, {key: card.get(key) for key in ("name", "version", "license", "weights_sha256")})
    _place(folder, index, index_page(index, pictures), table_text(table), copied, options.overwrite)


def _place(
    folder: Path, index: "BatchIndex", page: str, table: str, copied: Mapping[str, Path], overwrite: bool
) -> None:
    """Put the files of an index in place."""
    if copied:
        make_writable(folder / _REPORTS)
    files = index_files(folder, overwrite, copied)
    with files.placing() as staged:
        for case, report in copied.items():
            link_or_copy(report, staged[f"report {case}"])
        staged["index"].write_text(page, encoding="utf-8")
        staged["volumes"].write_text(table, encoding="utf-8")
        files.finish(staged, index)


def _without_names(reason: str | None, files: Sequence[Path], others: Sequence[Path], case: str) -> str | None:
    """A reason without any of the paths, in whole or in part."""
    if reason is None:
        return None
    for path, instead in [*((file, case) for file in files), *((other, "[path left out]") for other in others)]:
        for name in (printable(path.absolute()), printable(path), printable(path.name)):
            if name.strip("."):
                reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, reason)
    return reason.removeprefix(f"{case}: ")
