from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from medvision.sliding_windows import slide, window_count, window_starts

NETWORK = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)).eval()


def whole(volume: Tensor, window: Sequence[int], overlap: float, **options: Any) -> Tensor:
    """Planes of `slide` put together; each must follow the one before."""
    planes = []
    for start, logits in slide(volume, NETWORK, window, overlap, **options):
        assert start == sum(part.shape[1] for part in planes)
        planes.append(logits)
    return torch.cat(planes, 1)


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(3, 30)] * 3),
    window=st.tuples(*[st.integers(4, 16)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.625, 0.9]),
    batch_size=st.integers(1, 5),
    weighting=st.sampled_from(["gaussian", "constant"]),
)
@torch.inference_mode()
def test_logits_are_monais(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: float, batch_size: int, weighting: str
):
    from monai.inferers.inferer import SlidingWindowInferer

    volume = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    expected = SlidingWindowInferer(window, 1, overlap, mode=weighting)(volume[None], NETWORK)
    assert isinstance(expected, Tensor)
    found = whole(volume, window, overlap, batch_size=batch_size, weighting=weighting)
    torch.testing.assert_close(found, expected[0], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_mirrored_windows_are_averaged():
    volume = torch.randn(2, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    window = volume.shape[1:]
    turned = [(), (1,), (3,), (1, 3)]
    expected = sum(NETWORK(volume.flip(axes)[None])[0].flip(axes) for axes in turned) / 4
    torch.testing.assert_close(whole(volume, window, 0.5, mirror_axes=(0, 2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "side", "overlap"), [(10, 10, 0.5), (5, 10, 0.5), (11, 10, 0.5), (100, 7, 0.99)])
def test_windows_cover_an_axis(size: int, side: int, overlap: float):
    starts = window_starts(size, side, overlap)
    assert starts == sorted(set(starts))
    covered = {at for start in starts for at in range(start, start + side)}
    assert covered >= set(range(size))
    assert window_count([size, 4, 4], [side, 4, 4], overlap) == len(starts)


def test_planes_leave_as_soon_as_they_are_complete():
    parts = list(slide(torch.zeros(1, 200, 9, 9), lambda windows: windows, (8, 8, 8), 0.5))
    assert [start for start, _ in parts] == list(range(0, 193, 4))
    assert {logits.shape[1] for _, logits in parts[:-1]} == {4}
