"""The built wheel, installed where the checkout cannot help it, segments a scan from another directory."""

import json
import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = "medvision/models/bundled/brain-structures"


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join([str(command), done.stdout, *messages])
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the build backend of the `test` extra, so that no build environment is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("domain_vision-*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a clean environment that has the wheel, and this environment's dependencies to import.

    A path named in a `.pth` file is importable, but its own `.pth` files are not followed: the editable install of this
    environment, which leads to the checkout, stays out of sight.
    """
    venv = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    interpreter = venv / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--no-index", "--no-deps", wheel)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return interpreter.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a coarse phantom on an oblique grid: an ellipsoid with a brighter core and a dark cavity."""
    folder = tmp_path_factory.mktemp("elsewhere")
    x, y, z = np.meshgrid(*(np.linspace(-1.3, 1.3, n) for n in (44, 52, 40)), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    data = np.select([radius < 0.2, radius < 0.7, radius < 1.0], [40.0, 180.0, 120.0], 0.0)
    data += np.random.default_rng(0).normal(0, 4, data.shape)
    along, across = 4 * np.cos(0.1), 4 * np.sin(0.1)
    affine = np.array([[-along, across, 0, 88], [across, along, 0, -100], [0, 0, 4, -80], [0, 0, 0, 1]])
    nib.Nifti1Image(data.clip(0).astype(np.int16), affine).to_filename(folder / "phantom.nii.gz")
    return folder


def test_everything_in_the_packages_is_in_the_wheel(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"apps", "astrovision", "geovision", "medvision", "pipelines", "shared_backbones"}
    files = (path for package in packages for path in (ROOT / package).rglob("*") if path.is_file())
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    expected = {name for name in expected if not name.startswith("apps/review/")}  # what the viewer is built from
    assert expected - names == set()
    assert {f"{BUNDLE}/model.safetensors", f"{BUNDLE}/model.json"} <= names
    assert any(name.startswith("pipelines/report/") and not name.endswith(".py") for name in names), "no page template"


def test_the_installed_package_is_the_one_of_the_wheel(programs: Path, elsewhere: Path):
    code = "import medvision, shared_backbones; print(medvision.__file__, shared_backbones.__file__, sep='\\n')"
    for line in run(programs / "python", "-c", code, cwd=elsewhere).stdout.splitlines():
        assert Path(line).is_relative_to(programs.parent)


def test_the_installed_program_segments_from_another_directory(programs: Path, elsewhere: Path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [programs / "medvision", "segment", "--input", "phantom.nii.gz", "--output", "results"]
    done = run(*command, cwd=elsewhere, env=environment | {"PYTHONPROFILEIMPORTTIME": "1"})

    assert sorted(path.name for path in (elsewhere / "results").iterdir()) == [
        "phantom_report.html",
        "phantom_seg.json",
        "phantom_seg.nii.gz",
        "phantom_volumes.csv",
    ]
    scan = nib.Nifti1Image.from_filename(elsewhere / "phantom.nii.gz")
    labels = nib.Nifti1Image.from_filename(elsewhere / "results" / "phantom_seg.nii.gz")
    assert labels.shape == scan.shape
    np.testing.assert_array_equal(np.asarray(labels.affine), np.asarray(scan.affine))
    assert np.issubdtype(labels.get_data_dtype(), np.integer)
    assert set(np.unique(np.asarray(labels.dataobj))) <= set(range(10))
    assert json.loads((elsewhere / "results/phantom_seg.json").read_text())["schema_version"] == 1
    assert "Research use only" in (elsewhere / "results/phantom_report.html").read_text()

    # Every import is a line that ends in the module's name.
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    loaded = {name.partition(".")[0] for name in names - {"pydicom"}}  # nibabel's attempt, which is made to fail
    assert "torch" in loaded
    heavy = {"monai", "lightning", "torchmetrics", "mlflow", "torchvision", "timm", "pandas"}
    assert loaded & (heavy | {"pydicom", "highdicom", "imagecodecs"}) == set()
