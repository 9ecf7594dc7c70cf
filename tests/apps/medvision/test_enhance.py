"""`medvision enhance`: the files that it writes, what they say of themselves, and that `segment` warns of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from tests.medvision.phantoms import load
from tests.medvision.test_enhancing import model, scan


@pytest.fixture
def thin(tmp_path: Path) -> Path:
    """A model that makes slices thinner."""
    return model(tmp_path / "thin")


def test_results_say_of_themselves_that_they_are_enhanced(tmp_path: Path, thin: Path, capsys) -> None:
    given = scan(tmp_path / "jane-doe.nii.gz")
    assert run(app, ["enhance", "-i", str(given), "--model", str(thin), "--device", "cpu"]) == 0
    output = tmp_path / "jane-doe_enhanced.nii.gz"
    assert str(output) in capsys.readouterr().out
    image, before = load(output), load(given)
    assert image.header["descrip"].item() == b"enhanced: not for diagnosis"
    assert image.shape == (24, 20, 24)
    for end in (-0.5, 1.0):  # the same borders
        corners = [
            each.affine @ [*(np.array(each.shape) - 0.5 if end > 0 else [end] * 3), 1] for each in (image, before)
        ]
        np.testing.assert_allclose(corners[0], corners[1], atol=1e-4)
    sidecar = json.loads((tmp_path / "jane-doe_enhanced.json").read_text())
    assert sidecar["enhanced"] == "not for diagnosis: made-up detail is possible"
    assert sidecar["result"]["spacing_mm"] == pytest.approx([1, 1.1, 1.5]) and sidecar["result"]["axis"] == 2
    page = (tmp_path / "jane-doe_enhanced_report.html").read_text()
    assert "Not for diagnosis: made-up detail is possible" in page and sidecar["case"] in page
    assert "jane" not in page + json.dumps(sidecar)


@pytest.mark.parametrize("name", ["jane_enhanced.nii", "renamed.nii.gz"])
def test_segment_warns_of_an_enhanced_scan_under_any_name(
    tmp_path: Path, thin: Path, name: str, segment, capsys
) -> None:
    suffix = name.partition(".")[2]
    output = tmp_path / f"a_enhanced.{suffix}"
    given = scan(tmp_path / "a.nii")
    assert run(app, ["enhance", "-i", str(given), "-o", str(output), "--model", str(thin), "--no-report"]) == 0
    assert sorted(path.name for path in tmp_path.glob("a_*")) == ["a_enhanced.json", f"a_enhanced.{suffix}"]
    (tmp_path / "new").mkdir()
    output.rename(tmp_path / "new" / name)
    done = segment(tmp_path / "new" / name)
    assert done.code == 0
    (sidecar,) = (tmp_path / "new").glob("*_seg.json")
    assert any("was enhanced" in warning for warning in json.loads(sidecar.read_text())["warnings"])
    assert "was enhanced" in done.err + done.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["-o", "out.nii.gz"], "ends in _enhanced.nii.gz, so that nobody takes it for a scan"),
        (["-o", "none/a_enhanced.nii.gz"], "no such folder"),
        (["-i", "thin.nii"], "there are no thick slices to make thinner"),
        (["-i", "absent.nii"], "no such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, thin: Path, changes: list[str], message: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scan(tmp_path / "a.nii")
    scan(tmp_path / "thin.nii", spacing=1.2)
    assert run(app, ["enhance", "-i", "a.nii", "--model", str(thin), *changes]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error and "case-" not in error
    assert not list(tmp_path.glob("*_enhanced*"))
