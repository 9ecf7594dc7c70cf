"""Maps of surfaces from whatever bands a satellite has: each band's weights follow from its wavelength."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones.architectures import Role
from shared_backbones.inference import fold_batch_norm

_FREQUENCIES = 12
_FLOOR = 0.01  # of a reflectance before its logarithm


class SpectralMapper(nn.Module):
    """A per-pixel network with a small context, for any set of bands in any order.

    The first layer has no weights of its own for a band: a small network makes them from the band's wavelength, as in
    DOFA (Xiong et al., 2024), for the reflectance and for its logarithm, in which ratios of bands are differences. The
    sum over the bands is divided by their number.

    Args:
        num_classes: Number of classes.
        in_chans: Number of bands.
        wavelengths: Centres of the bands in nm, in the order of the channels, until `see` changes them; by default they
            are spread from 480 to 2200 nm.
        width: Channels within.
        depth: Blocks that look at a neighbourhood of 5 x 5 pixels each.

    Attributes:
        arguments: The constructor's arguments, in JSON types.

    Raises:
        ValueError: a wavelength is not from 300 to 3000 nm, or they are not as many as the bands.
    """

    role: ClassVar[Role] = "segmenter"

    def __init__(
        self,
        num_classes: int,
        in_chans: int = 6,
        wavelengths: Sequence[float] | None = None,
        width: int = 64,
        depth: int = 2,
    ) -> None:
        super().__init__()
        if wavelengths is None:
            wavelengths = [480 * (2200 / 480) ** (place / max(1, in_chans - 1)) for place in range(in_chans)]
        if len(wavelengths) != in_chans:
            raise ValueError(f"{len(wavelengths)} wavelengths are given, expected in_chans={in_chans} of them")
        self.arguments = {
            "num_classes": num_classes, "in_chans": in_chans, "wavelengths": list(wavelengths), "width": width,
            "depth": depth,
        }  # fmt: skip
        self.width = width
        self.see(wavelengths)
        self.band_weights = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, 2 * width), nn.GELU(), nn.Linear(2 * width, 2 * width)
        )
        self.norm = nn.BatchNorm2d(width)
        self.mixing = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 1), nn.GELU())
        self.context = nn.Sequential(*(_Context(width) for _ in range(depth)))
        self.head = nn.Conv2d(width, num_classes, 1)

    def see(self, wavelengths: Sequence[float]) -> None:
        """Take images of other bands from now on.

        Args:
            wavelengths: Centres of the bands in nm, in the order of the channels.

        Raises:
            ValueError: there is none, or one is not from 300 to 3000 nm.
        """
        if not wavelengths or not all(300 <= wavelength <= 3000 for wavelength in wavelengths):
            raise ValueError(f"wavelengths are {list(wavelengths)}, expected one or more, each from 300 to 3000 nm")
        self.wavelengths = tuple(map(float, wavelengths))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each pixel.

        Args:
            images: Reflectances `(B, C, H, W)`, about 0 to 1, one channel for each wavelength.

        Returns:
            `(B, num_classes, H, W)`.

        Raises:
            ValueError: the channels are not as many as the wavelengths.
        """
        bands = len(self.wavelengths)
        if images.shape[1] != bands:
            raise ValueError(f"images have {images.shape[1]} bands, expected {bands} with the wavelengths that are set")
        values = torch.cat([images, (images.clamp(min=0) + _FLOOR).log() / 4 + 0.5], 1)
        # (C, 2 * width) -> one column for each channel of `values`
        weights = self.band_weights(self._codes(images)).view(bands, 2, self.width).permute(2, 1, 0)
        x = F.conv2d(values, weights.reshape(self.width, 2 * bands, 1, 1) / bands)
        return self.head(self.context(self.mixing(self.norm(x))))

    def cool_(self, temperature: float) -> None:
        """Divide the logits by a temperature from now on."""
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.div_(temperature)

    def _codes(self, like: Tensor) -> Tensor:
        """Sines and cosines of the wavelengths on a logarithmic scale, `(C, 2 * _FREQUENCIES)`."""
        places = [math.log10(wavelength / 300) for wavelength in self.wavelengths]
        octaves = like.new_tensor([math.pi * 2 ** (octave / 2 - 1) for octave in range(_FREQUENCIES)])
        phases = like.new_tensor(places)[:, None] * octaves
        return torch.cat([phases.sin(), phases.cos()], 1)


class _Context(nn.Module):
    """What lies around: a convolution of each channel by itself, and a mixture of them, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False, padding_mode="replicate")
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.mixing = nn.Sequential(nn.GELU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixing(self.norm(self.around(x)))

    def fold_(self) -> None:
        """Merge the norm into the convolution before it."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.around = fold_batch_norm(self.around, self.norm)
            self.norm = nn.Identity()
