"""Maps from SatMAE++ features: its vision transformers, a pyramid of their tokens, and an FPN decoder over it."""

import functools
from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from geovision.models.satmae_pp import GroupVisionTransformer, VisionTransformer
from geovision.models.satmae_pp_autoencoder import Autoencoder
from geovision.models.satmae_pp_vit import EncoderClassifier
from shared_backbones import official
from shared_backbones.architectures import Arguments, Role
from shared_backbones.arguments import Hint, listed_arguments
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.errors import require
from shared_backbones.json_values import Document
from shared_backbones.networks.comer_adapter import Adapter

_ENCODERS = {"group": GroupVisionTransformer, "plain": VisionTransformer}


class EncoderMapper(nn.Module):
    """A SatMAE++ encoder, and smp's FPN decoder over a pyramid of its tokens, which a subclass makes.

    Args:
        num_classes: number of classes of the map.
        encoder: `group` or `plain`, the released transformers for Sentinel-2 and for RGB.
        width: channels of the decoder's levels, a multiple of 64; its last map has half of them.
        encoder_arguments: arguments of `GroupVisionTransformer` or `VisionTransformer`, but for `num_classes`.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: the encoder is unknown, the width does not suit, or its grid of patches has an odd side.
    """

    role: ClassVar[Role] = "segmenter"

    def __init__(self, num_classes: int, encoder: str, width: int, encoder_arguments: Arguments) -> None:
        super().__init__()
        if encoder not in _ENCODERS:
            raise ValueError(f"encoder {encoder!r} is unknown; known: {', '.join(_ENCODERS)}")
        if width % 64:
            raise ValueError(f"width {width}: expected a multiple of 64")
        self.encoder: GroupVisionTransformer | VisionTransformer = _ENCODERS[encoder](
            num_classes=0, **encoder_arguments
        )
        # only the maps of its blocks are used
        self.encoder.set_submodule("norm", nn.Identity())
        grid = self.encoder.trunk.grid
        if any(side % 2 for side in grid):
            raise ValueError(f"{grid[0]} x {grid[1]} patches: both must be even; choose another img_size")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "encoder": encoder,
            "width": width,
            **{name: value for name, value in self.encoder.arguments.items() if name != "num_classes"},
        }

    def add_decoder(self, channels: int) -> None:
        """Build what maps the pyramid, whose maps have so many channels; the last step of a constructor."""
        decoders = require("segmentation_models_pytorch.decoders.fpn.decoder", "train")
        width = self.arguments["width"]
        self.decoder: nn.Module = decoders.FPNDecoder(
            encoder_channels=[channels] * 4, encoder_depth=4, pyramid_channels=width, segmentation_channels=width // 2
        )
        self.head = nn.Conv2d(width // 2, self.arguments["num_classes"], 1)

    @classmethod
    def further_arguments(cls, arguments: Document) -> dict[str, Hint]:
        """Types of the encoder's arguments."""
        encoder = _ENCODERS.get(str(arguments.get("encoder", "group")))
        return dict(listed_arguments(encoder)) if encoder else {}

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps of images `(B, C, H, W)` with a quarter, a half, one and two patches to a pixel."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, C, H, W)` of the encoder's size."""
        logits = self.head(self.decoder(self.pyramid(x)))
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)

    def load_autoencoder(self, source: official.Source | Autoencoder | EncoderClassifier) -> None:
        """Start from a pretrained encoder; see `VisionTransformer.load_autoencoder`."""
        self.encoder.load_autoencoder(source)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.encoder.set_grad_checkpointing(enable)


class SatMAEMapper(EncoderMapper):
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

    def __init__(
        self,
        num_classes: int,
        encoder: str = "group",
        levels: Sequence[int] | None = None,
        width: int = 128,
        **encoder_arguments: object,
    ) -> None:
        super().__init__(num_classes, encoder, width, encoder_arguments)
        trunk = self.encoder.trunk
        depth, dim = len(trunk.blocks), trunk.dim
        self.levels = list(levels) if levels is not None else [depth * (i + 1) // 4 - 1 for i in range(4)]
        self.levels = [max(level, 0) for level in self.levels]
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
        self.arguments["levels"] = self.levels
        self.add_decoder(width)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps `(B, width, ...)` of the blocks `levels`, resized."""
        levels = sorted(set(self.levels))
        by_level = dict(
            zip(levels, self.encoder.forward_intermediates(x, levels, intermediates_only=True), strict=True)
        )
        return [part(by_level[level]) for part, level in zip(self.enlarge, self.levels, strict=True)]


class SatMAEComer(EncoderMapper):
    """A SatMAE++ encoder with ViT-CoMer's pyramid of convolutions beside it, and smp's FPN decoder over that.

    The encoder's blocks stay as they are and may be pretrained; four times the pyramid is brought into the tokens, and
    they into the pyramid (Xia et al., CVPR 2024). At first what is brought into the tokens is multiplied by zero, so
    that training starts from the encoder's own tokens.

    Args:
        num_classes: number of classes of the map.
        encoder: `group` or `plain`, the released transformers for Sentinel-2 and for RGB; of patches of 16, 8 or 4
            pixels and with four blocks or more.
        width: channels of the decoder's levels, a multiple of 64; its last map has half of them.
        adapter: arguments of `shared_backbones.networks.comer_adapter.Adapter`, such as `heads` and `inplanes`.
        encoder_arguments: arguments of `GroupVisionTransformer` or `VisionTransformer`, but for `num_classes`.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: the encoder is unknown or does not suit, or the width or an argument of the adapter does not.
    """

    def __init__(
        self,
        num_classes: int,
        encoder: str = "group",
        width: int = 128,
        adapter: Arguments | None = None,
        **encoder_arguments: object,
    ) -> None:
        super().__init__(num_classes, encoder, width, encoder_arguments)
        trunk = self.encoder.trunk
        self.adapter = Adapter(
            trunk.dim,
            trunk.in_chans,
            len(trunk.blocks),
            patch=trunk.patch_size,
            groups=len(trunk.patch_embeddings),
            extra=1,
            **(adapter or {}),
        )
        self.arguments["adapter"] = dict(adapter or {})
        self.add_decoder(trunk.dim)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps `(B, embed_dim, ...)` of the adapter."""
        trunk = self.encoder.trunk
        tokens, grid = self.encoder.embed(x)
        recompute = trunk.grad_checkpointing and self.training
        blocks = [functools.partial(recomputed, block) if recompute else block for block in trunk.blocks]
        return self.adapter(x, tokens, grid, [lambda y, _, block=block: block(y) for block in blocks])
