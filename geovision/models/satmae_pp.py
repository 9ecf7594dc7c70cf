"""SatMAE++: masked autoencoders of satellite images with multi-scale reconstruction, and their vision transformers.

Noman et al., *Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery* (CVPR 2024, arXiv 2403.05419),
as the released code computes it. The plain models see all bands in one patch embedding; the group models embed groups
of bands (such as the 10 m, 20 m and short-wave infrared bands of Sentinel-2) as tokens of their own.
"""

from geovision.models.satmae_pp_mae import GroupMaskedAutoencoder, MaskedAutoencoder
from geovision.models.satmae_pp_vit import (
    GroupVisionTransformer,
    VisionTransformer,
    encoder_of,
    is_pretrained_encoder,
)

__all__ = [
    "GroupMaskedAutoencoder",
    "GroupVisionTransformer",
    "MaskedAutoencoder",
    "VisionTransformer",
    "encoder_of",
    "is_pretrained_encoder",
]
