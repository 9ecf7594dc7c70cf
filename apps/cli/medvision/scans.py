"""What `medvision segment` is given: a scan, a folder of scans, or a DICOM series."""

import os
from dataclasses import dataclass
from pathlib import Path

from apps.cli.medvision.segment import SegmentOptions
from medvision.contract import Setting
from medvision.dicom.files import holds_dicom
from medvision.dicom.series import Series, choose, find_series, read_series
from medvision.volumes.files import Volume, find_scans, read_volume, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable


@dataclass(frozen=True)
class Scan:
    """One scan to segment.

    Attributes:
        path: the file, or the folder or archive that a DICOM series is in.
        stem: beginning of the names of its results.
        series: the DICOM series; None for a file in another format.
    """

    path: Path
    stem: str
    series: Series | None = None

    def read(self, options: SegmentOptions) -> Volume:
        """The volume, as the options ask for it."""
        if self.series is not None:
            return read_series(self.series, resample_irregular=options.resample_irregular, max_bytes=options.max_bytes)
        return read_volume(
            self.path,
            volume_index=options.volume_index,
            geometry=options.geometry,
            allow_nonfinite=options.allow_nonfinite,
            max_bytes=options.max_bytes,
        )

    def sha256(self) -> str:
        """The digest that the volume will have, without reading its voxels."""
        return self.series.sha256() if self.series is not None else file_sha256(self.path)

    def settings(self, options: SegmentOptions) -> dict[str, Setting]:
        """Those of the options that decide how the scan is read."""
        settings: dict[str, Setting] = {
            "volume_index": options.volume_index,
            "geometry": options.geometry,
            "allow_nonfinite": options.allow_nonfinite,
        }
        return settings if self.series is None else settings | {"resample_irregular": options.resample_irregular}


@dataclass(frozen=True)
class Inputs:
    """What is to be segmented.

    Attributes:
        scans: the scans.
        folder: folder for their results.
        batch: whether they are the scans of a folder, rather than one that was named.
    """

    scans: list[Scan]
    folder: Path
    batch: bool


def find_inputs(options: SegmentOptions) -> Inputs:
    """The scans that are to be segmented.

    A folder is a batch of the scans that lie directly in it, or else of one DICOM series, with files at any depth.

    Raises:
        InputError: nothing there, both kinds in one folder, several series and none chosen, or an option of the other
            kind.
    """
    path = options.input
    if holds_dicom(path):
        return _find_series(options)
    _refuse(options, "no DICOM input", {
        "--series": bool(options.series), "--resample-irregular": options.resample_irregular,
        "--dicom-seg": options.dicom_seg,
    })  # fmt: skip
    if os.path.isdir(path):
        return Inputs([Scan(scan, scan_stem(scan)) for scan in find_scans(path)], options.output or path, True)
    return Inputs([Scan(path, scan_stem(path))], options.output or path.parent, False)


def _find_series(options: SegmentOptions) -> Inputs:
    _refuse(options, "a DICOM input", {
        "--volume-index": options.volume_index is not None, "--allow-nonfinite": options.allow_nonfinite,
        f"--use-{options.geometry}": options.geometry is not None,
    })  # fmt: skip
    series = find_series(options.input, max_bytes=options.max_bytes)
    chosen = choose(series, options.series, printable(options.input))
    path = options.input if options.input.name else options.input.resolve()  # `.` has no name
    folder = options.output or path.parent
    if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"--output {printable(folder)}: lies in the folder of the DICOM series; expected another one, so that "
            "results and series stay apart"
        )
    stem = path.name if path.is_dir() else path.stem
    return Inputs([Scan(options.input, f"{stem}_{chosen.number}" if len(series) > 1 else stem, chosen)], folder, False)


def _refuse(options: SegmentOptions, what: str, given: dict[str, bool]) -> None:
    """Refuse options that have no meaning for the input."""
    wrong = [option for option, is_given in given.items() if is_given]
    if wrong:
        raise InputError(f"{wrong[0]}: has no meaning for {printable(options.input)}, which is {what}; run without it")
