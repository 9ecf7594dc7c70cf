from typing import Any

import pytest
import torch
from torch import Tensor

from shared_backbones.blocks.attention import RelativeAttention, SelfAttention, resample_bias_table
from shared_backbones.blocks.transformer import DropPath, Mlp, TransformerBlock


def explicit(attention: SelfAttention, x: Tensor) -> Tensor:
    """Softmax attention written out, head by head."""
    width = x.shape[-1] // attention.num_heads
    query, key, value = attention.qkv(x).chunk(3, -1)
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(-1, -2) / width**0.5
        heads.append(scores.softmax(-1) @ value[..., part])
    return attention.projection(torch.cat(heads, -1))


@pytest.mark.parametrize("shape", [(2, 5, 12), (2, 3, 5, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_equals_its_definition(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(12, 3, qkv_bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64)
    expected = explicit(attention, x)
    torch.testing.assert_close(attention(x), expected)
    torch.testing.assert_close(attention(x, 2), expected[..., :2, :])
    with pytest.raises(ValueError, match="dim 12 is not a multiple of num_heads 5"):
        SelfAttention(12, 5)


def test_attention_drops_weights_and_values_while_training_only() -> None:
    torch.manual_seed(0)
    attention: Any = SelfAttention(4, 1, attention_dropout=0.5, dropout=0.25)
    x = torch.randn(1, 3, 4)
    assert torch.equal(attention.eval()(x), attention(x))
    attention.train()
    torch.nn.init.eye_(attention.projection.weight)
    torch.nn.init.ones_(attention.projection.bias)
    torch.nn.init.zeros_(attention.qkv.weight)
    torch.nn.init.zeros_(attention.qkv.bias)
    torch.nn.init.constant_(attention.qkv.bias[8:], 1.0)
    outputs = torch.stack([attention(x) for _ in range(3000)]).detach()
    assert abs(float((outputs == 0).float().mean()) - 0.25) < 0.02
    # what is left is (1 + 2 k / 3) / 0.75 for k of 3 weights kept, 1.5 of them on average
    assert abs(float(outputs.mean()) - 2) < 0.02
    assert len(torch.unique((outputs * 1e4).round())) == 5


def test_a_block_is_attention_and_feed_forward_with_residuals() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 3.0, eps=1e-3).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)

    def norm(value: Tensor) -> Tensor:
        return (value - value.mean(-1, keepdim=True)) / (value.var(-1, unbiased=False, keepdim=True) + 1e-3).sqrt()

    y = x + explicit(block.attention, norm(x))
    hidden = block.mlp.fc1(norm(y))
    assert hidden.shape[-1] == 24
    y = y + block.mlp.fc2(hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5)))
    torch.testing.assert_close(block(x), y)
    torch.testing.assert_close(block(x, 1), y[:, :1])


def test_the_feed_forward_drops_twice() -> None:
    torch.manual_seed(0)
    mlp = Mlp(1, 1, dropout=0.5)
    with torch.no_grad():
        for layer in (mlp.fc1, mlp.fc2):
            torch.nn.init.ones_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    outputs = mlp(torch.ones(4000, 1)).detach()
    value = float(torch.nn.functional.gelu(torch.ones(())))
    kept = outputs[outputs != 0]
    assert abs(len(kept) / 4000 - 0.25) < 0.03
    torch.testing.assert_close(kept, torch.full_like(kept, 4 * value))
    torch.testing.assert_close(mlp.eval()(torch.ones(1, 1)).item(), value)


def test_stochastic_depth_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.3)
    x = torch.ones(5000, 2, 3)
    found = drop(x)
    samples = found.flatten(1)
    assert ((samples == 0).all(1) | torch.isclose(samples, torch.tensor(1 / 0.7)).all(1)).all()
    assert abs(float((samples[:, 0] == 0).float().mean()) - 0.3) < 0.02
    assert torch.equal(drop.eval()(x), x) and torch.equal(DropPath(1.0)(x), torch.zeros_like(x))


def test_relative_attention_adds_a_score_for_every_offset() -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(6, 8, 2, (2, 3)).double()
    torch.nn.init.normal_(attention.bias_table)
    x = torch.randn(1, 6, 6, dtype=torch.float64)
    query, key, value = attention.qkv(x)[0].chunk(3, -1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = query[:, part] @ key[:, part].T / 2
        for q in range(6):
            for k in range(6):
                row, column = q // 3 - k // 3 + 1, q % 3 - k % 3 + 2
                scores[q, k] = scores[q, k] + attention.bias_table[row * 5 + column, head]
        heads.append(scores.softmax(-1) @ value[:, part])
    torch.testing.assert_close(attention(x)[0], attention.projection(torch.cat(heads, -1)))
    with pytest.raises(ValueError, match="dim_out 8 is not a multiple of num_heads 3"):
        RelativeAttention(6, 8, 3, (2, 2))


def test_bias_tables_are_resampled_over_the_plane_of_offsets() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 15), torch.linspace(-1, 1, 7), indexing="ij")
    table = torch.stack([rows.flatten(), columns.flatten()], 1)
    found = resample_bias_table(table, (8, 4), (4, 8))
    assert found.shape == (7 * 15, 2)
    plane = found.T.unflatten(1, (7, 15))
    assert (plane[0].diff(dim=0) > 0).all() and (plane[1].diff(dim=1) > 0).all()
    torch.testing.assert_close(plane[:, 3, 7], torch.zeros(2), atol=1e-6, rtol=0)  # no offset stays in the middle
    assert resample_bias_table(table, (8, 4), (8, 4)) is table
