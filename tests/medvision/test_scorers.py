"""A 3-D network in the path from a volume to labels, beside MONAI's own inference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medvision.models.monai_network import MonaiNetwork
from medvision.scorers import FAST_OVERLAP
from medvision.segmentation import Segmenter
from medvision.volumes.intensities import normalise
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.networks.skip_unet import SkipUnet
from tests.medvision.phantoms import load, make_affine
from tests.medvision.test_segmentation import make_card, make_head, make_volume, turned

SPACING = (1.0, 1.2, 1.5)
CARD = {"spacing_mm": list(SPACING), "patch": [16, 16, 16], "normalisation": "zscore", "smallest_piece": 0}


def make_model(folder: Path, network: nn.Module, **changes: object) -> Path:
    weights.save(folder, network, make_card(**{**CARD, **changes}))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = SkipUnet(4, widths=(4, 8, 8))
    with torch.no_grad():
        for head in network.heads.parameters():
            head.mul_(20)  # scores have 8 bits: few voxels between two classes
    return make_model(tmp_path_factory.mktemp("model"), network)


@pytest.fixture(scope="module")
def probabilities(model: Path) -> np.ndarray:
    """What MONAI's inferer says of the head, `(4, X, Y, Z)`."""
    from monai.inferers.inferer import SlidingWindowInferer

    network = weights.load(model).module
    image = normalise(torch.from_numpy(make_head().astype(np.float32)), "zscore")
    with torch.inference_mode():
        logits = SlidingWindowInferer((16, 16, 16), 1, 0.5, mode="gaussian")(image[None, None], network)
    assert isinstance(logits, torch.Tensor)
    return logits[0].softmax(0).numpy()


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (1, -1, 1)), ((1, 0, 2), (-1, -1, -1))]
)
def test_labels_are_those_of_monais_inference_in_any_orientation(
    order: tuple[int, ...], signs: tuple[int, ...], model: Path, probabilities: np.ndarray
):
    affine = make_affine("RAS", SPACING, (11, -8, 14))
    data, other, turn = turned(make_head().astype(np.float32), affine, order, signs)
    result = Segmenter(model, device="cpu").segment(make_volume(data, other))
    expected = probabilities.argmax(0)
    assert len(np.unique(expected)) == 4
    assert (result.labels == turn(expected)).mean() > 0.999


def test_probabilities_are_those_of_monais_inference(model: Path, probabilities: np.ndarray, tmp_path: Path):
    volume = make_volume(make_head().astype(np.float32), make_affine("RAS", SPACING))
    Segmenter(model, device="cpu").segment(volume, keep_scores=True).save_probabilities(tmp_path / "p.nii.gz")
    saved = np.moveaxis(load(tmp_path / "p.nii.gz").get_fdata(), 3, 0)
    np.testing.assert_allclose(saved, probabilities, atol=0.51 / 255)


def test_settings_say_how_windows_lie(tmp_path: Path):
    folder = make_model(tmp_path, SkipUnet(4, widths=(4, 8)), mirror_axes=[0, 2], overlap=0.6)
    assert Segmenter(folder, device="cpu").settings == {
        "patch": [16, 16, 16],
        "overlap": 0.6,
        "mirror_axes": [0, 2],
        "spacing_mm": list(SPACING),
        "fast": False,
        "precision": "float32",
    }
    fast = Segmenter(folder, device="cpu", fast=True).settings
    assert (fast["overlap"], fast["mirror_axes"], fast["fast"]) == (FAST_OVERLAP, [], True)


def test_progress_counts_every_pass(tmp_path: Path):
    folder = make_model(tmp_path, SkipUnet(4, widths=(4, 8)), mirror_axes=[1], overlap=0.0)
    calls: list[tuple[int, int]] = []
    volume = make_volume(make_head((20, 16, 40)), make_affine("RAS", SPACING))
    Segmenter(folder, device="cpu").segment(volume, progress=lambda done, count: calls.append((done, count)))
    assert calls == [(done, 12) for done in range(1, 13)]


def test_views_are_taken_with_a_warning(model: Path):
    segmenter = Segmenter(model, device="cpu", views=["axial"])
    result = segmenter.segment(make_volume(make_head(), make_affine("RAS", SPACING)))
    assert [warning for warning in result.warnings if "views do not matter" in warning] == result.warnings


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (SkipUnet(5, widths=(4, 8)), r"gives .1, 5, 16, 16, 16., but its card names classes .1, 4, 16"),
        (SkipUnet(4, 2, widths=(4, 8)), "does not take what its card names"),
        (SkipUnet(4, dimensions=2, widths=(4, 8)), "does not take what its card names"),
    ],
)
def test_a_network_that_is_not_what_its_card_says_is_refused(network: nn.Module, message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message) as caught:
        Segmenter(make_model(tmp_path, network), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_network_of_monai_segments(tmp_path: Path):
    torch.manual_seed(0)
    folder = make_model(tmp_path, MonaiNetwork("BasicUNet", 4, features=[4, 4, 8, 8, 8, 4]), patch=[32, 32, 32])
    result = Segmenter(folder, device="cpu").segment(make_volume(make_head(), make_affine("RAS", SPACING)))
    assert result.labels.shape == make_head().shape
