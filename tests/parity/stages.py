"""What a network computes on the way, under the names that the fixtures give it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.seeded import Fixture


class Stages:
    """Outputs of modules as a network runs.

    Attributes:
        values: by the fixture's names.
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def keep(self, module: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Keep the output of a module, changed into the official layout."""
        module.register_forward_hook(lambda _module, _inputs, output: self.values.update({name: change(output)}))

    def keep_input(self, module: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        """Keep the first input of a module."""
        module.register_forward_pre_hook(lambda _module, inputs: self.values.update({name: change(inputs[0])}))

    def assert_equal(self, fixture: Fixture) -> None:
        """All stages of the fixture are there, and equal the official ones."""
        wanted = {key.removeprefix("stage_") for key in fixture.arrays if key.startswith("stage_")}
        assert set(self.values) == wanted
        for name, value in self.values.items():
            fixture.assert_stage(name, value.detach().contiguous())


def to_map(size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Tokens `(B, H W, C)` as a map `(B, C, H, W)`."""
    return lambda tokens: tokens.unflatten(1, size).permute(0, 3, 1, 2)


def forms(model: nn.Module, *, double: bool = True) -> list[tuple[Any, torch.dtype]]:
    """The plain and the inference form, in float32 and, where asked for, in float64."""
    import copy

    from shared_backbones import optimize_for_inference

    found: list[tuple[Any, torch.dtype]] = [(model, torch.float32), (optimize_for_inference(model), torch.float32)]
    if double:
        exact = copy.deepcopy(model).double()
        found += [(exact, torch.float64), (optimize_for_inference(exact), torch.float64)]
    return found
