"""`astrovision robustness` as a user meets it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import apps.cli.shared.measured_images
from apps.cli.astrovision.program import app
from apps.cli.shared.program import run
from astrovision.classification import GalaxyClassifier
from astrovision.corruptions import CORRUPTIONS, corrupt
from tests.astrovision import small_models


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps.cli.shared.measured_images, "RESAMPLES", 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("m") / "m")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("d")
    for label, name in enumerate(small_models.NAMES):
        (root / name).mkdir()
        for number, image in enumerate(small_models.galaxies(2, 70 + 10 * label, seed=label)):
            Image.fromarray(image.transpose(1, 2, 0)).save(root / name / f"DOE-JOHN42_{number}.png")
    return root


def measure(data: Path, model: Path, output: Path, *arguments: object) -> int:
    given = ("--data", data, "--model", model, "-o", output, "--device", "cpu", *arguments)
    return run(app, ["robustness", *map(str, given)])


def test_images_of_any_size_are_measured_as_the_network_sees_them(data: Path, model: Path, tmp_path: Path):
    output = tmp_path / "out"
    assert measure(data, model, output, "--only", "sky_noise", "--seed", 2) == 0
    content = json.loads((output / "robustness.json").read_text())
    assert content["images"] == 8 and len(content["cells"]) == 5 and content["recalls"]["classes"] == small_models.NAMES
    assert "DOE-JOHN42" not in (output / "report.html").read_text() + (output / "robustness.json").read_text()
    classifier, seen, labels = GalaxyClassifier(model, device="cpu", symmetries=False), [], []
    for name in sorted(small_models.NAMES):
        for path in sorted((data / name).iterdir()):
            image = torch.from_numpy(np.array(Image.open(path)).transpose(2, 0, 1).copy())[None]
            seen.append(classifier.prepare(image)[0].numpy())
            labels.append(small_models.NAMES.index(name))
    assert content["clean"]["accuracy"] == pytest.approx(hits(classifier, seen, labels))
    assert sum(cell["accuracy"] for cell in content["cells"]) <= 5


def hits(classifier: GalaxyClassifier, images: list[np.ndarray], labels: list[int]) -> float:
    scores = classifier.predict(torch.from_numpy(np.stack(images))).probabilities
    return float((scores.argmax(1) == labels).mean())


def test_an_hdf5_file_is_measured_under_every_corruption(model: Path, tmp_path: Path):
    images = small_models.galaxies(6, 64).transpose(0, 2, 3, 1)
    with h5py.File(tmp_path / "g.h5", "w") as file:
        file["images"], file["ans"] = images, np.arange(6, dtype=np.uint8) % 4
    assert measure(tmp_path / "g.h5", model, tmp_path / "out", "--images", 3) == 0
    content = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert content["images"] == 3 and list(content["corruptions"]) == list(CORRUPTIONS)
    assert content["input"]["of_images"] == 6
    classifier = GalaxyClassifier(model, device="cpu", symmetries=False)
    rows = [0, 2, 5]
    seen = classifier.prepare(torch.from_numpy(images[rows].transpose(0, 3, 1, 2).copy())).numpy()
    for cell in content["cells"]:
        states = [
            corrupt(cell["corruption"], image, cell["severity"], seed_key=[0, row])
            for image, row in zip(seen, rows, strict=True)
        ]
        assert cell["accuracy"] == pytest.approx(hits(classifier, states, [row % 4 for row in rows]))


def test_models_of_fluxes_and_unknown_corruptions_are_refused(data: Path, model: Path, tmp_path: Path, capsys):
    fluxes = small_models.classifier(tmp_path / "f", contract=small_models.FLUXES, outliers=False)
    for given, options, message in (
        (fluxes, (), "takes fluxes of mosaics"),
        (model, ("--only", "fog"), "--only has 'fog', unknown for galaxies"),
    ):
        assert measure(data, given, tmp_path / "o", *options) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and not (tmp_path / "o").exists()
