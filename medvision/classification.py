"""From medical images to calibrated class probabilities, prediction sets and a score of outliers."""

from dataclasses import dataclass

from torch import Tensor

from shared_backbones.classification.contract import ImageContract
from shared_backbones.classification.pictures import PictureClassifier
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

COLOURS = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class MedicalContract(ImageContract):
    """Input contract of a model that classifies medical images: one band, such as `grey`, or `COLOURS`."""

    @classmethod
    def from_card(cls, card: Document, model: str) -> "MedicalContract":
        """Read the contract from a card.

        Raises:
            InputError: the card lacks a part of it, or asks for something unknown.
        """
        try:
            contract = cls(**cls.parts({"crop": 1, **card["input"]}))
            contract.check()
        except KeyError as error:
            raise InputError(f"model {model}: its card lacks {error}; it is no classifier of medical images") from None
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"model {model}: its card cannot be used ({error}); choose another model") from None
        return contract

    def check(self) -> None:
        """Find out whether the attributes can be meant."""
        if len(self.bands) != 1 and self.bands != COLOURS:
            raise ValueError(f"bands are {list(self.bands)}, expected one, or {', '.join(COLOURS)}")
        super().check()


class MedicalClassifier(PictureClassifier[MedicalContract]):
    """A trained classifier of medical images, each seen once as it is unless the model was calibrated otherwise."""

    def read_contract(self, card: Document, label: str) -> MedicalContract:
        """The contract for medical images."""
        return MedicalContract.from_card(card, label)

    def prepare(self, images: Tensor) -> Tensor:
        """The part that the network sees, at its size; see `PictureClassifier.prepare`.

        Grey images are repeated for a network of colours, as MedMNIST's protocol has it; images of three equal bands
        are grey to a network of one.

        Args:
            images: `(N, 1, H, W)` or `(N, 3, H, W)` uint8, or floating point from 0 to 1.

        Raises:
            InputError: colours for a network of one band, or another number of bands.
        """
        bands, expected = (images.shape[1] if images.ndim == 4 else 0), len(self.contract.bands)
        if (bands, expected) == (1, 3):
            images = images.expand(-1, 3, -1, -1)
        elif (bands, expected) == (3, 1):
            if not bool((images == images[:, :1]).all()):
                raise InputError(f"images are in colour, the model takes {self.contract.bands[0]} ones; convert them")
            images = images[:, :1]
        return super().prepare(images)
