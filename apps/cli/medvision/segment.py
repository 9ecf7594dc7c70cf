"""`medvision segment`: scans in, label maps, side-cars and reports out."""

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.batch import INDEX, Outcome, case_of, check_index, write_index
from apps.cli.medvision.scans import Job, Scan, find_inputs, read_reference
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED
from apps.cli.shared.sharding import share
from medvision.dicom.segmentations import check_source, write_segmentation
from medvision.dicom.series import DicomVolume
from medvision.findings.sidecar import build_sidecar
from medvision.segmentation import Segmentation, Segmenter
from medvision.volumes.files import Volume, find_scans, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable

NSD_TOLERANCE_MM = 1.0


def run_jobs(job: Job, *, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Segment a scan, a folder of scans or a DICOM series, and return the exit code.

    Raises:
        InputError: nothing could be started, or the only scan failed.
    """
    scans, folder, batch = find_inputs(job)
    if job.shard is not None and not batch:
        raise InputError(f"--shard: {printable(job.input)} is one scan; expected a folder of them")
    scans = share(scans, job.shard)
    _check_reference(job, batch)
    segmenter = Segmenter(
        job.model,
        device=job.device,
        threads=job.threads,
        views=job.views,
        fast=job.fast,
        precision=job.precision,
    )
    kept = segmenter.contract.label_ids(job.labels) if job.labels is not None else None
    if batch:
        _make_writable(folder)
        check_index(folder)
    results, outcomes = [], []
    for number, scan in enumerate(scans, 1):
        name = printable(scan.path.name)
        prefix = f"[{number}/{len(scans)}] " if batch else ""
        with _progress(prefix + name, shown=not (quiet or as_json)) as progress:
            try:
                result = _segment_one(job, segmenter, kept, scan, folder, progress)
            except (InputError, MemoryError) as error:
                if not batch:
                    raise
                reason = str(error) if isinstance(error, InputError) else f"{name}: out of memory"
                result = {"input": printable(scan.path), "status": "failed", "error": reason}
        if batch:
            result["case"] = case_of(scan, number)
            outcomes.append(_outcome(job, scan, folder, result))
        results.append(result)
        if not as_json:
            _print_result(result, prefix, quiet, verbose)
    failed = sum(result["status"] == "failed" for result in results)
    indexed = batch and job.shard is None  # jobs side by side would write over one another's
    if indexed:
        private = [path for path in (job.input, job.reference) if path is not None]
        write_index(folder, outcomes, segmenter.card, private)
    if as_json:
        index = {"index": printable(folder / INDEX)} if indexed else {}
        print(json.dumps({"schema_version": 1, **index, "results": results}, indent=2))
    elif batch and not quiet:
        print(f"results in {printable(folder)}" + (f", worst first in {INDEX}" if indexed else ""))
    if failed and not as_json:
        print(f"error: {failed} of {len(results)} scans failed", file=sys.stderr)
    return PARTLY_FAILED if failed else COMPLETE


def _segment_one(
    job: Job,
    segmenter: Segmenter,
    kept: list[int] | None,
    scan: Scan,
    folder: Path,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Segment one scan and put its files in place, all of them or none."""
    started = time.perf_counter()
    path = scan.path
    names = _names(job, scan)
    reference_file = _reference_of(job, scan)
    settings = {
        **segmenter.settings,
        "labels": kept,
        "save_probabilities": job.save_probabilities,
        "reference_sha256": file_sha256(reference_file) if reference_file else None,
        **scan.settings(job),
    }
    result: dict[str, Any] = {
        "input": printable(path),
        "outputs": {kind: printable(folder / name) for kind, name in names.items()},
    }
    if job.resume and _is_done(folder, names, scan, segmenter.model_sha256, settings):
        return result | {"status": "skipped"}

    volume = scan.read(job)
    reference = read_reference(reference_file, volume, segmenter.card["classes"], job) if reference_file else None
    if job.dicom_seg:
        check_source(volume)
    read = time.perf_counter() - started
    _make_writable(folder)
    _check_targets(folder, names, [path, *([reference_file] if reference_file else [])])
    try:
        segmentation = segmenter.segment(volume, keep_scores=job.save_probabilities, progress=progress)
    except InputError as error:  # the engine knows the case, the user knows the file
        raise InputError(str(error).replace(volume.case_id, printable(path))) from error
    segmentation.timings_s["read"] = round(read, 3)
    if kept is not None:
        segmentation.labels[~np.isin(segmentation.labels, kept)] = 0
    compared = _compare(segmentation, reference, kept, settings) if reference else None
    truth = reference.data if reference else None
    sidecar = build_sidecar(segmentation, settings=settings, reference=compared, reference_labels=truth)

    from pipelines.report.segmentation import segmentation_report

    page = segmentation_report(
        sidecar,
        segmentation.card,
        volume.data,
        segmentation.labels,
        volume.grid,
        reference=truth,
    )
    with _placing(folder, names) as staged:
        segmentation.save(staged["labels"])
        if job.save_probabilities:
            segmentation.save_probabilities(staged["probabilities"])
        if isinstance(volume, DicomVolume) and job.dicom_seg:
            write_segmentation(
                staged["dicom_seg"], segmentation.labels, volume, segmentation.card, segmentation.model_sha256,
                kept=kept, max_bytes=job.max_bytes,
            )  # fmt: skip
        staged["report"].write_text(page, encoding="utf-8")
        sidecar["outputs"] = {kind: {"sha256": file_sha256(path)} for kind, path in staged.items() if kind != "sidecar"}
        text = json.dumps(sidecar, indent=2, ensure_ascii=False, allow_nan=False)
        staged["sidecar"].write_text(text + "\n", encoding="utf-8")
    seconds = time.perf_counter() - started
    return result | {"status": "done", "seconds": round(seconds, 2), "sidecar": sidecar}


def _names(job: Job, scan: Scan) -> dict[str, str]:
    """File names of a scan's results."""
    stem = f"case-{scan.sha256()[:8]}" if job.pseudonyms else scan.stem
    names = {"labels": f"{stem}_seg.nii.gz", "sidecar": f"{stem}_seg.json", "report": f"{stem}_report.html"}
    if job.save_probabilities:
        names["probabilities"] = f"{stem}_prob.nii.gz"
    if job.dicom_seg:
        names["dicom_seg"] = f"{stem}_seg.dcm"
    return names


def _outcome(job: Job, scan: Scan, folder: Path, result: dict[str, Any]) -> Outcome:
    """What the index of a batch is told of a scan."""
    if result["status"] == "failed":
        return Outcome(scan.path, result["case"], "failed", reason=result["error"])
    names = _names(job, scan)
    return Outcome(
        scan.path, result["case"], result["status"], sidecar=folder / names["sidecar"], report=folder / names["report"]
    )


def _check_reference(job: Job, batch: bool) -> None:
    """Refuse a reference that cannot be one of any scan, before any work is done."""
    if job.reference is None:
        return
    name = printable(job.reference)
    if not os.path.exists(job.reference):
        raise InputError(f"--reference {name}: no such file or folder; check the path")
    if os.path.isdir(job.reference) != batch:
        expected = "a folder of label maps, as --input is a folder" if batch else "a label map, as --input is a file"
        raise InputError(f"--reference {name}: expected {expected}; give one")
    if batch:
        find_scans(job.reference)


def _reference_of(job: Job, scan: Scan) -> Path | None:
    """The reference's file for a scan: in a folder, that of the same stem."""
    if job.reference is None or job.reference.is_file():
        return job.reference
    matches = [path for path in find_scans(job.reference) if scan_stem(path) == scan.stem]
    if not matches:
        raise InputError(
            f"{printable(scan.path.name)}: no reference of that name in {printable(job.reference)}; "
            "add it, or run without --reference"
        )
    return matches[0]


def _compare(
    segmentation: Segmentation, reference: Volume, kept: list[int] | None, settings: dict[str, Any]
) -> dict[str, Any]:
    from medvision.metrics.overlap import compare, summary

    classes = [entry for entry in segmentation.card["classes"] if kept is None or entry["id"] in kept]
    highest, last = int(reference.data.max()), segmentation.card["classes"][-1]["id"]
    if highest > last:
        segmentation.warnings.append(
            f"the reference holds labels up to {highest}, the model has 1 to {last}; the others were ignored"
        )
    rows = compare(segmentation.labels, reference.data, segmentation.volume.grid.spacing_mm, classes, NSD_TOLERANCE_MM)
    return {
        "sha256": settings["reference_sha256"],
        "nsd_tolerance_mm": NSD_TOLERANCE_MM,
        "rows": rows,
        "summary": summary(rows),
    }


def _make_writable(folder: Path) -> None:
    """Make the folder of the results, and find out that it can be written to before the work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def _check_targets(folder: Path, names: dict[str, str], sources: list[Path]) -> None:
    """Refuse to write over what is read, and over folders."""
    for name in names.values():
        target = folder / name
        try:
            if target.is_dir():
                raise InputError(f"{printable(target)}: is a folder, a result goes there; move it, or choose --output")
            for source in sources:
                if target.exists() and target.samefile(source):
                    raise InputError(
                        f"{printable(source)}: a result of that name would replace it; choose another --output folder"
                    )
        except OSError as error:
            raise _unwritable(target, error) from None


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{printable(path)}: cannot be written ({error.strerror}); nothing was left behind; "
        "make room, or choose another folder with --output"
    )


def _is_done(folder: Path, names: dict[str, str], scan: Scan, model_sha256: str, settings: dict[str, Any]) -> bool:
    """Whether the results in place are complete, and of this input, model and settings."""
    try:
        sidecar = json.loads((folder / names["sidecar"]).read_text(encoding="utf-8"))
        return (
            sidecar["input"]["sha256"] == scan.sha256()
            and sidecar["model"]["sha256"] == model_sha256
            and sidecar["settings"] == settings
            and all(
                file_sha256(folder / name) == sidecar["outputs"][kind]["sha256"]
                for kind, name in names.items()
                if kind != "sidecar"
            )
        )
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _placing(folder: Path, names: dict[str, str]):
    """Paths to write to; when the block ends they all take their final names, when it raises all is as it was.

    The side-car is last to be moved: where it is, the others are.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".medvision-", dir=folder) as staging, ExitStack() as undo:
            staged = {kind: Path(staging) / name for kind, name in names.items()}
            try:
                yield staged
            except InputError as error:  # it names a file where it is now, not where it was to be
                raise InputError(str(error).replace(printable(staging), printable(folder))) from error
            for kind in sorted(staged, key=lambda kind: kind == "sidecar"):
                target, replaced = folder / names[kind], Path(staging) / kind
                if target.exists():
                    os.replace(target, replaced)
                    undo.callback(os.replace, replaced, target)
                else:
                    undo.callback(target.unlink, missing_ok=True)
                os.replace(staged[kind], target)
            undo.pop_all()
    except OSError as error:
        raise _unwritable(folder, error) from error


@contextmanager
def _progress(name: str, *, shown: bool):
    """A callback for slices done and slices in all; a bar on a terminal, nothing elsewhere."""
    if not (shown and sys.stderr.isatty()):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_result(result: dict[str, Any], prefix: str, quiet: bool, verbose: bool) -> None:
    """One line, and where there is only one scan or details are wanted, what belongs to it."""
    if result["status"] == "failed":
        print(f"{prefix}error: {result['error']} ({result['case']})", file=sys.stderr, flush=True)
        return
    if quiet:
        return
    if result["status"] == "skipped":
        print(f"{prefix}{result['input']}: skipped, its results are there already", flush=True)
        return
    sidecar = result["sidecar"]
    remarks = [f"segmented in {result['seconds']:.1f} s"]
    if "reference" in sidecar and sidecar["reference"]["summary"]["dice"] is not None:
        remarks.append(f"mean Dice {sidecar['reference']['summary']['dice']:.3f}")
    if sidecar["flags"]:
        remarks.append(f"{len(sidecar['flags'])} quality flag{'s' * (len(sidecar['flags']) > 1)}")
    print(f"{prefix}{result['input']}: {'; '.join([*remarks, sidecar['case']])}", flush=True)
    for warning in sidecar["warnings"]:
        print(f"{prefix}warning: {warning}", file=sys.stderr, flush=True)
    if verbose or not prefix:
        for kind, path in result["outputs"].items():
            print(f"  {kind:14}{path}")
        flags = Counter(flag["code"].replace("_", " ") for flag in sidecar["flags"])
        if flags:
            print(f"  {'flags':14}{', '.join(f'{code} {count}' for code, count in flags.items())}")
    if verbose:
        _print_tables(sidecar)


def _print_tables(sidecar: dict[str, Any]) -> None:
    print(f"  {'id':>3} {'structure':26}{'voxels':>10}{'mL':>16}{'confidence':>12}")
    for row in sidecar["structures"]:
        volume = row["reasons"].get("volume_ml", "").replace("_", " ") or f"{row['volume_ml']:.2f}"
        score = "-" if row["mean_confidence"] is None else f"{row['mean_confidence']:.2f}"
        print(f"  {row['id']:3} {row['name']:26}{row['voxels']:>10}{volume:>16}{score:>12}")
    if "reference" in sidecar:
        print(f"  {'id':>3} {'structure':26}{'state':>16}{'Dice':>8}{'HD95 mm':>10}{'NSD':>8}")
        for row in sidecar["reference"]["rows"]:
            dice, hd95, nsd = ("-" if row[key] is None else f"{row[key]:.3f}" for key in ("dice", "hd95_mm", "nsd"))
            state = row["state"].replace("_", " ")
            print(f"  {row['id']:3} {row['name']:26}{state:>16}{dice:>8}{hd95:>10}{nsd:>8}")
    print("  " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in sidecar["timings_s"].items()))
