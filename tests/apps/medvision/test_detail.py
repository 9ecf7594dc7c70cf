"""`--detail full`: parts and sides in label maps, tables and label tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel import nifti1

from shared_backbones import weights
from shared_backbones.networks.skip_unet import SkipUnet
from tests.medvision.test_parts import card


@pytest.fixture(scope="module")
def parts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = SkipUnet(7, widths=(4, 8, 8))
    with torch.no_grad():
        for head in network.heads.parameters():
            head.mul_(20)
    folder = tmp_path_factory.mktemp("parts")
    weights.save(folder, network, {**card(normalisation="zscore", any_size=True, spacing_mm=4.0), "name": "parts"})
    return folder


def test_parts_with_their_sides_are_written(medvision, parts_model: Path, scan: Path, tmp_path: Path):
    command = ("segment", "-i", scan, "--model", parts_model, "--device", "cpu")
    assert medvision(*command, "-o", tmp_path / "full", "--detail", "full").code == 0
    assert medvision(*command, "-o", tmp_path / "plain").code == 0
    labels = np.unique(np.asarray(nifti1.load(tmp_path / "full/scan_seg.nii.gz").dataobj))
    plain = np.unique(np.asarray(nifti1.load(tmp_path / "plain/scan_seg.nii.gz").dataobj))
    assert set(labels) <= {0, 2, 3, 4, 10, 14, 41, 42, 43, 49} and len(labels) > len(plain) and max(plain) <= 3
    side = json.loads((tmp_path / "full/scan_seg.json").read_text())
    assert side["settings"]["detail"] == "full"
    assert [row["name"] for row in side["structures"]][:2] == ["left_white_matter", "left_cortex"]
    (row,) = csv.DictReader((tmp_path / "full/scan_volumes.csv").read_text().splitlines())
    assert "right_thalamus_ml" in row and "thalamus_left_ml" not in row
    (row,) = csv.DictReader((tmp_path / "plain/scan_volumes.csv").read_text().splitlines())
    assert "white_matter_left_ml" in row and "white_matter_right_ml" in row


def test_a_finished_result_of_another_detail_is_made_anew(medvision, parts_model: Path, scan: Path, tmp_path: Path):
    command = ("segment", "-i", scan.parent, "--model", parts_model, "--device", "cpu", "-o", tmp_path / "out")
    assert medvision(*command).code == 0
    assert "skipped" in medvision(*command, "--resume").out
    assert "skipped" not in medvision(*command, "--resume", "--detail", "full").out


def test_labels_are_kept_by_the_names_of_parts(medvision, parts_model: Path, scan: Path, tmp_path: Path):
    command = ("segment", "-i", scan, "--model", parts_model, "--device", "cpu", "-o", tmp_path)
    assert medvision(*command, "--detail", "full", "--labels", "left_cortex,42").code == 0
    labels = np.unique(np.asarray(nifti1.load(tmp_path / "scan_seg.nii.gz").dataobj))
    assert set(labels) <= {0, 3, 42}
    refused = medvision(*command, "--labels", "left_cortex")
    assert refused.code == 2 and "expected some of 1 white_matter" in refused.err


def test_label_tables_have_the_parts(medvision, parts_model: Path, tmp_path: Path):
    done = medvision("models", "export-labels", parts_model, "--detail", "full", "--format", "bids", "-o", tmp_path)
    assert done.code == 0
    assert "49\tright thalamus\tright_thalamus\t#00760e" in (tmp_path / "parts_full_dseg.tsv").read_text()


def test_a_model_without_parts_says_so(medvision, model: Path, scan: Path, tmp_path: Path):
    refused = medvision("segment", "-i", scan, "--model", model, "--detail", "full", "-o", tmp_path / "out")
    assert refused.code == 2 and "tells no parts apart" in refused.err and not (tmp_path / "out").exists()
