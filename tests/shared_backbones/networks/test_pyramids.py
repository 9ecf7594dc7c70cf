from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shared_backbones.errors import InputError
from shared_backbones.networks.pyramids import TimmPyramid, fill_backbone
from shared_backbones.networks.resnet import ResNet


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


def published(name: str) -> Any:
    """A whole network of timm, its classifier included, with weights and statistics of its own."""
    import timm

    torch.manual_seed(1)
    model = timm.create_model(name)
    for entry in model.state_dict().values():
        if entry.is_floating_point():
            entry.copy_(torch.rand_like(entry) * 0.1 + 0.01)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "suffix"), [("resnet18", ".pth"), ("resnet18", ".safetensors"), ("convnext_atto", ".safetensors")]
)
def test_published_weights_fill_a_backbone(tmp_path: Path, name: str, suffix: str) -> None:
    theirs, path = published(name), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in theirs.state_dict().items()}}, path)
    else:
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, path)
    ours = ResNet(18) if suffix == ".pth" else TimmPyramid(name)
    fill_backbone(ours, path)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        last = ours.eval()(x)[-1]
        torch.testing.assert_close(last, theirs.forward_features(x), rtol=1e-5, atol=1e-5)


def test_a_grey_image_gives_what_it_gave_in_three_bands(tmp_path: Path) -> None:
    theirs = published("resnet18")
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = ResNet(18, 1).eval()
    fill_backbone(ours, tmp_path / "w.safetensors")
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x)[-1], theirs.forward_features(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    theirs = published("resnet18").state_dict()
    save_file(theirs, tmp_path / "w.safetensors")
    ours = ResNet(50)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(InputError, match=r"w.safetensors: no weights of this backbone: missing \d+ \(layer1.0.conv3"):
        fill_backbone(ours, tmp_path / "w.safetensors")
    theirs["conv1.weight"] = torch.full_like(theirs["conv1.weight"], torch.inf)
    save_file(theirs, tmp_path / "inf.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight holds values that are not finite"):
        fill_backbone(ResNet(18), tmp_path / "inf.safetensors")
    with pytest.raises(InputError, match=r"conv1\.weight has shape"):
        fill_backbone(ResNet(18, 2), tmp_path / "w.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
