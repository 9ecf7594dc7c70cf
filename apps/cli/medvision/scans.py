"""What `medvision segment` is given: a scan, a folder of scans, or a DICOM series."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from apps.cli.medvision.bids import DERIVATIVE, find_images, is_bids, parse_filter, stem_of
from apps.cli.medvision.segment import SegmentOptions
from medvision.contract import Setting
from medvision.dicom.files import holds_dicom
from medvision.dicom.series import Series, choose, find_series, read_series
from medvision.volumes.channels import channel_groups, missing_channel, read_channels
from medvision.volumes.files import Accept, Volume, count_volumes, find_scans, read_volume, scan_sha256
from medvision.volumes.names import SUFFIXES, is_scan_name, scan_stem
from shared_backbones.errors import InputError
from shared_backbones.files import printable

TWICE = "would write the same results as another scan here, whose name differs in its end; rename or move one of them"


@dataclass(frozen=True)
class Scan:
    """One scan to segment.

    Attributes:
        path: the file, or the folder or archive that a DICOM series is in; of several channels' files the first.
        stem: beginning of the names of its results.
        series: the DICOM series; None for a file in another format.
        place: folder of its results, seen from that of all of them.
        bids: whether its results have names as BIDS has them.
        problem: why it cannot be segmented, where that is known before it is read.
        further: files of the other channels, where each has its own.
    """

    path: Path
    stem: str
    series: Series | None = None
    place: Path = Path()
    bids: bool = False
    problem: str | None = None
    further: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its files, one for each channel; or what a DICOM series is in."""
        return self.path, *self.further

    @property
    def name(self) -> str:
        """What it is called in a table: where its results lie, and how their names begin."""
        return printable(self.stem if self.bids else (self.place / self.stem).as_posix())

    def read(self, options: SegmentOptions, channels: Sequence[str] = (), accept: Accept | None = None) -> Volume:
        """The volume, as the options ask for it, with the channels that a model takes, if its grid is accepted."""
        if self.series is not None:
            return read_series(
                self.series,
                resample_irregular=options.resample_irregular,
                skip_unreadable=options.skip_unreadable,
                accept=accept,
            )
        if self.further:
            if options.volume_index is not None:
                raise InputError(f"{printable(self.path)}: --volume-index has no meaning for a file of each channel")
            return read_channels(
                self.files,
                geometry=options.geometry,
                allow_nonfinite=options.allow_nonfinite,
                accept=accept,
            )
        return read_volume(
            self.path,
            volume_index=options.volume_index,
            geometry=options.geometry,
            allow_nonfinite=options.allow_nonfinite,
            channels=channels,
            accept=accept,
        )

    def sha256(self) -> str:
        """The digest that the volume will have, without reading its voxels."""
        return self.series.sha256() if self.series is not None else scan_sha256(*self.files)

    def settings(self, options: SegmentOptions) -> dict[str, Setting]:
        """Those of the options that decide how the scan is read."""
        settings: dict[str, Setting] = {
            "volume_index": options.volume_index,
            "geometry": options.geometry,
            "allow_nonfinite": options.allow_nonfinite,
        }
        if self.series is not None:
            settings["resample_irregular"] = options.resample_irregular
            settings["skip_unreadable"] = options.skip_unreadable
        return settings


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


def find_inputs(options: SegmentOptions, channels: int = 1) -> Inputs:
    """The scans that are to be segmented.

    A folder is a BIDS data set, or a batch of the scans that lie directly in it (at any depth, where that is asked
    for), or else of one DICOM series, with files at any depth. Where a model takes several channels, the files
    NAME_0000, NAME_0001, ... are one scan, called NAME.

    Args:
        options: what the user asks for.
        channels: number of channels that the model takes.

    Raises:
        InputError: nothing there, both kinds in one folder, several series and none chosen, or an option of the other
            kind.
    """
    path = options.input
    batch = os.path.isdir(path)
    bids = batch and not options.recursive and is_bids(path)
    if not bids and options.bids_filter:
        raise InputError(f"--bids-filter: has no meaning for {printable(path)}, which is no BIDS data set")
    if not batch and options.recursive:
        raise InputError(f"--recursive: has no meaning for {printable(path)}, which is no folder; run without it")
    if not bids and not options.recursive and holds_dicom(path):
        return _find_series(options)
    _refuse(options, "no DICOM input", {
        "--series": bool(options.series), "--resample-irregular": options.resample_irregular,
        "--skip-unreadable": options.skip_unreadable,
        "--dicom-seg": options.dicom_seg,
    })  # fmt: skip
    if bids:
        return _find_bids(options)
    if batch:
        folder = options.output or path
        files = _below(path, folder) if options.recursive else find_scans(path)
        scans = [
            scan if options.pseudonyms else replace(scan, place=scan.path.parent.relative_to(path))
            for scan in (_in_channels(files, channels, options) if channels > 1 else map(_scan_of, files))
        ]
        return Inputs(scans if options.pseudonyms else _apart(scans), folder, True)
    scans = [_scan_of(path)]
    if channels > 1 and path.parent.is_dir():
        groups = channel_groups(file for file in path.parent.iterdir() if is_scan_name(file))
        own = [file for group in groups.values() if path in group.values() for file in group.values()]
        scans = [scan for scan in _in_channels(own, channels, options) if path in scan.files and scan.further] or scans
    return Inputs(scans, options.output or path.parent, False)


def _scan_of(path: Path) -> Scan:
    return Scan(path, scan_stem(path))


def _in_channels(files: Sequence[Path], channels: int, options: SegmentOptions) -> list[Scan]:
    """The scans of files: those that hold one volume each and are named as channels of one scan belong together."""
    scans = []
    for folder in dict.fromkeys(file.parent for file in files):
        inside = [file for file in files if file.parent == folder]
        for name, numbered in channel_groups(file for file in inside if is_single(file, options.geometry)).items():
            problem = missing_channel(numbered, channels)
            first, *further = (numbered[number] for number in sorted(numbered))
            scans.append(Scan(first, name, problem=problem, further=tuple(further)))
            results = {f"{name}{ending}" for ending in ("_seg", "_prob")}
            inside = [file for file in inside if file not in numbered.values() and scan_stem(file) not in results]
        scans += map(_scan_of, inside)
    return scans


def is_single(path: Path, geometry: str | None = None) -> bool:
    """Whether a file can be read and holds one volume."""
    try:
        return count_volumes(path, geometry) == 1
    except InputError:  # it is said when the scan's turn comes
        return False


def _find_bids(options: SegmentOptions) -> Inputs:
    """The images of a BIDS data set."""
    path = options.input
    if options.pseudonyms:
        raise InputError(
            f"--pseudonyms: has no meaning for {printable(path)}, as BIDS names results by subject; give --recursive, "
            "which takes it for a plain folder"
        )
    scans = [
        Scan(image, stem_of(image)[0], place=image.parent.relative_to(path), bids=True, problem=_dead_link(image))
        for image in find_images(path, parse_filter(options.bids_filter))
    ]
    return Inputs(_apart(scans), options.output or path / DERIVATIVE, True)


def _below(folder: Path, results: Path) -> list[Path]:
    """Scans at any depth of a folder, but for results of ours and what lies in the folder for them.

    Raises:
        InputError: there is none, or a folder cannot be listed.
    """

    def refuse(error: OSError) -> NoReturn:
        raise InputError(f"{printable(error.filename)}: cannot be listed ({error.strerror}); check its rights")

    scans: list[Path] = []
    for parent, folders, _ in os.walk(folder, onerror=refuse):  # does not walk into linked folders
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(parent, name).resolve() != results.resolve()
        )
        with contextlib.suppress(InputError):  # none directly in it
            scans += [scan for scan in find_scans(parent) if not _is_result(scan)]
    if not scans:
        raise InputError(f"{printable(folder)}: contains no scan at any depth; expected {', '.join(SUFFIXES)}")
    return scans


def _is_result(path: Path) -> bool:
    """Whether a file is a label map with its side-car, which is no scan."""
    stem = scan_stem(path)
    return stem.endswith(("_seg", "_dseg")) and path.with_name(f"{stem}.json").exists()


def _apart(scans: list[Scan]) -> list[Scan]:
    """The scans; those that would write the same results have a problem, which does not name the others."""
    counts = Counter((scan.place, scan.stem) for scan in scans)
    return [
        replace(scan, problem=f"{printable(scan.path)}: {TWICE}")
        if counts[scan.place, scan.stem] > 1 and not scan.problem
        else scan
        for scan in scans
    ]


def _dead_link(path: Path) -> str | None:
    if path.exists():
        return None
    return f"{printable(path)}: is a link to a file that is not here; fetch its content first, such as by datalad get"


def _find_series(options: SegmentOptions) -> Inputs:
    _refuse(options, "a DICOM input", {
        "--volume-index": options.volume_index is not None, "--allow-nonfinite": options.allow_nonfinite,
        f"--use-{options.geometry}": options.geometry is not None,
    })  # fmt: skip
    series = find_series(options.input, skip_unreadable=options.skip_unreadable)
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
