import warnings
from typing import Any

import pytest
import torch

from shared_backbones import optimize_for_inference
from shared_backbones.networks.resnet import ResNet


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_equals_torchvision_s_under_its_names(depth: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchvision.models
    torch.manual_seed(depth)
    theirs: Any = getattr(torchvision.models, f"resnet{depth}")().double().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    ours = ResNet(depth).double().eval()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")})
    x = torch.randn(2, 3, 65, 96, dtype=torch.float64)
    with torch.inference_mode():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        expected = []
        for number in range(1, 5):
            y = getattr(theirs, f"layer{number}")(y)
            expected.append(y)
        folded = optimize_for_inference(ours)
        for form in (ours, folded):
            for found, value, channels in zip(form(x), expected, ours.channels, strict=True):
                torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-9)
                assert found.shape[1] == channels
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_equals_timm_s_under_the_same_names(depth: int) -> None:
    import timm

    torch.manual_seed(depth)
    theirs: Any = timm.create_model(f"resnet{depth}", features_only=True, out_indices=(1, 2, 3, 4)).double().eval()
    ours = ResNet(depth).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 65, dtype=torch.float64)
    with torch.inference_mode():
        for found, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_maps_have_the_reductions_they_say() -> None:
    for pooled, first in ((True, 4), (False, 2)):
        network = ResNet(18, 2, max_pool=pooled, width=8)
        assert network.reductions == tuple(first * 2**i for i in range(4))
        maps = network(torch.zeros(1, 2, 64, 32))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (8 * 2**i, 64 // r, 32 // r) for i, r in enumerate(network.reductions)
        ]


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="ResNet depth 20 is unknown; known: 18, 34, 50, 101, 152"):
        ResNet(20)
