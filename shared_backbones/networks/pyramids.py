"""Multi-scale features from any timm backbone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared_backbones.errors import InputError, require
from shared_backbones.official import read_foreign
from shared_backbones.weights import check_tensor, sample_of

REDUCTIONS = (4, 8, 16, 32)


class TimmPyramid(nn.Module):
    """The maps of a timm backbone at given reductions.

    Args:
        name: what `timm.create_model` knows, such as `convnext_atto`.
        in_chans: channels of the image.
        reductions: image pixels per pixel of each map wanted, along one axis.
        img_size: height and width in pixels, for backbones that are built for one size, such as Swin's.
        pretrained: start from timm's pretrained weights, which timm fetches.

    Attributes:
        channels: number of channels of each map.
        reductions: as given.

    Raises:
        ValueError: timm knows no such backbone, or it has no map of a reduction.
        InputError: timm is not installed.
    """

    def __init__(
        self,
        name: str,
        in_chans: int = 3,
        *,
        reductions: Sequence[int] = REDUCTIONS,
        img_size: tuple[int, int] | None = None,
        pretrained: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        timm = require("timm", "train")
        if not timm.is_model(name):
            raise ValueError(f"backbone {name!r} is unknown to timm; timm.list_models() shows the names")
        arguments |= {"features_only": True, "in_chans": in_chans, "pretrained": pretrained}
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        fixed = config is not None and config.fixed_input_size
        adapts = name.startswith("mvitv2")  # by itself, but refuses oblongs if given a size
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


def fill_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Fill a `ResNet` or a `TimmPyramid` with published weights of torchvision or timm.

    What the file has beyond the pyramid, such as its classifier, is left out. Where the backbone takes grey images and
    the weights are for three colours, those of the first convolution are summed: a grey image then gives what the same
    image gave in three equal bands.

    Args:
        backbone: to be filled; every entry of its state dict is.
        path: a `.safetensors` file, or one that `torch.load(weights_only=True)` reads.

    Raises:
        InputError: the file cannot be read safely, or lacks an entry, or has one of another shape or not finite.
    """
    label, own = str(path), backbone.state_dict()
    state = {_published_name(name): tensor for name, tensor in read_foreign(path).items()}
    names = {name: _published_name(name) for name in own}
    missing = [f for name, f in names.items() if f not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise InputError(f"{label}: no weights of this backbone: missing {sample_of(missing)}; give the backbone's own")
    filled = {}
    for name, tensor in own.items():
        published = torch.as_tensor(state.get(names[name], tensor))
        if tensor.ndim == published.ndim == 4 and tensor.shape[1] == 1 and published.shape[1] == 3:
            published = published.sum(1, keepdim=True)
        check_tensor(names[name], published, tuple(tensor.shape), label)
        filled[name] = published
    backbone.load_state_dict(filled)


def _published_name(name: str) -> str:
    """An entry's name in the whole model: timm's pyramids write `stages_0` for `stages.0`, and put `model.` before."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name.removeprefix("network.").removeprefix("model."))
