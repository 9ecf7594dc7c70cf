"""Weights as the authors published them, in our models."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_backbones.errors import InputError

if TYPE_CHECKING:
    from torch import nn

# Each module has `from_official(path_or_state_dict, **arguments)` and the map of names beside it.
MODULES = {"hbformer": "medvision.models.hbformer"}


def load_official(
    architecture: str, path_or_state_dict: str | Path | Mapping[str, Any], **arguments: Any
) -> "nn.Module":
    """Build a published model with its official weights.

    Example: `load_official("hbformer", "best.pth", num_classes=9, img_size=256)`.

    Args:
        architecture: `hbformer`.
        path_or_state_dict: a checkpoint (`.pth`, read as tensors only, or `.safetensors`), or its state dict.
        arguments: of the model, such as `num_classes`, `img_size` (int or pair), `feature_size`, `window_size`.

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        InputError: the architecture is unknown, the file is not readable as plain tensors, or the entries do not fit.
    """
    if architecture not in MODULES:
        raise InputError(f"no official weights for architecture {architecture!r}; known: {', '.join(sorted(MODULES))}")
    return importlib.import_module(MODULES[architecture]).from_official(path_or_state_dict, **arguments)
