"""Mask classification: what is made of queries, and the loss they are taught by."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_backbones.networks.mask_queries import (
    MaskQueries,
    MaskTarget,
    instances,
    match,
    matching_loss,
    panoptic,
)

SURE = 12.0


def squares(*corners: tuple[int, int]) -> torch.Tensor:
    """Masks of 4 x 4 pixels in a map of 12 x 12."""
    masks = torch.zeros(len(corners), 12, 12)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[row : row + 4, column : column + 4] = 1
    return masks


def queries(labels: list[int], masks: torch.Tensor, classes: int = 3, sure: float = SURE) -> MaskQueries:
    """Queries that are sure of their classes and masks; label `classes` stands for nothing."""
    return MaskQueries(sure * F.one_hot(torch.tensor([labels]), classes + 1).float(), sure * (2 * masks[None] - 1))


def test_a_pixel_has_the_probability_of_class_and_mask() -> None:
    found = MaskQueries(torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]), torch.zeros(1, 2, 1, 1))
    assert found.semantic().tolist() == [[[[0.5]]]]  # two queries of 1/2 x 1/2


def test_instances_are_the_surest_pairs_and_none_is_empty() -> None:
    masks = torch.cat([squares((0, 0), (6, 6)), torch.zeros(1, 12, 12)])
    unequal = queries([1, 2, 0], masks)
    unequal.classes[0, 1] *= 0.9
    (found,) = instances(unequal, count=3)
    assert found.classes.tolist() == [1, 2] and torch.equal(found.masks.float(), masks[:2])
    assert (found.scores > 0.99).all()
    (things,) = instances(queries([1, 2, 0], masks), things=[2])
    assert things.classes[0] == 2


def test_a_panoptic_map_gives_each_pixel_to_one_segment_and_joins_stuff() -> None:
    masks = squares((0, 0), (0, 8), (8, 0), (8, 8), (0, 0))
    (found,) = panoptic(queries([0, 0, 1, 1, 3], masks), things=[1])
    assert found.classes.tolist() == [0, 1, 1]  # both of class 0 are one
    expected = masks[0] + masks[1] + 2 * masks[2] + 3 * masks[3]
    assert torch.equal(found.segments, expected.long())


def test_a_segment_whose_pixels_others_take_is_left_out() -> None:
    masks = squares((0, 0), (0, 1))
    sure = queries([0, 1], masks)
    sure.classes[0, 1] *= 0.5
    (found,) = panoptic(sure, things=[0, 1])
    assert found.classes.tolist() == [0] and found.segments.max() == 1
    (nothing,) = panoptic(queries([3, 3], masks), things=[0])
    assert nothing.segments.abs().sum() == 0 and len(nothing.classes) == 0


@given(st.permutations(range(4)), st.integers(0, 4))
@settings(max_examples=10, deadline=None)
def test_queries_are_matched_whatever_their_order(order: list[int], objects: int) -> None:
    masks = squares((0, 0), (0, 8), (8, 0), (8, 8))
    labels = torch.tensor([0, 1, 2, 1])
    target = MaskTarget(labels[:objects], masks[:objects])
    found = queries(labels[torch.tensor(order)].tolist(), masks[torch.tensor(order)])
    places = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    rows, columns = match(found, 0, target, places)
    assert [order[row] for row in rows.tolist()] == columns.tolist() and len(columns) == objects


def loss(found: MaskQueries, *targets: MaskTarget) -> float:
    return float(matching_loss([found], targets, points=300, generator=torch.Generator().manual_seed(1)))


def test_the_loss_is_small_for_the_truth_and_grows_with_each_mistake() -> None:
    masks = squares((0, 0), (8, 8), (4, 4))
    target = MaskTarget(torch.tensor([0, 1]), masks[:2])
    right = loss(queries([0, 1, 3], masks, sure=30), target)
    swapped = loss(queries([1, 0, 3], masks, sure=30), target)
    moved = loss(queries([0, 1, 3], squares((0, 4), (8, 4), (4, 4)), sure=30), target)
    spare = loss(queries([0, 1, 2], masks, sure=30), target)
    assert right < 6  # most points lie between the pixels of a mask and those beside it
    # a wrong class costs 30; that of the spare query, which stands for nothing, counts a tenth
    assert swapped == pytest.approx(2 * 2 * 30 / 2.1 + right, rel=0.01)
    assert spare == pytest.approx(2 * 0.1 * 30 / 2.1 + right, rel=0.01)
    assert moved > right + 5


def test_the_loss_has_a_gradient_without_any_object() -> None:
    found = MaskQueries(torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 2, 4, 4, requires_grad=True))
    value = matching_loss([found], [MaskTarget(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 16, 16))])
    value.backward()
    assert value.item() == pytest.approx(2 * torch.tensor(3.0).log().item())
    assert found.masks.grad is not None and found.classes.grad is not None
    with pytest.raises(ValueError, match="0 targets for 1 images"):
        matching_loss([found], [])


def test_pem_learns_two_objects() -> None:
    from shared_backbones.networks.pem import PEM

    torch.manual_seed(0)
    network = PEM(2, base=8, layers=(1, 1, 1), conv_dim=16, mask_dim=16, hidden_dim=16, num_queries=5, nheads=2,
                  dim_feedforward=16, dec_layers=3)  # fmt: skip
    masks = torch.zeros(2, 64, 64)
    masks[0, 8:28, 8:28], masks[1, 36:60, 30:60] = 1, 1
    image = torch.randn(2, 3, 64, 64) * 0.1 + masks[0] - masks[1]
    targets = [MaskTarget(torch.tensor([0, 1]), masks)] * 2
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        value = matching_loss(network.predict(image), targets, points=256)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    assert losses[-1] < 0.5 * losses[0]
    with torch.no_grad():
        found, _ = instances(network.predict(image)[-1].resized((64, 64)), count=2)
    assert sorted(found.classes.tolist()) == [0, 1]
    for mask, label in zip(found.masks, found.classes, strict=True):
        truth = masks[label].bool()
        assert (mask & truth).sum() > 0.6 * (mask | truth).sum()
