"""Class scores of a prepared volume: from a network of slices along one axis or several, or from a 3-D network."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medvision.channels import Channels
from medvision.contract import AXIS_OF_VIEW, InputContract, Setting
from medvision.scores import CERTAIN
from medvision.sliding_windows import slide, window_count
from shared_backbones.errors import InputError
from shared_backbones.inference import COPIES, LIBRARIES, PeakOfTensors
from shared_backbones.memory import budget

FAST_COARSENING = 1.25
"""Spacing of a network of slices under --fast, relative to the model's own."""
FAST_OVERLAP = 0.25
"""Overlap of a 3-D network's windows under --fast."""
_MULTIPLE = 32  # in-plane size that a network of slices takes without padding of its own
_BATCH_PIXELS = {"cpu": 8 * 192**2, "mps": 16 * 192**2, "cuda": 64 * 192**2}  # of the slices run together
_BATCH_VOXELS = {"cpu": 1, "mps": 96**3, "cuda": 8 * 96**3}  # of the windows run together
_SMALL = 32  # side of the window that a 3-D network is tried on
_THIN, _THICK, _ACROSS = 32, 64, 16  # depths, and side across, of the volumes that one is tried on in rows

Progress = Callable[[int, int], None]


class Predict(Protocol):
    """Runs the network on its device."""

    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        ...

    def in_rows(self, images: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First row and logits of the next rows of a batch."""
        ...


class SliceScorer:
    """A network that sees slices, each with its neighbours as channels.

    Args:
        contract: What the model expects.
        channels: What it gives.
        views: Planes that it runs over.
        fast: Whether it works at a coarser spacing.
    """

    memory_format = torch.channels_last

    def __init__(self, contract: InputContract, channels: Channels, views: tuple[str, ...], fast: bool) -> None:
        self.contract, self.channels, self.views = contract, channels, views
        self.summands = len(views)
        self.coarsening = FAST_COARSENING if fast else 1.0
        self.settings: Mapping[str, Setting] = {"views": list(views)}

    def check(self, network: nn.Module, *, in_rows: bool = True) -> None:
        """Raise a ValueError unless the network takes and gives the channels that its card promises.

        Args:
            network: The network.
            in_rows: Whether a network that can runs over volumes a few rows at once; slices are not affected.
        """
        side = self.contract.smallest_slice
        shape, taken = _tried(network, len(self.contract.slices), (side, side))
        _expect(shape, (1, self.channels.outputs, side, side))
        self._pixel_bytes = COPIES * taken / side**2

    def memory(self, shape: Sequence[int], device: str) -> float:
        """Estimate of the bytes that `score` takes of this machine's memory, for a grid `(x, y, z)`, after `check`."""
        outputs, smallest = self.channels.outputs, self.contract.smallest_slice
        kept = outputs * math.prod(shape) * (1 if len(self.views) == 1 else 2)
        largest = 0
        for view in self.views:
            sides = [n for axis, n in enumerate(shape) if axis != AXIS_OF_VIEW[view]]
            pixels = math.prod(max(smallest, -(-n // _MULTIPLE) * _MULTIPLE) for n in sides)
            largest = max(largest, pixels * min(shape[AXIS_OF_VIEW[view]], max(1, _BATCH_PIXELS[device] // pixels)))
        each = 4 * (len(self.contract.slices) + 4 * outputs) + self._pixel_bytes * (device == "cpu")
        return LIBRARIES + kept + largest * each

    def score(self, image: Tensor, predict: Predict, progress: Progress | None) -> Tensor:
        """Scores `(K, x, y, z)` of an image `(1, x, y, z)`, summed over the views."""
        (image,) = image
        kind = torch.uint8 if len(self.views) == 1 else torch.int16
        total = torch.zeros((self.channels.outputs, *image.shape), dtype=kind)
        count = sum(image.shape[AXIS_OF_VIEW[view]] for view in self.views)
        done = 0
        for view in self.views:
            axis = AXIS_OF_VIEW[view]
            for start, scores in self._score_slices(image.movedim(axis, 0), predict):
                where = total.narrow(axis + 1, start, scores.shape[0])
                where += scores.movedim(0, axis + 1)
                done += scores.shape[0]
                if progress:
                    progress(done, count)
        return total

    @torch.inference_mode()
    def _score_slices(self, stack: Tensor, predict: Predict) -> Iterator[tuple[int, Tensor]]:
        """First slice and uint8 scores `(B, K, H, W)` of each batch over the first axis of `(N, H, W)`."""
        n, height, width = stack.shape
        smallest = self.contract.smallest_slice
        rows, columns = (max(smallest, -(-size // _MULTIPLE) * _MULTIPLE) for size in (height, width))
        top, left = (rows - height) // 2, (columns - width) // 2
        padding = (left, columns - width - left, top, rows - height - top)
        offsets = torch.tensor(self.contract.slices)
        batch = max(1, _BATCH_PIXELS[predict.device.type] // (rows * columns))
        for start in range(0, n, batch):
            at = torch.arange(start, min(start + batch, n))
            channels = (at[:, None] + offsets).clamp_(0, n - 1)
            slices = F.pad(stack[channels], padding).to(predict.device, memory_format=torch.channels_last)
            inner = predict(slices)[..., top : top + height, left : left + width]
            yield start, to_scores(self.channels.probabilities(inner, 1)).cpu()


class WindowScorer:
    """A 3-D network that sees windows of the volume, which overlap.

    Args:
        contract: What the model expects; its `patch` is the window.
        channels: What it gives.
        fast: Whether windows overlap less, and none is mirrored.
    """

    memory_format = torch.contiguous_format
    summands = 1
    coarsening = 1.0

    def __init__(self, contract: InputContract, channels: Channels, fast: bool) -> None:
        if contract.patch is None:
            raise ValueError("the contract has no patch")
        self.contract, self.channels, self.window = contract, channels, contract.patch
        self.overlap = min(FAST_OVERLAP, contract.overlap) if fast else contract.overlap
        self.mirror_axes = () if fast else contract.mirror_axes
        self.settings: Mapping[str, Setting] = {
            "patch": list(self.window),
            "overlap": self.overlap,
            "mirror_axes": list(self.mirror_axes),
        }

    def check(self, network: nn.Module, *, in_rows: bool = True) -> None:
        """Raise a ValueError unless the network takes and gives the channels that its card promises.

        Args:
            network: The network.
            in_rows: Whether a network that can runs over a whole volume a few rows at once, which takes less memory.
        """
        window = tuple(min(side, _SMALL) for side in self.window)
        try:
            shape, taken = _tried(network, self.contract.channel_count, window)
        except (RuntimeError, ValueError):
            if window == self.window:
                raise
            window = self.window  # some take windows of one size only
            shape, taken = _tried(network, self.contract.channel_count, window)
        _expect(shape, (1, self.channels.outputs, *window))
        self._voxel_bytes = COPIES * taken / math.prod(window)
        self._row_bytes = functools.cache(functools.partial(self._rows_of, network, in_rows))

    def _rows_of(self, network: nn.Module, in_rows: bool) -> tuple[float, float]:
        """Bytes that a network takes of a whole volume for a plane's voxel, and for each voxel behind it."""
        if not in_rows or not hasattr(network, "in_rows"):
            return 0.0, self._voxel_bytes
        thin, thick = (_tried_in_rows(network, self.contract.channel_count, depth) for depth in (_THIN, _THICK))
        slope = (thick - thin) / (_THICK - _THIN)
        return COPIES * (thin - slope * _THIN) / _ACROSS**2, COPIES * slope / _ACROSS**2

    def memory(self, shape: Sequence[int], device: str) -> float:
        """Estimate of the bytes that `score` takes of this machine's memory, for a grid `(x, y, z)`, after `check`."""
        outputs = len(self.channels.scored) + self.channels.knows_sides
        kept = outputs * math.prod(shape) * (4 if self.contract.resampling == "monai" else 1)
        if self.contract.any_size and all(n <= side for n, side in zip(shape, self.window, strict=True)):
            at_once = LIBRARIES + kept + math.prod(shape) * self._voxel_bytes * (device == "cpu")
            # running in rows takes less; to find out how much takes time, so that is done where it matters
            if at_once <= budget():
                return at_once
            plane, voxel = self._row_bytes()
            return LIBRARIES + kept + math.prod(shape[1:]) * (plane + shape[0] * voxel) * (device == "cpu")
        padded = [max(n, side) for n, side in zip(shape, self.window, strict=True)]
        image = 4 * self.contract.channel_count * math.prod(padded) * (padded != list(shape))
        layer = 4 * self.channels.outputs * self.window[0] * padded[1] * padded[2]  # logits of a row of windows
        mirrored = 4 * self.channels.outputs * bool(self.mirror_axes)
        network = math.prod(self.window) * (mirrored + self._voxel_bytes * (device == "cpu"))
        return LIBRARIES + kept + image + layer + max(network, 2 * layer)

    def score(self, image: Tensor, predict: Predict, progress: Progress | None) -> Tensor:
        """Scores `(K, x, y, z)` of an image `(C, x, y, z)`: uint8, or float32 where labels are to be MONAI's.

        Where sides are known, the last is the score of the right side.
        """
        kind = torch.float32 if self.contract.resampling == "monai" else torch.uint8
        channels = len(self.channels.scored) + self.channels.knows_sides
        total = torch.zeros((channels, *image.shape[1:]), dtype=kind)
        fits = all(n <= side for n, side in zip(image.shape[1:], self.window, strict=True))
        whole = self.contract.any_size and fits
        pieces = self._whole(image, predict, progress) if whole else self._windows(image, predict, progress)
        with torch.inference_mode():
            for start, probabilities in pieces:
                total[:, start : start + probabilities.shape[1]] = to_scores(probabilities, kind)
        return total

    def _whole(self, image: Tensor, predict: Predict, progress: Progress | None) -> Iterator[tuple[int, Tensor]]:
        """First plane and probabilities of the next planes, from a volume that is seen in one piece."""
        for start, logits in predict.in_rows(image[None].to(predict.device)):
            yield start, self.channels.probabilities(logits[0]).cpu()
            if progress:
                progress(start + logits.shape[2], image.shape[1])

    def _windows(self, image: Tensor, predict: Predict, progress: Progress | None) -> Iterator[tuple[int, Tensor]]:
        """First plane and probabilities of the next planes, from windows that overlap."""
        count = 2 ** len(self.mirror_axes) * window_count(image.shape[1:], self.window, self.overlap)
        done = 0

        def counted(windows: Tensor) -> Tensor:
            nonlocal done
            logits = predict(windows.to(predict.device))
            done += len(windows)
            if progress:
                progress(done, count)
            return logits

        planes = slide(
            image,
            counted,
            self.window,
            self.overlap,
            batch_size=max(1, _BATCH_VOXELS[predict.device.type] // math.prod(self.window)),
            mirror_axes=self.mirror_axes,
            weighting=self.contract.window_weights,
        )
        for start, logits in planes:
            yield start, self.channels.probabilities(logits)


def make_scorer(
    contract: InputContract, channels: Channels, views: tuple[str, ...] | None, fast: bool
) -> SliceScorer | WindowScorer:
    """The scorer that a model's contract asks for.

    Args:
        contract: What the model expects.
        channels: What it gives.
        views: Planes that a network of slices runs over; None takes the model's own, under `fast` the first.
        fast: Whether speed counts more than precision.
    """
    if contract.patch is not None:
        return WindowScorer(contract, channels, fast)
    own = contract.views[: 1 if fast else None]
    return SliceScorer(contract, channels, own if views is None else contract.check_views(views), fast)


def to_scores(probabilities: Tensor, kind: torch.dtype = torch.uint8) -> Tensor:
    """Probabilities as scores, `CERTAIN` for 1, in a number type."""
    scores = probabilities.mul_(CERTAIN)
    return (scores if kind.is_floating_point else scores.round_()).to(kind)


@torch.inference_mode()
def _tried(network: nn.Module, channels: int, window: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Shape of what a network makes of zeros, and the most bytes of tensors on the way."""
    with PeakOfTensors() as tensors:
        shape = tuple(network(torch.zeros(1, channels, *window)).shape)
    return shape, tensors.peak


@torch.inference_mode()
def _tried_in_rows(network: nn.Module, channels: int, depth: int) -> int:
    """The most bytes of tensors while a network runs over zeros in rows."""
    with PeakOfTensors() as tensors:
        for _ in getattr(network, "in_rows")(torch.zeros(1, channels, depth, _ACROSS, _ACROSS)):  # noqa: B009
            pass
    return tensors.peak


def _expect(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise InputError(f"its network gives {shape}, but its card names classes {expected}")
