"""From images of galaxies to calibrated class probabilities, prediction sets and a score of outliers."""

from astrovision.contract import InputContract
from shared_backbones.classification.pictures import PictureClassifier
from shared_backbones.json_values import Document


class GalaxyClassifier(PictureClassifier[InputContract]):
    """A trained classifier of galaxies; a galaxy has no up or down, so probabilities are averaged over symmetries."""

    default_symmetries = True

    def read_contract(self, card: Document, label: str) -> InputContract:
        """The contract for astronomical images."""
        return InputContract.from_card(card, label)
