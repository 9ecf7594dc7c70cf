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


def test_levels_are_found_where_timm_leaves_out_the_first() -> None:
    pyramid = TimmPyramid("dla34").eval()
    with torch.inference_mode():
        maps = pyramid(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "coat_lite_tiny", "mvitv2_tiny"])
def test_backbones_of_one_size_are_built_for_the_size_asked_for(name: str) -> None:
    with torch.inference_mode():
        maps = TimmPyramid(name, img_size=(64, 96)).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_what_a_backbone_lacks_is_said() -> None:
    with pytest.raises(ValueError, match=r"backbone 'resnet18' has maps at 1/2, 1/4, 1/8, 1/16, 1/32, none at 1/64"):
        TimmPyramid("resnet18", reductions=(64,))
    with pytest.raises(ValueError, match=r"backbone 'visformer_tiny' has maps at 1/8, 1/16, 1/32, none at 1/4$"):
        TimmPyramid("visformer_tiny")
    with pytest.raises(ValueError, match="backbone 'resnet0' is unknown to timm"):
        TimmPyramid("resnet0")
