import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared_backbones.blocks.attention import (
    WindowAttention,
    relative_position_index,
    shift_mask,
    window_partition,
    window_reverse,
)


def lively(dim: int, heads: int, window: tuple[int, int], *, shifted: bool) -> WindowAttention:
    torch.manual_seed(0)
    attention = WindowAttention(dim, heads, window, shifted=shifted).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def token_by_token(attention: WindowAttention, x: Tensor) -> Tensor:
    """The definition, one query at a time: which keys each token sees, with which bias and mask."""
    height, width, dim = x.shape
    size = attention.window_size
    window = [min(size[0], height), min(size[1], width)]
    shift = [
        w // 2 if attention.shifted and n > s else 0 for w, n, s in zip(window, (height, width), size, strict=True)
    ]
    canvas = [math.ceil(n / w) * w for n, w in zip((height, width), window, strict=True)]
    tokens = torch.zeros(*canvas, dim, dtype=x.dtype)
    tokens[:height, :width] = x.roll((-shift[0], -shift[1]), (0, 1))
    heads, width_of_head = attention.num_heads, dim // attention.num_heads
    query, key, value = attention.qkv(tokens).split(dim, -1)

    def band(position: int, axis: int) -> int:
        if not shift[axis]:
            return 0
        return (position >= canvas[axis] - window[axis]) + (position >= canvas[axis] - shift[axis])

    result = torch.zeros_like(tokens)
    for row in range(canvas[0]):
        for column in range(canvas[1]):
            top, left = row // window[0] * window[0], column // window[1] * window[1]
            places = [(top + i, left + j) for i in range(window[0]) for j in range(window[1])]
            for head in range(heads):
                part = slice(head * width_of_head, (head + 1) * width_of_head)
                scores = []
                for r, c in places:
                    offset = (row - r + size[0] - 1) * (2 * size[1] - 1) + column - c + size[1] - 1
                    score = query[row, column, part] @ key[r, c, part] / math.sqrt(width_of_head)
                    score = score + attention.bias_table[offset, head]
                    foreign = (band(row, 0), band(column, 1)) != (band(r, 0), band(c, 1))
                    scores.append(score - 100 * foreign)
                weights = torch.stack(scores).softmax(0)
                result[row, column, part] = sum(
                    w * value[r, c, part] for w, (r, c) in zip(weights, places, strict=True)
                )
    return attention.projection(result)[:height, :width].roll((shift[0], shift[1]), (0, 1))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (6, 6), (7, 4), (3, 9), (1, 5), (2, 2)])
def test_equals_the_definition(size: tuple[int, int], shifted: bool) -> None:
    attention = lively(4, 2, (4, 4), shifted=shifted)
    x = torch.randn(2, *size, 4, dtype=torch.float64)
    with torch.no_grad():
        output = attention(x)
        expected = torch.stack([token_by_token(attention, sample) for sample in x])
        torch.testing.assert_close(output, expected)
        attention.fold_()
        for _ in range(2):  # the second run takes the kept table
            torch.testing.assert_close(attention(x), expected)


def test_windows_may_be_oblong() -> None:
    attention = lively(4, 1, (2, 5), shifted=True)
    x = torch.randn(1, 5, 7, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(attention(x), token_by_token(attention, x[0])[None])


@given(rows=st.integers(1, 4), columns=st.integers(1, 4), window=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_partition_is_undone_by_reverse(rows: int, columns: int, window: tuple[int, int]) -> None:
    size = rows * window[0], columns * window[1]
    x = torch.arange(2 * size[0] * size[1] * 3).view(2, *size, 3)
    windows = window_partition(x, window)
    assert windows.shape == (2, rows * columns, window[0] * window[1], 3)
    assert torch.equal(windows[0, 0], x[0, : window[0], : window[1]].flatten(0, 1))
    assert torch.equal(window_reverse(windows, window, size), x)


def test_index_and_mask_are_made_once_and_serve_training_after_inference() -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        index = relative_position_index((3, 2), (3, 3), device)
        mask = shift_mask((6, 4), (3, 2), (1, 1), torch.float32, device)
    assert relative_position_index((3, 2), (3, 3), device) is index
    assert shift_mask((6, 4), (3, 2), (1, 1), torch.float32, device) is mask
    assert not index.is_inference()
    assert not mask.is_inference()
    attention = lively(4, 2, (3, 3), shifted=True)
    with torch.inference_mode():
        attention(torch.randn(1, 7, 7, 4, dtype=torch.float64))
    attention(torch.randn(1, 7, 7, 4, dtype=torch.float64)).sum().backward()
    assert attention.bias_table.grad is not None
    assert attention.bias_table.grad.abs().sum() > 0


def test_what_is_kept_stays_bounded() -> None:
    attention = lively(4, 2, (2, 2), shifted=True)
    attention.requires_grad_(False).fold_()
    for width in range(3, 40):
        attention(torch.randn(1, 3, width, 4, dtype=torch.float64))
    assert attention.bias_cache is not None
    assert 0 < len(attention.bias_cache) <= 8


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="multiple"):
        WindowAttention(10, 4, (8, 8))
