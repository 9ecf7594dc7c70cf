"""Images of satellites through a trained classifier: what it sees, says, and shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geovision
from geovision.classification import SatelliteClassifier
from geovision.contract import input_section
from geovision.models.satmae_pp import GroupVisionTransformer
from geovision.pictures import picture, shown_bands
from geovision.pretraining import central_views
from geovision.scenes import open_for_model
from shared_backbones import weights
from shared_backbones.errors import InputError
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene
from tests.golden.trainings import MODELS


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> SatelliteClassifier:
    return SatelliteClassifier(small_models.classifier(tmp_path_factory.mktemp("m") / "m"), device="cpu")


def numbers(count: int, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 3000


def test_it_is_part_of_the_public_api():
    assert geovision.SatelliteClassifier is SatelliteClassifier


def test_an_evaluation_s_view_is_seen_and_pixels_without_data_count_as_the_mean(classifier: SatelliteClassifier):
    images = numbers(2)
    seen = classifier.prepare(images)
    expected = central_views(classifier.contract.normalise(images), 16)
    torch.testing.assert_close(seen, expected)
    means = torch.tensor(classifier.contract.mean)[:, None, None]
    filled, holed = images.clone(), images.clone()
    filled[:, :, 4:8, 2:9], holed[:, 1, 4:8, 2:9] = means, torch.nan  # of one band: none is known there
    torch.testing.assert_close(classifier.prepare(holed), classifier.prepare(filled))
    with torch.inference_mode():
        logits = classifier.network(expected)
    np.testing.assert_allclose(classifier.predict(seen).probabilities, logits.softmax(1).numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (40, 23), (7, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint16, torch.uint8])
def test_images_of_every_size_and_type_are_taken(classifier: SatelliteClassifier, shape: tuple, dtype: torch.dtype):
    images = (torch.rand(2, 3, *shape) * 200).to(dtype)
    prediction = classifier.predict(classifier.prepare(images))
    np.testing.assert_allclose(prediction.probabilities.sum(1), 1, atol=1e-5)


def test_images_are_brought_to_the_side_of_the_training_s_first(tmp_path: Path):
    torch.manual_seed(0)
    card = {"input": {**input_section("sentinel2_l1c", small_models.BANDS, 16), "stored": 24}}
    network = GroupVisionTransformer(16, 4, num_classes=3, depth=2, **small_models.GROUPS)
    folder = small_models.save(tmp_path / "m", network, 16, **card)
    classifier = SatelliteClassifier(folder, device="cpu")
    uniform = torch.full((1, 3, 48, 60), 1500.0)
    torch.testing.assert_close(classifier.prepare(uniform), classifier.prepare(uniform[..., :24, :24]))
    assert not torch.equal(classifier.prepare(numbers(1, 48)), central_views(numbers(1, 48), 16))


def test_a_file_is_read_in_the_model_s_bands_with_its_gaps(classifier: SatelliteClassifier, tmp_path: Path):
    values = ramp(3, 16, 20)
    values[:, 2, 3] = 0
    path = write_scene(tmp_path / "s.tif", values, small_models.BANDS, nodata=0)
    with open_for_model(path, classifier.contract, sensor="sentinel2_l1c") as scene:
        image = classifier.read(scene)
    assert image.shape == (1, 3, 16, 20) and image[0, :, 2, 3].isnan().all() and image.isnan().sum() == 3
    np.testing.assert_allclose(image[0, 1, 5:].numpy(), values[1, 5:], rtol=1e-4)


def test_a_scene_of_many_images_is_refused(classifier: SatelliteClassifier, tmp_path: Path):
    path = write_scene(tmp_path / "s.tif", np.ones((3, 1, 4097), np.uint16), small_models.BANDS)
    with (
        open_for_model(path, classifier.contract, sensor="sentinel2_l1c") as scene,
        pytest.raises(InputError, match="1 x 4097 pixels, expected one image of at most 4096"),
    ):
        classifier.read(scene)


def test_grad_cam_shows_where_tokens_speak_for_a_class(classifier: SatelliteClassifier):
    seen = classifier.prepare(numbers(3))
    maps = classifier.grad_cam(seen, [0, 1, 2])
    assert maps.shape == (3, 16, 16) and maps.min() >= 0 and maps.max() <= 1
    network: Any = weights.load(classifier.folder).module.requires_grad_(False)
    tokens = network.forward_features(seen)[:1].requires_grad_()
    (slopes,) = torch.autograd.grad(network.forward_head(tokens)[0, 0], tokens)
    by_hand = (slopes[0, 1:].mean(0) * tokens[0, 1:]).sum(1).detach().unflatten(0, (2, 4, 4)).mean(0).relu()
    expected = torch.nn.functional.interpolate(by_hand[None, None], (16, 16), mode="bilinear")[0, 0]
    np.testing.assert_allclose(maps[0], (expected / expected.max().clamp(min=1e-12)).numpy(), atol=1e-4)


def test_a_class_token_alone_has_no_map(tmp_path: Path):
    network = GroupVisionTransformer(16, 4, num_classes=3, depth=2, global_pool=False, **small_models.GROUPS)
    classifier = SatelliteClassifier(small_models.save(tmp_path / "m", network, 16), device="cpu")
    with pytest.raises(InputError, match="its class token alone"):
        classifier.grad_cam(classifier.prepare(numbers(1)), [0])


def test_a_model_of_version_0_1_is_used_as_it_is():
    classifier = SatelliteClassifier(MODELS / "labelled_images", device="cpu")
    assert classifier.contract.stored is None and classifier.temperature == 1 and not classifier.multi_label
    prediction = classifier.predict(classifier.prepare(numbers(4)))
    assert prediction.sets is None and prediction.outlier_score is None
    np.testing.assert_allclose(prediction.probabilities.sum(1), 1, atol=1e-5)


def test_what_the_head_sees_is_given(classifier: SatelliteClassifier):
    vectors = classifier.embed(classifier.prepare(numbers(5)))
    assert vectors.shape == (5, 16)
    head = weights.load(classifier.folder).module.get_submodule("head")
    logits = head(torch.from_numpy(vectors)).softmax(1).detach().numpy()
    np.testing.assert_allclose(logits, classifier.predict(classifier.prepare(numbers(5))).probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("card", "several"),
    [({}, False), ({"multi_label": True}, True), ({"training": {"validation_map_macro": 0.5}}, True)],
)
def test_cards_say_whether_images_have_several_classes(tmp_path: Path, card: dict, several: bool):
    network = GroupVisionTransformer(16, 4, num_classes=3, depth=2, **small_models.GROUPS)
    found = SatelliteClassifier(small_models.save(tmp_path / "m", network, 16, **card), device="cpu")
    assert found.multi_label == several


def test_other_numbers_of_bands_are_refused(classifier: SatelliteClassifier):
    for images in (torch.zeros(1, 2, 16, 16), torch.zeros(3, 16, 16)):
        with pytest.raises(InputError, match="the model takes 3: B2, B3, B8A"):
            classifier.prepare(images)


def test_pictures_have_true_colours_where_they_are_there_and_gaps_in_black():
    assert shown_bands(["B2", "B3", "B4", "B8"]) == ["B4", "B3", "B2"] and shown_bands(["B8", "B11"]) == ["B8"] * 3
    image = ramp(4, 10, 12).astype(np.float32)
    image[:, 3] = np.nan
    shown = picture(image, ["B2", "B3", "B4", "B8"])
    assert shown.shape == (10, 12, 3) and (shown[3] == 0).all() and shown[9, 11].tolist() == [255] * 3
    assert (picture(np.full((1, 4, 4), np.nan), ["B8"]) == 0).all()
