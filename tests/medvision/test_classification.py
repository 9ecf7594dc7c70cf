"""Classifying medical images: what a network sees of grey and coloured ones, one class or several, and its card."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medvision
from medvision.classification import MedicalClassifier, MedicalContract
from pipelines.data.image_reading import resized
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.medvision import small_models


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("grey") / "m", outliers=True)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("coloured") / "m", contract=small_models.COLOURED)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("findings") / "m"
    return small_models.classifier(folder, small_models.FINDINGS, multi_label=True, timm=True, outliers=True)


def forward(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Logits of the network itself for uint8 images of its size."""
    with torch.no_grad():
        return weights.load(folder).module((images / 255 - 0.5) / 0.5)


def test_probabilities_are_those_of_the_network_at_the_cards_temperature(grey: Path):
    images = small_models.as_tensor(small_models.radiographs(7))
    classifier = medvision.MedicalClassifier(grey, device="cpu", batch_size=3)
    assert not classifier.symmetries and not classifier.multi_label
    found = classifier.predict(classifier.prepare(images))
    expected = (forward(grey, images) / 1.5).softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(found.sets, found.probabilities >= 1 - 0.8)
    assert set(found.labels) == {0, 1} and found.outlier_score is not None and found.outlier_score.shape == (7,)
    plain = MedicalClassifier(grey, device="cpu", calibrated=False).predict(classifier.prepare(images))
    np.testing.assert_allclose(plain.probabilities, forward(grey, images).softmax(1).numpy(), atol=1e-5)


def test_several_classes_have_probabilities_of_their_own(findings: Path):
    images = small_models.as_tensor(small_models.radiographs(9))
    classifier = MedicalClassifier(findings, device="cpu", batch_size=4)
    found = classifier.predict(classifier.prepare(images))
    assert classifier.multi_label
    np.testing.assert_allclose(found.probabilities, (forward(findings, images) / 1.5).sigmoid().numpy(), atol=1e-5)
    assert len(set((found.probabilities >= 0.5).sum(1))) > 1  # none, one or more
    np.testing.assert_array_equal(found.sets, found.probabilities >= 1 - 0.8)


def test_symmetries_are_averaged_where_the_model_was_calibrated_so(tmp_path: Path):
    calibration = {**small_models.CALIBRATION, "symmetries": True, "temperature": 1.0}
    folder = small_models.classifier(tmp_path / "m", calibration=calibration)
    images = small_models.as_tensor(small_models.radiographs(3))
    classifier = MedicalClassifier(folder, device="cpu")
    assert classifier.symmetries
    turned = [images.rot90(turns, (2, 3)) for turns in range(4)]
    expected = np.mean([forward(folder, part).softmax(1) for part in (*turned, *(part.flip(3) for part in turned))], 0)
    np.testing.assert_allclose(classifier.predict(classifier.prepare(images)).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("side", [28, 64, 150])
def test_grey_images_are_repeated_for_a_network_of_colours(coloured: Path, side: int):
    images = small_models.as_tensor(small_models.radiographs(4, side))
    classifier = MedicalClassifier(coloured, device="cpu")
    prepared = classifier.prepare(images)
    assert prepared.shape == (4, 3, small_models.SIZE, small_models.SIZE) and 0 <= prepared.min() <= prepared.max() <= 1
    torch.testing.assert_close(prepared, classifier.prepare(images.repeat(1, 3, 1, 1)), atol=0, rtol=0)
    if side == small_models.SIZE:
        torch.testing.assert_close(prepared, images.repeat(1, 3, 1, 1) / 255)


def test_equal_colours_are_grey_to_a_network_of_one_band(grey: Path):
    images = small_models.as_tensor(small_models.radiographs(4, 50))
    classifier = MedicalClassifier(grey, device="cpu")
    assert torch.equal(classifier.prepare(images.repeat(1, 3, 1, 1)), classifier.prepare(images))
    one = images.repeat(1, 3, 1, 1)
    one[3, 2, 7, 7] ^= 1
    with pytest.raises(InputError, match="images are in colour, the model takes grey ones; convert them"):
        classifier.prepare(one)


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (2, 2, 64, 64), (64, 64)])
def test_other_bands_are_refused(grey: Path, coloured: Path, shape: tuple[int, ...]):
    for folder in (grey, coloured):
        with pytest.raises(InputError, match=r"the model takes [13]: "):
            MedicalClassifier(folder, device="cpu").prepare(torch.zeros(shape))


def test_grad_cam_is_the_papers_formula(findings: Path):
    images = small_models.as_tensor(small_models.radiographs(6))
    classifier = MedicalClassifier(findings, device="cpu")
    found = classifier.grad_cam(classifier.prepare(images), [0, 1, 2, 0, 1, 2])
    assert found.shape == (6, 64, 64) and found.min() >= 0 and found.max() == 1
    module: Any = weights.load(findings).module
    maps = module.forward_features((images[2:3] / 255 - 0.5) / 0.5)
    (slopes,) = torch.autograd.grad(module.forward_head(maps)[0, 2], maps)
    heat = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    heat = torch.nn.functional.interpolate(heat, (64, 64), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(found[2], heat / heat.max() if heat.max() else heat, atol=1e-4)


def test_the_middle_is_seen_where_the_card_says_so(tmp_path: Path):
    folder = small_models.classifier(tmp_path / "m", contract={**small_models.GREY, "crop": 0.5})
    images = small_models.as_tensor(small_models.radiographs(2, 128))
    prepared = MedicalClassifier(folder, device="cpu").prepare(images)
    torch.testing.assert_close(prepared, images[:, :, 32:96, 32:96] / 255, atol=1e-6, rtol=0)


def test_a_contract_normalises_bytes_and_shares_alike():
    contract = MedicalContract.from_card(
        {"input": {**small_models.COLOURED, "mean": [0, 0.5, 1], "std": [1, 2, 4]}}, "m"
    )
    assert contract.crop == 1
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    found = contract.normalise(images)
    torch.testing.assert_close(found, contract.normalise(images / 255))
    torch.testing.assert_close(found[:, 2], (images[:, 2] / 255 - 1) / 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ["a", "b"]}, r"bands are \['a', 'b'\], expected one, or red, green, blue"),
        ({"bands": ["blue", "green", "red"]}, "expected one, or red, green, blue"),
        ({"bands": []}, "expected one, or red, green, blue"),
        ({"bands": 1}, "cannot be used"),
        ({"size": 0}, "size is 0, expected 1 to 8192"),
        ({"size": "large"}, "cannot be used"),
        ({"crop": 0}, "crop is 0, expected more than 0"),
        ({"crop": 1.5}, "crop is 1.5"),
        ({"mean": [0.5, 0.5]}, "2 means and 1 deviations for 1 bands"),
        ({"mean": [float("nan")]}, "means must be finite"),
        ({"std": [0]}, "deviations more than 0"),
        ({"std": None}, "cannot be used"),
    ],
)
def test_cards_that_cannot_be_used_are_one_line(changes: dict, message: str):
    with pytest.raises(InputError, match=message) as caught:
        MedicalContract.from_card({"input": {**small_models.GREY, **changes}}, "m")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("model m: ")


@pytest.mark.parametrize("card", [{}, {"input": {"spacing_mm": 1}}])
def test_models_for_something_else_are_said_to_be(card: dict):
    with pytest.raises(InputError, match="it is no classifier of medical images"):
        MedicalContract.from_card(card, "m")


@pytest.mark.parametrize("shape", [(1, 1, 112, 112), (2, 1, 150, 97), (1, 1, 28, 28), (1, 1, 20, 40)])
def test_larger_images_show_a_model_no_more_than_it_learned_from(tmp_path: Path, shape: tuple[int, ...]):
    folder = small_models.classifier(tmp_path / "m", contract={**small_models.GREY, "detail": 14})
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    size = MedicalClassifier(folder, device="cpu").contract.size
    seen = MedicalClassifier(folder, device="cpu").prepare(images)
    expected = np.stack([resized(image.permute(1, 2, 0).numpy(), size, 1.0, 14).transpose(2, 0, 1) for image in images])
    assert seen.shape[1:] == (1, size, size)
    assert float((seen * 255 - torch.from_numpy(expected).float()).abs().max()) <= 4  # both steps round to 8 bits
    assert float((seen * 255 - torch.from_numpy(expected).float()).abs().mean()) <= 0.5


@pytest.mark.parametrize("detail", [0, -3, 9000])
def test_details_that_cannot_be_meant_are_refused(tmp_path: Path, detail: int):
    folder = small_models.classifier(tmp_path / "m", contract={**small_models.GREY, "detail": detail})
    with pytest.raises(InputError, match=f"detail is {detail}"):
        MedicalClassifier(folder, device="cpu")
