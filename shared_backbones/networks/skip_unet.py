"""A small U-Net in two or three dimensions whose first skip has the resolution of the input."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Arguments, Role
from shared_backbones.blocks.doubling import doubled
from shared_backbones.blocks.recomputation import recomputed
from shared_backbones.inference import fold_batch_norm

_CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_ROWS = 16


class SkipUnet(nn.Module):
    """U-Net (arXiv 1505.04597) that is thin where the image is large.

    Skips are added rather than concatenated, and features come up by a 1x1 convolution and repetition: at full
    resolution, where nearly all the time goes, one 3x3 convolution of `widths[0]` channels is left beside the first.
    So few channels tell few classes apart, so every level has a say: its logits are enlarged smoothly and added to
    those of the next. The input may have any size; it is padded to a multiple of the deepest stride by repeating its
    border.

    Args:
        num_classes: output channels.
        in_chans: input channels.
        dimensions: 2 or 3.
        widths: channels of every level, full resolution first; each further level has half the resolution.

    Attributes:
        arguments: the constructor's arguments, in JSON types.
        grad_checkpointing: whether activations are recomputed while training.
    """

    role: ClassVar[Role] = "segmenter"
    grad_checkpointing = False

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 1,
        dimensions: int = 3,
        widths: Sequence[int] = (8, 24, 48, 96, 128),
    ) -> None:
        super().__init__()
        if dimensions not in _CONVOLUTIONS or len(widths) < 2:
            raise ValueError(f"dimensions is {dimensions} and widths {list(widths)}, expected 2 or 3 and two widths")
        self.arguments: Arguments = {
            "num_classes": num_classes,
            "in_chans": in_chans,
            "dimensions": dimensions,
            "widths": list(widths),
        }
        self.stride = 2 ** (len(widths) - 1)
        self.stem = ConvNorm(in_chans, widths[0], dimensions)
        levels = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList(Down(upper, lower, dimensions) for upper, lower in levels)
        self.decoder = nn.ModuleList(Up(lower, upper, dimensions) for upper, lower in reversed(levels))
        self.heads = nn.ModuleList(_CONVOLUTIONS[dimensions](width, num_classes, 1) for width in reversed(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, num_classes, [D,] H, W)` of images `(B, in_chans, [D,] H, W)`."""
        shape = x.shape[2:]
        run = self._run
        skip = run(self.stem, self._padded(x))
        x, logits = self._lower_levels(run(self.encoder[0], skip))
        logits = doubled(logits).add_(self.heads[-1](run(self.decoder[-1], x, skip)))
        for axis, n in enumerate(shape, start=2):
            logits = logits.narrow(axis, 0, n)
        return logits

    def in_rows(self, x: Tensor, rows: int = _ROWS) -> Iterator[tuple[int, Tensor]]:
        """What `forward` gives, a few rows at once, for inference in little memory.

        Nothing is held whole at full resolution: the first features are computed twice, as they depend on rows nearby.

        Args:
            x: images `(B, in_chans, D, H, W)`.
            rows: rows along the first axis of space, an even number.

        Yields:
            First row and logits `(B, num_classes, n, H, W)` of the next `n` rows.
        """
        depth, *sides = x.shape[2:]
        image = self._padded(x)
        x, logits = self._lower_levels(self._halved_in_rows(image, rows))
        for start in range(0, depth, rows):
            stop = min(start + rows, image.shape[2])
            # one row more of the level below at either end, which is left out again
            low, high = max(0, start // 2 - 1), min(x.shape[2], -(-stop // 2) + 1)
            features = self.decoder[-1](x[:, :, low:high], self._stem_rows(image, 2 * low, 2 * high))
            part = doubled(logits[:, :, low:high]).add_(self.heads[-1](features))
            part = part[:, :, start - 2 * low :][:, :, : min(stop, depth) - start]
            for axis, n in enumerate(sides, start=3):
                part = part.narrow(axis, 0, n)
            yield start, part

    def _padded(self, x: Tensor) -> Tensor:
        """Images with their border repeated to a multiple of the deepest stride."""
        padding = [amount for n in reversed(x.shape[2:]) for amount in (0, -n % self.stride)]
        return F.pad(x, padding, mode="replicate") if any(padding) else x

    @property
    def _run(self) -> Callable[..., Tensor]:
        return recomputed if self.grad_checkpointing and self.training else _called

    def _lower_levels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded features and logits at half the resolution, from the encoder's features there."""
        features = [x]
        for down in self.encoder[1:]:
            features.append(self._run(down, features[-1]))
        x = features.pop()
        logits = self.heads[0](x)
        for up, head in zip(self.decoder[:-1], self.heads[1:-1], strict=True):
            x = self._run(up, x, features.pop())
            logits = doubled(logits).add_(head(x))
        return x, logits

    def _stem_rows(self, image: Tensor, start: int, stop: int) -> Tensor:
        """Some rows of the first features."""
        low, high = max(0, start - 1), min(image.shape[2], stop + 1)
        return self.stem(image[:, :, low:high])[:, :, start - low : stop - low]

    def _halved_in_rows(self, image: Tensor, rows: int) -> Tensor:
        """What the encoder makes of the first features, without holding them whole."""
        down = cast(Down, self.encoder[0])
        halved = []
        for start in range(0, image.shape[2], rows):
            low, stop = max(0, start - 2), min(start + rows, image.shape[2])
            halved.append(down.halve(self._stem_rows(image, low, stop))[:, :, (start - low) // 2 :])
        return down.refined(torch.cat(halved, 2))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, or keep them."""
        self.grad_checkpointing = enable


def _called(module: nn.Module, *inputs: Tensor) -> Tensor:
    return module(*inputs)


def _convolved(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """A 3x3 convolution, of large volumes in inference a few rows at once: its own copies then stay small."""
    stride, depth = conv.stride[0], x.shape[2]
    if torch.is_grad_enabled() or x.ndim < 5 or depth <= 2 * _ROWS or depth % stride:
        return conv(x)
    out = None
    for start in range(0, depth, _ROWS):
        low, stop = max(0, start - stride), min(start + _ROWS, depth)
        piece = conv(x[:, :, low : stop + 1 if stride == 1 else stop])
        if out is None:
            out = piece.new_empty(*piece.shape[:2], depth // stride, *piece.shape[3:])
        skipped = (start - low) // stride  # what the padding spoils
        rows = slice(start // stride, stop // stride)
        out[:, :, rows] = piece[:, :, skipped : skipped + rows.stop - rows.start]
    return conv(x) if out is None else out


class ConvNorm(nn.Module):
    """3x3 convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, dimensions: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = _CONVOLUTIONS[dimensions](in_channels, channels, 3, stride, 1, bias=False)
        self.norm: nn.Module = _NORMS[dimensions](channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, ...)` to `(B, channels, ...)`."""
        return F.relu(self.norm(_convolved(self.conv, x)), inplace=True)

    def fold_(self) -> None:
        """Fold the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d | nn.BatchNorm3d):
            self.conv, self.norm = fold_batch_norm(self.conv, self.norm), nn.Identity()


class Down(nn.Module):
    """Halve the map, then add a convolution of it."""

    def __init__(self, in_channels: int, channels: int, dimensions: int) -> None:
        super().__init__()
        self.halve = ConvNorm(in_channels, channels, dimensions, stride=2)
        self.refine = ConvNorm(channels, channels, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, 2H, ...)` to `(B, channels, H, ...)`."""
        return self.refined(self.halve(x))

    def refined(self, x: Tensor) -> Tensor:
        """Add a convolution of a halved map."""
        return x + self.refine(x)


class Up(nn.Module):
    """Double the map, add the skip, and refine."""

    def __init__(self, in_channels: int, channels: int, dimensions: int) -> None:
        super().__init__()
        self.narrow = _CONVOLUTIONS[dimensions](in_channels, channels, 1)
        self.refine = ConvNorm(channels, channels, dimensions)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map `(B, in_channels, H, ...)` with a skip `(B, channels, 2H, ...)` to `(B, channels, 2H, ...)`."""
        return self.refine(F.interpolate(self.narrow(x), scale_factor=2, mode="nearest").add_(skip))
