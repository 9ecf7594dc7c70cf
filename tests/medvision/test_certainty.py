"""The slice in which a structure is least certain."""

import torch

from medvision.certainty import weakest_slices


def test_the_slice_of_lowest_winning_scores():
    scores = torch.zeros(3, 4, 5, 6, dtype=torch.int16)
    scores[0] = 200
    scores[1, :, :3, 1:4] = 240
    scores[1, :, :3, 2] = 210
    scores[1, 0, 0, 4] = 201  # one voxel of the thirteen that a slice may have: too few
    found = weakest_slices(scores, 255)
    assert found[1] == (2, 210 / 255)
    assert found[0][0] in range(6) and found[0][1] == 200 / 255
    assert 2 not in found, "a class that wins nowhere has no slice"


def test_several_views_are_summed_scores():
    scores = torch.zeros(2, 2, 2, 3, dtype=torch.int16)
    scores[1] = 600
    scores[1, ..., 2] = 510
    assert weakest_slices(scores, 255 * 3)[1] == (2, 510 / 765)
