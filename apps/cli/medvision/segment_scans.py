"""The work of `medvision segment`: scans in, label maps, side-cars and reports out."""

import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.medvision.batch import INDEX, Outcome, case_of, index_files, write_index
from apps.cli.medvision.bids import describe
from apps.cli.medvision.earlier import Earlier, EarlierResults
from apps.cli.medvision.label_maps import read_label_map
from apps.cli.medvision.references import check_reference, compare_with, find_reference, read_reference
from apps.cli.medvision.results import changed_files, make_writable, result_files
from apps.cli.medvision.scans import TWICE, Inputs, Scan, find_inputs
from apps.cli.medvision.segment import SegmentOptions
from apps.cli.medvision.terminal import Progress, ScanResult, print_result, progress_of
from apps.cli.medvision.watching import Watch
from apps.cli.shared.journal import Journal
from apps.cli.shared.outputs import Outputs, check_outputs
from apps.cli.shared.program import COMPLETE, PARTLY_FAILED, find_model
from apps.cli.shared.sharding import part_of
from medvision.contract import InputContract, Setting
from medvision.dicom.segmentations import check_source, write_segmentation
from medvision.dicom.series import DicomVolume
from medvision.findings.label_tables import bids
from medvision.findings.sidecar import Sidecar, build_sidecar, measured
from medvision.findings.tables import identifiers, table_text, volume_rows
from medvision.segmentation import Segmentation, Segmenter
from medvision.volumes.files import Volume
from shared_backbones.card import read_card
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable
from shared_backbones.terminal import say


def segment_scans(options: SegmentOptions, journal: Journal) -> int:
    """Segment a scan, a folder of scans or a DICOM series, and return the exit code.

    Raises:
        InputError: nothing could be started, or the only scan failed.
    """
    model = find_model(options.model, "medvision")
    contract = InputContract.from_card(read_card(model), options.model)
    inputs = find_inputs(options, contract.channel_count)
    if options.shard is not None and not inputs.batch:
        raise InputError(f"--shard: {printable(options.input)} is one scan; expected a folder of them")
    scans = part_of(inputs.scans, options.shard)
    check_reference(options, inputs)
    work = _begin(options, model, inputs.folder, journal)
    _check_targets(work, scans, batch=inputs.batch)
    if inputs.batch:
        make_writable(inputs.folder)
    if any(scan.bids for scan in scans):
        describe(inputs.folder, work.label, overwrite=options.overwrite)
    results = [_attempt(work, scan, number, len(scans), inputs.batch) for number, scan in enumerate(scans, 1)]
    return _conclude(work, inputs, scans, results)


def watch_scans(options: SegmentOptions, journal: Journal) -> int:
    """Segment scans as they come into a folder, with one model that stays loaded, and return the exit code.

    What has results of this scan, model and settings is left out, so that a watch can be begun again.

    Raises:
        InputError: nothing could be started, or the folder cannot be listed any more.
    """
    folder = options.output
    if folder is None:
        raise InputError("--watch needs --output, a folder for the results")
    options = replace(options, resume=True)
    work = _begin(options, find_model(options.model, "medvision"), folder, journal)
    make_writable(folder)
    known: dict[tuple[Path, str], tuple[Scan, ScanResult]] = {}
    if not options.quiet:
        say(f"watching {printable(options.input)}; end with Ctrl+C")
    for path in Watch(options.input, folder, options.settle, options.idle).arrivals():
        for scan in _scans_in(options, path, work.segmenter.contract.channel_count):
            owners = [other.path for other, _ in known.values() if other.stem == scan.stem and other.path.exists()]
            if owners and owners[0] != scan.path:
                scan = replace(scan, problem=f"{printable(scan.path)}: {TWICE}")
            known[scan.path, scan.stem] = scan, _attempt(work, scan, len(known) + 1, len(known) + 1, True)
        outcomes = [work.outcome(scan, result) for scan, result in known.values()]
        write_index(folder, outcomes, work.segmenter.card, [options.input], options)
    failed = sum(result["status"] == "failed" for _, result in known.values())
    if failed:
        say(f"error: {failed} of {len(known)} scans failed", file=sys.stderr)
    return PARTLY_FAILED if failed else COMPLETE


def _scans_in(options: SegmentOptions, path: Path, channels: int) -> list[Scan]:
    """The scans of a file or of a DICOM folder; one that cannot be used has a problem."""
    try:
        return find_inputs(replace(options, input=path, watch=False, idle=None), channels).scans
    except InputError as error:
        return [Scan(path, path.name, problem=str(error))]


def _begin(options: SegmentOptions, model: Path, folder: Path, journal: Journal) -> "_Work":
    """Load the model, and what else all scans share."""
    segmenter = Segmenter(
        model,
        device=options.device,
        threads=options.threads,
        views=options.views,
        fast=options.fast,
        precision=options.precision.value,
        engine=options.engine.value,
        detail=options.detail,
    )
    kept = segmenter.channels.label_ids(options.labels) if options.labels is not None else None
    ids = [entry["id"] for entry in segmenter.channels.classes]
    label_map = read_label_map(options.label_map, ids) if options.label_map is not None else None
    earlier = None if options.compare is None else EarlierResults.of(options.compare, options.compare_table)
    return _Work(options, segmenter, kept, label_map, folder, journal, earlier)


def _check_targets(work: "_Work", scans: Sequence[Scan], *, batch: bool) -> None:
    """Refuse results that would replace what is not ours, before a scan is read.

    Raises:
        InputError: one would.
    """
    options = work.options
    targets = [index_files(work.folder, options.overwrite)] if batch and options.shard is None else []
    for scan in scans:
        if scan.problem is not None:
            continue
        with contextlib.suppress(InputError):  # it is said when the scan's turn comes
            files = work.files(scan)
            earlier = work.earlier.find(scan) if work.earlier is not None and options.resume else None
            if not options.resume or work.changed(files, scan, earlier) is None:
                targets.append(files)
    check_outputs(targets, [file for scan in scans for file in scan.files])


def _attempt(work: "_Work", scan: Scan, number: int, count: int, batch: bool) -> ScanResult:
    """Segment a scan and print what became of it; of a batch, a scan that cannot be used is a result like others."""
    options, name = work.options, printable(scan.path.name)
    prefix = f"[{number}/{count}] " if batch else ""
    with progress_of(prefix + name, shown=not (options.quiet or options.as_json)) as progress:
        try:
            with work.journal.working_on(scan.path):
                result = work.segment(scan, progress)
        except (InputError, MemoryError) as error:
            if not batch:
                raise
            reason = str(error) if isinstance(error, InputError) else f"{name}: out of memory"
            result: ScanResult = {"input": printable(scan.path), "status": "failed", "error": reason}
    if batch:
        result["case"] = case_of(scan, number)
    if not options.as_json:
        print_result(result, prefix, quiet=options.quiet, verbose=options.verbose)
    return result


def _conclude(work: "_Work", inputs: Inputs, scans: Sequence[Scan], results: Sequence[ScanResult]) -> int:
    """Write the index of a batch, print the last lines, and return the exit code."""
    options, folder = work.options, inputs.folder
    indexed = inputs.batch and options.shard is None  # jobs side by side would write over one another's
    if indexed:
        outcomes = [work.outcome(scan, result) for scan, result in zip(scans, results, strict=True)]
        private = [path for path in (options.input, options.reference) if path is not None]
        write_index(folder, outcomes, work.segmenter.card, private, options)
    failed = sum(result["status"] == "failed" for result in results)
    if options.as_json:
        index = {"index": printable(folder / INDEX)} if indexed else {}
        print(json.dumps({"schema_version": 1, **index, "results": results}, indent=2))
    elif inputs.batch and not options.quiet:
        say(f"results in {printable(folder)}" + (f", worst first in {INDEX}" if indexed else ""))
    if failed and not options.as_json:
        say(f"error: {failed} of {len(results)} scans failed", file=sys.stderr)
    return PARTLY_FAILED if failed else COMPLETE


@dataclass(frozen=True)
class _Work:
    """Segments scans one by one, and puts the files of each in place, all of them or none.

    Attributes:
        options: what the user asks for.
        segmenter: the loaded model.
        kept: ids of the classes to keep; None for all.
        label_map: class ids by the reference's; None where they are the same.
        folder: folder for the results.
        journal: notes which scan is worked on.
        earlier: results that these are compared with; None where there are none.
    """

    options: SegmentOptions
    segmenter: Segmenter
    kept: list[int] | None
    label_map: Mapping[int, int] | None
    folder: Path
    journal: Journal
    earlier: EarlierResults | None

    @property
    def label(self) -> str:
        """What the model is called in names of BIDS."""
        return identifiers([str(self.segmenter.card.get("name"))])[0].replace("_", "")

    def files(self, scan: Scan) -> Outputs:
        """The files of a scan's results."""
        return result_files(scan, self.folder, self.label, self.options)

    def segment(self, scan: Scan, progress: Progress) -> ScanResult:
        """Segment one scan.

        Raises:
            InputError: it cannot be used, or the results cannot be written.
            MemoryError: there is not enough for it.
        """
        if scan.problem is not None:
            raise InputError(scan.problem)
        started = time.perf_counter()
        files = self.files(scan)
        outputs = {kind: printable(path) for kind, path in files.files.items()}
        earlier = None if self.earlier is None else self.earlier.find(scan)
        changed = self.changed(files, scan, earlier) if self.options.resume else None
        if changed is not None:
            kept = [printable(path) for path in changed]
            return {"input": printable(scan.path), "outputs": outputs, "status": "skipped", "changed": kept}

        progress.stage("reading")
        reference_file = find_reference(self.options, scan)
        reference_sha256 = file_sha256(reference_file) if reference_file else None
        files.check([*([reference_file] if reference_file else []), *([earlier.labels] if earlier else [])])
        volume = scan.read(self.options, self.segmenter.contract.channels, self.segmenter.check_grid)
        classes = self.segmenter.card["classes"]
        reference = None
        if reference_file is not None:
            reference = read_reference(reference_file, volume, classes, self.options, self.label_map)
        before = None if earlier is None else earlier.read(volume)
        if self.options.dicom_seg:
            volume.warnings += check_source(volume)
        read = time.perf_counter() - started
        make_writable(self.folder / scan.place)
        progress.stage("segmenting")
        segmentation = self._label(volume, scan, progress)
        segmentation.timings_s["read"] = round(read, 3)
        progress.stage("measuring")
        settings = self._settings(scan, reference_sha256, earlier)
        sidecar = self._describe(segmentation, reference, reference_sha256, settings)
        if earlier is not None:
            sidecar["earlier"] = earlier.compared(sidecar, segmentation.labels, before)
        elif self.earlier is not None:
            sidecar["warnings"].append("--compare: no earlier result belongs to this scan")
        progress.stage("writing the results")
        sidecar = self._write(files, segmentation, sidecar, reference.data if reference else None, before)
        seconds = round(time.perf_counter() - started, 2)
        return {
            "input": printable(scan.path), "outputs": outputs, "status": "done", "seconds": seconds, "sidecar": sidecar
        }  # fmt: skip

    def outcome(self, scan: Scan, result: ScanResult) -> Outcome:
        """What the index of a batch says of a scan."""
        case = result.get("case", "")
        if "error" in result:
            return Outcome(scan, case, result["status"], reason=result["error"])
        files = self.files(scan).files
        status = "changed" if result.get("changed") else result["status"]
        if status == "skipped" and self.options.array.journal is not None:  # the shards have just done it
            status = "done"
        return Outcome(scan, case, status, sidecar=files["sidecar"], report=files["report"])

    def changed(self, files: Outputs, scan: Scan, earlier: Earlier | None) -> list[Path] | None:
        """Files of a finished result that were changed since; None where it is not of this scan, model and settings."""
        reference_file = find_reference(self.options, scan)
        reference_sha256 = file_sha256(reference_file) if reference_file else None
        settings = self._settings(scan, reference_sha256, earlier)
        return changed_files(files, scan, self.segmenter.model_sha256, settings)

    def _settings(self, scan: Scan, reference_sha256: str | None, earlier: Earlier | None) -> dict[str, Setting]:
        pairs = None
        if self.label_map is not None:
            pairs = [f"{label}={number}" for label, number in sorted(self.label_map.items())]
        return {
            **self.segmenter.settings,
            "labels": self.kept,
            "save_probabilities": self.options.save_probabilities,
            "reference_sha256": reference_sha256,
            "label_map": pairs,
            **({} if earlier is None else {"earlier_sha256": earlier.sha256}),
            **scan.settings(self.options),
        }

    def _label(self, volume: Volume, scan: Scan, progress: Progress) -> Segmentation:
        keep_scores = self.options.save_probabilities
        try:
            segmentation = self.segmenter.segment(
                volume, keep_scores=keep_scores, any_modality=self.options.any_modality, progress=progress
            )
        except InputError as error:  # the engine knows the case, the user knows the file
            raise InputError(str(error).replace(volume.case_id, printable(scan.path))) from error
        if self.kept is not None:
            segmentation.labels[~np.isin(segmentation.labels, self.kept)] = 0
        return segmentation

    def _describe(
        self,
        segmentation: Segmentation,
        reference: Volume | None,
        reference_sha256: str | None,
        settings: dict[str, Setting],
    ) -> Sidecar:
        if reference is None or reference_sha256 is None:
            return build_sidecar(segmentation, settings=settings, kept=self.kept)
        return build_sidecar(
            segmentation,
            settings=settings,
            kept=self.kept,
            reference=compare_with(reference, segmentation, self.kept, reference_sha256),
            reference_labels=reference.data,
        )

    def _write(
        self,
        files: Outputs,
        segmentation: Segmentation,
        sidecar: Sidecar,
        truth: np.ndarray | None,
        before: np.ndarray | None,
    ) -> Sidecar:
        """Write all files of a scan; returns the side-car with the digests of the others.

        The report shows the reference beside the result, or where there is none the earlier labels.
        """
        from pipelines.report.segmentation import segmentation_report

        volume, card = segmentation.volume, segmentation.card
        certainty = None if segmentation.certainty is None else segmentation.certainty.on_scan()
        page = segmentation_report(
            sidecar, card, volume.data, segmentation.labels, volume.grid,
            reference=before if truth is None else truth,
            reference_name="earlier result" if truth is None else "reference",
            certainty=certainty,
        )  # fmt: skip
        with files.placing() as staged:
            segmentation.save(staged["labels"])
            if self.options.save_probabilities:
                segmentation.save_probabilities(staged["probabilities"])
            if isinstance(volume, DicomVolume) and self.options.dicom_seg:
                write_segmentation(
                    staged["dicom_seg"], segmentation.labels, volume, card, segmentation.model_sha256,
                    kept=self.kept,
                )  # fmt: skip
            staged["report"].write_text(page, encoding="utf-8")
            table = table_text(volume_rows(measured(sidecar), self.options.stats.value))
            staged["volumes"].write_text(table, encoding="utf-8")
            if "label_table" in staged:
                staged["label_table"].write_text(bids(card["classes"]), encoding="utf-8")
            whole: Any = files.finish(staged, sidecar)
        return whole
