"""`geovision classify` as a user meets it."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from geovision.classification import SatelliteClassifier
from geovision.scenes import open_for_model
from shared_backbones import weights
from shared_backbones.classification.outliers import Outliers
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene

MARKER = "DOE-JOHN42"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model with a score of outliers."""
    folder = small_models.classifier(tmp_path_factory.mktemp("m") / "m")
    trained = weights.load(folder)
    calibration = {"temperature": 0.5, "coverage": 0.9, "quantile": 0.7, "symmetries": False}
    weights.save(folder, trained.module, {**trained.card, "calibration": calibration})
    random = np.random.default_rng(0)
    Outliers.fit(random.normal(size=(40, 16))).with_threshold(random.normal(size=(40, 16))).save(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(3):
        values = ramp(3, 16 + number, 16) + np.uint16(50 * number)
        values[:, 0, 0] = 0
        write_scene(tmp_path / "images" / f"{MARKER}_{number}.tif", values, small_models.BANDS, nodata=0)
    return tmp_path / "images"


def classify(*arguments: object) -> int:
    return run(app, ["classify", *map(str, arguments), "--device", "cpu", "--sensor", "sentinel2_l1c"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_images_becomes_a_table_and_a_side_car(images: Path, model: Path, tmp_path: Path, capsys):
    output = tmp_path / "out.csv"
    assert classify("-i", images, "-o", output, "--model", model) == 0
    rows, side = rows_of(output), json.loads((tmp_path / "out.json").read_text())
    assert [row["id"] for row in rows] == [f"{MARKER}_{number}.tif" for number in range(3)]
    classifier = SatelliteClassifier(model, device="cpu")
    for row, path in zip(rows, sorted(images.iterdir()), strict=True):
        with open_for_model(path, classifier.contract, sensor="sentinel2_l1c") as scene:
            prediction = classifier.predict(classifier.prepare(classifier.read(scene)))
        found = [float(row[f"p_{name}"]) for name in classifier.names]
        np.testing.assert_allclose(found, prediction.probabilities[0], atol=1e-5)
        assert row["class"] == classifier.names[prediction.labels[0]]
        assert prediction.sets is not None and int(row["set_size"]) == prediction.sets[0].sum()
        assert prediction.outlier_score is not None
        assert float(row["outlier_score"]) == pytest.approx(prediction.outlier_score[0], rel=1e-4)
    assert side["classified"] == 3 and sum(row["count"] for row in side["classes"]) == 3
    assert side["settings"]["sensor"] == "sentinel2_l1c" and side["settings"]["temperature"] == 0.5
    assert MARKER not in (tmp_path / "out.json").read_text() and "3 of 3 classified" in capsys.readouterr().out


def test_one_file_in_parquet_with_a_picture_of_what_speaks_for_its_class(images: Path, model: Path, tmp_path: Path):
    path = next(images.iterdir())
    assert classify("-i", path, "-o", tmp_path / "o.parquet", "--model", model, "--grad-cam", tmp_path / "maps") == 0
    table = parquet.read_table(tmp_path / "o.parquet")
    assert table["id"].to_pylist() == [path.name] and b"model_sha256" in table.schema.metadata
    (picture,) = (tmp_path / "maps").iterdir()
    with Image.open(picture) as image:
        assert image.size == (16, 16) and image.mode == "RGB"


def test_shards_are_parts_of_the_whole_table(images: Path, model: Path, tmp_path: Path):
    whole = tmp_path / "all.csv"
    assert classify("-i", images, "-o", whole, "--model", model) == 0
    for shard in ("1/2", "2/2"):
        assert classify("-i", images, "-o", tmp_path / "part.csv", "--model", model, "--shard", shard) == 0
    parts = [row for part in (1, 2) for row in rows_of(tmp_path / f"part.{part}-of-2.csv")]
    assert parts == rows_of(whole)


def test_what_cannot_be_read_is_one_line_or_is_left_out(images: Path, model: Path, tmp_path: Path, capsys):
    (images / "a.tif").write_bytes(b"II*\0damaged")
    output = tmp_path / "out.csv"
    assert classify("-i", images, "-o", output, "--model", model) == 2
    assert "a.tif: cannot be read" in capsys.readouterr().err and not output.exists()
    assert classify("-i", images, "-o", output, "--model", model, "--skip-unreadable") == 5
    assert len(rows_of(output)) == 3 and json.loads((tmp_path / "out.json").read_text())["failed"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"-o": "out.txt"}, "ends in '.txt'; expected .csv or .parquet"),
        ({"-o": "nowhere/out.csv"}, "no such folder"),
        ({"-i": "absent"}, "no such file or folder"),
        ({"--model": "nowhere"}, "model nowhere: neither a bundled model"),
        ({"--sensor": "sentinel2_l2a"}, "is of sensor sentinel2_l2a, the model of sentinel2_l1c"),
        ({"-o": "m/model.csv"}, "a result of that name would replace it, and it is an input"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    images: Path, tmp_path: Path, capsys, monkeypatch, changes: dict, message: str
):
    monkeypatch.chdir(tmp_path)
    small_models.classifier(tmp_path / "m")
    given = {"-i": images, "-o": "out.csv", "--model": "m", "--sensor": "sentinel2_l1c", **changes}
    before = sorted(tmp_path.rglob("*"))
    assert run(app, ["classify", *(str(part) for pair in given.items() for part in pair)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
