"""`winners` is torch's `max`, ties included."""

import pytest
import torch

from shared_backbones.winners import winners


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 4), (3, 5, 0), (9, 6, 7, 8), (255, 40)])
def test_it_is_the_maximum_and_the_first_of_equal_ones(dtype: torch.dtype, shape: tuple[int, ...]):
    scores = torch.randint(0, 7, shape).to(dtype)
    best, winner = winners(scores)
    assert torch.equal(best, scores.amax(0)) and winner.dtype == torch.uint8
    first = (scores == scores.amax(0)).to(torch.uint8).argmax(0) if scores.numel() else winner
    assert torch.equal(winner.long(), first.long())


def test_views_are_taken_and_left_as_they_are():
    scores = torch.randn(4, 6, 8)[:, ::2].transpose(1, 2)
    before = scores.clone()
    best, winner = winners(scores)
    assert torch.equal(best, before.max(0).values) and torch.equal(winner.long(), before.max(0).indices)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("classes", [0, 256])
def test_numbers_of_classes_that_do_not_fit(classes: int):
    with pytest.raises(ValueError, match="1 to 255"):
        winners(torch.zeros(classes, 3))
