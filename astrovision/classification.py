"""From images of galaxies to calibrated class probabilities, prediction sets and a score of outliers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from astrovision.contract import InputContract, mirror_of
from astrovision.outliers import Outliers
from shared_backbones import weights
from shared_backbones.devices import choose_device, choose_precision
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.inference import optimize_for_inference
from shared_backbones.probabilities import prediction_sets


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of some images.

    Attributes:
        probabilities: `(N, K)` float32.
        sets: classes that an image may have at the model's coverage, `(N, K)` bool; None without calibration.
        outlier_score: about 1 for images like those of the training, `(N,)`; None where the model has no such score.
        is_outlier: whether it is above the model's threshold, `(N,)` bool; None likewise.
    """

    probabilities: np.ndarray
    sets: np.ndarray | None
    outlier_score: np.ndarray | None
    is_outlier: np.ndarray | None

    @property
    def labels(self) -> np.ndarray:
        """Number of the most probable class, `(N,)`."""
        return self.probabilities.argmax(1)


class GalaxyClassifier:
    """A trained classifier, loaded once for many images.

    Args:
        model: folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice.
        precision: `auto`, `float32` or `bfloat16`.
        symmetries: average the probabilities over the eight symmetries of the square; mirrored views have the classes
            of mirror images exchanged.
        calibrated: use the card's temperature and prediction sets.

    Attributes:
        card: the model's `model.json`.
        sha256: of its weights.
        contract: what it expects of an image.
        names: of the classes.
        mirror: for each class the one that its mirror image has.
        warnings: what a user should know.

    Raises:
        InputError: no such model, device or precision, or its card is of no model for astronomical images.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        symmetries: bool = True,
        calibrated: bool = True,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if not Path(model).is_dir():
            raise InputError(f"model {printable(model)}: no such folder; expected one with model.json")
        self.folder, self.symmetries = Path(model), symmetries
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.contract = InputContract.from_card(trained.card, str(model))
        try:
            self.names = [str(entry["name"]) for entry in self.card["classes"]]
            self.mirror = mirror_of(self.card)
            known = self.card.get("calibration", {}) if calibrated else {}
            self.temperature = float(known.get("temperature", 1.0))
            self.coverage, self.quantile = known.get("coverage"), known.get("quantile")
            if not self.temperature > 0 or len(self.names) < 2:
                raise ValueError("expected a temperature above 0 and two or more classes")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"model {printable(model)}: its card cannot be used ({error}); choose another") from None
        self.precision = choose_precision(precision, self.device, float(self.card.get("bfloat16_agreement", 0)))
        network: Any = optimize_for_inference(trained.module)
        self.network = network.to(device=self.device, memory_format=torch.channels_last)
        size, bands = self.contract.size, len(self.contract.bands)
        try:
            logits, features = self._run(torch.zeros(1, bands, size, size))
        except (AttributeError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not run on what its card promises ({reason})") from None
        if tuple(logits.shape) != (1, len(self.names)):
            raise InputError(
                f"model {printable(model)}: gives an output of shape {tuple(logits.shape)}, expected one number "
                f"for each of its {len(self.names)} classes; use a classifier"
            )
        self.outliers = Outliers.load(model, features.shape[1]) if calibrated else None

    def prepare(self, images: Tensor) -> Tensor:
        """The part that the network sees, at its size: the middle, resized (bicubic, smoothed where it shrinks).

        Args:
            images: `(N, C, H, W)` uint8, or floating point from 0 to 1.

        Returns:
            `(N, C, size, size)` of the same type.
        """
        side, size = self.contract.crop * min(images.shape[2:]), self.contract.size
        height, width = images.shape[2:]
        whole = max(1, round(side))
        top, left = (height - whole) // 2, (width - whole) // 2
        middle = images[:, :, top : top + whole, left : left + whole]
        if whole == size:
            return middle
        scaled = F.interpolate(middle.float(), (size, size), mode="bicubic", antialias=True, align_corners=False)
        if images.is_floating_point():
            return scaled.clamp(0, 1)
        return scaled.round().clamp(0, 255).to(torch.uint8)

    def predict(self, images: Tensor) -> Prediction:
        """Class probabilities and what goes with them.

        Args:
            images: `(N, C, size, size)` as `prepare` gives them.

        Raises:
            InputError: another number of bands, or another size, than the model takes.
        """
        self._check(images)
        total, features = None, None
        views = range(8) if self.symmetries else range(1)
        for view in views:
            turned = images.rot90(view % 4, (2, 3))
            logits, found = self._run(turned.flip(3) if view >= 4 else turned)
            shares = (logits / self.temperature).softmax(1)
            shares = shares[:, self.mirror] if view >= 4 else shares
            total = shares if total is None else total + shares
            features = found if features is None else features
        assert total is not None and features is not None  # noqa: S101 - there is one view or more
        scores = (total / len(views)).cpu().numpy()
        sets = None if self.quantile is None else prediction_sets(scores, float(self.quantile))
        strange = None if self.outliers is None else self.outliers.score(features.cpu().numpy())
        called = None if self.outliers is None or strange is None else strange > self.outliers.threshold
        return Prediction(scores, sets, strange, called)

    def features(self, images: Tensor) -> np.ndarray:
        """What the classifier sees of images as `prepare` gives them, `(N, D)` float32."""
        self._check(images)
        return self._run(images)[1].cpu().numpy()

    def _check(self, images: Tensor) -> None:
        expected = (len(self.contract.bands), self.contract.size, self.contract.size)
        if tuple(images.shape[1:]) != expected:
            raise InputError(
                f"images are {tuple(images.shape[1:])}, the model takes {expected} of {', '.join(self.contract.bands)}"
            )

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of the head."""
        inputs = self.contract.normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            maps = self.network.forward_features(inputs)
            seen = self.network.forward_head(maps, pre_logits=True)
            return self.network.forward_head(maps).float(), seen.float()
