"""What `medvision segment` was asked for, and what it was given: a scan, a folder of scans, or a DICOM series."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.cli.shared.sharding import Shard
from medvision.dicom.files import holds_dicom
from medvision.dicom.segmentations import read_segmentation
from medvision.dicom.series import Series, choose, find_series, read_series
from medvision.volumes.files import Volume, find_scans, read_labels, read_volume, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a user asked for; the fields are the program's options."""

    input: Path
    output: Path | None
    model: str
    device: str
    views: list[str] | None
    labels: list[str] | None
    save_probabilities: bool
    reference: Path | None
    fast: bool
    resume: bool
    threads: int | None
    precision: str
    volume_index: int | None
    geometry: str | None
    allow_nonfinite: bool
    max_bytes: int
    series: str | None = None
    resample_irregular: bool = False
    dicom_seg: bool = False
    pseudonyms: bool = False
    shard: Shard | None = None


@dataclass(frozen=True)
class Scan:
    """One scan to segment.

    Attributes:
        path: the file, or the folder or archive that a DICOM series is in.
        stem: what the names of its results begin with.
        series: of DICOM; None for a file in another format.
    """

    path: Path
    stem: str
    series: Series | None = None

    def read(self, job: Job) -> Volume:
        """The volume, as the job's options ask for it."""
        if self.series is not None:
            return read_series(self.series, resample_irregular=job.resample_irregular, max_bytes=job.max_bytes)
        return read_volume(
            self.path,
            volume_index=job.volume_index,
            geometry=job.geometry,
            allow_nonfinite=job.allow_nonfinite,
            max_bytes=job.max_bytes,
        )

    def sha256(self) -> str:
        """The digest that the volume will have, without reading its voxels."""
        return self.series.sha256() if self.series is not None else file_sha256(self.path)

    def settings(self, job: Job) -> dict[str, Any]:
        """What of the job's options decides how the scan is read."""
        settings: dict[str, Any] = {
            "volume_index": job.volume_index,
            "geometry": job.geometry,
            "allow_nonfinite": job.allow_nonfinite,
        }
        return settings if self.series is None else settings | {"resample_irregular": job.resample_irregular}


def find_inputs(job: Job) -> tuple[list[Scan], Path, bool]:
    """The scans of a job, the folder for their results, and whether they are a batch.

    A folder is a batch of the scans that lie directly in it, or else of one DICOM series, with files at any depth.

    Raises:
        InputError: nothing there, both kinds in one folder, several series and none chosen, or an option of the other
            kind.
    """
    if not holds_dicom(job.input):
        _refuse_options(job, {"--series": job.series, "--resample-irregular": job.resample_irregular,
                              "--dicom-seg": job.dicom_seg}, "no DICOM input")  # fmt: skip
        if not os.path.isdir(job.input):
            return [Scan(job.input, scan_stem(job.input))], job.output or job.input.parent, False
        return [Scan(path, scan_stem(path)) for path in find_scans(job.input)], job.output or job.input, True
    _refuse_options(job, {"--volume-index": job.volume_index is not None, "--allow-nonfinite": job.allow_nonfinite,
                          f"--use-{job.geometry}": job.geometry}, "a DICOM input")  # fmt: skip
    series = find_series(job.input, max_bytes=job.max_bytes)
    chosen = choose(series, job.series, printable(job.input))
    path = job.input if job.input.name else job.input.resolve()  # `.` has no name
    folder = job.output or path.parent
    if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"--output {printable(folder)}: lies in the folder of the DICOM series; expected another one, so that "
            "results and series stay apart"
        )
    stem = path.name if path.is_dir() else path.stem
    return [Scan(job.input, f"{stem}_{chosen.number}" if len(series) > 1 else stem, chosen)], folder, False


def read_reference(path: Path, volume: Volume, classes: list[dict[str, Any]], job: Job) -> Volume:
    """A label map to compare with, on the scan's grid: a file as scans are, or a DICOM segmentation.

    Segments whose labels are all names of the model's classes get these classes' ids; else their numbers are the ids.

    Raises:
        InputError: it cannot be read, or does not lie on the scan's grid.
    """
    if not holds_dicom(path):
        reference = read_labels(path, geometry=job.geometry, max_bytes=job.max_bytes)
        difference = reference.grid.differs_from(volume.grid)
        if difference:
            raise InputError(
                f"--reference {printable(path)}: not on the scan's grid: {difference}; resample it to the scan"
            )
        return reference
    reference, names = read_segmentation(path, grid=volume.grid, max_bytes=job.max_bytes)
    ids = {entry["name"]: entry["id"] for entry in classes}
    if set(names.values()) <= set(ids):
        table = np.zeros(max(names) + 1, reference.data.dtype)
        for number, name in names.items():
            table[number] = ids[name]
        reference.data = table[reference.data]
    return reference


def _refuse_options(job: Job, given: dict[str, Any], what: str) -> None:
    wrong = [option for option, value in given.items() if value]
    if wrong:
        raise InputError(f"{wrong[0]}: has no meaning for {printable(job.input)}, which is {what}; run without it")
