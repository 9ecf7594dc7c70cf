"""Small trained models for galaxies, with random weights, and images for them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrovision.classification import GalaxyClassifier
from astrovision.models.astroformer import Astroformer
from shared_backbones import weights
from shared_backbones.classification.outliers import Outliers

CLASSES = [
    {"id": 0, "name": "elliptical"},
    {"id": 1, "name": "spiral_acw", "mirror": "spiral_cw"},
    {"id": 2, "name": "spiral_cw", "mirror": "spiral_acw"},
    {"id": 3, "name": "Disk, edge-on"},
]
NAMES = [str(entry["name"]) for entry in CLASSES]
SWAPPED = [0, 2, 1, 3]
SIZE = 64
COLORS: dict[str, Any] = {
    "bands": ["red", "green", "blue"], "size": SIZE, "crop": 0.8, "pixel_scale_arcsec": None, "cutout": None,
    "stretch": None, "mean": [0.2, 0.2, 0.2], "std": [0.2, 0.2, 0.2],
}  # fmt: skip
FLUXES: dict[str, Any] = {
    **COLORS, "bands": ["g", "r", "z"], "crop": 1.0, "pixel_scale_arcsec": 0.5, "cutout": SIZE, "parity": -1,
    "stretch": {"kind": "asinh", "parameters": {"low": 0.0, "high": 10.0, "softening": 0.1}},
}  # fmt: skip
SDSS: dict[str, Any] = {**COLORS, "stretch": {"kind": "sdss", "parameters": {}}, "parity": 1, "unit": "nmgy"}
CALIBRATION = {"temperature": 1.5, "coverage": 0.9, "quantile": 0.8}


def galaxies(count: int, side: int = 80, seed: int = 0, bands: int = 3) -> np.ndarray:
    """Blobs of random shape and place with a little noise, `(N, C, side, side)` uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    images = np.empty((count, bands, side, side))
    for image in images:
        dx, dy, width, tilt = *random.normal(0, side / 12, 2), *random.uniform(side / 12, side / 5, 2)
        core = np.exp(-(((x - dx + y * tilt / side) / width) ** 2) - ((y - dy) / width / 0.6) ** 2)
        image[:] = core * random.uniform(100, 240, (bands, 1, 1)) + random.normal(10, 4, (bands, side, side))
    return images.clip(0, 255).astype(np.uint8)


def classifier(folder: Path, contract: dict[str, Any] | None = None, outliers: bool = True, **changes: Any) -> Path:
    """A folder of a model whose classes all occur."""
    contract = COLORS if contract is None else contract
    bands = len(contract["bands"])
    torch.manual_seed(0)
    network = Astroformer(
        len(CLASSES), bands, SIZE, embed_dim=(8, 8, 16, 32), depths=(1, 1, 1, 1), stem_width=8, head_hidden_size=16
    ).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        images = torch.from_numpy(galaxies(16, SIZE, bands=bands)) / 255
        logits = network((images - 0.2) / 0.2)
        scale = 2 / logits.std(0)
        head: Any = network.head.classifier
        head.weight *= scale[:, None]
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    card = {
        "name": "probe", "version": "1.0.0", "license": "Apache-2.0", "classes": CLASSES, "input": contract,
        "calibration": CALIBRATION,
    }  # fmt: skip
    weights.save(folder, network, {**card, **changes})
    if outliers:
        found = GalaxyClassifier(folder, device="cpu")
        features = found.features(found.prepare(torch.from_numpy(galaxies(120, seed=5, bands=bands))))
        Outliers.fit(features[:60]).with_threshold(features[60:]).save(folder)
    return folder
