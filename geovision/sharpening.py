"""Coarse bands at the resolution of fine ones: degrading as a sensor does, Wald's protocol, and consistency."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geovision.contract import InputContract
from geovision.scenes import Opening
from shared_backbones.degrading import degrade, enlarge, point_spread
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

_REPEATS = 0.98  # share of equal neighbours that tells where coarse pixels lie


@dataclass(frozen=True)
class Sharpening:
    """What a model that sharpens does, as its card says it (`sharpening`).

    Attributes:
        coarse: numbers of the coarse bands among the model's.
        ratio: fine pixels per coarse one along each axis.
        mtf: what the sensor leaves of a wave of two coarse pixels' length, in (0, 1).
        overlap: pixels that a tile has in common with the next.
    """

    coarse: tuple[int, ...]
    ratio: int
    mtf: float
    overlap: int

    def opening(self, bands: int) -> Opening:
        """How scenes are opened: coarse values repeated, and on a finer grid where all of the bands are coarse."""
        return repeated(self.ratio if len(self.coarse) == bands else 1)

    @classmethod
    def from_card(cls, card: Document, contract: InputContract, model: str) -> "Sharpening":
        """Read it from a card.

        Raises:
            InputError: the card is of no model that sharpens.
        """
        try:
            given = card["sharpening"]
            sharpening = cls(
                tuple(contract.bands.index(contract.sensor.band(str(name)).name) for name in given["coarse"]),
                int(given["ratio"]),
                float(given["mtf"]),
                int(given["overlap"]),
            )
            if not sharpening.coarse or sharpening.ratio < 2 or not 0 < sharpening.mtf < 1 or sharpening.overlap < 0:
                raise ValueError("coarse, ratio, mtf and overlap must be bands, 2 or more, 0 to 1, and 0 or more")
            if contract.tile is None or contract.tile % sharpening.ratio or sharpening.overlap >= contract.tile:
                raise ValueError(f"tile {contract.tile}: expected a multiple of {sharpening.ratio} above the overlap")
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"model {model}: its card is of no model that sharpens ({error})") from None
        return sharpening

    def degrade(self, images: Tensor) -> Tensor:
        """What the sensor would see at the coarse resolution, `(B, C, H, W)` to `(B, C, H / ratio, W / ratio)`."""
        return degrade(images, self.ratio, self.mtf)

    def input(self, fine: Tensor, native: Tensor) -> Tensor:
        """What the network sees.

        Args:
            fine: all bands `(B, C, H, W)`, of which the fine ones are taken.
            native: the coarse bands at their own resolution, `(B, K, H / ratio, W / ratio)`.
        """
        images = fine.clone()
        images[:, list(self.coarse)] = enlarge(native, self.ratio)
        return images

    def native(self, images: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse bands at their own resolution `(B, K, h, w)`, and which of their pixels are known, `(B, h, w)`.

        Args:
            images: all bands on the fine grid, each coarse value repeated; a coarse pixel begins at the corner.
            valid: `(B, H, W)` bool.
        """
        known = valid[:, None].to(images.dtype)
        counts = F.avg_pool2d(known, self.ratio)
        sums = F.avg_pool2d(images[:, list(self.coarse)] * known, self.ratio)
        return sums / counts.clamp(min=1e-6), counts[:, 0] > 0

    def wald(self, images: Tensor, valid: Tensor) -> "WaldPair":
        """Everything once more degraded, so that what is to be found is known (Wald et al., 1997).

        Args:
            images: as for `native`, H and W multiples of twice the ratio, invalid pixels filled.
            valid: `(B, H, W)` bool.
        """
        native, known = self.native(images, valid)
        coarser = self.degrade(native)
        whole = F.avg_pool2d(valid[:, None].to(images.dtype), self.ratio)[:, 0] > 1 - 1e-6
        return WaldPair(self.input(self.degrade(images), coarser), native, coarser, whole & known)


def repeated(finer: int) -> Opening:
    """How scenes are opened whose coarse values are repeated, on a grid that is so many times as fine."""
    return {"nearest": True, "finer": finer}


class WaldPair(NamedTuple):
    """A pair at reduced scale.

    Attributes:
        images: what the network sees, `(B, C, h, w)`.
        wanted: the coarse bands as they were measured, `(B, K, h, w)`.
        coarser: what they were degraded to, `(B, K, h / ratio, w / ratio)`.
        valid: `(B, h, w)` bool.
    """

    images: Tensor
    wanted: Tensor
    coarser: Tensor
    valid: Tensor


def wholly_seen(valid: Tensor, ratio: int, mtf: float) -> Tensor:
    """Coarse pixels into which nothing unknown was spread: `(B, H, W)` to `(B, H / ratio, W / ratio)` bool."""
    length = len(point_spread(ratio, mtf))
    before = (length - ratio) // 2
    after = length - ratio - before
    unknown = F.pad((~valid)[:, None].float(), (before, after, before, after), value=1.0)
    return F.max_pool2d(unknown, length, ratio)[:, 0] == 0


def coarse_offset(values: Tensor, ratio: int) -> tuple[int, int]:
    """Row and column at which the first whole coarse pixel begins, from where values repeat; (0, 0) where none do.

    Args:
        values: coarse bands on the fine grid, `(K, H, W)`.
        ratio: fine pixels per coarse one along each axis.
    """
    offsets = []
    for axis in (1, 2):
        same = (values.diff(dim=axis) == 0).to(torch.float32).mean((0, 3 - axis))
        # between pixels i and i + 1 lies a border where i + 1 is a multiple of the ratio, counted from the offset
        fractions = []
        for offset in range(ratio):
            inside = torch.tensor([(i + 1 - offset) % ratio != 0 for i in range(len(same))], device=same.device)
            fractions.append(float(same[inside].mean()) if inside.any() else 0.0)
        best = max(range(ratio), key=lambda offset: fractions[offset])
        offsets.append(best if fractions[best] >= _REPEATS else 0)
    return offsets[0], offsets[1]


def filled(images: Tensor, valid: Tensor) -> Tensor:
    """Images `(B, C, H, W)` whose unknown pixels have the mean of the known ones of their band."""
    known = valid[:, None].to(images.dtype)
    mean = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(valid[:, None], images, mean)


def sharpened(network: nn.Module, contract: InputContract, images: Tensor, coarse: Sequence[int]) -> Tensor:
    """The coarse bands that a network makes of its input, in the model's numbers, `(B, K, H, W)`."""
    return to_numbers(network(contract.normalise(images)).float(), contract, coarse)


def to_numbers(output: Tensor, contract: InputContract, coarse: Sequence[int]) -> Tensor:
    """The coarse bands of a network's output `(B, C, H, W)` in the model's numbers, `(B, K, H, W)`."""
    bands = list(coarse)
    mean, std = (output.new_tensor(values)[bands][:, None, None] for values in (contract.mean, contract.std))
    return output[:, bands] * std + mean
