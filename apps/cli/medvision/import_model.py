"""The verb `import`: official checkpoints and MONAI bundles become trained-model folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apps.cli.shared.import_command import (
    ACCEPT_LICENSE,
    ARCHITECTURE,
    ARGUMENTS,
    CHECKPOINT,
    LICENSE,
    NAME,
    OUTPUT,
    import_published,
    report_import,
)
from shared_backbones.errors import InputError


@dataclass(frozen=True, kw_only=True)
class MedicalImportOptions:
    """What a user asks `import` for."""

    architecture: Annotated[str | None, ARCHITECTURE] = None
    checkpoint: Annotated[Path | None, CHECKPOINT] = None
    bundle: Annotated[
        Path | None, typer.Option(help="MONAI bundle, in place of an architecture and its checkpoint.")
    ] = None
    output: Annotated[Path, OUTPUT]
    arguments: Annotated[list[str] | None, ARGUMENTS] = None
    name: Annotated[str | None, NAME] = None
    license: Annotated[str, LICENSE] = "unknown"
    accept_license: Annotated[bool, ACCEPT_LICENSE] = False

    def __post_init__(self) -> None:
        if self.bundle is not None and (self.architecture or self.checkpoint or self.arguments):
            raise InputError("--bundle: a bundle says architecture, arguments and weights itself; give nothing of them")
        if self.bundle is None and not (self.architecture and self.checkpoint):
            raise InputError("nothing to import: give --architecture and --checkpoint, or --bundle")


def import_model(options: MedicalImportOptions) -> None:
    """Turn an official checkpoint or a MONAI bundle into a trained-model folder (model.safetensors and model.json).

    Weights are read as plain tensors and a bundle's configuration as data: nothing in them is executed.
    """
    if options.bundle is not None:
        from medvision.bundles.importing import import_bundle

        report_import(options.output, import_bundle(options.bundle, options.output, options.name, options.license))
    elif options.architecture and options.checkpoint:
        import_published(
            "medvision",
            options.architecture,
            options.checkpoint,
            options.output,
            options.arguments,
            options.name,
            options.license,
            options.accept_license,
        )
