"""Whether a volume's values look like those of a CT."""

import math

import numpy as np

_SAMPLE = 1e6  # voxels looked at
_AIR, _AIR_WIDTH, _LEAST_AIR = -1000, 150, 0.05
_TISSUE = -500  # lungs and air lie below
_SOFT, _LEAST_SOFT = (-20, 120), 0.3


def looks_like_hounsfield(image: np.ndarray) -> bool:
    """Whether values (X, Y, Z) look like Hounsfield units: air near -1000, and soft tissue near 0 to 100.

    At least a twentieth of the voxels must be such air, and three tenths of those that are neither air nor lung such
    tissue. Negative values alone, as of scans scaled to mean 0 or shifted, are none.
    """
    step = max(1, math.ceil((image.size / _SAMPLE) ** (1 / 3)))
    values = image[::step, ::step, ::step]
    tissue = values[values > _TISSUE]
    if tissue.size == 0 or np.mean(np.abs(values - np.float64(_AIR)) <= _AIR_WIDTH) < _LEAST_AIR:
        return False
    return bool(np.mean((tissue >= _SOFT[0]) & (tissue <= _SOFT[1])) >= _LEAST_SOFT)
