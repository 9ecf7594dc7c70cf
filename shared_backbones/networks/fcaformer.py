"""FcaFormer: blocks that also attend to what earlier blocks leave for them (arXiv 2211.07198); from paper and notes."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, Rule, renamed
from shared_backbones.networks.stages import Stage, StageClassifier
from shared_backbones.networks.tokens import drop_path_rates, initialise_linear, to_map, to_tokens

_CONVOLUTION_EPS = 1e-6
_CONVOLUTION_STAGES = 2
_LAYER_SCALE = 1e-6
_SUMMARY_STRIDE = 4


class FcaFormer(Released, StageClassifier):
    """Hybrid FcaFormer of Zhang et al., as its released code computes it.

    Two stages of convolutions, two of attention. A block of the latter leaves a few tokens that sum up its map, and
    those after it attend to them beside their own map. The released code has no licence, so that no weights come with
    the suite.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels; the released code has 3.
        img_size: side of the images in pixels, which tables of positions are made for.
        embed_dims: channels of the four stages.
        depths: blocks of the four stages.
        num_heads: heads of the four stages; the first two have none.
        cab_max_d: how many blocks back a block sees.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "FcaFormer"
    released_nothing = frozenset({"layer_scale_init_value", "mlp_ratio"})  # which the released code leaves unread

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        img_size: int = 224,
        embed_dims: Sequence[int] = (64, 128, 192, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (0, 0, 6, 10),
        cab_max_d: int = 12,
        drop_path_rate: float = 0.0,
    ) -> None:
        if any(len(row) != 4 for row in (embed_dims, depths, num_heads)):
            raise ValueError("embed_dims, depths and num_heads must each name four stages")
        for width, heads in list(zip(embed_dims, num_heads, strict=True))[_CONVOLUTION_STAGES:]:
            if heads < 1 or width % heads:
                raise ValueError(f"embed_dims has {width}, expected a multiple of its {heads} heads")
        super().__init__(num_classes, in_chans, embed_dims, (4, 8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": img_size,
            "embed_dims": list(embed_dims),
            "depths": list(depths),
            "num_heads": list(num_heads),
            "cab_max_d": cab_max_d,
            "drop_path_rate": drop_path_rate,
        }
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        side = -(-img_size // 4)
        for i, width in enumerate(embed_dims):
            enter = _stem(in_chans, width) if i == 0 else _merging(embed_dims[i - 1], width)
            if i < _CONVOLUTION_STAGES:
                self.stages.append(Stage(*enter, *(ConvolutionBlock(width, next(rates)) for _ in range(depths[i]))))
            else:
                blocks = [
                    CrossBlock(width, num_heads[i], side, min(j, cab_max_d), j == depths[i] - 1, next(rates))
                    for j in range(depths[i])
                ]
                self.stages.append(CrossStage(enter, blocks))
            side = -(-side // 2)
        self.norm = nn.LayerNorm(embed_dims[-1])
        self.head = linear_classifier(embed_dims[-1], num_classes)
        self.apply(initialise_linear)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        if name.startswith("norm."):
            return f"norm_head.{name.removeprefix('norm.')}"
        if not name.startswith("stages."):
            return name
        _, stage, rest = name.split(".", 2)
        number = int(stage)
        if number >= _CONVOLUTION_STAGES:
            kind, index, rest = rest.split(".", 2)
            if kind == "blocks":
                return f"layer_{stage}.blocks.{index}.{renamed(rest, _PARTS)}"
        else:
            index, rest = rest.split(".", 1)
        place, entering = int(index), 2 if number == 0 else 3
        if place >= entering:
            return f"layer_{stage}.blocks.{place - entering}.{renamed(rest, _CONVOLUTION_PARTS)}"
        unit = rest.replace("convolution.", "c.").replace("norm.", "bn.")
        if number == 0:
            return f"patch_embed.seq.{2 * place}.{unit}"
        return f"layer_{number - 1}.downsample.conv{place + 1}.{unit}"

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        x = self.norm(x.mean((2, 3)))
        return x if pre_logits else self.head(x)

    def _levels(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """The first `count` levels."""
        side = self.arguments["img_size"]
        if tuple(x.shape[1:]) != (self.in_chans, side, side):
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.in_chans}, {side}, {side})")
        return super()._levels(x, count)


def _stem(in_chans: int, width: int) -> list[nn.Module]:
    return [
        ConvNormAct(in_chans, width // 2, stride=2, activation=F.gelu),
        ConvNormAct(width // 2, width, stride=2, activation=None),
    ]


def _merging(before: int, width: int) -> list[nn.Module]:
    return [
        ConvNormAct(before, width, 1, activation=F.gelu),
        ConvNormAct(width, width, stride=2, groups=width, activation=F.gelu),
        ConvNormAct(width, width, 1, activation=None),
    ]


class ConvolutionBlock(nn.Module):
    """ConvNeXt's block: depthwise 7x7, norm and feed-forward, with a learned factor for each channel."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, _CONVOLUTION_EPS)
        self.mlp = Mlp(dim, 4 * dim)
        self.scale: nn.Parameter | None = nn.Parameter(torch.full((dim,), _LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        branch = self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        branch = branch if self.scale is None else self.scale * branch
        return x + self.drop_path(branch.permute(0, 3, 1, 2))

    def fold_(self) -> None:
        """Multiply the factor into the last layer."""
        self.scale = _fold_scale(self.mlp.fc2, self.scale)


class CrossStage(nn.Module):
    """Blocks of which each sees the tokens that those before it left."""

    def __init__(self, enter: Sequence[nn.Module], blocks: Sequence["CrossBlock"]) -> None:
        super().__init__()
        self.enter, self.blocks = nn.ModuleList(enter), nn.ModuleList(blocks)
        self.back = max(block.back for block in blocks)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Map `(B, C, H, W)` to the next level."""
        for part in self.enter:
            x = recomputed(part, x) if recompute else part(x)
        left: list[Tensor] = []
        for block in self.blocks:
            cross = torch.cat(left[-self.back :], 1) if left and self.back else None
            run = functools.partial(recomputed, block) if recompute else block
            x, summary = run(x, cross)
            left.append(summary)
        return x


class CrossBlock(nn.Module):
    """Attention to a map and to tokens of earlier blocks, a convolution, a feed-forward.

    Args:
        dim: channels C.
        heads: attention heads.
        side: length of the map's sides, in tokens.
        back: earlier blocks that are seen.
        last: whether no block comes after; none is then left anything.
        drop_path: stochastic depth of both branches.
    """

    def __init__(self, dim: int, heads: int, side: int, back: int, last: bool, drop_path: float) -> None:
        super().__init__()
        self.heads, self.side, self.back = heads, side, back
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.projection = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.zeros(heads, side * side))
        count = back * (-(-side // _SUMMARY_STRIDE)) ** 2
        self.cross_norm = nn.LayerNorm(dim) if back else None
        self.cross_scale = nn.Parameter(torch.ones(1, count, 1)) if back else None
        self.cross_bias = nn.Parameter(torch.zeros(1, heads, 1, count)) if back else None
        self.summary = None if last else nn.Conv2d(dim, dim, 7, _SUMMARY_STRIDE, 3, groups=dim, bias=False)
        self.local = ConvNormAct(dim, dim, groups=dim, activation=None)
        self.mlp_norm, self.mlp = nn.LayerNorm(dim), Mlp(dim, 4 * dim)
        self.scale1: nn.Parameter | None = nn.Parameter(torch.full((dim,), _LAYER_SCALE))
        self.scale2: nn.Parameter | None = nn.Parameter(torch.full((dim,), _LAYER_SCALE))
        self.drop_path = DropPath(drop_path)
        self.bias: Tensor | None  # gathered from the table, in the inference form
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x: Tensor, cross: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map `(B, C, H, W)` and tokens `(B, S, C)` to the same shape, and to tokens for the blocks after."""
        grid = x.shape[2], x.shape[3]
        tokens = to_tokens(x)
        tokens = tokens + self.drop_path(_scaled(self._attend(tokens, cross), self.scale1))
        plane = to_map(tokens, grid)
        left = None if self.summary is None else to_tokens(self.summary(plane))
        tokens = to_tokens(self.local(plane))
        branch = self.mlp(self.mlp_norm(self.norm2(tokens)))
        return to_map(tokens + self.drop_path(_scaled(branch, self.scale2)), grid), left

    def fold_(self) -> None:
        """Multiply the factors into the last layers, and gather the bias once and for all."""
        self.scale1 = _fold_scale(self.projection, self.scale1)
        self.scale2 = _fold_scale(self.mlp.fc2, self.scale2)
        self.bias = self._gather()

    def _attend(self, tokens: Tensor, cross: Tensor | None) -> Tensor:
        seen = self.norm1(tokens)
        if cross is not None and self.cross_norm is not None and self.cross_scale is not None:
            seen = torch.cat([seen, self.cross_norm(cross * self.cross_scale)], 1)
        dim, count = tokens.shape[2], tokens.shape[1]
        query = F.linear(seen[:, :count], self.qkv.weight[:dim], self.qkv.bias[:dim])
        key, value = F.linear(seen, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, 2)
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        bias = (self._gather() if self.bias is None else self.bias).to(heads[0].dtype)
        attended = F.scaled_dot_product_attention(*heads, attn_mask=bias)
        return self.projection(attended.transpose(1, 2).flatten(2))

    def _gather(self) -> Tensor:
        """Additive scores `(1, heads, N, N + S)`: the table has a column for each distance of rows and columns."""
        place = torch.arange(self.side, device=self.bias_table.device)
        apart = (place[:, None] - place).abs()
        index = apart[:, None, :, None] * self.side + apart[None, :, None, :]
        bias = self.bias_table[:, index.flatten(2).flatten(0, 1)][None]
        if self.cross_bias is None:
            return bias
        return torch.cat([bias, self.cross_bias.expand(-1, -1, bias.shape[2], -1)], 3)


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else scale * x


def _fold_scale(layer: nn.Linear, scale: Tensor | None) -> None:
    """Multiply a factor into the layer before it; none is left."""
    if scale is not None:
        layer.weight = nn.Parameter(layer.weight * scale[:, None], requires_grad=False)
        layer.bias = nn.Parameter(layer.bias * scale, requires_grad=False)


VARIANTS = {
    "fcaformer_l1": functools.partial(FcaFormer),
    "fcaformer_l2": functools.partial(
        FcaFormer, embed_dims=(96, 192, 320, 480), depths=(2, 2, 7, 2), num_heads=(0, 0, 10, 15)
    ),
    "fcaformer_l3": functools.partial(
        FcaFormer, embed_dims=(96, 192, 320, 512), depths=(3, 6, 12, 3), num_heads=(0, 0, 10, 16)
    ),
    "fcaformer_l4": functools.partial(
        FcaFormer, embed_dims=(128, 256, 512, 768), depths=(3, 6, 12, 3), num_heads=(0, 0, 16, 24)
    ),
}
_CONVOLUTION_PARTS: list[Rule] = [
    (r"depthwise\.", "dwconv."),
    (r"mlp\.fc(\d)\.", r"pwconv\1."),
    (r"scale", "gamma"),
]
_PARTS: list[Rule] = [
    (r"bias_table", "attention_biases"),
    (r"projection\.", "proj."),
    (r"cross_norm\.", "s_norm."),
    (r"cross_scale", "s_scale_factors"),
    (r"cross_bias", "s_token_bias"),
    (r"summary\.", "dw_conv."),
    (r"local\.convolution\.", "local_conv.c."),
    (r"local\.norm\.", "local_conv.bn."),
    (r"mlp_norm\.", "mlp.norm."),
    (r"scale(\d)", r"gamma_\1"),
]
