"""The trained models that come with a domain, and how a name or a folder becomes a model folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from shared_backbones.card import CARD, Card, read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable

_BUNDLED = re.compile(re.escape(printable(Path(__file__).parents[1])) + r"/\w+/models/bundled/")
"""What the path of a bundled model has before its name."""


def by_name(text: str) -> str:
    """A text that calls bundled models by their names, and not by their folders on this machine."""
    return _BUNDLED.sub("", text)


@dataclass(frozen=True)
class Catalogue:
    """Trained models of a domain; reading it needs no torch.

    Attributes:
        domain: the domain's package; its bundled models are the folders in `DOMAIN/models/bundled`.
    """

    domain: str

    def bundled_models(self) -> dict[str, Path]:
        """Folders of the bundled models, by name."""
        from importlib import resources

        home = Path(str(resources.files(f"{self.domain}.models"))) / "bundled"
        return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{CARD}"))}

    def find_model(self, name_or_folder: str | Path) -> Path:
        """Folder of a trained model.

        Args:
            name_or_folder: a bundled name, or the path of a folder with `model.json` and `model.safetensors`.

        Raises:
            InputError: neither a bundled name nor a folder.
        """
        bundled = self.bundled_models()
        if str(name_or_folder) in bundled:
            return bundled[str(name_or_folder)]
        folder = Path(name_or_folder)
        if folder.is_dir():
            return folder
        label = f"model {printable(name_or_folder)}"
        raise InputError(
            f"{label}: neither a bundled model ({', '.join(bundled)}) nor a folder with {CARD}; "
            f"see `{self.domain} models list`"
        )

    def model_card(self, name_or_folder: str | Path) -> Card:
        """The card (`model.json`) of a trained model.

        Raises:
            InputError: no such model, or its card is damaged.
        """
        return read_card(self.find_model(name_or_folder))
