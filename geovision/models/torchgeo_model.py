"""Classifiers and mappers over encoders of torchgeo, by the name of their weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.models.torchgeo_encoders import Encoder, find_encoder
from geovision.models.torchgeo_networks import Level, Settings, as_maps, build_encoder
from shared_backbones.architectures import Arguments
from shared_backbones.networks.timm_classifier import TimmClassifier

_LEVELS = 4


class TorchGeo(nn.Module):
    """An encoder of torchgeo under a linear head, or, for maps, under a light decoder.

    The decoder is that of SegFormer (Xie et al., 2021): maps of up to four levels, each through a linear layer,
    enlarged to the finest one's size, mixed, and classified. Nothing is fetched: `backbone.fill` reads a file.

    Args:
        weights: torchgeo's name of the weights, such as `ViTSmall16_Weights.SENTINEL2_ALL_MAE`; it names the network.
        num_classes: logits; with 0, the vector itself is what comes out.
        in_chans: bands; by default as many as torchgeo names.
        img_size: side of the images in pixels; by default that of the weights. Networks such as Swin take any.
        wavelengths: centres of the bands in nm; of DOFA alone.
        res: metres of a pixel; of Scale-MAE alone.
        dense: whether each pixel gets logits.
        width: channels of the decoder.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        backbone: the encoder.
        classifier: name of the module that is the head.
        feature_info: levels of maps, as timm's networks have them.

    Raises:
        InputError: torchgeo is not installed, names no such weights, or they cannot be taken.
        ValueError: an argument does not suit.
    """

    classifier = "head"

    def __init__(
        self,
        weights: str,
        num_classes: int = 0,
        in_chans: int | None = None,
        *,
        img_size: int | None = None,
        wavelengths: Sequence[float] = (),
        res: float = 1.0,
        dense: bool = False,
        width: int = 128,
    ) -> None:
        super().__init__()
        known = find_encoder(weights)
        in_chans = in_chans or len(known.bands) or len(wavelengths)
        size = img_size or int(known.input["size"])
        if dense and not num_classes:
            raise ValueError("dense is given without num_classes")
        self.arguments: Arguments = {
            "weights": weights, "num_classes": num_classes, "in_chans": in_chans, "img_size": size,
            "wavelengths": list(wavelengths), "res": res, "dense": dense, "width": width,
        }  # fmt: skip
        self.in_chans, self.dense = in_chans, dense
        self.backbone = build_encoder(known.network, Settings(in_chans, size, tuple(wavelengths), res))
        self.feature_info = [
            Level(**{**level, "module": f"backbone.{level['module']}"}) for level in self.backbone.feature_info
        ]
        if not dense:
            self.head = nn.Linear(self.backbone.width, num_classes) if num_classes else nn.Identity()
            return
        self._levels = _spread(self.feature_info)
        self._seen: dict[str, Tensor] = {}
        for level in self._levels:
            self.get_submodule(level["module"]).register_forward_hook(_Keeping(self._seen, level["module"]))
        self.narrow = nn.ModuleList(nn.Conv2d(level["num_chs"], width, 1) for level in self._levels)
        self.mix = nn.Sequential(
            nn.Conv2d(width * len(self._levels), width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes)`, or of each pixel `(B, num_classes, H, W)`, of images `(B, in_chans, H, W)`."""
        if x.shape[1] != self.in_chans:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected {self.in_chans} channels")
        return self._maps(x) if self.dense else self.head(self.backbone(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The encoder's vectors `(B, D)`."""
        return self.backbone(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of vectors; with `pre_logits` the vectors themselves."""
        return x if pre_logits else self.head(x)

    def _maps(self, x: Tensor) -> Tensor:
        self._seen.clear()
        self.backbone(x)
        maps = [as_maps(self._seen[level["module"]], level, x.shape[2:]) for level in self._levels]
        self._seen.clear()
        narrow = [layer(part) for layer, part in zip(self.narrow, maps, strict=True)]
        size = max((part.shape[2:] for part in narrow), key=lambda sides: sides[0] * sides[1])
        alike = [F.interpolate(part, size, mode="bilinear", align_corners=False) for part in narrow]
        logits = self.head(self.mix(torch.cat(alike, 1)))
        return F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=False)


def load_encoder(encoder: Encoder, checkpoint: Path, given: Arguments | None = None) -> TimmClassifier | TorchGeo:
    """The network with the weights of a checkpoint, without a head, in eval mode.

    A network of timm becomes one that needs torchgeo no more.

    Args:
        encoder: What the weights are of.
        checkpoint: The file that torchgeo would fetch; read as tensors alone.
        given: More arguments of `TorchGeo`.

    Raises:
        InputError: the file cannot be read safely, or its entries are not those of the network.
        ValueError: an argument does not suit.
    """
    network = TorchGeo(encoder.name, **(given or {}))
    network.backbone.fill(checkpoint)
    if not encoder.of_timm:
        return network.eval()
    side = {"img_size": network.arguments["img_size"]} if network.backbone.fixed else {}
    plain = TimmClassifier(encoder.network, num_classes=0, in_chans=network.in_chans, **side)
    plain.network.load_state_dict(network.backbone.network.state_dict())
    return plain.eval()


class _Keeping:
    """Keeps what a module gives, under a name."""

    def __init__(self, kept: dict[str, Tensor], name: str) -> None:
        self.kept, self.name = kept, name

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.kept[self.name] = output


def _spread(levels: Sequence[Level]) -> list[Level]:
    """Up to four levels: the last ones of a pyramid, and evenly spread ones of a plain transformer."""
    count = min(_LEVELS, len(levels))
    if len({level["reduction"] for level in levels}) > 1:
        return list(levels)[-count:]
    return [levels[len(levels) * (place + 1) // count - 1] for place in range(count)]
