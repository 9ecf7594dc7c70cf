"""Bundles read: labels beside those of monai.bundle's own run, and what is refused."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from medvision.bundles.importing import import_bundle
from medvision.segmentation import Segmenter
from tests.medvision.bundles.bundles import Change, monai_labels, write_bundle
from tests.medvision.phantoms import make_affine
from tests.medvision.test_segmentation import make_head


def save_scan(
    path: Path, orientation: str, spacing: tuple[float, float, float], tilt: tuple[float, float, float]
) -> Path:
    data = make_head((28, 33, 24)) * 100 + 5
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), make_affine(orientation, spacing, tilt)), path)  # pyright: ignore
    return path


def set_transform(index: int, transform: dict[str, Any], section: str = "preprocessing") -> Change:
    def change(config: dict[str, Any]) -> None:
        config[section]["transforms"][index] = transform

    return change


WINDOW = {
    "_target_": "ScaleIntensityRanged", "keys": ["image"], "a_min": 20, "a_max": 200, "b_min": -1, "b_max": 1,
    "clip": True,
}  # fmt: skip


def gaussian(config: dict[str, Any]) -> None:
    config["inferer"] |= {"mode": "gaussian", "overlap": 0.25, "roi_size": "$(16, 24, 16)"}


def own_spacing(config: dict[str, Any]) -> None:
    config["preprocessing"]["transforms"][3]["pixdim"] = [0.0, 1.0, -1]


def no_spacing(config: dict[str, Any]) -> None:
    del config["preprocessing"]["transforms"][3]
    steps = config["postprocessing"]["transforms"]
    steps[0], steps[1], steps[2] = steps[0], steps[2], {**steps[1], "nearest_interp": True}


@pytest.mark.parametrize(
    ("change", "orientation", "spacing", "tilt"),
    [
        (None, "RAS", (1.0, 1.1, 1.6), (0, 0, 0)),
        (None, "LPS", (0.7, 1.9, 1.2), (12, -9, 7)),
        (gaussian, "PIR", (1.3, 1.3, 1.3), (0, 0, 0)),
        (set_transform(4, WINDOW), "SLA", (2.0, 0.8, 1.0), (5, 10, -20)),
        (set_transform(4, {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1}), "LAS", (1, 1, 3), (0, 0, 0)),
        (set_transform(4, {"_target_": "NormalizeIntensityd", "keys": "image"}), "RPI", (1.1, 1.2, 1.5), (8, 0, 0)),
        (own_spacing, "AIR", (1.4, 2.0, 1.7), (3, 3, 3)),
        (no_spacing, "LPI", (1.4, 1.2, 1.7), (10, 3, 3)),
    ],
)
def test_labels_are_those_of_the_bundles_own_run(
    change: Change | None, orientation: str, spacing: tuple, tilt: tuple, tmp_path: Path
):
    bundle = write_bundle(tmp_path / "bundle", change)
    scan = save_scan(tmp_path / "scan.nii.gz", orientation, spacing, tilt)
    expected = monai_labels(bundle, scan, tmp_path / "out")
    card = import_bundle(bundle, tmp_path / "model", license="Apache-2.0")
    assert [entry["name"] for entry in card["classes"]] == ["background", "outer", "middle", "inner"]
    result = Segmenter(tmp_path / "model", device="cpu").segment(scan)
    assert result.labels.shape == expected.shape and result.warnings == []
    assert np.bincount(expected.ravel(), minlength=4).min() > 100
    assert (result.labels == expected).mean() > 0.999


@pytest.mark.parametrize("keep", [False, True])
def test_a_binary_network_and_a_yaml_file(keep: bool, tmp_path: Path):
    def binary(config: dict[str, Any]) -> None:
        config["network_def"] |= {"out_channels": 2, "norm": "instance", "dropout": "$0.1"}
        config["network"] = "@network_def"
        config["inferer"]["roi_size"] = 16
        no_spacing(config)

    def with_component(config: dict[str, Any]) -> None:
        binary(config)
        if keep:
            step = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "connectivity": 1}
            config["postprocessing"]["transforms"].insert(3, step)

    network = {"out_channels": 2, "norm": "instance", "dropout": 0.1}
    scan = save_scan(tmp_path / "scan.nii.gz", "LSA", (1.4, 1.2, 1.7), (10, 3, 3))
    expected = monai_labels(write_bundle(tmp_path / "plain", binary, **network), scan, tmp_path / "out")
    if keep:  # MONAI's own components need scikit-image
        pieces = np.empty(expected.shape, np.int32)
        ndimage.label(expected, output=pieces)
        assert pieces.max() > 1
        expected = (pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()).astype(np.uint8)
    bundle = write_bundle(tmp_path / "bundle", with_component, suffix="yaml", **network)
    card = import_bundle(bundle, tmp_path / "model", "mine")
    assert card["name"] == "mine" and [entry["name"] for entry in card["classes"]] == ["background", "outer"]
    labels = Segmenter(tmp_path / "model", device="cpu").segment(scan).labels
    assert (labels == expected).mean() > 0.999 and 0.01 < expected.mean() < 0.99
