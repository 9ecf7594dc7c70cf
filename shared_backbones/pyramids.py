"""Multi-scale features from any timm backbone."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from shared_backbones.errors import require

REDUCTIONS = (4, 8, 16, 32)


class TimmPyramid(nn.Module):
    """The maps of a timm backbone at given reductions.

    Args:
        name: what `timm.create_model` knows, such as `convnext_atto`.
        in_channels: channels of the image.
        reductions: image pixels per pixel of each map wanted, along one axis.
        img_size: height and width in pixels, for backbones that are built for one size, such as Swin's.
        pretrained: start from timm's pretrained weights, which timm fetches.

    Attributes:
        channels: of each map.
        reductions: as given.

    Raises:
        ValueError: timm knows no such backbone, or it has no map of a reduction.
        InputError: timm is not installed.
    """

    def __init__(
        self,
        name: str,
        in_channels: int = 3,
        *,
        reductions: Sequence[int] = REDUCTIONS,
        img_size: tuple[int, int] | None = None,
        pretrained: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        timm: Any = require("timm", "train")
        if not timm.is_model(name):
            raise ValueError(f"backbone {name!r} is unknown to timm; timm.list_models() shows the names")
        arguments |= {"features_only": True, "in_chans": in_channels, "pretrained": pretrained}
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        fixed = config is not None and config.fixed_input_size
        adapts = name.startswith("mvitv2")  # by itself, but refuses oblongs if told a size
        if img_size is not None and fixed and not adapts:
            arguments["img_size"] = img_size
        levels = timm.create_model(name, **{**arguments, "pretrained": False}).feature_info.info
        there = {level["reduction"]: index for index, level in enumerate(levels)}  # the last of equal size
        missing = [reduction for reduction in reductions if reduction not in there]
        if missing:
            raise ValueError(f"backbone {name!r} has maps at 1/{', 1/'.join(map(str, there))}, none at 1/{missing[0]}")
        self.network = timm.create_model(name, out_indices=[there[r] for r in reductions], **arguments)
        self.channels = tuple(self.network.feature_info.channels())
        self.reductions = tuple(reductions)
        # `FeatureListNet` gives maps as its model does, channels last for Swin and its relatives
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps `(B, channels[i], H / reductions[i], W / reductions[i])` of `(B, C, H, W)`."""
        maps = self.network(x)
        return [feature.permute(0, 3, 1, 2) for feature in maps] if self.channels_last else list(maps)
