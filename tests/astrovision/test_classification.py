"""Classifying galaxies: probabilities that turn with the image, sets, outliers, and what speaks for a class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from astrovision.classification import GalaxyClassifier
from pipelines.data.image_reading import resized
from shared_backbones import weights
from shared_backbones.classification.grad_cam import cam_overlay
from shared_backbones.errors import InputError
from tests.astrovision import small_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> GalaxyClassifier:
    return GalaxyClassifier(folder, device="cpu")


@pytest.fixture(scope="module")
def images(classifier: GalaxyClassifier) -> Tensor:
    return classifier.prepare(torch.from_numpy(small_models.galaxies(7)))


def test_turned_images_have_equal_probabilities_and_mirrored_ones_exchanged(classifier: Any, images: Tensor):
    usual = classifier.predict(images).probabilities
    assert np.abs(usual - usual[:, small_models.SWAPPED]).max() > 0.01  # the two are told apart
    for turns in range(1, 4):
        found = classifier.predict(images.rot90(turns, (2, 3))).probabilities
        np.testing.assert_allclose(found, usual, atol=1e-5)
    for axis in (2, 3):
        found = classifier.predict(images.flip(axis)).probabilities
        np.testing.assert_allclose(found[:, small_models.SWAPPED], usual, atol=1e-5)


def test_a_single_view_is_not_symmetric(folder: Path, classifier: Any, images: Tensor):
    single = GalaxyClassifier(folder, device="cpu", symmetries=False, calibrated=False)
    found, turned = (single.predict(part).probabilities for part in (images, images.rot90(1, (2, 3))))
    assert np.abs(found - turned).max() > 1e-3
    views = [single.predict(images.rot90(turns, (2, 3))).probabilities for turns in range(4)]
    mirrored = [single.predict(images.rot90(turns, (2, 3)).flip(3)).probabilities for turns in range(4)]
    mean = np.mean([*views, *(part[:, small_models.SWAPPED] for part in mirrored)], 0)
    # calibration was fitted to the average, so the average is what the temperature changes
    heated = mean ** (1 / classifier.temperature)
    heated /= heated.sum(1, keepdims=True)
    np.testing.assert_allclose(classifier.predict(images).probabilities, heated, atol=1e-6)


def test_the_temperature_divides_the_logits(folder: Path, images: Tensor):
    given, plain = (GalaxyClassifier(folder, device="cpu", symmetries=False, calibrated=flag) for flag in (True, False))
    module = weights.load(folder).module
    with torch.no_grad():
        logits = module((images - 0.2) / 0.2)
    for found, temperature in ((given, 1.5), (plain, 1.0)):
        expected = (logits / temperature).softmax(1).numpy()
        np.testing.assert_allclose(found.predict(images).probabilities, expected, atol=1e-5)
    assert plain.coverage is None and plain.outliers is None and plain.predict(images).sets is None


def test_a_prediction_is_complete(classifier: Any, images: Tensor):
    found = classifier.predict(images)
    assert found.probabilities.shape == (7, 4) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(1))
    np.testing.assert_array_equal(found.confidence, found.probabilities.max(1))
    np.testing.assert_array_equal(found.sets, found.probabilities >= 1 - 0.8)
    assert found.outlier_score.shape == found.is_outlier.shape == (7,) and found.is_outlier.dtype == bool


def test_the_batch_size_changes_nothing(folder: Path, classifier: Any, images: Tensor):
    expected, features = classifier.predict(images), classifier.features(images)
    for size in (1, 2, 7):
        other: Any = GalaxyClassifier(folder, device="cpu", batch_size=size)
        found = other.predict(images)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
        np.testing.assert_allclose(found.outlier_score, expected.outlier_score, rtol=1e-3)
        np.testing.assert_allclose(other.features(images), features, atol=1e-5)
        np.testing.assert_allclose(other.grad_cam(images, [1] * 7), classifier.grad_cam(images, [1] * 7), atol=1e-3)


def test_no_image_gives_no_row(classifier: Any, images: Tensor):
    none = images[:0]
    found = classifier.predict(none)
    assert found.probabilities.shape == found.sets.shape == (0, 4) and found.outlier_score.shape == (0,)
    assert classifier.features(none).shape[0] == 0 and classifier.grad_cam(none, []).shape == (0, 64, 64)


def test_blank_and_noisy_images_are_outliers_to_the_network(classifier: Any, images: Tensor):
    strange = torch.cat([torch.zeros(1, 3, 64, 64), torch.rand(3, 3, 64, 64, generator=torch.manual_seed(0))])
    found = classifier.predict(strange)
    assert found.is_outlier.all() and found.outlier_score.min() > classifier.predict(images).outlier_score.max()


@pytest.mark.parametrize(("side", "crop"), [(121, 0.36), (80, 0.8), (64, 1.0), (50, 1.0), (256, 0.626)])
def test_images_are_prepared_as_the_trainings_were(tmp_path: Path, side: int, crop: float):
    """Whether it is cut and then resized, or resized and then cut, as a store's images are."""
    path = small_models.classifier(tmp_path / "m", {**small_models.COLORS, "crop": crop}, outliers=False)
    found = GalaxyClassifier(path, device="cpu")
    image = small_models.galaxies(1, side)
    prepared = found.prepare(torch.from_numpy(image))
    assert prepared.shape == (1, 3, 64, 64) and prepared.dtype == torch.float32
    torch.testing.assert_close(found.prepare(torch.from_numpy(image) / 255), prepared, atol=1e-6, rtol=0)
    stored = round(64 * 1.25)
    whole = resized(image[0].transpose(1, 2, 0), stored, min(1, crop * stored / 64)) if crop < 0.8 else None
    if whole is not None:
        border = (stored - 64) // 2
        expected = whole[border : border + 64, border : border + 64]
    else:
        expected = resized(image[0].transpose(1, 2, 0), 64, crop)
    difference = np.abs(prepared[0].permute(1, 2, 0).numpy() * 255 - expected)
    assert difference.max() < 1.6 and difference.mean() < 0.5


def test_the_middle_of_an_oblong_image_is_seen(classifier: Any):
    image = torch.from_numpy(small_models.galaxies(1, 80))
    oblong = torch.nn.functional.pad(image, (20, 20), value=7)
    torch.testing.assert_close(classifier.prepare(oblong), classifier.prepare(image), atol=2e-2, rtol=0)
    assert torch.equal(classifier.prepare(image.flip(3)), classifier.prepare(image).flip(3))


def test_images_of_other_bands_or_sizes_are_refused(classifier: Any):
    with pytest.raises(InputError, match="images have 1 bands, the model takes 3: red, green, blue"):
        classifier.prepare(torch.zeros(2, 1, 80, 80))
    with pytest.raises(InputError, match=r"images are \(4, 64, 64\), the model takes \(3, 64, 64\)"):
        classifier.predict(torch.zeros(2, 4, 64, 64))
    with pytest.raises(InputError, match=r"images are \(3, 32, 32\)"):
        classifier.grad_cam(torch.zeros(2, 3, 32, 32), [0, 0])


def test_grad_cam_shows_a_place_that_depends_on_the_class(classifier: Any, images: Tensor):
    maps = np.stack([classifier.grad_cam(images, [label] * 7) for label in range(4)])
    assert maps.shape == (4, 7, 64, 64) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() == 1
    peaks = maps.max((2, 3))
    assert set(np.unique(peaks)) <= {0.0, 1.0}  # normalised, or nothing speaks for the class
    assert np.abs(maps[0] - maps[1]).max() > 0.1
    mixed = classifier.grad_cam(images, [0, 1, 2, 3, 0, 1, 2])
    np.testing.assert_allclose(mixed[3], maps[3, 3], atol=1e-4)


def test_grad_cam_is_the_papers_formula(folder: Path, classifier: Any, images: Tensor):
    module: Any = weights.load(folder).module
    features = module.forward_features((images[:1] - 0.2) / 0.2)
    (slopes,) = torch.autograd.grad(module.forward_head(features)[0, 2], features)
    heat = (slopes.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu().detach()
    heat = torch.nn.functional.interpolate(heat, (64, 64), mode="bilinear")[0, 0].numpy()
    expected = heat / heat.max() if heat.max() > 0 else heat
    np.testing.assert_allclose(classifier.grad_cam(images[:1], [2])[0], expected, atol=1e-4)


@pytest.mark.parametrize("labels", [[0], [0] * 6 + [4], [-1] + [0] * 6])
def test_grad_cam_of_classes_that_are_none_is_a_bug(classifier: Any, images: Tensor, labels: list[int]):
    with pytest.raises(ValueError, match="expected one of 4 for each image"):
        classifier.grad_cam(images, labels)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_an_overlay_leaves_what_is_not_seen_as_it_is(bands: int):
    image = small_models.galaxies(1, 16, bands=bands)[0]
    cam = np.zeros((16, 16), np.float32)
    cam[4:8, 4:8] = 1
    shown = cam_overlay(image, cam)
    assert shown.shape == (16, 16, 3) and shown.dtype == np.uint8
    if bands == 3:
        np.testing.assert_array_equal(shown[8:], image.transpose(1, 2, 0)[8:])
    np.testing.assert_allclose(cam_overlay(image.astype(np.float32) / 255, cam), shown, atol=1)
    assert (shown[4:8, 4:8].astype(int) - image.transpose(1, 2, 0)[4:8, 4:8, :1] > 20).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": {"temperature": 0}}, "temperature is 0, expected more than 0"),
        ({"calibration": {"temperature": "warm"}}, "another form"),
        ({"calibration": [1]}, "another form"),
        ({"calibration": {"quantile": 0.5}}, "cannot be used"),
        ({"calibration": {"quantile": 7, "coverage": 0.9}}, "expected a quantile from 0 to 1"),
        ({"classes": small_models.CLASSES[:3]}, "its mirror|one number for each of its 3 classes"),
        ({"classes": [{"name": "a"}, {"name": "a"}, {"name": "b"}, {"name": "c"}]}, "classes of different names"),
        ({"classes": None}, "another form"),
        ({"input": {}}, "no model for astronomical images"),
    ],
)
def test_cards_that_cannot_be_used_are_one_line(tmp_path: Path, changes: dict, message: str):
    path = small_models.classifier(tmp_path / "m", outliers=False, **changes)
    with pytest.raises(InputError, match=message) as caught:
        GalaxyClassifier(path, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_model_without_calibration_has_no_sets_and_no_outliers(tmp_path: Path):
    path = small_models.classifier(tmp_path / "m", outliers=False, calibration={})
    found = GalaxyClassifier(path, device="cpu")
    prediction = found.predict(torch.zeros(2, 3, 64, 64))
    assert found.temperature == 1 and prediction.sets is None
    assert prediction.outlier_score is None and prediction.is_outlier is None


def test_a_model_that_was_changed_meanwhile_is_not_looked_into(tmp_path: Path, images: Tensor):
    path = small_models.classifier(tmp_path / "m", outliers=False)
    found = GalaxyClassifier(path, device="cpu")
    trained = weights.load(path)
    with torch.no_grad():
        next(trained.module.parameters()).add_(1)
    weights.save(path, trained.module, trained.card)
    with pytest.raises(InputError, match="was changed meanwhile"):
        found.grad_cam(images, [0] * 7)
