"""Pairs of galaxies, made of images of one each: what overlaps is a pair, what lies beside it is its surroundings."""

import math

import numpy as np

NEAR = (0.12, 0.33)  # distance of a pair's middles, in sides of the image
FAR = (0.4, 0.6)  # of a neighbour's, which is no part of it
_SIZES = (0.6, 1.1)  # of the second galaxy, relative to its own
_RIM = 8  # the outermost part of an image, in parts of its side, shows the sky


def add_galaxy(image: np.ndarray, second: np.ndarray, random: np.random.Generator, *, near: bool) -> np.ndarray:
    """Lay a galaxy of another image over an image: turned, of another size, and at a distance that is drawn.

    Values add up as `sqrt(a^2 + b^2)`: between the sum, which is right for fluxes, and the larger one, which is right
    for what a stretch has saturated. The second image's sky is taken off first.

    Args:
        image: `(S, S, C)` uint8, with a galaxy in the middle.
        second: the other image, of the same shape.
        random: generator of angle, size and place.
        near: whether the two overlap and the middle of the image lies between them; else the image stays where it is,
            and the second lies at its border.

    Returns:
        `(S, S, C)` uint8.
    """
    side = image.shape[0]
    distance = side * random.uniform(*(NEAR if near else FAR))
    direction = random.uniform(0, 2 * math.pi)
    step = distance * np.array([math.sin(direction), math.cos(direction)])
    back = step * random.uniform(0, 0.5) if near else 0 * step
    light = np.maximum(second.astype(np.float32) - _sky(second), 0)
    angle, size = random.uniform(0, 2 * math.pi), random.uniform(*_SIZES)
    added = _moved(light, step - back, angle=angle, size=size, mode="constant")
    below = _moved(image.astype(np.float32), -back, mode="nearest") if near else image.astype(np.float32)
    return np.clip(np.rint(np.hypot(below, added)), 0, 255).astype(np.uint8)


def _sky(image: np.ndarray) -> np.ndarray:
    """Median of each colour in the outermost part of an image."""
    width = max(1, image.shape[0] // _RIM)
    rim = np.ones(image.shape[:2], bool)
    rim[width:-width, width:-width] = False
    return np.median(image[rim], axis=0)


def _moved(image: np.ndarray, step: np.ndarray, *, mode: str, angle: float = 0.0, size: float = 1.0) -> np.ndarray:
    """An image turned and resized about its middle, then moved by a step in pixels; `mode` says what lies beyond it."""
    from scipy import ndimage

    cosine, sine = math.cos(angle) / size, math.sin(angle) / size
    matrix = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    middle = np.array([(image.shape[0] - 1) / 2, (image.shape[1] - 1) / 2, 0])
    matrix[:3, 3] = middle - matrix[:3, :3] @ (middle + np.append(step, 0))
    return ndimage.affine_transform(image, matrix, order=1, mode=mode)  # a matrix of homogeneous coordinates
