"""CrossFormer and CrossFormer++: attention at short and at long distance in turns (arXiv 2108.00154, 2303.06908)."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import kept_table, relative_position_index
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.stages import MapNorm, Stage, StageClassifier
from shared_backbones.networks.tokens import drop_path_rates, initialise_linear

_EPS = 1e-5
_STRIDE = 32
_FOREIGN = -1e6  # added to the scores of keys beyond the map
_STAGES = 4


class CrossFormer(Released, StageClassifier):
    """CrossFormer of Wang et al., as its released code computes it.

    The released code takes square images of the one size it is built for, a multiple of 32. Here an image may have any
    size; it is padded with zeros at the right and below to multiples of 32.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: blocks of the four stages.
        num_heads: heads of the four stages.
        patch_size: sides of the first convolutions, all of stride 4, whose results are put together.
        merge_size: sides of the convolutions between two stages, all of stride 2.
        group_size: side of the groups of each stage.
        crs_interval: distance of the tokens of a group at long distance, for each stage.
        mlp_ratio: hidden channels of each stage's feed-forwards, as a multiple of its own.
        use_acl: whether a depthwise convolution and a norm follow every third block, as in CrossFormer++.
        qkv_bias: whether queries, keys and values have a bias.
        drop_rate: share of values dropped after the tokens are made, after projections and in feed-forwards.
        attn_drop_rate: share of attention weights dropped while training.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "CrossFormer"
    released_nothing = frozenset({"img_size"})

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        patch_size: Sequence[int] = (4, 8, 16, 32),
        merge_size: Sequence[Sequence[int]] = ((2, 4), (2, 4), (2, 4)),
        group_size: Sequence[int] = (7, 7, 7, 7),
        crs_interval: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: Sequence[float] = (4.0, 4.0, 4.0, 4.0),
        use_acl: bool = False,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        rows = (depths, num_heads, group_size, crs_interval, mlp_ratio)
        if any(len(row) != _STAGES for row in rows) or len(merge_size) != _STAGES - 1:
            raise ValueError("depths, heads, groups, intervals and ratios must name four stages, merge_size three")
        widths = [embed_dim * 2**i for i in range(_STAGES)]
        for width, heads in zip(widths, num_heads, strict=True):
            if width % heads or width % 16:
                raise ValueError(f"a stage of {width} channels: expected a multiple of 16 and of its {heads} heads")
        super().__init__(num_classes, in_chans, widths, (4, 8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "num_heads": list(num_heads),
            "patch_size": list(patch_size),
            "merge_size": [list(sides) for sides in merge_size],
            "group_size": list(group_size),
            "crs_interval": list(crs_interval),
            "mlp_ratio": list(mlp_ratio),
            "use_acl": use_acl,
            "qkv_bias": qkv_bias,
            "drop_rate": drop_rate,
            "attn_drop_rate": attn_drop_rate,
            "drop_path_rate": drop_path_rate,
        }
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        for i, width in enumerate(widths):
            if i == 0:
                scales = CrossScale(in_chans, width, patch_size, 4)
                enter: list[nn.Module] = [scales, MapNorm(width, _EPS), nn.Dropout(drop_rate)]
            else:
                before = widths[i - 1]
                enter = [MapNorm(before, _EPS), CrossScale(before, width, merge_size[i - 1], 2)]
            blocks = []
            for j in range(depths[i]):
                attention = GroupAttention(
                    width, num_heads[i], group_size[i], crs_interval[i] if j % 2 else None, qkv_bias, attn_drop_rate
                )
                cooled = use_acl and (j + 1) % 3 == 0 and j < depths[i] - 1
                blocks.append(Block(width, attention, mlp_ratio[i], drop_rate, next(rates), cooled))
            self.stages.append(Stage(*enter, *blocks))
        self.norm = MapNorm(widths[-1], _EPS)
        self.head = linear_classifier(widths[-1], num_classes)
        self.apply(initialise_linear)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return _official_name(name)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; the only `group_type` is `constant`."""
        given = super().released_arguments(variant, arguments)
        kind = given.pop("group_type", "constant")
        if kind != "constant":
            raise ValueError(f"group_type {kind!r}: expected 'constant', as in all released networks")
        return given

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        x = self.norm(x).mean((2, 3))
        return x if pre_logits else self.head(x)

    def _levels(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        below, right = -x.shape[-2] % _STRIDE, -x.shape[-1] % _STRIDE
        return super()._levels(F.pad(x, (0, right, 0, below)) if below or right else x, count)


class CrossScale(nn.Module):
    """Convolutions of several sides around the same places, whose channels are put together.

    Each gets half the channels of the one before, the last as many as the last but one.
    """

    def __init__(self, in_channels: int, channels: int, sides: Sequence[int], stride: int) -> None:
        super().__init__()
        last = len(sides) - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels, channels // 2 ** min(i + 1, last), side, stride, (side - stride) // 2)
            for i, side in enumerate(sides)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, channels, H / stride, W / stride)`."""
        return torch.cat([convolution(x) for convolution in self.convolutions], 1)


class Block(nn.Module):
    """Attention within groups, then a feed-forward; in CrossFormer++ at times a convolution and a norm of the sum."""

    def __init__(
        self, dim: int, attention: "GroupAttention", mlp_ratio: float, dropout: float, drop_path: float, cooled: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dropout=dropout)
        self.dropout = dropout
        self.drop_path = DropPath(drop_path)
        self.cool = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if cooled else None
        self.cool_norm = MapNorm(dim, _EPS) if cooled else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(F.dropout(self.attention(self.norm1(x)), self.dropout, self.training))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        x = x.permute(0, 3, 1, 2)
        return x if self.cool is None or self.cool_norm is None else self.cool_norm(self.cool(x))


class GroupAttention(nn.Module):
    """Self-attention within square groups of near tokens, or of tokens at a distance, with biases made of offsets.

    A map no larger than a group, along its smaller side, has groups of that side, of near tokens. Another is padded
    with zeros; what lies beyond it hardly counts. Biases come from a small network over the offset of two tokens.

    Args:
        dim: channels C of the map.
        num_heads: attention heads.
        group: side of a group.
        interval: distance of the tokens of a group; None for neighbours.
        bias: whether queries, keys and values have a bias.
        dropout: share of attention weights dropped while training.
    """

    def __init__(self, dim: int, num_heads: int, group: int, interval: int | None, bias: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.group, self.interval, self.dropout = num_heads, group, interval, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.projection = nn.Linear(dim, dim)
        width = dim // 16
        layers: list[nn.Module] = [nn.Linear(2, width)]
        for outputs in (width, width, num_heads):
            layers += [nn.LayerNorm(width, _EPS), nn.ReLU(inplace=True), nn.Linear(width, outputs)]
        self.bias = nn.Sequential(*layers)
        self.bias_cache: dict[tuple[int, torch.dtype, torch.device], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, H, W, C)` to the same shape."""
        height, width = x.shape[1:3]
        group, step = self.group, self.interval or 1
        if min(height, width) <= group:
            group, step = min(height, width), 1
        below, right = -height % (group * step), -width % (group * step)
        x = F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x
        rows, columns = x.shape[1] // (group * step), x.shape[2] // (group * step)
        # (B, rows, group, step, columns, group, step, C): a group has all tokens of equal rest
        x = x.unflatten(2, (columns, group, step)).unflatten(1, (rows, group, step))
        x = x.permute(0, 1, 4, 3, 6, 2, 5, 7)
        shape = x.shape
        qkv = self.qkv(x.reshape(shape[0], -1, group * group, shape[-1]))  # (B, groups, tokens, 3C)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self._bias(group, qkv)
        if below or right:
            mask = foreign_keys(height, width, below, right, group, step)
            bias = (bias + mask.to(qkv)[:, None, None]).flatten(0, 1)
        # groups join the axis along which the bias repeats, so that it is never copied
        query, key, value = qkv.flatten(2, 3) if below or right else qkv.flatten(1, 2)
        rate = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None], dropout_p=rate)
        x = x.view(shape[0], -1, self.num_heads, *x.shape[2:]).transpose(2, 3).flatten(3)
        x = self.projection(x).view(shape)
        x = x.permute(0, 1, 5, 3, 2, 6, 4, 7).flatten(4, 6).flatten(1, 3)
        return x[:, :height, :width] if below or right else x

    def fold_(self) -> None:
        """Keep the biases of each size of a group met from now on."""
        self.bias_cache = {}

    def _bias(self, group: int, like: Tensor) -> Tensor:
        """Additive scores `(heads, N, N)` of a group."""
        key = (group, like.dtype, like.device)
        cache = None if torch.compiler.is_compiling() else self.bias_cache  # a traced tensor ends with its graph
        if cache is not None and key in cache:
            return cache[key]
        offsets = torch.arange(1 - group, group, device=like.device)
        places = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), 2).flatten(0, 1)
        table = self.bias(places.to(self.qkv.weight.dtype))
        index = relative_position_index((group, group), (group, group), like.device)
        bias = table[index].view(group * group, group * group, -1).permute(2, 0, 1).to(like.dtype).contiguous()
        if cache is not None:
            cache[key] = bias
        return bias


@kept_table
def foreign_keys(height: int, width: int, below: int, right: int, group: int, step: int) -> Tensor:
    """What is added to the scores of the keys of each group, `(groups, tokens)`: much less for what was padded."""
    plane = torch.full((height + below, width + right), _FOREIGN)
    plane[:height, :width] = 0
    rows, columns = plane.shape[0] // (group * step), plane.shape[1] // (group * step)
    plane = plane.view(rows, group, step, columns, group, step).permute(0, 3, 2, 5, 1, 4)
    return plane.reshape(-1, group * group)


def _size(embed_dim: int, *depths: int, plus: bool = False) -> "functools.partial[CrossFormer]":
    groups: Arguments = {"group_size": (4, 4, 14, 7), "crs_interval": (4, 2, 1, 1), "use_acl": True} if plus else {}
    heads = [embed_dim // 32 * 2**i for i in range(_STAGES)]
    return functools.partial(CrossFormer, embed_dim=embed_dim, depths=depths, num_heads=heads, **groups)


VARIANTS = {
    "crossformer_tiny": _size(64, 1, 1, 8, 6),
    "crossformer_small": _size(96, 2, 2, 6, 2),
    "crossformer_base": _size(96, 2, 2, 18, 2),
    "crossformer_large": _size(128, 2, 2, 18, 2),
    "crossformer_pp_small": _size(64, 2, 2, 18, 2, plus=True),
    "crossformer_pp_base": _size(96, 2, 2, 18, 2, plus=True),
    "crossformer_pp_large": _size(128, 2, 2, 18, 2, plus=True),
    "crossformer_pp_huge": _size(128, 6, 6, 18, 2, plus=True),
}
_PARTS = [
    (r"attention\.bias\.0\.", "attn.pos.pos_proj."),
    (r"attention\.bias\.(\d+)\.", lambda match: _position(int(match[1]))),
    (r"attention\.projection\.", "attn.proj."),
    (r"attention\.", "attn."),
    (r"cool\.", "ex_conv."),
    (r"cool_norm\.", "ex_ln."),
]


def _position(index: int) -> str:
    """A layer of the network of biases."""
    number, place = divmod(index - 1, 3)
    return f"attn.pos.pos{number + 1}.{place}."


def _official_name(name: str) -> str:
    """The released name of an entry."""
    if not name.startswith("stages."):
        return name
    _, stage, part, rest = name.split(".", 3)
    first = 3 if stage == "0" else 2  # of the blocks
    if int(part) >= first:
        return f"layers.{stage}.blocks.{int(part) - first}.{renamed(rest, _PARTS)}"
    if stage == "0":
        return (
            f"patch_embed.{renamed(rest, [(r'convolutions', 'projs')])}" if part == "0" else f"patch_embed.norm.{rest}"
        )
    before = f"layers.{int(stage) - 1}.downsample"
    return f"{before}.norm.{rest}" if part == "0" else f"{before}.{renamed(rest, [(r'convolutions', 'reductions')])}"
