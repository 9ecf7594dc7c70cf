"""Whether there is anything in the middle of an image: how far it stands out of what lies along the rim."""

import numpy as np
import torch
from torch import Tensor

_MIDDLE, _RIM = 0.06, 0.40  # distances from the centre, as fractions of the side
_STEP = 1 / 255  # of 8-bit images: noise below it cannot be told
_SIGMA = 1.4826  # standard deviation of normal noise, over its median absolute deviation


def contrast_of_middle(images: Tensor) -> np.ndarray:
    """Brightness of the middle above the rim's median, in standard deviations of the rim's pixels.

    Args:
        images: `(N, C, H, W)`, values from 0 to 1; the mean of the bands is looked at.

    Returns:
        `(N,)` float64: about 0 for empty sky, for noise, and where sources lie anywhere but in the middle.
    """
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width]
    distance = torch.from_numpy(np.hypot((y - (height - 1) / 2) / height, (x - (width - 1) / 2) / width))
    grey = images.float().mean(1).cpu()
    middle = grey[:, distance <= max(_MIDDLE, float(distance.min()))].mean(1)
    rim = grey[:, distance >= min(_RIM, float(distance.max()))]
    sky = rim.median(1).values
    noise = _SIGMA * (rim - sky[:, None]).abs().median(1).values
    return ((middle - sky) / (noise + _STEP)).double().numpy()
