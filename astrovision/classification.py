"""From images of galaxies to calibrated class probabilities, prediction sets and a score of outliers."""

import numpy as np
from torch import Tensor

from astrovision.contract import InputContract
from astrovision.contrast import contrast_of_middle
from shared_backbones.classification.pictures import PictureClassifier
from shared_backbones.json_values import Document


class GalaxyClassifier(PictureClassifier[InputContract]):
    """A trained classifier of galaxies; a galaxy has no up or down, so probabilities are averaged over symmetries."""

    default_symmetries = True

    def read_contract(self, card: Document, label: str) -> InputContract:
        """The contract for astronomical images."""
        return InputContract.from_card(card, label)

    def contrast(self, images: Tensor) -> np.ndarray:
        """How far the middle of each image stands out: a galaxy lies there, or the image shows none."""
        return contrast_of_middle(images)
