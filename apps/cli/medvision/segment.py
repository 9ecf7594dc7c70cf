"""The verb `segment`."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.array_command import share_out
from apps.cli.shared.job_options import ArrayOptions
from apps.cli.shared.journal import Journal
from apps.cli.shared.options import (
    BudgetOption,
    CommaSeparated,
    DeviceOption,
    Engine,
    EngineOption,
    JsonOption,
    Precision,
    PrecisionOption,
    ThreadsOption,
    VersionOption,
)
from apps.cli.shared.outputs import OverwriteOption
from apps.cli.shared.sharding import ShardOption
from medvision.parts import Detail
from shared_backbones.errors import InputError
from shared_backbones.files import printable


class Stats(StrEnum):
    """Forms of the tables of volumes."""

    wide = "wide"
    long = "long"


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """What a user asks `segment` for."""

    input: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            help="Scan (.nii, .nii.gz, .hdr/.img, .mgz, .mgh), folder of them, BIDS data; DICOM: folder, .zip, file.",
        ),
    ]
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results; by default beside the input, or derivatives."),
    ] = None
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the scans at any depth of a folder; not its DICOM files.")
    ] = False
    bids_filter: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="BIDS: entities of the images to take, sub=01,ses=pre,run=1; by default suffix=T1w."),
    ] = None
    model: Annotated[str, typer.Option(help="Bundled model, trained-model folder, or models:/NAME@ALIAS.")] = (
        "brain-structures"
    )
    device: DeviceOption = "auto"
    views: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Planes to run over, of axial,coronal,sagittal; by default the model's."),
    ] = None
    labels: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option(help="Structures to keep, names or ids with commas; the others become 0."),
    ] = None
    detail: Annotated[
        Detail, typer.Option(help="Show structures, or every part with its side (full) and the ids of FreeSurfer.")
    ] = Detail.structures
    save_probabilities: Annotated[bool, typer.Option("--save-probabilities", help="Write class probabilities too.")] = (
        False
    )
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Label map or DICOM segmentation to compare with (Dice, HD95, NSD); for a folder of scans, a folder "
            "of the same names."
        ),
    ] = None
    label_map: Annotated[
        Path | None, typer.Option(help='JSON file of the reference\'s ids and the model\'s: {"17": 4, "53": 4}.')
    ] = None
    compare: Annotated[
        Path | None,
        typer.Option(help="Folder of earlier results: shows what changed since, of the same scans or as a table says."),
    ] = None
    compare_table: Annotated[
        Path | None,
        typer.Option(help="CSV of scans of the same people: columns scan (file) and earlier (result, or its case)."),
    ] = None
    series: Annotated[
        str | None,
        typer.Option(help="DICOM: number or UID of the series (UID:2 for its second volume), where there are several."),
    ] = None
    resample_irregular: Annotated[
        bool,
        typer.Option(
            "--resample-irregular", help="DICOM: interpolate tilted, missing or irregular slices on a regular grid."
        ),
    ] = False
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="DICOM: leave out files of the series that cannot be read."),
    ] = False
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="DICOM: write the labels as a DICOM segmentation, too; it names the patient."),
    ] = False
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Faster, less precise: one view at a coarser spacing; of a 3-D network, less overlap."
        ),
    ] = False
    stats: Annotated[
        Stats, typer.Option(help="Tables of volumes: a row for each scan (wide), or for each structure (long).")
    ] = Stats.wide
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip scans whose results are there, of this input, model and settings.")
    ] = False
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Stay, and segment what comes into the folder, files and DICOM folders; ends with Ctrl+C."
        ),
    ] = False
    settle: Annotated[
        float,
        typer.Option(min=0.1, max=86400, help="With --watch: take a file once it has not changed for so many seconds."),
    ] = 10.0
    idle: Annotated[
        float | None,
        typer.Option(min=0.1, help="With --watch: end after so many seconds without a new file; by default never."),
    ] = None
    overwrite: OverwriteOption = False
    shard: ShardOption = None
    pseudonyms: Annotated[
        bool, typer.Option("--pseudonyms", help="Name results by the scan's hash, not by its file name.")
    ] = False
    threads: ThreadsOption = None
    precision: PrecisionOption = Precision.auto
    engine: EngineOption = Engine.torch
    volume_index: Annotated[int | None, typer.Option(help="Which volume of a 4-D file, from 0.")] = None
    use_sform: Annotated[
        bool, typer.Option("--use-sform", help="Trust the sform where it disagrees with the qform.")
    ] = False
    use_qform: Annotated[
        bool, typer.Option("--use-qform", help="Trust the qform where it disagrees with the sform.")
    ] = False
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Read NaN and infinite voxels as the lowest finite value.")
    ] = False
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Take scans of another modality than the model expects.")
    ] = False
    max_gigabytes: BudgetOption = None
    as_json: JsonOption = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the table of structures and timings.")] = False
    array: ArrayOptions = field(default_factory=ArrayOptions)
    version: VersionOption = False

    def __post_init__(self) -> None:
        if self.label_map is not None and self.reference is None:
            raise InputError("--label-map is of --reference, which is not given; give both or none")
        if self.compare_table is not None and self.compare is None:
            raise InputError("--compare-table is of --compare, which is not given; give both or none")
        if self.watch:
            self._check_watching()
        elif self.idle is not None:
            raise InputError("--idle is of --watch, which is not given; give both or none")
        for first, second in (("use_sform", "use_qform"), ("quiet", "verbose")):
            if getattr(self, first) and getattr(self, second):
                names = " and ".join(f"--{name.replace('_', '-')}" for name in (first, second))
                raise InputError(f"{names} exclude each other; give one of them")

    def _check_watching(self) -> None:
        """Refuse options that have no meaning where scans come one by one."""
        if not self.input.is_dir() or self.output is None:
            raise InputError("--watch takes a folder, and needs another one for the results: give --output")
        if self.output.resolve() == self.input.resolve():
            raise InputError(f"{printable(self.output)}: is watched; give another --output")
        names = ("recursive", "bids_filter", "reference", "compare", "shard", "series", "as_json")
        given = [name for name in names if getattr(self, name)]
        if given or self.array.on is not None:
            name = "json" if given == ["as_json"] else (given or ["on"])[0].replace("_", "-")
            raise InputError(f"--{name} has no meaning with --watch, which takes what comes, one by one; leave it out")

    @property
    def geometry(self) -> str | None:
        """`sform` or `qform`, the one to trust; None where none is named."""
        return "sform" if self.use_sform else "qform" if self.use_qform else None


def segment(options: SegmentOptions) -> int:
    """Segment scans: a label map on the scan's own grid, a side-car, a table of volumes and a report."""
    return share_out(options, ("medvision", "segment"), _segment, check=_check, resumes=True)


def _check(options: SegmentOptions) -> None:
    from apps.cli.medvision.scans import find_inputs

    if not find_inputs(options).batch:
        raise InputError(f"--shards: {printable(options.input)} is one scan; expected a folder of them")


def _segment(options: SegmentOptions, journal: Journal) -> int:
    from apps.cli.medvision.segment_scans import segment_scans, watch_scans

    return watch_scans(options, journal) if options.watch else segment_scans(options, journal)
