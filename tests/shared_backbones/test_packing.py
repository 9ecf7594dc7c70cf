"""Layers that run from packed weights give what they gave, and which do is decided once on a machine."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shared_backbones import packing
from shared_backbones.inference import PeakOfTensors, optimize_for_inference
from shared_backbones.packing import pack_, packed_layers

ALWAYS, NEVER = 0.0, 1e9  # times as fast as plain, from which on a layer is packed


CHOICE = packing._choice


@pytest.fixture(autouse=True)
def nothing_is_decided(tmp_path: Path, no_trials_of_speed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_choice", CHOICE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(packing, "_chosen", {})
    monkeypatch.setattr(packing, "_GAIN", ALWAYS)


def kept(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("domain-vision/engines/packing-*/*")]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(2), nn.Linear(64, 5)).eval()


@torch.no_grad()
def check(layer: nn.Module, x: Tensor) -> None:
    expected = layer.eval()(x)
    again = layer(x)
    pack_(layer)
    for _ in range(2):
        actual = layer(x)
        assert actual.shape == expected.shape
        torch.testing.assert_close(actual, expected, rtol=0, atol=3e-6 * max(1.0, float(expected.abs().max())))
    assert packed_layers(layer) == 1 and torch.equal(expected, again)


LIMITS = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LIMITS
@given(st.data())
def test_a_linear_map_of_any_shape(data: st.DataObject):
    inputs, outputs = (data.draw(st.integers(1, 70)) for _ in range(2))
    shape = data.draw(st.lists(st.integers(1, 9), max_size=3))
    x = torch.randn(*shape, inputs)
    if len(shape) > 1 and data.draw(st.booleans()):
        x = x.transpose(0, 1)
    check(nn.Linear(inputs, outputs, bias=data.draw(st.booleans())), x)


@LIMITS
@given(st.data())
def test_a_convolution_of_any_form(data: st.DataObject):
    groups, kernel, stride, dilation, padding = (
        data.draw(st.integers(*bounds)) for bounds in ((1, 3), (1, 4), (1, 2), (1, 2), (0, 2))
    )
    channels, outputs = (groups * data.draw(st.integers(1, 9)) for _ in range(2))
    side = dilation * (kernel - 1) + 1
    shape = (data.draw(st.integers(1, 3)), channels, *(data.draw(st.integers(side, side + 20)) for _ in range(2)))
    x = torch.randn(shape)
    if data.draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    layer = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias=data.draw(st.booleans()))
    check(layer, x)


def test_sizes_may_change_and_weights_too():
    layer = nn.Conv2d(4, 6, 3, padding=1)
    pack_(layer)
    with torch.no_grad():
        for side, factor in ((9, 1), (40, 1), (9, 2), (9, 3)):
            layer.load_state_dict({name: factor * torch.ones_like(value) for name, value in layer.state_dict().items()})
            made = layer(torch.ones(1, 4, side, side))
            assert float(made[0, 0, 4, 4]) == pytest.approx(37 * factor)
        layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        assert float(layer(torch.ones(1, 4, 9, 9))[0, 0, 4, 4]) == pytest.approx(37 * 3)


def test_everything_but_plain_inference_sees_ordinary_layers(tmp_path: Path):
    plain = small()
    network, x = optimize_for_inference(plain), torch.randn(1, 3, 8, 8)
    assert network(x.requires_grad_()).requires_grad  # of a gradient's user, such as Grad-CAM
    assert packed_layers(network) == 0 and not kept(tmp_path)
    with torch.inference_mode():
        expected = network(x)
        assert packed_layers(network) == 2 and len(kept(tmp_path)) == 2
        unpickled = pickle.loads(pickle.dumps(network))  # noqa: S301 - of this test's own
        for other in (copy.deepcopy(network), unpickled, optimize_for_inference(network)):
            assert torch.equal(other(x), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert network(x).dtype == torch.bfloat16
        assert network.double()(x.double()).dtype == torch.float64
    assert network.state_dict().keys() == plain.state_dict().keys()


def test_what_was_decided_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        optimize_for_inference(small())(x)
        assert kept(tmp_path) == ["packed"] * 2
        monkeypatch.setattr(packing, "_chosen", {})  # as in another process, on another day
        monkeypatch.setattr(packing, "_GAIN", NEVER)
        later = optimize_for_inference(small())
        later(x)
        assert packed_layers(later) == 2
        other = optimize_for_inference(nn.Sequential(nn.Linear(3, 3)))
        other(torch.ones(7, 3))
        assert packed_layers(other) == 0 and sorted(kept(tmp_path)) == ["packed", "packed", "plain"]


def test_of_two_that_decide_at_once_both_take_the_first_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def one_decides_meanwhile(*given: object) -> bool:
        monkeypatch.setattr(packing, "_wins", lambda *given: False)
        assert not packing._choice("kind", lambda: False)
        return True

    assert not packing._choice("kind", one_decides_meanwhile)
    assert kept(tmp_path) == ["plain"]


def test_without_a_cache_nothing_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    network = optimize_for_inference(small())
    with torch.inference_mode():
        network(torch.randn(1, 3, 8, 8))
    assert packed_layers(network) == 0


def test_memory_is_measured_while_weights_are_packed():
    network = optimize_for_inference(nn.Sequential(nn.Linear(16, 16)))
    with torch.inference_mode(), PeakOfTensors() as tensors:
        network(torch.ones(8, 16))
    assert packed_layers(network) == 1 and tensors.peak >= 8 * 16 * 4
