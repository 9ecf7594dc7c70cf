"""`geovision info`, `map` and `embed` as a user meets them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from tests.conftest import ROOT
from tests.geovision import small_models
from tests.geovision.rasters import ramp, write_scene


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scenes" / "s.tif", ramp(3, 64, 80), small_models.BANDS)


def refused(capsys, *arguments: str | Path) -> str:
    assert run(app, list(map(str, arguments))) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def test_info_tells_bands_units_and_grid(scene: Path, capsys):
    assert run(app, ["info", str(scene), "--sensor", "sentinel2_l1c"]) == 0
    said = capsys.readouterr().out
    assert "sentinel2_l1c  64 x 80 pixels  10 m  EPSG:32633  100.0% valid" in said and "reflectance" in said
    assert str(scene.parent) not in said
    assert run(app, ["info", str(scene), "--sensor", "sentinel2_l1c", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [band["name"] for band in found["bands"]] == small_models.BANDS
    assert found["bands"][0]["max"] == pytest.approx(ramp(3, 64, 80)[0].max() * 1e-4)


def test_map_writes_both_rasters_and_a_side_car(scene: Path, tmp_path: Path, capsys):
    model = small_models.mapper(tmp_path / "m")
    output, shares = tmp_path / "map.tif", tmp_path / "p.tif"
    arguments = [
        "map",
        "-i",
        scene,
        "-o",
        output,
        "--model",
        model,
        "--probabilities",
        shares,
        "--sensor",
        "sentinel2_l1c",
    ]
    assert run(app, [*map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert output.exists() and shares.exists() and json.loads((tmp_path / "map.json").read_text()) == found
    assert sum(row["pixels"] for row in found["classes"]) == 64 * 80
    assert sum(row["hectares"] for row in found["classes"]) == pytest.approx(64 * 80 / 100 / 0.9996**2, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"-o": "map.png"}, "ends in .png, expected .tif"),
        ({"-o": "nowhere/map.tif"}, "no such folder"),
        ({"--probabilities": "map.tif"}, "is named for classes and for probabilities"),
        ({"--model": "nowhere"}, "model nowhere: neither a bundled model"),
        ({"-i": "absent.tif"}, "no such file or folder"),
        ({"--sensor": "sentinel2_l2a"}, "is of sensor sentinel2_l2a, the model of sentinel2_l1c"),
        ({"--overlap": "0.95"}, "Invalid value"),
    ],
)
def test_what_cannot_be_mapped_is_one_line(
    scene: Path, tmp_path: Path, capsys, monkeypatch, changes: dict, message: str
):
    monkeypatch.chdir(tmp_path)
    small_models.mapper(tmp_path / "m")
    given = {"-i": scene, "-o": "map.tif", "--model": "m", "--sensor": "sentinel2_l1c", **changes}
    assert message in refused(capsys, "map", *(part for pair in given.items() for part in pair))
    assert {path.name for path in tmp_path.iterdir()} == {"scenes", "m"}


def test_a_scene_without_a_crs_is_asked_for_one(tmp_path: Path, capsys):
    path = write_scene(tmp_path / "s.tif", ramp(3, 64, 80), small_models.BANDS, crs=None)
    model = small_models.mapper(tmp_path / "m")
    arguments = ["map", "-i", path, "-o", tmp_path / "o.tif", "--model", model, "--sensor", "sentinel2_l1c"]
    assert "give it with --crs EPSG:CODE" in refused(capsys, *arguments)
    assert run(app, [*map(str, arguments), "--crs", "EPSG:32633"]) == 0


def test_a_folder_is_embedded_into_one_table(scene: Path, tmp_path: Path, capsys):
    write_scene(scene.parent / "t.tif", ramp(3, 40, 40), small_models.BANDS, crs="EPSG:32634")
    (scene.parent / "notes.txt").write_text("no scene")
    model = small_models.classifier(tmp_path / "m")
    output = tmp_path / "e.npz"
    arguments = ["embed", "-i", scene.parent, "-o", output, "--model", model, "--sensor", "sentinel2_l1c"]
    assert run(app, list(map(str, arguments))) == 0
    arrays = np.load(output)
    assert sorted(set(arrays["scene"])) == ["s.tif", "t.tif"] and len(arrays["embedding"]) == 20 + 9
    (scene.parent / "u.tif").write_bytes(b"II*\0damaged")
    capsys.readouterr()
    assert "u.tif: cannot be read" in refused(capsys, *arguments)
    assert run(app, [*map(str, arguments), "--skip-unreadable"]) == 5
    side = json.loads((tmp_path / "e.json").read_text())
    assert side["failed"] == 1 and side["vectors"] == 29 and "s.tif" not in (tmp_path / "e.json").read_text()


def test_info_map_and_embed_leave_the_libraries_of_training_alone(scene: Path, tmp_path: Path):
    mapper, encoder = small_models.mapper(tmp_path / "m"), small_models.autoencoder(tmp_path / "e")
    lines = [
        ["info", scene],
        ["map", "-i", scene, "-o", tmp_path / "map.tif", "--model", mapper],
        ["embed", "-i", scene, "-o", tmp_path / "e.npz", "--model", encoder],
    ]
    arguments = [[*map(str, line), "--sensor", "sentinel2_l1c"] for line in lines]
    code = (
        "import sys\nfrom apps.cli.geovision.program import app\nfrom apps.cli.shared.program import run\n"
        f"print([run(app, line) for line in {arguments!r}])\n"
        "heavy = {'torchgeo', 'kornia', 'lightly', 'lightning', 'mlflow', 'pandas'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()[-2:]] == ["[0, 0, 0]", "loaded:"], (
        done.stdout + done.stderr
    )
