from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shared_backbones import optimize_for_inference
from shared_backbones.blocks.convolution import (
    ConvNormAct,
    DynamicDilatedConvolution,
    EfficientChannelAttention,
    SoftmaxGate,
    SqueezeExcitation,
    depthwise_per_sample,
    matmul_per_sample,
)


def lively(channels: int = 8) -> DynamicDilatedConvolution:
    torch.manual_seed(0)
    block = DynamicDilatedConvolution(channels, dilations=(1, 2, 5), experts=3).double().eval()
    for name, tensor in block.state_dict().items():
        if name.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.7)
    return block


def sum_of_experts(block: DynamicDilatedConvolution, x: Tensor) -> Tensor:
    """The block as the paper draws it: every expert runs, then outputs are mixed."""
    mean = x.mean((2, 3), keepdim=True)
    branch, expert = block.branch_gate(mean), block.expert_gate(mean)[:, :, None, None, None]
    features = []
    for rate, dilation in enumerate(block.dilations):
        depth = [
            F.conv2d(x, kernel, padding=dilation, dilation=dilation, groups=x.shape[1])
            for kernel in block.depthwise[rate]
        ]
        mixed = torch.stack([expert[:, k] * output for k, output in enumerate(depth)]).sum(0)
        point = [expert[:, k] * F.conv2d(mixed, kernel) for k, kernel in enumerate(block.pointwise[rate])]
        features.append(F.silu(block.norms[rate](torch.stack(point).sum(0))) * branch[:, rate, None, None, None])
    joined = torch.cat(features, 1)
    attention = torch.sigmoid(block.channel_attention.convolution(joined.mean((2, 3))[:, None]))[:, 0]
    return block.fuse_norm(block.fuse(joined * attention[:, :, None, None]))


def test_mixed_kernels_equal_mixed_outputs_and_their_gradients() -> None:
    block = lively()
    x = torch.randn(3, 8, 11, 6, dtype=torch.float64, requires_grad=True)
    parameters = [x, *block.parameters()]
    output, expected = block(x), sum_of_experts(block, x)
    torch.testing.assert_close(output, expected)
    found = torch.autograd.grad(output.square().sum(), parameters)
    wanted = torch.autograd.grad(expected.square().sum(), parameters)
    for one, other in zip(found, wanted, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, other)


def test_norms_learn_the_same_statistics_while_training() -> None:
    ours, drawn = lively().train(), lively().train()
    x = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(ours(x), sum_of_experts(drawn, x))
    for name, tensor in drawn.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor)


def test_the_folded_block_equals_it() -> None:
    block = lively()
    folded = optimize_for_inference(block)
    x = torch.randn(2, 8, 10, 10, dtype=torch.float64)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), block(x))


@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    dilation=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]),
    channels_last=st.booleans(),
)
def test_depthwise_per_sample_equals_one_sample_at_a_time(
    batch: int, height: int, width: int, dilation: int, kernel: int, channels_last: bool
) -> None:
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, 4, height, width, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(batch, 4, kernel, kernel, generator=generator, dtype=torch.float64)
    padding = dilation * (kernel // 2)
    expected = [
        F.conv2d(one[None], own[:, None], padding=padding, dilation=dilation, groups=4)
        for one, own in zip(x, kernels, strict=True)
    ]
    torch.testing.assert_close(depthwise_per_sample(x, kernels, dilation), torch.cat(expected))


def test_matmul_per_sample_is_a_matrix_for_every_sample() -> None:
    x, matrices, bias = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 3), torch.randn(6)
    expected = torch.einsum("bchw,boc->bohw", x, matrices)
    torch.testing.assert_close(matmul_per_sample(x, matrices), expected)
    torch.testing.assert_close(matmul_per_sample(x, matrices, bias), expected + bias[:, None, None])


def test_gates_are_weights() -> None:
    gate = SoftmaxGate(4, 3)  # narrower than eight channels keeps one hidden unit
    weights = gate(torch.randn(5, 4, 1, 1))
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert weights.shape == (5, 3)


def test_channel_attention_looks_at_neighbouring_channels() -> None:
    attention = EfficientChannelAttention()
    torch.nn.init.constant_(attention.convolution.weight, 1)
    gates = attention(torch.tensor([[1.0, 0, 0, 2]]))
    torch.testing.assert_close(gates, torch.sigmoid(torch.tensor([[1.0, 1, 2, 2]])))


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "bias"), [(3, 1, 1, False), (3, 2, 1, True), (1, 1, 2, False), (7, 1, 4, False)]
)
def test_conv_norm_act_folds(kernel: int, stride: int, groups: int, bias: bool) -> None:
    torch.manual_seed(0)
    block: Any = ConvNormAct(4, 8, kernel, stride=stride, groups=groups, bias=bias).double().eval()
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.relu(block.norm(block.convolution(x)))
        assert expected.shape == (2, 8, -(-9 // stride), -(-11 // stride))
        torch.testing.assert_close(block(x), expected)
        folded = optimize_for_inference(block)
        torch.testing.assert_close(folded(x), expected)
    assert isinstance(folded.norm, torch.nn.Identity)


def test_squeeze_excitation_scales_channels_by_gates_of_their_means() -> None:
    torch.manual_seed(0)
    gate = SqueezeExcitation(6, 2, activation=torch.nn.functional.silu, gate=torch.nn.functional.hardsigmoid)
    x = torch.randn(2, 6, 4, 5)
    hidden = torch.nn.functional.silu(gate.squeeze(x.mean((2, 3))))
    weights = ((gate.expand(hidden) + 3) / 6).clamp(0, 1)
    torch.testing.assert_close(gate(x), x * weights[:, :, None, None])
    assert SqueezeExcitation(6, 2, bias=False).squeeze.bias is None
