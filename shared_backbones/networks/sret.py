"""SReT: few blocks, each used several times, whose attention is cut into slices (Shen et al., arXiv 2111.05297)."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.networks.classifier import linear_classifier
from shared_backbones.networks.released import Released, Rule, renamed
from shared_backbones.networks.stages import StageClassifier
from shared_backbones.networks.tokens import initialise_linear, to_map, to_tokens

_EPS = 1e-6
_LOOPS = 2  # uses of a block that the released code tells apart
_STEM_STRIDE = 8


class SReT(Released, StageClassifier):
    """Sliced recursive transformer, as its released code computes it.

    Where a block is used again and attends in slices, tokens are permuted before and put back after. The released code
    draws another permutation at every call, in eval mode, too, so that its logits differ from call to call; here
    permutations are drawn once, from `permutation_seed`, and `forward` takes others.

    Args:
        num_classes: logits; 0 gives features.
        in_chans: input channels; the released code has 3.
        image_size: side of the images in pixels, a multiple of 32, whose tokens the slices divide.
        base_dims: channels of a head in each stage.
        depth: uses of blocks in each stage.
        recursive_num: blocks of each stage; each is used twice where `depth` is twice as large, once where it is equal.
        heads: heads of each stage.
        groups1: slices of each stage's first uses.
        groups2: slices of each stage's second uses.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of the tokens'.
        np_mlp_ratio: those of the projections between.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0.
        permutation_seed: seed of the permutations.

    Attributes:
        arguments: the constructor's arguments, in JSON types.

    Raises:
        ValueError: an argument does not suit.
    """

    released_class = "SReT"
    released_nothing = frozenset({"patch_size", "stride"})
    feature_indices = (0, 1, 2)

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        *,
        image_size: int = 224,
        base_dims: Sequence[int] = (32, 32, 32),
        depth: Sequence[int] = (4, 10, 6),
        recursive_num: Sequence[int] = (2, 5, 3),
        heads: Sequence[int] = (2, 4, 8),
        groups1: Sequence[int] = (8, 4, 1),
        groups2: Sequence[int] = (2, 1, 1),
        mlp_ratio: float = 3.6,
        np_mlp_ratio: float = 1.0,
        drop_path_rate: float = 0.0,
        permutation_seed: int = 0,
    ) -> None:
        if any(len(row) != 3 for row in (base_dims, depth, recursive_num, heads, groups1, groups2)):
            raise ValueError("base_dims, depth, recursive_num, heads, groups1 and groups2 must each name three stages")
        widths = [base * count for base, count in zip(base_dims, heads, strict=True)]
        super().__init__(num_classes, in_chans, widths, (8, 16, 32))
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "image_size": image_size,
            "base_dims": list(base_dims),
            "depth": list(depth),
            "recursive_num": list(recursive_num),
            "heads": list(heads),
            "groups1": list(groups1),
            "groups2": list(groups2),
            "mlp_ratio": mlp_ratio,
            "np_mlp_ratio": np_mlp_ratio,
            "drop_path_rate": drop_path_rate,
            "permutation_seed": permutation_seed,
        }
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}, expected a multiple of 32")
        generator = torch.Generator().manual_seed(permutation_seed)
        before, done = in_chans, 0
        for i, width in enumerate(widths):
            side = image_size // (_STEM_STRIDE * 2**i)
            if depth[i] not in (recursive_num[i], _LOOPS * recursive_num[i]):
                raise ValueError(f"depth {depth[i]}: expected once or twice the recursive_num {recursive_num[i]}")
            if width % before and i:
                raise ValueError(f"stage {i + 1} has {width} channels, expected a multiple of the {before} before")
            for groups in (groups1[i], groups2[i]):
                if side * side % groups:
                    raise ValueError(f"{side * side} tokens of stage {i + 1} in {groups} slices: expected a divisor")
            rates = [drop_path_rate * (done + j) / sum(depth) for j in range(depth[i])]
            done += depth[i]
            enter = Stem(in_chans, width, side) if i == 0 else nn.Conv2d(before, width, 3, 2, 1, groups=before)
            blocks = [SlicedBlock(width, heads[i], mlp_ratio) for _ in range(recursive_num[i])]
            projections = [Projection(width, np_mlp_ratio) for _ in range(depth[i])]
            stage = RecursiveStage(enter, blocks, projections, (groups1[i], groups2[i]), rates)
            stage.draw(side * side, generator)
            self.stages.append(stage)
            before = width
        self.norm = nn.LayerNorm(before, _EPS)
        self.head = linear_classifier(before, num_classes)
        self.apply(initialise_linear)

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor; released sizes are written `SReT_T`, and the distilled ones are the same."""
        if variant is not None and variant != cls.released_class:
            variant = variant.lower().removesuffix("_distill").removesuffix("_distilled")
        return super().released_arguments(variant, arguments)

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        if not name.startswith("stages."):
            return name
        _, stage, part, rest = name.split(".", 3)
        if part == "enter":
            return renamed(rest, _STEM_NAMES) if stage == "0" else f"pools.{int(stage) - 1}.conv.{rest}"
        number, rest = rest.split(".", 1)
        loops = self.arguments["depth"][int(stage)] // self.arguments["recursive_num"][int(stage)]
        place = 2 * loops * int(number) if part == "blocks" else 2 * int(number) + 1
        return f"transformers.{stage}.blocks.{place}.{renamed(rest, _PARTS)}"

    def released_first_name(self, name: str) -> str:
        """A block has a name for each of its uses."""
        if not name.startswith("transformers."):
            return name
        _, stage, _, place, rest = name.split(".", 4)
        if not (stage.isdecimal() and place.isdecimal()) or int(stage) > 2 or int(place) % 2:
            return name
        loops = self.arguments["depth"][int(stage)] // self.arguments["recursive_num"][int(stage)]
        return f"transformers.{stage}.blocks.{int(place) // (2 * loops) * 2 * loops}.{rest}"

    def forward(self, x: Tensor, permutations: Sequence[Tensor] | None = None) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, C, H, W)`.

        Args:
            x: the images.
            permutations: orders of the tokens, `(N,)` each, for every second use of a block in slices, one after the
                other; by default those that were drawn when the network was built.
        """
        if permutations is None:
            return self.forward_head(self.forward_features(x))
        self._check(x)
        rest = iter(permutations)
        for stage in self.stages:
            x = stage(x, permutations=rest)
        return self.forward_head(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the last map; with `pre_logits` what the classifier sees."""
        x = self.norm(x.mean((2, 3)))
        return x if pre_logits else self.head(x)

    def _levels(self, x: Tensor, count: int | None = None) -> list[Tensor]:
        """The first `count` levels."""
        self._check(x)
        return super()._levels(x, count)

    def _check(self, x: Tensor) -> None:
        side = self.arguments["image_size"]
        if tuple(x.shape[1:]) != (self.in_chans, side, side):
            raise ValueError(f"input of shape {tuple(x.shape)}: expected (B, {self.in_chans}, {side}, {side})")


class Stem(nn.Module):
    """Three convolutions to an eighth of the size, and a learned map of positions."""

    def __init__(self, in_chans: int, width: int, side: int) -> None:
        super().__init__()
        widths = (in_chans, width // 2, width, width)
        self.convolutions = nn.ModuleList(ConvNormAct(a, b, stride=2, bias=True) for a, b in itertools.pairwise(widths))
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, side, side), std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(B, C, H, W)` to `(B, width, H / 8, W / 8)`."""
        for convolution in self.convolutions:
            x = convolution(x)
        return x + self.positions


class RecursiveStage(nn.Module):
    """Blocks that are used again, each use with a projection of its own behind it."""

    def __init__(
        self,
        enter: nn.Module,
        blocks: Sequence[nn.Module],
        projections: Sequence[nn.Module],
        groups: tuple[int, int],
        rates: Sequence[float],
    ) -> None:
        super().__init__()
        self.enter = enter
        self.blocks, self.projections = nn.ModuleList(blocks), nn.ModuleList(projections)
        self.drop_paths = nn.ModuleList(DropPath(rate) for rate in rates)
        self.groups = groups
        self.permutations: Tensor
        self.register_buffer("permutations", torch.zeros(0, 0, dtype=torch.int64), persistent=False)

    def draw(self, tokens: int, generator: torch.Generator) -> None:
        """Draw a permutation for each second use in slices."""
        count = len(self.projections) - len(self.blocks) if self.groups[1] > 1 else 0
        drawn = [torch.randperm(tokens, generator=generator, device="cpu") for _ in range(count)]
        self.permutations = torch.stack(drawn) if drawn else self.permutations

    def forward(self, x: Tensor, recompute: bool = False, permutations: Iterator[Tensor] | None = None) -> Tensor:
        """Map `(B, C, H, W)` to the next level."""
        x = recomputed(self.enter, x) if recompute else self.enter(x)
        grid = x.shape[2], x.shape[3]
        x = to_tokens(x)
        rest = iter(self.permutations) if permutations is None else permutations
        loops = len(self.projections) // len(self.blocks)
        for i, (project, drop) in enumerate(zip(self.projections, self.drop_paths, strict=True)):
            block, second = self.blocks[i // loops], i % _LOOPS == 1
            groups = self.groups[second]
            order = next(rest) if second and groups > 1 else None
            for module, more in ((block, (drop, groups, order)), (project, (drop,))):
                apply = functools.partial(recomputed, module) if recompute else module
                x = apply(x, *cast("tuple[Any, ...]", more))
        return to_map(x, grid)


class SlicedBlock(nn.Module):
    """Attention within slices and feed-forward, each added with learned factors for both parts of the sum."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.projection = nn.LayerNorm(dim, _EPS), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.norm2, self.mlp = nn.LayerNorm(dim, _EPS), Mlp(dim, int(dim * mlp_ratio))
        self.keep1, self.add1, self.keep2, self.add2 = (nn.Parameter(torch.ones(1)) for _ in range(4))

    def forward(self, x: Tensor, drop_path: nn.Module, groups: int = 1, order: Tensor | None = None) -> Tensor:
        """Map tokens `(B, N, C)` to the same shape.

        Args:
            x: the tokens.
            drop_path: stochastic depth of this use.
            groups: slices.
            order: permutation of the tokens before they are sliced, `(N,)`.
        """
        tokens = self.norm1(x)
        tokens = tokens if order is None else tokens[:, order]
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).unflatten(1, (groups, -1))
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5).flatten(1, 2).unbind(0)  # (B groups, heads, n, d)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        attended = self.projection(attended.unflatten(0, (-1, groups)).flatten(1, 2))
        attended = attended if order is None else attended[:, order.argsort()]
        x = self.keep1 * x + self.add1 * drop_path(attended)
        return self.keep2 * x + self.add2 * drop_path(self.mlp(self.norm2(x)))


class Projection(nn.Module):
    """Feed-forward between two uses of blocks."""

    def __init__(self, dim: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.mlp = nn.LayerNorm(dim, _EPS), Mlp(dim, int(dim * mlp_ratio))
        self.keep1, self.add1 = (nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, x: Tensor, drop_path: nn.Module) -> Tensor:
        """Map tokens `(B, N, C)` to the same shape."""
        return self.keep1 * x + self.add1 * drop_path(self.mlp(self.norm1(x)))


VARIANTS = {
    "sret_t": functools.partial(SReT),
    "sret_lt": functools.partial(SReT, mlp_ratio=4.0),
    "sret_s": functools.partial(SReT, base_dims=(42, 42, 42), heads=(3, 6, 12), mlp_ratio=3.0, np_mlp_ratio=2.0),
}
_STEM_NAMES: list[Rule] = [
    (r"positions", "pos_embed"),
    (r"convolutions\.(\d)\.convolution\.", lambda match: f"patch_embed.conv{int(match[1]) + 1}."),
    (r"convolutions\.(\d)\.norm\.", lambda match: f"patch_embed.bn{int(match[1]) + 1}."),
]
_PARTS: list[Rule] = [
    (r"qkv\.", "attn.qkv."),
    (r"projection\.", "attn.proj."),
    (r"keep1", "coefficient1.bias"),
    (r"add1", "coefficient2.bias"),
    (r"keep2", "coefficient3.bias"),
    (r"add2", "coefficient4.bias"),
]
