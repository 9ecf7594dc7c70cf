"""SpectFormer without stages (arXiv 2304.06446); written from the paper and notes."""

import functools
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import SelfAttention
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.released import Released, renamed
from shared_backbones.networks.spectformer import PLAIN, SpectralGate, channels_first
from shared_backbones.networks.stages import initialise_maps
from shared_backbones.networks.tokens import TokenClassifier, check_images, drop_path_rates, to_map, to_tokens

_EPS = 1e-6
_SPECTRAL_BLOCKS, _PLAIN_HEADS = 4, 6


class PlainSpectFormer(Released, TokenClassifier):
    """SpectFormer without stages: a vision transformer whose first four blocks filter the spectrum of the grid.

    As released, every attention has six heads. A table that does not fit a grid is resampled.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels.
        img_size: side of the images, which the table of positions is made for.
        patch_size: pixels of a token along each axis.
        embed_dim: channels of a token, a multiple of 6.
        depth: blocks.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = PLAIN
    released_nothing = frozenset({"qk_scale"})
    extra = 0

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        if embed_dim % _PLAIN_HEADS or img_size % patch_size:
            raise ValueError(f"embed_dim {embed_dim}: expected a multiple of {_PLAIN_HEADS}; img_size, of patch_size")
        super().__init__(num_classes, embed_dim, _EPS)
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "img_size": img_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
            "mlp_ratio": mlp_ratio,
            "drop_path_rate": drop_path_rate,
        }
        side = img_size // patch_size
        self.patches = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, side * side, embed_dim), std=0.02))
        hidden = int(embed_dim * mlp_ratio)
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
            spectral = i < _SPECTRAL_BLOCKS
            mixer = SpectralGate(embed_dim, (side, side)) if spectral else SelfAttention(embed_dim, _PLAIN_HEADS)
            self.blocks.append(PlainBlock(embed_dim, mixer, hidden, rate))
        self.describe_levels(patch_size)
        self.apply(initialise_maps)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        if not name.startswith("blocks."):
            return renamed(name, [(r"positions$", "pos_embed"), (r"patches\.", "patch_embed.proj.")])
        spectral = int(name.split(".")[1]) < _SPECTRAL_BLOCKS
        mixer = "filter." if spectral else "attn."
        name = re.sub(r"\.mixer\.", f".{mixer}", name).replace(".attn.projection.", ".attn.proj.")
        return name.replace(".filter.table", ".filter.complex_weight")

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Tables of the spectrum have their channels first here."""
        return {name: channels_first for name in self.state_dict() if name.endswith(".table")}

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patches with their positions, and their grid."""
        size = self.arguments["img_size"]
        check_images(x, self.arguments["in_chans"], 1)
        if tuple(x.shape[2:]) != (size, size):
            raise ValueError(f"images of {x.shape[2]} x {x.shape[3]}: expected {size} x {size}; build with that size")
        x = self.patches(x)
        return to_tokens(x) + self.positions, (x.shape[2], x.shape[3])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of tokens; with `pre_logits` their mean, which the classifier sees."""
        x = x.mean(1)
        return x if pre_logits else self.head(x)


class PlainBlock(nn.Module):
    """A filter of the spectrum or an attention, and a feed-forward; with a filter there is one residual for both."""

    def __init__(self, dim: int, mixer: nn.Module, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, _EPS)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, _EPS)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map tokens `(B, h w, C)` to tokens."""
        if isinstance(self.mixer, SpectralGate):
            filtered = to_tokens(self.mixer(to_map(self.norm1(x), grid)))
            return x + self.drop_path(self.mlp(self.norm2(filtered)))
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


VARIANTS: dict[str, functools.partial[PlainSpectFormer]] = {
    "spectformer_vanilla_xs": functools.partial(PlainSpectFormer),
    "spectformer_vanilla_s": functools.partial(PlainSpectFormer, depth=19),
}
