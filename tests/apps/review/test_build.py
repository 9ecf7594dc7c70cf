"""Building the viewer while a wheel is made, and doing without."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from apps.review.build_hook import viewer_is_built
from tests.conftest import ROOT

LEFT_OUT = shutil.ignore_patterns("node_modules", "assets", "__pycache__", "*.safetensors")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small copy of the checkout in which the viewer was not built."""
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("apps", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=LEFT_OUT)
    for name in ("astrovision", "geovision", "medvision", "shared_backbones"):
        (tmp_path / name).mkdir()
    return tmp_path


def wheel(checkout: Path, programs: Path) -> tuple[set[str], str]:
    """Names in the wheel that is made where only `programs` are at hand, and what was said."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, env=os.environ | {"PATH": str(programs)}
    )
    assert done.returncode == 0, done.stderr
    (built,) = (checkout / "out").glob("*.whl")
    return set(zipfile.ZipFile(built).namelist()), done.stdout + done.stderr


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\n{text}\n")
    (folder / name).chmod(0o755)


def test_without_node_the_wheel_has_no_viewer_and_the_build_says_so(checkout: Path, tmp_path: Path):
    names, said = wheel(checkout, tmp_path / "nothing")
    assert "pipelines/report/viewer.py" in names and not any("assets/" in name for name in names)
    assert "no Node and npm: reports will have no interactive viewer" in said
    assert not any(name.startswith("apps/review/") for name in names)


def test_a_failing_npm_does_not_fail_the_wheel(checkout: Path, tmp_path: Path):
    program(tmp_path / "bin", "node", "")
    program(tmp_path / "bin", "npm", "raise SystemExit(7)")
    names, said = wheel(checkout, tmp_path / "bin")
    assert "pipelines/report/viewer.py" in names and "the viewer was not built" in said


def test_what_was_built_is_in_the_wheel_and_is_built_again_after_a_change(checkout: Path, tmp_path: Path):
    assets = checkout / "pipelines" / "report" / "assets"
    assets.mkdir()
    (assets / "viewer.js.gz").write_bytes(b"built")
    assert viewer_is_built(checkout)
    names, said = wheel(checkout, tmp_path / "nothing")
    assert "pipelines/report/assets/viewer.js.gz" in names and "Node" not in said
    os.utime(assets / "viewer.js.gz", (0, 0))
    assert not viewer_is_built(checkout)
