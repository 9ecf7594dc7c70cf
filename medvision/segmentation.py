"""From a volume to labels on its own grid, with a 2-D network run over slices.

The volume is turned to RAS axes, resampled to the model's spacing, scaled to [0, 1] and cut to the head's box. The
network sees slices, each with its neighbours as channels, along one axis or several. Its class scores are kept as
uint8 at the model's spacing, summed over the axes, and resampled to the input's grid slab by slab: there is never a
full-resolution array of all classes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medvision.contract import AXIS_OF_VIEW, InputContract
from medvision.models.catalogue import find_model
from medvision.resampling import linear_weights, rescale_intensity, resize_linear, resize_scores
from medvision.volumes import Volume, read_volume, to_ras, write_stack, write_volume
from shared_backbones import weights
from shared_backbones.devices import choose_device, choose_precision
from shared_backbones.errors import InputError
from shared_backbones.inference import fold_for_inference

FAST_COARSENING = 1.25  # spacing under --fast, relative to the model's own
_MULTIPLE = 32  # in-plane size that the network takes without padding of its own
_BATCH = {"cpu": 8, "mps": 16, "cuda": 64}

Progress = Callable[[int, int], None]


@dataclass
class Segmentation:
    """Labels of one volume, and what is needed to judge and to repeat them.

    Attributes:
        labels: `(X, Y, Z)` uint8 on the input's own grid.
        volume: the input.
        card: of the model.
        confidence: mean score of the winning class over each class's voxels, in [0, 1]; None where it has none.
        settings: what decides the result beside model and input.
        device: where the network ran.
        precision: `float32` or `bfloat16`.
        timings_s: seconds by step.
        warnings: what a user should know.
        model_sha256: of the weights.
    """

    labels: np.ndarray
    volume: Volume
    card: dict[str, Any]
    confidence: dict[int, float | None]
    settings: dict[str, Any]
    device: str
    precision: str
    timings_s: dict[str, float]
    warnings: list[str]
    model_sha256: str
    _scores: "_Scores | None" = field(default=None, repr=False)

    def save(self, path: str | Path) -> None:
        """Write the label map as NIfTI on the input's grid.

        Raises:
            InputError: the file cannot be written.
        """
        write_volume(path, self.labels, self.volume.grid)

    def save_probabilities(self, path: str | Path) -> None:
        """Write class probabilities as `(X, Y, Z, K)` NIfTI, uint8 with slope 1/255, one class at a time.

        Raises:
            ValueError: the volume was segmented without `keep_scores=True`.
            InputError: the file cannot be written.
        """
        if self._scores is None:
            raise ValueError("probabilities were not kept; segment with keep_scores=True")
        volumes = self._scores.probabilities()
        write_stack(path, volumes, len(self._scores.values), np.uint8, self.volume.grid, slope=1 / 255)


class Segmenter:
    """A segmentation model that is loaded once and serves many volumes.

    Args:
        model: bundled name or folder of a trained model.
        device: `auto` (a GPU if one is there and works, else the CPU), `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads; by default torch's choice.
        views: planes the network runs over, of `axial`, `coronal`, `sagittal`; by default the model's own.
        fast: one view and a coarser spacing.
        precision: `auto`, `float32` or `bfloat16`. `auto` takes bfloat16 where the hardware computes in it and the
            model's card says that at least 99.9 % of voxels keep their label.

    Raises:
        InputError: no such model, device, or view, or a model that does not segment volumes.
    """

    def __init__(
        self,
        model: str | Path = "brain-structures",
        *,
        device: str = "auto",
        threads: int | None = None,
        views: Sequence[str] | None = None,
        fast: bool = False,
        precision: str = "auto",
    ) -> None:
        trained = weights.load(find_model(model))
        self.card, self.model_sha256 = trained.card, trained.sha256
        self.contract = InputContract.from_card(trained.card, str(model))
        if threads:
            torch.set_num_threads(threads)
        self.device, self.warnings = choose_device(device)
        self.may_fall_back = device == "auto"
        self.precision = choose_precision(precision, self.device, float(trained.card.get("bfloat16_agreement", 0)))
        self.views = self.contract.check_views(views) if views else self.contract.views[: 1 if fast else None]
        self.fast = fast
        self.spacing_mm = self.contract.spacing_mm * (FAST_COARSENING if fast else 1.0)
        self.network = fold_for_inference(trained.module).to(self.device, memory_format=torch.channels_last)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides a result beside the model and the input."""
        return {
            "views": list(self.views),
            "spacing_mm": self.spacing_mm,
            "fast": self.fast,
            "precision": self.precision,
        }

    def segment(
        self, scan: str | Path | Volume, *, keep_scores: bool = False, progress: Progress | None = None
    ) -> Segmentation:
        """Label every voxel of a scan.

        Args:
            scan: path of a NIfTI or MGH file, or a volume.
            keep_scores: keep what `Segmentation.save_probabilities` needs.
            progress: called with slices done and slices in all.

        Raises:
            InputError: the scan cannot be used.
        """
        clock = _Clock()
        volume = scan if isinstance(scan, Volume) else read_volume(scan)
        clock.lap("read")
        prepared = self._prepare(volume)
        clock.lap("prepare")
        warnings = [*volume.warnings, *self.warnings]
        try:
            scores = self._score(prepared.image, progress)
        except torch.OutOfMemoryError as error:
            if not self.may_fall_back:
                raise InputError(
                    f"device {self.device}: out of memory; free some, or run with --device cpu"
                ) from error
            warnings.append(f"{self.device} ran out of memory; the CPU was used")
            self.device = torch.device("cpu")
            self.network.to(self.device)
            scores = self._score(prepared.image, progress)
        clock.lap("network")
        _keep_largest_piece(scores)
        found = _Scores(scores, len(self.views), prepared)
        labels, confidence = found.labels()
        clock.lap("labels")
        return Segmentation(
            labels=labels,
            volume=volume,
            card=self.card,
            confidence=confidence,
            settings=self.settings,
            device=str(self.device),
            precision=self.precision,
            timings_s=clock.laps,
            warnings=warnings,
            model_sha256=self.model_sha256,
            _scores=found if keep_scores else None,
        )

    def _prepare(self, volume: Volume) -> "_Prepared":
        """Bring a volume to the network's grid and cut it to its content."""
        data = volume.data
        ras, spacing, undo = to_ras(data, volume.grid)
        # torch knows no negative strides: flips wait until the volume is small
        flips = [axis for axis in range(3) if ras.strides[axis] < 0]
        image = resize_linear(torch.from_numpy(np.flip(ras, flips)), spacing, (self.spacing_mm,) * 3)
        image = rescale_intensity(image.flip(flips) if flips else image)
        box = _content_box(image)
        return _Prepared(image[box], box, tuple(image.shape), ras.shape, spacing, self.spacing_mm, undo)

    def _score(self, image: Tensor, progress: Progress | None) -> Tensor:
        """Summed uint8 class scores `(K, x, y, z)` of the box."""
        kind = torch.uint8 if len(self.views) == 1 else torch.int16
        total = torch.zeros((len(self.contract.classes), *image.shape), dtype=kind)
        count = sum(image.shape[AXIS_OF_VIEW[view]] for view in self.views)
        done = 0
        for view in self.views:
            axis = AXIS_OF_VIEW[view]
            for start, scores in self._score_slices(image.movedim(axis, 0)):
                where = total.narrow(axis + 1, start, scores.shape[0])
                where += scores.movedim(0, axis + 1)
                done += scores.shape[0]
                if progress:
                    progress(done, count)
        return total

    @torch.inference_mode()
    def _score_slices(self, stack: Tensor) -> Iterator[tuple[int, Tensor]]:
        """First slice and uint8 scores `(B, K, H, W)` of each batch over the first axis of `(N, H, W)`."""
        n, height, width = stack.shape
        smallest = self.contract.smallest_slice
        padded = [max(smallest, -(-size // _MULTIPLE) * _MULTIPLE) for size in (height, width)]
        canvas = torch.zeros((n, *padded))
        top, left = (padded[0] - height) // 2, (padded[1] - width) // 2
        canvas[:, top : top + height, left : left + width] = stack
        offsets = torch.tensor(self.contract.slices)
        batch = _BATCH[self.device.type]
        for start in range(0, n, batch):
            at = torch.arange(start, min(start + batch, n))
            channels = (at[:, None] + offsets).clamp_(0, n - 1)
            slices = canvas[channels].to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                logits = self.network(slices)
            inner = logits[..., top : top + height, left : left + width]
            yield start, inner.float().softmax(1).mul_(255).round_().to(torch.uint8).cpu()


@dataclass
class _Prepared:
    """A volume on the network's grid, and the way back."""

    image: Tensor
    box: tuple[slice, slice, slice]
    coarse_shape: tuple[int, ...]
    fine_shape: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    network_spacing_mm: float
    undo: Callable[[np.ndarray], np.ndarray]


class _Scores:
    """Class scores in the head's box at the network's spacing, and their way to the input's grid."""

    def __init__(self, values: Tensor, views: int, prepared: _Prepared) -> None:
        self.values, self.views, self.prepared = values, views, prepared
        self.weights, self.inside = [], []
        p = prepared
        for box, coarse, fine, spacing in zip(p.box, p.coarse_shape, p.fine_shape, p.spacing_mm, strict=True):
            matrix = linear_weights(coarse, fine, spacing / p.network_spacing_mm)
            rows = torch.nonzero(matrix[:, box].sum(1) > 0.5)[:, 0]
            # voxels whose support lies mostly in the box; outside it everything is background
            inside = slice(int(rows[0]), int(rows[-1]) + 1)
            kept = matrix[inside, box]
            self.weights.append(kept / kept.sum(1, keepdim=True))
            self.inside.append(inside)

    def labels(self) -> tuple[np.ndarray, dict[int, float | None]]:
        """Labels `(X, Y, Z)` uint8 on the input's grid, and the mean winning score of each class."""
        classes = len(self.values)
        out = np.zeros(self.prepared.fine_shape, np.uint8, order="F")
        counts, sums = torch.zeros(classes), torch.zeros(classes, dtype=torch.float64)
        x, y, z = self.inside
        target = out[x, y, z]
        for slab, scores in resize_scores(self.values, self.weights):
            best, winner = scores.max(0)
            target[:, :, slab] = winner.permute(1, 2, 0).to(torch.uint8).numpy()
            flat = winner.flatten()
            counts += torch.bincount(flat, minlength=classes)
            sums += torch.bincount(flat, weights=best.flatten().double(), minlength=classes)
        mean = sums / counts.clamp(min=1) / (255 * self.views)
        confidence = {k: min(1.0, float(mean[k])) if counts[k] else None for k in range(classes)}
        return np.asfortranarray(self.prepared.undo(out)), confidence

    def probabilities(self) -> Iterator[np.ndarray]:
        """Probabilities `(X, Y, Z)` uint8 in 1/255 on the input's grid, class by class."""
        x, y, z = self.inside
        for index in range(len(self.values)):
            # outside the box there is background and nothing else
            out = np.full(self.prepared.fine_shape, 255 if index == 0 else 0, np.uint8, order="F")
            target = out[x, y, z]
            for slab, scores in resize_scores(self.values[index : index + 1], self.weights):
                values = (scores[0] / self.views).round_().clamp_(0, 255)
                target[:, :, slab] = values.permute(1, 2, 0).to(torch.uint8).numpy()
            yield self.prepared.undo(out)


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now


def _content_box(image: Tensor, margin: int = 4) -> tuple[slice, slice, slice]:
    """Box around what is brighter than a twentieth of the range, widened by `margin` voxels."""
    # single bright voxels are noise: a plane counts where a hundredth of the brightest plane's share is reached
    mask = image > 0.05
    box = []
    for axis in range(3):
        filled = mask.sum(dim=[d for d in range(3) if d != axis])
        rows = torch.nonzero(filled > 0.01 * filled.max())[:, 0]
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, image.shape[axis] - 1)
        box.append(slice(max(0, first - margin), min(image.shape[axis], last + margin + 1)))
    return box[0], box[1], box[2]


def _keep_largest_piece(scores: Tensor) -> None:
    """Make background, in place, of everything labelled that does not hang together with the largest labelled piece."""
    labelled = (scores.argmax(0) > 0).numpy()
    pieces, count = ndimage.label(labelled)
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    stray = torch.from_numpy(labelled & (pieces != sizes.argmax()))
    scores[:, stray] = 0
    scores[0, stray] = torch.iinfo(scores.dtype).max if scores.dtype == torch.uint8 else 255
