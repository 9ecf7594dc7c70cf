"""From thick slices to thin ones: a volume at a finer spacing across its slices, as a network infers it."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from shared_backbones import weights
from shared_backbones.card import Provenance, provenance_of
from shared_backbones.degrading import consistent, degrade, enlarge
from shared_backbones.devices import choose_device, choose_threads
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.inference import LIBRARIES, optimize_for_inference
from shared_backbones.json_values import Document
from shared_backbones.memory import expect

THICK = 1.5  # times the finest spacing, from which on slices are thick


@dataclass(frozen=True)
class Thinning:
    """What a model that makes slices thinner does, as its card says it (`thinning`).

    Attributes:
        ratio: thin slices per thick one.
        mtf: what a thick slice leaves of a wave of two slices' length, in (0, 1).
    """

    ratio: int
    mtf: float

    @classmethod
    def from_card(cls, card: Document, model: str) -> "Thinning":
        """Read it from a card.

        Raises:
            InputError: the card is of no model that makes slices thinner.
        """
        try:
            thinning = cls(int(card["thinning"]["ratio"]), float(card["thinning"]["mtf"]))
            if not 2 <= thinning.ratio <= 16 or not 0 < thinning.mtf < 1:
                raise ValueError("ratio and mtf must be from 2 to 16, and between 0 and 1")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card is of no model that makes slices thinner ({error})") from None
        return thinning

    def thick(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, W)` as thick slices show them, `(B, 1, H, W / ratio)`."""
        return degrade(images, (1, self.ratio), self.mtf)

    def enlarged(self, images: Tensor) -> Tensor:
        """Images `(B, 1, H, w)` enlarged bicubically across the slices, `(B, 1, H, ratio w)`."""
        return enlarge(images, (1, self.ratio))

    def restored(self, network: nn.Module, images: Tensor) -> Tensor:
        """What a network makes of thick slices `(B, 1, H, w)`: `(B, 1, H, ratio w)`."""
        return network(self.enlarged(images)).float()


@dataclass(frozen=True)
class Enhanced:
    """A volume with thinner slices.

    Attributes:
        data: (X, Y, Z) float32, in the units of the scan.
        grid: where its voxels lie.
        axis: stored axis across the slices.
        rms: how far the result degraded again is from what was measured: root mean square, as a share of the standard
            deviation.
    """

    data: np.ndarray
    grid: Grid
    axis: int
    rms: float


class Enhancer:
    """A network that makes slices thinner, loaded once for many scans.

    It sees the planes across the slices, both ways, on a bicubic enlargement, and the mean of both is changed until it
    agrees with what was measured.

    Args:
        model: folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads.

    Attributes:
        thinning: what it does.
        card: the model's `model.json`.
        sha256: SHA-256 of its weights.
        warnings: what a user should know.

    Raises:
        InputError: no such model or device, or the model makes no slices thinner.
    """

    def __init__(self, model: str | Path, *, device: str = "auto", threads: int | None = None) -> None:
        choose_threads(threads)
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.thinning = Thinning.from_card(self.card, printable(model))
        self.network = optimize_for_inference(trained.module).to(self.device)
        trial = torch.zeros(1, 1, 16, 16 * self.thinning.ratio, device=self.device)
        try:
            with torch.inference_mode():
                shape = tuple(self.network(trial).shape)
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not take slices of one channel ({reason})") from None
        if shape != tuple(trial.shape):
            raise InputError(f"model {printable(model)}: gives {shape} for slices of {tuple(trial.shape)}; use another")

    def enhance(self, volume: Volume, on_progress: Callable[[int, int], None] | None = None) -> Enhanced:
        """Make the slices of a scan thinner by the model's ratio.

        Args:
            volume: the scan; its slices lie across its coarsest axis.
            on_progress: called with planes done and planes in all.

        Raises:
            InputError: its slices are not thick, or it would take more memory than the budget.
        """
        spacing = np.array(volume.grid.spacing_mm)
        axis = int(spacing.argmax())
        if spacing[axis] < THICK * np.delete(spacing, axis).max():
            raise InputError(
                f"{volume.case_id}: its voxels are {' x '.join(f'{side:.3g}' for side in spacing)} mm, expected one "
                f"spacing that is {THICK:g} times the others or more; there are no thick slices to make thinner"
            )
        ratio, shape = self.thinning.ratio, list(volume.data.shape)
        shape[axis] *= ratio
        expect(LIBRARIES + 5 * 4 * math.prod(shape), volume.case_id, "enhancing it")
        mean, std = float(volume.data.mean(dtype=np.float64)), float(volume.data.std(dtype=np.float64))
        # slices across the axis, which comes last: (A, B, w)
        native = torch.from_numpy(np.ascontiguousarray(np.moveaxis(volume.data, axis, 2)))
        native = (native - mean) / max(std, 1e-12)
        count = native.shape[0] + native.shape[1]
        done = 0
        both = []
        for turned in (native, native.transpose(0, 1)):
            planes = torch.empty(*turned.shape[:2], turned.shape[2] * ratio)
            for number, plane in enumerate(turned):
                planes[number] = self._plane(plane)
                done += 1
                if on_progress is not None:
                    on_progress(done, count)
            both.append(planes)
        result = both[0].add_(both[1].transpose(0, 1)).div_(2)
        agrees = functools.partial(consistent, ratio=(1, ratio), mtf=self.thinning.mtf)
        missing = 0.0
        for number, plane in enumerate(native):  # in place, plane by plane
            result[number] = agrees(result[number][None, None], plane[None, None])[0, 0]
            again = self.thinning.thick(result[number][None, None])[0, 0]
            missing += float((plane - again).double().square().sum())
        data = np.moveaxis(result.mul_(std).add_(mean).numpy(), 2, axis)
        rms = math.sqrt(missing / native.numel())
        return Enhanced(np.ascontiguousarray(data), finer(volume.grid, axis, ratio), axis, rms)

    def _plane(self, plane: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.thinning.restored(self.network, plane[None, None].to(self.device))[0, 0].cpu()

    def provenance(self) -> Provenance:
        """What a side-car says of the model."""
        return provenance_of(self.card, self.sha256)


def finer(grid: Grid, axis: int, ratio: int) -> Grid:
    """A grid with the same outer borders, and so many voxels for each along an axis."""
    affine, shape = grid.affine.copy(), list(grid.shape)
    affine[:3, 3] += affine[:3, axis] * (0.5 / ratio - 0.5)
    affine[:3, axis] /= ratio
    shape[axis] *= ratio
    return Grid.from_affine((shape[0], shape[1], shape[2]), affine)
