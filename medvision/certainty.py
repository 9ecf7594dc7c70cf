"""Where along the body axis a network was least sure of a structure."""

import torch
from torch import Tensor

SMALLEST_SHARE = 0.25  # of a structure's largest slice; its tips are always the least certain


def weakest_slices(scores: Tensor, full: float) -> dict[int, tuple[int, float]]:
    """The axial slice of each class in which its winning scores are lowest on average.

    Args:
        scores: class scores `(K, X, Y, Z)`, axes RAS.
        full: the score of certainty.

    Returns:
        By class that wins somewhere: position along Z, and the mean winning score there, in [0, 1]. Slices with less
        than `SMALLEST_SHARE` of the voxels of the class's largest one do not count.
    """
    classes, depth = scores.shape[0], scores.shape[3]
    counts, sums = torch.zeros(depth, classes), torch.zeros(depth, classes, dtype=torch.float64)
    for place in range(depth):
        best, winner = scores[..., place].flatten(1).max(0)
        counts[place] = torch.bincount(winner, minlength=classes)
        sums[place] = torch.bincount(winner, weights=best.double(), minlength=classes)
    means = sums / counts.clamp(min=1) / full
    means[counts < (SMALLEST_SHARE * counts.max(0).values).clamp(min=1)] = torch.inf
    lowest, places = means.min(0)
    return {k: (int(places[k]), float(lowest[k])) for k in range(classes) if torch.isfinite(lowest[k])}
