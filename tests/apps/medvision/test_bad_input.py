"""What cannot be done: one line that names the file and a way out, exit code 2, and nothing written."""

import errno
import gzip
import json
import os
import resource
import shutil

import numpy as np
import pytest

from medvision.volumes.files import read_volume
from tests.apps.conftest import SHAPE, contents
from tests.medvision.phantoms import make_affine, make_image, nifti_bytes, write_file, write_scan

NAN = np.nan
AFFINE = make_affine(spacing=(4, 4, 4))


def image_with(value):
    data = make_image(SHAPE, np.float32)
    data[1, 2, 3] = value
    return data


RGB = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_FILES = {
    "not an image": (b"GIF89a" + bytes(999), "is not a NIfTI file"),
    "empty": (b"", "is empty"),
    "truncated gzip": (gzip.compress(nifti_bytes(make_image(SHAPE), AFFINE))[:-2000], "damaged or cut short"),
    "2-D": (nifti_bytes(make_image(SHAPE)[:, :, 0], AFFINE), "is 2-D"),
    "thin": (nifti_bytes(make_image((24, 28, 7)), AFFINE), "expected at least 8 along each axis"),
    "4-D": (nifti_bytes(np.stack([make_image(SHAPE)] * 3, -1), AFFINE), "choose with --volume-index 0 to 2"),
    "singular affine": (
        nifti_bytes(make_image(SHAPE), AFFINE, qform_code=0, fields={"srow_x": [0, 4, 0, 1]}),
        "affine is singular",
    ),
    "NaN affine": (
        nifti_bytes(make_image(SHAPE), AFFINE, qform_code=0, fields={"srow_y": [0, NAN, 0, 1]}),
        "affine holds NaN",
    ),
    "conflict": (
        nifti_bytes(make_image(SHAPE), AFFINE, fields={"srow_x": [-4, 0, 0, 9]}),
        "choose with --use-sform or --use-qform",
    ),
    "NaN": (nifti_bytes(image_with(NAN), AFFINE), "holds 1 NaN and 0 infinite voxels"),
    "infinite": (nifti_bytes(image_with(-np.inf), AFFINE), "use --allow-nonfinite"),
    "constant": (nifti_bytes(np.full(SHAPE, 7, np.int16), AFFINE), "every voxel is 7"),
    "RGB": (nifti_bytes(RGB, AFFINE), "RGB colours"),
    "huge": (
        nifti_bytes(make_image(SHAPE), AFFINE, fields={"dim": [3, 20000, 20000, 20000, 1, 1, 1, 1]}),
        "raise it with --max-gigabytes",
    ),
}


@pytest.fixture
def refused(segment, tmp_path):
    """Run the program, and return its error without `error: `, after checking that it was refused without a trace."""

    def call(scan, *arguments):
        before = contents(tmp_path)
        done = segment(scan, *arguments)
        assert (done.code, done.out) == (2, "")
        assert contents(tmp_path) == before
        assert done.error.startswith("error: ")
        line = done.error.removeprefix("error: ")
        assert line.isprintable()
        return line

    return call


@pytest.mark.parametrize("case", BAD_FILES)
def test_files(refused, tmp_path, case):
    content, expected = BAD_FILES[case]
    scan = tmp_path / "bad.nii.gz"
    scan.write_bytes(content)
    for arguments in ((), ("-o", tmp_path / "new")):
        line = refused(scan, *arguments)
        assert line.startswith(f"{scan}: ")
        assert expected in line
        assert ";" in line, "no way out"


def test_a_scan_that_covers_too_much_is_named_by_its_file(refused, tmp_path):
    scan = write_scan(tmp_path / "wide.nii.gz", make_image(SHAPE), make_affine(spacing=(900, 900, 900)))
    line = refused(scan)
    assert line.startswith(f"{scan}: covers")
    assert "voxel size" in line


def test_flags_raise_limits(segment, refused, scan, tmp_path):
    assert "--max-gigabytes" in refused(scan, "--max-gigabytes", "0.001", "--input", big(tmp_path))
    assert segment(scan, "--max-gigabytes", "0.1").code == 0


def big(folder):
    return write_scan(folder / "big.nii.gz", np.zeros((70, 70, 70), np.int16), AFFINE)


def test_paths(refused, scan, tmp_path):
    absent = tmp_path / "no" / "such.nii"
    assert refused(absent).startswith(f"{absent}: no such file")
    assert refused(absent, "--resume").startswith(f"{absent}: no such file")
    assert "not named like a scan" in refused(write_file(tmp_path / "scan.txt", b"text"))
    (tmp_path / "none").mkdir()
    assert refused(tmp_path / "none").startswith(f"{tmp_path / 'none'}: contains no scan")
    assert "File name too long" in refused(tmp_path / ("a" * 300 + ".nii"))
    assert "not a regular file" in refused(os.devnull)
    assert refused(scan, "--reference", tmp_path / "no.nii").startswith(f"--reference {tmp_path / 'no.nii'}: no such")
    assert refused(scan, "--reference", write_file(tmp_path / "bad.nii", b"x")).startswith(str(tmp_path / "bad.nii"))
    assert "File name too long" in refused(write_scan(tmp_path / ("b" * 246 + ".nii")))


def test_choices(refused, scan, tmp_path):
    line = refused(scan, "--model", "nix")
    assert line.startswith("model nix: ")
    assert "brain-structures" in line
    assert "medvision models list" in line
    assert "model.json" in refused(scan, "--model", tmp_path)
    line = refused(scan, "--labels", "2,cortex,11")
    assert line.startswith("label 'cortex', '11': expected some of 1 cerebral_white_matter, 2 cerebral_cortex, ")
    assert line.endswith("9 cerebellar_cortex")
    assert "label" in refused(scan, "--labels", "0")
    assert "label" in refused(scan, "--labels", " ,")
    assert "axial, coronal, sagittal" in refused(scan, "--views", "axial,oblique")
    assert "view" in refused(scan, "--views", "axial,axial")
    assert "view" in refused(scan, "--views", "")
    assert "device" in refused(scan, "--device", "tpu")
    assert "expected --volume-index from 0 to 0" in refused(scan, "--volume-index", "1")
    assert "expected --volume-index from 0 to 0" in refused(scan, "--volume-index", "-1")
    assert "give one of them" in refused(scan, "--use-sform", "--use-qform")
    assert "give one of them" in refused(scan, "-q", "-v")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nix",),
        ("models",),
        ("models", "show"),
        ("segment",),
        ("segment", "--input"),
        ("segment", "--inpt", "x"),
        ("segment", "--input", "x", "more"),
        ("segment", "--input", "x", "--threads", "0"),
        ("segment", "--input", "x", "--threads", "many"),
        ("segment", "--input", "x", "--max-gigabytes", "nan"),
        ("segment", "--input", "x", "--max-gigabytes", "inf"),
        ("segment", "--input", "x", "--precision", "int8"),
        ("segment", "--input", "x", "--\x1b[31m\n"),
    ],
)
def test_usage(medvision, arguments):
    done = medvision(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: ")
    assert done.error.endswith("; see --help")
    assert done.error.isprintable()


def test_a_damaged_model(refused, scan, model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "model")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert refused(scan, "--model", broken).startswith(f"{weights}: sha256 is ")
    card = json.loads((broken / "model.json").read_text())
    (broken / "model.json").write_text(json.dumps({**card, "architecture": "nix"}))
    assert str(broken) in refused(scan, "--model", broken)
    (broken / "model.json").write_text("{")
    assert refused(scan, "--model", broken).startswith(f"{broken / 'model.json'}: not JSON")


@pytest.mark.parametrize("case", ["shape", "origin", "flipped", "turned"])
def test_a_reference_on_another_grid(refused, scan, tmp_path, case):
    image = read_volume(scan)
    affine = image.grid.affine.copy()
    shape = (24, 28, 21) if case == "shape" else SHAPE
    if case == "origin":
        affine[1, 3] += 0.01
    if case == "flipped":
        affine[:3, 3] += affine[:3, 0] * (SHAPE[0] - 1)
        affine[:3, 0] *= -1
    if case == "turned":
        affine = make_affine("LPI", (4, 4, 5), (5, -8, 4))
    reference = write_scan(tmp_path / "reference.nii", np.ones(shape, np.uint8), affine)
    line = refused(scan, "--reference", reference, "-o", tmp_path / "new")
    assert line.startswith(f"--reference {reference}: not on the scan's grid: its ")
    assert ("24 x 28 x 21, not 24 x 28 x 20" if case == "shape" else "mm off") in line
    assert ("(its axes run" in line) == (case == "flipped")
    other = write_scan(tmp_path / "other.nii", np.ones(SHAPE, np.uint8), image.grid.affine)
    moved = write_scan(tmp_path / "moved.nii", make_image(shape), affine)
    assert "not on the scan's grid" in refused(moved, "--reference", other)


def test_a_reference_that_is_no_label_map(refused, scan, tmp_path):
    affine = read_volume(scan).grid.affine
    reference = write_scan(tmp_path / "reference.nii", np.full(SHAPE, 0.5, np.float32), affine)
    assert "expected integer labels" in refused(scan, "--reference", reference)


def test_what_is_read_is_never_written_over(refused, segment, scan):
    assert segment(scan).code == 0
    reference = scan.parent / "scan_seg.nii.gz"
    assert refused(scan, "--reference", reference).startswith(f"{reference}: a result of that name would replace it")
    linked = scan.parent / "link.nii.gz"
    linked.symlink_to(reference)
    assert "would replace it" in refused(scan, "--reference", linked)


# -------------------------------------------------------------------------------------------------------- writing


def test_folders_that_cannot_be_written_to(refused, scan, tmp_path):
    taken = write_file(tmp_path / "taken", b"a file")
    for folder in (taken, taken / "deeper"):
        line = refused(scan, "-o", folder)
        assert line.startswith(f"{folder}: cannot be written")
        assert "--output" in line
        assert refused(scan.parent, "-o", folder).startswith(f"{folder}: cannot be written")
    (scan.parent / "scan_report.html").mkdir()
    assert refused(scan).startswith(f"{scan.parent / 'scan_report.html'}: is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others(refused, scan):
    scan.parent.chmod(0o555)
    assert "Permission denied" in refused(scan)
    scan.parent.chmod(0o755)


@pytest.mark.parametrize("limit", [2**10, 2**15])  # the label map does not fit; it does, and the page does not
def test_a_full_disk(refused, segment, scan, limit):
    assert segment(scan).code == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        line = refused(scan, "--fast")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    named = scan.parent / "scan_seg.nii.gz" if limit == 2**10 else scan.parent
    assert line.startswith(f"{named}: cannot be written (File too large); nothing was left behind")


def test_a_disk_that_is_full_when_files_are_moved(refused, segment, scan, monkeypatch):
    assert segment(scan).code == 0
    (scan.parent / "scan_report.html").unlink()  # so that a result is new, and others replace one
    real = os.replace
    for failing in (2, 3, 4, 5, 8):  # the probabilities are written; then results are moved, the old ones first
        calls = []

        def replace(source, target, failing=failing, calls=calls):
            calls.append(target)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            assert "No space left on device" in refused(scan, "--save-probabilities")


# ------------------------------------------------------------------------------------------------------ odd names


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred\x1b[0m", "[red]x", "-o", "\u202egpj", "\udcff", " a  b "])
def test_names_that_attack_a_terminal(segment, refused, tmp_path, name):
    scan = write_scan(tmp_path / f"{name}.nii", make_image(SHAPE), AFFINE)
    done = segment(scan)
    assert (done.code, done.err) == (0, "")
    assert all(line.isprintable() for line in done.out.splitlines())
    assert len(done.out.splitlines()) == 6
    assert (tmp_path / f"{name}_seg.nii.gz").exists()
    assert json.loads(segment(scan, "--json").out)["results"][0]["status"] == "done"
    for path in tmp_path.iterdir():
        path.unlink()
    assert "no such file" in refused(scan)
    assert "neither a bundled model" in refused(scan, "--model", name)
    assert "cannot be read" in refused(scan, "--model", tmp_path)
