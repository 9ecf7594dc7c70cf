"""Views of a batch for training and evaluation, made on the device where the network is."""

import torch
import torch.nn.functional as F
from torch import Tensor


def random_crops(images: Tensor, size: int, crop: tuple[float, float], mirrored: bool = True) -> Tensor:
    """Cut a random part out of every image, enlarge it to `size` (bicubic), and mirror half of them.

    The shares of the area and the sides' ratios (3/4 to 4/3) are drawn as torchvision's RandomResizedCrop draws them;
    all draws come from the device's generator. Where a crop is larger than `size` nothing is smoothed beforehand.

    Args:
        images: `(B, C, H, W)` floating point.
        size: side of the result in pixels.
        crop: smallest and largest share of the area.
        mirrored: whether half of them are mirrored.

    Returns:
        `(B, C, size, size)`.
    """
    count = len(images)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(count, device=images.device, dtype=images.dtype) * (high - low) + low

    area, stretch = draw(*crop), draw(-0.28768207, 0.28768207).exp()
    width, height = (area * stretch).sqrt().clamp(max=1), (area / stretch).sqrt().clamp(max=1)
    x, y = (1 - width) * draw(-1, 1), (1 - height) * draw(-1, 1)
    direction = torch.where(draw(0, 1) < 0.5, 1.0, -1.0)
    width = width * direction if mirrored else width
    zero = torch.zeros_like(x)
    affine = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(affine, [count, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def central_views(images: Tensor, size: int) -> Tensor:
    """The published view of an evaluation: the side brought to `size / 0.875` (bicubic), and the middle cut out."""
    large = evaluation_views(images, int(size / 0.875))
    start = (large.shape[2] - size) // 2
    return large[:, :, start : start + size, start : start + size]


def pyramid(images: Tensor, scales: int) -> list[Tensor]:
    """Images at falling resolution, halved `scales` times: the network's input last, its largest target first.

    The mean of 2 x 2 pixels is what the released code's bilinear halving gives.
    """
    levels = [images]
    for _ in range(scales):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def evaluation_views(images: Tensor, size: int) -> Tensor:
    """Whole images at `size` (bicubic, smoothed where they shrink), without chance."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False)


def removed_pixels(mask: Tensor, patch: int, grid: tuple[int, int], groups: "list[list[int]] | None") -> Tensor:
    """Pixels that the encoder did not see, `(B, C, H, W)` bool, or `(B, 1, H, W)` without groups.

    Args:
        mask: `(B, L)`, or with groups `(B, G, L)`.
        patch: side of a patch.
        grid: patches down and across.
        groups: bands of each group.
    """
    if groups is None:
        return mask.unflatten(1, grid)[:, None].repeat_interleave(patch, 2).repeat_interleave(patch, 3) > 0
    home = [next(g for g, group in enumerate(groups) if band in group) for band in range(sum(map(len, groups)))]
    maps = mask.unflatten(2, grid)[:, home]
    return maps.repeat_interleave(patch, 2).repeat_interleave(patch, 3) > 0
