"""MONAI bundles become trained-model folders."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medvision.bundles.configs import Config, inside
from medvision.bundles.reading import Understood, understand
from medvision.pictures.colours import palette
from shared_backbones.card import Card, ClassEntry
from shared_backbones.errors import InputError
from shared_backbones.files import check_new_folder, file_sha256, new_folder, printable
from shared_backbones.json_values import Document, Json

if TYPE_CHECKING:
    from torch import nn

METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
CHECKPOINT = "models/model.pt"


def import_bundle(folder: Path, output: Path, name: str | None = None, license: str = "unknown") -> Card:
    """Read a bundle and write a trained-model folder that gives its labels; returns the card as written.

    The configuration is read as data and the weights as tensors: nothing in a bundle is executed.

    Args:
        folder: the bundle: `configs/metadata.json`, `configs/inference.json` (or .yaml), `models/model.pt`.
        output: new or empty folder.
        name: name of the model; by default the output folder's.
        license: licence of the weights.

    Raises:
        InputError: a file cannot be read, the configuration says what a card cannot say, the weights do not fit the
            network, or the output is not empty.
    """
    from medvision.channels import Channels
    from medvision.contract import InputContract
    from medvision.scorers import make_scorer
    from shared_backbones import weights

    check_new_folder(output)
    metadata = Config(folder / METADATA, folder).root
    path = next((folder / place for place in CONFIGS if (folder / place).exists()), folder / CONFIGS[0])
    understood = understand(Config(path, folder))
    checkpoint = inside(folder / CHECKPOINT, folder)
    network = _filled(understood, checkpoint, printable(folder / CHECKPOINT))
    card = {
        "name": name or output.resolve().name,
        "version": _text(metadata.get("version"), "1.0.0"),
        "description": _text(metadata.get("description"), f"{understood.network} of a MONAI bundle"),
        "license": license,
        "classes": _classes(metadata, understood.classes),
        "input": {**understood.input, **_modality(metadata)},
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "training": {
            "source": "MONAI bundle",
            "checkpoint_sha256": file_sha256(checkpoint),
            "configuration_sha256": file_sha256(path),
        },
    }
    contract = InputContract.from_card(card, printable(folder))
    try:
        make_scorer(contract, Channels(contract.classes), None, fast=False).check(network)
    except (InputError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{printable(path)}: its network does not take its windows ({reason}); fix roi_size") from None
    with new_folder(output) as made:
        weights.save(made, network, card)
        return weights.read_card(made)


def _filled(understood: Understood, checkpoint: Path, label: str) -> "nn.Module":
    """The network with its weights, in eval mode."""
    import torch

    from shared_backbones import architectures, official

    options = {
        name: value for name, value in understood.arguments.items() if name not in ("in_channels", "out_channels")
    }
    arguments = {
        "network": understood.network,
        "num_classes": understood.classes,
        "in_chans": 1,
        **options,
    }
    state = official.read_foreign(checkpoint)
    with torch.device("meta"):  # so that sizes no file holds take no memory
        sketch = architectures.build("monai", arguments)
    saved = sum(tensor.numel() for tensor in state.values() if isinstance(tensor, torch.Tensor))
    needed = sum(parameter.numel() for parameter in sketch.parameters())
    if needed > saved:
        raise InputError(
            f"{label}: holds {saved:,} numbers, its network_def has {needed:,}; expected weights of that network"
        )
    network = architectures.build("monai", arguments)
    official.load_foreign(network, state, {name: name.removeprefix("network.") for name in network.state_dict()})
    return network.eval()


def _classes(metadata: Document, count: int) -> list[ClassEntry]:
    """Classes with the names that the metadata give them, where they have different ones."""
    names = _at(metadata, "network_data_format", "outputs", "pred", "channel_def")
    given = names if isinstance(names, Mapping) else {}
    texts = [_text(given.get(str(k)), f"class {k}" if k else "background") for k in range(count)]
    if len(set(texts)) < count:
        texts = [f"class {k}" if k else "background" for k in range(count)]
    colours = [(0, 0, 0), *palette(count - 1)]
    return [{"id": k, "name": text, "color": list(colours[k])} for k, text in enumerate(texts)]


def _modality(metadata: Document) -> dict[str, Json]:
    inputs = _at(metadata, "network_data_format", "inputs", "image")
    text = _text(inputs.get("modality"), "") if isinstance(inputs, Mapping) else ""
    return {"modality": text} if text else {}


def _at(value: Json, *names: str) -> Json:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Json, default: str) -> str:
    """One line of at most 200 characters."""
    text = re.sub(r"\s+", " ", value).strip() if isinstance(value, str) else ""
    return printable(text)[:200] or default
