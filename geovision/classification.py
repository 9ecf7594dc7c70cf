"""From satellite images to calibrated class probabilities, prediction sets and a score of outliers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geovision.contract import InputContract
from geovision.datasets.images import brought_to
from geovision.pretraining import central_views
from geovision.scenes import Scene
from shared_backbones.classification.classifier import ImageClassifier
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_LARGEST = 4096  # side in pixels of an image; what is larger is a scene of many


class SatelliteClassifier(ImageClassifier[InputContract]):
    """A trained classifier of satellite images, each seen once as it is unless the model was calibrated otherwise.

    Images are `(N, C, H, W)` in the model's bands and numbers, NaN where there are no data; `read` gives them.
    """

    def read_contract(self, card: Mapping[str, Any], label: str) -> InputContract:
        """The contract for satellite images."""
        return InputContract.from_card(card, label)

    def has_several(self, card: Mapping[str, Any]) -> bool:
        """Whether an image can have several classes; cards of version 0.1 say so by the figure of their validation."""
        return bool(card.get("multi_label", "validation_map_macro" in card.get("training", {})))

    def read(self, scene: Scene) -> Tensor:
        """An image that fills a whole file or product, `(1, C, H, W)` float32, NaN where there are no data.

        Args:
            scene: opened for the model with `geovision.scenes.open_for_model`.

        Raises:
            InputError: it is damaged, or so large that it is a scene of many images.
        """
        height, width = scene.shape
        if max(height, width) > _LARGEST:
            raise InputError(
                f"{scene.label}: has {height} x {width} pixels, expected one image of at most {_LARGEST} a side; cut "
                "it up, or use geovision map or embed"
            )
        values, valid = scene.read(0, 0, height, width, self.contract.scale)
        return torch.from_numpy(np.where(valid, values, np.float32(np.nan)))[None]

    def prepare(self, images: Tensor) -> Tensor:
        """What the network sees: normalised, and in the published view of an evaluation.

        The shorter side is brought to the side that the training's images had, and the middle is kept; of that, the
        side is brought to `size / 0.875` (bicubic), and the middle is cut out again.

        Args:
            images: `(N, C, H, W)` in the model's numbers, NaN where there are no data.

        Returns:
            `(N, C, size, size)` float32.

        Raises:
            InputError: another number of bands than the model takes.
        """
        contract = self.contract
        bands = images.shape[1] if images.ndim == 4 else 0
        if bands != len(contract.bands):
            raise InputError(
                f"images have {bands} bands, the model takes {len(contract.bands)}: {', '.join(contract.bands)}"
            )
        numbers = images.float()
        valid = numbers.isfinite().all(1)
        numbers = numbers.masked_fill(~valid[:, None], 0.0)
        side = contract.stored or min(images.shape[2:])
        if tuple(images.shape[2:]) != (side, side):
            pairs = [brought_to(*pair, side) for pair in zip(numbers.numpy(), valid.numpy(), strict=True)]
            numbers, valid = (torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True))
        return central_views(contract.normalise(numbers, valid), contract.size)

    def normalise(self, images: Tensor) -> Tensor:
        """Images as they are: `prepare` normalises them, as numbers without data cannot be resized."""
        return images

    def feature_maps(self, features: Tensor) -> Tensor:
        """Maps of a network's last features; tokens of SatMAE++'s patches are laid out, and groups of bands averaged.

        Raises:
            InputError: the network's features are no maps, or its head reads the class token alone.
        """
        trunk = getattr(self.network, "trunk", None)
        if trunk is None or features.ndim != 3:
            return super().feature_maps(features)
        if not getattr(self.network, "global_pool", True):
            raise InputError(
                f"model {printable(self.folder)}: reads its class token alone, so that Grad-CAM has no map to show"
            )
        return features[:, 1:].unflatten(1, (-1, *trunk.grid)).mean(1).permute(0, 3, 1, 2)
