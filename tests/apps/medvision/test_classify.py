"""`medvision classify` as a user meets it."""

import csv
import hashlib
import io
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from apps.cli.medvision.program import app
from apps.cli.shared.program import run
from medvision.classification import MedicalClassifier
from medvision.datasets.medmnist import SETS, read_medmnist
from medvision.dicom.projections import read_projection
from shared_backbones import weights
from shared_backbones.classification.figures import class_figures
from shared_backbones.classification.grad_cam import cam_overlay
from tests.medvision import small_models
from tests.medvision.dicom.test_projections import write as write_projection

MARKER = "doe-john42"
COUNT = 5


@pytest.fixture(scope="module")
def grey_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("grey") / "m", outliers=True)


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for several classes at once, one of them named as no class should be."""
    names = ["=mass", "effusion", "hernia"]
    return small_models.classifier(tmp_path_factory.mktemp("f") / "m", names, small_models.COLOURED, multi_label=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of five grey images of 50 pixels, of every format."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(small_models.radiographs(COUNT, 50)):
        Image.fromarray(image).save(folder / f"{MARKER}-{number}.{['png', 'tif', 'png', 'TIFF', 'png'][number]}")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


def write_npz(path: Path, labels: Any = None, count: int = COUNT, side: int = 28, split: str = "test") -> Path:
    labels = np.arange(count)[:, None] % 2 if labels is None else labels
    np.savez_compressed(
        path, **{f"{split}_images": small_models.radiographs(count, side), f"{split}_labels": labels.astype(np.uint8)}
    )
    return path


def classify(*arguments: object) -> int:
    return run(app, ["classify", *map(str, arguments), "--device", "cpu"])


def refused(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert classify(*arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    return said.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def predictions(folder: Path, images: np.ndarray) -> Any:
    classifier = MedicalClassifier(folder, device="cpu")
    return classifier.predict(classifier.prepare(small_models.as_tensor(images)))


def test_a_folder_of_images_becomes_a_table_and_a_side_car(images: Path, grey_model: Path, tmp_path: Path, capsys):
    output = tmp_path / "out.csv"
    assert classify("-i", images, "-o", output, "--model", grey_model, "--json", "--batch-size", 2) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    table = rows(output)
    assert list(table[0]) == [
        "id", "class", "confidence", "p_normal", "p_pneumonia", "in_set_normal", "in_set_pneumonia", "set_size",
        "outlier_score", "is_outlier",
    ]  # fmt: skip
    assert [row["id"] for row in table] == sorted(path.name for path in images.glob(f"{MARKER}*"))
    expected = predictions(grey_model, small_models.radiographs(COUNT, 50))
    for number, row in enumerate(table):
        scores = expected.probabilities[number]
        assert row["class"] == small_models.PNEUMONIA[scores.argmax()]
        np.testing.assert_allclose([float(row["p_normal"]), float(row["p_pneumonia"])], scores, atol=1e-5)
        assert float(row["confidence"]) == pytest.approx(scores.max(), abs=1e-5)
        assert [row["in_set_normal"], row["in_set_pneumonia"]] == [str(bool(score >= 0.2)) for score in scores]
        assert row["set_size"] == str((scores >= 0.2).sum())
        assert float(row["outlier_score"]) == pytest.approx(expected.outlier_score[number], rel=1e-3)
        assert row["is_outlier"] == str(expected.is_outlier[number])
    counts = [{"name": name, "count": [row["class"] for row in table].count(name)} for name in small_models.PNEUMONIA]
    assert found["classes"] == counts and found["rows"] == found["classified"] == COUNT and found["failed"] == 0
    assert found["flags"] == {"outlier": int(expected.is_outlier.sum())} and found["warnings"] == []
    assert found["model"]["sha256"] == weights.load(grey_model).sha256 and found["model"]["name"] == "probe"
    assert found["case"] == f"case-{found['input']['sha256'][:8]}" and found["input"]["kind"] == "images"
    assert found["settings"] == {
        "symmetries": False, "temperature": 1.5, "coverage": 0.9, "batch_size": 2, "multi_label": False
    }  # fmt: skip
    assert {"python", "torch", "domain-vision"} <= set(found["versions"]) and "figures" not in found
    text = (tmp_path / "out.json").read_text()
    assert MARKER not in text and str(tmp_path) not in text
    assert {path.name for path in tmp_path.iterdir()} == {"images", "out.csv", "out.json"}


def test_parquet_holds_the_same_in_its_own_types(images: Path, grey_model: Path, tmp_path: Path):
    for ending in ("csv", "parquet"):
        assert classify("-i", images, "-o", tmp_path / f"o.{ending}", "--model", grey_model, "-q") == 0
    stored = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    table = rows(tmp_path / "o.csv")
    assert stored.column_names == list(table[0])
    kinds = {name: str(stored.schema.field(name).type) for name in stored.column_names}
    assert kinds["id"] == kinds["class"] == "string" and kinds["p_normal"] == "float" and kinds["is_outlier"] == "bool"
    for mine, other in zip(stored.to_pylist(), table, strict=True):
        assert {name: str(value) for name, value in mine.items() if isinstance(value, str | bool | int)}.items() <= (
            other.items()
        )
        assert mine["p_normal"] == pytest.approx(float(other["p_normal"]))
    assert stored.schema.metadata[b"model_sha256"].decode() == weights.load(grey_model).sha256
    assert MARKER not in str(stored.schema.metadata)


def test_one_image_and_its_hash(images: Path, grey_model: Path, tmp_path: Path, capsys):
    path = images / f"{MARKER}-2.png"
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model) == 0
    said = capsys.readouterr()
    assert "o.csv: 1 of 1 classified" in said.out and "normal" in said.out and said.err == ""
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "-q") == 0  # replaced
    assert capsys.readouterr().out == ""


def test_several_classes_at_once_and_grey_images_for_colours(images: Path, findings: Path, tmp_path: Path, capsys):
    assert classify("-i", images, "-o", tmp_path / "o.csv", "--model", findings, "--json") == 0
    found, table = json.loads(capsys.readouterr().out), rows(tmp_path / "o.csv")
    names = ["=mass", "effusion", "hernia"]
    assert list(table[0])[:9] == ["id", "class", "confidence", *(f"p_{n}" for n in names), *(f"is_{n}" for n in names)]
    scores = predictions(findings, small_models.radiographs(COUNT, 50)).probabilities
    for row, own in zip(table, scores, strict=True):
        assert [row[f"is_{name}"] for name in names] == [str(bool(score > 0.5)) for score in own]
        best = names[own.argmax()] if own.max() > 0.5 else ""
        assert row["class"] == (f"'{best}" if best.startswith("=") else best)
        np.testing.assert_allclose([float(row[f"p_{name}"]) for name in names], own, atol=1e-5)
    assert [entry["count"] for entry in found["classes"]] == list((scores > 0.5).sum(0))
    assert found["flags"] == {} and found["settings"]["multi_label"] is True
    assert found["warnings"] == ["the model does not say what is usual; nothing is called an outlier"]


def test_an_image_without_any_class_has_none(tmp_path: Path, findings: Path, images: Path):
    trained = weights.load(findings)
    module: Any = trained.module
    module.head.bias.data.fill_(-100)
    weights.save(tmp_path / "m", module, {**trained.card, "calibration": {}})
    assert classify("-i", images, "-o", tmp_path / "o.csv", "--model", tmp_path / "m", "-q") == 0
    assert {row["class"] for row in rows(tmp_path / "o.csv")} == {""}
    found = json.loads((tmp_path / "o.json").read_text())
    assert [entry["count"] for entry in found["classes"]] == [0, 0, 0]
    assert "the model was not calibrated; its probabilities may be too sure" in found["warnings"]
    assert not any("set" in name for name in rows(tmp_path / "o.csv")[0])


@pytest.mark.parametrize("side", [28, 64])
def test_a_file_of_medmnist_is_classified_and_judged(grey_model: Path, tmp_path: Path, capsys, side: int):
    path = write_npz(tmp_path / f"pneumoniamnist_{side}.npz", side=side, count=9)
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "--batch-size", 4) == 0
    said = capsys.readouterr()
    found = json.loads((tmp_path / "o.json").read_text())
    assert [row["id"] for row in rows(tmp_path / "o.csv")] == [str(number) for number in range(9)]
    expected = predictions(grey_model, small_models.radiographs(9, side))
    scores = [[float(row["p_normal"]), float(row["p_pneumonia"])] for row in rows(tmp_path / "o.csv")]
    np.testing.assert_allclose(scores, expected.probabilities, atol=1e-5)
    targets = np.eye(2)[np.arange(9) % 2]
    figures = class_figures(expected.probabilities, targets, multi_label=False)
    assert found["figures"] == pytest.approx(figures, abs=1e-5)
    for name in ("accuracy", "balanced accuracy", "auc"):
        (line,) = [line for line in said.out.splitlines() if line.strip().startswith(name)]
        assert float(line.split()[-1]) == pytest.approx(figures[name.replace(" ", "_")], abs=1e-4)
    assert found["input"] | {"sha256": ""} == {
        "kind": "medmnist", "set": "pneumoniamnist", "split": "test", "shape": [9, side, side], "sha256": ""
    }  # fmt: skip
    notice = "test holds 9 images, pneumoniamnist was published with 624; figures do not compare"
    assert found["warnings"] == [notice] and f"warning: {notice}" in said.err


def test_another_split_is_another_result(grey_model: Path, tmp_path: Path, capsys):
    path = write_npz(tmp_path / "pneumoniamnist.npz", split="val", count=4)
    arguments = ["-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "-q"]
    assert "has no test_images, found val_images, val_labels" in refused(capsys, *arguments)
    assert not (tmp_path / "o.json").exists()
    assert classify(*arguments, "--split", "val") == 0
    assert json.loads((tmp_path / "o.json").read_text())["input"]["split"] == "val"


def test_several_labels_are_judged(tmp_path: Path, capsys):
    names = list(SETS["chestmnist"].classes)
    model = small_models.classifier(tmp_path / "m", names, multi_label=True, calibration={})
    labels = np.random.default_rng(0).integers(0, 2, (6, 14))
    path = write_npz(tmp_path / "chestmnist.npz", labels, 6)
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    scores = predictions(model, small_models.radiographs(6, 28)).probabilities
    assert found["figures"] == pytest.approx(class_figures(scores, labels, multi_label=True), abs=1e-5)
    write_npz(path, labels * 0, 6)
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "figures" not in found and "no image has any of the classes; there are no figures" in found["warnings"]


def test_there_are_no_figures_for_other_classes_or_without_scikit_learn(
    grey_model: Path, tmp_path: Path, capsys, monkeypatch
):
    path = write_npz(tmp_path / "breastmnist.npz")
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    said = "the classes of breastmnist (malignant, normal, benign) are not the model's (normal, pneumonia)"
    assert f"{said}; there are no figures" in found["warnings"] and "figures" not in found
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    path = write_npz(tmp_path / "pneumoniamnist.npz")
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model) == 0
    assert "warning: figures need scikit-learn; run: pip install" in capsys.readouterr().err
    assert len(rows(tmp_path / "o.csv")) == COUNT


def test_dicom_images_are_those_that_a_viewer_shows(grey_model: Path, tmp_path: Path, capsys):
    """A folder of radiographs, one without an ending, gives what PNGs of what they show give."""
    dicoms, pngs = tmp_path / "dicoms", tmp_path / "pngs"
    dicoms.mkdir()
    pngs.mkdir()
    for number, (kind, modality) in enumerate((("MONOCHROME1", "CR"), ("MONOCHROME2", "DX"), ("MONOCHROME2", "MG"))):
        stored = small_models.radiographs(1, 50, seed=number)[0].astype(np.uint16) * 16
        name = f"{MARKER}-{number}"
        tags = {"PhotometricInterpretation": kind, "WindowCenter": 2048, "WindowWidth": 4096}
        path = write_projection(dicoms / (name if number == 1 else f"{name}.dcm"), stored, modality, **tags)
        Image.fromarray(read_projection(path)[0][0]).save(pngs / f"{name}.png")
    (dicoms / "notes.txt").write_text("no image")
    for folder in (dicoms, pngs):
        assert classify("-i", folder, "-o", tmp_path / f"{folder.name}.csv", "--model", grey_model) == 0
    found, expected = (
        [{key: value for key, value in row.items() if key != "id"} for row in rows(tmp_path / f"{folder.name}.csv")]
        for folder in (dicoms, pngs)
    )
    assert found == expected and len(found) == 3
    assert MARKER not in (tmp_path / "dicoms.json").read_text() and "DOE" not in (tmp_path / "dicoms.csv").read_text()
    single = tmp_path / "one.csv"
    assert classify("-i", dicoms / f"{MARKER}-1", "-o", single, "--model", grey_model) == 0
    assert len(rows(single)) == 1


@pytest.mark.parametrize("name", ["cases.npz", "my_chestmnist_like.npz", "pneumoniamnist2.npz"])
def test_a_file_of_that_form_is_taken_whatever_its_name(grey_model: Path, tmp_path: Path, capsys, name: str):
    path = write_npz(tmp_path / name)
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    named = write_npz(tmp_path / "pneumoniamnist.npz")
    assert classify("-i", named, "-o", tmp_path / "n.csv", "--model", grey_model, "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    assert rows(tmp_path / "o.csv") == rows(tmp_path / "n.csv")
    assert found["figures"] == expected["figures"] and found["input"]["set"] == "unnamed set"
    assert name.partition(".")[0] not in (tmp_path / "o.json").read_text()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(COUNT)[:, None], "the classes of unnamed set (0, 1, 2, 3, ... 5) are not the model's"),
        (np.eye(COUNT, 2), "the classes of unnamed set (0, 1) are not the model's"),
    ],
)
def test_labels_of_other_classes_give_a_table_without_figures(
    grey_model: Path, tmp_path: Path, capsys, labels: np.ndarray, said: str
):
    path = write_npz(tmp_path / "cases.npz", labels)
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "figures" not in found and any(said in warning for warning in found["warnings"])
    assert len(rows(tmp_path / "o.csv")) == COUNT


def test_grad_cam_gives_a_picture_of_each_image(images: Path, findings: Path, tmp_path: Path, capsys):
    arguments = ["-i", images, "-o", tmp_path / "o.csv", "--model", findings, "-q", "--grad-cam", tmp_path / "cams"]
    assert classify(*arguments, "--batch-size", 2) == 0
    pictures = sorted((tmp_path / "cams").iterdir())
    assert [path.name for path in pictures][:2] == [f"000001-{MARKER}-0.png.png", f"000002-{MARKER}-1.tif.png"]
    assert len(pictures) == COUNT
    classifier = MedicalClassifier(findings, device="cpu")
    seen = classifier.prepare(small_models.as_tensor(small_models.radiographs(COUNT, 50)))
    maps = classifier.grad_cam(seen, classifier.predict(seen).labels)
    for path, image, cam in zip(pictures, seen.numpy(), maps, strict=True):
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            np.testing.assert_allclose(np.asarray(picture, int), cam_overlay(image, cam), atol=2)
    assert "already there; expected a new or empty folder" in refused(capsys, *arguments)


def encoded(kind: str) -> bytes:
    """An image that cannot be used, as a file."""
    buffer = io.BytesIO()
    image = Image.fromarray(small_models.radiographs(1, 50, channels=3)[0])
    if kind == "colour":
        image.save(buffer, "PNG")
    elif kind == "alpha":
        image.convert("RGBA").save(buffer, "PNG")
    elif kind == "palette":
        image.convert("P").save(buffer, "PNG")
    elif kind == "inks":
        image.convert("CMYK").save(buffer, "JPEG")
    elif kind in ("sixteen PNG", "sixteen TIFF"):
        Image.fromarray(np.zeros((50, 50), np.uint16)).save(buffer, kind.split()[1])
    elif kind == "floats":
        Image.fromarray(np.zeros((50, 50), np.float32)).save(buffer, "TIFF")
    elif kind == "pages":
        image.convert("L").save(buffer, "TIFF", save_all=True, append_images=[image.convert("L")])
    elif kind == "gif":
        image.save(buffer, "GIF")
    elif kind == "bomb":
        Image.new("L", (1, 1)).save(buffer, "PNG")
        start, end = buffer.getvalue()[:12], buffer.getvalue()[33:]
        claimed = b"IHDR" + struct.pack(">IIBBBBB", 20000, 10000, 8, 0, 0, 0, 0)
        return start + claimed + struct.pack(">I", zlib.crc32(claimed)) + end
    elif kind == "bits":
        image.convert("1").save(buffer, "PNG")
    elif kind != "empty":
        image.save(buffer, kind)
        return buffer.getvalue()[: len(buffer.getvalue()) // 2]
    return buffer.getvalue()


UNUSABLE = [
    ("colour", "x.png", "images are in colour, the model takes grey ones"),
    ("alpha", "x.png", "has 4 bands (R, G, B, A), expected grey or red, green, blue of 8 bits; convert it"),
    ("palette", "x.png", "has 1 bands (P), expected grey"),
    ("bits", "x.png", "has 1 bands (1), expected grey"),
    ("inks", "x.jpg", "has 4 bands (C, M, Y, K), expected grey"),
    ("sixteen PNG", "x.png", "has 1 bands of 16 bits"),
    ("sixteen TIFF", "x.tif", "has 1 bands of 16 bits"),
    ("floats", "x.tif", "has 1 bands (F), expected grey"),
    ("pages", "x.tif", "has 2 pages, expected one image; save it by itself"),
    ("gif", "x.png", "cannot be read as JPEG, PNG or TIFF"),
    ("bomb", "x.png", "cannot be read as JPEG, PNG or TIFF"),
    ("empty", "x.png", "cannot be read as JPEG, PNG or TIFF"),
    ("JPEG", "x.jpg", "cannot be read as JPEG, PNG or TIFF"),
    ("PNG", "x.png", "cannot be read as JPEG, PNG or TIFF"),
    ("TIFF", "x.tif", "cannot be read as JPEG, PNG or TIFF"),
]


@pytest.mark.parametrize(("kind", "name", "message"), UNUSABLE)
def test_images_that_cannot_be_used_are_one_line(
    images: Path, grey_model: Path, tmp_path: Path, capsys, kind: str, name: str, message: str
):
    (images / name).write_bytes(encoded(kind))
    arguments = ["-i", images, "-o", tmp_path / "o.csv", "--model", grey_model]
    said = refused(capsys, *arguments, "--grad-cam", tmp_path / "cams")
    assert message in said and name in said
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


def test_images_that_cannot_be_used_are_skipped_where_that_is_asked_for(
    images: Path, grey_model: Path, tmp_path: Path, capsys
):
    for number, (kind, name, _) in enumerate(UNUSABLE):
        (images / f"{number:02d}-{name}").write_bytes(encoded(kind))
    arguments = ["-i", images, "-o", tmp_path / "o.csv", "--model", grey_model, "--batch-size", 3]
    assert classify(*arguments, "--skip-unreadable", "--json") == 5
    said = capsys.readouterr()
    found, lines = json.loads(said.out), said.err.splitlines()
    assert found["failed"] == len(lines) == len(UNUSABLE) and found["rows"] == COUNT
    for line, (_, name, message) in zip(lines, UNUSABLE, strict=True):
        assert line.startswith("cannot be used: ") and name in line and message in line
    assert [row["id"] for row in rows(tmp_path / "o.csv")] == [f.name for f in sorted(images.glob(f"{MARKER}*"))]
    assert MARKER not in (tmp_path / "o.json").read_text() and "x.png" not in (tmp_path / "o.json").read_text()


def test_where_no_image_can_be_used_there_is_no_table(grey_model: Path, tmp_path: Path, capsys):
    path = tmp_path / "x.png"
    path.write_bytes(encoded("palette"))
    assert classify("-i", path, "-o", tmp_path / "o.csv", "--model", grey_model, "--skip-unreadable") == 2
    assert "none of 1 images can be used" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"x.png"}


def test_damaged_tiffs_are_one_line_or_harmless(grey_model: Path, tmp_path: Path, capsys):
    buffer = io.BytesIO()
    Image.fromarray(small_models.radiographs(1, 16)[0]).save(buffer, "TIFF")
    random = np.random.default_rng(0)
    (tmp_path / "t").mkdir()
    for number in range(60):
        damaged = bytearray(buffer.getvalue())
        for place in random.integers(0, len(damaged), 3):
            damaged[place if number % 2 else place % 12 - 6] ^= int(random.integers(1, 256))
        damaged[:4] = buffer.getvalue()[:4]
        (tmp_path / "t" / f"{number}.tif").write_bytes(damaged)
    arguments = ["-i", tmp_path / "t", "-o", tmp_path / "o.csv", "--model", grey_model, "--skip-unreadable", "-q"]
    assert classify(*arguments) in (0, 5)
    assert all(line.startswith("cannot be used: ") for line in capsys.readouterr().err.splitlines())


def test_names_that_are_formulas_or_hold_signs_are_harmless(grey_model: Path, tmp_path: Path):
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["=cmd().png", "+1.png", "-2.png", "@sum.png", 'a,"b".png', "line\nbreak.png", "plain.png"]
    for name in names:
        Image.fromarray(small_models.radiographs(1, 20)[0]).save(folder / name, "PNG")
    for ending in ("csv", "parquet"):
        output = tmp_path / f"o.{ending}"
        arguments = ["-i", folder, "-o", output, "--model", grey_model, "--grad-cam", tmp_path / ending, "-q"]
        assert classify(*arguments) == 0
        assert len(list((tmp_path / ending).iterdir())) == len(names)
    shown = [name.replace("\n", "\\n") for name in sorted(names)]
    guarded = [f"'{name}" if name[0] in "=+-@" else name for name in shown]
    assert [row["id"] for row in rows(tmp_path / "o.csv")] == guarded
    assert pyarrow.parquet.read_table(tmp_path / "o.parquet")["id"].to_pylist() == shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"-o": "o.png"}, "ends in '.png'; expected .csv or .parquet"),
        ({"-o": "nowhere/o.csv"}, "nowhere: no such folder"),
        ({"--grad-cam": "nowhere/c"}, "nowhere: no such folder"),
        ({"--grad-cam": "full"}, "already there; expected a new or empty folder"),
        ({"--model": "nowhere"}, "model nowhere: neither a bundled model"),
        ({"--model": "brain-structures"}, "it is no classifier of medical images"),
        ({"--model": "full"}, "model.json"),
        ({"-i": "absent.png"}, "absent.png: no such file or folder"),
        ({"-i": "scan.dcm"}, "scan.dcm: contains no DICOM file"),
        ({"-i": "scan.xyz"}, "ends in .xyz; expected .png"),
        ({"-i": "empty"}, "empty: contains no image"),
        ({"-i": "full", "--split": "test"}, "is no .npz file of MedMNIST, so --split means nothing"),
        ({"--split": "all"}, "split 'all' is unknown"),
        ({"-i": "cases.npz"}, "cases.npz: has no test_labels"),
        ({"-i": "damaged/pneumoniamnist.npz"}, "cannot be read as .npz"),
        ({"-i": "damaged/pathmnist.npz"}, "images are in colour, the model takes grey ones"),
        ({"--max-gigabytes": "0.001", "-i": "damaged/octmnist.npz"}, "GB of memory; the limit is 0.001 GB; raise it"),
        ({"--batch-size": "0"}, "Invalid value"),
        ({"--threads": "0"}, "Invalid value"),
        ({"--precision": "int3"}, "Invalid value"),
    ],
)  # fmt: skip
def test_what_cannot_be_classified_is_one_line(
    grey_model: Path, tmp_path: Path, capsys, monkeypatch, changes: dict, message: str
):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "full", "damaged"):
        Path(name).mkdir()
    Image.fromarray(small_models.radiographs(1)[0]).save("full/a.png")
    Path("scan.dcm").write_bytes(b"DICM")
    write_npz(Path("pneumoniamnist.npz"))
    Path("scan.xyz").write_bytes(b"")
    np.savez("cases.npz", test_images=small_models.radiographs(2, 28))
    Path("damaged/pneumoniamnist.npz").write_bytes(b"damaged")
    coloured = small_models.radiographs(2, 28, channels=3)
    np.savez("damaged/pathmnist.npz", test_images=coloured, test_labels=np.zeros((2, 1), np.uint8))
    large = np.zeros((2, 1000, 1000), np.uint8)
    np.savez_compressed("damaged/octmnist.npz", test_images=large, test_labels=np.zeros((2, 1), np.uint8))
    before = {path.name for path in tmp_path.iterdir()}
    given = {"-i": "pneumoniamnist.npz", "-o": "o.csv", "--model": grey_model, **changes}
    said = refused(capsys, *(part for pair in given.items() for part in pair))
    assert message in said
    assert {path.name for path in tmp_path.iterdir()} == before


def test_classes_that_give_two_columns_of_a_name_are_refused(tmp_path: Path, images: Path, capsys):
    model = small_models.classifier(tmp_path / "m", ["a\n", "a\\n"], outliers=False)
    said = refused(capsys, "-i", images, "-o", tmp_path / "o.csv", "--model", model)
    assert "its classes give two columns" in said
    assert {path.name for path in tmp_path.iterdir()} == {"images", "m"}


def test_the_models_card_is_not_overwritten(tmp_path: Path, images: Path, capsys):
    model = small_models.classifier(tmp_path / "m")
    said = refused(capsys, "-i", images, "-o", model / "model.csv", "--model", model)
    assert "would replace it, and it is an input" in said and weights.load(model).card["name"] == "probe"


def test_a_model_for_volumes_is_said_to_be_none(model: Path, images: Path, tmp_path: Path, capsys):
    said = refused(capsys, "-i", images, "-o", tmp_path / "o.csv", "--model", model)
    assert "its card lacks 'bands'; it is no classifier of medical images" in said


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_nothing_is_left_where_the_table_cannot_be_written(
    images: Path, grey_model: Path, tmp_path: Path, monkeypatch, capsys, ending: str
):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv, "writer", fail)
    monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
    output = tmp_path / f"o.{ending}"
    arguments = ["-i", images, "-o", output, "--model", grey_model, "--grad-cam", tmp_path / "cams"]
    assert "No space left on device" in refused(capsys, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


def test_the_real_file_is_classified(data_root: Path, grey_model: Path, tmp_path: Path, capsys):
    path = data_root / "medical" / "medmnist" / "pneumoniamnist.npz"
    assert classify("-i", path, "-o", tmp_path / "o.parquet", "--model", grey_model, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    given = read_medmnist(path, "test")
    scores = predictions(grey_model, given.images).probabilities
    assert found["figures"] == pytest.approx(class_figures(scores, given.targets, multi_label=False), abs=1e-5)
    assert found["rows"] == 162 and len(found["warnings"]) == 1
    stored = pyarrow.parquet.read_table(tmp_path / "o.parquet")
    np.testing.assert_allclose(stored["p_pneumonia"].to_numpy(), scores[:, 1], atol=1e-5)
    assert stored["id"].to_pylist() == list(range(162))
