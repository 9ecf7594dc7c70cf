"""Networks that read weights as their authors released them."""

import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self, TypeAlias

from torch import Tensor, nn

from shared_backbones import official
from shared_backbones.architectures import Arguments

Rule: TypeAlias = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern that an entry's name begins with, and what the released code has in its place."""


class Released(nn.Module):
    """Base of networks whose code was released: `load_official` builds them with the released weights.

    The module of a subclass has `VARIANTS`, the released sizes by name.

    Attributes:
        released_class: name of the released class.
        released_nothing: arguments of the released code that say nothing here, such as a size that is not fixed.
    """

    released_class: ClassVar[str]
    released_nothing: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def from_official(
        cls, path_or_state_dict: official.Source, *, variant: str | None = None, **arguments: Any
    ) -> Self:
        """Build the network with weights of the released code.

        Args:
            path_or_state_dict: a checkpoint file or its state dict; training wrappers are removed.
            variant: a released class or size.
            arguments: arguments of the network, under our names or the released ones.

        Returns:
            The network in eval mode.

        Raises:
            ValueError: the variant is unknown, or an argument does not suit.
            InputError: the entries are not those of the released code, or do not fit.
        """
        model = cls(**cls.released_arguments(variant, arguments))
        names = {name: model.released_name(name) for name in model.state_dict()}
        optional = [re.escape(name) for name in model.released_constants()]
        unread, convert = model.released_unread(), model.released_conversions()
        official.load_foreign(
            model,
            path_or_state_dict,
            names,
            unread,
            optional=optional,
            convert=convert,
            first_name=model.released_first_name,
        )
        return model.eval()

    @classmethod
    def released_arguments(cls, variant: str | None, arguments: Arguments) -> Arguments:
        """Arguments of the constructor, from a released class or size, and arguments of the released code.

        Raises:
            ValueError: there is no such variant.
        """
        variants: Mapping[str, functools.partial[Self]] = sys.modules[cls.__module__].VARIANTS
        if variant not in {None, cls.released_class, *variants}:
            raise ValueError(f"variant {variant!r} is unknown; known: {cls.released_class}, {', '.join(variants)}")
        sizes = {} if variant is None or variant not in variants else variants[variant].keywords
        return {**sizes, **{name: value for name, value in arguments.items() if name not in cls.released_nothing}}

    def released_name(self, name: str) -> str:
        """What the released code calls an entry of the state dict."""
        raise NotImplementedError

    def released_first_name(self, name: str) -> str:
        """The first name of a released entry; other than `name` where released code has one tensor under several."""
        return name

    def released_constants(self) -> tuple[str, ...]:
        """Released entries that may be absent, as the arguments determine them."""
        return ()

    def released_unread(self) -> tuple[str, ...]:
        """Patterns of released entries that the network has no use for."""
        return ()

    def released_conversions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """For some of our entries, what brings the released tensor into our shape."""
        return {}


def renamed(name: str, rules: Iterable[Rule]) -> str:
    """A name by the first rule that matches its beginning; as it is where none does."""
    for pattern, replacement in rules:
        other, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return other
    return name
