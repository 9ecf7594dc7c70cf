"""Doubling equals torch's interpolation, in inference and in training."""

import pytest
import torch
import torch.nn.functional as F

from shared_backbones.blocks.doubling import doubled

MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}


@pytest.mark.parametrize("shape", [(2, 3, 7), (1, 2, 1, 5), (2, 3, 8, 6), (1, 4, 3, 1, 9), (2, 1, 5, 4, 6)])
@pytest.mark.parametrize("training", [False, True])
def test_it_equals_interpolation(shape: tuple[int, ...], training: bool):
    x = torch.randn(shape)
    with torch.set_grad_enabled(training):
        torch.testing.assert_close(doubled(x), F.interpolate(x, scale_factor=2, mode=MODES[x.ndim]))


def test_maps_in_other_layouts_and_formats():
    x = torch.randn(2, 6, 4, 8, 8)[:, ::2, :, 1:7].transpose(2, 4)
    expected = F.interpolate(x, scale_factor=2, mode="trilinear")
    with torch.inference_mode():
        torch.testing.assert_close(doubled(x), expected)
        assert doubled(x.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(doubled(x.double()).float(), expected)
