"""SpectFormer: filters of the spectrum first, attention after (arXiv 2304.06446); written from the paper and notes."""

import functools
from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones import official
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.spectral import filter_spectrum
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.stages import MapNorm, Stage, StageClassifier, initialise_maps, with_axes
from shared_backbones.networks.tokens import (
    drop_path_rates,
    to_map,
    to_tokens,
)

_ENTRY_EPS, _EPS = 1e-5, 1e-6
_SPECTRAL_STAGES = 2
PLAIN = "SpectFormer (vanilla)"


class SpectFormer(Released, StageClassifier):
    """Hierarchical SpectFormer of Patro et al., as its released code computes it.

    Two stages filter the spectrum of their map, two attend. The released code takes images of 224 pixels alone, for
    which its tables are made; here tables that do not fit a map are resampled, as HorNet does it. No weights come with
    the suite: the released code has no licence.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        img_size: side of the images that tables of the spectrum are made for.
        embed_dims: channels of the four stages.
        depths: blocks of the four stages.
        num_heads: heads of the four stages; the first two have no use for theirs.
        mlp_ratios: hidden channels of each stage's feed-forwards, as multiples of its own.
        stem_hidden_dim: channels of the first convolutions.
        token_label: whether half of the largest logits of single tokens, by a head of their own, are added.
        norm_eps: constant of the norms but for those that make tokens.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "SpectFormer"
    released_nothing = frozenset({"sr_ratios", "num_stages"})

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        img_size: int = 224,
        embed_dims: Sequence[int] = (64, 128, 320, 448),
        depths: Sequence[int] = (3, 4, 6, 3),
        num_heads: Sequence[int] = (2, 4, 10, 14),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        stem_hidden_dim: int = 32,
        token_label: bool = True,
        norm_eps: float = _EPS,
        drop_path_rate: float = 0.0,
    ) -> None:
        if any(len(row) != 4 for row in (embed_dims, depths, num_heads, mlp_ratios)):
            raise ValueError("embed_dims, depths, num_heads and mlp_ratios must each name four stages")
        for width, heads in list(zip(embed_dims, num_heads, strict=True))[_SPECTRAL_STAGES:]:
            if width % heads:
                raise ValueError(f"embed_dims has {width}, expected a multiple of its {heads} heads")
        super().__init__(num_classes, in_chans, embed_dims, (4, 8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": img_size,
            "embed_dims": list(embed_dims),
            "depths": list(depths),
            "num_heads": list(num_heads),
            "mlp_ratios": list(mlp_ratios),
            "stem_hidden_dim": stem_hidden_dim,
            "token_label": token_label,
            "norm_eps": norm_eps,
            "drop_path_rate": drop_path_rate,
        }
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        before = in_chans
        for i, width in enumerate(embed_dims):
            enter: list[nn.Module] = [nn.Conv2d(before, width, 3, 2, 1)]
            if i == 0:
                hidden = stem_hidden_dim
                enter = [ConvNormAct(before, hidden, 7, stride=2), ConvNormAct(hidden, hidden)]
                enter += [ConvNormAct(hidden, hidden), nn.Conv2d(hidden, width, 3, 2, 1)]
            side = img_size // (4 * 2**i)
            blocks = []
            for _ in range(depths[i]):
                mixer = SpectralGate(width, (side, side)) if i < _SPECTRAL_STAGES else MapAttention(width, num_heads[i])
                blocks.append(MapBlock(width, mixer, mlp_ratios[i], norm_eps, next(rates)))
            leave = [MapNorm(width, norm_eps)] if i < len(embed_dims) - 1 else []
            self.stages.append(Stage(*enter, MapNorm(width, _ENTRY_EPS), *blocks, *leave))
            before = width
        self.class_block = ClassBlock(before, num_heads[-1], mlp_ratios[-1], norm_eps)
        self.norm = nn.LayerNorm(before, norm_eps)
        self.head = linear_classifier(before, num_classes)
        self.token_head = linear_classifier(before, num_classes) if token_label else None
        self.apply(initialise_maps)

    @classmethod
    def from_official(
        cls, path_or_state_dict: official.Source, *, variant: str | None = None, **arguments: object
    ) -> Self:
        """Build the network with weights of the released code; see `Released.from_official`.

        The variant `SpectFormer (vanilla)` is the network without stages, a `PlainSpectFormer`.
        """
        if variant == PLAIN:
            from shared_backbones.networks.spectformer_plain import PlainSpectFormer

            return PlainSpectFormer.from_official(path_or_state_dict, **arguments)  # type: ignore[return-value]
        return super().from_official(path_or_state_dict, variant=variant, **arguments)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; the released class has another constant of norms than its sizes."""
        own = {"norm_eps": _ENTRY_EPS} if variant == cls.released_class else {}
        return {**own, **super().released_arguments(variant, arguments)}

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        return _official_name(name, self.arguments["depths"])

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What is a 1x1 convolution of a map here is a linear layer of tokens there."""
        return {name: functools.partial(_of_map, ndim=tensor.ndim) for name, tensor in self.state_dict().items()}

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        tokens = to_tokens(x)
        first = self.norm(self.class_block(tokens))
        if pre_logits:
            return first
        logits = self.head(first)
        if self.token_head is None:
            return logits
        return logits + 0.5 * self.token_head(self.norm(tokens)).amax(1)


class MapBlock(nn.Module):
    """A filter of the spectrum or an attention over a map, then a feed-forward with a depthwise convolution."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_ratio: float, eps: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = MapNorm(dim, eps)
        self.mixer = mixer
        self.norm2 = MapNorm(dim, eps)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Conv2d(hidden, dim, 1)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.contract(F.gelu(self.depthwise(self.expand(self.norm2(x))))))


class SpectralGate(nn.Module):
    """Multiply the spectrum of a map by a learned table.

    Args:
        dim: channels of the map.
        grid: rows and columns of the map that the table is made for.
    """

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2, dim, grid[0], grid[1] // 2 + 1) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return filter_spectrum(x, self.table)


class MapAttention(nn.Module):
    """Self-attention over a whole map."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        tokens = to_tokens(x)
        parts = (self.query(tokens), *self.key_value(tokens).chunk(2, 2))
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return to_map(self.project(attended), (x.shape[2], x.shape[3]))


class ClassBlock(nn.Module):
    """The mean token attends to itself and all tokens, and goes through a feed-forward."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `(B, N, C)` to `(B, C)`."""
        first = x.mean(1, keepdim=True)
        tokens = self.norm1(torch.cat([first, x], 1))
        parts = (self.query(tokens[:, :1]), *self.key_value(tokens).chunk(2, 2))
        heads = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        first = first + self.project(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return (first + self.mlp(self.norm2(first)))[:, 0]


def channels_first(table: Tensor) -> Tensor:
    """A released table `(h, w, C, 2)` as `(2, C, h, w)`."""
    return table.permute(3, 2, 0, 1)


def _of_map(tensor: Tensor, ndim: int) -> Tensor:
    """A tensor with axes of one added at its end; tables of the spectrum have another order."""
    if tensor.ndim == 4 and tensor.shape[3] == 2:
        return channels_first(tensor)
    return with_axes(tensor, ndim)


VARIANTS = {
    "spectformer_s": functools.partial(SpectFormer),
    "spectformer_b": functools.partial(
        SpectFormer, embed_dims=(64, 128, 320, 512), depths=(3, 4, 12, 3), num_heads=(2, 4, 10, 16), stem_hidden_dim=64
    ),
    "spectformer_l": functools.partial(
        SpectFormer, embed_dims=(96, 192, 384, 512), depths=(3, 6, 18, 3), num_heads=(3, 6, 12, 16), stem_hidden_dim=64
    ),
}
_PARTS = [
    (r"mixer\.table", "attn.complex_weight"),
    (r"mixer\.query\.", "attn.q."),
    (r"mixer\.key_value\.", "attn.kv."),
    (r"mixer\.project\.", "attn.proj."),
    (r"expand\.", "mlp.fc1."),
    (r"depthwise\.", "mlp.dwconv.dwconv."),
    (r"contract\.", "mlp.fc2."),
    (r"query\.", "attn.q."),
    (r"key_value\.", "attn.kv."),
    (r"project\.", "attn.proj."),
]


def _official_name(name: str, depths: Sequence[int]) -> str:
    """The released name of an entry."""
    if name.startswith("class_block."):
        return f"post_network.0.{renamed(name.removeprefix('class_block.'), _PARTS)}"
    if not name.startswith("stages."):
        return renamed(name, [(r"token_head\.", "aux_head."), (r"norm\.", "norm4.")])
    _, stage, part, rest = name.split(".", 3)
    number, index = int(stage) + 1, int(part)
    first = 5 if number == 1 else 2  # of the blocks
    if index == first + depths[number - 1]:
        return f"norm{number}.{rest}"
    if index >= first:
        return f"block{number}.{index - first}.{renamed(rest, _PARTS)}"
    if index == first - 1:
        return f"patch_embed{number}.norm.{rest}"
    if index == first - 2:
        return f"patch_embed{number}.proj.{rest}"
    unit, entry = rest.split(".", 1)
    return f"patch_embed1.conv.{3 * index + (unit == 'norm')}.{entry}"
