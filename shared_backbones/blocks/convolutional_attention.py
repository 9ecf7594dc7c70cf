"""Attention of each pixel to a window around it, whose result is convolved (TiC, arXiv 2310.04134)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionalAttention(nn.Module):
    """MSA-Conv: single-head attention to the K x K pixels around, a residual, a convolution and ReLU.

    Beyond the image keys and values are zeros, which take part: their scores are 0, and are not shut out. The released
    layer computes in float32 whatever it is given; here the type of the input is kept.

    Args:
        in_channels: channels C of the input, and of queries, keys and values.
        out_channels: channels of the result.
        kernel_size: side K of the window, and of the convolution, odd.
        stride: step of the convolution in pixels.
        dilation: distance between neighbours of the window, in pixels.
        padding: pixels around the map for the convolution alone; the window's is such that each pixel is in its middle.
        bias: whether the convolution has one.
        dropout: share of attention weights dropped while training.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        padding: int = 1,
        bias: bool = False,
        *,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, expected an odd number")
        self.kernel_size, self.dilation, self.dropout = kernel_size, dilation, dropout
        self.qkv = nn.Conv2d(in_channels, 3 * in_channels, 1)
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, ...)`, of the size that the convolution gives."""
        return F.relu(self.convolution(self.attend(x)))

    def attend(self, x: Tensor) -> Tensor:
        """What is convolved: the input and what its pixels see, `(B, in_channels, H, W)`."""
        query, key, value = self.qkv(x).chunk(3, 1)
        scores = torch.stack([(query * near).sum(1) for near in self._neighbours(key)], 1) * x.shape[1] ** -0.5
        weights = F.dropout(scores.softmax(1), self.dropout, self.training)
        seen = [weight[:, None] * near for weight, near in zip(weights.unbind(1), self._neighbours(value), strict=True)]
        return x + torch.stack(seen).sum(0)

    def _neighbours(self, x: Tensor) -> list[Tensor]:
        """For each place of the window, row by row, the map moved so that it lies on the pixels that see it."""
        height, width = x.shape[2:]
        border = self.dilation * (self.kernel_size // 2)
        padded = F.pad(x, (border, border, border, border))
        steps = [self.dilation * i for i in range(self.kernel_size)]
        return [padded[:, :, row : row + height, column : column + width] for row in steps for column in steps]
