"""Trained models on disk.

A trained model is a folder: `model.safetensors` (the tensors, float32 or float16) and `model.json` (the card:
architecture and its arguments, classes, input contract, provenance, and the sha256 of the tensors).
"""

import hashlib
import json
import math
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_backbones import architectures
from shared_backbones.card import CARD, SCHEMA_VERSION, Card, read_card
from shared_backbones.documents import parse_json
from shared_backbones.errors import InputError
from shared_backbones.files import file_sha256, printable, replacing
from shared_backbones.json_values import Document

if TYPE_CHECKING:  # a card is read without torch
    import torch
    from torch import nn

WEIGHTS = "model.safetensors"
_LARGEST_HEADER = 16 * 2**20  # bytes; that of a network with ten thousand tensors has one million


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
    stored = read_shapes(path)
    sha256 = file_sha256(path)
    if sha256 != card["weights_sha256"]:
        raise InputError(
            f"{printable(path)}: sha256 is {sha256[:12]}..., but {CARD} expects {card['weights_sha256'][:12]!r}...; "
            "the file is damaged or was altered: use an intact copy of the folder"
        )
    try:
        with torch.device("cpu"), at_most(stored):
            module = architectures.build(card["architecture"], card["arguments"], trained=True)
    except InputError as error:
        raise InputError(f"{printable(folder / CARD)}: {error}") from None
    check_shapes(module, stored, printable(path))
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{printable(path)}: cannot be read ({error}); use an intact copy of the folder") from None
    fill(module, tensors, printable(path))
    return TrainedModel(module.eval(), card, sha256, folder)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file, by its header alone.

    Raises:
        InputError: it is missing, no regular file, no safetensors file, or has a header that is none of a network.
    """
    label = printable(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{label}: is not a regular file; a model folder holds {WEIGHTS}")
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(min(size, _LARGEST_HEADER))
    except OSError as error:
        raise InputError(f"{label}: cannot be read ({error.strerror}); a model folder holds {WEIGHTS}") from None
    try:
        header = parse_json(text) if len(text) == size else None
        if not isinstance(header, dict):
            raise ValueError("its header is damaged, or too long for a network's")
        entries: dict[str, Any] = {name: about for name, about in header.items() if name != "__metadata__"}
        shapes = {name: tuple(about["shape"]) for name, about in entries.items()}
        if not all(isinstance(side, int) and side >= 0 for shape in shapes.values() for side in shape):
            raise ValueError("its header gives no shapes")
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{label}: not a safetensors file ({reason}); use an intact copy of the folder") from None
    return shapes


@contextmanager
def at_most(stored: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Refuse tensors and modules far beyond the tensors of a file, while a network is built in this thread.

    A tensor is refused before it is allocated, and a parameter before it is filled. A constructor may make a layer
    twice, or replace it, and has tables that are no parameters.

    Raises:
        ValueError: there are such.
    """
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from torch.overrides import TorchFunctionMode

    numbers, tensors = 2 * sum(map(math.prod, stored.values())) + 2**24, 2 * len(stored) + 1024
    makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye}
    counters, seen, thread = {torch.arange, torch.linspace}, [0, 0], threading.get_ident()

    def check(more: int, parameters: int) -> None:
        if seen[0] + more > numbers or seen[1] + parameters > tensors:
            raise ValueError(f"they make a network that is larger than {WEIGHTS}")

    def count(module: "nn.Module", name: str, parameter: "nn.Parameter | None") -> None:
        if parameter is not None and threading.get_ident() == thread:
            check(parameter.numel(), 1)
            seen[:] = seen[0] + parameter.numel(), seen[1] + 1

    class Checking(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in makers or func in counters:
                sides = _whole_numbers(args, kwargs or {})
                check(math.prod(sides) if func in makers else max(sides, default=0), 0)
            return func(*args, **(kwargs or {}))

    handle = register_module_parameter_registration_hook(count)
    try:
        with Checking():
            yield
    finally:
        handle.remove()


def _whole_numbers(given: Sequence[object], named: Document) -> list[int]:
    """The sizes or ends that a maker of tensors is given."""
    first = given[0] if given else named.get("size", named.get("end"))
    numbers = first if isinstance(first, list | tuple) else given or [first]
    return [number for number in numbers if isinstance(number, int) and number > 0]


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
    with replacing(folder / CARD) as card_path, replacing(folder / WEIGHTS) as weights_path:  # the card comes last
        weights_path.write_bytes(content)
        card_path.write_text(text, encoding="utf-8")


def fill(module: "nn.Module", tensors: Mapping[str, "torch.Tensor"], label: str) -> None:
    """Fill a module with the tensors of its own names; each takes the module's floating type.

    Raises:
        InputError: names are missing or left over, a shape differs, or a value is not finite; `label` says of what.
    """
    check_shapes(module, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, label)
    for name, tensor in tensors.items():
        check_tensor(name, tensor, tuple(tensor.shape), label)
    module.load_state_dict(dict(tensors), strict=False)  # second names of a tensor are not in a file


def check_shapes(module: "nn.Module", stored: Mapping[str, tuple[int, ...]], label: str) -> None:
    """Find out whether tensors have the names and shapes of a module's.

    Raises:
        InputError: names are missing or left over, or a shape differs; `label` says of what.
    """
    own = tensors_of(module)
    missing, left_over = [n for n in own if n not in stored], [n for n in stored if n not in own]
    if missing or left_over:
        raise InputError(
            f"{label}: does not fit the card's architecture: missing {sample_of(missing)}; "
            f"unexpected {sample_of(left_over)}; use an intact copy of the folder"
        )
    for name, shape in stored.items():
        check_shape(name, shape, tuple(own[name].shape), label)


def tensors_of(module: "nn.Module") -> "dict[str, torch.Tensor]":
    """State dict of a module in which a tensor that has several names stands under the first one only."""
    first = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    return {name: tensor for name, tensor in module.state_dict().items() if name in first}


def check_tensor(name: str, tensor: "torch.Tensor", shape: tuple[int, ...], label: str) -> None:
    """Find out whether a tensor read from `label` has the shape asked for, and is finite.

    Raises:
        InputError: it does not.
    """
    check_shape(name, tuple(tensor.shape), shape, label)
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(
            f"{label}: {name} holds values that are not finite; expected finite weights: use an intact copy"
        )


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...], label: str) -> None:
    """Raise an InputError where a tensor has another shape than expected."""
    if shape != expected:
        raise InputError(
            f"{label}: {printable(name[:200])} has shape {shape}, expected {expected}; "
            "give the arguments the weights were trained with"
        )


def sample_of(names: list[str]) -> str:
    """The first five names and the count."""
    if not names:
        return "none"
    shown = ", ".join(printable(name[:80]) for name in names[:5])
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"
