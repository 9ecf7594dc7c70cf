"""DuoFormer: attention among the scales of a patch, then among patches (arXiv 2506.12982)."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.models.duoformer_names import official_name
from shared_backbones import official
from shared_backbones.architectures import Arguments
from shared_backbones.blocks.attention import SelfAttention
from shared_backbones.blocks.convolution import ConvNormAct
from shared_backbones.blocks.embeddings import fit_positions
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import TransformerBlock
from shared_backbones.networks.classifier import Classifier, Intermediates, chosen_levels, linear_classifier
from shared_backbones.networks.pyramids import TimmPyramid
from shared_backbones.networks.resnet import ResNet
from shared_backbones.networks.timm_registration import Settings

STRIDE = 32  # of the deepest map: the side of a patch in pixels
_WIDTH = 64  # of a published ResNet
RESNETS = {"r18": 18, "r50": 50, "r50_Swav": 50, "r50_BT": 50, "r50_MoCoV2": 50}
_NOT_KEPT = ("num_patches", "proj_dim", "pretrained")  # they say no more, or trained weights replace them
SCALE_TOKENS = ("random", "channel", "first", "avg")


class DuoFormer(Classifier):
    """Image classifier of Tang et al., *DuoFormer* (MIDL 2025), as its released code computes it.

    A pyramid gives maps at 1/4 to 1/32 of the image. A patch is a cell of the deepest map, with the cells of every
    other map that lie inside it; transformer blocks attend among a patch's cells, then attention layers among patches.

    Where the released code and the paper or good sense differ:

    - The 2x2 cells of the map at 1/16 are taken column by column, all others row by row; released weights need it.
    - Patches attend without residuals, norms or feed-forwards, though the paper draws ordinary blocks:
      `patch_block="transformer"` builds those.
    - A frozen backbone takes no gradients, but its batch norms go on counting: `frozen_statistics=True` stops them.
    - Attention dropout drops attention weights here and projection dropout what comes after; the released code shifts
      both by one argument. All published settings are 0.
    - The released code starts its ResNets from published weights; here they are random until weights are loaded.
    - With two scales the released code cannot run; here the position table has the rows that it needs.

    Args:
        depth: blocks of each of the two kinds.
        embed_dim: channels C of all tokens.
        num_heads: attention heads of both kinds; divides `embed_dim`.
        num_classes: logits; 0 gives features.
        num_layers: scales, 2 (1/16 and 1/32), 3 or 4.
        num_patches: patches of an image; by default and only what `img_size` gives.
        mlp_ratio: hidden channels of the feed-forwards, as a multiple of C.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after attention's projections.
        proj_dim: equal to `embed_dim`; its name in the released code.
        freeze_backbone: train the backbone's weights or not.
        backbone: `r18`, `r50`, `r50_Swav`, `r50_BT`, `r50_MoCoV2` (the same ResNet-50 under other official names), or
            the name of any timm backbone that has maps at 1/4, 1/8, 1/16 and 1/32.
        scale_token: what stands for a patch after its scales: a learned token (`random`), one computed from all maps
            (`channel`), the deepest map's cell (`first`), or the mean of the cells (`avg`).
        patch_attn: attend among patches; without, they are averaged with learned weights.
        in_chans: channels of the image.
        img_size: height and width in pixels, or one number for both; multiples of 32.
        patch_block: `attention` as released, `transformer` for pre-norm blocks as the paper draws them.
        frozen_statistics: keep the batch norms of a frozen backbone in eval mode.
        backbone_width: channels of the first of the four maps of `r18`, a quarter of those of `r50`; 64 as released.
        pretrained: start a timm backbone from timm's weights.

    Attributes:
        arguments: the constructor's arguments, in JSON types, without `pretrained`, since trained weights follow.

    Raises:
        ValueError: an argument does not suit.
    """

    feature_indices = (0, 1, 2, 3)

    def __init__(
        self,
        depth: int = 8,
        embed_dim: int = 768,
        num_heads: int = 12,
        num_classes: int = 2,
        num_layers: int = 4,
        num_patches: int | None = None,
        mlp_ratio: float = 4.0,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        proj_dim: int | None = None,
        freeze_backbone: bool = True,
        backbone: str = "r50",
        scale_token: str = "random",
        patch_attn: bool = True,
        *,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        patch_block: str = "attention",
        frozen_statistics: bool = False,
        backbone_width: int = _WIDTH,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.arguments = _json_arguments(locals())
        _check(self.arguments, num_patches, proj_dim)
        height, width = self.arguments["img_size"]
        self.grid = height // STRIDE, width // STRIDE
        self.num_classes, self.num_features, self.head_hidden_size = num_classes, embed_dim, embed_dim
        self.scale_token, self.frozen = scale_token, freeze_backbone and frozen_statistics
        self._make_backbone(pretrained)
        self._make_scales()
        self._make_patches()
        self.head = linear_classifier(embed_dim, num_classes)
        self._initialise()
        self.train(self.training)

    def _make_backbone(self, pretrained: bool) -> None:
        """The pyramid, and where its four levels are."""
        name, in_chans, (height, width) = (self.arguments[key] for key in ("backbone", "in_chans", "img_size"))
        self.backbone: ResNet | TimmPyramid
        if name in RESNETS:
            self.backbone = ResNet(RESNETS[name], in_chans, width=self.arguments["backbone_width"])
        else:
            self.backbone = TimmPyramid(name, in_chans, img_size=(height, width), pretrained=pretrained)
        # timm's pyramid has its own names, and nothing hooks onto its levels one by one
        modules = [f"backbone.layer{i + 1}" if name in RESNETS else "backbone" for i in range(4)]
        self.feature_info = [
            {"num_chs": count, "reduction": 4 * 2**i, "module": module}
            for i, (count, module) in enumerate(zip(self.backbone.channels, modules, strict=True))
        ]
        if self.arguments["freeze_backbone"]:
            self.backbone.requires_grad_(False)

    def _make_scales(self) -> None:
        """Tokens of all scales of a patch, and the blocks in which they attend to one another."""
        dim, scales, channels = self.num_features, self.arguments["num_layers"], self.backbone.channels
        self.projections = nn.ModuleList(nn.Conv2d(channels[3 - i], dim, 1) for i in range(scales))
        if self.scale_token == "random":
            self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.036)
        elif self.scale_token == "channel":
            self.channel_token = ChannelToken(channels, dim)
        tokens = (4**scales - 1) // 3 + (self.scale_token in {"random", "channel"})
        self.scale_positions = nn.Parameter(torch.empty(1, tokens, dim))
        self.scale_blocks = nn.ModuleList(self._transformer_block() for _ in range(self.arguments["depth"]))

    def _make_patches(self) -> None:
        """Attention among patches, or their weighted mean."""
        dim, patches = self.num_features, self.grid[0] * self.grid[1]
        self.patch_blocks = nn.ModuleList()
        if not self.arguments["patch_attn"]:
            self.pool = nn.Linear(patches, 1)
            return
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.036)
        self.positions = nn.Parameter(torch.empty(1, 1 + patches, dim))
        nn.init.trunc_normal_(self.positions, std=0.036)
        released = self.arguments["patch_block"] == "attention"
        for _ in range(self.arguments["depth"]):
            self.patch_blocks.append(self._patch_attention() if released else self._transformer_block())

    def _transformer_block(self) -> TransformerBlock:
        heads, ratio, weights, values = (
            self.arguments[key] for key in ("num_heads", "mlp_ratio", "attn_drop_rate", "proj_drop_rate")
        )
        return TransformerBlock(self.num_features, heads, ratio, attention_dropout=weights, projection_dropout=values)

    def _patch_attention(self) -> SelfAttention:
        heads, weights, values = (self.arguments[key] for key in ("num_heads", "attn_drop_rate", "proj_drop_rate"))
        return SelfAttention(self.num_features, heads, attention_dropout=weights, dropout=values)

    @classmethod
    def from_official(
        cls, path_or_state_dict: official.Source, *, init_values: float | None = None, **arguments: Any
    ) -> "DuoFormer":
        """Build a DuoFormer with weights of the released code (xiaoyatang/duoformer_TCGA).

        Positions of patches that were trained at another square image size are resampled. Attention heads, and whether
        a patch without scale token stands for itself by its first cell or the mean, cannot be told from the weights.

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            init_values: accepted; the released code has no use for it either.
            arguments: arguments of `DuoFormer`, named as in the released code.

        Raises:
            ValueError: an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit `arguments`.
        """
        model = cls(**arguments)
        indexed = model.arguments["backbone"] in {"r18", "r50"}
        names = {name: official_name(name, indexed) for name in model.state_dict()}
        convert: dict[str, Callable[[Tensor], Tensor]] = {
            name: lambda tensor: tensor.flatten(0, 1) if tensor.ndim == 4 else tensor
            for name in ("token", "scale_positions")
            if name in names
        }
        if "positions" in names:
            convert["positions"] = functools.partial(fit_positions, grid=model.grid)
        unused = [r"vision_transformer\.fc_norm\."]  # made and never used by the newest code
        official.load_foreign(model, path_or_state_dict, names, unused, convert=convert)
        return model.eval()

    def forward_features(self, x: Tensor) -> Tensor:
        """One feature an image, `(B, C)`."""
        return self._attend(self._maps(x))

    def _attend(self, maps: Sequence[Tensor]) -> Tensor:
        tokens = self.tokenise(maps)
        batch, patches = tokens.shape[:2]
        tokens = tokens.flatten(0, 1) + self.scale_positions
        # Where only the first token is read, the last block computes no other.
        first = len(self.patch_blocks) > 0 and self.scale_token != "avg"
        for index, block in enumerate(self.scale_blocks):
            last = index == len(self.scale_blocks) - 1
            tokens = self._run(block, tokens, 1 if first and last else None)
        x = (tokens[:, 0] if first else tokens.mean(1)).unflatten(0, (batch, patches))
        if not len(self.patch_blocks):
            return self.pool(x.transpose(1, 2))[..., 0]
        x = torch.cat([self.class_token.expand(batch, -1, -1), x], 1) + self.positions
        for index, block in enumerate(self.patch_blocks):
            x = self._run(block, x, 1 if index == len(self.patch_blocks) - 1 else None)
        return x[:, 0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of features; nothing norms them before, as released."""
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """The backbone's maps `indices`, alone or after the feature; images of any size where only maps are asked for.

        Raises:
            ValueError: `output_fmt` is not `NCHW`, or there are no such maps.
        """
        wanted = chosen_levels(indices, 4, output_fmt)
        maps = self.backbone(x) if intermediates_only else self._maps(x)
        chosen = [maps[index] for index in wanted]
        return chosen if intermediates_only else (self._attend(maps), chosen)

    def tokenise(self, maps: Sequence[Tensor]) -> Tensor:
        """The cells of all scales in each patch, `(B, P, S, C)`, from the four maps, the largest first.

        The scales run from the deepest map to the largest; a scale token comes first where there is one.
        """
        parts = []
        if self.scale_token == "random":
            patches = self.grid[0] * self.grid[1]
            parts.append(self.token[:, None].expand(len(maps[0]), patches, -1, -1))
        elif self.scale_token == "channel":
            parts.append(self.channel_token(maps))
        for scale, projection in enumerate(self.projections):
            cells = projection(maps[3 - scale])
            side = 2**scale
            cells = cells.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, C, rows, side, columns, side)
            # Two by two, cells run down the columns; released weights have their positions in this order.
            order = (0, 2, 4, 5, 3, 1) if scale == 1 else (0, 2, 4, 3, 5, 1)
            parts.append(cells.permute(order).flatten(3, 4).flatten(1, 2))
        return torch.cat(parts, 2)

    def train(self, mode: bool = True) -> "DuoFormer":
        """Set training mode; a backbone with frozen statistics stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def fold_(self) -> None:
        """Merge each patch attention's projection into the next one's first linear map: nothing lies between them."""
        blocks = list(self.patch_blocks)
        if not all(isinstance(block, SelfAttention) for block in blocks):
            return
        following: list[nn.Linear] = [block.qkv for block in blocks[1:]]  # type: ignore[misc]
        for block, linear in zip(blocks, following, strict=False):
            first = block.projection
            if isinstance(first, nn.Linear):
                bias = linear.weight @ first.bias
                linear.bias = nn.Parameter(bias + linear.bias, requires_grad=False)
                linear.weight = nn.Parameter(linear.weight @ first.weight, requires_grad=False)
                block.projection = nn.Identity()

    def _maps(self, x: Tensor) -> list[Tensor]:
        expected = (self.arguments["in_chans"], *self.arguments["img_size"])
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: expected (B, {', '.join(map(str, expected))}); "
                "build with that in_chans and img_size"
            )
        maps = self.backbone(x)
        for level, feature in enumerate(maps):
            rows, columns = (side * 2 ** (3 - level) for side in self.grid)
            if tuple(feature.shape[2:]) != (rows, columns):
                raise ValueError(
                    f"backbone {self.arguments['backbone']!r} gives a map of {feature.shape[2]} x {feature.shape[3]}, "
                    f"expected {rows} x {columns}: exactly 1/{4 * 2**level} of the image"
                )
        return maps

    def _run(self, block: nn.Module, x: Tensor, queries: int | None) -> Tensor:
        if self.grad_checkpointing and self.training:
            return recomputed(block, x, queries)
        return block(x, queries)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.scale_positions, std=0.036)
        for block in (*self.scale_blocks, *self.patch_blocks):
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                    nn.init.zeros_(module.bias)
        for projection in self.projections:
            _initialise_projection(projection)


def _json_arguments(given: Arguments) -> Arguments:
    """Those arguments of the constructor that build an equal network, in JSON types; weights and checks are none."""
    names = [name for name in inspect.signature(DuoFormer).parameters if name not in _NOT_KEPT]
    size = given["img_size"]
    return {**{name: given[name] for name in names}, "img_size": [size, size] if isinstance(size, int) else list(size)}


def _check(arguments: Arguments, num_patches: int | None, proj_dim: int | None) -> None:
    """Find out whether arguments suit one another.

    Raises:
        ValueError: they do not.
    """
    size, dim, heads = (arguments[key] for key in ("img_size", "embed_dim", "num_heads"))
    if len(size) != 2:
        raise ValueError(f"img_size {size}: expected height and width, or one number for both")
    height, width = size
    if height % STRIDE or width % STRIDE or height < STRIDE or width < STRIDE:
        raise ValueError(f"img_size {height} x {width}: both must be multiples of {STRIDE}")
    patches = height // STRIDE * (width // STRIDE)
    if num_patches not in {None, patches}:
        raise ValueError(f"num_patches is {num_patches}, expected {patches} for images of {height} x {width}")
    if proj_dim not in {None, dim}:
        raise ValueError(f"proj_dim is {proj_dim}, expected embed_dim ({dim})")
    if heads < 1 or dim % heads:
        raise ValueError(f"embed_dim {dim}: expected a multiple of num_heads {heads}, 1 or more")
    _check_choices(arguments)


def _check_choices(arguments: Arguments) -> None:
    names = ("num_layers", "scale_token", "patch_block", "backbone", "backbone_width")
    scales, token, block, backbone, width = (arguments[name] for name in names)
    if scales not in {2, 3, 4}:
        raise ValueError(f"num_layers is {scales}, expected 2, 3 or 4 scales")
    if width < 1 or (width != _WIDTH and backbone not in RESNETS):
        raise ValueError(f"backbone_width is {width}, expected 1 or more, and only with {', '.join(RESNETS)}")
    if arguments["depth"] < 1:
        raise ValueError(f"depth is {arguments['depth']}, expected 1 or more")
    if token not in SCALE_TOKENS:
        raise ValueError(f"scale_token {token!r} is unknown; expected one of {', '.join(SCALE_TOKENS)}")
    if block not in {"attention", "transformer"}:
        raise ValueError(f"patch_block {block!r} is unknown; expected attention or transformer")


class ChannelToken(nn.Module):
    """One token a patch from the channels of all four maps: `(B, P, 1, C)`.

    Nothing lies between the strided convolutions, as released.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        first, second = channels[0], channels[1]
        self.first = nn.Sequential(*(nn.Conv2d(first, first, 3, stride=2, padding=1) for _ in range(2)))
        self.second = nn.Conv2d(second, second, 3, stride=2, padding=1)
        widths = [sum(channels), dim, dim, dim]
        self.fusion = nn.Sequential(*(ConvNormAct(width, dim, bias=True) for width in widths))
        for convolution in (*self.first, self.second):
            _initialise_projection(convolution)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse the maps at the deepest one's resolution."""
        pooled = [self.first(maps[0]), self.second(maps[1]), maps[2]]
        x = torch.cat([*(F.max_pool2d(part, 2) for part in pooled), maps[3]], 1)
        return self.fusion(x).flatten(2).transpose(1, 2)[:, :, None]


VARIANTS = {
    "duoformer_r18": functools.partial(DuoFormer, depth=12, num_heads=12, backbone="r18", freeze_backbone=False),
    "duoformer_r50": functools.partial(DuoFormer, depth=8, num_heads=8, backbone="r50", scale_token="channel"),
}
TIMM_CONFIGS: dict[str, Settings] = {name: {"input_size": (3, 224, 224)} for name in VARIANTS}


def _initialise_projection(convolution: nn.Module) -> None:
    if isinstance(convolution, nn.Conv2d) and convolution.bias is not None:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.normal_(convolution.bias, std=1e-6)
