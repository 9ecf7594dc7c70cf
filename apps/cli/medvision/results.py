"""Files of one scan's results: their names, and whether they are there."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from apps.cli.medvision.scans import Scan
from apps.cli.medvision.segment import SegmentOptions
from apps.cli.shared.outputs import SIDECAR, Content, Outputs
from medvision.contract import Setting
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def result_files(scan: Scan, folder: Path, label: str, options: SegmentOptions) -> Outputs:
    """The files of a scan's results, as the options name them; `label` is the model's in the names of BIDS."""
    stem = f"case-{scan.sha256()[:8]}" if options.pseudonyms else scan.stem
    if scan.bids:
        stem, labels, probabilities = f"{stem}_desc-{label}", "dseg", "probseg"
    else:
        labels, probabilities = "seg", "prob"
    names = {
        "labels": f"{stem}_{labels}.nii.gz",
        SIDECAR: f"{stem}_{labels}.json",
        "report": f"{stem}_report.html",
        "volumes": f"{stem}_volumes.csv",
    }
    if scan.bids:
        names["label_table"] = f"{stem}_dseg.tsv"
    if options.save_probabilities:
        names["probabilities"] = f"{stem}_{probabilities}.nii.gz"
    if options.dicom_seg:
        names["dicom_seg"] = f"{stem}_seg.dcm"
    return Outputs({kind: folder / scan.place / name for kind, name in names.items()}, options.overwrite)


def changed_files(files: Outputs, scan: Scan, model_sha256: str, settings: Mapping[str, Setting]) -> list[Path] | None:
    """Files of a result of this scan, model and settings that were changed since; None where there is none."""

    def is_same(sidecar: Content) -> bool:
        return (
            sidecar["model"]["sha256"] == model_sha256
            and sidecar["settings"] == settings
            and sidecar["input"]["sha256"] == scan.sha256()
        )

    return files.standing(is_same)


def make_writable(folder: Path) -> None:
    """Make a folder for results, and find out that it can be written to before the work is done.

    Raises:
        InputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{printable(folder)}: cannot be written ({error.strerror}); nothing was left behind; make room, or choose "
            "another folder with --output"
        ) from None
