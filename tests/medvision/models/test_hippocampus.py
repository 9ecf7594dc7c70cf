"""The bundled model of the hippocampus: its licence, its size, and real crops that it never saw."""

from pathlib import Path

import numpy as np

from medvision.metrics.overlap import dice
from medvision.models.catalogue import find_model, model_card
from medvision.segmentation import Segmenter
from medvision.volumes.files import read_volume


def test_the_card_and_the_folder_carry_the_licence_of_the_data():
    card = model_card("hippocampus")
    assert card["license"] == "CC-BY-SA-4.0" and "CC BY-SA 4.0" in (find_model("hippocampus") / "LICENSE").read_text()
    assert (find_model("hippocampus") / "model.safetensors").stat().st_size <= 8e6
    assert "not whole heads" in " ".join(card["limits"])


def test_crops_of_the_test_part_are_segmented(data_root: Path):
    folder = data_root / "medical" / "msd_hippocampus"
    scans = sorted(folder.glob("imagesTr/*.nii.gz"), key=lambda path: int(path.name.split("_")[1].partition(".")[0]))
    segmenter, reached = Segmenter("hippocampus"), []
    for scan in scans[-8:]:  # ids above 220
        labels = segmenter.segment(scan).labels
        truth = np.asarray(read_volume(folder / "labelsTr" / scan.name).data)
        reached.append([dice(labels == part, truth == part) for part in (1, 2)])
    assert np.mean(reached) > 0.86
