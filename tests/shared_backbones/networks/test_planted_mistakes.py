"""Fixtures tell a network from one that is nearly the same: what is easily got wrong is planted, and found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shared_backbones import load_official
from shared_backbones.errors import InputError
from shared_backbones.networks import drct, drsformer, fcaformer, hat, pem, sret, super_resolution, vit_resnas
from tests.parity.seeded import read_fixture

Plant = Callable[[Any, pytest.MonkeyPatch], None]


def load(name: str) -> Any:
    fixture = read_fixture(name)
    return load_official(
        fixture.meta["model"], fixture.state(), variant=fixture.meta["class"].split(".")[-1], **fixture.meta["kwargs"]
    )


def one_sigmoid(_: Any, patch: pytest.MonkeyPatch) -> None:
    def forward(self: pem.ChannelGate, x: Tensor) -> Tensor:
        return x + x * self.widen(self.narrow(x.mean((2, 3), keepdim=True))).sigmoid()

    patch.setattr(pem.ChannelGate, "forward", forward)


def normal_over_channels(_: Any, patch: pytest.MonkeyPatch) -> None:
    normalize = F.normalize
    patch.setattr(pem.F, "normalize", lambda x, dim: normalize(x, dim=2 if dim == 1 else dim))


def nothing_shut_out(_: Any, patch: pytest.MonkeyPatch) -> None:
    forward = pem.PrototypeAttention.forward
    patch.setattr(
        pem.PrototypeAttention,
        "forward",
        lambda self, x, memory, shut, codes: forward(self, x, memory, torch.zeros_like(shut), codes),
    )


def columns_first(_: Any, patch: pytest.MonkeyPatch) -> None:
    table = pem.sine_positions
    patch.setattr(pem, "sine_positions", lambda like: torch.cat(table(like).chunk(2, 1)[::-1], 1))


def another_permutation(model: Any, _: pytest.MonkeyPatch) -> None:
    for stage in model.stages:
        stage.permutations = stage.permutations.roll(7, 1)


def put_back_nothing(_: Any, patch: pytest.MonkeyPatch) -> None:
    forward = sret.SlicedBlock.forward
    patch.setattr(
        sret.SlicedBlock,
        "forward",
        lambda self, x, drop, groups=1, order=None: forward(self, x, drop, groups, None),
    )


def swapped_factors(model: Any, _: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, sret.Projection):
            module.keep1, module.add1 = module.add1, module.keep1


def local_residual(_: Any, patch: pytest.MonkeyPatch) -> None:
    forward = fcaformer.ConvNormAct.forward

    def residual(self: Any, x: Tensor) -> Tensor:
        found = forward(self, x)
        plain = self.activation is None and self.convolution.groups > 1 and self.convolution.stride == (1, 1)
        return found + x if plain else found

    patch.setattr(fcaformer.ConvNormAct, "forward", residual)


def newest_tokens_first(_: Any, patch: pytest.MonkeyPatch) -> None:
    attend = fcaformer.CrossBlock._attend

    def flipped(self: Any, tokens: Tensor, cross: Tensor | None) -> Tensor:
        return attend(self, tokens, None if cross is None else cross.flip(1))

    patch.setattr(fcaformer.CrossBlock, "_attend", flipped)


def one_norm(_: Any, patch: pytest.MonkeyPatch) -> None:
    built = fcaformer.CrossBlock.forward

    def forward(self: Any, x: Tensor, cross: Tensor | None) -> Any:
        self.mlp_norm = torch.nn.Identity()
        return built(self, x, cross)

    patch.setattr(fcaformer.CrossBlock, "forward", forward)


def normed_residual(_: Any, patch: pytest.MonkeyPatch) -> None:
    forward = vit_resnas.Reduction.forward
    patch.setattr(vit_resnas.Reduction, "forward", lambda self, x: forward(self, self.norm(x)))


def no_new_positions(model: Any, _: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, vit_resnas.Reduction):
            torch.nn.init.zeros_(module.positions)


def natural_index(_: Any, patch: pytest.MonkeyPatch) -> None:
    index = hat.overlapping_index

    def natural(window: int, overlap: int, device: torch.device) -> Tensor:
        side = 2 * window + overlap - 1
        return (index(window, overlap, device) + (window + overlap - 2) * (side + 1)) % side**2

    patch.setattr(hat, "overlapping_index", natural)


def steeper_slope(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(super_resolution, "_SLOPE", 0.2)


def whole_residual(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drct, "_GROUP_SCALE", 1.0)


def nothing_shifted(model: Any, _: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if hasattr(module, "shifted"):
            module.shifted = False


def other_shares(_: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(drsformer, "_SHARES", ((1, 2), (2, 3), (3, 4), (1, 1)))


def counted_padding(model: Any, _: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.AvgPool2d):
            module.count_include_pad = True


MISTAKES: list[tuple[str, Plant]] = [
    *(("pem-small-64", plant) for plant in (one_sigmoid, normal_over_channels, nothing_shut_out, columns_first)),
    *(("sret-perm-64", plant) for plant in (another_permutation, put_back_nothing, swapped_factors)),
    *(("fcaformer-small-64", plant) for plant in (local_residual, newest_tokens_first, one_norm)),
    *(("vit_resnas-small-112", plant) for plant in (normed_residual, no_new_positions)),
    *(("hat-small-x3-4band-rect-24x16", plant) for plant in (natural_index, steeper_slope, nothing_shifted)),
    *(("drct-odd-heads-x3-4band-24x16", plant) for plant in (whole_residual, nothing_shifted)),
    *(("drsformer-small-32", plant) for plant in (other_shares, counted_padding)),
]


@pytest.mark.parametrize(("name", "plant"), MISTAKES, ids=[f"{name}-{plant.__name__}" for name, plant in MISTAKES])
def test_a_planted_mistake_is_found(name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = read_fixture(name)
    x = torch.from_numpy(fixture.input()).double()
    model = load(name).double()
    with torch.inference_mode():
        fixture.assert_output(model(x))
        plant(model, monkeypatch)
        with pytest.raises(AssertionError):
            fixture.assert_output(model(x))


@pytest.mark.parametrize("name", ["sret-perm-64", "pem-small-64"])
def test_a_tensor_is_read_under_any_of_its_names_and_must_be_the_same_under_all(name: str) -> None:
    fixture = read_fixture(name)
    state, first_names = fixture.state(), fixture.meta["aliases"]
    options = {"variant": fixture.meta["class"].split(".")[-1], **fixture.meta["kwargs"]}
    once = {key: value for key, value in state.items() if key not in first_names}
    second = {key: state[key] for key in first_names}
    rest = {key: value for key, value in once.items() if key not in first_names.values()}
    expected = load_official(fixture.meta["model"], state, **options).state_dict()
    for given in (once, {**second, **rest}):
        found = load_official(fixture.meta["model"], given, **options).state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    later = next(key for key in first_names if key.endswith("weight"))
    with pytest.raises(InputError, match="expected one tensor under both names"):
        load_official(fixture.meta["model"], {**state, later: state[later] + 1}, **options)


def test_permutations_can_be_given() -> None:
    model = load("sret-perm-64")
    x = torch.from_numpy(read_fixture("sret-perm-64").input())
    drawn = list(model.stages[0].permutations)
    with torch.inference_mode():
        assert torch.equal(model(x, permutations=drawn), model(x))
        assert not torch.allclose(model(x, permutations=[order.roll(7) for order in drawn]), model(x), atol=1e-9)
