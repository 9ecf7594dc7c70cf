"""Make a network for the brain draw its parts neither too large nor too small."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared_backbones.networks.skip_unet import SkipUnet
from tests.benchmarks.brain_training import OUTPUTS, Parts
from tests.benchmarks.drawn_heads import DrawnHead

CLASSES = OUTPUTS - 1
TOLERANCE = math.log(1.05)
_LARGEST = 2.0
_ROUNDS = 12


@dataclass(frozen=True)
class _Judged:
    """A drawn head, as far as its volumes go.

    Attributes:
        logits: `(CLASSES, N)`, of the voxels whose class a shift can change.
        settled: voxels of each class among the others.
        wanted: voxels of each class in the head.
    """

    logits: Tensor
    settled: Tensor
    wanted: Tensor


@torch.inference_mode()
def even_volumes_(network: nn.Module, heads: Iterable[DrawnHead]) -> Tensor:
    """Shift the logits, in place, until each part has its volume on drawn heads to 5 %, in the geometric mean.

    Weights of the loss that let small parts count as much as large ones make them too large: probabilities are those of
    a world where they are frequent.

    Returns:
        What was added to the logits of each class.
    """
    assert isinstance(network, SkipUnet)
    network.eval()
    parts = Parts(torch.device("cpu"))
    judged = [_judge(network, head, parts) for head in heads]
    shift = torch.zeros(CLASSES)
    for _ in range(_ROUNDS):
        ratios = torch.stack([_log_ratios(head, shift) for head in judged]).nanmean(0)
        excess = ratios.sign() * (ratios.abs() - TOLERANCE).clamp(min=0)
        shift = (shift - 0.8 * excess.clamp(-1, 1)).clamp(-_LARGEST, _LARGEST)
    bias = network.heads[-1].bias
    assert isinstance(bias, nn.Parameter)
    bias[:CLASSES] += shift
    return shift


def _judge(network: SkipUnet, head: DrawnHead, parts: Parts) -> _Judged:
    logits = network(head.image[None, None])[0, :-1].flatten(1)
    best = logits.topk(2, 0)
    open_ = best.values[0] - best.values[1] < 2 * _LARGEST
    settled = torch.bincount(best.indices[0][~open_], minlength=CLASSES)
    wanted = torch.bincount(parts.class_of[head.parts.long()].flatten(), minlength=CLASSES)
    return _Judged(logits[:, open_], settled, wanted)


def _log_ratios(head: _Judged, shift: Tensor) -> Tensor:
    """Logarithm of predicted over true volume of each class; NaN where a head has none of it, 0 of the background."""
    predicted = head.settled + torch.bincount((head.logits + shift[:, None]).argmax(0), minlength=CLASSES)
    ratios = (predicted.clamp(min=1) / head.wanted.clamp(min=1)).log()
    ratios[head.wanted == 0] = math.nan
    ratios[0] = 0.0
    return ratios
