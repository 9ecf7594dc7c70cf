"""What a classifier tells outliers by: means of a map of middle depth, whatever the kind of network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared_backbones import weights
from shared_backbones.classification.contract import ImageContract
from shared_backbones.classification.pictures import PictureClassifier
from shared_backbones.errors import InputError
from shared_backbones.networks.timm_classifier import TimmClassifier

CARD = {
    "name": "probe", "version": "1", "license": "MIT", "classes": [{"id": n, "name": str(n)} for n in range(3)],
    "input": {"bands": ["a", "b", "c"], "size": 64, "crop": 1.0, "mean": [0.4] * 3, "std": [0.2] * 3},
}  # fmt: skip


class Plain(PictureClassifier):
    """Without more than the card's common part."""

    def read_contract(self, card: Any, label: str) -> ImageContract:
        return ImageContract(**ImageContract.parts(card["input"]))


def classifier(folder: Path, name: str, **options: Any) -> tuple[Plain, Any]:
    torch.manual_seed(0)
    network = TimmClassifier(name, 3, 3, **options).eval()
    weights.save(folder, network, CARD)
    return Plain(folder, device="cpu"), network


@pytest.mark.parametrize(
    ("name", "options", "module", "positions", "width"),
    [
        ("resnet10t", {}, "layer2", (2, 3), 128),
        ("convnext_atto", {}, "stages.1", (2, 3), 80),
        # channels last, and tokens, of which no level is finer than a sixteenth
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, "layers.1", (1, 2), 192),
        ("vit_tiny_patch16_224", {"img_size": 64}, "blocks.6", (1,), 192),
    ],
)
def test_features_are_means_of_a_map_of_middle_depth(
    tmp_path: Path, name: str, options: dict[str, Any], module: str, positions: tuple[int, ...], width: int
):
    found, network = classifier(tmp_path / "m", name, **options)
    images = torch.rand(3, 3, 64, 64, generator=torch.manual_seed(1))
    maps: list[torch.Tensor] = []
    network.network.get_submodule(module).register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad():
        logits = network((images - 0.4) / 0.2)
    features = found.features(images)
    assert features.shape == (3, width)
    np.testing.assert_allclose(features, maps[0].mean(positions).numpy(), atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(found.predict(images).probabilities, logits.softmax(1).numpy(), atol=1e-4)


def test_a_network_that_does_not_say_where_its_maps_are_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    classifier(tmp_path / "m", "resnet10t")
    built = TimmClassifier.__init__

    def build(self: Any, *args: Any, **options: Any) -> None:
        built(self, *args, **options)
        del self.feature_info

    monkeypatch.setattr(TimmClassifier, "__init__", build)
    with pytest.raises(InputError, match=r"does not run on what its card promises.*feature_info"):
        Plain(tmp_path / "m", device="cpu")
