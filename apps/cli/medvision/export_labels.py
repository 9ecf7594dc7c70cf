"""The verb `models export-labels`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.options import CommaSeparated
from apps.cli.shared.outputs import OverwriteOption
from medvision.parts import Detail
from shared_backbones.terminal import say


@dataclass(frozen=True, kw_only=True)
class ExportLabelsOptions:
    """What a user asks `models export-labels` for."""

    name: Annotated[str, typer.Argument(help="Bundled model, trained-model folder, or models:/NAME@ALIAS.")]
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the tables.")] = Path()
    formats: Annotated[
        list[str] | None,
        CommaSeparated,
        typer.Option("--format", help="Some of freesurfer,itksnap,slicer,bids; by default all."),
    ] = None
    detail: Annotated[
        Detail, typer.Option(help="Labels of structures, or of every part with its side (full), as `segment` writes.")
    ] = Detail.structures
    overwrite: OverwriteOption = False


def export_labels(options: ExportLabelsOptions) -> None:
    """Write what the labels mean, and their colours, for FreeSurfer, ITK-SNAP, 3D Slicer and BIDS."""
    from apps.cli.medvision.results import make_writable
    from apps.cli.shared.outputs import place_text
    from apps.cli.shared.program import find_model
    from medvision.channels import Channels
    from medvision.contract import InputContract
    from medvision.findings.label_tables import FORMATS
    from medvision.findings.tables import identifiers
    from shared_backbones.card import read_card
    from shared_backbones.errors import InputError
    from shared_backbones.files import printable

    formats = list(FORMATS) if options.formats is None else options.formats
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"--format {printable(','.join(formats))}: expected some of {', '.join(FORMATS)}")
    folder = find_model(options.name, "medvision")
    card = read_card(folder)
    contract = InputContract.from_card(card, options.name)
    channels = Channels.of(contract, options.detail, options.name)
    make_writable(options.output)
    stem = identifiers([str(card.get("name") or folder.name)])[0]
    stem += "_full" if channels.detail is Detail.full else ""
    for name in formats:
        ending, write = FORMATS[name]
        path = options.output / f"{stem}{ending}"
        place_text(path, write(channels.classes), overwrite=options.overwrite)
        say(f"{name:12}{printable(path)}")
