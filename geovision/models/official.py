"""Weights as the authors published them, in our models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_backbones import official

if TYPE_CHECKING:
    from torch import nn

# Each module has `from_official(path_or_state_dict, **arguments)` and the map of names beside it.
MODULES = {
    "satmae_pp_mae_group": "geovision.models.satmae_pp",
    "satmae_pp_mae_rgb": "geovision.models.satmae_pp",
    "satmae_pp_vit_group": "geovision.models.satmae_pp",
    "satmae_pp_vit_rgb": "geovision.models.satmae_pp",
}


def load_official(
    architecture: str, path_or_state_dict: str | Path | Mapping[str, Any], **arguments: Any
) -> "nn.Module":
    """Build a published model with its official weights.

    Example: `load_official("satmae_pp_vit_group", "finetune.pth", variant="vit_large_patch16", num_classes=62)`.

    Args:
        architecture: `satmae_pp_mae_rgb`, `satmae_pp_mae_group`, `satmae_pp_vit_rgb` or `satmae_pp_vit_group`.
        path_or_state_dict: a checkpoint (`.pth`, read as tensors only, or `.safetensors`), or its state dict.
        arguments: of the model, named as in the released code; see the model's `from_official`.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        InputError: the architecture is unknown, the arguments do not suit it, the file is not readable as plain
            tensors, or the entries do not fit.
    """
    return official.load_official(MODULES, architecture, path_or_state_dict, arguments)


def official_input(network: Any) -> dict[str, Any] | None:
    """The `input` of a card: what the released code feeds a network, or None where the bands are not its own.

    Args:
        network: of `load_official`: for ten Sentinel-2 bands in three groups, or for RGB.
    """
    from geovision.contract import input_section
    from geovision.models.satmae_pp_trunk import SENTINEL_GROUPS
    from geovision.sensors import find_sensor

    trunk = network.trunk
    size = int(trunk.img_size[0])
    if trunk.groups is None and trunk.in_chans == 3:
        return input_section("rgb", ["red", "green", "blue"], size)
    if trunk.groups is not None and [list(g) for g in trunk.groups] == [list(g) for g in SENTINEL_GROUPS]:
        kept = [name for name in find_sensor("sentinel2_l1c").names() if name not in {"B1", "B9", "B10"}]
        return input_section("sentinel2_l1c", kept, size, normalisation="satmae")
    return None
