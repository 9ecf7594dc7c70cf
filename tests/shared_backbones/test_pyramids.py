import pytest
import torch

from shared_backbones.pyramids import TimmPyramid


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("convnext_atto", 64), ("swin_tiny_patch4_window7_224", 224)]
)
def test_gives_the_maps_at_the_reductions_asked_for(name: str, size: int) -> None:
    pyramid = TimmPyramid(name, 2, reductions=(8, 32)).eval()
    with torch.inference_mode():
        maps = pyramid(torch.randn(1, 2, size, size))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, size // r, size // r) for c, r in zip(pyramid.channels, (8, 32), strict=True)
    ]


def test_what_a_backbone_lacks_is_said() -> None:
    with pytest.raises(ValueError, match=r"backbone 'resnet18' has maps at 1/2, 1/4, 1/8, 1/16, 1/32, none at 1/64"):
        TimmPyramid("resnet18", reductions=(64,))
    with pytest.raises(ValueError, match="backbone 'resnet0' is unknown to timm"):
        TimmPyramid("resnet0")
