"""HBFormer: a Swin encoder bridged to a convolutional decoder with dynamic dilated convolutions (arXiv 2512.03597)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.models.hbformer_names import UNUSED, official_name
from shared_backbones import official
from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.attention import WindowAttention
from shared_backbones.blocks.convolution import DynamicDilatedConvolution
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.blocks.transformer import DropPath, Mlp
from shared_backbones.inference import fold_batch_norm, fold_pointwise

STRIDE = 32  # of the deepest feature; inputs are padded to a multiple of it
COMPACT: Arguments = {
    "feature_size": 16,
    "depths": (2, 2, 2, 2),
    "head_dim": 16,
    "drop_path_rate": 0.05,
}


class HBFormer(nn.Module):
    """Segmentation network of Zheng et al., *HBFormer* (IEEE BIBM 2025), as its released code computes it.

    The input may have any height and width: it is padded at the bottom and right by repeating its edge, to a multiple
    of 32, and the output is cropped. At sizes the released code accepts, outputs equal it.

    Args:
        num_classes: output channels.
        in_chans: input channels.
        stem_channels: channels after the first 1x1 convolution.
        feature_size: width n of the last decoder level; the encoder starts at 2n.
        depths: blocks in each of the four encoder stages.
        head_dim: channels of an attention head; divides 2n.
        window_size: attention window in tokens; by default 7 where `img_size` is a multiple of 224, else 8.
        img_size: nominal height and width in pixels. It only fixes how large the bias tables are: a stage whose map
            is smaller than the window has a smaller table. Other sizes still run.
        drop_path_rate: stochastic depth of the last encoder block; it rises linearly from 0.
        experts: experts in each dynamic convolution.
        dilations: dilation rates of the dynamic convolutions.

    Attributes:
        arguments: the constructor's arguments, in JSON types: `HBFormer(**arguments)` builds an equal network.
    """

    role: ClassVar[Role] = "segmenter"
    renamed_arguments: ClassVar[dict[str, str]] = {"in_channels": "in_chans"}

    def __init__(
        self,
        num_classes: int = 9,
        in_chans: int = 3,
        stem_channels: int = 3,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 6, 2),
        head_dim: int = 32,
        window_size: int | None = None,
        img_size: int | Sequence[int] = (256, 256),
        drop_path_rate: float = 0.2,
        experts: int = 4,
        dilations: Sequence[int] = (1, 4, 8),
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if window_size is None:
            window_size = 7 if height % 224 == 0 and width % 224 == 0 else 8
        if len(depths) != 4 or (2 * feature_size) % head_dim:
            raise ValueError(
                f"depths {list(depths)} must name four stages, head_dim {head_dim} divide 2 x {feature_size}"
            )
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "stem_channels": stem_channels,
            "feature_size": feature_size,
            "depths": list(depths),
            "head_dim": head_dim,
            "window_size": window_size,
            "img_size": [height, width],
            "drop_path_rate": drop_path_rate,
            "experts": experts,
            "dilations": list(dilations),
        }
        self.grad_checkpointing = False
        n = feature_size
        grid = -(-height // STRIDE) * STRIDE // 4, -(-width // STRIDE) * STRIDE // 4
        self.input_projection = nn.Conv2d(in_chans, stem_channels, 1)
        self.encoder = SwinEncoder(stem_channels, 2 * n, depths, head_dim, window_size, grid, drop_path_rate)
        self.skip_projections = nn.ModuleList(nn.Conv2d(2 * n * 2**i, n * 2**i, 1) for i in range(3))
        self.decoders = nn.ModuleList(
            Decoder(n * 2**level, experts=experts, dilations=dilations) for level in (3, 2, 1, 0)
        )
        self.head = Head(n, num_classes)

    @classmethod
    def compact(cls, *, num_classes: int, in_chans: int, **arguments: Any) -> "HBFormer":
        """The small variant, practical on two CPU cores; `arguments` go over those of `COMPACT`."""
        arguments = {"stem_channels": in_chans, **COMPACT, **arguments}
        return cls(num_classes=num_classes, in_chans=in_chans, **arguments)

    @classmethod
    def from_official(cls, path_or_state_dict: official.Source, **arguments: Any) -> "HBFormer":
        """Build an HBFormer with the weights of the released code (lzeeorno/HBFormer, December 2025 generation).

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers and profiler entries are removed.
            arguments: arguments of `HBFormer` as they were when the weights were trained; the released code's
                `args.dataset`, which only chose the number of classes, is accepted.

        Raises:
            InputError: the entries are not those of the released code, or do not fit `arguments`.
        """
        arguments.pop("args.dataset", None)
        model = cls(**arguments)
        rates, experts = len(model.arguments["dilations"]), model.arguments["experts"]
        names = {name: official_name(name, rates, experts) for name in model.state_dict()}
        official.load_foreign(model, path_or_state_dict, names, UNUSED)
        return model.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, H, W)` of images `(B, in_chans, H, W)`."""
        height, width = x.shape[2:]
        below, right = -height % STRIDE, -width % STRIDE
        if below or right:
            x = F.pad(x, (0, right, 0, below), mode="replicate")
        recompute = self.grad_checkpointing and self.training
        c1, c2, c3, c4 = self.encoder(self.input_projection(x), recompute)
        # The bridge: every skip but the deepest comes from one level below its decoder.
        skips = [c3]
        for projection, feature in zip(reversed(self.skip_projections), (c3, c2, c1), strict=True):
            skips.append(F.interpolate(projection(feature), scale_factor=2, mode="bilinear", align_corners=True))
        x = c4
        for decoder, skip in zip(self.decoders, skips, strict=True):
            x = recomputed(decoder, x, skip) if recompute else decoder(x, skip)
        return self.head(x)[:, :, :height, :width]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """While training, recompute the activations of blocks and decoders instead of keeping them."""
        self.grad_checkpointing = enable

    def fold_(self) -> None:
        """Merge the first 1x1 convolution into the patch embedding."""
        if isinstance(self.input_projection, nn.Conv2d):
            fold_pointwise(self.input_projection, self.encoder.patch_embedding.projection)
            self.input_projection = nn.Identity()


class SwinEncoder(nn.Module):
    """Swin Transformer (arXiv 2103.14030) as a pyramid of four unnormalised features.

    Args:
        in_channels: channels of the image.
        width: channels C of the first stage; they double from stage to stage.
        depths: blocks per stage.
        head_dim: channels of an attention head.
        window_size: attention window in tokens.
        grid: nominal height and width of the first stage's map in tokens.
        drop_path_rate: stochastic depth of the last block.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        depths: Sequence[int],
        head_dim: int,
        window_size: int,
        grid: tuple[int, int],
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(in_channels, width)
        last = max(1, sum(depths) - 1)
        rates = (drop_path_rate * block / last for block in range(sum(depths)))
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            dim = width * 2**stage
            window = min(window_size, grid[0] >> stage), min(window_size, grid[1] >> stage)
            blocks = [
                SwinBlock(dim, dim // head_dim, window, shifted=i % 2 == 1, drop_path=next(rates)) for i in range(depth)
            ]
            self.stages.append(SwinStage(PatchMerging(dim // 2) if stage else nn.Identity(), blocks))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, recompute: bool = False) -> list[Tensor]:
        """Features `(B, C * 2**i, H / 4 / 2**i, W / 4 / 2**i)`, i = 0..3, channels_last; H, W multiples of 32.

        With `recompute` the blocks' activations are not kept for the backward pass.
        """
        x = self.patch_embedding(x)
        features = []
        for stage in self.stages:
            x = stage(x, recompute)
            features.append(x.permute(0, 3, 1, 2))
        return features


class PatchEmbedding(nn.Module):
    """Tokens of 4x4 pixels: `(B, C, H, W)` to `(B, H / 4, W / 4, D)`."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the image's patches."""
        return self.norm(self.projection(x).permute(0, 2, 3, 1))


class SwinStage(nn.Module):
    """Patch merging (none in the first stage), then blocks."""

    def __init__(self, merging: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.merging = merging
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Map `(B, H, W, C)` to the stage's output in the same layout."""
        x = self.merging(x)
        for block in self.blocks:
            x = recomputed(block, x) if recompute else block(x)
        return x


class PatchMerging(nn.Module):
    """Halve a map and double its channels: `(B, H, W, C)`, H and W even, to `(B, H / 2, W / 2, 2C)`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Join 2x2 neighbours, column parity before row parity, and project them."""
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class SwinBlock(nn.Module):
    """Pre-norm transformer block with window attention on maps `(B, H, W, C)`."""

    def __init__(
        self, dim: int, num_heads: int, window_size: tuple[int, int], *, shifted: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm1 = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, num_heads, window_size, shifted=shifted)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Add attention, then the feed-forward, each dropped for whole samples while training."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Decoder(nn.Module):
    """Double the map, join the skip, and refine: `(B, 2n, H, W)` with `(B, n, 2H, 2W)` to `(B, n, 2H, 2W)`."""

    def __init__(self, channels: int, *, experts: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.residual = ResidualBlock(2 * channels, channels)
        self.dilated = DynamicDilatedConvolution(channels, experts=experts, dilations=dilations)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Decode one level; the norm comes after the ReLU."""
        x = self.residual(torch.cat([self.upsample(x), skip], 1))
        return self.norm(F.relu(self.dilated(x)))


class ResidualBlock(nn.Module):
    """The paper's long-range-dependency block, as released: an ordinary residual 3x3 block."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, channels, H, W)`."""
        main = self.norm2(self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), 0.01)))
        return F.leaky_relu(main + self.shortcut(x), 0.01)

    def fold_(self) -> None:
        """Fold the batch norms into their convolutions."""
        if isinstance(self.norm1, nn.BatchNorm2d) and isinstance(self.norm2, nn.BatchNorm2d):
            self.conv1, self.norm1 = fold_batch_norm(self.conv1, self.norm1), nn.Identity()
            self.conv2, self.norm2 = fold_batch_norm(self.conv2, self.norm2), nn.Identity()


class Head(nn.Module):
    """Double the map and classify pixels; two linear maps in a row."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, n, H, W)` to logits `(B, num_classes, 2H, 2W)`."""
        return self.classifier(self.upsample(x))

    def fold_(self) -> None:
        """Merge both maps where that is less work: 4nK products per pixel instead of 4nn + nK, K classes."""
        up, classifier = self.upsample, self.classifier
        if not isinstance(classifier, nn.Conv2d):
            return  # already folded
        channels, classes = classifier.in_channels, classifier.out_channels
        if 4 * classes < 4 * channels + classes:
            up.weight = nn.Parameter(
                torch.einsum("iokl,co->ickl", up.weight, classifier.weight[:, :, 0, 0]), requires_grad=False
            )
            up.bias, up.out_channels = classifier.bias, classes
            self.classifier = nn.Identity()
