"""The bundled teaching model of chest X-rays: its licence, its size, and images that it never saw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from medvision.classification import MedicalClassifier
from pipelines.recipe.loading import load_recipe
from shared_backbones.catalogue import Catalogue

NAME = "chest-28"
FOLDER = Catalogue("medvision").find_model(NAME)


@pytest.fixture
def unseen(data_root: Path) -> tuple[torch.Tensor, np.ndarray]:
    with np.load(data_root / "medical" / "medmnist" / "pneumoniamnist.npz") as file:
        return torch.from_numpy(file["test_images"])[:, None], file["test_labels"][:, 0]


def test_its_card_says_what_it_is_and_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 10e6
    card = Catalogue("medvision").model_card(NAME)
    assert card["license"] == "CC-BY-4.0" and "CC BY 4.0" in (FOLDER / "LICENSE").read_text()
    assert "teaching model" in card["description"] and "teaching model" in card["limits"][0]
    recipe = load_recipe("chest_28")
    assert card["arguments"].items() >= {**recipe.model.arguments, "img_size": [64, 64]}.items()
    assert card["training"]["recipe"] == recipe.name and card["input"]["detail"] == 28


def test_it_is_right_on_images_that_it_never_saw(unseen: tuple[torch.Tensor, np.ndarray]):
    images, labels = unseen
    classifier = MedicalClassifier(FOLDER, device="cpu")
    found = classifier.predict(classifier.prepare(images))
    assert (found.labels == labels).mean() >= 0.88 and roc_auc_score(labels, found.probabilities[:, 1]) >= 0.96
    assert found.is_outlier is not None and found.is_outlier.mean() <= 0.1


def test_larger_images_are_seen_as_small_ones(unseen: tuple[torch.Tensor, np.ndarray]):
    images, _ = unseen
    large = torch.nn.functional.interpolate(images.float(), scale_factor=8, mode="bicubic").clamp(0, 255)
    classifier = MedicalClassifier(FOLDER, device="cpu")
    small, again = (classifier.predict(classifier.prepare(part)).labels for part in (images, large.to(torch.uint8)))
    assert (small == again).mean() >= 0.97


def test_noise_and_blank_images_are_outliers():
    classifier = MedicalClassifier(FOLDER, device="cpu")
    noise = torch.randint(0, 256, (20, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for images in (noise, torch.full((5, 1, 28, 28), 128, dtype=torch.uint8)):
        called = classifier.predict(classifier.prepare(images)).is_outlier
        assert called is not None and called.mean() >= 0.9


def test_classify_takes_it_by_name(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]):
    data = data_root / "medical" / "medmnist" / "pneumoniamnist.npz"
    command = ["classify", "-i", str(data), "-o", str(tmp_path / "o.csv"), "--model", NAME, "--device", "cpu", "--json"]
    assert run(app, command) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == NAME
