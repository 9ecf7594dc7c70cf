"""Training checkpoints as one safetensors file: tensors as they are, everything else as JSON in its header."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared_backbones.documents import parse_json
from shared_backbones.errors import InputError
from shared_backbones.files import brief, check_regular, printable, replacing
from shared_backbones.json_values import Json

# Single keys that stand for what JSON does not know.
_TENSOR, _TUPLE, _ITEMS = "__tensor__", "__tuple__", "__items__"
_ORIGIN = "__origin__"

Checkpoint: TypeAlias = dict[str, Any]
"""Lightning's own form of a checkpoint: the state of everything that takes part in a training, by name."""
FilePath: TypeAlias = str | Path
State: TypeAlias = "torch.Tensor | Mapping[str, State] | Mapping[int, State] | list[State] | tuple[State, ...] | Plain"
"""What a checkpoint can contain."""
Plain: TypeAlias = str | int | float | bool | None


class SafetensorsCheckpoints(CheckpointIO):
    """Lightning's checkpoints without pickle; a file appears complete or not at all.

    Args:
        origin: Name of everything that decides the training, noted in the file; `steps_in` compares it.
    """

    def __init__(self, origin: str = "") -> None:
        self.origin = origin

    def save_checkpoint(self, checkpoint: Checkpoint, path: FilePath, storage_options: None = None) -> None:
        """Write a checkpoint of tensors, numbers, texts, lists, tuples and dicts."""
        tensors: dict[str, torch.Tensor] = {}
        # one entry: the order of several in a header is not always the same
        state = json.dumps({_ORIGIN: self.origin, **{name: _pack(part, tensors) for name, part in checkpoint.items()}})
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            try:
                save_file(tensors, temporary, {"state": state})
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())  # before it replaces the last one: a node may go down
            except SafetensorError as error:  # a full disk, for example
                raise OSError(str(error)) from None

    def load_checkpoint(
        self, path: FilePath, map_location: None = None, weights_only: bool | None = None
    ) -> Checkpoint:
        """Read a checkpoint that `save_checkpoint` wrote.

        Raises:
            InputError: the file cannot be read, or is no such checkpoint.
        """
        with _reading(path), safe_open(path, "pt") as file:
            state = _parsed(file.metadata()["state"])
            state.pop(_ORIGIN, None)
            return _unpack(state, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def remove_checkpoint(self, path: FilePath) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def steps_in(path: Path, origin: str | None = None) -> int:
    """Optimiser steps behind a checkpoint; 0 where there is none.

    Raises:
        InputError: it is damaged, or of a training with another `origin` than the one given.
    """
    if not os.path.exists(path):  # and not Path's own method, which raises for names that cannot be
        return 0
    with _reading(path), safe_open(path, "pt") as file:
        state = _parsed(file.metadata()["state"])
        steps, written = int(state["global_step"]), state.get(_ORIGIN)
    if origin and written and written != origin:
        raise InputError(
            f"{printable(path)}: is a checkpoint of another recipe or of other data (found {written}, expected "
            f"{origin}); move it away to start anew"
        )
    return steps


def _parsed(text: str) -> Checkpoint:
    state = parse_json(text)
    if not isinstance(state, dict):
        raise ValueError("its state is no JSON object")
    return state


@contextlib.contextmanager
def _reading(path: FilePath) -> Iterator[None]:
    try:
        check_regular(path)
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = brief(error)
        raise InputError(
            f"{printable(path)}: not a training checkpoint of ours ({reason}); remove it to start anew"
        ) from None


def _pack(value: State, tensors: dict[str, torch.Tensor]) -> Json:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: name}
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, Mapping):
        named = {key: item for key, item in value.items() if isinstance(key, str)}
        if len(named) == len(value):
            return {key: _pack(item, tensors) for key, item in named.items()}
        return {_ITEMS: [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot contain a {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        if _TUPLE in value:
            return tuple(_unpack(item, tensors) for item in value[_TUPLE])
        if _ITEMS in value:
            return {_unpack(key, tensors): _unpack(item, tensors) for key, item in value[_ITEMS]}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    return value
