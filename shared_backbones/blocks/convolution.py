"""Convolutional blocks: conv-norm-act, channel gates and the dynamic multi-expert dilated convolution."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.inference import batch_norm_affine, fold_batch_norm


class ConvNormAct(nn.Module):
    """Convolution, batch norm, activation; padding keeps the size at stride 1.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel, odd.
        stride: step of the convolution in pixels.
        groups: number of groups that channels are convolved in.
        bias: whether the convolution has a bias beside the norm's.
        activation: elementwise function after the norm; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: Callable[[Tensor], Tensor] | None = F.relu,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=bias
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, ceil(H / stride), ceil(W / stride))`."""
        x = self.norm(self.convolution(x))
        return x if self.activation is None else self.activation(x)

    def fold_(self) -> None:
        """Fold the batch norm into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution, self.norm = fold_batch_norm(self.convolution, self.norm), nn.Identity()


class SqueezeExcitation(nn.Module):
    """Channel gates from the mean over pixels (arXiv 1709.01507): two linear maps, then multiply.

    Args:
        channels: channels C of the map.
        hidden: width between the two maps.
        activation: after the first map.
        gate: after the second; gives weights in [0, 1].
        bias: whether the two maps have one.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.relu,
        gate: Callable[[Tensor], Tensor] = torch.sigmoid,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden, bias)
        self.expand = nn.Linear(hidden, channels, bias)
        self.activation = activation
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, C, H, W)`."""
        weights = self.gate(self.expand(self.activation(self.squeeze(x.mean((2, 3))))))
        return x * weights[:, :, None, None]


class DynamicDilatedConvolution(nn.Module):
    """Dynamic multi-expert dilated convolution (Med-DSPP of HBFormer, arXiv 2512.03597).

    For each dilation rate a separable convolution whose depthwise and pointwise kernels are mixtures of experts; the
    mixture weights e come from one gate per sample and serve all rates. A second gate weighs the rates; their joined
    outputs pass through channel attention and a 1x1 fusion. As e does not vary over pixels, the experts' kernels are
    mixed before they are applied, which equals the mixture of the experts' outputs at a fraction of the work.

    Args:
        channels: input and output channels n.
        dilations: the rates R.
        experts: the number E of experts.
    """

    def __init__(self, channels: int, *, dilations: Sequence[int] = (1, 4, 8), experts: int = 4) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        rates = len(self.dilations)
        self.branch_gate = SoftmaxGate(channels, rates)
        self.expert_gate = SoftmaxGate(channels, experts)
        self.depthwise = nn.Parameter(torch.empty(rates, experts, channels, 1, 3, 3).uniform_(-1 / 3, 1 / 3))
        bound = 1 / math.sqrt(channels)  # the default bound of nn.Conv2d, per expert
        self.pointwise = nn.Parameter(torch.empty(rates, experts, channels, channels, 1, 1).uniform_(-bound, bound))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in self.dilations)
        self.channel_attention = EfficientChannelAttention()
        self.fuse = nn.Conv2d(rates * channels, channels, 1, bias=False)
        self.fuse_norm = nn.BatchNorm2d(channels)
        self.pointwise_bias: Tensor | None  # (R, n), of the folded norms
        self.register_buffer("pointwise_bias", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, n, H, W)` to `(B, n, H, W)`; fastest on channels_last input."""
        mean = x.mean((2, 3), keepdim=True)
        branch = self.branch_gate(mean)
        expert = self.expert_gate(mean)
        depthwise = torch.einsum("be,reckl->rbckl", expert, self.depthwise.squeeze(3))
        pointwise = torch.einsum("be,reoi->rboi", expert, self.pointwise.flatten(3))
        features = []
        for rate, dilation in enumerate(self.dilations):
            bias = None if self.pointwise_bias is None else self.pointwise_bias[rate]
            mixed = matmul_per_sample(depthwise_per_sample(x, depthwise[rate], dilation), pointwise[rate], bias)
            features.append(F.silu(self.norms[rate](mixed)))
        return self.fuse_norm(self._fuse(torch.cat(features, 1), branch.repeat_interleave(x.shape[1], 1)))

    def fold_(self) -> None:
        """Fold the batch norms into the pointwise experts and the fusion."""
        norms = [norm for norm in self.norms if isinstance(norm, nn.BatchNorm2d)]
        if not norms or not isinstance(self.fuse_norm, nn.BatchNorm2d):
            return  # already folded
        scales, shifts = zip(*(batch_norm_affine(norm) for norm in norms), strict=True)
        scale = torch.stack(scales)[:, None, :, None, None, None]
        self.pointwise = nn.Parameter(self.pointwise * scale, requires_grad=False)
        self.pointwise_bias = torch.stack(shifts)
        self.norms = nn.ModuleList(nn.Identity() for _ in norms)
        self.fuse = fold_batch_norm(self.fuse, self.fuse_norm)
        self.fuse_norm = nn.Identity()

    def _fuse(self, features: Tensor, gates: Tensor) -> Tensor:
        """Weigh channels by branch gate `(B, Rn)` and channel attention, then fuse them.

        Both weights are constant over pixels, so they scale the columns of the fusion matrix instead of the maps.
        """
        gates = gates * self.channel_attention(features.mean((2, 3)) * gates)
        return matmul_per_sample(features, self.fuse.weight.flatten(1) * gates[:, None], self.fuse.bias)


class SoftmaxGate(nn.Module):
    """Weights over `outputs` choices from a pooled feature: squeeze to an eighth, ReLU, expand, softmax."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, outputs, 1)

    def forward(self, mean: Tensor) -> Tensor:
        """Map `(B, C, 1, 1)` to weights `(B, outputs)` that sum to 1."""
        return self.expand(F.relu(self.squeeze(mean))).flatten(1).softmax(1)


class EfficientChannelAttention(nn.Module):
    """Channel gates from a small convolution along the channel axis (ECA-Net, arXiv 1910.03151)."""

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, mean: Tensor) -> Tensor:
        """Map channel means `(B, C)` to gates in (0, 1), `(B, C)`."""
        return self.convolution(mean[:, None])[:, 0].sigmoid()


def depthwise_per_sample(x: Tensor, kernels: Tensor, dilation: int = 1) -> Tensor:
    """Convolve every channel of every sample with a kernel of its own; zero padding keeps the size.

    Args:
        x: `(B, C, H, W)`.
        kernels: `(B, C, k, k)`, k odd.
        dilation: spacing of the kernel's taps in pixels.
    """
    batch, channels, height, width = x.shape
    weight = kernels.reshape(batch * channels, 1, *kernels.shape[2:])
    padding = kernels.shape[-1] // 2
    if batch == 1 or x.is_cuda:
        x = x.reshape(1, batch * channels, height, width)
        x = F.conv2d(x, weight, padding=padding * dilation, dilation=dilation, groups=batch * channels)
        return x.view(batch, channels, height, width)
    # On a CPU the gradient of a dilated depthwise convolution is slow. The same sums are a plain convolution on each
    # of the dilation**2 interleaved grids: they become the batch, and the samples join the (last) channel axis.
    below, right = -height % dilation, -width % dilation
    if below or right:
        x = F.pad(x, (0, right, 0, below))
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, dilation)).unflatten(1, (-1, dilation))
    x = x.permute(2, 4, 1, 3, 0, 5).flatten(4).flatten(0, 1).permute(0, 3, 1, 2)
    x = F.conv2d(x, weight, padding=padding, groups=batch * channels)
    x = x.permute(0, 2, 3, 1).unflatten(0, (dilation, dilation)).unflatten(4, (batch, channels))
    x = x.permute(4, 2, 0, 3, 1, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    return x[:, :, :height, :width]


def matmul_per_sample(x: Tensor, matrices: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a matrix of its own to the channels of every sample: a 1x1 convolution with weights per sample.

    Args:
        x: `(B, C, H, W)`.
        matrices: `(B, O, C)`.
        bias: `(O,)`, the same for all samples.

    Returns:
        `(B, O, H, W)`, channels_last.
    """
    rows = x.permute(0, 2, 3, 1).flatten(1, 2)
    columns = matrices.transpose(1, 2)
    rows = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias, rows, columns)
    return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
