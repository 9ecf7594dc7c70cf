"""Weights as authors published them: read safely, renamed, and filled into our networks."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from shared_backbones import architectures
from shared_backbones.errors import InputError
from shared_backbones.files import check_regular, printable
from shared_backbones.json_values import Json
from shared_backbones.weights import check_tensor, sample_of

if TYPE_CHECKING:
    import torch
    from torch import nn

WRAPPERS = ("model_state_dict", "state_dict", "model")
PROFILER_ENTRIES = re.compile(r"(^|\.)total_(ops|params)$")  # what thop leaves behind in a module

Tensors: TypeAlias = Mapping[str, Any]
"""Entries of a checkpoint, which are checked as they are read: tensors, arrays, and what wraps them."""
Source: TypeAlias = str | Path | Tensors
"""A file of weights, `.safetensors` or one that `torch.load(weights_only=True)` reads, or a state dict."""
ForeignName: TypeAlias = "str | Sequence[ForeignName]"


@runtime_checkable
class Published(Protocol):
    """A class of networks that reads weights as its authors published them."""

    @classmethod
    def from_official(cls, path_or_state_dict: Source, **arguments: Any) -> "nn.Module":
        """Build the network with these weights."""
        ...


@runtime_checkable
class Described(Protocol):
    """A network that knows what its authors' code feeds it."""

    def official_input(self) -> dict[str, Json] | None:
        """The `input` of a card, or None where that is not known of these arguments."""
        ...


def load_official(architecture: str, path_or_state_dict: Source, **arguments: Any) -> "nn.Module":
    """Build a published network with its official weights.

    Example: `load_official("hbformer", "best.pth", num_classes=9, img_size=256)`.

    Args:
        architecture: Name of a registered architecture, such as `hbformer`, `satmae_pp_vit_group` or `astroformer`.
        path_or_state_dict: A checkpoint (`.pth`, read as tensors only, or `.safetensors`), or its state dict.
        arguments: Arguments of the network, named as in the released code; its `from_official` lists them.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        InputError: the architecture is unknown or has no published weights, the arguments do not suit it, the file is
            not readable as plain tensors, or the entries do not fit.
    """
    network = architectures.find(architecture)
    if not issubclass(network, Published):
        known = [name for name in sorted(architectures.installed()) if issubclass(architectures.find(name), Published)]
        raise InputError(f"no official weights for architecture {architecture!r}; known: {', '.join(known)}")
    try:
        return network.from_official(path_or_state_dict, **architectures.current_arguments(network, arguments))
    except (TypeError, ValueError) as error:
        raise InputError(f"arguments do not suit architecture {architecture!r} ({error}); fix them") from None


def load_foreign(
    module: "nn.Module",
    source: Source,
    names: "Mapping[str, ForeignName]",
    ignored: Iterable[str] = (),
    *,
    optional: Iterable[str] = (),
    convert: "Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None" = None,
    first_name: "Callable[[str], str]" = str,
) -> None:
    """Fill a module with weights that carry other names.

    Wrappers (`model`, `state_dict`, `model_state_dict`), the prefix `module.` and what profilers leave are removed.
    Counters of batch norms may be absent.

    Args:
        module: to be filled; every entry of its state dict is.
        source: a `.safetensors` file, a file that `torch.load(weights_only=True)` reads, or a state dict.
        names: for each of our entries the foreign name; a list of names (nested where need be) is stacked.
        ignored: regular expressions, matched from the start: foreign entries we have no use for.
        optional: regular expressions, matched from the start: foreign entries that the architecture determines; where
            one is absent, ours stays as it was built.
        convert: for some of our entries, what brings the foreign tensor into our shape and order.
        first_name: gives for a foreign entry's name, where one tensor has several, the one that `names` has.

    Raises:
        InputError: the file cannot be read safely; entries are missing, left over, of another shape or not finite, or
            two names of one tensor hold different values.
    """
    import torch

    label = "the state dict" if isinstance(source, Mapping) else str(source)
    state = _under_first_names(read_foreign(source), first_name, label)
    wanted = {name for foreign in names.values() for name in _flatten(foreign)}
    may_miss = re.compile("|".join([*optional, r"(.*\.)?num_batches_tracked$"]))
    missing = [name for name in sorted(wanted) if name not in state and not may_miss.match(name)]
    skip = re.compile("|".join(ignored) or "$^")
    left_over = [str(name) for name in sorted(set(state).difference(wanted), key=str) if not skip.match(str(name))]
    if missing or left_over:
        raise InputError(
            f"{label}: not the expected weights: missing {sample_of(missing)}; unexpected {sample_of(left_over)}; "
            "give the arguments the weights were trained with"
        )

    def assemble(foreign: "ForeignName", shape: tuple[int, ...]) -> torch.Tensor:
        if isinstance(foreign, str):
            tensor = torch.as_tensor(state[foreign])
            check_tensor(foreign, tensor, shape, label)
            return tensor
        return torch.stack([assemble(part, shape[1:]) for part in foreign])

    own = module.state_dict()
    tensors = {}
    for name, foreign in names.items():
        if not all(part in state for part in _flatten(foreign)):
            tensors[name] = own[name]
        elif convert and name in convert:
            tensors[name] = convert[name](torch.as_tensor(state[str(foreign)]))  # such an entry has one foreign name
            check_tensor(str(foreign), tensors[name], tuple(own[name].shape), label)
        else:
            tensors[name] = assemble(foreign, tuple(own[name].shape))
    module.load_state_dict(tensors)


def read_foreign(source: Source) -> dict[str, Any]:
    """The entries of published weights, without wrappers, the prefix `module.` and what profilers leave.

    Args:
        source: as `load_foreign` takes it.

    Raises:
        InputError: the file cannot be read safely.
    """
    state = source if isinstance(source, Mapping) else _read_state_dict(Path(source))
    state = {str(name): tensor for name, tensor in _unwrap(state).items() if not PROFILER_ENTRIES.search(str(name))}
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def renamed(name: str, pairs: "Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]") -> str:
    """A name after every replacement, in order: pairs of a regular expression and what takes its place."""
    for pattern, replacement in pairs:
        name = re.sub(pattern, replacement, name)
    return name


def _under_first_names(state: dict[str, Any], first_name: Callable[[str], str], label: str) -> dict[str, Any]:
    """The entries, each tensor once."""
    import torch

    once: dict[str, Any] = {}
    for name, tensor in state.items():
        first = first_name(name)
        if first in once and not torch.equal(torch.as_tensor(once[first]), torch.as_tensor(tensor)):
            raise InputError(
                f"{label}: entries {first!r} and {name!r} differ, expected one tensor under both names; "
                "use an intact copy"
            )
        once.setdefault(first, tensor)
    return once


def _read_state_dict(path: Path) -> Tensors:
    import pickle  # only for the name of its error: nothing is unpickled beyond tensors

    import torch
    from safetensors.torch import load_file

    try:
        check_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_harmless_globals()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(
            f"{printable(path)}: cannot be read ({error.strerror or error}); expected a file of weights"
        ) from None
    except pickle.UnpicklingError:
        raise InputError(
            f"{printable(path)}: holds other objects than tensors, or is no PyTorch file; expected weights alone: "
            "save the model's state dict as .safetensors where you trust the file"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file PyTorch raises errors of every kind
        reason = printable(str(error).partition("\n")[0][:200]) or type(error).__name__
        raise InputError(f"{printable(path)}: not a readable file of weights ({reason}); use an intact copy") from None
    if not isinstance(state, Mapping):
        raise InputError(
            f"{printable(path)}: holds a {type(state).__name__}, expected a state dict of names and tensors"
        )
    return state


def _harmless_globals() -> list[Any]:
    """What training scripts save beside weights, and that only holds values: their options, and numpy's numbers."""
    import argparse

    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool")}
    return [argparse.Namespace, np.dtype, scalar, *kinds]


def _unwrap(state: Tensors) -> Tensors:
    for key in WRAPPERS:
        if isinstance(state.get(key), Mapping):
            return _unwrap(state[key])
    return state


def _flatten(foreign: "ForeignName") -> Iterator[str]:
    if isinstance(foreign, str):
        yield foreign
    else:
        for part in foreign:
            yield from _flatten(part)
