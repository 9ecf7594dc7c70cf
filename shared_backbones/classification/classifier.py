"""From images to calibrated class probabilities, prediction sets, a score of outliers, and what speaks for a class."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared_backbones import weights
from shared_backbones.card import Calibration, Card, Provenance, provenance_of
from shared_backbones.classification.calibration import prediction_sets
from shared_backbones.classification.contract import ContractT, mirror_of
from shared_backbones.classification.outliers import Outliers
from shared_backbones.classification.watching import Watching
from shared_backbones.devices import choose_device, choose_precision, choose_threads
from shared_backbones.engines import (
    TORCH,
    Accelerated,
    check_engine,
    describe,
    identity_of,
    same_decisions,
    same_labels,
)
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.inference import optimize_for_inference


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of some images.

    Attributes:
        probabilities: `(N, K)` float32; each of its own where an image can have several classes, else of sum 1.
        sets: classes that an image may have at the model's coverage, `(N, K)` bool; None without calibration.
        outlier_score: about 1 for images like those of the training, `(N,)`; None where the model has no such score.
        is_outlier: whether the score is above the model's threshold, `(N,)` bool; None where there is no score.
    """

    probabilities: np.ndarray
    sets: np.ndarray | None
    outlier_score: np.ndarray | None
    is_outlier: np.ndarray | None

    @property
    def labels(self) -> np.ndarray:
        """Number of the most probable class, `(N,)`."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """Its probability, `(N,)`."""
        return self.probabilities.max(1)


class ImageClassifier(Generic[ContractT]):
    """A trained classifier, loaded once for many images; each domain's says how its contract is read.

    Args:
        model: folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice, within its quota of CPUs.
        precision: `auto`, `float32` or `bfloat16`.
        engine: `torch`, or `openvino` for the CPU; see `shared_backbones.engines`.
        batch_size: images that the network sees at once.
        symmetries: average the probabilities over the eight symmetries of the square; mirrored views have the classes
            of mirror images exchanged. None does as the model was calibrated, and else what its domain does.
        calibrated: use the card's temperature and prediction sets.

    Attributes:
        card: the model's `model.json`.
        sha256: SHA-256 of its weights.
        contract: what it expects of an image.
        names: names of the classes.
        mirror: for each class the one that its mirror image has.
        multi_label: whether an image can have several classes: each has a probability of its own.
        temperature: divisor of the logits of averaged probabilities.
        coverage: nominal coverage of the prediction sets; None where the model has none.
        outliers: model of the training features; None where the folder has none.
        warnings: what a user should know.

    Raises:
        InputError: no such model, device, precision or engine, or its card is of no model for such images.
    """

    default_symmetries = False

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        engine: str = "torch",
        batch_size: int = 64,
        symmetries: bool | None = None,
        calibrated: bool = True,
    ) -> None:
        choose_threads(threads)
        if not Path(model).is_dir():
            raise InputError(f"model {printable(model)}: no such folder; expected one with model.json")
        self.folder, self.batch_size = Path(model), batch_size
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.contract = self.read_contract(trained.card, str(model))
        try:
            self.names = [str(entry["name"]) for entry in self.card["classes"]]
            if len(set(self.names)) < max(2, len(self.names)):
                raise ValueError("expected two or more classes of different names")
            self.mirror = mirror_of(self.card)
            self.multi_label = self.has_several(self.card)
            known: Calibration = self.card.get("calibration", {}) if calibrated else {}
            self.symmetries = (
                bool(known.get("symmetries", self.default_symmetries)) if symmetries is None else symmetries
            )
            self.temperature = float(known.get("temperature", 1.0))
            if not 0 < self.temperature < math.inf:
                raise ValueError(f"temperature is {self.temperature:g}, expected more than 0")
            self.quantile, self.coverage = _prediction_sets(known)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"model {printable(model)}: its card cannot be used ({error}); choose another") from None
        agreement = float(self.card.get("bfloat16_agreement", 0))
        self._precision = choose_precision(precision, self.device, agreement)
        check_engine(engine, self.device)
        network: nn.Module = optimize_for_inference(trained.module)
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._accelerated: Accelerated | None = None
        size, bands = self.contract.size, len(self.contract.bands)
        try:
            self._watching = Watching(self.network)
            logits, features = self._run(torch.zeros(1, bands, size, size))
        except (AttributeError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"model {printable(model)}: does not run on what its card promises ({reason})") from None
        if tuple(logits.shape) != (1, len(self.names)):
            raise InputError(
                f"model {printable(model)}: gives an output of shape {tuple(logits.shape)}, expected one number "
                f"for each of its {len(self.names)} classes; use a classifier"
            )
        self.width = features.shape[1]
        self.outliers = Outliers.load(model, self.width) if calibrated else None
        if engine != TORCH:
            self._accelerated = Accelerated(
                self._watching,
                identity_of(trained.card, self.sha256),
                precision=self._precision,
                warnings=self.warnings,
                is_asked_for=precision == self._precision,
                same=same_decisions if self.multi_label else same_labels,
            )

    @property
    def precision(self) -> str:
        """Number format of the network's arithmetic: `float32` or `bfloat16`."""
        return self._precision if self._accelerated is None else self._accelerated.precision

    def described(self) -> dict[str, object]:
        """What a side-car says of where and how the network ran."""
        how = describe(self.network, self._accelerated)
        return {"device": str(self.device), "precision": self.precision, **how}

    def read_contract(self, card: Card, label: str) -> ContractT:
        """The domain's contract, as a card has it.

        Raises:
            InputError: the card is of no model for such images.
        """
        raise NotImplementedError

    def has_several(self, card: Card) -> bool:
        """Whether an image can have several classes, as a card has it."""
        return bool(card.get("multi_label", False))

    def prepare(self, images: Tensor) -> Tensor:
        """The part of images `(N, C, H, W)` that the network sees, at its size: `(N, C, size, size)`.

        Raises:
            InputError: another number of bands than the model takes.
        """
        raise NotImplementedError

    def normalise(self, images: Tensor) -> Tensor:
        """The network's input, of images as `prepare` gives them."""
        return self.contract.normalise(images)

    def contrast(self, images: Tensor) -> np.ndarray | None:
        """How far what an image shows stands out in its middle, `(N,)`; None where it may lie anywhere.

        Args:
            images: `(N, C, size, size)` as `prepare` gives them.
        """
        return None

    def feature_maps(self, features: Tensor) -> Tensor:
        """What the network's last features are as maps `(N, D, h, w)`, for Grad-CAM.

        Raises:
            InputError: they are no maps.
        """
        if features.ndim != 4:
            raise InputError(
                f"model {printable(self.folder)}: its features are no maps, so that Grad-CAM has none to show"
            )
        return features

    def predict(self, images: Tensor) -> Prediction:
        """Class probabilities and what goes with them.

        Args:
            images: `(N, C, size, size)` as `prepare` gives them.

        Raises:
            InputError: another number of bands, or another size, than the model takes.
        """
        self._check(images)
        parts = [self._probabilities(part) for part in images.split(self.batch_size) if len(part)]
        scores = np.concatenate([np.zeros((0, len(self.names)), np.float32), *(part for part, _ in parts)])
        sets = None if self.quantile is None else prediction_sets(scores, self.quantile)
        if self.outliers is None:
            return Prediction(scores, sets, None, None)
        features = np.concatenate([np.zeros((0, self.width)), *(part for _, part in parts)])
        strange = self.outliers.score(features, self.contrast(images))
        return Prediction(scores, sets, strange, strange > self.outliers.threshold)

    def features(self, images: Tensor) -> np.ndarray:
        """Features `(N, D)` float32 that outliers are recognised by, of images as `prepare` gives them.

        The means of a map of middle depth (of an eighth of the image's resolution or the next finer one): what a
        classifier keeps to its end is what tells its classes apart, which an image of nothing may well seem to have.
        """
        self._check(images)
        parts = [self._run(part)[1].cpu().numpy() for part in images.split(self.batch_size) if len(part)]
        return np.concatenate([np.zeros((0, self.width), np.float32), *parts])

    def embed(self, images: Tensor) -> np.ndarray:
        """Features `(N, D)` float32 that the head sees, of images as `prepare` gives them."""
        self._check(images)
        parts = []
        for part in images.split(self.batch_size):
            with torch.inference_mode():
                maps = self._method("forward_features")(self.normalise(part.to(self.device)))
                parts.append(self._method("forward_head")(maps, pre_logits=True).float().cpu().numpy())
        return np.concatenate(parts)

    def grad_cam(self, images: Tensor, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where the network sees a class: Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) on its last map.

        Args:
            images: `(N, C, size, size)` as for `predict`; one view of each is looked at.
            labels: number of a class for each image.

        Returns:
            `(N, size, size)` float32 from 0 to 1, the most important place of each image; 0 everywhere where nothing
            speaks for the class.

        Raises:
            InputError: images as for `predict`; or the network's features are no maps.
            ValueError: labels are none of the classes, or not one for each image.
        """
        self._check(images)
        chosen = torch.as_tensor(np.asarray(labels, np.int64))
        if chosen.shape != (len(images),) or (len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self.names)):
            raise ValueError(f"labels are {tuple(chosen.shape)}, expected one of {len(self.names)} for each image")
        maps = [
            self._grad_cam(part, numbers.to(self.device)).cpu().numpy()
            for part, numbers in zip(images.split(self.batch_size), chosen.split(self.batch_size), strict=True)
            if len(part)
        ]
        return np.concatenate([np.zeros((0, *images.shape[2:]), np.float32), *maps])

    def provenance(self) -> Provenance:
        """What a side-car says of the model."""
        return provenance_of(self.card, self.sha256)

    def _probabilities(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of a batch, averaged over its views, and the features of the first."""
        total, features = None, None
        views = range(8) if self.symmetries else range(1)
        for view in views:
            turned = images.rot90(view % 4, (2, 3))
            logits, seen = self._run(turned.flip(3) if view >= 4 else turned)
            probabilities = logits.sigmoid() if self.multi_label else logits.softmax(1)
            probabilities = probabilities[:, self.mirror] if view >= 4 else probabilities
            total = probabilities if total is None else total + probabilities
            features = seen if features is None else features
        assert total is not None and features is not None  # noqa: S101 - there is one view or more
        # the average is what was calibrated, not the single views
        mean = total / len(views)
        if self.multi_label:
            scores = (mean.logit(1e-6) / self.temperature).sigmoid()
        else:
            scores = (mean.clamp(min=1e-12).log() / self.temperature).softmax(1)
        return scores.cpu().numpy(), features.cpu().numpy()

    def _grad_cam(self, images: Tensor, labels: Tensor) -> Tensor:
        network = self._unfolded
        with torch.no_grad():
            features = _call(network, "forward_features")(self.normalise(images.to(self.device)))
        features = features.requires_grad_()
        with torch.enable_grad():
            logits = _call(network, "forward_head")(features)
            (slopes,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), features)
        slopes, maps = self.feature_maps(slopes), self.feature_maps(features.detach())
        heat = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
        heat = F.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        peak = heat.amax((1, 2), keepdim=True)
        return torch.where(peak > 0, heat / peak, torch.zeros_like(heat))

    @functools.cached_property
    def _unfolded(self) -> nn.Module:
        trained = weights.load(self.folder)
        if trained.sha256 != self.sha256:
            raise InputError(f"model {printable(self.folder)}: was changed meanwhile; run again")
        return trained.module.requires_grad_(False).to(self.device)

    def _check(self, images: Tensor) -> None:
        expected = (len(self.contract.bands), self.contract.size, self.contract.size)
        if tuple(images.shape[1:]) != expected:
            raise InputError(
                f"images are {tuple(images.shape[1:])}, the model takes {expected} of {', '.join(self.contract.bands)}"
            )

    def _method(self, name: str) -> Callable[..., Tensor]:
        return _call(self.network, name)

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the means of the watched map."""
        inputs = self.normalise(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        if self._accelerated is not None:
            logits, features = self._accelerated(inputs)
            return logits, features
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bfloat16"),
        ):
            return self._watching(inputs)


def _prediction_sets(calibration: Calibration) -> tuple[float | None, float | None]:
    """Quantile and coverage of prediction sets; None where a model has none.

    Raises:
        ValueError: they cannot be meant.
    """
    quantile, coverage = calibration.get("quantile"), calibration.get("coverage")
    if quantile is None:
        return None, None
    if coverage is None or not (0 <= quantile <= 1 and 0 < coverage < 1):
        raise ValueError("expected a quantile from 0 to 1 and a coverage between")
    return float(quantile), float(coverage)


def _call(network: nn.Module, method: str) -> Callable[..., Tensor]:
    """A method of a network that PyTorch's own modules do not have."""
    return getattr(network, method)
