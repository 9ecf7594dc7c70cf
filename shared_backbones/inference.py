"""Rewrites for inference that leave a model's outputs unchanged up to rounding, and the memory that it takes."""

import copy
import weakref
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from shared_backbones.packing import is_plain_inference, pack_

Model = TypeVar("Model", bound=nn.Module)
Convolution = TypeVar("Convolution", nn.Conv2d, nn.Conv3d)


COPIES = 2
"""Times that a layer takes what it reads and writes: libraries copy it into a layout of their own."""
LIBRARIES = 48 * 2**20
"""Bytes that they take whatever they are given."""


class PeakOfTensors(TorchDispatchMode):
    """Counts, while its block runs, the bytes of the tensors that are made in it and still there.

    Attributes:
        peak: the most at any time.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Ask torch not to import its compiler for a mode that is never compiled: that takes a second."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:  # others show no storage
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata  # of the storage itself, which several tensors may show
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self._now += self._sizes[key]
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def optimize_for_inference(model: Model) -> Model:
    """Return a copy of `model` in its inference form; the model itself is not touched.

    Every block that has one brings its own rewrite, a method `fold_()`: batch norms go into the neighbouring linear
    maps, linear maps in a row are merged, tables are kept. Blocks are rewritten before the modules that hold them.
    On the CPU, 3-D convolutions run through oneDNN, see `OneDnnConv3d`, and so do linear maps and 2-D convolutions
    where that is faster, see `shared_backbones.packing`.
    The copy is in eval mode, takes no gradients, and is not meant to be saved.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        for module in reversed(list(folded.modules())):
            fold = getattr(module, "fold_", None)
            if fold is not None:
                fold()
    for module in folded.modules():
        if type(module) is nn.Conv3d and module.padding_mode == "zeros":
            module.__class__ = OneDnnConv3d
    pack_(folded)
    return folded


class OneDnnConv3d(nn.Conv3d):
    """A 3-D convolution that runs in the fastest way on the CPU whatever the size of its input.

    torch (2.14) leaves float32 to oneDNN only where batch, channels, depth and height multiply to more than 20480, or
    the batch is larger than 1. What is smaller, such as inner maps of a U-Net or a few rows of a volume, it unfolds: 8
    to 15 times slower, and in 27 times the memory of the input. A 1x1x1 convolution is a product of matrices, for
    which oneDNN would copy its input into a layout of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `torch.nn.Conv3d`: `(B, C, X, Y, Z)`."""
        padding = self.padding
        if not is_plain_inference(input) or input.ndim != 5 or isinstance(padding, str):
            return super().forward(input)
        if {*self.kernel_size, *self.stride, self.groups} == {1} and not any(padding):
            product = torch.matmul(self.weight.flatten(1), input.flatten(2))
            product = product if self.bias is None else product.add_(self.bias[:, None])
            return product.unflatten(2, input.shape[2:])
        if not torch.backends.mkldnn.is_available():
            return super().forward(input)
        return torch.mkldnn_convolution(input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)


def batch_norm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Scale and shift, each `(C,)`, that an eval-mode batch norm applies to its channels."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def fold_batch_norm(convolution: Convolution, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> Convolution:
    """Change `convolution` into `norm(convolution(x))` in eval mode, and return it."""
    scale, shift = batch_norm_affine(norm)
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    kernel = convolution.weight
    kernel = kernel * scale.view(-1, *[1] * (kernel.ndim - 1))
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    convolution.bias = nn.Parameter(shift, requires_grad=False)
    return convolution


def fold_pre_norm(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """Change a 1x1 `convolution` into `convolution(norm(x))` in eval mode, and return it.

    Only a convolution without padding may take a norm that comes before it: padding is not shifted by the norm.
    """
    scale, shift = batch_norm_affine(norm)
    bias = torch.einsum("oikl,i->o", convolution.weight, shift)
    bias = bias if convolution.bias is None else bias + convolution.bias
    convolution.weight = nn.Parameter(convolution.weight * scale[:, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution


def fold_pointwise(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Change `second`, which has no padding, into `second(first(x))` for a 1x1 convolution `first`, and return it."""
    weight, bias = second.weight, second.bias
    if first.bias is not None:
        shift = torch.einsum("oikl,i->o", weight, first.bias)
        bias = shift if bias is None else bias + shift
    second.weight = nn.Parameter(torch.einsum("oikl,ij->ojkl", weight, first.weight[:, :, 0, 0]), requires_grad=False)
    second.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    second.in_channels = first.in_channels
    return second
