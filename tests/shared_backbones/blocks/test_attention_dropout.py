"""Attention with dropout in chunks: exact in distribution and gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shared_backbones.blocks import attention_dropout
from shared_backbones.blocks.attention_dropout import attend, kept_weights
from shared_backbones.inference import PeakOfTensors


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch):
    """Chunks of a few rows, for small inputs, too."""
    monkeypatch.setattr(attention_dropout, "_WORTHWHILE", 0)
    monkeypatch.setattr(attention_dropout, "_AT_ONCE", 40)


def inputs(*lead: int, n: int = 7, m: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    query, key, value = (torch.randn(*lead, count, 5, dtype=dtype) for count in (n, m, m))
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def masks(lead: tuple[int, ...], n: int, m: int, rate: float, seed: int) -> Tensor:
    """The mask that the chunks of 40 weights have, as one."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.Size((1, min(top + 40 // m, n) - top, m)) for top in range(0, n, 40 // m)]
    groups = [torch.cat([kept_weights(shape, rate, generator) for shape in rows], 1) for _ in range(math.prod(lead))]
    return torch.cat(groups).view(*lead, n, m)


def explicit(query: Tensor, key: Tensor, value: Tensor, kept: Tensor, rate: float, scale: float) -> Tensor:
    weights = (query @ key.transpose(-2, -1) * scale).softmax(-1)
    return (weights * kept / (1 - rate)) @ value


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_it_equals_the_explicit_form_with_the_same_mask(chunked: None, rate: float, scale: float | None):
    parts = inputs(2, 3)
    torch.manual_seed(5)
    seed = int(torch.randint(2**62, ()))
    torch.manual_seed(5)
    made = attend(*parts, rate, scale)
    kept = masks((2, 3), 7, 9, rate, seed)
    expected = explicit(*parts, kept, rate, 5**-0.5 if scale is None else scale)
    torch.testing.assert_close(made, expected)
    weight = torch.randn_like(made)
    slopes = torch.autograd.grad((made * weight).sum(), parts)
    for slope, right in zip(slopes, torch.autograd.grad((expected * weight).sum(), parts), strict=True):
        torch.testing.assert_close(slope, right)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.999, 1e-4])
def test_weights_are_dropped_with_their_probability(rate: float):
    count = 4_000_000
    kept = kept_weights(torch.Size((4, count // 4)), rate, torch.Generator().manual_seed(3))
    dropped = float((~kept).double().mean())
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / count)
    # of each of the eight bytes of a word, and independently of the one before
    by_byte = (~kept).view(-1, 8).double().mean(0)
    assert (by_byte - rate).abs().max() < 6 * math.sqrt(8 * rate * (1 - rate) / count)
    flat = (~kept).view(-1).double()
    assert abs(float((flat[1:] * flat[:-1]).mean()) - rate**2) < 5 * rate / math.sqrt(count) + 1e-6


def test_the_mean_over_masks_is_attention_without_dropout(chunked: None):
    query, key, value = inputs(400, n=6, m=6)
    one, two, three = (part[:1].expand_as(part) for part in (query, key, value))
    made = torch.stack([attend(one, two, three, 0.3) for _ in range(10)]).flatten(0, 1)
    expected = F.scaled_dot_product_attention(query[:1], key[:1], value[:1])
    spread = made.std(0) / math.sqrt(len(made))
    assert ((made.mean(0) - expected[0]).abs() < 5 * spread).all()


def test_seeds_make_it_repeatable_and_each_call_has_a_mask_of_its_own(chunked: None):
    parts = inputs(2)
    torch.manual_seed(7)
    first, second = attend(*parts, 0.5), attend(*parts, 0.5)
    torch.manual_seed(7)
    assert torch.equal(attend(*parts, 0.5), first) and not torch.equal(first, second)


def test_without_dropout_and_for_all_of_it_it_is_torchs(chunked: None):
    parts = inputs(2)
    torch.testing.assert_close(attend(*parts), F.scaled_dot_product_attention(*parts))
    assert not attend(*parts, 1.0).any()


def test_bfloat16_keeps_its_format(chunked: None):
    query, key, value = (part.detach().bfloat16().requires_grad_() for part in inputs(2))
    made = attend(query, key, value, 0.2)
    made.float().sum().backward()
    assert made.dtype == torch.bfloat16 and query.grad is not None and key.grad is not None and value.grad is not None


def test_memory_does_not_grow_with_the_number_of_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attention_dropout, "_AT_ONCE", 2**18)
    query, key, value = (torch.randn(1, 4, 2048, 8, requires_grad=True) for _ in range(3))
    with PeakOfTensors() as tensors:
        attend(query, key, value, 0.1).sum().backward()
    assert tensors.peak < 4 * 4 * 2048 * 2048 / 4  # a quarter of all weights in float32
