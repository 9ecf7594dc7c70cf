"""ResNet (arXiv 1512.03385) as a pyramid of four maps, with torchvision's parts under torchvision's names."""

import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.inference import fold_batch_norm

# blocks per stage, and whether they are bottlenecks
VARIANTS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class ResNet(nn.Module):
    """A ResNet without its classifier; a state dict of torchvision's, less `fc`, fits.

    Bottlenecks carry their stride in the 3x3 convolution (torchvision's "v1.5").

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_chans: channels of the image.
        max_pool: keep the pooling after the first convolution; without it every map has twice the size.
        width: channels of the first stage's blocks.

    Attributes:
        channels: number of channels of each of the four maps.
        reductions: image pixels per pixel of each map, along one axis.
    """

    def __init__(self, depth: int, in_chans: int = 3, *, max_pool: bool = True, width: int = 64) -> None:
        super().__init__()
        if depth not in VARIANTS:
            raise ValueError(f"ResNet depth {depth} is unknown; known: {', '.join(map(str, VARIANTS))}")
        blocks, bottleneck = VARIANTS[depth]
        block = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(in_chans, width, 7, 2, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.max_pool = nn.MaxPool2d(3, 2, 1) if max_pool else nn.Identity()
        channels = width
        for stage, count in enumerate(blocks):
            layers = []
            for index in range(count):
                layers.append(block(channels, width * 2**stage, stride=2 if stage and not index else 1))
                channels = width * 2**stage * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.channels = tuple(width * 2**stage * block.expansion for stage in range(4))
        self.reductions = tuple((4 if max_pool else 2) * 2**stage for stage in range(4))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """First convolution, norm and ReLU, before any pooling: `(B, C, H, W)` to `(B, 64, H / 2, W / 2)`."""
        return F.relu(self.bn1(self.conv1(x)), inplace=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the four stages, `(B, channels[i], H / reductions[i], W / reductions[i])`, of `(B, C, H, W)`."""
        x = self.max_pool(self.stem(x))
        maps = []
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
            maps.append(x)
        return maps

    def fold_(self) -> None:
        """Fold the first batch norm."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            self.conv1, self.bn1 = fold_batch_norm(self.conv1, self.bn1), nn.Identity()


class _Block(nn.Module):
    """Two or three convolutions with batch norm, and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, kernels: tuple[int, ...], stride: int, strided: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        widths = [in_channels, *[width] * (len(kernels) - 1), out_channels]
        for i, kernel in enumerate(kernels):
            step = stride if i == strided else 1
            self.add_module(f"conv{i + 1}", nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.depth = len(kernels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, width * expansion, H / stride, W / stride)`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            if i < self.depth:
                x = F.relu(x, inplace=True)
        return F.relu(x + shortcut, inplace=True)

    def fold_(self) -> None:
        """Fold the batch norms into their convolutions."""
        for i in range(1, self.depth + 1):
            norm = getattr(self, f"bn{i}")
            if isinstance(norm, nn.BatchNorm2d):
                fold_batch_norm(getattr(self, f"conv{i}"), norm)
                setattr(self, f"bn{i}", nn.Identity())
        if self.downsample is None:
            return
        convolution, norm = self.downsample.children()
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            self.downsample = nn.Sequential(fold_batch_norm(convolution, norm), nn.Identity())


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, width, (3, 3), stride, 0)


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions; the last has four times the width."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, width, (1, 3, 1), stride, 1)
