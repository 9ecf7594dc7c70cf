"""The bundled model does what its card says, on real scans that it never saw."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medvision.datasets.brain_labels import STRUCTURES
from medvision.metrics.overlap import dice
from medvision.models.catalogue import find_model, model_card
from medvision.segmentation import Segmenter
from medvision.volumes.files import read_volume
from tests.brain_references import MANUAL, SCORED, manual_scan, voxelmorph_scan, without_unscored


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("brain-structures")


def test_the_bundled_weights_stay_small():
    assert (find_model("brain-structures") / "model.safetensors").stat().st_size <= 12e6


def test_the_card_names_the_nine_structures_and_what_the_model_cannot_do():
    card = model_card("brain-structures")
    assert tuple(entry["name"] for entry in card["classes"]) == STRUCTURES
    assert len({tuple(entry["color"]) for entry in card["classes"]}) == 10
    assert card["license"] == "Apache-2.0"
    assert card["limits"] and card["training"]["data"] and card["metrics"]["dice"]


@pytest.mark.parametrize("name", ["vxm_test_scan", *MANUAL])
def test_dice_on_a_real_scan(data_root: Path, segmenter: Segmenter, name: str):
    volume, reference = voxelmorph_scan(data_root) if name == "vxm_test_scan" else manual_scan(data_root, name)
    labels, truth = without_unscored(segmenter.segment(volume).labels, reference)
    scores = {number: dice(labels == number, truth == number) or 0.0 for number in SCORED}
    assert np.mean(list(scores.values())) >= 0.81
    assert scores[1] >= 0.87 and scores[4] >= 0.7


def test_no_brain_outside_the_skull(data_root: Path, segmenter: Segmenter):
    folder = data_root / "medical/brain_t1/colin27"
    labels = segmenter.segment(folder / "ch2.nii.gz").labels
    brain = ndimage.binary_dilation(read_volume(folder / "ch2bet.nii.gz").data > 0, iterations=2)
    assert np.count_nonzero(labels) > 1e6
    assert np.count_nonzero((labels > 0) & np.logical_not(brain)) <= 0.02 * np.count_nonzero(labels)
