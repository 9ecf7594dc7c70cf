"""Grad-CAM as a picture, and as a layer over one."""

import numpy as np

_HEAT = np.array([[0, 0, 0], [70, 10, 110], [190, 50, 80], [250, 150, 20], [255, 250, 180]], np.float32)  # of a map


def cam_overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """An image with a map of `ImageClassifier.grad_cam` glowing over it.

    Args:
        image: `(C, H, W)` uint8, or floating point from 0 to 1; of other than three bands their mean is shown in grey.
        cam: `(H, W)` from 0 to 1.

    Returns:
        `(H, W, 3)` uint8.
    """
    values = image.astype(np.float32) * (1 if image.dtype == np.uint8 else 255)
    colors = values if len(values) == 3 else np.repeat(values.mean(0, keepdims=True), 3, 0)
    heat, opacity = _glow(cam)
    return np.clip(colors * (1 - opacity) + heat * opacity + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def cam_layer(cam: np.ndarray) -> np.ndarray:
    """What `cam_overlay` lays over an image, alone: a map `(H, W)` from 0 to 1 as `(H, W, 4)` uint8 with opacity."""
    heat, opacity = _glow(cam)
    return (np.concatenate([heat, 255 * opacity[None]]) + 0.5).astype(np.uint8).transpose(1, 2, 0)


def _glow(cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours `(3, H, W)` from 0 to 255 of a map, and their opacity `(H, W)` from 0 to 1."""
    place = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(cam, place, channel) for channel in _HEAT.T]), 0.6 * np.clip(cam, 0, 1)
