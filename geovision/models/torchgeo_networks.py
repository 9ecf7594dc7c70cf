"""Networks of torchgeo as encoders: each gives a vector of an image, and says which of its modules give maps."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from geovision.datasets.torchgeo_classes import TorchGeo
from shared_backbones import official
from shared_backbones.errors import InputError, require
from shared_backbones.files import printable
from shared_backbones.weights import check_tensor, sample_of

_IGNORED = ("head.", "fc.", "s1_", "joint_")  # heads, and what CROMA has for radar
_DRAWN = ("norm.", "fc_norm.", "attn_bias")  # of averaged tokens, which torchgeo leaves as they are built; a table
_POSITIONS = "pos_embed"


class Level(TypedDict):
    """A map that a network gives: channels, pixels of the image per pixel along an axis, and where it comes from."""

    num_chs: int
    reduction: int
    module: str


@dataclass(frozen=True)
class Settings:
    """What a network is built for.

    Attributes:
        in_chans: bands.
        size: side of the images in pixels, for networks that are built for one.
        wavelengths: centres of the bands in nm, for networks that take any bands.
        res: metres of a pixel, for networks that are told.
    """

    in_chans: int
    size: int
    wavelengths: tuple[float, ...]
    res: float


class TorchGeoEncoder(nn.Module):
    """A network of torchgeo, without its head.

    Attributes:
        network: torchgeo's own.
        feature_info: levels of maps, from fine to coarse or from low to high.
        width: numbers of a vector.
        fixed: whether it is built for one size of images.
    """

    network: TorchGeo
    feature_info: list[Level]
    width: int
    fixed = True

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `(B, D)` of images `(B, C, H, W)`."""
        raise NotImplementedError

    def fill(self, path: str | Path) -> None:
        """Take the weights of a file such as torchgeo names; positions are resampled to the size of the images.

        Args:
            path: a `.safetensors` file, or one that `torch.load(weights_only=True)` reads.

        Raises:
            InputError: the file cannot be read safely, or its entries are not those of the network.
        """
        own, state = self.network.state_dict(), _flat(official.read_foreign(path))
        label = printable(path)
        missing = [name for name in own if name not in state and not name.startswith(_DRAWN)]
        left_over = [name for name in state if name not in own and not name.startswith(_IGNORED)]
        if missing or left_over:
            raise InputError(
                f"{label}: no weights of this network of torchgeo: missing {sample_of(missing)}; unexpected "
                f"{sample_of(left_over)}; give the file that torchgeo names for them"
            )
        taken = {name: self._resampled(name, state[name], own[name]) for name in own.keys() & state.keys()}
        for name, tensor in taken.items():
            check_tensor(name, tensor, tuple(own[name].shape), label)
        self.network.load_state_dict({**own, **taken})

    def _resampled(self, name: str, tensor: Tensor, own: Tensor) -> Tensor:
        if name != _POSITIONS or tensor.shape == own.shape or tensor.ndim != own.ndim or not self.fixed:
            return tensor
        resample = require("timm.layers", "train").resample_abs_pos_embed
        side = round((own.shape[1] - 1) ** 0.5)
        return resample(tensor, new_size=[side, side], num_prefix_tokens=1)


class TimmEncoder(TorchGeoEncoder):
    """A network of timm, or one that derives from timm's vision transformer, as Scale-MAE."""

    def __init__(self, build: Callable[..., nn.Module], name: str, given: Settings) -> None:
        super().__init__()
        models = require("timm.models", "train")
        self.fixed = not models.is_model(name) or models.is_model_in_modules(name, ["vision_transformer"])
        options = {"img_size": given.size} if self.fixed else {}
        self.network = build(
            in_chans=given.in_chans, num_classes=0, **options, **({"res": given.res} if takes_resolution(name) else {})
        )
        self.width = int(self.network.num_features)
        self.feature_info = [
            Level(num_chs=level["num_chs"], reduction=level["reduction"], module=f"network.{level['module']}")
            for level in self.network.feature_info
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `(B, D)` of images `(B, C, H, W)`: what the head sees."""
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


class SwinEncoder(TorchGeoEncoder):
    """A Swin transformer of torchvision, of whatever bands."""

    fixed = False

    def __init__(self, build: Callable[..., nn.Module], name: str, given: Settings) -> None:
        super().__init__()
        self.network = build()
        first = self.network.features[0][0]
        if given.in_chans != first.in_channels:
            self.network.features[0][0] = nn.Conv2d(given.in_chans, first.out_channels, first.kernel_size, first.stride)
        self.width = int(self.network.head.in_features)
        self.network.head = nn.Identity()
        stages = range(1, len(self.network.features), 2)
        self.feature_info = [
            Level(
                num_chs=self.width >> (len(stages) - 1 - place),
                reduction=first.kernel_size[0] << place,
                module=f"network.features.{stage}",
            )
            for place, stage in enumerate(stages)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `(B, D)` of images `(B, C, H, W)`: the mean of the last map."""
        return self.network(x)


class DOFAEncoder(TorchGeoEncoder):
    """DOFA, whose first layer is made from the wavelengths of the bands."""

    def __init__(self, build: Callable[..., nn.Module], name: str, given: Settings) -> None:
        super().__init__()
        if not given.wavelengths or len(given.wavelengths) != given.in_chans:
            raise ValueError(f"{len(given.wavelengths)} wavelengths are given, expected one for each band, in nm")
        self.wavelengths = [wavelength / 1000 for wavelength in given.wavelengths]  # in micrometres
        self.in_chans = given.in_chans
        self.network = build(num_classes=0, img_size=given.size)
        self.width = int(self.network.embed_dim)
        self.feature_info = [
            Level(num_chs=self.width, reduction=self.network.patch_size, module=f"network.blocks.{block}")
            for block in range(len(self.network.blocks))
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `(B, D)` of images `(B, C, H, W)`: the mean of the tokens."""
        return self.network.forward_features(x, self.wavelengths)


class CROMAEncoder(TorchGeoEncoder):
    """CROMA's encoder of optical images."""

    def __init__(self, build: Callable[..., nn.Module], name: str, given: Settings) -> None:
        super().__init__()
        self.network = build(modalities=["optical"], image_size=given.size)
        if given.in_chans != self.network.s2_channels:
            raise ValueError(f"takes {self.network.s2_channels} bands, found in_chans={given.in_chans}")
        self.width = int(self.network.encoder_dim)
        level = Level(num_chs=self.width, reduction=self.network.patch_size, module="network.s2_encoder")
        self.feature_info = [level]

    def forward(self, x: Tensor) -> Tensor:
        """Vectors `(B, D)` of images `(B, C, H, W)`: CROMA's optical vector."""
        return self.network(x_optical=x)["optical_GAP"]


def encoder_class(name: str) -> type[TorchGeoEncoder] | None:
    """What makes an encoder of a network that torchgeo names; None where nothing here does."""
    models = require("torchgeo.models", "torchgeo")
    made = _made_by(getattr(models, name))
    vision = require("timm.models.vision_transformer", "train")
    swin = require("torchvision.models.swin_transformer", "train")
    if require("timm", "train").is_model(name) or issubclass(made, vision.VisionTransformer):
        return TimmEncoder
    known = {swin.SwinTransformer: SwinEncoder, models.DOFA: DOFAEncoder, models.CROMA: CROMAEncoder}
    return next((adapter for network, adapter in known.items() if issubclass(made, network)), None)


def build_encoder(name: str, given: Settings) -> TorchGeoEncoder:
    """An untrained network that torchgeo names.

    Raises:
        ValueError: nothing here makes an encoder of it, or the settings do not suit.
    """
    make: TorchGeo = encoder_class(name)
    if make is None:
        raise ValueError(f"{name} is no network that is built here")
    return make(getattr(require("torchgeo.models", "torchgeo"), name), name, given)


def default_size(name: str) -> int | None:
    """Side of the images that a network is built for where nobody says another one; None where it does not say."""
    made = _made_by(getattr(require("torchgeo.models", "torchgeo"), name))
    parameters = inspect.signature(made).parameters
    sizes = [parameters[given].default for given in ("img_size", "image_size") if given in parameters]
    return next((int(size) for size in sizes if isinstance(size, int)), None)


def takes_resolution(name: str) -> bool:
    """Whether a network is told how many metres a pixel has, as Scale-MAE."""
    made = _made_by(getattr(require("torchgeo.models", "torchgeo"), name))
    return made is not nn.Module and "res" in inspect.signature(made).parameters


def as_maps(output: Tensor, level: Level, shape: Sequence[int]) -> Tensor:
    """What a module of a level gives as maps `(B, C, h, w)`: of tokens, or channels last as Swin's.

    Args:
        output: `(B, N, C)`, `(B, h, w, C)` or `(B, C, h, w)`.
        level: the level.
        shape: height and width of the images.
    """
    if output.ndim == 3:
        height, width = (side // level["reduction"] for side in shape)
        return output[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
    return output if output.shape[1] == level["num_chs"] else output.permute(0, 3, 1, 2)


def _made_by(build: Callable[..., nn.Module]) -> type[nn.Module]:
    """Class of what a builder says that it makes."""
    made = inspect.signature(build, eval_str=True).return_annotation
    return made if inspect.isclass(made) and issubclass(made, nn.Module) else nn.Module


def _flat(state: official.Tensors, before: str = "") -> dict[str, Tensor]:
    """Entries of a checkpoint whose parts are state dicts of their own, as CROMA's, under one name each."""
    entries: dict[str, Tensor] = {}
    for name, value in state.items():
        entries |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return {name: torch.as_tensor(value) for name, value in entries.items()}
