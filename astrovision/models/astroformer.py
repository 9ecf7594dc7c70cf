"""Astroformer: convolution stages, then global attention with relative positions (arXiv 2304.05350)."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrovision.models.astroformer_names import HEAD_DIM, fit_table, official_name, read_config, reorder_qkv
from shared_backbones import official
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import RelativeAttention, resample_bias_table
from shared_backbones.blocks.convolution import ConvNormAct, SqueezeExcitation
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.inference import fold_pre_norm
from shared_backbones.json_values import Document
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels
from shared_backbones.networks.timm_registration import Settings

STRIDE = 32  # of the last stage
_TOKEN_NORM_EPS = 1e-6


class Astroformer(Classifier):
    """Image classifier of Dagli, *Astroformer* (ICLR 2023 workshop), as its released code computes it.

    The released variants have the stages C-C-C-T; the parameter counts that the authors report for Galaxy10 and CIFAR
    belong to C-C-T-T without a hidden head layer at 224 pixels. Both are built: see `block_type` and
    `head_hidden_size`. The relative attention that the paper announces is, in the released code, the additive learned
    bias of CoAtNet, one table per block.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        img_size: height and width in pixels, multiples of 32. Stages with attention accept only this size, since their
            bias tables are made for it; `set_input_size` resamples them.
        embed_dim: channels of the four stages; multiples of 32 in stages with attention.
        depths: blocks per stage.
        block_type: `C` (convolution) or `T` (transformer) for each stage, or a sequence of letters, one per block.
        stem_width: channels of the stem's two convolutions, one number or a pair.
        head_hidden_size: width of the head's hidden layer (tanh); None for a linear head on the normed, pooled map.
        expand_ratio: hidden channels of both kinds of block, as a multiple of the output's.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types: `Astroformer(**arguments)` builds an equal network.

    Raises:
        ValueError: an argument does not suit.
    """

    classifier = "head.classifier"
    feature_indices = (0, 1, 2, 3, 4)

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        *,
        embed_dim: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 3, 5, 2),
        block_type: Sequence[str | Sequence[str]] = ("C", "C", "C", "T"),
        stem_width: int | Sequence[int] = 64,
        head_hidden_size: int | None = 768,
        expand_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = _pair(img_size)
        if height % STRIDE or width % STRIDE or height < STRIDE or width < STRIDE:
            raise ValueError(f"img_size {height} x {width}: both must be multiples of {STRIDE}")
        if not len(embed_dim) == len(depths) == len(block_type) == 4:
            raise ValueError("embed_dim, depths and block_type must each name four stages")
        stem = _pair(stem_width)
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": [height, width],
            "embed_dim": list(embed_dim),
            "depths": list(depths),
            "block_type": [kind if isinstance(kind, str) else list(kind) for kind in block_type],
            "stem_width": list(stem),
            "head_hidden_size": head_hidden_size,
            "expand_ratio": expand_ratio,
            "drop_rate": drop_rate,
            "drop_path_rate": drop_path_rate,
        }
        self.num_classes, self.num_features = num_classes, embed_dim[-1]
        self.head_hidden_size = head_hidden_size or embed_dim[-1]
        self.grad_checkpointing = False

        self.stem = nn.Sequential(
            ConvNormAct(in_chans, stem[0], stride=2, activation=F.gelu),
            nn.Conv2d(stem[0], stem[1], 3, padding=1, bias=False),
        )
        self.stages = nn.ModuleList(self._make_stages())
        channels = embed_dim[-1]
        self.norm = nn.LayerNorm(channels, _TOKEN_NORM_EPS) if head_hidden_size is None else nn.Identity()
        self.head = Head(channels, num_classes, head_hidden_size, drop_rate)
        self.feature_info = [{"num_chs": stem[1], "reduction": 2, "module": "stem"}]
        self.feature_info += [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, dim in enumerate(embed_dim)
        ]
        _initialise(self)

    def _make_stages(self) -> Iterator[nn.Sequential]:
        """The four stages, each halving the map in its first block."""
        given = self.arguments
        height, width = given["img_size"]
        rates = iter(torch.linspace(0, given["drop_path_rate"], sum(given["depths"]), device="cpu").tolist())
        channels, ratio = given["stem_width"][1], given["expand_ratio"]
        for stage, (dim, depth) in enumerate(zip(given["embed_dim"], given["depths"], strict=True)):
            size = height // (4 * 2**stage), width // (4 * 2**stage)
            blocks: list[nn.Module] = []
            for index, letter in enumerate(_letters(given["block_type"][stage], depth)):
                stride = 1 if index else 2
                if letter == "C":
                    blocks.append(ConvBlock(channels, dim, stride, ratio, next(rates)))
                else:
                    blocks.append(TransformerBlock(channels, dim, stride, ratio, size, next(rates)))
                channels = dim
            yield nn.Sequential(*blocks)

    @classmethod
    def from_official(
        cls,
        path_or_state_dict: official.Source,
        *,
        variant: str | None = None,
        cfg: Document | None = None,
        **arguments: Any,
    ) -> "Astroformer":
        """Build an Astroformer with weights of the released code (Rishit-dagli/Astroformer).

        Bias tables that were made for another square image size are resampled.

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            variant: `astroformer_0` ... `astroformer_5`.
            cfg: the released code's configuration as a dict; goes over the variant.
            arguments: arguments of `Astroformer`, such as `img_size`, `num_classes`, `in_chans`.

        Raises:
            ValueError: the variant is unknown, or the configuration asks for what the published models do not have.
            InputError: the entries are not those of the released code, or do not fit.
        """
        if variant is not None and variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(VARIANTS)}")
        sizes = {**(VARIANTS[variant].keywords if variant else {}), **read_config(cfg or {})}
        model = cls(**{**sizes, **arguments})
        blocks = [(name, block) for name, block in model.named_modules() if isinstance(block, TransformerBlock)]
        halving = {name for name, block in blocks if block.stride == 2}
        convert: dict[str, Callable[[Tensor], Tensor]] = {
            f"{name}.attention.bias_table": functools.partial(fit_table, size=block.attention.size)
            for name, block in blocks
        }
        state = model.state_dict()
        for name, tensor in state.items():
            if ".attention.qkv." in name:
                convert[name] = functools.partial(reorder_qkv, heads=tensor.shape[0] // 3 // HEAD_DIM)
            elif name not in convert and tensor.ndim == 2 and name.startswith("stages"):
                convert[name] = lambda weight: weight.flatten(1)
        names = {name: official_name(name, halving) for name in state}
        official.load_foreign(model, path_or_state_dict, names, convert=convert)
        return model.eval()

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map `(B, D, H / 32, W / 32)`, normed where the head has no hidden layer."""
        x = self._levels(x, 5)[-1]
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        return self.head(x, pre_logits)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Maps of the levels `indices` (0 the stem, then the stages), alone or after the last map.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, 5, output_fmt)
        levels = self._levels(x, max(wanted) + 1 if stop_early or intermediates_only else 5)
        maps = [
            self.norm(levels[i].permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if norm and i == 4 else levels[i]
            for i in wanted
        ]
        if intermediates_only:
            return maps
        return self.norm(levels[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if len(levels) == 5 else levels[-1], maps

    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Resample the bias tables for another image size, in place.

        Raises:
            ValueError: a side is no multiple of 32.
        """
        height, width = _pair(img_size)
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"img_size {height} x {width}: both must be multiples of {STRIDE}")
        for stage, blocks in enumerate(self.stages):
            size = height // (4 * 2**stage), width // (4 * 2**stage)
            for block in blocks.modules():
                if isinstance(block, RelativeAttention):
                    table = resample_bias_table(block.bias_table.detach(), block.size, size)
                    block.bias_table, block.size = nn.Parameter(table), size
        self.arguments["img_size"] = [height, width]

    def _levels(self, x: Tensor, count: int) -> list[Tensor]:
        """Stem and stages, `count` of them."""
        self._check(x)
        levels = [self.stem(x)]
        for stage in list(self.stages)[: count - 1]:
            x = levels[-1]
            for block in stage.children():
                recompute = self.grad_checkpointing and self.training
                x = recomputed(block, x) if recompute else block(x)
            levels.append(x)
        return levels

    def _check(self, x: Tensor) -> None:
        size, channels = self.arguments["img_size"], self.arguments["in_chans"]
        if x.ndim != 4 or x.shape[1] != channels:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {channels}, H, W)")
        attends = any(isinstance(block, TransformerBlock) for stage in self.stages for block in stage.children())
        if attends and list(x.shape[2:]) != size:
            raise ValueError(
                f"image of {x.shape[2]} x {x.shape[3]}: expected {size[0]} x {size[1]}, for which the position tables "
                "were made; call set_input_size, or build with that img_size"
            )
        if x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            raise ValueError(f"image of {x.shape[2]} x {x.shape[3]}: both must be multiples of {STRIDE}")


def _letters(kinds: str | Sequence[str], depth: int) -> str | Sequence[str]:
    """Kinds of a stage's blocks, one letter each.

    Raises:
        ValueError: they are others than C and T, or not one for each block.
    """
    letters = kinds * depth if isinstance(kinds, str) and len(kinds) == 1 else kinds
    if len(letters) != depth or set(letters) - {"C", "T"}:
        raise ValueError(f"block_type {kinds!r} of a stage of {depth} blocks: expected C, T, or one per block")
    return letters


class ConvBlock(nn.Module):
    """Pre-norm inverted bottleneck with squeeze-excitation: `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""

    def __init__(self, in_channels: int, channels: int, stride: int, expand_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = _make_divisible(expand_ratio * channels)
        self.shortcut = Shortcut(in_channels, channels) if stride == 2 else nn.Identity()
        self.pre_norm: nn.Module = nn.BatchNorm2d(in_channels)
        self.expand = ConvNormAct(in_channels, hidden, 1, activation=F.gelu)
        self.depthwise = ConvNormAct(hidden, hidden, 3, stride=stride, groups=hidden, activation=F.gelu)
        self.se = SqueezeExcitation(hidden, int(0.25 * channels), activation=F.silu)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut; nothing follows the sum."""
        branch = self.project(self.se(self.depthwise(self.expand(self.pre_norm(x)))))
        return self.shortcut(x) + self.drop_path(branch)

    def fold_(self) -> None:
        """Fold the first norm forwards: no activation and no padding lie between it and the 1x1 convolution."""
        if isinstance(self.pre_norm, nn.BatchNorm2d):
            self.expand.convolution = fold_pre_norm(self.pre_norm, self.expand.convolution)
            self.pre_norm = nn.Identity()


class TransformerBlock(nn.Module):
    """Pre-norm transformer block on maps: global attention, then the feed-forward.

    In the first block of a stage the map is normed at its full resolution, and then halved.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, ratio: float, size: tuple[int, int], drop_path: float
    ) -> None:
        super().__init__()
        if channels % HEAD_DIM:
            raise ValueError(f"embed_dim {channels} of a stage with attention: expected a multiple of {HEAD_DIM}")
        self.stride = stride
        self.shortcut = Shortcut(in_channels, channels) if stride == 2 else nn.Identity()
        self.norm1 = nn.LayerNorm(in_channels, _TOKEN_NORM_EPS)
        self.attention = RelativeAttention(in_channels, channels, channels // HEAD_DIM, size)
        self.norm2 = nn.LayerNorm(channels, _TOKEN_NORM_EPS)
        self.mlp = Mlp(channels, int(channels * ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""
        tokens = self.norm1(x.permute(0, 2, 3, 1))
        if self.stride == 2:
            tokens = F.avg_pool2d(tokens.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        height, width = tokens.shape[1:3]
        shortcut = self.shortcut(x).permute(0, 2, 3, 1).flatten(1, 2)
        y = shortcut + self.drop_path(self.attention(tokens.flatten(1, 2)))
        y = y + self.drop_path(self.mlp(self.norm2(y)))
        return y.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Shortcut(nn.Module):
    """Halve a map by 2x2 means, and change its channels where they differ."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / 2, W / 2)`."""
        return self.expand(F.avg_pool2d(x, 2))


class Head(nn.Module):
    """Pool and classify; with a hidden layer the norm comes after the pooling."""

    def __init__(self, channels: int, num_classes: int, hidden: int | None, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate = drop_rate
        self.norm = nn.LayerNorm(channels, _TOKEN_NORM_EPS) if hidden else nn.Identity()
        self.hidden = nn.Linear(channels, hidden) if hidden else None
        self.classifier = nn.Linear(hidden or channels, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map `(B, D, H, W)` to `(B, num_classes)`."""
        x = self.norm(x.mean((2, 3)))
        if self.hidden is not None:
            x = torch.tanh(self.hidden(x))
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)


_FAMILY: dict[str, Arguments] = {
    "astroformer_0": {"embed_dim": (96, 192, 384, 768), "depths": (2, 3, 5, 2), "stem_width": 64},
    "astroformer_1": {"embed_dim": (96, 192, 384, 768), "depths": (2, 6, 14, 2), "stem_width": 64},
    "astroformer_2": {"embed_dim": (128, 256, 512, 1024), "depths": (2, 6, 14, 2), "stem_width": 128},
    "astroformer_3": {"embed_dim": (192, 384, 768, 1536), "depths": (2, 6, 14, 2), "stem_width": 192},
    "astroformer_4": {"embed_dim": (192, 384, 768, 1536), "depths": (2, 12, 28, 2), "stem_width": 192},
    "astroformer_5": {"embed_dim": (256, 512, 1280, 2048), "depths": (2, 12, 28, 2), "stem_width": 192},
}
VARIANTS = {
    name: functools.partial(Astroformer, head_hidden_size=sizes["embed_dim"][-1], **sizes)
    for name, sizes in _FAMILY.items()
}
TIMM_CONFIGS: dict[str, Settings] = {
    name: {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875} for name in VARIANTS
}


def _initialise(model: Astroformer) -> None:
    """As released (`vit_eff`): fan-out normal in convolution parts, Xavier in transformer blocks, else the default."""
    conv_parts = [model.stem, *(m for m in model.modules() if isinstance(m, ConvBlock))]
    for module in (module for part in conv_parts for module in part.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            taps = math.prod(module.weight.shape[2:])
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            nn.init.normal_(module.weight, std=math.sqrt(2 / (taps * module.weight.shape[0] / groups)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in (m for m in model.modules() if isinstance(m, TransformerBlock)):
        for name, module in block.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is None:
                    continue
                if name.startswith("mlp"):
                    nn.init.normal_(module.bias, std=1e-6)
                else:
                    nn.init.zeros_(module.bias)


def _make_divisible(value: float, divisor: int = 8) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)
