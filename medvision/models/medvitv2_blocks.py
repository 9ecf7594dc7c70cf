"""Blocks of MedViTV2 (arXiv 2502.13693): neighbourhood attention, pooled attention, KAN feed-forwards."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.blocks.convolution import ConvNormAct, SqueezeExcitation
from shared_backbones.blocks.kan import Kan
from shared_backbones.blocks.neighborhood_attention import NeighborhoodAttention
from shared_backbones.blocks.transformer import DropPath
from shared_backbones.inference import batch_norm_affine

HEAD_DIM = 32


class PatchEmbedding(nn.Module):
    """Halve a map by 2x2 means (of what there is, at odd borders) where asked, and change its channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        same = stride == 1 and in_channels == channels
        self.project = nn.Identity() if same else ConvNormAct(in_channels, channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, ceil(H / stride), ceil(W / stride))`."""
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return self.project(x)


class LocalBlock(nn.Module):
    """Neighbourhood attention, then a convolutional feed-forward (the paper's LFP).

    As released, the feed-forward's normed input is added in addition to the block's residual.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        convolution_size: int,
        kernel_size: int,
        dilation: int,
        tokens: str,
        drop_path: float,
    ) -> None:
        super().__init__()
        hidden = 3 * channels
        self.reinterpreted = tokens == "reinterpreted"
        self.patch_embedding = PatchEmbedding(in_channels, channels, stride)
        self.norm1: nn.Module = nn.BatchNorm2d(channels)
        self.attention = NeighborhoodAttention(channels, channels // HEAD_DIM, kernel_size, dilation)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.BatchNorm2d(channels)
        self.expand = ConvNormAct(channels, hidden, 1, activation=F.hardswish)
        self.depthwise = ConvNormAct(hidden, hidden, convolution_size, groups=hidden, activation=F.hardswish)
        self.se = SqueezeExcitation(hidden, hidden // channels, gate=F.hardsigmoid)
        self.project = ConvNormAct(hidden, channels, 1, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""
        x = self.patch_embedding(x)
        attended = _from_tokens(self.attention(_to_tokens(self.norm1(x), self.reinterpreted)), self.reinterpreted)
        x = x + self.drop_path(attended)
        normed = self.norm2(x)
        return x + normed + self.project(self.se(self.depthwise(self.expand(normed))))

    def fold_(self) -> None:
        """Fold the first norm into the attention's input where tokens are pixels, whose channels it scales."""
        if isinstance(self.norm1, nn.BatchNorm2d) and not self.reinterpreted:
            _fold_into(self.attention.qkv, *batch_norm_affine(self.norm1))
            self.norm1 = nn.Identity()


class GlobalBlock(nn.Module):
    """Attention to pooled tokens beside a grouped convolution, then a KAN over all channels (the paper's GFP)."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, ratio: int, mix: float, tokens: str, drop_path: float
    ) -> None:
        super().__init__()
        attended = _make_divisible(int(mix * channels))
        convolved = channels - attended
        if convolved < HEAD_DIM:
            raise ValueError(
                f"dims {channels} with mix_block_ratio {mix:g} leaves {convolved} channels to the convolution, "
                f"expected {HEAD_DIM} or more; take wider dims or a smaller mix_block_ratio"
            )
        self.reinterpreted = tokens == "reinterpreted"
        self.patch_embedding = PatchEmbedding(in_channels, attended, stride)
        self.norm1: nn.Module = nn.BatchNorm2d(attended)
        self.attention = PooledAttention(attended, ratio)
        self.reduce = ConvNormAct(attended, convolved, 1, activation=None) if attended != convolved else nn.Identity()
        self.grouped = nn.Sequential(
            ConvNormAct(convolved, convolved, groups=convolved // HEAD_DIM),
            nn.Conv2d(convolved, convolved, 1, bias=False),
        )
        self.norm2 = nn.BatchNorm2d(channels)
        self.kan = Kan([channels, 2 * channels, channels])
        self.drop_path1, self.drop_path2 = DropPath(drop_path * mix), DropPath(drop_path * (1 - mix))
        self.drop_path3 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / stride, W / stride)`."""
        x = self.patch_embedding(x)
        tokens = self.norm1(x).permute(0, 2, 3, 1)
        attended = self.attention(tokens.flatten(1, 2)).unflatten(1, tokens.shape[1:3]).permute(0, 3, 1, 2)
        x = x + self.drop_path1(attended)
        y = self.reduce(x)
        x = torch.cat([x, y + self.drop_path2(self.grouped(y))], 1)
        mixed = self.kan(_to_tokens(self.norm2(x), self.reinterpreted))
        return x + self.drop_path3(_from_tokens(mixed, self.reinterpreted))

    def fold_(self) -> None:
        """Fold the first norm into the attention's linear maps."""
        if isinstance(self.norm1, nn.BatchNorm2d):
            scale, shift = batch_norm_affine(self.norm1)
            for linear in (self.attention.query, self.attention.key, self.attention.value):
                _fold_into(linear, scale, shift)
            self.norm1 = nn.Identity()


class PooledAttention(nn.Module):
    """Multi-head attention whose keys and values are means of runs of `ratio ** 2` tokens, in raster order.

    As released, what is left over at the end of the tokens has no key. Where there are fewer tokens than one run takes,
    one run takes them all.
    """

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.run = ratio**2
        self.num_heads = dim // HEAD_DIM
        self.query, self.key, self.value, self.projection = (nn.Linear(dim, dim) for _ in range(4))
        self.norm: nn.Module = nn.BatchNorm1d(dim) if self.run > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Attend: `(B, N, C)` to `(B, N, C)`."""
        pooled = x
        if self.run > 1:
            run = min(self.run, x.shape[1])
            count = x.shape[1] // run
            pooled = x[:, : count * run].unflatten(1, (count, run)).mean(2)
            if isinstance(self.norm, nn.BatchNorm1d):
                pooled = self.norm(pooled.transpose(1, 2)).transpose(1, 2)
        query, key, value = (
            linear(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for linear, tokens in ((self.query, x), (self.key, pooled), (self.value, pooled))
        )
        return self.projection(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def fold_(self) -> None:
        """Fold the norm of the pooled tokens into keys and values."""
        if isinstance(self.norm, nn.BatchNorm1d):
            scale, shift = batch_norm_affine(self.norm)
            for linear in (self.key, self.value):
                _fold_into(linear, scale, shift)
            self.norm = nn.Identity()


def _to_tokens(x: Tensor, reinterpreted: bool) -> Tensor:
    """A map `(B, C, H, W)` as `(B, H, W, C)`: its memory re-read, or its axes permuted."""
    if not reinterpreted:
        return x.permute(0, 2, 3, 1)
    batch, channels, height, width = x.shape
    return x.reshape(batch, height, width, channels)


def _from_tokens(x: Tensor, reinterpreted: bool) -> Tensor:
    """The way back from `_to_tokens`."""
    if not reinterpreted:
        return x.permute(0, 3, 1, 2)
    batch, height, width, channels = x.shape
    return x.reshape(batch, channels, height, width)


def _fold_into(linear: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Change `linear(x)` into `linear(x * scale + shift)`."""
    linear.bias = nn.Parameter(linear.bias + linear.weight @ shift, requires_grad=False)
    linear.weight = nn.Parameter(linear.weight * scale, requires_grad=False)


def _make_divisible(value: int, divisor: int = HEAD_DIM) -> int:
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
