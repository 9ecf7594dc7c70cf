"""The side-car: strict JSON of a fixed form, with a reason wherever a figure is missing."""

import hashlib
import json
import re
from datetime import datetime
from importlib.metadata import version
from types import NoneType

import numpy as np
import pytest

from medvision.volumes.files import read_labels, read_volume
from medvision.volumes.geometry import to_ras
from tests.apps.conftest import SHAPE
from tests.medvision.phantoms import write_scan

SHA256 = re.compile(r"[0-9a-f]{64}")
NUMBER = (int, float)
STRUCTURE = {
    "id": int,
    "name": str,
    "voxels": int,
    "components": int,
    "main_pieces": int,
    "touches_border": bool,
    "centroid_mm": (list, NoneType),
    "volume_ml": (float, NoneType),
    "mean_intensity": (float, NoneType),
    "mean_confidence": (float, NoneType),
    "expected_dice": (float, NoneType),
    "largest_share": (float, NoneType),
    "main_share": (float, NoneType),
    "reasons": dict,
}
ROW = {
    "id": int,
    "name": str,
    "state": str,
    "dice": (float, NoneType),
    "hd95_mm": (float, NoneType),
    "nsd": (float, NoneType),
}
SCHEMA = {
    "schema_version": int,
    "case": re.compile(r"case-[0-9a-f]{8}"),
    "report": {"id": re.compile(r"case-[0-9a-f]{8}-[0-9a-f]{8}"), "sha256": SHA256},
    "created": str,
    "model": {"name": str, "version": str, "architecture": str, "sha256": SHA256, "license": str},
    "input": {
        "sha256": SHA256,
        "shape": [int],
        "spacing_mm": [float],
        "orientation": re.compile(r"[LRAPIS]{3}"),
        "qform_code": int,
        "sform_code": int,
        "units": re.compile(r"m|mm|um|unknown"),
        "modality": (str, NoneType),
        "expected_modality": str,
    },
    "settings": {
        "views": [str],
        "spacing_mm": float,
        "fast": bool,
        "precision": str,
        "labels": (list, NoneType),
        "save_probabilities": bool,
        "reference_sha256": (str, NoneType),
        "label_map": (list, NoneType),
        "volume_index": (int, NoneType),
        "geometry": (str, NoneType),
        "allow_nonfinite": bool,
    },
    "device": str,
    "precision": re.compile(r"float32|bfloat16"),
    "summary": {
        "structures": int,
        "structures_found": int,
        "mean_confidence": (float, NoneType),
        "lowest_confidence": (float, NoneType),
        "least_certain": (str, NoneType),
    },
    "structures": [STRUCTURE],
    "flags": [{"code": str, "structure": (str, NoneType), "rule": str, "value": (bool, int, float)}],
    "warnings": [str],
    "display": {"window": [float], "window_rule": str, "slices": list},
    "timings_s": {"read": NUMBER, "prepare": NUMBER, "network": NUMBER, "labels": NUMBER},
    "versions": {"python": str, "domain-vision": str, "torch": str, "numpy": str, "scipy": str, "nibabel": str},
    "outputs": {kind: {"sha256": SHA256} for kind in ("labels", "report", "volumes")},
    "seal": SHA256,
}
WITH_ALL = {
    **SCHEMA,
    "outputs": {**SCHEMA["outputs"], "probabilities": {"sha256": SHA256}},
    "reference": {
        "sha256": SHA256,
        "nsd_tolerance_mm": float,
        "rows": [ROW],
        "summary": {
            "dice": (float, NoneType),
            "hd95_mm": (float, NoneType),
            "nsd": (float, NoneType),
            "states": dict.fromkeys(("scored", "missed", "false_positive", "both_empty"), int),
        },
    },
}


def check(value, form, where="") -> None:
    """Fail unless a value has exactly the given form: all keys, no others, these types."""
    if isinstance(form, dict):
        assert isinstance(value, dict), where
        assert set(value) == set(form), where
        for key in form:
            check(value[key], form[key], f"{where}.{key}")
    elif isinstance(form, list):
        assert isinstance(value, list), where
        for item in value:
            check(item, form[0], f"{where}[]")
    elif isinstance(form, re.Pattern):
        assert form.fullmatch(value), where
    else:
        allowed = form if isinstance(form, tuple) else (form,)
        assert type(value) in allowed, f"{where} is {value!r}"


def read(path) -> dict:
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def plain(segment, scan) -> dict:
    assert segment(scan).code == 0
    return read(scan.parent / "scan_seg.json")


def test_form(plain):
    check(plain, SCHEMA)


def test_form_with_every_option(segment, scan):
    truth = write_scan(scan.parent / "t.nii", np.eye(28, 20, dtype=np.uint8) * np.ones(SHAPE, np.uint8), None)
    labels = read_volume(scan).grid
    truth = write_scan(truth, read_labels(truth).data, labels.affine)
    assert segment(scan, "--save-probabilities", "--reference", truth, "--labels", "1,8,9", "--fast").code == 0
    sidecar = read(scan.parent / "scan_seg.json")
    check(sidecar, WITH_ALL)
    check(sidecar["settings"]["labels"], [int])
    assert sidecar["reference"]["sha256"] == sidecar["settings"]["reference_sha256"]
    assert sidecar["reference"]["sha256"] == hashlib.sha256(truth.read_bytes()).hexdigest()
    for row in sidecar["reference"]["rows"]:
        missing = {key for key in ("dice", "hd95_mm", "nsd") if row[key] is None}
        assert missing == {
            "scored": set(),
            "missed": {"hd95_mm", "nsd"},
            "false_positive": {"hd95_mm", "nsd"},
            "both_empty": {"dice", "hd95_mm", "nsd"},
        }.get(row["state"])


def test_figures_are_those_of_the_label_map(plain, scan):
    labels = read_labels(scan.parent / "scan_seg.nii.gz").data
    image = read_volume(scan)
    voxel_ml = abs(np.linalg.det(image.grid.affine[:3, :3])) / 1000
    assert [row["id"] for row in plain["structures"]] == list(range(1, 10))
    for row in plain["structures"]:
        mask = labels == row["id"]
        assert row["voxels"] == mask.sum()
        assert all(0 <= row[key] <= 1 for key in ("mean_confidence", "main_share") if row[key] is not None)
        if row["volume_ml"] is not None:
            assert row["volume_ml"] == pytest.approx(mask.sum() * voxel_ml)
        if row["mean_intensity"] is not None:
            assert row["mean_intensity"] == pytest.approx(image.data[mask].mean(), rel=1e-5)


def test_a_missing_figure_has_a_reason(plain):
    reasons = set()
    for row in plain["structures"]:
        missing = {key for key, value in row.items() if value is None}
        assert set(row["reasons"]) == missing
        reasons |= set(row["reasons"].values())
        assert (row["volume_ml"] is None) == (row["touches_border"] or not row["voxels"])
    assert reasons == {"empty", "touches_border", "not_calibrated"}, "the phantom no longer shows both"
    assert {flag["structure"] for flag in plain["flags"] if flag["code"] == "empty"} == {
        "cerebellar_white_matter",
        "cerebellar_cortex",
    }


def test_provenance(plain, scan, model):
    def sha256(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()

    assert plain["schema_version"] == 1
    assert plain["input"]["sha256"] == sha256(scan)
    assert plain["model"]["sha256"] == sha256(model / "model.safetensors")
    assert plain["outputs"]["labels"]["sha256"] == sha256(scan.parent / "scan_seg.nii.gz")
    assert plain["outputs"]["report"]["sha256"] == sha256(scan.parent / "scan_report.html")
    assert plain["input"]["orientation"] == "LPI"
    assert plain["input"]["shape"] == list(SHAPE)
    assert plain["input"]["spacing_mm"] == pytest.approx([4, 4, 5])
    assert (plain["input"]["qform_code"], plain["input"]["sform_code"], plain["input"]["units"]) == (1, 1, "mm")
    assert plain["versions"]["torch"] == version("torch")
    assert datetime.fromisoformat(plain["created"]).utcoffset() is not None
    assert plain["timings_s"]["network"] > 0
    assert plain["timings_s"]["read"] > 0


def test_what_confidence_stands_for_is_said_where_it_was_measured(segment, scan, model):
    """With the model's own views and spacing, and not under --fast, whose confidences are others."""
    card = json.loads((model / "model.json").read_text())["input"]
    for options, measured in (((), True), (("--fast",), False), (("--views", "coronal"), False)):
        assert segment(scan, *options).code == 0
        sidecar = read(scan.parent / "scan_seg.json")
        rows = [row for row in sidecar["structures"] if row["voxels"] and row["name"] in card["min_confidence"]]
        assert rows
        for row in rows:
            assert (row["expected_dice"] is not None) == measured
            limit = card["min_confidence"][row["name"]] if measured else 0.6
            flagged = [f for f in sidecar["flags"] if (f["code"], f["structure"]) == ("low_confidence", row["name"])]
            assert bool(flagged) == (row["mean_confidence"] < limit)
        assert "Expected Dice: what a structure" in (scan.parent / "scan_report.html").read_text()


def test_the_page_shows_the_slices_that_the_side_car_names(segment, scan):
    """Every slice of the page stands in the side-car: those to look at first, with their reason, come last there."""
    volume = read_volume(scan)
    assert segment(scan).code == 0
    labels = read_labels(scan.parent / "scan_seg.nii.gz").data
    truth = np.roll(labels, 2, 1)
    write_scan(scan.parent / "t.nii", truth, volume.grid.affine)
    assert segment(scan, "--reference", scan.parent / "t.nii").code == 0
    sidecar, page = read(scan.parent / "scan_seg.json"), (scan.parent / "scan_report.html").read_text()
    slices = sidecar["display"]["slices"]
    key = [entry for entry in slices if "why" in entry]
    assert key == slices[-len(key) :] and {"most errors", "least certain"} >= {entry["why"] for entry in key}
    places = [(entry["plane"], entry["index"]) for entry in slices]
    assert len(set(places)) == len(places), "no slice is shown twice"
    assert {entry["plane"] for entry in key[:3]} == {"axial", "coronal", "sagittal"}
    assert len({entry["structure"] for entry in key[:3]}) == 1, "three planes of the worst structure come first"
    assert page.count("<figure ") == len(slices) == page.count("<image ")
    for entry in slices:
        assert f"{entry['plane']} slice {entry['index']}" in page and entry["position"] in page
    low, high = sidecar["display"]["window"]
    assert f"{low:.4g} to {high:.4g}" in page

    ids = {row["name"]: row["id"] for row in sidecar["structures"]}
    here, there = (to_ras(array, volume.grid)[0] for array in (labels, truth))
    axes = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
    errors = [entry for entry in key if entry["why"] == "most errors"]
    for entry in errors:
        number = ids[entry["structure"]]
        wrong = ((here == number) != (there == number)).sum(axes[entry["plane"]])
        assert (wrong[entry["index"]], wrong.max()) == (entry["value"], entry["value"])
    dice = {row["name"]: row["dice"] for row in sidecar["reference"]["rows"] if row["dice"] is not None}
    assert errors[0]["structure"] == min(dice, key=dice.__getitem__)
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}
    for entry in key[len(errors) :]:
        assert (here.take(entry["index"], axis[entry["plane"]]) == ids[entry["structure"]]).any()
        row = next(row for row in sidecar["structures"] if row["name"] == entry["structure"])
        assert 0 < entry["value"] <= row["mean_confidence"] + 0.02


def test_every_figure_of_the_page_is_in_the_side_car(segment, scan):
    """Numbers in the page's tables and facts, rounded as there."""
    assert segment(scan).code == 0
    text, sidecar = (scan.parent / "scan_report.html").read_text(), read(scan.parent / "scan_seg.json")
    part = text[text.index('id="volumes"') : text.index('id="provenance"')]
    shown = set(re.findall(r'<td class="n">([\d.,%]+)', part))
    digits = range(7)
    known = {f"{value:,.{n}f}" for row in sidecar["structures"] for value in row.values()
             if isinstance(value, int | float) for n in digits}  # fmt: skip
    known |= {f"{row['largest_share']:.1%}" for row in sidecar["structures"] if row["voxels"]}
    assert len(shown) > 20 and shown <= known
    found = f"{sidecar['summary']['structures_found']} of {sidecar['summary']['structures']}"
    assert f"<dt>Structures found</dt><dd>{found}</dd>" in text
    assert f"<dt>Quality flags</dt><dd>{len(sidecar['flags'])}</dd>" in text
