"""From a medical image to a mask of what is to be found in it, on its own pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from medvision.classification import COLOURS
from shared_backbones import optimize_for_inference, weights
from shared_backbones.card import ClassEntry
from shared_backbones.classification.contract import ImageContract
from shared_backbones.devices import choose_device, choose_precision, choose_threads
from shared_backbones.errors import InputError
from shared_backbones.files import printable
from shared_backbones.json_values import Document

KIND = "image"
"""What the card of such a model says of its input."""


@dataclass(frozen=True, kw_only=True)
class MaskContract(ImageContract):
    """Input contract of a model that marks pixels of images: whole images, resized to `size` a side, in `COLOURS`."""

    @classmethod
    def from_card(cls, card: Document, model: str) -> "MaskContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or is of another kind of model.
        """
        try:
            given = card["input"]
            if given.get("kind") != KIND or len(card["classes"]) != 2:
                raise ValueError(f"expected an input of the kind {KIND}, and two classes")
            contract = cls(**cls.parts({**given, "crop": 1}))
            if contract.bands != COLOURS:
                raise ValueError(f"bands are {list(contract.bands)}, expected {', '.join(COLOURS)}")
            contract.check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no model that marks images") from None
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract


class ImageSegmenter:
    """A trained segmenter of images, loaded once for many.

    Args:
        model: Folder of a trained model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threads: CPU threads of this process; by default torch's choice, within its quota of CPUs.
        precision: `auto`, `float32` or `bfloat16`.

    Attributes:
        card: The model's `model.json`.
        sha256: SHA-256 of its weights.
        contract: What it expects of an image.
        target: Class of what the masks show.
        precision: Number format of the network's arithmetic.
        warnings: What a user should know.

    Raises:
        InputError: no such model, device or precision, or its card is of no model that marks images.
    """

    def __init__(
        self, model: str | Path, *, device: str = "auto", threads: int | None = None, precision: str = "auto"
    ) -> None:
        choose_threads(threads)
        if not Path(model).is_dir():
            raise InputError(f"model {printable(model)}: no such folder; expected one with model.json")
        self.device, self.warnings = choose_device(device)
        trained = weights.load(model)
        self.card, self.sha256 = trained.card, trained.sha256
        self.contract = MaskContract.from_card(trained.card, str(model))
        self.target: ClassEntry = self.card["classes"][1]
        self.precision = choose_precision(precision, self.device, float(self.card.get("bfloat16_agreement", 0)))
        network = optimize_for_inference(trained.module).to(self.device)
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """How probable it is that each pixel is of what is to be found, `(H, W)` float32.

        Args:
            image: `(H, W, 3)` uint8.
        """
        seen = torch.from_numpy(fitted(image, self.contract.size).transpose(2, 0, 1).copy())[None].to(self.device)
        bfloat16 = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            logits = self.network(self.contract.normalise(seen)).float()
            difference = logits[:, 1:] - logits[:, :1]
            whole = F.interpolate(difference, list(image.shape[:2]), mode="bilinear", align_corners=False)
            return whole.sigmoid()[0, 0].cpu().numpy()


def fitted(image: np.ndarray, size: int) -> np.ndarray:
    """A whole image `(H, W, C)` or `(H, W)` uint8 at `size` pixels a side, bilinear, smoothed where it shrinks."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
