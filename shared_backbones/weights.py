"""Trained models on disk.

A trained model is a folder: `model.safetensors` (the tensors, float32 or float16) and `model.json` (the card:
architecture and its arguments, classes, input contract, provenance, and the sha256 of the tensors).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared_backbones import architectures
from shared_backbones.card import CARD, SCHEMA_VERSION, Card, read_card
from shared_backbones.errors import InputError
from shared_backbones.files import replacing
from shared_backbones.json_values import Document

if TYPE_CHECKING:  # a card is read without torch
    import torch
    from torch import nn

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights and its card.

    Attributes:
        module: the network, in eval mode, float32, on the CPU.
        card: the content of `model.json`.
        sha256: hexadecimal SHA-256 of `model.safetensors`.
        folder: where it was read from.
    """

    module: "nn.Module"
    card: Card
    sha256: str
    folder: Path


def load(folder: str | Path) -> TrainedModel:
    """Read a trained model.

    Raises:
        InputError: a file is missing or damaged, the tensors are not those the card was written for, the architecture
            is unknown, or tensors do not fit it or are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != card["weights_sha256"]:
            raise InputError(
                f"{path}: sha256 is {sha256[:12]}..., but {CARD} expects {str(card['weights_sha256'])[:12]}...; "
                "the file is damaged or was altered: use an intact copy of the folder"
            )
        tensors = load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a model folder holds {WEIGHTS}") from None
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file ({error}); use an intact copy of the folder") from None
    try:
        with torch.device("cpu"):
            module = architectures.build(card["architecture"], card["arguments"])
    except InputError as error:
        raise InputError(f"{folder / CARD}: {error}") from None
    fill(module, tensors, str(path))
    return TrainedModel(module.eval(), card, sha256, folder)


def save(folder: str | Path, module: "nn.Module", card: Document, *, dtype: "torch.dtype | None" = None) -> None:
    """Write a trained model; other files of the folder stay.

    Both files are complete before either takes its name. Should the program end between the two moves, the sha256 in
    the card tells.

    Args:
        folder: created where absent.
        module: a registered architecture, not folded for inference, with its `arguments`.
        card: what `model.json` says beyond architecture, arguments and sha256.
        dtype: floating type on disk, such as `torch.float16`; by default the tensors' own.

    Raises:
        InputError: the folder cannot be written, or a tensor is not finite, or is not once it is in `dtype`.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    architecture = architectures.name_of(module)
    tensors = {}
    for name, tensor in tensors_of(module).items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(dtype or tensor.dtype)
            if not tensor.isfinite().all():
                raise InputError(f"{folder}: {name} would hold values that are not finite in {tensor.dtype}; not saved")
        tensors[name] = tensor.contiguous()
    content = to_bytes(tensors)
    full_card = {
        "schema_version": SCHEMA_VERSION,
        **card,
        "architecture": architecture,
        "arguments": module.arguments,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(full_card, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give a folder you may write to") from None
    with replacing(folder / WEIGHTS) as weights_path, replacing(folder / CARD) as card_path:
        weights_path.write_bytes(content)
        card_path.write_text(text, encoding="utf-8")


def fill(module: "nn.Module", tensors: Mapping[str, "torch.Tensor"], label: str) -> None:
    """Fill a module with the tensors of its own names; each takes the module's floating type.

    Raises:
        InputError: names are missing or left over, a shape differs, or a value is not finite; `label` says of what.
    """
    own = tensors_of(module)
    missing, left_over = [n for n in own if n not in tensors], [n for n in tensors if n not in own]
    if missing or left_over:
        raise InputError(
            f"{label}: does not fit the card's architecture: missing {sample_of(missing)}; "
            f"unexpected {sample_of(left_over)}; use an intact copy of the folder"
        )
    for name, tensor in tensors.items():
        check_tensor(name, tensor, tuple(own[name].shape), label)
    module.load_state_dict(dict(tensors), strict=False)  # second names of a tensor are not in a file


def tensors_of(module: "nn.Module") -> "dict[str, torch.Tensor]":
    """State dict of a module in which a tensor that has several names stands under the first one only."""
    first = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return {name: tensor for name, tensor in module.state_dict().items() if name in first}


def check_tensor(name: str, tensor: "torch.Tensor", shape: tuple[int, ...], label: str) -> None:
    """Find out whether a tensor read from `label` has the shape asked for, and is finite.

    Raises:
        InputError: it does not.
    """
    if tuple(tensor.shape) != shape:
        raise InputError(
            f"{label}: {name} has shape {tuple(tensor.shape)}, expected {shape}; "
            "give the arguments the weights were trained with"
        )
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(
            f"{label}: {name} holds values that are not finite; expected finite weights: use an intact copy"
        )


def sample_of(names: list[str]) -> str:
    """The first five names and the count."""
    if not names:
        return "none"
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
