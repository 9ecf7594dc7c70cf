"""`doctor`: what is installed and what is missing, and no password."""

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from apps.cli.geovision.program import app as geovision
from apps.cli.medvision.program import app as medvision
from apps.cli.shared import doctor_command
from apps.cli.shared.program import run

ROOT = Path(__file__).parents[3]


def test_versions_extras_models_and_places_are_said(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@host.example/mlflow")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run(geovision, ["doctor", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["extras"]["geo"]["missing"] == [] and known["models"] == ["satmae-mini", "surface-types"]
    assert known["tracking"] == "https://host.example/mlflow" and known["cache"]["folder"].startswith(str(tmp_path))
    assert run(medvision, ["doctor"]) == 0
    lines = capsys.readouterr().out
    assert "brain-structures" in lines and "secret" not in lines and "device     cpu" in lines


def test_a_missing_package_comes_with_the_way_to_get_it(capsys, monkeypatch):
    def absent(name: str) -> str:
        if name == "rasterio":
            raise metadata.PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(metadata, "version", absent)
    assert run(geovision, ["doctor"]) == 0
    assert 'geo: lacks rasterio: pip install "domain-vision[geo]"' in capsys.readouterr().out


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_is_that_of_the_checkout():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    if (ROOT / ".git").is_dir():
        assert doctor_command.commit() == head.stdout[:12]
