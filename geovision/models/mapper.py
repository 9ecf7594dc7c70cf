"""Maps from SatMAE++ features: its vision transformer under a feature-pyramid decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from geovision.models.satmae_pp import GroupVisionTransformer, VisionTransformer
from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.models.satmae_pp_vit import EncoderClassifier
from shared_backbones import official
from shared_backbones.architectures import Role
from shared_backbones.arguments import Hint, listed_arguments
from shared_backbones.errors import require
from shared_backbones.json_values import Document

_ENCODERS = {"group": GroupVisionTransformer, "plain": VisionTransformer}


class SatMAEMapper(nn.Module):
    """A SatMAE++ encoder whose token maps become a pyramid, and smp's FPN decoder over it.

    SatMAE++ publishes no dense head. The pyramid is that of plain vision transformers (Li et al., ViTDet, 2022): the
    maps after four blocks, enlarged 4 and 2 times, as they are, and halved.

    Args:
        num_classes: number of classes of the map.
        encoder: `group` or `plain`, the released transformers for Sentinel-2 and for RGB.
        levels: blocks whose outputs are used; by default four, evenly spread to the last.
        width: channels of the pyramid, a multiple of 64; the decoder has half of them.
        encoder_arguments: arguments of `GroupVisionTransformer` or `VisionTransformer`, but for `num_classes`.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: the encoder is unknown, the width does not suit, or its grid of patches has an odd side.
    """

    role: ClassVar[Role] = "segmenter"

    def __init__(
        self,
        num_classes: int,
        encoder: str = "group",
        levels: Sequence[int] | None = None,
        width: int = 128,
        **encoder_arguments: Any,
    ) -> None:
        super().__init__()
        if encoder not in _ENCODERS:
            raise ValueError(f"encoder {encoder!r} is unknown; known: {', '.join(_ENCODERS)}")
        if width % 64:
            raise ValueError(f"width {width}: expected a multiple of 64")
        decoders = require("segmentation_models_pytorch.decoders.fpn.decoder", "train")
        self.encoder: GroupVisionTransformer | VisionTransformer = _ENCODERS[encoder](
            num_classes=0, **encoder_arguments
        )
        # only the maps of its blocks are used
        self.encoder.set_submodule("norm", nn.Identity())
        trunk = self.encoder.trunk
        if any(side % 2 for side in trunk.grid):
            raise ValueError(f"{trunk.grid[0]} x {trunk.grid[1]} patches: both must be even; choose another img_size")
        depth = len(trunk.blocks)
        self.levels = list(levels) if levels is not None else [depth * (i + 1) // 4 - 1 for i in range(4)]
        self.levels = [max(level, 0) for level in self.levels]
        dim = trunk.dim
        self.enlarge = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(dim, width, 2, 2), nn.GroupNorm(1, width), nn.GELU(),
                    nn.ConvTranspose2d(width, width, 2, 2),
                ),
                nn.ConvTranspose2d(dim, width, 2, 2),
                nn.Conv2d(dim, width, 1),
                nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(dim, width, 1)),
            ]
        )  # fmt: skip
        self.decoder: nn.Module = decoders.FPNDecoder(
            encoder_channels=[width] * 4, encoder_depth=4, pyramid_channels=width, segmentation_channels=width // 2
        )
        self.head = nn.Conv2d(width // 2, num_classes, 1)
        self.arguments = {
            "num_classes": num_classes,
            "encoder": encoder,
            "levels": self.levels,
            "width": width,
            **{name: value for name, value in self.encoder.arguments.items() if name != "num_classes"},
        }

    @classmethod
    def further_arguments(cls, arguments: Document) -> dict[str, Hint]:
        """Types of the encoder's arguments."""
        encoder = _ENCODERS.get(str(arguments.get("encoder", "group")))
        return dict(listed_arguments(encoder)) if encoder else {}

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, C, H, W)` of the encoder's size."""
        maps = self.encoder.forward_intermediates(x, sorted(set(self.levels)), intermediates_only=True)
        by_level = dict(zip(sorted(set(self.levels)), maps, strict=True))
        pyramid = [part(by_level[level]) for part, level in zip(self.enlarge, self.levels, strict=True)]
        logits = self.head(self.decoder(pyramid))
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)

    def load_autoencoder(self, source: official.Source | Autoencoder | EncoderClassifier) -> None:
        """Start from a pretrained encoder; see `VisionTransformer.load_autoencoder`."""
        self.encoder.load_autoencoder(source)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.encoder.set_grad_checkpointing(enable)
