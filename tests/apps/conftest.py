"""A model so small that a run takes a moment, and the program to run it with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import pipelines.report.segmentation
from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from medvision.models.hbformer import HBFormer
from shared_backbones import weights
from tests.conftest import ROOT
from tests.medvision.phantoms import make_affine, make_image, write_scan

RECIPE = ROOT / "pipelines/recipes/medvision/brain_structures.yaml"
SHAPE = (24, 28, 20)


@dataclass
class Outcome:
    """What a run of the program left behind on the terminal."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        return self.err[:-1]


def write_model(folder: Path, seed: int) -> Path:
    """A model with random weights that finds structures 1 to 7 everywhere in a phantom, and 8 and 9 nowhere."""
    card = yaml.safe_load(RECIPE.read_text())["card"]
    card["input"] |= {"spacing_mm": 4.0, "slices": [-1, 0, 1], "views": ["axial"], "smallest_slice": 32}
    torch.manual_seed(seed)
    model = HBFormer.compact(
        num_classes=10, in_chans=3, feature_size=8, depths=(1, 1, 1, 1), head_dim=8, window_size=4, img_size=32
    ).eval()
    image = torch.from_numpy(make_image((32, 32, 12)).astype("float32") / 200)
    classifier: Any = model.head.classifier
    with torch.no_grad():
        logits = model(torch.stack([image[..., start : start + 3] for start in (0, 3, 6, 9)]).permute(0, 3, 1, 2))
        scale = 3 / logits.std((0, 2, 3))
        classifier.weight *= scale[:, None, None, None]
        classifier.bias.copy_((classifier.bias - logits.mean((0, 2, 3))) * scale)
        classifier.bias[8:] = -1e4
    weights.save(folder, model, card)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("other"), 1)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressing full-sized pictures takes ten times as long as all the rest of a run."""
    monkeypatch.setattr(pipelines.report.segmentation, "_LONGEST_SIDE", 24)


@pytest.fixture
def medvision(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the program in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def segment(medvision: Callable[..., Outcome], model: Path) -> Callable[..., Outcome]:
    """Run `medvision segment` with the small model on the CPU; a later `--model` or `--device` goes over these."""

    def call(scan: object, *arguments: object) -> Outcome:
        return medvision("segment", "--model", model, "--device", "cpu", "--input", scan, *arguments)

    return call


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A phantom alone in its folder, on an oblique grid with axes that run to the left, the back and the feet."""
    folder = tmp_path / "scans"
    folder.mkdir()
    affine = make_affine("LPI", (4, 4, 5), (5, -8, 3))
    return write_scan(folder / "scan.nii.gz", make_image(SHAPE), affine)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Bytes of every file below a folder, hidden ones too; None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
