"""The work of `review list`: scans by their content, with their label maps and readers' marks, as a data set."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.cli.medvision.list_corrections import ListOptions
from apps.cli.medvision.results import make_writable
from apps.cli.shared.outputs import SIDECAR, Outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from medvision.volumes.files import SUFFIXES, is_scan_name, read_labels, scan_parts, scan_sha256, scan_stem
from pipelines.report.text import list_at, text_at
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


@dataclass(frozen=True)
class _Correction:
    """A scan to correct: its report, what readers said together and each, its files, and those of its label map."""

    report: Report
    verdict: str
    given: Sequence[Verdict]
    scan: Path
    labels: Path

    @property
    def case(self) -> str:
        return self.report.about.case

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
    corrections = list(_complete(chosen, options.inputs, problems))
    if not corrections:
        raise InputError(f"{printable(options.inputs)}: no scan of {len(chosen)} can be laid out; {problems[-1]}")
    _write(corrections, options)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not options.quiet:
        left_out = f", {bad_scans} left out as the scan itself is bad" if bad_scans else ""
        print(f"{printable(options.output)}: {len(corrections)} of {len(chosen)} scans to correct{left_out}")
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
    chosen: Sequence[tuple[Report, str, list[Verdict]]], inputs: Path, problems: list[str]
) -> Iterator[_Correction]:
    """Corrections of those whose scan and label map are there; a line in `problems` for each other."""
    sidecars = {report.about: read_json(report.path) for report, *_ in chosen}
    digests = {text_at(content, "input", "sha256") for content in sidecars.values()}
    scans = _find(inputs, digests)
    done: set[str] = set()
    for report, result, given in chosen:
        content = sidecars[report.about]
        scan = scans.get(text_at(content, "input", "sha256"))
        problem = None
        if report.about.case in done:
            problem = "a result of the same scan that was judged later is laid out instead"
        elif len(list_at(content, "input", "channels")) > 1:
            problem = "its scan has several channels; the layout pairs has one file for each scan"
        elif scan is None:
            problem = f"no scan of its content is in {printable(inputs)}; of DICOM, write NIfTI first and segment that"
        else:
            try:
                labels = _labels(report, content)
                done.add(report.about.case)
                yield _Correction(report, result, given, scan, labels)
            except InputError as error:
                problems.append(str(error))
        if problem:
            problems.append(f"{report.file}: {problem}")


def _labels(report: Report, content: Entries) -> Path:
    """The label map of a report, as it was judged.

    Raises:
        InputError: it is not there, or was changed since.
    """
    labels = report.path.with_name(report.path.name.removesuffix(".json") + ".nii.gz")
    if file_sha256(labels) != text_at(content, "outputs", "labels", "sha256"):
        raise InputError(f"{printable(labels)}: was changed since it was judged; correct it there, or segment again")
    return labels


def _find(folder: Path, digests: set[str]) -> dict[str, Path]:
    """Scans at any depth of a folder by the digest of their content, as far as that is asked for.

    Raises:
        InputError: it is no folder, or contains no scan.
    """
    if not folder.is_dir():
        raise InputError(f"--inputs {printable(folder)}: no such folder; expected one with the scans")
    scans, count = {}, 0
    for parent, children, names in os.walk(folder):  # does not walk into linked folders
        children[:] = sorted(child for child in children if not child.startswith("."))
        for path in (Path(parent, name) for name in sorted(names)):
            if is_scan_name(path) and path.is_file() and len(scans) < len(digests):
                count += 1
                digest = scan_sha256(path)
                if digest in digests:
                    scans.setdefault(digest, path)
    if not count:
        raise InputError(f"--inputs {printable(folder)}: contains no scan; expected {', '.join(SUFFIXES)}")
    return scans


def _write(corrections: Sequence[_Correction], options: ListOptions) -> None:
    """Put the files of all corrections in place, all of them or none."""
    folder = options.output
    copied = {
        folder / kind / f"{each.case}{part.name[len(scan_stem(part)) :].lower()}": part
        for each in corrections
        for kind, file in (("images", each.scan), ("labels", each.labels))
        for part in scan_parts(file)
    }
    marked = {folder / "marks" / f"{each.case}.mrk.json": each for each in corrections if _points(each)}
    files = {SIDECAR: folder / "list.json", "cases": folder / "cases.csv", "marks": folder / "marks.csv"}
    files |= {_kind(path): path for path in (*copied, *marked)}
    outputs = Outputs(files, options.overwrite)
    for place in dict.fromkeys(path.parent for path in files.values()):
        make_writable(place)
    outputs.check(copied.values())
    with outputs.placing() as staged:
        for path, part in copied.items():
            shutil.copyfile(part, staged[_kind(path)])
        for path, each in marked.items():
            staged[_kind(path)].write_text(_slicer(each), encoding="utf-8")
        with staged["cases"].open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [_CASES, *map(_case_row, corrections)])
        with staged["marks"].open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [_MARKS, *(row for each in corrections for row in _mark_rows(each))])
        content = {"schema_version": 1, "layout": "pairs", "wanted": options.verdicts, "count": len(corrections)}
        outputs.finish(staged, content)


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
        each.case, printable(each.scan), printable(each.labels), each.verdict, len(each.given),
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


def _slicer(each: _Correction) -> str:
    """Marks as a point list of 3D Slicer."""
    points = [
        {"id": str(number), "label": word, "position": list(mm), "positionStatus": "defined"}
        for number, (word, mm) in enumerate(_points(each), 1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "coordinateUnits": "mm", "controlPoints": points}
    return json.dumps({"@schema": _SCHEMA, "markups": [markup]}, indent=1) + "\n"
