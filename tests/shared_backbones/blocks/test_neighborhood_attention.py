import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shared_backbones import optimize_for_inference
from shared_backbones.blocks import neighborhood_attention
from shared_backbones.blocks.neighborhood_attention import NeighborhoodAttention
from tests.parity.seeded import read_fixture


def place_by_place(model: Any, x: Tensor) -> Tensor:
    """Neighbourhood attention as its definition reads, one query after another."""
    _, height, width, channels = x.shape
    kernel, heads = model.kernel_size, model.num_heads
    dilation = max(1, min(model.dilation, min(height, width) // kernel))
    query, key, value = model.qkv(x).unflatten(-1, (3, heads, -1)).unbind(3)

    def window(position: int, length: int) -> list[tuple[int, int]]:
        """Places of the window, and their rows in the bias table."""
        residue, own = position % dilation, position // dilation
        count = -(-(length - residue) // dilation)
        start = min(max(own - kernel // 2, 0), max(count - kernel, 0))
        return [(residue + dilation * j, j - own + kernel - 1) for j in range(start, min(start + kernel, count))]

    rows = []
    for i in range(height):
        for j in range(width):
            pairs = [(a, b) for a in window(i, height) for b in window(j, width)]
            keys = torch.stack([key[:, a[0], b[0]] for a, b in pairs], 2)
            values = torch.stack([value[:, a[0], b[0]] for a, b in pairs], 2)
            bias = torch.stack([model.bias_table[:, a[1], b[1]] for a, b in pairs], 1)
            scores = (query[:, i, j][:, :, None] * keys).sum(-1) * (channels // heads) ** -0.5 + bias
            rows.append((scores.softmax(-1)[..., None] * values).sum(2).flatten(1))
    return model.projection(torch.stack(rows, 1).unflatten(1, (height, width)))


def build(kernel: int, dilation: int) -> Any:
    torch.manual_seed(0)
    model = NeighborhoodAttention(8, 2, kernel, dilation).double()
    torch.nn.init.normal_(model.bias_table)
    return model


@settings(max_examples=15)
@given(
    kernel=st.sampled_from([3, 5, 7]),
    dilation=st.integers(1, 3),
    height=st.integers(1, 34),
    width=st.integers(1, 34),
)
def test_equals_its_definition_with_gradients(kernel: int, dilation: int, height: int, width: int) -> None:
    model = build(kernel, dilation)
    x = torch.randn(2, height, width, 8, dtype=torch.float64, requires_grad=True)
    found, expected = model(x), place_by_place(model, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    wanted = [x, *model.parameters()]
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), wanted),
        torch.autograd.grad((expected * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "dilation", "size"), [(7, 1, (57, 30)), (5, 2, (41, 66)), (13, 1, (30, 27))])
def test_larger_maps_are_taken_in_tiles(kernel: int, dilation: int, size: tuple[int, int]) -> None:
    model = build(kernel, dilation)
    with torch.no_grad():
        x = torch.randn(1, *size, 8, dtype=torch.float64)
        expected = place_by_place(model, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
        folded = optimize_for_inference(model)
        for _ in range(2):  # the second time with the kept mask
            torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-12)
        assert len(folded.bias_cache) == 1


def test_equals_the_official_operator() -> None:
    fixture = read_fixture("medvitv2-natten-op")
    kwargs, state = fixture.meta["kwargs"], {n: torch.from_numpy(v) for n, v in fixture.state().items()}
    model = NeighborhoodAttention(kwargs["dim"], kwargs["num_heads"], kwargs["kernel_size"], kwargs["dilation"])
    names = {"bias_table": "rpb", "projection.weight": "proj.weight", "projection.bias": "proj.bias"}
    model.load_state_dict({name: state[names.get(name, name)] for name in model.state_dict()})
    x = torch.from_numpy(fixture.input())
    with torch.inference_mode():
        for form in (model, optimize_for_inference(model)):
            fixture.assert_output(form(x))
            fixture.assert_output(form.double()(x.double()))


def test_an_installed_natten_is_used_where_it_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package, which needs a GPU: what it is asked, and that its answer is taken."""
    asked: dict[str, Any] = {}

    def na2d(query: Tensor, key: Tensor, value: Tensor, **rest: Any) -> Tensor:
        asked.update(rest, shape=tuple(query.shape))
        return value

    stand_in: Any = types.ModuleType("natten")
    stand_in.__version__, stand_in.functional = "0.17.3", types.SimpleNamespace(na2d=na2d)
    monkeypatch.setitem(sys.modules, "natten", stand_in)
    monkeypatch.setattr(neighborhood_attention.importlib.util, "find_spec", lambda name: object())
    neighborhood_attention._natten.cache_clear()
    try:
        model = NeighborhoodAttention(8, 2, 3, 2)
        x = torch.randn(1, 9, 9, 8)
        assert not model._suits_natten(x, 1)  # not on a CPU
        monkeypatch.setattr(NeighborhoodAttention, "_suits_natten", lambda self, x, dilation: True)
        with torch.no_grad():
            found = model(x)
            expected = model.projection(model.qkv(x)[..., 16:])
        torch.testing.assert_close(found, expected)
        assert asked["kernel_size"] == 3 and asked["dilation"] == 2 and asked["shape"] == (1, 9, 9, 2, 4)
        assert asked["rpb"] is model.bias_table and asked["scale"] == 0.5
        stand_in.__version__ = "0.21.0"
        neighborhood_attention._natten.cache_clear()
        assert neighborhood_attention._natten() is None  # it has no relative bias any more
    finally:
        neighborhood_attention._natten.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 2), "dim 9 is not a multiple of num_heads 2"),
        ((8, 2, 4), "kernel_size is 4, expected an odd number from 3"),
        ((8, 2, 7, 0), "dilation is 0, expected 1 or more"),
    ],
)
def test_arguments_that_do_not_suit(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeighborhoodAttention(*arguments)


def test_the_bias_starts_small() -> None:
    torch.manual_seed(0)
    table = NeighborhoodAttention(64, 2).bias_table.detach()
    assert table.shape == (2, 13, 13) and abs(float(table.std()) - 0.02) < 0.002
    assert np.isfinite(table.numpy()).all()
