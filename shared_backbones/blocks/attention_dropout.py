"""Attention whose weights are partly dropped while training, in memory that does not grow with their number."""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_AT_ONCE = 2**21  # weights that are there at the same time
_WORTHWHILE = 2**22  # weights below which all of them at once are faster


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, scale: float | None = None) -> Tensor:
    """Softmax attention of which a random part of the weights is 0 and the others are larger by 1 / (1 - dropout).

    torch's fused kernels drop nothing on the CPU (2.14): it would then hold all weights and their mask, N x M numbers a
    head, until the backward pass. Here they are computed a few rows at a time, and once more in the backward pass with
    the same mask. Exact in distribution and gradient.

    Args:
        query: `(..., N, C)`.
        key: `(..., M, C)`.
        value: `(..., M, D)`.
        dropout: probability with which a weight is dropped.
        scale: factor of the scores; by default 1 / sqrt(C).

    Returns:
        `(..., N, D)`.
    """
    weights = query.shape[:-1].numel() * key.shape[-2]
    if not dropout or query.device.type != "cpu" or weights < _WORTHWHILE or dropout >= 1:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
    seed = int(torch.randint(2**62, ()))
    flat = (part.reshape(-1, *part.shape[-2:]) for part in (query, key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    out: Tensor = _DroppedAttention.apply(*flat, dropout, factor, seed)
    return out.view(*query.shape[:-1], value.shape[-1])


class _Context(Protocol):
    """What a pass keeps for the next one."""

    saved_tensors: tuple[Tensor, Tensor, Tensor]
    settings: tuple[float, float, int]

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _DroppedAttention(torch.autograd.Function):
    """Attention of `(G, N, C)`, `(G, M, C)` and `(G, M, D)`, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: _Context, query: Tensor, key: Tensor, value: Tensor, rate: float, scale: float, seed: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.settings = rate, scale, seed
        out = value.new_empty(*query.shape[:2], value.shape[2])
        for groups, rows, weights, kept in _chunks(query, key, rate, scale, seed):
            out[groups, rows] = (weights.mul_(kept).to(value.dtype) @ value[groups]).div_(1 - rate)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        rate, scale, seed = ctx.settings
        slopes = [torch.zeros_like(part) for part in (query, key, value)]
        for groups, rows, weights, kept in _chunks(query, key, rate, scale, seed):
            outer = slope[groups, rows] / (1 - rate)
            slopes[2][groups] += (weights * kept).to(value.dtype).transpose(1, 2) @ outer
            inner = (outer @ value[groups].transpose(1, 2)).to(weights.dtype).mul_(kept)
            inner -= (inner * weights).sum(-1, keepdim=True)
            scores = inner.mul_(weights).mul_(scale).to(query.dtype)
            slopes[0][groups, rows] = scores @ key[groups]
            slopes[1][groups] += scores.transpose(1, 2) @ query[groups, rows]
        return *slopes, None, None, None


def _chunks(
    query: Tensor, key: Tensor, rate: float, scale: float, seed: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Groups and rows, their weights `(g, n, M)`, and which of these are kept; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    count, rows = query.shape[:2]
    together = max(1, _AT_ONCE // (rows * key.shape[1]))
    high = rows if rows * key.shape[1] <= _AT_ONCE else max(1, _AT_ONCE // key.shape[1])
    for first in range(0, count, together):
        groups = slice(first, min(first + together, count))
        for top in range(0, rows, high):
            part = slice(top, min(top + high, rows))
            scores = (query[groups, part] * scale) @ key[groups].transpose(1, 2)
            weights = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1)
            yield groups, part, weights, kept_weights(weights.shape, rate, generator)


def kept_weights(shape: torch.Size, rate: float, generator: torch.Generator) -> Tensor:
    """A mask that is False with a probability, bool.

    A random byte decides, and where it is the one that the probability lies within, a random number: a fifth of the
    time of `Tensor.bernoulli_`.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    drawn = words.view(torch.uint8)[:count]
    level = int(rate * 256)
    kept = drawn > level
    undecided = torch.nonzero(drawn == level)[:, 0]
    kept[undecided] = torch.rand(len(undecided), generator=generator) >= rate * 256 - level
    return kept.view(shape)
