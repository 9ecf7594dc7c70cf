"""Small trained models for satellite images, with random weights."""

from pathlib import Path
from typing import Any

import torch

from geovision.contract import input_section
from geovision.models.satmae_pp import GroupMaskedAutoencoder, GroupVisionTransformer, encoder_of
from shared_backbones import weights
from shared_backbones.networks.unet import Unet

BANDS = ["B2", "B3", "B8A"]
CLASSES = [{"id": i, "name": f"class {i}", "color": [80 * i, 10, 200 - 60 * i]} for i in range(3)]


def save(folder: Path, network: torch.nn.Module, size: int, **changes: Any) -> Path:
    card = {
        "name": "probe",
        "version": "1.0.0",
        "license": "Apache-2.0",
        "classes": CLASSES,
        "input": input_section("sentinel2_l1c", BANDS, size, gsd_m=10),
    }
    weights.save(folder, network, {**card, **changes})
    return folder


def mapper(folder: Path, size: int = 32, **changes: Any) -> Path:
    torch.manual_seed(0)
    network = Unet(3, 3, encoder="resnet18", decoder_channels=(16, 8, 8, 8, 8))
    return save(folder, network, size, **changes)


GROUPS = {"channel_groups": ((0, 1), (2,)), "in_chans": 3, "channel_embed": 4, "embed_dim": 16, "num_heads": 2}


def classifier(folder: Path) -> Path:
    torch.manual_seed(0)
    return save(folder, GroupVisionTransformer(16, 4, num_classes=3, depth=2, **GROUPS), 16)


def autoencoder(folder: Path) -> Path:
    torch.manual_seed(0)
    network = GroupMaskedAutoencoder(
        16, 4, depth=2, decoder_embed_dim=16, decoder_channel_embed=4, decoder_depth=1, decoder_num_heads=2, **GROUPS
    )
    return save(folder, network, 16)


def encoder(folder: Path) -> Path:
    """The encoder alone of `autoencoder`."""
    trained: Any = weights.load(autoencoder(folder)).module
    return save(folder, encoder_of(trained), 16)
