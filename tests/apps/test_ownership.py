"""No program replaces what it did not write: every verb that writes files refuses before it reads an input."""

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from apps.cli.shared.program import run
from medvision.volumes.files import read_labels, read_volume
from tests.apps.conftest import SHAPE, contents
from tests.astrovision import small_models as galaxy_models
from tests.geovision import small_models as land_models
from tests.geovision.rasters import ramp, write_scene
from tests.medvision import small_models as image_models
from tests.medvision.phantoms import load, make_affine, make_image, write_scan


def program(domain: str, *arguments: object) -> int:
    return run(importlib.import_module(f"apps.cli.{domain}.program").app, list(map(str, arguments)))


@pytest.fixture
def verbs(tmp_path: Path) -> dict[str, tuple[Sequence[object], list[Path]]]:
    """Arguments of every verb with an unusable input of the kind that it takes, and the files that it would write."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name in ("a.png", "s.tif", "g.jpg", "r_review.json"):
        (inputs / name).write_bytes(b"damaged")
    out = tmp_path / "out"
    out.mkdir()
    images = image_models.classifier(tmp_path / "images-model")
    mapper = land_models.mapper(tmp_path / "mapper")
    land = land_models.classifier(tmp_path / "land-model")
    galaxies = galaxy_models.classifier(tmp_path / "galaxy-model")
    return {
        "classify": (
            ("medvision", "classify", "-i", inputs / "a.png", "-o", out / "t.csv", "--model", images),
            [out / "t.csv", out / "t.json"],
        ),
        "map": (
            ("geovision", "map", "-i", inputs / "s.tif", "-o", out / "m.tif", "--model", mapper, "--probabilities",
             out / "p.tif"),
            [out / "m.tif", out / "m.json", out / "p.tif"],
        ),
        "embed": (
            ("geovision", "embed", "-i", inputs / "s.tif", "-o", out / "e.npz", "--model", land),
            [out / "e.npz", out / "e.json"],
        ),
        "galaxies": (
            ("astrovision", "classify", "-i", inputs / "g.jpg", "-o", out / "g.ecsv", "--model", galaxies),
            [out / "g.ecsv", out / "g.json"],
        ),
        "review": (
            ("astrovision", "review", "collect", inputs, "-o", out / "reviews.csv"),
            [out / "reviews.csv", out / "reviews.json"],
        ),
        "agreement": (
            ("geovision", "review", "agreement", inputs, "-o", out / "agreement.html"),
            [out / "agreement.html", out / "agreement.json"],
        ),
        "worklist": (
            ("medvision", "review", "worklist", out, inputs, "--reader", "B"),
            [out / "worklist-B.html", out / "worklist-B.json"],
        ),
        "gallery": (
            ("astrovision", "classify", "-i", inputs / "g.jpg", "-o", out / "h.csv", "--model", galaxies,
             "--gallery", 5),
            [out / "h_gallery.html", out / "h_gallery.json"],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["classify", "map", "embed", "galaxies", "review", "agreement", "worklist", "gallery"])
def test_what_is_not_ours_is_refused_before_an_input_is_read(verbs, verb: str, capsys):
    arguments, targets = verbs[verb]
    for target in targets:
        target.write_text("mine")
        capsys.readouterr()
        assert program(*arguments) == 2
        said = capsys.readouterr().err
        assert said == (
            f"error: {target}: is there and was not written by this program; choose another place with -o, or "
            f"--overwrite, which keeps it as {target.name}.bak\n"
        )
        assert contents(target.parent) == {target.name: b"mine"}
        target.unlink()


def maps(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder of maps but for the index, which says what each run did."""
    return {name: content for name, content in contents(folder).items() if not name.startswith("index.")}


def test_a_map_that_was_changed_is_kept_and_said_to_be_there(tmp_path: Path, capsys):
    scenes = tmp_path / "scenes"
    write_scene(scenes / "s.tif", ramp(3, 64, 80), land_models.BANDS)
    model, out = land_models.mapper(tmp_path / "m"), tmp_path / "maps"
    arguments = ("map", "-i", scenes, "-o", out, "--model", model, "--sensor", "sentinel2_l1c")
    assert program("geovision", *arguments) == 0
    text = (out / "s_map.json").read_text()
    side = json.loads(text)
    assert set(side["outputs"]) == {"map", "quicklook", "report", "twin"} and "s_map" not in text
    assert program("geovision", *arguments) == 0, "our own map is replaced"
    with (out / "s_map.tif").open("ab") as file:
        file.write(b"corrected")
    before = maps(out)
    capsys.readouterr()
    assert program("geovision", *arguments, "--resume") == 0
    assert f"skipped; {out / 's_map.tif'} was changed since and is kept" in capsys.readouterr().out
    assert program("geovision", *arguments) == 2
    assert "s_map.tif: is there and was changed since this program wrote it" in capsys.readouterr().err
    assert program("geovision", *arguments, "--resume", "--overlap", "0.5") == 5, "of other settings: to be made again"
    assert maps(out) == before
    assert program("geovision", *arguments, "--overwrite") == 0
    assert (out / "s_map.tif.bak").read_bytes() == before["s_map.tif"]
    kept = (out / "s_map.json").read_text()
    (out / "s_map.json").write_text("mine")
    assert program("geovision", *arguments, "--resume") == 2, "before a scene is opened"
    (out / "s_map.json").write_text(kept)
    again = json.loads((out / "s_map.json").read_text())["outputs"]
    assert all(again[kind] == side["outputs"][kind] for kind in ("map", "quicklook"))


def test_a_table_is_made_again_and_one_that_was_edited_is_kept(tmp_path: Path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)).save(folder / "a.png")
    model = image_models.classifier(tmp_path / "m")
    table = tmp_path / "t.csv"
    arguments = ("classify", "-i", folder, "-o", table, "--model", model)
    assert program("medvision", *arguments) == program("medvision", *arguments) == 0
    table.write_text(table.read_text().replace("a.png", "patient"))
    before = table.read_bytes()
    assert program("medvision", *arguments) == 2
    assert program("medvision", *arguments, "--overwrite") == 0
    assert (tmp_path / "t.csv.bak").read_bytes() == before


# ------------------------------------------------------------------------------------------------------- segment


@pytest.mark.parametrize("name", ["p_seg.nii.gz", "p_seg.json", "p_report.html", "p_volumes.csv"])
def test_a_hand_drawn_result_stops_all_before_a_scan_is_read(segment, tmp_path: Path, name: str):
    scan = tmp_path / "p.nii.gz"
    scan.write_bytes(b"unreadable")
    (tmp_path / name).write_bytes(b"drawn by hand")
    before = contents(tmp_path)
    for given in (scan, tmp_path):
        done = segment(given)
        assert (done.code, done.out) == (2, "")
        assert done.error.startswith(f"error: {tmp_path / name}: is there and was not written by this program; choose")
        assert contents(tmp_path) == before


def test_overwrite_keeps_what_was_there(segment, scan: Path):
    drawn = scan.parent / "scan_seg.nii.gz"
    drawn.write_bytes(b"drawn by hand")
    assert segment(scan, "--overwrite").code == 0
    assert (scan.parent / "scan_seg.nii.gz.bak").read_bytes() == b"drawn by hand"
    assert read_labels(drawn).data.any()
    assert segment(scan).code == 0, "and now it is ours"
    assert segment(scan.parent).code == 0, "what is kept is no scan"


def corrected(path: Path) -> bytes:
    """A label map with one voxel changed, as a program that draws writes it."""
    image = load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[0, 0, 0] = 9 - labels[0, 0, 0]
    nibabel.save(nibabel.Nifti1Image(labels, image.affine, image.header), path)
    return path.read_bytes()


def test_a_corrected_result_is_there_for_resume_and_says_so(segment, scan: Path, other_model: Path):
    output = scan.parent / "out"
    assert segment(scan.parent, "-o", output).code == 0
    labels = output / "scan_seg.nii.gz"
    mine = corrected(labels)

    again = segment(scan.parent, "-o", output, "--resume", "--json")
    assert again.code == 0
    (result,) = json.loads(again.out)["results"]
    assert (result["status"], result["changed"]) == ("skipped", [str(labels)])
    said = segment(scan.parent, "-o", output, "--resume").out
    assert f"skipped, its results are there already; {labels} was changed since and is kept" in said
    (row,) = json.loads((output / "index.json").read_text())["cases"]
    assert row["status"] == "changed" and any("was changed since" in warning for warning in row["warnings"])

    for options in ((), ("--fast", "--resume"), ("--model", other_model, "--resume")):
        refused = segment(scan.parent, "-o", output, *options)
        assert refused.code == 2 and "scan_seg.nii.gz: is there and was changed since" in refused.error
    assert labels.read_bytes() == mine
    assert segment(scan.parent, "-o", output, "--overwrite").code == 0
    assert (output / "scan_seg.nii.gz.bak").read_bytes() == mine
    assert segment(scan.parent, "-o", output, "--resume").out.startswith("[1/1] ")


@pytest.mark.parametrize("name", ["index.html", "index.json", "volumes.csv"])
def test_files_of_an_index_are_never_replaced_unless_they_are_ours(segment, tmp_path: Path, name: str):
    write_scan(tmp_path / "a.nii", make_image(SHAPE), make_affine(spacing=(4, 4, 4)))
    (tmp_path / name).write_text("my notes")
    before = contents(tmp_path)
    assert f"{name}: is there and was not written by this program" in segment(tmp_path).error
    assert contents(tmp_path) == before
    (tmp_path / name).unlink()
    assert segment(tmp_path).code == segment(tmp_path).code == 0, "ours is made again"
    (tmp_path / name).write_text("{}" if name == "index.json" else "my notes")
    assert name in segment(tmp_path, "--resume").error
    assert segment(tmp_path, "--resume", "--overwrite").code == 0
    assert (tmp_path / f"{name}.bak").exists()


def test_results_that_were_copied_elsewhere_are_still_ours(segment, scan: Path, tmp_path: Path):
    assert segment(scan.parent, "-o", tmp_path / "out").code == 0
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert segment(scan.parent, "-o", tmp_path / "copy").code == 0
    assert read_volume(scan).grid.differs_from(read_labels(tmp_path / "copy/scan_seg.nii.gz").grid) is None
