"""Learned places to look at: deformable attention (arXiv 2010.04159) and convolution (arXiv 1811.11168)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.inference import fold_batch_norm


class DeformableAttention(nn.Module):
    """Each query looks at a few places around its own in each of several maps, chosen and weighed by itself.

    Places between pixels are read bilinearly; beyond a map there are zeros.

    Args:
        dim: channels C of queries and values.
        heads: heads, each with its own places.
        levels: number of maps.
        points: places of each head in each map.
        value_ratio: channels that are read, as a multiple of C.

    Raises:
        ValueError: the heads do not divide the channels that are read.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int, value_ratio: float = 1.0) -> None:
        super().__init__()
        width = int(dim * value_ratio)
        if width % heads:
            raise ValueError(f"{width} channels of values: expected a multiple of {heads} heads")
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.value = nn.Linear(dim, width)
        self.projection = nn.Linear(width, dim)

    def initialise(self) -> None:
        """Let each head look in a direction of its own, one pixel further for each point, at all places alike."""
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], 1)
        direction = direction / direction.abs().amax(1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        places = direction[:, None, None] * steps[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(places.expand(self.heads, self.levels, self.points, 2).flatten())
        for zero in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(zero)
        for layer in (self.value, self.projection):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, value: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Map queries `(B, N, C)`, one for each pixel of the maps, and values `(B, N, C)` to `(B, N, C)`.

        Args:
            query: tokens that look.
            value: tokens of all maps, in raster order one map after the other.
            sizes: rows and columns of each map.
        """
        batch, count, _ = query.shape
        offsets = self.offsets(query).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.weights(query).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, self.levels, self.points)
        centres = pixel_centres(sizes, query)
        total = query.new_zeros(())
        start = 0
        values = self.value(value)
        for level, (rows, columns) in enumerate(sizes):
            part = values[:, start : start + rows * columns]
            start += rows * columns
            plane = part.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).unflatten(3, (rows, columns)).flatten(0, 1)
            extent = torch.tensor([columns, rows], dtype=query.dtype, device=query.device)
            places = centres[:, None, None] + offsets[:, :, :, level] / extent  # (B, N, heads, points, 2)
            places = (2 * places - 1).transpose(1, 2).flatten(0, 1)
            read = F.grid_sample(plane, places.to(plane.dtype), mode="bilinear", align_corners=False)
            read = read.unflatten(0, (batch, self.heads))  # (B, heads, channels, N, points)
            total = total + torch.einsum("bhcnp,bnhp->bnhc", read, weights[:, :, :, level])
        return self.projection(total.flatten(2))


def pixel_centres(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Centres of the pixels of several maps, `(N, 2)` of x and y from 0 to 1; computed in float32 at least."""
    centres, kind = [], torch.promote_types(like.dtype, torch.float32)
    for rows, columns in sizes:
        y = (torch.arange(rows, dtype=kind, device=like.device) + 0.5) / rows
        x = (torch.arange(columns, dtype=kind, device=like.device) + 0.5) / columns
        centres.append(torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], 2).flatten(0, 1))
    return torch.cat(centres).to(like.dtype)


class DeformableConvolution(nn.Module):
    """3x3 convolution whose nine places are moved and weighed at each pixel, batch norm and ReLU.

    Places between pixels are read bilinearly; beyond the map there are zeros.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(in_channels, 27, 3, padding=1)
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)  # its weights alone are used
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, H, W)`."""
        rows, columns = x.shape[2:]
        moves = self.offsets(x)
        kind = torch.promote_types(x.dtype, torch.float32)
        y, z = (torch.arange(count, dtype=kind, device=x.device) for count in (rows, columns))
        step = torch.arange(-1, 2, dtype=kind, device=x.device)
        # (B, 9, H, W) of row and of column; the offsets are pairs of them, tap after tap
        down = y[:, None] + step.repeat_interleave(3)[:, None, None] + moves[:, 0:18:2]
        across = z + step.repeat(3)[:, None, None] + moves[:, 1:18:2]
        places = torch.stack([(2 * across + 1) / columns - 1, (2 * down + 1) / rows - 1], 4).flatten(1, 2)
        read = F.grid_sample(x, places.to(x.dtype), mode="bilinear", align_corners=False).unflatten(2, (9, rows))
        taps = (read * moves[:, 18:].sigmoid()[:, None]).flatten(1, 2)  # (B, in_channels * 9, H, W)
        kernel = self.convolution.weight.flatten(1)[:, :, None, None]
        return F.relu(self.norm(F.conv2d(taps, kernel, self.convolution.bias)))

    def fold_(self) -> None:
        """Fold the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution, self.norm = fold_batch_norm(self.convolution, self.norm), nn.Identity()
