"""SatMAE++: masked autoencoders of satellite images with multi-scale reconstruction, and their vision transformers.

Noman et al., *Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery* (CVPR 2024, arXiv 2403.05419),
as the released code computes it. The plain models see all bands in one patch embedding; the group models embed groups
of bands (such as the 10 m, 20 m and short-wave infrared bands of Sentinel-2) as tokens of their own.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from geovision.models.satmae_pp_mae import GroupMaskedAutoencoder, MaskedAutoencoder
from geovision.models.satmae_pp_names import official_name
from geovision.models.satmae_pp_vit import GroupVisionTransformer, VisionTransformer
from shared_backbones import official
from shared_backbones.blocks.embeddings import fit_positions

_BASE = {"embed_dim": 768, "depth": 12, "num_heads": 12}
_LARGE = {"embed_dim": 1024, "depth": 24, "num_heads": 16}
_FACTORIES = {
    "mae_vit_base_patch16": _BASE,
    "mae_vit_large_patch16": _LARGE,
    "vit_base_patch16": _BASE,
    "vit_large_patch16": _LARGE,
}
"""What the released factories fix; the patch size is an argument in spite of their names."""
VARIANTS = {
    "satmae_pp_vit_base": functools.partial(VisionTransformer, **_BASE),
    "satmae_pp_vit_large": functools.partial(VisionTransformer, **_LARGE),
    "satmae_pp_group_vit_base": functools.partial(GroupVisionTransformer, **_BASE),
    "satmae_pp_group_vit_large": functools.partial(GroupVisionTransformer, **_LARGE),
}
# fMoW-RGB's statistics; Sentinel-2 bands are scaled to [0, 1] one by one, and nothing more
_RGB = {"mean": (0.4182007, 0.4214799, 0.3991276), "std": (0.2877428, 0.2754177, 0.2764018)}
_SENTINEL = {"input_size": (10, 96, 96), "mean": (0.0,) * 10, "std": (1.0,) * 10}
TIMM_CONFIGS = {name: _SENTINEL if "group" in name else _RGB for name in VARIANTS}
ARCHITECTURES: dict[str, Any] = {
    "satmae_pp_mae_rgb": MaskedAutoencoder,
    "satmae_pp_mae_group": GroupMaskedAutoencoder,
    "satmae_pp_vit_rgb": VisionTransformer,
    "satmae_pp_vit_group": GroupVisionTransformer,
}


def from_official(
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    architecture: str,
    variant: str | None = None,
    qkv_bias: bool = True,
    **arguments: Any,
) -> nn.Module:
    """Build one of the four networks with weights of the released code (techmn/satmae_pp).

    Positions of a vision transformer that was trained at another square image size are resampled.

    Args:
        path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
        architecture: `satmae_pp_mae_rgb`, `satmae_pp_mae_group`, `satmae_pp_vit_rgb` or `satmae_pp_vit_group`.
        variant: a released factory: `mae_vit_base_patch16`, `mae_vit_large_patch16`, `vit_base_patch16` or
            `vit_large_patch16`.
        qkv_bias: True, as in all released models.
        arguments: of the network's class.

    Raises:
        ValueError: the variant is unknown, or an argument does not suit.
        InputError: the entries are not those of the released code, or do not fit.
    """
    prefix = "mae_" if architecture.startswith("satmae_pp_mae") else "vit_"
    known = [name for name in _FACTORIES if name.startswith(prefix)]
    if variant is not None and variant not in known:
        raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(known)}")
    if not qkv_bias:
        raise ValueError("qkv_bias is False, expected True: all released models have these biases")
    model = ARCHITECTURES[architecture](**{**(_FACTORIES[variant] if variant else {}), **arguments})
    grouped, pooled = model.trunk.groups is not None, getattr(model, "global_pool", False)
    names = {name: official_name(name, grouped, pooled) for name in model.state_dict()}
    if prefix == "mae_":
        optional, convert = [r"(decoder_)?(pos|channel)_embed$"], {}
    else:
        optional, convert = [], {"trunk.positions": functools.partial(fit_positions, grid=model.trunk.grid)}
    official.load_foreign(model, path_or_state_dict, names, optional=optional, convert=convert)
    return model.eval()
