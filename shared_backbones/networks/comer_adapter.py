"""The convolutional pyramid that ViT-CoMer puts beside a plain vision transformer (arXiv 2403.07392)."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.deformable_attention import DeformableAttention
from shared_backbones.blocks.transformer import DropPath
from shared_backbones.networks.tokens import to_map, to_tokens

_EPS = 1e-6
REDUCTIONS = (4, 8, 16, 32)
_HALVINGS = {16: 2, 8: 1, 4: 0}  # of the image, for the map with a quarter of a patch to a pixel
Grid: TypeAlias = tuple[int, int]
TokenBlock: TypeAlias = Callable[[Tensor, Grid], Tensor]
"""A block of a vision transformer: tokens `(B, N, D)` and their grid to tokens."""


class Adapter(nn.Module):
    """What makes a pyramid of a plain vision transformer.

    Four times, the pyramid's maps are brought into the tokens, some blocks run, and the tokens are brought back into
    the map of their own resolution. Tokens of several groups of bands at each place, and a class token, are allowed:
    each group gets the same of the pyramid, which sees their mean.

    Args:
        dim: channels of a token.
        in_chans: channels of the images.
        depth: blocks of the transformer.
        spans: first and last block of each of the four interactions; by default a quarter of the blocks each.
        inplanes: channels of the first convolutions.
        heads: heads of the deformable attentions, which divide their values' channels.
        points: places that each query looks at in each map.
        hidden_ratio: hidden channels of the feed-forwards, as a multiple of `dim`.
        value_ratio: channels of the deformable attentions' values, as a multiple of `dim`.
        fusion_ratio: channels in which the pyramid's maps are filtered, as a multiple of `dim`.
        init_values: what is brought into the tokens is multiplied by at first.
        patch: side in pixels of the transformer's patches: 16 as released, 8 or 4. The pyramid's maps have a quarter, a
            half, one and two patches to a pixel; the first convolutions then halve the image once, or not at all.
        groups: tokens of each place.
        extra: class tokens in front of the others.
        drop_path: stochastic depth of the feed-forwards.

    Raises:
        ValueError: there are not four interactions, or the heads or the patch do not suit.
    """

    def __init__(
        self,
        dim: int,
        in_chans: int,
        depth: int,
        *,
        spans: Sequence[Sequence[int]] | None = None,
        inplanes: int = 64,
        heads: int = 6,
        points: int = 4,
        hidden_ratio: float = 0.25,
        value_ratio: float = 1.0,
        fusion_ratio: float = 6.0,
        init_values: float = 0.0,
        patch: int = 16,
        groups: int = 1,
        extra: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        spans = spans or [(depth * i // 4, depth * (i + 1) // 4 - 1) for i in range(4)]
        if len(spans) != 4 or depth < 4:
            raise ValueError(f"{len(spans)} interactions over {depth} blocks: expected four, as each makes a map")
        if patch not in _HALVINGS:
            raise ValueError(f"patches of {patch} pixels: expected {', '.join(map(str, _HALVINGS))}")
        self.spans = [(span[0], span[-1]) for span in spans]
        self.groups, self.extra = groups, extra
        self.pyramid = Pyramid(in_chans, inplanes, dim, _HALVINGS[patch])
        self.level_codes = nn.Parameter(torch.randn(3, dim))

        def attention() -> DeformableAttention:
            return DeformableAttention(dim, heads, 3, points, value_ratio)

        def feed_forward() -> FeedForward:
            return FeedForward(dim, int(dim * hidden_ratio))

        self.fusions = nn.ModuleList(Fusion(dim, int(dim * fusion_ratio)) for _ in spans)
        self.injections = nn.ModuleList(
            Injection(dim, attention(), feed_forward(), init_values, drop_path) for _ in spans
        )
        extractions = [Extraction(dim, attention(), feed_forward(), drop_path) for _ in spans]
        extras = [Extraction(dim, attention(), feed_forward(), drop_path, feed_forward()) for _ in range(4)]
        self.extractions = nn.ModuleList([*extractions, *extras])
        self.enlarge = nn.ConvTranspose2d(dim, dim, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in REDUCTIONS)
        self.apply(_initialise)

    def forward(self, image: Tensor, x: Tensor, grid: Grid, blocks: Sequence[TokenBlock]) -> list[Tensor]:
        """Maps `(B, dim, 4 h, 4 w)`, `(B, dim, 2 h, 2 w)`, `(B, dim, h, w)` and `(B, dim, h / 2, w / 2)`.

        Args:
            image: `(B, C, H, W)`, sides multiples of two patches.
            x: tokens `(B, extra + groups h w, dim)` before the first block, with their positions.
            grid: h and w, the patches along H and W.
            blocks: the transformer's blocks.
        """
        height, width = grid
        sizes = [(2 * height, 2 * width), grid, (height // 2, width // 2)]
        first, *levels = self.pyramid(image)
        c = [to_tokens(level) + code for level, code in zip(levels, self.level_codes, strict=True)]
        seen = []
        for i, (start, stop) in enumerate(self.spans):
            c = self.fusions[i](c, sizes)
            c[1] = c[1] + self._places(x)
            x = self._spread(x, self.injections[i](c, sizes))
            for block in blocks[start : stop + 1]:
                x = block(x, grid)
            places = self._places(x)
            c = self.extractions[i](c, places, sizes)
            seen.append(to_map(places, grid))
        for extraction in self.extractions[len(self.spans) :]:
            c = extraction(c, places, sizes)
        maps = [to_map(tokens, size) for tokens, size in zip(c, sizes, strict=True)]
        maps = [self.enlarge(maps[0]) + first, *maps]
        scales = (4.0, 2.0, None, 0.5)
        resized = [plane if scale is None else _scaled(plane, scale) for plane, scale in zip(seen, scales, strict=True)]
        return [norm(m + s) for norm, m, s in zip(self.norms, maps, resized, strict=True)]

    def _places(self, x: Tensor) -> Tensor:
        """Mean over the groups of the tokens of each place, `(B, h w, dim)`."""
        x = x[:, self.extra :]
        return x if self.groups == 1 else x.unflatten(1, (self.groups, -1)).mean(1)

    def _spread(self, x: Tensor, change: Tensor) -> Tensor:
        """Tokens with a change of each place added to all its groups."""
        if self.groups == 1 and not self.extra:
            return x + change
        changed = x[:, self.extra :] + change.repeat(1, self.groups, 1)
        return torch.cat([x[:, : self.extra], changed], 1)


class Pyramid(nn.Module):
    """Convolutions that make four maps of `dim` channels, each at half the resolution of the one before.

    The first has the image's resolution, halved up to two times.
    """

    def __init__(self, in_chans: int, inplanes: int, dim: int, halvings: int) -> None:
        super().__init__()
        widths = [inplanes, 2 * inplanes, 4 * inplanes, 4 * inplanes]
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, inplanes, stride=2 if halvings else 1),
            ConvNormAct(inplanes, inplanes),
            ConvNormAct(inplanes, inplanes),
            nn.MaxPool2d(3, 2, 1) if halvings > 1 else nn.Identity(),
        )
        self.halve = nn.ModuleList(ConvNormAct(widths[i], widths[i + 1], stride=2) for i in range(3))
        self.project = nn.ModuleList(nn.Conv2d(width, dim, 1) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Four maps of images `(B, C, H, W)`."""
        maps = [self.stem(x)]
        for halve in self.halve:
            maps.append(halve(maps[-1]))
        return [project(plane) for project, plane in zip(self.project, maps, strict=True)]


class Fusion(nn.Module):
    """Each map of the pyramid, filtered by kernels of 3 and of 5 pixels in many channels (MRFP); the GELU is twice."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        half = hidden // 2
        self.expand = nn.Linear(dim, hidden)
        self.small = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1, groups=half) for _ in range(3))
        self.large = nn.ModuleList(nn.Conv2d(half, half, 5, padding=2, groups=half) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(3))
        self.contract = nn.Linear(hidden, dim)

    def forward(self, c: Sequence[Tensor], sizes: Sequence[Grid]) -> list[Tensor]:
        """Tokens of the three maps to tokens."""
        fused = []
        for i, (tokens, size) in enumerate(zip(c, sizes, strict=True)):
            near, far = to_map(self.expand(tokens), size).chunk(2, 1)
            plane = self.norms[i](torch.cat([self.small[i](near), self.large[i](far)], 1))
            fused.append(self.contract(to_tokens(F.gelu(F.gelu(plane)))))
        return fused


class FeedForward(nn.Module):
    """Two layers at each token, with one depthwise convolution for all three maps between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, sizes: Sequence[Grid]) -> Tensor:
        """Map the tokens of all maps, `(B, N, dim)`, to tokens."""
        parts = self.expand(x).split([height * width for height, width in sizes], 1)
        maps = [self.depthwise(to_map(part, size)) for part, size in zip(parts, sizes, strict=True)]
        return self.contract(F.gelu(torch.cat([to_tokens(plane) for plane in maps], 1)))


class Injection(nn.Module):
    """What the pyramid has to say to the tokens: its maps, after looking at each other, at the tokens' resolution."""

    def __init__(
        self, dim: int, attention: DeformableAttention, feed_forward: FeedForward, scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.query_norm, self.value_norm = nn.LayerNorm(dim, _EPS), nn.LayerNorm(dim, _EPS)
        self.attention = attention
        self.norm = nn.LayerNorm(dim, _EPS)
        self.feed_forward = feed_forward
        self.scale = nn.Parameter(torch.full((dim,), scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, c: Sequence[Tensor], sizes: Sequence[Grid]) -> Tensor:
        """Change of the tokens `(B, h w, dim)`; the attention replaces what it looked at."""
        tokens = torch.cat(list(c), 1)
        tokens = self.attention(self.query_norm(tokens), self.value_norm(tokens), sizes)
        tokens = tokens + self.drop_path(self.feed_forward(self.norm(tokens), sizes))
        fine, same, coarse = tokens.split([height * width for height, width in sizes], 1)
        fine = to_tokens(_scaled(to_map(fine, sizes[0]), 0.5))
        coarse = to_tokens(_scaled(to_map(coarse, sizes[2]), 2.0))
        return self.scale * (fine + same + coarse)


class Extraction(nn.Module):
    """What the tokens have to say to the pyramid, and its maps to each other; normed tokens are the new residual."""

    def __init__(
        self,
        dim: int,
        attention: DeformableAttention,
        feed_forward: FeedForward,
        drop_path: float,
        before: FeedForward | None = None,
    ) -> None:
        super().__init__()
        self.before = before
        self.before_norm = nn.LayerNorm(dim, _EPS) if before else None
        self.query_norm, self.value_norm = nn.LayerNorm(dim, _EPS), nn.LayerNorm(dim, _EPS)
        self.inner_query_norm, self.inner_value_norm = nn.LayerNorm(dim, _EPS), nn.LayerNorm(dim, _EPS)
        self.attention = attention
        self.norm = nn.LayerNorm(dim, _EPS)
        self.feed_forward = feed_forward
        self.drop_path = DropPath(drop_path)

    def forward(self, c: Sequence[Tensor], x: Tensor, sizes: Sequence[Grid]) -> list[Tensor]:
        """Tokens of the three maps, with the transformer's tokens `x` added to the second, to tokens."""
        fine, same, coarse = c
        tokens = torch.cat([fine, same + x, coarse], 1)
        if self.before is not None and self.before_norm is not None:
            tokens = tokens + self.drop_path(self.before(self.before_norm(tokens), sizes))
        query, value = self.query_norm(tokens), self.value_norm(tokens)
        query = query + self.attention(self.inner_query_norm(query), self.inner_value_norm(value), sizes)
        query = query + self.drop_path(self.feed_forward(self.norm(query), sizes))
        return list(query.split([height * width for height, width in sizes], 1))


def _scaled(plane: Tensor, factor: float) -> Tensor:
    return F.interpolate(plane, scale_factor=factor, mode="bilinear", align_corners=False)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, DeformableAttention):
        module.initialise()
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
