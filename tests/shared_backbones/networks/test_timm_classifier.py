"""Classifiers and encoders of timm by name."""

import pytest
import torch

from shared_backbones.networks.timm_classifier import TimmClassifier
from shared_backbones.networks.unet import Unet


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224"])
def test_swin_takes_other_sizes_than_that_of_its_weights(name: str):
    classifier = TimmClassifier(name, num_classes=3, in_chans=1, embed_dim=24, depths=(1, 1, 1, 1)).eval()
    with torch.inference_mode():
        assert classifier(torch.rand(1, 1, 96, 128)).shape == (1, 3)
    assert "strict_img_size" not in classifier.arguments


def test_a_unet_over_swin_takes_any_size():
    unet = Unet(2, 1, "tu-swin_tiny_patch4_window7_224", decoder_channels=(32, 16, 16, 8, 8)).eval()
    with torch.inference_mode():
        assert unet(torch.rand(1, 1, 70, 130)).shape == (1, 2, 70, 130)
