"""SMT: stages of scale-aware modulation, then of attention (arXiv 2307.08579)."""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention_dropout import attend
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.transformer import DropPath
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.stages import MapNorm, Stage, StageClassifier, initialise_maps, with_axes
from shared_backbones.networks.tokens import drop_path_rates

_EPS = 1e-6
_ENTRY_EPS = 1e-5


class SMT(Released, StageClassifier):
    """Scale-aware modulation transformer of Lin et al., as its released code computes it.

    The first two stages modulate, the last attends, and the third takes turns, beginning with modulation. Attention is
    over the whole map: the memory of the third stage grows with the fourth power of an image's side. Images may have
    any size of 32 pixels or more.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels; the released code has 3.
        embed_dims: channels of the four stages.
        depths: blocks of the four stages.
        ca_num_heads: groups of kernels of each stage's modulations; -1 where there are none.
        sa_num_heads: heads of each stage's attentions; -1 where there are none.
        ca_attentions: 1 for each stage that modulates, 0 for one that attends.
        mlp_ratios: hidden channels of each stage's feed-forwards, as multiples of its own.
        qkv_bias: whether values, scales and queries have a bias.
        head_conv: side of the first convolution, 3 or 7.
        expand_ratio: channels inside the modulator, as a multiple of the stage's.
        use_layerscale: whether each branch has a learned factor for each channel.
        layerscale_value: what those begin with.
        drop_rate: share of values dropped after projections and in feed-forwards.
        attn_drop_rate: share of attention weights dropped while training.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "SMT"
    released_nothing = frozenset({"img_size"})

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        embed_dims: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 8, 1),
        ca_num_heads: Sequence[int] = (4, 4, 4, -1),
        sa_num_heads: Sequence[int] = (-1, -1, 8, 16),
        ca_attentions: Sequence[int] = (1, 1, 1, 0),
        mlp_ratios: Sequence[float] = (8, 6, 4, 2),
        qkv_bias: bool = False,
        head_conv: int = 3,
        expand_ratio: int = 2,
        use_layerscale: bool = False,
        layerscale_value: float = 1e-4,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        rows = (embed_dims, depths, ca_num_heads, sa_num_heads, ca_attentions, mlp_ratios)
        if any(len(row) != 4 for row in rows):
            raise ValueError("embed_dims, depths, heads, ca_attentions and mlp_ratios must each name four stages")
        super().__init__(num_classes, in_chans, embed_dims, (4, 8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "embed_dims": list(embed_dims),
            "depths": list(depths),
            "ca_num_heads": list(ca_num_heads),
            "sa_num_heads": list(sa_num_heads),
            "ca_attentions": list(ca_attentions),
            "mlp_ratios": list(mlp_ratios),
            "qkv_bias": qkv_bias,
            "head_conv": head_conv,
            "expand_ratio": expand_ratio,
            "use_layerscale": use_layerscale,
            "layerscale_value": layerscale_value,
            "drop_rate": drop_rate,
            "attn_drop_rate": attn_drop_rate,
            "drop_path_rate": drop_path_rate,
        }
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        before = in_chans
        for i, width in enumerate(embed_dims):
            enter: list[nn.Module] = [nn.Conv2d(before, width, 3, 2, 1)]
            if i == 0:
                enter = [ConvNormAct(before, width, head_conv, stride=2), nn.Conv2d(width, width, 2, 2)]
            blocks = []
            for j in range(depths[i]):
                if ca_attentions[i] and not (i == 2 and j % 2):
                    _check_heads(width, ca_num_heads[i], "ca_num_heads", i)
                    mixer: nn.Module = Modulation(width, ca_num_heads[i], qkv_bias, expand_ratio, drop_rate)
                else:
                    _check_heads(width, sa_num_heads[i], "sa_num_heads", i)
                    mixer = Attention(width, sa_num_heads[i], qkv_bias, attn_drop_rate, drop_rate)
                scale = layerscale_value if use_layerscale else None
                blocks.append(Block(width, mixer, mlp_ratios[i], scale, drop_rate, next(rates)))
            self.stages.append(Stage(*enter, MapNorm(width, _ENTRY_EPS), *blocks, MapNorm(width, _EPS)))
            before = width
        self.head = linear_classifier(embed_dims[-1], num_classes)
        self.apply(initialise_maps)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return _official_name(name, self)

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What is a 1x1 convolution or a factor of a map here is a linear layer or a factor of tokens there."""
        return {name: functools.partial(with_axes, ndim=tensor.ndim) for name, tensor in self.state_dict().items()}

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)


def _check_heads(width: int, heads: int, name: str, stage: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(f"{name} of stage {stage} is {heads}, expected a divisor of its {width} channels")


class Block(nn.Module):
    """A mixer of pixels, then a feed-forward; each branch is normed first."""

    def __init__(
        self, dim: int, mixer: nn.Module, mlp_ratio: float, scale: float | None, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = MapNorm(dim, _EPS)
        self.mixer = mixer
        self.norm2 = MapNorm(dim, _EPS)
        self.feed_forward = FeedForward(dim, int(dim * mlp_ratio), dropout)
        self.scale1 = None if scale is None else nn.Parameter(torch.full((dim, 1, 1), scale))
        self.scale2 = None if scale is None else nn.Parameter(torch.full((dim, 1, 1), scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        branch = self.mixer(self.norm1(x))
        x = x + self.drop_path(branch if self.scale1 is None else branch * self.scale1)
        branch = self.feed_forward(self.norm2(x))
        return x + self.drop_path(branch if self.scale2 is None else branch * self.scale2)


class Modulation(nn.Module):
    """Scale-aware modulation (section 3.1): values times what depthwise convolutions of several sizes see.

    The kernels' channels are brought together one of each at a time, so that the grouped convolution that follows sees
    every scale in each of its groups.
    """

    def __init__(self, dim: int, heads: int, bias: bool, expand_ratio: int, dropout: float) -> None:
        super().__init__()
        self.dropout, width = dropout, dim // heads
        self.value = nn.Conv2d(dim, dim, 1, bias=bias)
        self.scale = nn.Conv2d(dim, dim, 1, bias=bias)
        self.kernels = nn.ModuleList(
            nn.Conv2d(width, width, 3 + 2 * i, padding=1 + i, groups=width) for i in range(heads)
        )
        self.expand = ConvNormAct(dim, dim * expand_ratio, 1, groups=width, bias=True, activation=F.gelu)
        self.contract = nn.Conv2d(dim * expand_ratio, dim, 1)
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        parts = self.scale(x).chunk(len(self.kernels), 1)
        seen = torch.stack([kernel(part) for kernel, part in zip(self.kernels, parts, strict=True)], 2)
        x = self.contract(self.expand(seen.flatten(1, 2))) * self.value(x)
        return F.dropout(self.project(x), self.dropout, self.training)


class Attention(nn.Module):
    """Self-attention over the whole map, to which a depthwise convolution of the values is added."""

    def __init__(self, dim: int, heads: int, bias: bool, attention_dropout: float, dropout: float) -> None:
        super().__init__()
        self.heads, self.attention_dropout, self.dropout = heads, attention_dropout, dropout
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key_value = nn.Linear(dim, 2 * dim, bias=bias)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        size = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        key, value = self.key_value(tokens).chunk(2, 2)
        rate = self.attention_dropout if self.training else 0.0
        parts = (self.query(tokens), key, value)
        query, key, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = attend(query, key, values, rate).transpose(1, 2).flatten(2)
        near = self.local(value.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        x = F.dropout(self.project(attended + near), self.dropout, self.training)
        return x.transpose(1, 2).unflatten(2, size)


class FeedForward(nn.Module):
    """Two layers at each pixel, with a depthwise convolution added before the activation between them."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Conv2d(hidden, dim, 1)
        self.dropout = dropout
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = self.expand(x)
        near = self.depthwise(x)
        x = F.dropout(F.gelu(near if self.folded else x + near), self.dropout, self.training)
        return F.dropout(self.contract(x), self.dropout, self.training)

    def fold_(self) -> None:
        """Let the convolution add its own input: one more in the middle of each kernel."""
        if not self.folded:
            weight = self.depthwise.weight.clone()
            weight[:, :, 1, 1] += 1
            self.depthwise.weight = nn.Parameter(weight, requires_grad=False)
            self.folded = True


_SMALL: Arguments = {"embed_dims": (64, 128, 256, 512), "qkv_bias": True}
_LARGE: Arguments = {"embed_dims": (96, 192, 384, 768), "qkv_bias": True, "head_conv": 7}
VARIANTS = {
    "smt_t": functools.partial(SMT, **_SMALL, depths=(2, 2, 8, 1), mlp_ratios=(4, 4, 4, 2)),
    "smt_s": functools.partial(SMT, **_SMALL, depths=(3, 4, 18, 2), mlp_ratios=(4, 4, 4, 2)),
    "smt_b": functools.partial(SMT, **{**_SMALL, "head_conv": 7}, depths=(4, 6, 28, 2), mlp_ratios=(8, 6, 4, 2)),
    "smt_l": functools.partial(SMT, **_LARGE, depths=(4, 6, 28, 4), mlp_ratios=(8, 6, 4, 2)),
}
_PARTS = [
    (r"mixer\.value\.", "attn.v."),
    (r"mixer\.scale\.", "attn.s."),
    (r"mixer\.kernels\.(\d+)\.", lambda match: f"attn.local_conv_{int(match[1]) + 1}."),
    (r"mixer\.expand\.convolution\.", "attn.proj0."),
    (r"mixer\.expand\.norm\.", "attn.bn."),
    (r"mixer\.contract\.", "attn.proj1."),
    (r"mixer\.project\.", "attn.proj."),
    (r"mixer\.query\.", "attn.q."),
    (r"mixer\.key_value\.", "attn.kv."),
    (r"mixer\.local\.", "attn.local_conv."),
    (r"feed_forward\.expand\.", "mlp.fc1."),
    (r"feed_forward\.depthwise\.", "mlp.dwconv.dwconv."),
    (r"feed_forward\.contract\.", "mlp.fc2."),
    (r"scale([12])", r"gamma_\1"),
]


def _official_name(name: str, model: SMT) -> str:
    """The released name of an entry."""
    if not name.startswith("stages."):
        return name
    _, stage, part, rest = name.split(".", 3)
    number, index = int(stage) + 1, int(part)
    first = 3 if number == 1 else 2  # of the blocks
    if index == first + model.arguments["depths"][number - 1]:
        return f"norm{number}.{rest}"
    if index >= first:
        return f"block{number}.{index - first}.{renamed(rest, _PARTS)}"
    if index == first - 1:
        return f"patch_embed{number}.norm.{rest}"
    if number > 1:
        return f"patch_embed{number}.proj.{rest}"
    if index == 1:
        return f"patch_embed1.conv.3.{rest}"
    return f"patch_embed1.conv.{renamed(rest, [(r'convolution', '0'), ('norm', '1')])}"
