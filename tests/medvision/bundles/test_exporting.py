"""Bundles written: labels of monai.bundle's own run beside those of the model, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.cli.medvision import program
from apps.cli.shared.program import run
from medvision.bundles.exporting import export_bundle
from medvision.bundles.importing import import_bundle
from medvision.models.monai_network import MonaiNetwork
from medvision.segmentation import Segmenter
from shared_backbones import weights
from shared_backbones.errors import InputError
from shared_backbones.networks.skip_unet import SkipUnet
from tests.medvision.bundles.bundles import NETWORK, make_network, monai_labels, write_bundle
from tests.medvision.bundles.test_importing import save_scan
from tests.medvision.test_parts import card as parts_card
from tests.medvision.test_segmentation import make_card

EXACT = {
    "spacing_mm": [1.2, None, 1.5], "patch": [16, 16, 16], "overlap": 0.25, "normalisation": "zscore",
    "smallest_piece": 0, "resampling": "monai", "crop": False,
}  # fmt: skip


def write_model(folder: Path, **changes: Any) -> Path:
    options = {k: v for k, v in NETWORK.items() if k not in ("_target_", "spatial_dims", "in_channels", "out_channels")}
    network = MonaiNetwork("UNet", 4, **{**options, "act": ["LEAKYRELU", {"negative_slope": 0.1}]})
    network.network.load_state_dict(make_network().state_dict())
    weights.save(folder, network, make_card(**{**EXACT, **changes}))
    return folder


def write_parts_model(folder: Path) -> None:
    weights.save(folder, MonaiNetwork("BasicUNet", 7, features=[4, 4, 8, 8, 8, 4]), parts_card(**EXACT))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spacing_mm": [None] * 3, "resampling": "antialiased", "normalisation": {"name": "zscore", "nonzero": True}},
        {"normalisation": {"name": "window", "low": 20, "high": 180, "clip": False}, "window_weights": "constant"},
        {"normalisation": {"name": "minmax", "out_low": -2, "out_high": 2}},
    ],
)
def test_monai_runs_the_bundle_with_the_models_labels(changes: dict[str, Any], tmp_path: Path):
    model = write_model(tmp_path / "model", **changes)
    scan = save_scan(tmp_path / "scan.nii.gz", "LPS", (1.3, 1.1, 1.8), (4, 9, -6))
    own = Segmenter(model, device="cpu").segment(scan).labels
    assert export_bundle(model, tmp_path / "bundle") == []
    labels = monai_labels(tmp_path / "bundle", scan, tmp_path / "out")
    assert len(np.unique(own)) == 4 and (own == labels).mean() > 0.999
    card = import_bundle(tmp_path / "bundle", tmp_path / "again", "again")
    back = Segmenter(tmp_path / "again", device="cpu").segment(scan).labels
    assert (own == back).mean() > 0.999
    assert [entry["name"] for entry in card["classes"]] == [f"band {k}" for k in range(4)]


def test_a_bundle_comes_back_as_it_was(tmp_path: Path):
    first = import_bundle(write_bundle(tmp_path / "bundle"), tmp_path / "model")
    export_bundle(tmp_path / "model", tmp_path / "bundle again")
    second = import_bundle(tmp_path / "bundle again", tmp_path / "model again", "model")
    differing = {name for name in first if first[name] != second[name]}
    assert differing <= {"training", "version", "description", "weights_sha256"} and first["input"] == second["input"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"resampling": "antialiased"}, "antialiasing"),
        ({"mirror_axes": [0]}, "mirrored windows"),
        ({"smallest_piece": 0.1}, "pieces below 0.1"),
        ({"normalisation": {"name": "window", "low": 0, "high": 1}, "crop": True}, "box of the scan's content"),
    ],
)
def test_what_a_bundle_cannot_say_needs_consent(
    changes: dict[str, Any], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = write_model(tmp_path / "model", **changes)
    arguments = ["export", "--bundle", str(model), "-o", str(tmp_path / "bundle")]
    assert run(program.app, arguments) == 2
    assert part in capsys.readouterr().err and not (tmp_path / "bundle").exists()
    assert run(program.app, [*arguments, "--approximate"]) == 0
    assert part in capsys.readouterr().err
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert part in " ".join(metadata["differences"])


def test_the_largest_component_alone(tmp_path: Path):
    model = write_model(tmp_path / "model", spacing_mm=[None] * 3, smallest_piece=1)
    assert export_bundle(model, tmp_path / "bundle") == []
    assert "KeepLargestConnectedComponentd" in (tmp_path / "bundle" / "configs" / "inference.json").read_text()
    assert import_bundle(tmp_path / "bundle", tmp_path / "again")["input"]["smallest_piece"] == 1


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: write_model(folder, normalisation="rescale_intensity"), "rescale_intensity"),
        (lambda folder: weights.save(folder, SkipUnet(4, widths=(4, 8)), make_card(**EXACT)), "skip_unet"),
        (write_parts_model, "tells parts and sides apart"),
    ],
)
def test_models_that_monai_cannot_run_are_refused(make: Callable[[Path], object], part: str, tmp_path: Path):
    make(tmp_path / "model")
    with pytest.raises(InputError, match=part) as caught:
        export_bundle(tmp_path / "model", tmp_path / "bundle", approximate=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "bundle").exists()


def test_nothing_is_overwritten(tmp_path: Path):
    write_model(tmp_path / "model")
    with pytest.raises(InputError, match="already there"):
        export_bundle(tmp_path / "model", tmp_path / "model")


def test_the_command_imports_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bundle = write_bundle(tmp_path / "bundle")
    arguments = ["import", "--bundle", str(bundle), "-o", str(tmp_path / "model")]
    assert run(program.app, arguments) == 0
    assert "model, monai, " in capsys.readouterr().out
    assert run(program.app, arguments) == 2 and "already there" in capsys.readouterr().err
    assert run(program.app, [*arguments, "--architecture", "monai"]) == 2
    assert "--bundle" in capsys.readouterr().err
    assert run(program.app, ["import", "-o", str(tmp_path / "other")]) == 2
    assert "--architecture and --checkpoint, or --bundle" in capsys.readouterr().err
    assert torch.is_grad_enabled()
