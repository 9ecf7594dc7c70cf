"""`geovision robustness` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import apps.cli.shared.measured_images
from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.classification import SatelliteClassifier
from geovision.corruptions import CORRUPTIONS, corruption_of
from tests.geovision import small_models
from tests.geovision.rasters import write_scene

FILES = ["report.html", "robustness.csv", "robustness.json", "robustness.svg", "robustness_strip.png"]
MARKER = "DOE-JOHN42"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps.cli.shared.measured_images, "RESAMPLES", 40)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("m") / "m")


def values(label: int, number: int) -> np.ndarray:
    random = np.random.default_rng(10 * label + number)
    return (1000 + 600 * label + random.integers(0, 400, (3, 16, 16))).astype(np.uint16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("d")
    for label in range(3):
        for number in range(3):
            path = root / f"class {label}" / f"{MARKER}_{label}{number}.tif"
            write_scene(path, values(label, number), small_models.BANDS)
    return root


def measure(data: Path, model: Path, output: Path, *arguments: object) -> int:
    given = ("--data", data, "--model", model, "-o", output, "--device", "cpu", *arguments)
    return run(app, ["robustness", *map(str, given)])


def test_a_folder_of_results_tells_what_corruption_costs(data: Path, model: Path, tmp_path: Path, capsys):
    output = tmp_path / "out"
    assert measure(data, model, output, "--only", "haze,missing_pixels", "--seed", 3) == 0
    assert sorted(path.name for path in output.iterdir()) == FILES
    content = json.loads((output / "robustness.json").read_text())
    assert content["images"] == 9 and len(content["cells"]) == 10 and set(content["families"]) == {"atmosphere", "data"}
    assert "10 cells in" in capsys.readouterr().out
    assert all(MARKER not in path.read_text() for path in output.iterdir() if path.suffix != ".png")
    images = np.stack([values(label, number) for label in range(3) for number in range(3)]).astype(np.float32)
    order = sorted(range(9), key=lambda row: f"class {row // 3}/{MARKER}_{row // 3}{row % 3}.tif")
    corrupted = corruption_of(images, "sentinel2_l1c", small_models.BANDS, 3)
    classifier = SatelliteClassifier(model, device="cpu")
    for cell in content["cells"]:
        states = np.stack([corrupted(cell["corruption"], images[row], cell["severity"], row) for row in order])
        scores = classifier.predict(classifier.prepare(torch.from_numpy(states))).probabilities
        assert cell["accuracy"] == pytest.approx((scores.argmax(1) == np.arange(9) // 3).mean())


def test_a_cell_is_the_same_alone_and_an_earlier_measurement_is_a_baseline(data: Path, model: Path, tmp_path: Path):
    assert measure(data, model, tmp_path / "all", "--only", "clouds,striping") == 0
    assert measure(data, model, tmp_path / "one", "--only", "striping", "--baseline", tmp_path / "all") == 0
    every, alone = (json.loads((tmp_path / name / "robustness.json").read_text()) for name in ("all", "one"))
    wanted = [cell for cell in every["cells"] if cell["corruption"] == "striping"]
    assert alone["cells"] == wanted and every["paired"] is None
    assert {test["p"] for test in alone["paired"]["tests"]} == {1.0}
    other = small_models.classifier(tmp_path / "m2")
    assert (
        measure(data, other, tmp_path / "few", "--only", "striping", "--images", 4, "--baseline", tmp_path / "all") == 2
    )


def test_every_corruption_is_measured_in_a_split(data: Path, model: Path, tmp_path: Path):
    for split in ("train", "test"):
        for label in range(3):
            path = tmp_path / "data" / split / f"class {label}" / f"{split}{label}.tif"
            write_scene(path, values(label, 0), small_models.BANDS)
    assert measure(tmp_path / "data", model, tmp_path / "out", "--json") == 0
    content = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert content["images"] == 3 and content["input"]["split"] == "test"
    assert list(content["corruptions"]) == list(CORRUPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--only", "fog"], "--only has 'fog', unknown for satellite images"),
        (["--split", "test"], "--split means nothing for"),
        (["--layout", "imagenet"], "data.layout 'imagenet' is unknown"),
        (["--baseline", "nowhere"], "expected a folder that this wrote"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    data: Path, model: Path, tmp_path: Path, capsys, changes: list, message: str
):
    output = tmp_path / "out"
    assert measure(data, model, output, *changes) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not output.exists()
