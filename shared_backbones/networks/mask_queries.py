"""Mask classification: queries that each give a class and a mask, what is made of them, and how they are taught.

Sources: MaskFormer (arXiv 2107.06278) for what is made of them, Mask2Former (arXiv 2112.01527) for the loss.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NO_OBJECT_WEIGHT = 0.1
_CLASS_WEIGHT, _MASK_WEIGHT, _DICE_WEIGHT = 2.0, 5.0, 5.0
_OVERSAMPLING, _UNCERTAIN_SHARE = 3, 0.75


@dataclass(frozen=True)
class MaskQueries:
    """Classes and masks of queries.

    Attributes:
        classes: logits `(B, Q, classes + 1)`; the last class is of queries that stand for nothing.
        masks: logits `(B, Q, h, w)`.
    """

    classes: Tensor
    masks: Tensor

    def semantic(self) -> Tensor:
        """For each pixel the sum over queries of the probabilities of class and mask, `(B, classes, h, w)`."""
        probabilities = self.classes.softmax(2)[:, :, :-1]
        return (probabilities.transpose(1, 2) @ self.masks.sigmoid().flatten(2)).unflatten(2, self.masks.shape[2:])

    def resized(self, size: Sequence[int]) -> "MaskQueries":
        """The same with masks of `size`, bilinearly."""
        masks = F.interpolate(self.masks, list(size), mode="bilinear", align_corners=False)
        return MaskQueries(self.classes, masks)


class Instances(NamedTuple):
    """Objects of an image, the surest first.

    Attributes:
        masks: pixels of each, `(N, h, w)` bool; they may overlap.
        classes: `(N,)` int64.
        scores: probability of the class times the mean probability of the mask's pixels, `(N,)`.
    """

    masks: Tensor
    classes: Tensor
    scores: Tensor


class Panoptic(NamedTuple):
    """Every pixel in one segment at most.

    Attributes:
        segments: number of each pixel's segment `(h, w)` int64, from 1; 0 is none.
        classes: class of each segment, segment 1 first, `(N,)` int64.
        scores: probability of its class, of the first query where several are one segment, `(N,)`.
    """

    segments: Tensor
    classes: Tensor
    scores: Tensor


class MaskTarget(NamedTuple):
    """What is to be found in an image.

    Attributes:
        classes: number of each object's class, `(N,)` int64.
        masks: pixels of each, `(N, H, W)`, 0 or 1.
    """

    classes: Tensor
    masks: Tensor


def instances(queries: MaskQueries, *, count: int = 100, things: Collection[int] | None = None) -> list[Instances]:
    """The `count` surest pairs of query and class of each image, as Mask2Former takes them.

    Args:
        queries: those of the last layer, with masks of the size wanted.
        count: objects at most.
        things: classes whose objects are told apart; by default all.
    """
    predictions = []
    for classes, masks in zip(queries.classes.softmax(2)[:, :, :-1], queries.masks, strict=True):
        scores, places = classes.flatten().topk(min(count, classes.numel()))
        labels, chosen = places % classes.shape[1], masks[places // classes.shape[1]]
        if things is not None:
            wanted = torch.isin(labels, torch.tensor(sorted(things), device=labels.device))
            scores, labels, chosen = scores[wanted], labels[wanted], chosen[wanted]
        inside = chosen > 0
        sure = (chosen.sigmoid() * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
        scores = scores * sure
        order = scores.argsort(descending=True)
        order = order[inside.flatten(1).any(1)[order]]
        predictions.append(Instances(inside[order], labels[order], scores[order]))
    return predictions


def panoptic(
    queries: MaskQueries,
    *,
    things: Collection[int],
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> list[Panoptic]:
    """One map of segments for each image, as MaskFormer makes it: a pixel goes to the query that is surest of it.

    A segment is left out where the others have taken more of its mask than `overlap_threshold` allows. Segments of a
    class that is no thing, such as water, become one.

    Args:
        queries: those of the last layer, with masks of the size wanted.
        things: classes whose objects are told apart.
        object_threshold: a query's class must have this probability.
        overlap_threshold: share of a mask's pixels that it must keep.
    """
    predictions = []
    for classes, masks in zip(queries.classes.softmax(2), queries.masks.sigmoid(), strict=True):
        scores, labels = classes.max(1)
        sure = (labels < classes.shape[1] - 1) & (scores > object_threshold)
        scores, labels, masks = scores[sure], labels[sure], masks[sure]
        segments = torch.zeros(masks.shape[1:], dtype=torch.int64, device=masks.device)
        numbers: dict[int, int] = {}
        kept: list[int] = []
        first: list[int] = []
        owner = (scores[:, None, None] * masks).argmax(0) if len(masks) else segments
        for query, (label, mask) in enumerate(zip(labels.tolist(), masks, strict=True)):
            whole, owned = mask >= 0.5, owner == query
            pixels = owned & whole
            if not pixels.any() or owned.sum() < overlap_threshold * whole.sum():
                continue
            if label in numbers:
                segments[pixels] = numbers[label]
                continue
            kept.append(label)
            first.append(query)
            segments[pixels] = len(kept)
            if label not in things:
                numbers[label] = len(kept)
        chosen = torch.tensor(kept, dtype=torch.int64, device=masks.device)
        predictions.append(Panoptic(segments, chosen, scores[first]))
    return predictions


def matching_loss(
    layers: Sequence[MaskQueries],
    targets: Sequence[MaskTarget],
    *,
    points: int = 12544,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mask2Former's loss: queries are matched to objects, and taught their classes and masks at chosen points.

    Every layer's queries are matched by themselves (Hungarian method, on points drawn evenly). Masks are compared at
    points drawn where they are least sure, and a quarter evenly. Weights are 2 for the class, where a query that stands
    for nothing counts 0.1, 5 for the cross-entropy of the mask and 5 for its Dice.

    Args:
        layers: queries of each layer, `(B, Q, ...)`.
        targets: for each image what is to be found.
        points: points of a mask.
        generator: what draws the points, on the masks' device.

    Returns:
        The sum over layers, a scalar.

    Raises:
        ValueError: there are not as many targets as images.
    """
    batch = len(layers[0].classes)
    if len(targets) != batch:
        raise ValueError(f"{len(targets)} targets for {batch} images: expected one for each")
    losses = [_layer_loss(queries, targets, points, generator) for queries in layers]
    return torch.stack(losses).sum()


def match(queries: MaskQueries, image: int, target: MaskTarget, places: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and objects that belong together, one for one at the least cost, as two rows of indices.

    Args:
        queries: those of one layer.
        image: number within the batch.
        target: its objects.
        places: where masks are compared, `(P, 2)` of x and y from 0 to 1.
    """
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        probabilities = queries.classes[image].float().softmax(1)[:, target.classes]
        predictions = _at(queries.masks[image].float(), places)
        wanted = _at(target.masks.float(), places)
        # cross-entropy of every pair: log(1 + e^x) - x t
        cross = (F.softplus(predictions).sum(1, keepdim=True) - predictions @ wanted.T) / predictions.shape[1]
        sure = predictions.sigmoid()
        dice = 1 - (2 * sure @ wanted.T + 1) / (sure.sum(1, keepdim=True) + wanted.sum(1) + 1)
        cost = _MASK_WEIGHT * cross - _CLASS_WEIGHT * probabilities + _DICE_WEIGHT * dice
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    device = queries.classes.device
    return torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)


def _layer_loss(
    queries: MaskQueries, targets: Sequence[MaskTarget], points: int, generator: torch.Generator | None
) -> Tensor:
    batch, count, classes = queries.classes.shape
    labels = queries.classes.new_full((batch, count), classes - 1, dtype=torch.int64)
    masks, wanted = [], []
    for image, target in enumerate(targets):
        if not len(target.classes):
            continue
        places = torch.rand((points, 2), generator=generator, device=queries.masks.device)
        rows, columns = match(queries, image, target, places)
        labels[image, rows] = target.classes[columns]
        masks.append(queries.masks[image, rows])
        wanted.append(target.masks[columns])
    weight = queries.classes.new_ones(classes)
    weight[-1] = NO_OBJECT_WEIGHT
    loss = _CLASS_WEIGHT * F.cross_entropy(queries.classes.transpose(1, 2), labels, weight)
    if not masks:
        return loss + 0 * queries.masks.sum()  # every parameter has a gradient
    predictions, truth = [], []
    for logits, mask in zip(masks, wanted, strict=True):
        places = _uncertain(logits, points, generator)
        predictions.append(_at(logits, places))
        truth.append(_at(mask.to(logits.dtype), places))
    x, t = torch.cat(predictions), torch.cat(truth)
    cross = F.binary_cross_entropy_with_logits(x, t, reduction="none").mean(1).sum()
    sure = x.sigmoid()
    dice = (1 - (2 * (sure * t).sum(1) + 1) / (sure.sum(1) + t.sum(1) + 1)).sum()
    return loss + (_MASK_WEIGHT * cross + _DICE_WEIGHT * dice) / len(x)


def _uncertain(masks: Tensor, points: int, generator: torch.Generator | None) -> Tensor:
    """Places of each mask `(N, h, w)`, `(N, points, 2)`: the least sure of many, and some drawn evenly."""
    with torch.no_grad():
        drawn = torch.rand((len(masks), _OVERSAMPLING * points, 2), generator=generator, device=masks.device)
        sure = _at(masks, drawn).abs()
        chosen = int(_UNCERTAIN_SHARE * points)
        index = sure.topk(chosen, 1, largest=False).indices
        least = drawn.gather(1, index[..., None].expand(-1, -1, 2))
        rest = torch.rand((len(masks), points - chosen, 2), generator=generator, device=masks.device)
    return torch.cat([least, rest], 1)


def _at(masks: Tensor, places: Tensor) -> Tensor:
    """Values of masks `(N, h, w)` at places `(P, 2)` or `(N, P, 2)` of x and y from 0 to 1, bilinearly: `(N, P)`."""
    places = places.expand(len(masks), -1, 2)[:, :, None].to(masks.dtype)
    return F.grid_sample(masks[:, None], 2 * places - 1, align_corners=False)[:, 0, :, 0]
