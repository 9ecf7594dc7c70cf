"""DRSformer: restoration by attention between channels, of which only the strongest count (arXiv 2303.11950)."""

import functools
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones import official
from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.networks.released import Released, Rule, renamed
from shared_backbones.networks.super_resolution import padded

_STRIDE = 8
_EPS = 1e-5
_STEPS, _OPERATIONS, _GATE_WIDTH = 4, 8, 64
_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))  # of a row's entries that the four copies keep
NORMS = ("WithBias", "BiasFree")


class DRSformer(Released):
    """Sparse transformer of Chen et al. that removes rain, noise or stripes, as its released code computes it.

    Which entries of a row are the strongest is discontinuous: where two are nearly equal, outputs may jump between
    precisions. An image whose sides are no multiples of 8 is padded by reflection. The network learns what is to be
    added to an image.

    Args:
        in_chans: bands in and out.
        dim: channels at full resolution.
        num_blocks: blocks of the four levels.
        heads: heads of the four levels.
        ffn_expansion_factor: hidden channels of the feed-forwards, as a multiple of the block's.
        bias: whether convolutions have one, but for the first and those that change the resolution.
        LayerNorm_type: `WithBias`, or `BiasFree`, which divides by the deviation and subtracts nothing.
        mixture: whether mixtures of convolutions (MEFC) stand at both ends; what was trained on Rain200L and SPA has
            none.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    role: ClassVar[Role] = "restorer"
    scale = 1
    grad_checkpointing = False
    released_class = "DRSformer"
    renamed_arguments: ClassVar[dict[str, str]] = {"inp_channels": "in_chans"}

    def __init__(
        self,
        in_chans: int = 3,
        *,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
        mixture: bool = True,
    ) -> None:
        super().__init__()
        if len(num_blocks) != 4 or len(heads) != 4:
            raise ValueError("num_blocks and heads must each name four levels")
        if LayerNorm_type not in NORMS:
            raise ValueError(f"LayerNorm_type {LayerNorm_type!r}: expected one of {', '.join(NORMS)}")
        widths = [dim * 2**i for i in range(4)]
        if dim % 2 or any(width % count for width, count in zip(widths, heads, strict=True)):
            raise ValueError(f"dim is {dim}, expected an even number whose multiples by 1, 2, 4, 8 their heads divide")
        self.arguments: Arguments = {
            "in_chans": in_chans,
            "dim": dim,
            "num_blocks": list(num_blocks),
            "heads": list(heads),
            "ffn_expansion_factor": ffn_expansion_factor,
            "bias": bias,
            "LayerNorm_type": LayerNorm_type,
            "mixture": mixture,
        }
        subtract = LayerNorm_type == "WithBias"

        def level(width: int, count: int, number: int) -> nn.Sequential:
            blocks = (SparseBlock(width, heads[number], ffn_expansion_factor, bias, subtract) for _ in range(count))
            return nn.Sequential(*blocks)

        self.first = nn.Conv2d(in_chans, dim, 3, 1, 1, bias=False)
        self.mix_first: nn.Module = Mixture(dim) if mixture else nn.Identity()
        self.down = nn.ModuleList(level(widths[i], num_blocks[i], i) for i in range(4))
        self.halve = nn.ModuleList(nn.Conv2d(widths[i], widths[i] // 2, 3, 1, 1, bias=False) for i in range(3))
        self.enlarge = nn.ModuleList(nn.Conv2d(widths[i], 2 * widths[i], 3, 1, 1, bias=False) for i in (3, 2, 1))
        self.reduce = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1, bias=bias) for i in (2, 1))
        self.up = nn.ModuleList(
            level(width, num_blocks[i], i) for i, width in ((2, widths[2]), (1, widths[1]), (0, widths[1]))
        )
        self.mix_last: nn.Module = Mixture(widths[1]) if mixture else nn.Identity()
        self.last = nn.Conv2d(widths[1], in_chans, 3, 1, 1, bias=bias)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; as many bands come out as go in."""
        given = super().released_arguments(variant, arguments)
        bands = given.get("in_chans", 3)
        if given.pop("out_channels", bands) != bands:
            raise ValueError(f"out_channels: expected {bands}, as many as inp_channels")
        return given

    @classmethod
    def from_official(
        cls, path_or_state_dict: official.Source, *, variant: str | None = None, **arguments: Any
    ) -> "DRSformer":
        """Build the network with weights of the released code; see `Released.from_official`.

        Both released files name their class alike; the weights say whether there are mixtures.
        """
        state = official.read_foreign(path_or_state_dict)
        arguments.setdefault("mixture", any(name.startswith("encoder_level0.") for name in state))
        return super().from_official(path_or_state_dict, variant=variant, **arguments)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return renamed(name, _OFFICIAL_NAMES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to the same shape."""
        bands = self.arguments["in_chans"]
        if x.ndim != 4 or x.shape[1] != bands:
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {bands}, H, W)")
        image = padded(x, _STRIDE)
        y = self._run(self.mix_first, self.first(image))
        kept = []
        for level, halve in zip(self.down, self.halve, strict=False):
            y = self._run(level, y)
            kept.append(y)
            y = F.pixel_unshuffle(halve(y), 2)
        y = self._run(self.down[3], y)
        for i, (level, enlarge) in enumerate(zip(self.up, self.enlarge, strict=True)):
            y = torch.cat([F.pixel_shuffle(enlarge(y), 2), kept[2 - i]], 1)
            y = self._run(level, self.reduce[i](y) if i < len(self.reduce) else y)
        y = image + self.last(self._run(self.mix_last, y))
        return y[:, :, : x.shape[2], : x.shape[3]]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of each block instead of keeping them."""
        self.grad_checkpointing = enable

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if not (self.grad_checkpointing and self.training):
            return module(x)
        for part in module if isinstance(module, nn.Sequential) else (module,):
            x = recomputed(part, x)
        return x


class SparseBlock(nn.Module):
    """Sparse attention between channels, then a feed-forward of two scales."""

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, subtract: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(dim, subtract), ChannelNorm(dim, subtract)
        self.attention = SparseAttention(dim, heads, bias)
        self.mlp = TwoScales(dim, int(dim * expansion), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel; without `subtract`, the mean stays and nothing is added."""

    def __init__(self, dim: int, subtract: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if subtract else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = x.permute(0, 2, 3, 1)
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, _EPS).permute(0, 3, 1, 2)
        deviation = torch.sqrt(x.var(3, keepdim=True, unbiased=False) + _EPS)
        return (x / deviation * self.weight).permute(0, 3, 1, 2)


class SparseAttention(nn.Module):
    """Channels attend to the most similar ones over all pixels: four shares of them, added with learned factors."""

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.depthwise = nn.Conv2d(3 * dim, 3 * dim, 3, 1, 1, groups=3 * dim, bias=bias)
        self.projection = nn.Conv2d(dim, dim, 1, bias=bias)
        self.factors = nn.ParameterList(nn.Parameter(torch.full((1,), 0.2)) for _ in _SHARES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        parts = self.depthwise(self.qkv(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = parts.unbind(1)  # (B, heads, channels, pixels)
        scores = F.normalize(query, dim=3) @ F.normalize(key, dim=3).transpose(2, 3) * self.temperature
        rank = scores.argsort(3, descending=True).argsort(3)
        weights = torch.zeros_like(scores)
        for factor, (part, whole) in zip(self.factors, _SHARES, strict=True):
            count = int(scores.shape[3] * part / whole)
            weights = weights + factor * scores.masked_fill(rank >= count, float("-inf")).softmax(3)
        return self.projection((weights @ value).flatten(1, 2).unflatten(2, x.shape[2:]))


class TwoScales(nn.Module):
    """Feed-forward whose hidden maps are convolved at 3 and at 5 pixels, twice, exchanging halves between."""

    def __init__(self, dim: int, hidden: int, bias: bool) -> None:
        super().__init__()
        both = 2 * hidden
        self.expand, self.contract = nn.Conv2d(dim, both, 1, bias=bias), nn.Conv2d(both, dim, 1, bias=bias)
        self.small = nn.Conv2d(both, both, 3, 1, 1, groups=both, bias=bias)
        self.large = nn.Conv2d(both, both, 5, 1, 2, groups=both, bias=bias)
        self.small_again = nn.Conv2d(both, hidden, 3, 1, 1, groups=hidden, bias=bias)
        self.large_again = nn.Conv2d(both, hidden, 5, 1, 2, groups=hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = self.expand(x)
        small, large = F.relu(self.small(x)).chunk(2, 1), F.relu(self.large(x)).chunk(2, 1)
        first = F.relu(self.small_again(torch.cat([small[0], large[0]], 1)))
        second = F.relu(self.large_again(torch.cat([small[1], large[1]], 1)))
        return self.contract(torch.cat([first, second], 1))


class Mixture(nn.Module):
    """Four steps of eight operations each, weighed by what the mean of the map says (MEFC)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(dim, _GATE_WIDTH), nn.ReLU(), nn.Linear(_GATE_WIDTH, _STEPS * _OPERATIONS))
        self.enter = nn.Conv2d(dim, dim, 1, bias=False)
        self.steps = nn.ModuleList(MixtureStep(dim) for _ in range(_STEPS))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        weights = self.weigh(x.mean((2, 3))).unflatten(1, (_STEPS, _OPERATIONS)).softmax(2)
        x = F.relu(self.enter(x))
        for i, step in enumerate(self.steps):
            x = F.relu(x + step(x, weights[:, i]))
        return x


class MixtureStep(nn.Module):
    """Separable convolutions of 1, 3, 5 and 7 pixels, dilated ones of 3, 5 and 7, and the mean of 3 x 3 pixels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList()
        for kernel in (1, 3, 5, 7):
            self.operations.append(nn.Sequential(*_separable(dim, kernel), nn.ReLU(), *_separable(dim, kernel)))
        for kernel in (3, 5, 7):
            self.operations.append(nn.Sequential(*_separable(dim, kernel, 2)))
        self.operations.append(nn.AvgPool2d(3, 1, 1, count_include_pad=False))
        self.leave = nn.Conv2d(_OPERATIONS * dim, dim, 1, bias=False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape, with `(B, 8)` weights of the operations."""
        results = [operation(x) * weights[:, i, None, None, None] for i, operation in enumerate(self.operations)]
        return F.relu(self.leave(torch.cat(results, 1)))


def _separable(dim: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    return [
        nn.Conv2d(dim, dim, kernel, 1, padding, dilation, groups=dim, bias=False),
        nn.Conv2d(dim, dim, 1, bias=False),
    ]


VARIANTS = {"drsformer": functools.partial(DRSformer)}
_PARTS: list[Rule] = [
    (r"(norm\d)\.", r"\1.body."),
    (r"attention\.depthwise\.", "attn.qkv_dwconv."),
    (r"attention\.projection\.", "attn.project_out."),
    (r"attention\.factors\.(\d)", lambda match: f"attn.attn{int(match[1]) + 1}"),
    (r"attention\.", "attn."),
    (r"mlp\.expand\.", "ffn.project_in."),
    (r"mlp\.contract\.", "ffn.project_out."),
    (r"mlp\.small\.", "ffn.dwconv3x3."),
    (r"mlp\.large\.", "ffn.dwconv5x5."),
    (r"mlp\.small_again\.", "ffn.dwconv3x3_1."),
    (r"mlp\.large_again\.", "ffn.dwconv5x5_1."),
]
_LEVELS = {"down": ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]}
_LEVELS["up"] = ["decoder_level3", "decoder_level2", "decoder_level1"]
_MIXTURES = {"first": "encoder_level0", "last": "refinement"}


def _level(match: re.Match[str]) -> str:
    return f"{_LEVELS[match[1]][int(match[2])]}.{match[3]}.{renamed(match[4], _PARTS)}"


_OFFICIAL_NAMES: list[Rule] = [
    (r"first\.", "patch_embed.proj."),
    (r"last\.", "output."),
    (r"(down|up)\.(\d)\.(\d+)\.(.*)$", _level),
    (r"halve\.(\d)\.", lambda match: f"down{int(match[1]) + 1}_{int(match[1]) + 2}.body.0."),
    (r"enlarge\.(\d)\.", lambda match: f"up{4 - int(match[1])}_{3 - int(match[1])}.body.0."),
    (r"reduce\.(\d)\.", lambda match: f"reduce_chan_level{3 - int(match[1])}."),
    (r"mix_(\w+)\.weigh\.", lambda match: f"{_MIXTURES[match[1]]}.layers.0.ca_fc."),
    (r"mix_(\w+)\.enter\.", lambda match: f"{_MIXTURES[match[1]]}.layers.1.preprocess.op.0."),
    (
        r"mix_(\w+)\.steps\.(\d)\.operations\.(\d)\.(\d)\.",
        lambda match: f"{_MIXTURES[match[1]]}.layers.1._ops.{match[2]}._ops.{match[3]}.op.{match[4]}.",
    ),
    (r"mix_(\w+)\.steps\.(\d)\.leave\.", lambda match: f"{_MIXTURES[match[1]]}.layers.1._ops.{match[2]}._out.0."),
]
