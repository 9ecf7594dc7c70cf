"""The bundled encoder: small, the default of `embed`, honest about itself, and a start for fine-tuning."""

import json
from pathlib import Path

import geopandas
import numpy as np
import pytest

from apps.cli.geovision.program import app
from apps.cli.shared.program import run
from shared_backbones import weights
from shared_backbones.catalogue import Catalogue
from tests.geovision.rasters import write_scene

NAME = "satmae-mini"
BANDS = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"]


def scene(path: Path, bands: list[str], side: int = 64) -> Path:
    values = np.random.default_rng(0).integers(300, 4000, (len(bands), side, side)).astype(np.uint16)
    return write_scene(path, values, bands)


def test_it_is_an_encoder_alone_and_says_first_how_little_it_can():
    folder = Catalogue("geovision").find_model(NAME)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8e6
    trained = weights.load(folder)
    assert not any("decoder" in name for name in trained.module.state_dict())
    limits = trained.card["limits"]
    assert "one place" in limits[0] and "no better than the means of the bands" in limits[1]


@pytest.mark.parametrize(("options", "rows"), [([], 4), (["--window", "4"], 256), (["--window", "16"], 16)])
def test_scenes_are_embedded_without_naming_a_model(tmp_path: Path, capsys, options: list[str], rows: int):
    path = scene(tmp_path / "s.tif", BANDS)
    assert run(app, ["embed", "-i", str(path), "-o", str(tmp_path / "e.parquet"), *options]) == 0
    table = geopandas.read_parquet(tmp_path / "e.parquet")
    side = json.loads((tmp_path / "e.json").read_text())
    assert len(table) == rows and len(table.embedding[0]) == 192 and side["model"]["name"] == NAME
    assert side["settings"]["window"] == table.height[0] == 64 // rows**0.5
    apart = np.stack(table.embedding.tolist())
    assert np.isfinite(apart).all() and len(np.unique(apart, axis=0)) == rows
    assert f"{rows} vectors of 192 numbers" in capsys.readouterr().out


def test_other_scenes_are_refused_in_one_line(tmp_path: Path, capsys):
    path = scene(tmp_path / "s.tif", ["B2", "B3", "B4", "B8"])
    assert run(app, ["embed", "-i", str(path), "-o", str(tmp_path / "e.parquet"), "--sensor", "sentinel2_l1c"]) == 2
    line = capsys.readouterr().err
    assert "lacks B5" in line and line.count("\n") == 1 and not (tmp_path / "e.parquet").exists()
