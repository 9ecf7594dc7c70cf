"""The verb `enhance`: all bands at the fine resolution, and a side-car that says how consistent they are."""

import json
from pathlib import Path

import pytest
import rasterio

from apps.cli.geovision import program
from apps.cli.shared.program import run
from tests.geovision.rasters import write_scene
from tests.geovision.test_sharpening import BANDS, model, values_of


def test_writes_a_scene_and_says_how_consistent_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model(tmp_path / "model")
    scene = write_scene(tmp_path / "scene.tif", values_of(70, 80), BANDS)
    options = ["enhance", "-i", scene, "-o", tmp_path / "out.tif", "--model", folder, "--sensor", "sentinel2_l1c"]
    assert run(program.app, [*map(str, options), "--output-bands", "B5,B11", "--device", "cpu"]) == 0
    assert "degraded again" in capsys.readouterr().out
    with rasterio.open(tmp_path / "out.tif") as written:
        assert written.descriptions == ("B5", "B11") and written.shape == (70, 80)
    sidecar = json.loads((tmp_path / "out.json").read_text())
    assert [row["name"] for row in sidecar["consistency"]] == ["B5", "B11"]
    assert all(row["rms"] <= 0.005 and row["worst"] <= 0.02 for row in sidecar["consistency"])
    assert sidecar["tile"] == {"size": 64, "overlap": 16} and sidecar["warnings"] == []
    assert str(tmp_path) not in (tmp_path / "out.json").read_text()
    page = (tmp_path / "out_report.html").read_text()
    assert sidecar["case"] in page and "degraded again" in page and "scene.tif" not in page
    options[4] = tmp_path / "alone.tif"
    assert run(program.app, [*map(str, options), "--no-report", "--device", "cpu"]) == 0
    assert sorted(path.name for path in tmp_path.glob("alone*")) == ["alone.json", "alone.tif"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["-o", "out.png"], "expected .tif"),
        (["-o", "none/out.tif"], "no such folder"),
        (["--output-bands", "B9"], "expected different ones"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = model(tmp_path / "model")
    scene = write_scene(tmp_path / "scene.tif", values_of(64, 64), BANDS)
    options = ["enhance", "-i", scene, "-o", "out.tif", "--model", folder, "--sensor", "sentinel2_l1c", *changes]
    assert run(program.app, [str(option) for option in options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out.*"))
