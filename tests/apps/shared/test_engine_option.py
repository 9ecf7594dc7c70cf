"""`--engine openvino` in every program: the results of torch, and a side-car that says what ran."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import rasterio
import typer
from PIL import Image

from apps.cli.astrovision.program import app as astrovision
from apps.cli.geovision.program import app as geovision
from apps.cli.medvision.program import app as medvision
from apps.cli.shared.program import run
from shared_backbones import engines
from tests.apps.conftest import SHAPE
from tests.geovision import small_models as scene_models
from tests.geovision.rasters import write_scene
from tests.geovision.test_mapping import scene_values
from tests.medvision import small_models
from tests.medvision.phantoms import load, make_affine, make_image, write_scan


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engines, "_INPUTS", 1)  # so that the engine itself answers all but the first input


def both(app: typer.Typer, output: Path, *arguments: str | Path) -> tuple[Path, Path]:
    """Results of torch and of OpenVINO; `output` is a name that both folders get."""
    made = []
    for engine in ("torch", "openvino"):
        target = output.parent / engine / output.name
        target.parent.mkdir(exist_ok=True)
        command = [*map(str, arguments), "-o", str(target), "--engine", engine, "--threads", "1"]
        assert run(app, command) == 0, engine
        made.append(target)
    return made[0], made[1]


def check(sidecar: dict, *, warnings: int = 0) -> None:
    assert sidecar["engine"].startswith("openvino 20") and sidecar["engine_agreement"] == 1.0
    assert len(sidecar["warnings"]) == warnings


def columns(path: Path, *names: str) -> np.ndarray:
    table = pyarrow.parquet.read_table(path)
    return np.stack([np.asarray(table[name].to_pylist(), float) for name in names])


def test_segment(tmp_path: Path, model: Path):
    scan = write_scan(tmp_path / "scan.nii.gz", make_image(SHAPE), make_affine(spacing=(4, 4, 4)))
    torch, openvino = both(medvision, tmp_path / "results", "segment", "-i", scan, "--model", model)
    labels = [np.asarray(load(folder / "scan_seg.nii.gz").dataobj) for folder in (torch, openvino)]
    assert np.mean(labels[0] == labels[1]) >= 0.999
    sidecar = json.loads((openvino / "scan_seg.json").read_text())
    assert sidecar["engine"].startswith("openvino 20") and sidecar["settings"]["engine"] == "openvino"
    assert "engine" not in json.loads((torch / "scan_seg.json").read_text())["settings"]


def test_results_of_another_engine_are_not_gone_on_with(tmp_path: Path, model: Path, capsys):
    (tmp_path / "scans").mkdir()
    write_scan(tmp_path / "scans/scan.nii.gz", make_image(SHAPE), make_affine(spacing=(4, 4, 4)))
    command = ["segment", "-i", str(tmp_path / "scans"), "-o", str(tmp_path / "results"), "--model", str(model)]
    assert run(medvision, command) == 0
    assert run(medvision, [*command, "--resume", "--engine", "openvino", "--overwrite"]) == 0
    sidecar = json.loads((tmp_path / "results/scan_seg.json").read_text())
    assert sidecar["engine"].startswith("openvino 20")


def test_classify(tmp_path: Path):
    (tmp_path / "images").mkdir()
    for number, image in enumerate(small_models.radiographs(5, 50)):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    model = small_models.classifier(tmp_path / "m", outliers=True)
    made = both(medvision, tmp_path / "t.parquet", "classify", "-i", tmp_path / "images", "--model", model)
    names = [name for name in pyarrow.parquet.read_table(made[0]).column_names if name.startswith("p_")]
    expected, actual = (columns(path, *names, "outlier_score") for path in made)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    check(json.loads(made[1].with_suffix(".json").read_text()))


def test_map_and_embed(tmp_path: Path):
    scene = write_scene(tmp_path / "s.tif", scene_values(96, 80), scene_models.BANDS)
    model = scene_models.mapper(tmp_path / "m")
    made = both(geovision, tmp_path / "map.tif", "map", "-i", scene, "--model", model, "--sensor", "sentinel2_l1c")
    maps = [rasterio.open(path).read(1) for path in made]
    assert np.mean(maps[0] == maps[1]) >= 0.999 and len(np.unique(maps[0])) > 1
    check(json.loads(made[1].with_suffix(".json").read_text()))
    model = scene_models.classifier(tmp_path / "c")
    made = both(geovision, tmp_path / "e.parquet", "embed", "-i", scene, "--model", model, "--sensor", "sentinel2_l1c")
    expected, actual = (np.stack(pyarrow.parquet.read_table(path)["embedding"].to_pylist()) for path in made)
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("app", [medvision, geovision, astrovision])
def test_an_engine_that_does_not_suit_is_one_line(app: typer.Typer, tmp_path: Path, capsys, monkeypatch):
    verb = {"medvision": "classify", "geovision": "map", "astrovision": "classify"}[str(app.info.name)]
    assert run(app, [verb, "-i", str(tmp_path), "-o", str(tmp_path / "o"), "--engine", "onnx"]) == 2
    assert "--engine" in capsys.readouterr().err
