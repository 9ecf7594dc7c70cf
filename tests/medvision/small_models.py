"""Small trained classifiers of medical images, with random weights, and images for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medvision.classification import MedicalClassifier
from medvision.models.medvitv2 import MedViTV2
from shared_backbones import weights
from shared_backbones.classification.outliers import Outliers
from shared_backbones.networks.timm_classifier import TimmClassifier

SIZE = 64
GREY: dict[str, Any] = {"bands": ["grey"], "size": SIZE, "mean": [0.5], "std": [0.5]}
COLOURED: dict[str, Any] = {"bands": ["red", "green", "blue"], "size": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3}
PNEUMONIA = ["normal", "pneumonia"]
FINDINGS = ["mass", "effusion", "hernia"]
CALIBRATION = {"temperature": 1.5, "coverage": 0.9, "quantile": 0.8}


def radiographs(count: int, side: int = SIZE, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Blobs of random shape and place with a little noise, `(N, side, side)` or `(N, side, side, 3)` uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    images = np.empty((count, side, side, channels))
    for image in images:
        dx, dy, width, height = *random.normal(0, 0.15, 2), *random.uniform(0.1, 0.3, 2)
        core = np.exp(-(((x - dx) / width) ** 2) - ((y - dy) / height) ** 2)[..., None]
        image[:] = core * random.uniform(80, 220, channels) + random.normal(20, 6, image.shape)
    images = images.clip(0, 255).astype(np.uint8)
    return images[..., 0] if channels == 1 else images


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """The same as `(N, C, H, W)`."""
    return torch.from_numpy(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2))


def classifier(
    folder: Path,
    names: list[str] | None = None,
    contract: dict[str, Any] | None = None,
    *,
    outliers: bool = False,
    timm: bool = False,
    **changes: Any,
) -> Path:
    """A folder of a model whose classes all occur."""
    names, contract = names or PNEUMONIA, contract or GREY
    bands = len(contract["bands"])
    torch.manual_seed(0)
    network: Any
    if timm:
        network = TimmClassifier("resnet10t", len(names), bands)
        head: Any = network.network.fc
    else:
        network = MedViTV2(
            len(names), bands, (8, 8, 16), (1, 1, 3, 1), (32, 64, 64, 64), mix_block_ratio=0.5, kernel_size=3,
            path_dropout=0, tokens="spatial",
        )  # fmt: skip
        head = network.head
    with torch.no_grad():
        images = as_tensor(radiographs(16, contract["size"], channels=bands)) / 255
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.momentum = None
        network.train()((images - 0.5) / 0.5)  # so that features are of these images, and differ between them
        network.eval()
        logits = network((images - 0.5) / 0.5)
        scale = 2 / logits.std(0)
        head.weight *= scale[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    card = {
        "name": "probe", "version": "1.0.0", "license": "Apache-2.0", "classes": [{"name": name} for name in names],
        "input": contract, "calibration": CALIBRATION,
    }  # fmt: skip
    weights.save(folder, network, {**card, **changes})
    if outliers:
        found = MedicalClassifier(folder, device="cpu")
        features = found.features(found.prepare(as_tensor(radiographs(120, SIZE, 5, bands))))
        Outliers.fit(features[:60]).with_threshold(features[60:]).save(folder)
    return folder
