"""MedViTV2 as the encoder of a U-Net: python backbone_in_smp.py"""

import segmentation_models_pytorch as smp
import torch

import medvision.models  # noqa: F401 - makes the networks known to timm


def main() -> torch.Tensor:
    network = smp.Unet("tu-medvitv2_tiny", encoder_weights=None, in_channels=1, classes=4, tokens="spatial")
    with torch.inference_mode():
        logits = network.eval()(torch.zeros(1, 1, 64, 96))
    print(tuple(logits.shape))
    return logits


if __name__ == "__main__":
    main()
