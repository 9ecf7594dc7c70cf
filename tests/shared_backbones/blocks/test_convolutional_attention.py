"""The layer of TiC, against the released one, and against attention written out pixel by pixel."""

import pytest
import torch
import torch.nn.functional as F

from shared_backbones.blocks.convolutional_attention import ConvolutionalAttention
from tests.parity.seeded import read_fixture

FIXTURE = "tic-layer-k3-16x24"


def released() -> ConvolutionalAttention:
    fixture = read_fixture(FIXTURE)
    layer = ConvolutionalAttention(*fixture.meta["kwargs"].values()).eval()
    state = {name.removeprefix("layer."): torch.from_numpy(value) for name, value in fixture.state().items()}
    layer.load_state_dict(
        {name.replace("qkv_conv", "qkv").replace("mlp", "convolution"): tensor for name, tensor in state.items()}
    )
    return layer


def test_equals_the_released_layer() -> None:
    fixture, layer = read_fixture(FIXTURE), released()
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        fixture.assert_stage("qkv", layer.qkv(x))
        fixture.assert_stage("out", layer.attend(x) - x)
        fixture.assert_output(layer(x))


def test_a_window_that_is_shut_at_the_border_is_another_layer() -> None:
    fixture, layer = read_fixture(FIXTURE), released()
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        inside = torch.stack([near[:, 0] for near in layer._neighbours(torch.ones_like(x))], 1) > 0
        query, key, value = layer.qkv(x).chunk(3, 1)
        scores = torch.stack([(query * near).sum(1) for near in layer._neighbours(key)], 1) * 12**-0.5
        weights = scores.masked_fill(~inside, float("-inf")).softmax(1)
        seen = sum(w[:, None] * near for w, near in zip(weights.unbind(1), layer._neighbours(value), strict=True))
        with pytest.raises(AssertionError):
            fixture.assert_stage("out", seen)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1)])
def test_dilated_windows_see_pixels_so_far_apart(kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = ConvolutionalAttention(4, 6, kernel, stride=2, dilation=dilation, padding=kernel // 2).double().eval()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    query, key, value = layer.qkv(x).chunk(3, 1)
    border = dilation * (kernel // 2)
    key, value = (
        F.unfold(part, kernel, dilation, border).unflatten(1, (4, -1)).unflatten(3, (9, 8)) for part in (key, value)
    )
    weights = (torch.einsum("bchw,bcjhw->bjhw", query, key) / 2).softmax(1)
    expected = x + torch.einsum("bjhw,bcjhw->bchw", weights, value)
    torch.testing.assert_close(layer.attend(x), expected)
    assert layer(x).shape == (2, 6, 5, 4)


def test_weights_are_dropped_while_training_and_even_kernels_are_refused() -> None:
    layer, x = ConvolutionalAttention(4, 4, dropout=0.5), torch.randn(1, 4, 6, 6)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))
    with pytest.raises(ValueError, match="kernel_size is 4"):
        ConvolutionalAttention(4, 4, 4)
