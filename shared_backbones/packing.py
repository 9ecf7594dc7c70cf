"""Linear maps and 2-D convolutions with weights that are laid out for oneDNN once, where that is faster here.

torch (2.14) leaves float32 products of matrices, 1x1 convolutions among them, and the convolutions of single small
images to MKL. On many processors oneDNN runs the same products up to twice as fast, from weights in a layout of its
own. Which is faster is tried once for each kind of layer, on a piece of the input. The answer is kept in the user's
cache, so that all runs and all parts of a batch on a machine use the same; without a cache that can be written to,
nothing is packed.
"""

import contextlib
import functools
import hashlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from shared_backbones.errors import InputError
from shared_backbones.user_cache import ENGINES, cache_folder

_OPERATORS = (
    "_linear_pointwise", "_reorder_linear_weight", "_convolution_pointwise", "_reorder_convolution_weight",
)  # fmt: skip
_TRIALS, _GAIN = 3, 1.1  # packing has to win each trial by a tenth
_TRIAL_PRODUCTS = 2e8  # multiplications of a trial: a few milliseconds
_DECIDED_BY = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")
_LARGEST_SLOW = 20480  # numbers in an image up to which torch unfolds it, and a trial has to stay on one side of it

Kind: TypeAlias = tuple[object, ...]
"""What decides which form of a layer is faster."""
_Stamp: TypeAlias = tuple[tuple[int, ...], int, int]

_chosen: dict[Kind, bool] = {}
_packed: "WeakKeyDictionary[nn.Module, tuple[_Stamp, Tensor]]" = WeakKeyDictionary()


def pack_(network: nn.Module) -> None:
    """Have the linear maps and 2-D convolutions of a network run from packed weights where that is faster.

    Weights are packed when a layer first runs in float32 on the CPU without gradients, and stay as they are beside it:
    whatever else runs, exports or copies the network sees ordinary layers.
    """
    operators = torch.ops.mkldnn
    if torch.backends.mkldnn.is_available() and all(hasattr(operators, name) for name in _OPERATORS):
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = PackedLinear
            elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
                module.__class__ = PackedConv2d


def packed_layers(network: nn.Module) -> int:
    """Number of layers of a network that run from packed weights, of those that have run."""
    return sum(module in _packed for module in network.modules())


def is_plain_inference(x: Tensor) -> bool:
    """Whether a tensor is float32 on the CPU, and what is computed with it is neither differentiated nor recorded."""
    recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()  # pyright: ignore[reportPrivateImportUsage]
    is_plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_plain and not recorded and not torch.is_grad_enabled()


class PackedLinear(nn.Linear):
    """A linear map that may run from packed weights, see `pack_`."""

    def forward(self, input: Tensor) -> Tensor:
        """As `torch.nn.Linear`: `(..., in)` to `(..., out)`."""
        if not input.numel() or not is_plain_inference(input):
            return super().forward(input)
        return _run(self, input, super().forward)

    def kind_of(self, x: Tensor) -> Kind:
        """What decides which form is faster for an input."""
        return "linear", self.out_features, self.in_features, self.bias is not None, _class(x.numel() // x.shape[-1])

    def piece_of(self, x: Tensor) -> Tensor:
        """Rows that are enough for a trial."""
        return x.reshape(-1, self.in_features)[: max(32, int(_TRIAL_PRODUCTS / self.weight.numel()))]

    def packed(self, x: Tensor) -> Tensor:
        """The same from packed weights."""
        operators, rows = torch.ops.mkldnn, x.numel() // x.shape[-1]
        weights = _weights(self, (), lambda: operators._reorder_linear_weight(self.weight, rows))
        return operators._linear_pointwise(x, weights, self.bias, "none", [], "")


class PackedConv2d(nn.Conv2d):
    """A convolution that may run from packed weights, see `pack_`."""

    def forward(self, input: Tensor) -> Tensor:
        """As `torch.nn.Conv2d`: `(B, C, H, W)`."""
        if not input.numel() or input.ndim != 4 or not is_plain_inference(input):
            return super().forward(input)
        return _run(self, input, super().forward)

    def kind_of(self, x: Tensor) -> Kind:
        """What decides which form is faster for an input."""
        form = self.weight.shape, self.stride, self.padding, self.dilation, self.groups, self.bias is not None
        by_pixel = x.is_contiguous(memory_format=torch.channels_last)
        return "convolution", *form, by_pixel, len(x) == 1, _class(x[0, 0].numel()), x.numel() > _LARGEST_SLOW

    def piece_of(self, x: Tensor) -> Tensor:
        """Rows of one image, or of two where there are several, that are enough for a trial."""
        pixels = max(_TRIAL_PRODUCTS / self.weight.numel(), (_LARGEST_SLOW + 1) / x.shape[1])
        rows = max(int(pixels / x.shape[3]) + 1, self.dilation[0] * (self.kernel_size[0] - 1) + 1)
        return x[:2, :, :rows]

    def packed(self, x: Tensor) -> Tensor:
        """The same from packed weights."""
        operators, settings = torch.ops.mkldnn, (self.padding, self.stride, self.dilation, self.groups)
        pack, shape = operators._reorder_convolution_weight, tuple(x.shape)
        weights = _weights(self, shape, lambda: pack(self.weight, *settings, shape))
        return operators._convolution_pointwise(x, weights, self.bias, *settings, "none", [], "")


def _class(count: int) -> int:
    """The class of sizes that a number of rows or pixels belongs to: the power of two above it."""
    return (count - 1).bit_length()


def _weights(layer: nn.Linear | nn.Conv2d, shape: tuple[int, ...], pack: Callable[[], Tensor]) -> Tensor:
    """The weights of a layer packed for a shape of inputs: the last ones, where the layer's are still the same."""
    weight = layer.weight
    stamp = shape, weight.data_ptr(), 0 if weight.is_inference() else weight._version
    kept = _packed.get(layer)
    if kept is None or kept[0] != stamp:
        kept = _packed[layer] = stamp, pack()
    return kept[1]


def _run(layer: PackedLinear | PackedConv2d, x: Tensor, plain: Callable[[Tensor], Tensor]) -> Tensor:
    """Run a layer in its faster form, by what is known of its kind, or else by a trial on a piece of the input."""
    kind = *layer.kind_of(x), torch.get_num_threads()
    if kind not in _chosen:
        _chosen[kind] = _choice(repr(kind), lambda: _wins(plain, layer.packed, layer.piece_of(x)))
        if not _chosen[kind]:
            _packed.pop(layer, None)
    return layer.packed(x) if _chosen[kind] else plain(x)


def _wins(plain: Callable[[Tensor], Tensor], packed: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether the packed form wins every trial; a form that fails has lost."""
    try:
        for run in (packed, plain):
            run(x)  # the first time takes longer
        return all(_seconds(plain, x) > _GAIN * _seconds(packed, x) for _ in range(_TRIALS))
    except RuntimeError:
        return False


def _seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Seconds of a run: this thread's alone where there is no other, so that other programs do not count."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run(x)
    return clock() - start


def _choice(kind: str, decide: Callable[[], bool]) -> bool:
    """What is kept of a kind of layer on this machine; where nothing is, it is decided and kept.

    Of processes that decide at the same time all take what the first one kept.
    """
    try:
        folder = cache_folder() / ENGINES / f"packing-{_machine()}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(kind.encode()).hexdigest()[:16]
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_text("packed" if decide() else "plain", encoding="ascii")
            try:
                os.link(part, path)
            except FileExistsError:  # another process was faster
                pass
            finally:
                part.unlink()
        return path.read_text(encoding="ascii") == "packed"
    except (OSError, InputError, UnicodeDecodeError):
        return False


@functools.cache
def _machine() -> str:
    """What tells this processor, the libraries and what they were told from others."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line for line in lines if line.startswith(("model name", "flags"))][:2]
    settings = [os.environ.get(name, "") for name in _DECIDED_BY]
    known = [platform.processor(), torch.__version__, torch.backends.cpu.get_cpu_capability(), *names, *settings]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]
