"""Networks by name: entry points of the group `domain_vision.architectures`, each with the role that it plays."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shared_backbones.arguments import check_arguments
from shared_backbones.errors import InputError
from shared_backbones.json_values import Document

if TYPE_CHECKING:  # names are looked up without torch, and programs start without reading what is installed
    from importlib.metadata import EntryPoint

    from torch import nn

GROUP = "domain_vision.architectures"
Role: TypeAlias = Literal["classifier", "segmenter", "autoencoder", "restorer"]
"""Images `(B, C, H, W)` become logits `(B, K)`, logits `(B, K, H, W)`, a reconstruction of themselves, or better images
`(B, C, s H, s W)`, where s is the network's `scale`; a segmenter of volumes maps `(B, C, X, Y, Z)` to
`(B, K, X, Y, Z)`."""

Arguments: TypeAlias = dict[str, Any]
"""Keyword arguments of a network's constructor, in JSON types."""


_LONGEST_REASON = 300  # characters of what a constructor says


@lru_cache(maxsize=1)
def installed() -> "dict[str, EntryPoint]":
    """Entry points of all installed architectures, by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def find(name: str) -> "type[nn.Module]":
    """Class of an architecture.

    It is constructed with keyword arguments in JSON types, which it keeps in the attribute `arguments`; the number of
    input channels is called `in_chans`. Class attributes say more: `role`, and `renamed_arguments` where arguments had
    other names before. A class method `from_official` reads published weights.

    Raises:
        InputError: no installed package registers that name, or its package cannot be imported.
    """
    known = installed()
    if name not in known:
        names = ", ".join(sorted(known)) or "none: is domain-vision installed?"
        raise InputError(f"architecture {name!r} is unknown; known: {names}")
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"architecture {name!r}: {known[name].value} cannot be imported ({error}); reinstall the package that "
            "registers it"
        ) from error


def name_of(module: "nn.Module") -> str:
    """Name under which a network's class is registered.

    Raises:
        InputError: it is not.
    """
    home = type(module)
    for name, point in installed().items():
        if point.attr == home.__qualname__ and find(name) is home:
            return name
    raise InputError(
        f"{home.__module__}:{home.__qualname__} is no registered architecture; known: {', '.join(sorted(installed()))}"
    )


def current_arguments(network: "type[nn.Module]", arguments: Document) -> Arguments:
    """Arguments under the names that they have today, as old recipes and cards use older ones.

    Raises:
        TypeError: an argument is given under both names.
    """
    renamed: Mapping[str, str] = getattr(network, "renamed_arguments", {})
    current: Arguments = {}
    for name, value in arguments.items():
        today = renamed.get(name, name)
        if today in current:
            raise TypeError(f"{today} is given twice, as {name} is its old name")
        current[today] = value
    return current


def build(name: str, arguments: Document, *, trained: bool = False) -> "nn.Module":
    """Build an untrained network of a registered architecture.

    Args:
        name: Name of the architecture.
        arguments: Arguments of its constructor, which `arguments.check_arguments` looks at first.
        trained: Whether they are of the card of a trained model: nothing may then fetch other weights.

    Raises:
        InputError: no installed package registers that name, or the arguments do not suit it, whatever the constructor
            raises.
    """
    network = find(name)
    try:
        given = current_arguments(network, arguments)
        check_arguments(network, given, trained=trained)
        return network(**given)
    except InputError:
        raise
    except Exception as error:  # constructors of libraries raise what they like
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise InputError(f"arguments do not suit architecture {name!r} ({reason}); fix `arguments`") from None


def check(name: str, arguments: Document, *, role: Role, shape: tuple[int, ...], classes: int = 0) -> "nn.Module":
    """Find out whether a network suits a task, before any data are read: it runs once without memory or arithmetic.

    Args:
        name: Name of a registered architecture.
        arguments: Arguments of its constructor.
        role: Role that the task needs.
        shape: Shape of an input, `(C, H, W)` or `(C, X, Y, Z)`.
        classes: Number of classes of the task; an autoencoder's and a restorer's have none.

    Returns:
        The network in eval mode, on the meta device.

    Raises:
        InputError: the architecture is unknown or has another role; or arguments, channels, size or classes do not fit.
    """
    import torch

    check_role(name, role)
    with torch.device("meta"):
        network = build(name, arguments).eval()
        channels = getattr(network, "arguments", {}).get("in_chans", shape[0])
        if channels != shape[0]:
            raise InputError(
                f"architecture {name!r} takes {channels} channels, the data have {shape[0]}; give in_chans={shape[0]}"
            )
        try:
            with torch.inference_mode():
                output = network(torch.zeros(2, *shape))
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"architecture {name!r} does not run on images of {' x '.join(map(str, shape))} ({reason}); fix its "
                "arguments"
            ) from None
    expected = (2, classes)
    if role in ("segmenter", "restorer"):
        scale, bands = (getattr(network, "scale", 1), shape[0]) if role == "restorer" else (1, classes)
        expected = (2, bands, *(scale * side for side in shape[1:]))
    actual = tuple(getattr(output, "shape", ()))
    if role != "autoencoder" and actual != expected:
        raise InputError(
            f"architecture {name!r} gives an output of shape {actual} for 2 images of {' x '.join(map(str, shape))}, "
            f"expected {expected} of a {role} with {classes} classes; fix its arguments, such as num_classes"
        )
    return network


def check_keeps_size(name: str, arguments: Document) -> None:
    """Make sure that a restorer gives images of the size that it is given.

    Raises:
        InputError: it enlarges them.
    """
    import torch

    with torch.device("meta"):
        scale = getattr(build(name, arguments), "scale", 1)
    if scale != 1:
        raise InputError(
            f"architecture {name!r} enlarges {scale} times, expected a network that keeps the size; give upscale=1 in "
            "its arguments"
        )


def check_role(name: str, role: Role) -> None:
    """Find out whether an architecture has a role; where its class says none, the shape of its output decides.

    Raises:
        InputError: the architecture is unknown, or has another role.
    """
    own = getattr(find(name), "role", role)
    if own != role:
        others = [other for other in sorted(installed()) if getattr(find(other), "role", None) == role]
        raise InputError(
            f"architecture {name!r} has the role {own}, expected {role}; choose one of {', '.join(others)}"
        )
