"""Weights as the authors published them, in our models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_backbones import official

if TYPE_CHECKING:
    from torch import nn

# Each module has `from_official(path_or_state_dict, **arguments)` and the map of names beside it.
MODULES = {
    "astroformer": "astrovision.models.astroformer",
}


def load_official(
    architecture: str, path_or_state_dict: str | Path | Mapping[str, Any], **arguments: Any
) -> "nn.Module":
    """Build a published model with its official weights.

    Example: `load_official("astroformer", "model_best.pth.tar", variant="astroformer_4", num_classes=10)`.

    Args:
        architecture: `astroformer`.
        path_or_state_dict: a checkpoint (`.pth`, read as tensors only, or `.safetensors`), or its state dict.
        arguments: of the model, named as in the released code; see the model's `from_official`.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        InputError: the architecture is unknown, the arguments do not suit it, the file is not readable as plain
            tensors, or the entries do not fit.
    """
    return official.load_official(MODULES, architecture, path_or_state_dict, arguments)
