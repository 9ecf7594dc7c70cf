"""The trained models that come with the package, and how a name or a folder becomes a model folder."""

from importlib import resources
from pathlib import Path

from shared_backbones.card import CARD, Card, read_card
from shared_backbones.errors import InputError
from shared_backbones.files import printable


def bundled_models() -> dict[str, Path]:
    """Folders of the bundled models, by name."""
    home = Path(str(resources.files("medvision.models"))) / "bundled"
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{CARD}"))}


def find_model(name_or_folder: str | Path) -> Path:
    """Folder of a trained model.

    Args:
        name_or_folder: a bundled name, or the path of a folder with `model.json` and `model.safetensors`.

    Raises:
        InputError: neither a bundled name nor a folder.
    """
    bundled = bundled_models()
    if str(name_or_folder) in bundled:
        return bundled[str(name_or_folder)]
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    raise InputError(
        f"model {printable(name_or_folder)}: neither a bundled model ({', '.join(bundled)}) nor a folder with {CARD}; "
        "see `medvision models list`"
    )


def model_card(name_or_folder: str | Path) -> Card:
    """The card (`model.json`) of a trained model, read without torch.

    Raises:
        InputError: no such model, or its card is damaged.
    """
    return read_card(find_model(name_or_folder))
