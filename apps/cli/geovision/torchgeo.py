"""The weights of torchgeo, which `geovision models list --torchgeo` lists and `geovision import` takes by name."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from apps.cli.shared.import_command import ImportOptions, parse_arguments
from apps.cli.shared.models_command import ListOptions, list_bundled
from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class GeovisionListOptions(ListOptions):
    """What a user asks `geovision models list` for."""

    torchgeo: Annotated[
        bool,
        typer.Option(
            "--torchgeo", help="The weights that torchgeo names instead: which `import` takes, and why not the others."
        ),
    ] = False


def list_models(options: GeovisionListOptions) -> None:
    """List the bundled models: what each takes and does, how well, how large it is, and its licence."""
    if not options.torchgeo:
        return list_bundled("geovision", options)
    from geovision.models.torchgeo_encoders import encoders

    known = sorted(encoders(), key=lambda encoder: (bool(encoder.reason), encoder.name))
    if options.as_json:
        print(json.dumps([asdict(encoder) for encoder in known], indent=2))
        return None
    width = max(len(encoder.name) for encoder in known)
    for encoder in known:
        seen = f"{encoder.input.get('sensor')}, {len(encoder.bands)} bands" if encoder.bands else "bands that you name"
        about = f"{encoder.network}, {seen}, from {encoder.dataset}; licence {encoder.license}"
        say(f"{encoder.name:{width}}  {f'not taken: {encoder.reason}' if encoder.reason else about}")
    return None


def read_encoder(name: str, options: ImportOptions) -> "tuple[nn.Module, Entries]":
    """The network of weights that torchgeo names, filled from a file, and entries of its card."""
    from geovision.models.torchgeo_encoders import UNKNOWN, arguments_of, card_of, check_license, find_encoder
    from geovision.models.torchgeo_model import load_encoder

    encoder = find_encoder(name)
    section, arguments = arguments_of(encoder, parse_arguments(options.arguments or []))
    looked = options.accept_license or options.license != UNKNOWN
    check_license(encoder, looked, "add --license NAME or --accept-license")
    return load_encoder(encoder, options.checkpoint, arguments), card_of(encoder, section)
