"""The baseline a user would try first: segmentation_models_pytorch's U-Net over any timm encoder."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.errors import require
from shared_backbones.networks.timm_registration import any_size, register_all

STRIDE = 32  # of the deepest feature; inputs are padded to a multiple of it


class Unet(nn.Module):
    """`smp.Unet` with the arguments and the any-size input of our own networks.

    Args:
        num_classes: output channels.
        in_chans: input channels.
        encoder: name that segmentation_models_pytorch knows; any timm backbone as `tu-<name>`.
        encoder_weights: name of pretrained weights, which segmentation_models_pytorch fetches; None starts anew.
        decoder_channels: width of each decoder level, the deepest first.
        padding: what convolutions see beyond an image, by torch's names: `zeros`, as published, or `replicate`, with
            which an image's rim looks to the network as its inside does.

    Attributes:
        arguments: the constructor's arguments, in JSON types; without `encoder_weights`, since trained weights follow.
    """

    role: ClassVar[Role] = "segmenter"
    renamed_arguments: ClassVar[dict[str, str]] = {"in_channels": "in_chans"}

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 3,
        encoder: str = "resnet34",
        encoder_weights: str | None = None,
        decoder_channels: tuple[int, ...] | list[int] = (256, 128, 64, 32, 16),
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        if encoder.startswith("tu-"):
            register_all()  # our own encoders
        smp = require("segmentation_models_pytorch", "train")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "encoder": encoder,
            "decoder_channels": list(decoder_channels),
            **({} if padding == "zeros" else {"padding": padding}),
        }
        self.network: nn.Module = smp.Unet(
            encoder,
            encoder_weights=encoder_weights,
            in_channels=in_chans,
            classes=num_classes,
            encoder_depth=len(decoder_channels),
            decoder_channels=tuple(decoder_channels),
            **any_size(encoder),
        )
        if padding not in ("zeros", "replicate"):
            raise ValueError(f"padding is {padding!r}, expected zeros or replicate")
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.padding_mode = padding

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, in_chans, H, W)`."""
        height, width = x.shape[2:]
        below, right = -height % STRIDE, -width % STRIDE
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        return self.network(x)[:, :, :height, :width]
