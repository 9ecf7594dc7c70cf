"""The pyramid beside every plain vision transformer of the suite."""

from typing import Any

import pytest
import torch
from torch import Tensor

from shared_backbones.networks.comer_adapter import Adapter
from tests.test_models import CASES, randomise

PLAIN = {
    "cct": (32, {"img_size": 32, "kernel_size": 7, "stride": 2, "padding": 3}),
    "dhvt": (32, {"patch_size": 4}),
    "resformer": (64, {"patch_size": 16}),
    "satmae_pp_vit_rgb": (32, {"patch_size": 4}),
    "satmae_pp_vit_group": (32, {"patch_size": 8}),
}
"""Side of the images, and what of the case's network is other; depth 4 beside."""


def transformer(name: str) -> tuple[Any, Tensor, Adapter]:
    """A network, images, and an adapter of its patches."""
    side, arguments = PLAIN[name]
    network = CASES[name].build(**arguments, depth=4).eval()
    randomise(network)
    tokens, grid = network.embed(CASES[name].input(size=(side, side)))
    places = grid[0] * grid[1]
    extra = tokens.shape[1] % places
    adapter = Adapter(
        tokens.shape[2], 3, 4, inplanes=4, heads=2, fusion_ratio=1.0, patch=side // grid[0],
        groups=tokens.shape[1] // places, extra=extra,
    )  # fmt: skip
    return network, CASES[name].input(size=(side, side)), adapter.eval()


def blocks_of(network: Any) -> list[Any]:
    """The network's blocks, as functions of tokens and their grid."""
    if hasattr(network, "trunk"):
        return [lambda y, _, block=block: block(y) for block in network.trunk.blocks]
    return list(network.blocks)


def run(network: Any, x: Tensor, adapter: Adapter) -> tuple[list[Tensor], Tensor]:
    """The pyramid, and the tokens after the last block."""
    tokens, grid = network.embed(x)
    last: list[Tensor] = []

    def kept(block: Any) -> Any:
        def run(y: Tensor, size: tuple[int, int]) -> Tensor:
            last[:] = [block(y, size)]
            return last[0]

        return run

    return adapter(x, tokens, grid, [kept(block) for block in blocks_of(network)]), last[0]


@pytest.mark.parametrize("name", PLAIN)
def test_makes_four_maps_and_at_first_leaves_the_transformer_as_it_was(name: str) -> None:
    network, x, adapter = transformer(name)
    with torch.inference_mode():
        maps, last = run(network, x, adapter)
        grid = network.embed(x)[1]
        shapes = [(2, last.shape[2], *(round(scale * side) for side in grid)) for scale in (4, 2, 1, 0.5)]
        assert [tuple(plane.shape) for plane in maps] == shapes
        assert (maps[0][0] - maps[0][1]).abs().max() > 0
        expected = network.embed(x)[0]
        for block in blocks_of(network):
            expected = block(expected, grid)
        torch.testing.assert_close(last, expected)
        for name, part in adapter.named_parameters():
            if name.startswith("injections.") and name.endswith(".scale"):
                part.fill_(1.0)
        assert (run(network, x, adapter)[1] - expected).abs().max() > 1e-3


def test_patches_that_it_knows_no_pyramid_for_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 14 pixels: expected 16, 8, 4"):
        Adapter(24, 3, 4, patch=14)
