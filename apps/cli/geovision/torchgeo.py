"""`geovision models torchgeo`, and the weights of torchgeo that `geovision import` takes by name."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared_backbones.json_values import Entries
from shared_backbones.terminal import say

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """What a user asks `models torchgeo` for."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: bands, input and reasons, too.")] = False


def list_encoders(options: EncoderOptions) -> None:
    """List the pretrained weights that torchgeo names: which `import` takes, and why not the others.

    Nothing is fetched: `import --architecture torchgeo:NAME --checkpoint FILE` reads a file that you have.
    """
    from geovision.models.torchgeo_encoders import encoders

    known = sorted(encoders(), key=lambda encoder: (bool(encoder.reason), encoder.name))
    if options.as_json:
        print(json.dumps([asdict(encoder) for encoder in known], indent=2))
        return
    width = max(len(encoder.name) for encoder in known)
    for encoder in known:
        about = f"{encoder.network}, {encoder.input.get('sensor')}, {len(encoder.bands)} bands, from {encoder.dataset}"
        what = f"not taken: {encoder.reason}" if encoder.reason else f"{about}; licence {encoder.license}"
        say(f"{encoder.name:{width}}  {what}")


def read_encoder(name: str, checkpoint: Path) -> "tuple[nn.Module, Entries]":
    """The network of weights that torchgeo names, filled from a file, and entries of its card."""
    from geovision.models.torchgeo_encoders import card_of, find_encoder, load_encoder

    encoder = find_encoder(name)
    return load_encoder(encoder, checkpoint), card_of(encoder)
