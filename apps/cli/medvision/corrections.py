"""The work of `review list`: scans by their content, with their label maps and readers' marks, as a data set."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from apps.cli.medvision.known_scans import find_by_content
from apps.cli.medvision.list_corrections import ListOptions
from apps.cli.medvision.results import make_writable
from apps.cli.medvision.scans import Scan
from apps.cli.medvision.segment import SegmentOptions
from apps.cli.shared.outputs import SIDECAR, Outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from medvision.volumes.files import read_labels
from medvision.volumes.names import scan_parts, scan_stem
from medvision.volumes.writing import write_stack, write_volume
from pipelines.report.text import list_at, part_at, text_at
from pipelines.report.verdict_files import VERDICTS, Mark, Report, Verdict
from pipelines.report.verdicts import DISAGREE, Reviews, collect_reviews, consensus_of
from shared_backbones.documents import read_json
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable, write_rows
from shared_backbones.json_values import Entries

_CASES = ("case", "input", "result", "verdict", "readers", "comments", "structures", "flags", "lowest_confidence")
_MARKS = ("case", "reader", "word", "plane", "position", "r_mm", "a_mm", "s_mm", "i", "j", "k")
_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

Writer: TypeAlias = Callable[[Path], object]
"""Writes a file."""


class _UnreadableError(InputError):
    """A scan that was recognized, and cannot be read."""


@dataclass(frozen=True)
class _Correction:
    """A scan to correct: its report, what readers said together and each, the scan as it was read, its label map."""

    report: Report
    verdict: str
    given: Sequence[Verdict]
    scan: Scan
    reading: SegmentOptions
    channels: Sequence[str]
    labels: Path

    @property
    def case(self) -> str:
        return self.report.about.case

    @property
    def is_copied(self) -> bool:
        """Whether the scan is one file that trainings read as it was read here; else it is written as it was read."""
        plain = SegmentOptions(input=self.reading.input)
        return self.scan.series is None and not self.scan.further and self.reading == plain

    @property
    def marks(self) -> list[tuple[str, Mark]]:
        """Readers' marks, with the reader's name."""
        return [(verdict.reviewer, mark) for verdict in self.given for mark in verdict.marks]


def lay_out(options: ListOptions) -> int:
    """Lay out the scans with some verdicts, and return the exit code.

    Raises:
        InputError: nothing has such a verdict, none of its scans is there, or files of others are in the way.
    """
    wanted = options.verdicts or ["needs_work", "reject"]
    unknown = [name for name in wanted if name not in (*VERDICTS, DISAGREE)]
    if unknown:
        raise InputError(f"--verdict {printable(unknown[0])}: expected some of {', '.join((*VERDICTS, DISAGREE))}")
    collected = collect_reviews(options.folders, options.consensus)
    chosen, bad_scans = _choose(collected, wanted, options.consensus)
    if not chosen:
        more = f"; of {bad_scans} the scan itself is bad, which no correction mends" if bad_scans else ""
        raise InputError(f"no segmentation here has the verdict {' or '.join(wanted)}{more}; give other folders")
    problems = list(collected.problems)
    corrections = list(_complete(chosen, options, problems))
    laid_out = _write(corrections, options, problems) if corrections else []
    if not laid_out:
        raise InputError(f"{printable(options.inputs)}: no scan of {len(chosen)} can be laid out; {problems[-1]}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not options.quiet:
        bad = f", {bad_scans} left out as the scan itself is bad" if bad_scans else ""
        print(f"{printable(options.output)}: {len(laid_out)} of {len(chosen)} scans to correct{bad}")
        print("train on them with data.kind=volumes data.layout=pairs data.root=" + printable(options.output))
    return PARTLY_FAILED if problems else COMPLETE


def _choose(
    collected: Reviews, wanted: Sequence[str], rule: str
) -> tuple[list[tuple[Report, str, list[Verdict]]], int]:
    """Segmentations with a wanted consensus, the latest verdicts first; and how many are of scans that are bad."""
    chosen, bad_scans = {}, 0
    for report in collected.reports:
        given = collected.given.get(report.about, {})
        result = consensus_of(given, rule)
        if report.kind != "segmentation" or result not in wanted or report.about in chosen:
            continue
        reasons = {verdict.cause for verdict in given.values() if verdict.verdict == result}
        if reasons == {"scan"}:
            bad_scans += 1
        else:
            chosen[report.about] = (report, result, list(given.values()))
    return sorted(chosen.values(), key=lambda each: max(verdict.at for verdict in each[2]), reverse=True), bad_scans


def _complete(
    chosen: Sequence[tuple[Report, str, list[Verdict]]], options: ListOptions, problems: list[str]
) -> Iterator[_Correction]:
    """Corrections of those whose scan and label map are there; a line in `problems` for each other."""
    sidecars = {report.about: read_json(report.path) for report, *_ in chosen}
    digests = {text_at(content, "input", "sha256") for content in sidecars.values()}
    known = find_by_content(options.inputs, digests, options.output.resolve())
    if len(known.by_digest) < len(digests):
        problems += known.unread
    done: set[str] = set()
    for report, result, given in chosen:
        content = sidecars[report.about]
        scan = known.by_digest.get(text_at(content, "input", "sha256"))
        problem = None
        if report.about.case in done:
            problem = "a result of the same scan that was judged later is laid out instead"
        elif scan is None:
            problem = f"no scan of its content is in {printable(options.inputs)}; give the folder of what was segmented"
        else:
            try:
                labels = _labels(report, content)
                done.add(report.about.case)
                channels = list(map(str, list_at(content, "input", "channels")))
                yield _Correction(report, result, given, scan, _reading(scan, content), channels, labels)
            except InputError as error:
                problems.append(str(error))
        if problem:
            problems.append(f"{report.file}: {problem}")


def _reading(scan: Scan, content: Entries) -> SegmentOptions:
    """The options by which a scan was read, as its side-car has them."""
    settings = part_at(content, "settings")
    index, geometry = settings.get("volume_index"), settings.get("geometry")
    return SegmentOptions(
        input=scan.path,
        volume_index=index if isinstance(index, int) else None,
        use_sform=geometry == "sform",
        use_qform=geometry == "qform",
        allow_nonfinite=settings.get("allow_nonfinite") is True,
        resample_irregular=settings.get("resample_irregular") is True,
        skip_unreadable=settings.get("skip_unreadable") is True,
    )


def _labels(report: Report, content: Entries) -> Path:
    """The label map of a report, as it was judged.

    Raises:
        InputError: it is not there, or was changed since.
    """
    labels = report.path.with_name(report.path.name.removesuffix(".json") + ".nii.gz")
    if file_sha256(labels) != text_at(content, "outputs", "labels", "sha256"):
        raise InputError(f"{printable(labels)}: was changed since it was judged; correct it there, or segment again")
    return labels


def _write(corrections: Sequence[_Correction], options: ListOptions, problems: list[str]) -> list[_Correction]:
    """Put the files of the corrections in place, and return those; all of them or none are written.

    A correction whose scan cannot be read is left out, with a line in `problems`.
    """
    folder = options.output
    writers = {each.case: _writers(each, folder) for each in corrections}
    files = {SIDECAR: folder / "list.json", "cases": folder / "cases.csv", "marks": folder / "marks.csv"}
    files |= {_kind(path): path for each in writers.values() for path in each}
    outputs = Outputs(files, options.overwrite)
    outputs.check(path for each in corrections for path in (*each.scan.files, each.labels))
    for place in dict.fromkeys(path.parent for path in files.values()):
        make_writable(place)
    with outputs.placing() as staged:
        laid_out = [each for each in corrections if _stage(writers[each.case], staged, problems)]
        if not laid_out:
            staged.clear()
            return []
        with staged["cases"].open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [_CASES, *map(_case_row, laid_out)])
        with staged["marks"].open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [_MARKS, *(row for each in laid_out for row in _mark_rows(each))])
        content = {"schema_version": 1, "layout": "pairs", "wanted": options.verdicts, "count": len(laid_out)}
        outputs.finish(staged, content)
    return laid_out


def _stage(writers: Mapping[Path, Writer], staged: dict[str, Path], problems: list[str]) -> bool:
    """Write the files of a correction, or take them out of what is staged where its scan cannot be read."""
    try:
        for path, write in writers.items():
            write(staged[_kind(path)])
    except _UnreadableError as error:
        problems.append(str(error))
        for path in writers:
            del staged[_kind(path)]
        return False
    return True


def _writers(each: _Correction, folder: Path) -> dict[Path, Writer]:
    """What writes the files of a correction, by the places where they go."""
    copied = [("labels", each.labels), *([("images", each.scan.path)] if each.is_copied else [])]
    writers: dict[Path, Writer] = {
        folder / kind / f"{each.case}{part.name[len(scan_stem(part)) :].lower()}": partial(shutil.copyfile, part)
        for kind, file in copied
        for part in scan_parts(file)
    }
    if not each.is_copied:
        writers[folder / "images" / f"{each.case}.nii.gz"] = partial(_write_image, each)
    if _points(each):
        writers[folder / "marks" / f"{each.case}.mrk.json"] = partial(_write_marks, each)
    return writers


def _write_image(each: _Correction, path: Path) -> None:
    """Write a scan as it was read; its channels are the volumes of a file, as trainings take them."""
    try:
        volume = each.scan.read(each.reading, each.channels)
    except InputError as error:
        raise _UnreadableError(str(error)) from error
    if len(volume.channels) == 1:
        write_volume(path, volume.data, volume.grid)
    else:
        write_stack(path, volume.channels, len(volume.channels), volume.data.dtype, volume.grid)


def _kind(path: Path) -> str:
    """What the side-car calls a file of a case."""
    return f"{path.parent.name} {path.name}"


def _case_row(each: _Correction) -> list[object]:
    def said(texts: Mapping[str, str]) -> str:
        return "; ".join(f"{reader}: {text}" if reader else text for reader, text in texts.items() if text)

    structures = {
        verdict.reviewer: ", ".join(f"{name} {judged}" for name, judged in verdict.structures.items())
        for verdict in each.given
    }
    return [
        each.case, printable(each.scan.path), printable(each.labels), each.verdict, len(each.given),
        said({verdict.reviewer: verdict.comment for verdict in each.given}), said(structures), each.report.flags,
        each.report.confidence,
    ]  # fmt: skip


def _mark_rows(each: _Correction) -> Iterator[list[object]]:
    """Marks in mm, and as voxels counted from 1, as ITK-SNAP's cursor has them."""
    to_voxels = np.linalg.inv(read_labels(each.labels).grid.affine) if _points(each) else np.eye(4)
    for reader, mark in each.marks:
        mm = list(mark.mm) if mark.mm is not None else [None] * 3
        voxel = [None] * 3 if mark.mm is None else [round(float(n)) + 1 for n in (to_voxels @ [*mark.mm, 1])[:3]]
        yield [each.case, reader, mark.word, mark.plane, mark.position, *mm, *voxel]


def _points(each: _Correction) -> list[tuple[str, tuple[float, float, float]]]:
    """Words and places in mm of the marks that have one."""
    return [(mark.word, mark.mm) for _, mark in each.marks if mark.mm is not None]


def _write_marks(each: _Correction, path: Path) -> None:
    """Write marks as a point list of 3D Slicer."""
    points = [
        {"id": str(number), "label": word, "position": list(mm), "positionStatus": "defined"}
        for number, (word, mm) in enumerate(_points(each), 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "coordinateUnits": "mm", "controlPoints": points}
    path.write_text(json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=1) + "\n", encoding="utf-8")
