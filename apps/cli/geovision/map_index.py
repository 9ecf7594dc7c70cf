"""The index that `geovision map` leaves beside the maps of a folder of scenes."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from apps.cli.shared.outputs import SIDECAR, Outputs, link_or_copy, read_sidecar
from pipelines.report.map_index import map_index, map_index_page, map_row
from pipelines.report.sections import data_uri
from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable
from shared_backbones.json_values import Document, Entries

INDEX = "index.html"
_REPORTS = "reports"
_THUMBNAIL = 112  # pixels of the longest side
_MOST_THUMBNAILS = 300  # so that the page of a thousand scenes stays small


class MappedScene(NamedTuple):
    """What became of a scene.

    Attributes:
        path: The scene.
        outputs: The files of its map.
        result: Its `status`, and the `error` or the files that were `changed` since.
    """

    path: Path
    outputs: Outputs
    result: Entries


def index_files(folder: Path, overwrite: bool, cases: Iterable[str] | None = None) -> Outputs:
    """The files of an index, with copies of reports: of some cases, or by default of those that are there."""
    files = {SIDECAR: folder / "index.json", "index": folder / INDEX}
    names = [path.stem for path in (folder / _REPORTS).glob("*.html")] if cases is None else cases
    return Outputs(files | {f"report {name}": folder / _REPORTS / f"{name}.html" for name in names}, overwrite)


def write_index(folder: Path, scenes: Sequence[MappedScene], model: Document, *, overwrite: bool) -> None:
    """Write `index.html`, `index.json`, and copies of reports that are called by the scenes' pseudonyms.

    Args:
        folder: Folder of the maps.
        scenes: What became of each scene.
        model: What side-cars say of the model.
        overwrite: Whether files that are not ours make way.

    Raises:
        InputError: the folder cannot be written to.
    """
    rows, pictures, reports = [], {}, {}
    for number, scene in enumerate(scenes, 1):
        failed = scene.result["status"] == "failed"
        sidecar = {} if failed else read_sidecar(scene.outputs.files[SIDECAR])
        case = sidecar.get("case", f"unreadable-{number}")
        status = "changed" if scene.result.get("changed") else scene.result["status"]
        reason = _without_names(scene.result.get("error"), scene.path) if failed else None
        report = scene.outputs.files.get("report")
        if not failed and report is not None and "report" in sidecar:
            reports[case] = report
        link = f"{_REPORTS}/{case}.html" if case in reports else None
        rows.append(map_row(case, status, sidecar, reason, link))
        if not failed and len(pictures) < _MOST_THUMBNAILS:
            picture = _thumbnail(scene.outputs.files["quicklook"])
            if picture is not None:
                pictures[case] = picture
    index = map_index(rows, model)
    files = index_files(folder, overwrite, reports)
    if reports:
        _make(folder / _REPORTS)
    with files.placing() as staged:
        for case, report in reports.items():
            link_or_copy(report, staged[f"report {case}"])
        staged["index"].write_text(map_index_page(index, pictures), encoding="utf-8")
        files.finish(staged, index)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        reason = f"cannot be made ({error.strerror})"
        raise InputError(f"{printable(folder)}: {reason}; choose another folder for the maps") from None


def _thumbnail(path: Path) -> str | None:
    """Data URI of a picture, without the legend below, made small; None where it cannot be read."""
    try:
        check_regular(path)
        with Image.open(path) as file:
            picture = file.convert("RGB").crop((0, 0, file.width, min(file.height, file.width // 2)))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return data_uri(stream.getvalue(), "image/png")


def _without_names(reason: str | None, path: Path) -> str:
    reason = reason or ""
    for name in (printable(path.absolute()), printable(path), printable(path.name)):
        reason = reason.removeprefix(f"{name}: ").replace(name, "the input")
    return reason
