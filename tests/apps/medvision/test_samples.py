"""Sample files that nibabel and pydicom install: each is segmented or refused in one line, and listed likewise."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.affines import voxel_sizes

from medvision.volumes.names import scan_stem, scan_suffix

NIBABEL = Path(nibabel.__file__).parent
PYDICOM = Path(pydicom.__file__).parent / "data"
LARGEST = 2_000_000  # bytes


def samples(root: Path) -> list[Path]:
    """Files below a folder that are no code, in order."""
    code = (".py", ".pyc", ".pyi", ".m", ".txt", ".rst", ".md")
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in code]
    return [path for path in files if path.stat().st_size <= LARGEST and not path.name.startswith(".")]


def one_of_each(paths: list[Path]) -> list[Path]:
    """Every scan, and the first of every other suffix."""
    firsts = {path.suffix: path for path in reversed(paths)}
    return [path for path in paths if scan_suffix(path.name) or firsts[path.suffix] == path]


SCANS = one_of_each([path for path in samples(NIBABEL) if "tests" in path.parts])
IMAGES = [path for path in samples(PYDICOM) if path.suffix in ("", ".dcm", ".gz")]
READ = {"anatomical.nii", "reoriented_anat_moved.nii", "example4d.nii.gz", "example_nifti2.nii.gz"}
"""Those that are volumes of at least 8 voxels along each axis."""


def check_refusal(done: Any) -> None:
    assert done.code == 2
    assert done.error.startswith("error: ") and done.out == ""


def test_the_packages_have_samples():
    assert {path.name for path in SCANS} >= READ
    assert len(SCANS) > 20 and len(IMAGES) > 100


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.name)
def test_scans_of_nibabel(segment, tmp_path: Path, path: Path):
    done = segment(path, "-o", tmp_path)
    if done.code == 2 and "choose with --volume-index 0" in done.err:
        done = segment(path, "-o", tmp_path, "--volume-index", 0)
    assert (done.code == 0) == (path.name in READ), done.err
    if done.code:
        check_refusal(done)
        assert not list(tmp_path.iterdir())
        return
    assert all(line.startswith("warning: ") for line in done.err.splitlines())
    source: Any = nibabel.load(path)
    labels: Any = nibabel.load(tmp_path / f"{scan_stem(path)}_seg.nii.gz")
    assert labels.shape == source.shape[:3] and np.array_equal(labels.affine, source.affine)
    sidecar = json.loads((tmp_path / f"{scan_stem(path)}_seg.json").read_text())
    assert sidecar["input"]["orientation"] == "".join(nibabel.aff2axcodes(source.affine))
    assert np.allclose(sidecar["input"]["spacing_mm"], voxel_sizes(source.affine), atol=1e-6)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.relative_to(PYDICOM).as_posix())
def test_images_of_pydicom_are_listed_or_refused(medvision, path: Path):
    done = medvision("series", path)
    if done.code:
        check_refusal(done)
    else:
        assert done.out.count("\n") >= 1 and "Traceback" not in done.err
        assert all(line.startswith("warning: ") and "missing" not in line for line in done.err.splitlines())


@pytest.mark.parametrize("folder", sorted({path.parent for path in IMAGES}), ids=lambda path: path.name)
def test_folders_of_pydicom_are_listed_and_raise_no_alarm(medvision, segment, tmp_path: Path, folder: Path):
    done = medvision("series", folder)
    if done.code:
        check_refusal(done)
    else:
        assert "missing" not in done.err
        assert all(line.startswith("warning: ") for line in done.err.splitlines())
    done = segment(folder, "-o", tmp_path)  # none of them has a volume
    assert done.code == 2 and done.error.startswith("error: ")


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "CT_small.dcm", "no_meta.dcm", "rtplan.dcm", "zipMR.gz", "693_J2KI.dcm"]
)
def test_single_images_of_pydicom_are_no_volumes(segment, tmp_path: Path, name: str):
    check_refusal(segment(PYDICOM / "test_files" / name, "-o", tmp_path))
    assert not list(tmp_path.iterdir())
