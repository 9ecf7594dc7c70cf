"""MONAI's networks for volumes, by name."""

import inspect
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.arguments import Hint
from shared_backbones.errors import require
from shared_backbones.json_values import Document

Option: TypeAlias = "str | float | bool | Sequence[Option] | None"
"""A value that MONAI's classes take, in JSON types."""

NETWORKS = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNETR", "UNet", "VNet")
"""Names in `monai.networks.nets`, all of which take `in_channels` and `out_channels`."""
_READS_TENSORS = ("SwinUNETR",)  # while it is built, which the meta device cannot do
_LARGEST_WINDOW = 16  # voxels along an axis: SwinUNETR's table of offsets grows with its sixth power


class MonaiNetwork(nn.Module):
    """A network of `monai.networks.nets` that segments volumes.

    MONAI is imported when a network is built, not before.

    Args:
        network: One of `NETWORKS`.
        num_classes: Output channels.
        in_chans: Input channels.
        **options: What else MONAI's class takes; `spatial_dims` is 3 where it is not given.

    Attributes:
        arguments: The constructor's arguments, in JSON types.
        network: MONAI's module. Its names are those of the state dicts that MONAI users share.

    Raises:
        ValueError: MONAI's class has no such option, or does not take its value.
    """

    role: ClassVar[Role] = "segmenter"

    def __init__(self, network: str, num_classes: int, in_chans: int = 1, **options: Option) -> None:
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network is {network!r}, expected one of {', '.join(NETWORKS)}")
        home = getattr(require("monai.networks.nets", "train"), network)
        known = inspect.signature(home).parameters.keys() - {"in_channels", "out_channels"}
        for name in options:
            if name not in known:
                raise ValueError(f"{network} has no option {name!r}; it takes {', '.join(sorted(known))}")
        if _largest(options.get("window_size", 0)) > _LARGEST_WINDOW:
            raise ValueError(f"window_size is beyond {_LARGEST_WINDOW} voxels, expected fewer")
        self.arguments: Arguments = {
            "network": network,
            "num_classes": num_classes,
            "in_chans": in_chans,
            **options,
        }
        given = {"spatial_dims": 3, **options} if "spatial_dims" in known else options
        device = torch.get_default_device()
        try:
            with torch.device("cpu" if network in _READS_TENSORS else device):
                self.network: nn.Module = home(in_channels=in_chans, out_channels=num_classes, **given)
        except (AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{network}: {str(error).partition(chr(10))[0] or type(error).__name__}") from None
        self.network.to(device)

    @classmethod
    def further_arguments(cls, arguments: Document) -> dict[str, Hint]:
        """Types of further arguments: plain values under any name, as the constructor knows the names."""
        return dict.fromkeys(arguments, object)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, D, H, W)` of images `(B, in_chans, D, H, W)`.

        A network that learns with deep supervision gives `(B, heads, num_classes, D, H, W)` while it trains, the last
        layer's first.
        """
        return self.network(x)


def _largest(sizes: Option) -> float:
    """The largest number of some."""
    if isinstance(sizes, int | float):
        return sizes
    return max(map(_largest, sizes), default=0) if isinstance(sizes, list | tuple) else 0
