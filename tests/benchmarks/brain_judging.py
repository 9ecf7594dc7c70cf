"""How well a network labels drawn heads."""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.datasets.brain_labels import PART_IDS, STRUCTURES
from tests.benchmarks.brain_training import CONTEXT, OUTPUTS, SLICE, Parts, is_3d
from tests.benchmarks.drawn_heads import DrawnHead
from tests.brain_references import SCORED


@torch.inference_mode()
def label(network: nn.Module, image: Tensor, parts: Parts) -> Tensor:
    """FreeSurfer ids `(X, Y, Z)` of an image: in one pass, or by slices along all three axes."""
    if is_3d(network):
        return parts.decode(network(image[None, None])[0])
    total = torch.zeros((OUTPUTS, *image.shape), device=image.device)
    for axis in range(3):
        stack = image.movedim(axis, 0)
        n, (height, width) = len(stack), stack.shape[1:]
        below, right = max(SLICE - height, 0), max(SLICE - width, 0)
        offsets = torch.arange(-CONTEXT, CONTEXT + 1)
        for at in torch.arange(n).split(16):
            slices = F.pad(stack[(at[:, None] + offsets).clamp(0, n - 1)], (0, right, 0, below))
            logits = network(slices)[..., :height, :width]
            scores = torch.cat([logits[:, :-1].softmax(1), logits[:, -1:].tanh()], 1)
            total.narrow(axis + 1, int(at[0]), len(at)).add_(scores.movedim(0, axis + 1))
    return parts.decode(total)


@dataclass(frozen=True)
class HeadScores:
    """Figures of one drawn head.

    Attributes:
        name: of the head.
        stripped: whether it is without skull and scalp.
        t1: whether its contrast is that of T1-weighted MRI.
        seconds: CPU seconds that its labels took.
        dice: of the nine structures, None where the head has none of it.
        ratio: their volumes over those of the reference.
        parts: Dice of every FreeSurfer id, its side counted.
    """

    name: str
    stripped: bool
    t1: bool
    seconds: float
    dice: list[float | None]
    ratio: list[float | None]
    parts: dict[int, float | None]


def judge(network: nn.Module, heads: Iterable[DrawnHead], device: torch.device) -> list[HeadScores]:
    """Label drawn heads with a network, and compare with what they were drawn from."""
    network.eval()
    parts, scores = Parts(device), []
    ids = sorted(set(PART_IDS.values()) - {0})
    for head in heads:
        image, reference = head.image.to(device), head.parts.to(device).long()
        started = time.process_time()
        prediction = label(network, image, parts)
        seconds = time.process_time() - started
        structures = _compare(parts.structure_of[prediction], parts.structure_of[reference], range(1, len(STRUCTURES)))
        sided = _compare(prediction, reference, ids)
        scores.append(
            HeadScores(
                name=head.name,
                stripped=head.stripped,
                t1=head.t1,
                seconds=round(seconds, 3),
                dice=[dice for dice, _ in structures],
                ratio=[ratio for _, ratio in structures],
                parts={i: dice for i, (dice, _) in zip(ids, sided, strict=True)},
            )
        )
    return scores


def summary(scores: Sequence[HeadScores]) -> dict[str, float]:
    """Means over heads: of structures 1-5 and 7-9 by kind of head, of every structure, and of the parts."""
    t1 = [score for score in scores if score.t1]
    kinds = {
        "all": scores,
        "whole": [score for score in scores if not score.stripped],
        "stripped": [score for score in scores if score.stripped],
        "t1": t1,
        "t1_whole": [score for score in t1 if not score.stripped],
    }
    figures = {
        f"mean_{kind}": _mean([_mean([score.dice[i - 1] for i in SCORED]) for score in chosen])
        for kind, chosen in kinds.items()
    }
    for number, name in enumerate(STRUCTURES[1:]):
        figures[name] = _mean([score.dice[number] for score in scores])
        figures[f"{name}_t1"] = _mean([score.dice[number] for score in t1])
        figures[f"{name}_ratio"] = _mean([score.ratio[number] for score in scores])
    figures["parts"] = _mean([_mean(score.parts.values()) for score in scores])
    figures["seconds_a_head"] = _mean([score.seconds for score in scores])
    return {name: round(value, 4) for name, value in figures.items()}


def _compare(prediction: Tensor, reference: Tensor, ids: Iterable[int]) -> list[tuple[float | None, float | None]]:
    """Dice and ratio of volumes of each id; None where the reference has none of it."""
    both, predicted, wanted = (
        torch.bincount(labels.flatten(), minlength=256).tolist()
        for labels in (prediction[prediction == reference], prediction, reference)
    )
    return [
        (round(2 * both[i] / (predicted[i] + wanted[i]), 4), round(predicted[i] / wanted[i], 4))
        if wanted[i]
        else (None, None)
        for i in ids
    ]


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan
