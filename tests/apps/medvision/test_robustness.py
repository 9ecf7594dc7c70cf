"""`medvision robustness` as a user meets it."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

import apps.cli.shared.measured_images
from medvision.classification import MedicalClassifier
from medvision.corruptions.medmnist_c import SETS, corrupt
from medvision.corruptions.relative_errors import ALEXNET, relative_errors
from medvision.corruptions.volumes import SCALES, corrupt_volume
from medvision.metrics.overlap import compare, summary
from medvision.segmentation import Segmenter
from medvision.volumes.files import read_volume
from pipelines.kinds.kind import find_kind
from pipelines.recipe.loading import load_recipe
from shared_backbones import weights
from shared_backbones.networks.skip_unet import SkipUnet
from tests.apps.conftest import Outcome, contents
from tests.apps.test_privacy import holds_marker
from tests.medvision import small_models
from tests.medvision.phantoms import make_affine, write_scan
from tests.pipelines.report.pages import verdict_of

SIDE, COUNT = 28, 9
FILES = ["report.html", "robustness.csv", "robustness.json", "robustness.svg", "robustness_strip.png"]
CONTRACT = {**small_models.GREY, "size": SIDE}
MARKER = "DOE^JOHN42"

Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps.cli.shared.measured_images, "RESAMPLES", 40)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.classifier(tmp_path_factory.mktemp("c") / "m", contract=CONTRACT)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, of another size and of colours."""
    return small_models.classifier(tmp_path_factory.mktemp("o") / "m", contract=small_models.COLOURED)


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that says pneumonia whatever it sees."""
    folder = small_models.classifier(tmp_path_factory.mktemp("k") / "m", contract=CONTRACT)
    trained: Any = weights.load(folder)
    with torch.no_grad():
        trained.module.head.weight.zero_()
        trained.module.head.bias.copy_(torch.tensor([0.0, 2.0]))
    weights.save(folder, trained.module, trained.card)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_npz(tmp_path_factory.mktemp("d") / "pneumoniamnist.npz")


@pytest.fixture
def measure(medvision: Run, classifier: Path) -> Run:
    """Run the program on the CPU; a later `--model` goes over the small classifier."""

    def call(given: Path, output: Path, *arguments: object) -> Outcome:
        own = ("robustness", "--model", classifier, "--device", "cpu", "--data", given, "-o", output)
        return medvision(*own, *arguments)

    return call


def write_npz(path: Path, labels: Any = None, count: int = COUNT, side: int = SIDE) -> Path:
    labels = np.arange(count)[:, None] % 2 if labels is None else labels
    images = small_models.radiographs(count, side)
    np.savez(path, test_images=images, test_labels=np.asarray(labels, np.uint8))
    return path


def found_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "robustness.json").read_text())


def answers(model: Path, images: np.ndarray) -> np.ndarray:
    classifier = MedicalClassifier(model, device="cpu", symmetries=False)
    return classifier.predict(classifier.prepare(small_models.as_tensor(images))).labels


def corrupted(name: str, severity: int, rows: Any = range(COUNT)) -> np.ndarray:
    images = small_models.radiographs(COUNT, SIDE)
    return np.stack([corrupt("pneumoniamnist", name, images[row], severity, seed_key=[int(row)]) for row in rows])


def test_files_and_figures_are_those_of_the_corrupted_images(
    measure: Run, data: Path, classifier: Path, tmp_path: Path
):
    done = measure(
        data, tmp_path / "out", "--only", "contrast_up,gaussian_noise", "--baseline", "alexnet", "--images", 6
    )
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    found = found_in(tmp_path / "out")
    assert list(found["corruptions"]) == ["gaussian_noise", "contrast_up"] and found["images"] == 6
    rows = np.unique(np.linspace(0, COUNT - 1, 6).round().astype(int))
    cell = next(c for c in found["cells"] if (c["corruption"], c["severity"]) == ("gaussian_noise", 4))
    seen = corrupted("gaussian_noise", 4, rows)
    right = answers(classifier, seen) == rows % 2
    assert cell["accuracy"] == pytest.approx(right.mean())
    assert cell["sha256"] == hashlib.sha256(seen.tobytes()).hexdigest()
    assert found["right"]["corrupted"]["gaussian_noise"][3] == np.packbits(right).tobytes().hex()
    errors = {
        name: [1 - c["balanced_accuracy"] for c in found["cells"] if c["corruption"] == name]
        for name in found["corruptions"]
    }
    clean = 1 - found["clean"]["balanced_accuracy"]
    expected = relative_errors(errors, clean, ALEXNET["pneumoniamnist"])
    assert {key: found["relative"][key] for key in expected} == expected
    assert found["model"]["sha256"] == weights.load(classifier).sha256 and found["runtime_s"] > 0
    assert found["input"]["sha256"] == hashlib.sha256(data.read_bytes()).hexdigest()
    assert found["input"]["shape"] == [6, SIDE, SIDE] and found["settings"]["corruptions"] == "pneumoniamnist"
    table = list(csv.DictReader((tmp_path / "out" / "robustness.csv").read_text().splitlines()))
    assert len(table) == 10 and float(table[3]["accuracy"]) == pytest.approx(cell["accuracy"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/") == 2 and "Research use only" in page
    assert verdict_of(page) == found["report"] and found["report"]["id"].startswith(found["case"])
    # contrast_up makes AlexNet better: the denominator is negative
    assert "-0.0056 flagged" in done.out and "less than 0.01: contrast up." in done.out
    assert "rBE says nothing" in page and "-0.005556" in page and found["relative"]["flagged"] == ["contrast_up"]
    assert "224 pixels, the images have 28" in done.err and "whole test split" in done.err


def assert_the_same(cells: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Every figure is equal; ECE to float32's rounding, which differs by batch size and alignment in memory."""
    for first, second in zip(cells, others, strict=True):
        errors = {key: pytest.approx(value, abs=1e-5) for key, value in second.items() if key.startswith("ece")}
        assert first == second | errors


def test_a_cell_is_the_same_alone_and_with_others(measure: Run, data: Path, tmp_path: Path):
    assert measure(data, tmp_path / "all").code == 0
    assert measure(data, tmp_path / "one", "--only", "gaussian_noise", "--batch-size", 2).code == 0
    whole, alone = found_in(tmp_path / "all"), found_in(tmp_path / "one")
    assert list(whole["corruptions"]) == list(SETS["pneumoniamnist"])
    same = [cell for cell in whole["cells"] if cell["corruption"] == "gaussian_noise"]
    assert_the_same(same, alone["cells"])


def test_a_training_run_finds_the_same_of_images_in_the_same_order(
    measure: Run, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images, labels = small_models.radiographs(COUNT, SIDE), np.arange(COUNT)[:, None].astype(np.uint8) % 2
    splits: dict[str, Any] = {f"{split}_images": images for split in ("train", "val", "test")}
    whole = tmp_path / "pneumoniamnist.npz"
    splits |= {f"{split}_labels": labels for split in ("train", "val", "test")}
    np.savez(whole, **splits)
    recipe = load_recipe("pneumoniamnist_medvitv2_cpu", [f"data.root={whole}", "evaluate.resamples=40"])
    kind: Any = find_kind(recipe)
    monkeypatch.setattr(kind, "corruptions", lambda: {"speckle_noise": "noise"})
    targets = np.eye(2, dtype=np.uint8)[labels[:, 0]]
    (tmp_path / "run").mkdir()
    found = kind.robustness(classifier, kind.test_sources(), targets, tmp_path / "run")
    options = ("--only", "speckle_noise", "--seed", recipe.seed, "--threads", recipe.train.threads or 1)
    assert measure(whole, tmp_path / "out", *options).code == 0
    assert_the_same(found_in(tmp_path / "out")["cells"], found["cells"])


def test_two_models_are_compared_on_the_same_images(
    measure: Run, data: Path, classifier: Path, coloured: Path, tmp_path: Path
):
    (tmp_path / MARKER).mkdir()
    first, second = tmp_path / MARKER / "first", tmp_path / "second"
    assert measure(data, first, "--only", "pixelate,shot_noise,brightness_down").code == 0
    options = ("--model", coloured, "--only", "shot_noise,pixelate", "--baseline", first)
    done = measure(data, second, *options)
    assert done.code == 0, done.err
    one, two = found_in(first), found_in(second)
    assert [cell["sha256"] for cell in two["cells"]] == [cell["sha256"] for cell in one["cells"][:10]]
    relative = two["relative"]
    assert relative["baseline"] == f"probe {one['model']['sha256'][:8]}"
    assert relative["baseline_clean_error"] == pytest.approx(1 - one["clean"]["balanced_accuracy"])
    mean = 1 - one["corruptions"]["shot_noise"]["balanced_accuracy"]
    assert relative["corruptions"]["shot_noise"]["baseline_error"] == pytest.approx(mean)
    row = next(r for r in two["paired"]["tests"] if (r["corruption"], r["severity"]) == ("shot_noise", 5))
    seen, labels = corrupted("shot_noise", 5), np.arange(COUNT) % 2
    here, there = (answers(model, seen) == labels for model in (coloured, classifier))
    assert (row["only_here"], row["only_there"]) == ((here & ~there).sum(), (there & ~here).sum())
    count = row["only_here"] + row["only_there"]
    assert row["p"] == pytest.approx(binomtest(row["only_here"], count).pvalue if count else 1)
    assert len(two["paired"]["tests"]) == 11 and "McNemar" in (second / "report.html").read_text()
    assert not any(holds_marker(path.read_bytes()) for path in second.iterdir())


def test_models_that_are_always_right_or_always_say_the_same_are_measured(
    measure: Run, data: Path, constant: Path, tmp_path: Path
):
    options = ("--model", constant, "--only", "pixelate,contrast_down")
    assert measure(data, tmp_path / "constant", *options).code == 0
    found = found_in(tmp_path / "constant")
    assert found["clean"]["auc"] == 0.5 and {cell["balanced_accuracy"] for cell in found["cells"]} == {0.5}
    # as a baseline it loses nothing: every denominator is 0
    done = measure(data, tmp_path / "after", *options, "--baseline", tmp_path / "constant")
    assert done.code == 0 and done.out.count("0.0000 flagged") == 2
    relative = found_in(tmp_path / "after")["relative"]
    assert (relative["be"], relative["rbe"], relative["rbe_unflagged"]) == (1, None, None)
    (tmp_path / "d").mkdir()
    sure = write_npz(tmp_path / "d" / "pneumoniamnist.npz", np.ones((COUNT, 1)))  # the constant answer is right
    assert measure(sure, tmp_path / "perfect", *options, "--baseline", "alexnet").code == 0
    assert found_in(tmp_path / "perfect")["relative"]["be"] == 0
    done = measure(sure, tmp_path / "more", *options, "--baseline", tmp_path / "perfect")
    assert done.code == 0 and "BE -, rBE -" in done.out
    found = found_in(tmp_path / "more")
    assert found["clean"]["auc"] is None and found["relative"]["be"] is None
    assert {row["p"] for row in found["paired"]["tests"]} == {1}


def write_published(folder: Path, names: tuple[str, ...] = ("shot_noise",), labels: Any = None) -> Path:
    """Files as MedMNIST-C has them."""
    folder.mkdir()
    labels = np.arange(COUNT)[:, None] % 2 if labels is None else labels
    for name in names:
        images = np.concatenate([corrupted(name, severity, range(len(labels))) for severity in range(1, 6)])
        np.savez(folder / f"{name}.npz", test_images=images, test_labels=np.tile(labels, (5, 1)))
    return folder


def test_published_files_give_the_figures_of_their_images(measure: Run, data: Path, tmp_path: Path):
    folder = write_published(tmp_path / "c", ("shot_noise", "pixelate"))
    np.savez(folder / "notes.npz", nothing=np.zeros(1))
    done = measure(folder, tmp_path / "read", "--clean", data, "--images", 5)
    assert done.code == 0 and "there are no files of jpeg_compression" in done.err
    assert measure(data, tmp_path / "made", "--only", "pixelate,shot_noise", "--images", 5).code == 0
    read, made = found_in(tmp_path / "read"), found_in(tmp_path / "made")
    assert read["cells"] == made["cells"] and read["clean"] == made["clean"]
    assert read["input"]["kind"] == "medmnist-c" and read["input"]["sha256"] != made["input"]["sha256"]


def write_folders(root: Path, parts: dict[str, Any], split: str = "") -> Path:
    for name, images in parts.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{MARKER}-{number}.png")
    return root


def test_folders_of_images_by_class_are_measured_under_the_corruptions_of_a_set(
    measure: Run, classifier: Path, tmp_path: Path
):
    images = small_models.radiographs(COUNT, SIDE)
    root = write_folders(tmp_path / "in", {"normal": images[::2], "pneumonia": images[1::2]})
    asked = (root, tmp_path / "out", "--only", "gaussian_noise", "--corruptions", "pneumoniamnist")
    assert measure(*asked).code == 0
    found, ordered = found_in(tmp_path / "out"), np.concatenate([images[::2], images[1::2]])
    assert found["input"]["kind"] == "folders" and found["input"]["split"] == "all" and found["images"] == COUNT
    seen = np.stack([
        corrupt("pneumoniamnist", "gaussian_noise", image, 3, seed_key=[row]) for row, image in enumerate(ordered)
    ])  # fmt: skip
    cell = next(c for c in found["cells"] if c["severity"] == 3)
    assert cell["sha256"] == hashlib.sha256(seen.tobytes()).hexdigest()
    labels = np.repeat([0, 1], [len(images[::2]), len(images[1::2])])
    assert cell["accuracy"] == pytest.approx((answers(classifier, seen) == labels).mean())
    for path in (tmp_path / "out").iterdir():
        assert not holds_marker(path.read_bytes())


def test_a_folder_beside_published_files_makes_them_no_folders_of_images(measure: Run, data: Path, tmp_path: Path):
    (tmp_path / "in" / "__MACOSX").mkdir(parents=True)
    np.savez(tmp_path / "in" / "notes.npz", a=1)
    done = measure(tmp_path / "in", tmp_path / "out", "--clean", data)
    assert done.code == 2 and "contains no file of a corruption of pneumoniamnist" in done.err


def test_folders_of_splits_give_the_split_asked_for(measure: Run, tmp_path: Path):
    images = small_models.radiographs(COUNT, SIDE)
    root = write_folders(tmp_path / "in", {"normal": images[:2], "pneumonia": images[2:4]}, "test")
    write_folders(root, {"normal": images[4:5], "pneumonia": images[5:6]}, "val")
    asked = ("--only", "jpeg_compression", "--corruptions", "pneumoniamnist")
    assert measure(root, tmp_path / "out", *asked).code == 0
    assert measure(root, tmp_path / "val", *asked, "--split", "val").code == 0
    assert [found_in(tmp_path / name)["images"] for name in ("out", "val")] == [4, 2]
    done = measure(root, tmp_path / "train", *asked, "--split", "train")
    assert done.code == 2 and "contains no image of the split train" in done.err


def test_folders_that_cannot_be_measured_are_refused(measure: Run, tmp_path: Path):
    images = small_models.radiographs(COUNT, SIDE)
    root = write_folders(tmp_path / "in", {"normal": images[:2], "pneumonia": images[2:4]})
    asked = ("--only", "jpeg_compression", "--corruptions", "pneumoniamnist")
    cases = [
        ((), "name a set whose they get with --corruptions"),
        ((*asked, "--split", "test"), "no folders of splits"),
        ((*asked, "--max-gigabytes", 0.001, "--images", 2), None),
    ]
    Image.fromarray(np.zeros((SIDE, SIDE + 1), np.uint8)).save(root / "normal" / "z.png")
    cases.append((asked, f"is 1 x {SIDE} x {SIDE + 1} (bands, rows, columns)"))
    for number, (arguments, message) in enumerate(cases):
        done = measure(root, tmp_path / f"out{number}", *arguments)
        assert done.code == (0 if message is None else 2), done.err
        assert message is None or (message in done.err and done.err.count("\n") == 1)
    (root / "normal" / "z.png").unlink()
    (root / "normal").rename(root / "healthy")
    done = measure(root, tmp_path / "other", *asked)
    assert done.code == 2 and "healthy" in done.err and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--clean, such as"),
        (("--clean", "CLEAN", "--split", "val"), "--split means nothing"),
        (("--clean", "CLEAN", "--corruptions", "octmnist"), "--corruptions means nothing"),
        (("--clean", "CLEAN", "--only", "pixelate"), "'pixelate', unknown"),
        (("--clean", "OTHER"), "labels are not those"),
        (("--clean", "FEWER"), "holds 9 images 5 times, --clean has 4"),
    ],
)
def test_published_files_that_do_not_belong_together_are_refused(
    measure: Run, data: Path, tmp_path: Path, options: tuple[str, ...], words: str
):
    files = {"CLEAN": data}
    for name, labels in {"OTHER": np.zeros((COUNT, 1)), "FEWER": np.arange(4)[:, None] % 2}.items():
        (tmp_path / name).mkdir()
        files[name] = write_npz(tmp_path / name / "pneumoniamnist.npz", labels, len(labels))
    done = measure(write_published(tmp_path / "c"), tmp_path / "out", *(files.get(part, part) for part in options))
    assert done.code == 2 and words in done.error and not (tmp_path / "out").exists()


def test_several_labels_at_once(measure: Run, tmp_path: Path):
    from medvision.datasets.medmnist import SETS as FACTS

    names = list(FACTS["chestmnist"].classes)
    model = small_models.classifier(tmp_path / "m", names, CONTRACT, multi_label=True, calibration={})
    labels = np.random.default_rng(0).integers(0, 2, (COUNT, 14))
    chest = write_npz(tmp_path / "chestmnist.npz", labels)
    done = measure(
        chest, tmp_path / "out", "--model", model, "--only", "brightness_down", "--baseline", "alexnet", "--json"
    )
    assert done.code == 0 and "right" not in json.loads(done.out)
    found = found_in(tmp_path / "out")
    assert len(found["right"]["clean"]) == 4 and any("not calibrated" in line for line in found["warnings"])
    assert any("at an operating point for each label, these at 0.5" in line for line in found["warnings"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--only", "bubble"), "--only has 'bubble', unknown for pneumoniamnist; expected some of: pixelate"),
        (("--only", ","), "--only has nothing"),
        (("--corruptions", "cifar"), "--corruptions is 'cifar'"),
        (("--corruptions", "octmnist", "--baseline", "alexnet"), "that set's own corruptions"),
        (("--baseline", "FOLDER"), "expected alexnet, none, or a folder"),
        (("--baseline", "HERE"), "robustness.json: cannot be read"),
        (("--severities", "1"), "--severities means nothing for a model that classifies images"),
        (("--clean", "DATA"), "--clean is for a folder"),
        (("--split", "val"), "has no val_images"),
        (("--data", "missing/pneumoniamnist.npz"), "no such file"),
        (("--model", "missing"), "model missing: neither a bundled model"),
    ],
)
def test_what_does_not_go_together_is_refused(
    measure: Run, data: Path, tmp_path: Path, options: tuple[str, ...], words: str
):
    given = {"HERE": tmp_path, "DATA": data}
    done = measure(data, tmp_path / "out", *(given.get(part, part) for part in options))
    assert done.code == 2 and words in done.error
    assert contents(tmp_path) == {}


def test_baselines_of_other_images_and_kinds_are_refused(measure: Run, data: Path, tmp_path: Path):
    assert measure(data, tmp_path / "few", "--images", 4, "--only", "pixelate").code == 0
    done = measure(data, tmp_path / "out", "--only", "pixelate", "--baseline", tmp_path / "few")
    assert done.code == 2 and "same file, split and number of images" in done.error
    done = measure(data, tmp_path / "out", "--images", 4, "--baseline", tmp_path / "few")
    assert done.code == 2 and "has no jpeg_compression" in done.error
    found = found_in(tmp_path / "few")
    for broken in ({}, [], {**found, "right": {"clean": "ff"}}, {**found, "images": 400}, {**found, "cells": []}):
        (tmp_path / "few" / "robustness.json").write_text(json.dumps(broken))
        done = measure(data, tmp_path / "out", "--images", 4, "--baseline", tmp_path / "few")
        assert done.code == 2 and "contains no results of a classifier's images" in done.error
    assert not (tmp_path / "out").exists()


def test_models_of_other_classes_and_folders_in_use_are_refused(
    measure: Run, medvision: Run, data: Path, tmp_path: Path
):
    other = small_models.classifier(tmp_path / "m", ["cat", "dog", "cow"], CONTRACT)
    done = measure(data, tmp_path / "out", "--model", other)
    assert (
        done.code == 2
        and "the classes of pneumoniamnist (normal, pneumonia) are not the model's (cat, dog, cow)" in done.error
    )
    before = contents(tmp_path)
    done = measure(data, tmp_path / "m")
    assert done.code == 2 and "already there" in done.error and contents(tmp_path) == before
    done = measure(data, tmp_path / "no" / "out")
    assert done.code == 2 and "no such folder" in done.error


def test_no_result_holds_the_name_of_an_input(measure: Run, data: Path, tmp_path: Path, model: Path, scan: Path):
    folder = tmp_path / f"of {MARKER}"
    folder.mkdir()
    images = folder / f"pneumoniamnist_{MARKER}.npz"
    images.write_bytes(data.read_bytes())
    assert measure(images, folder / "images", "--only", "pixelate").code == 0
    named = folder / f"{MARKER}.nii.gz"
    named.write_bytes(scan.read_bytes())
    options = ("--model", model, "--only", "noise", "--severities", "2")
    assert measure(named, folder / "volume", *options).code == 0
    for path in [*(folder / "images").iterdir(), *(folder / "volume").iterdir()]:
        assert not holds_marker(path.read_bytes()), path
    for kind, source in (("images", images), ("volume", named)):
        assert found_in(folder / kind)["case"] == f"case-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"


@pytest.fixture(scope="module")
def segmenter(model: Path) -> Segmenter:
    return Segmenter(model, device="cpu")


def test_a_scan_is_scored_against_its_labels(
    measure: Run, model: Path, scan: Path, segmenter: Segmenter, tmp_path: Path
):
    volume = read_volume(scan)
    truth = np.roll(segmenter.segment(volume).labels, 1, 2)
    labels = write_scan(tmp_path / "labels.nii.gz", truth, volume.grid.affine)
    options = ("--model", model, "--labels", labels)
    done = measure(scan, tmp_path / "out", *options, "--only", "spike,noise", "--severities", "5,1")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    found = found_in(tmp_path / "out")
    assert [(cell["corruption"], cell["severity"]) for cell in found["cells"]] == [
        ("spike", 1), ("spike", 5), ("noise", 1), ("noise", 5),
    ]  # fmt: skip
    spacing = volume.grid.spacing_mm
    harmed = corrupt_volume("noise", volume.data, 5, spacing_mm=spacing, modality="mr", seed_key=[found["case"]])
    volume.data = harmed
    judged = [entry for entry in segmenter.card["classes"] if (truth == entry["id"]).any()]
    rows = compare(segmenter.segment(volume).labels, truth, spacing, judged)
    assert 0 < len(rows) < len(segmenter.card["classes"]) - 1, "of what the labels do not hold nothing is said"
    last = found["cells"][-1]
    assert last["dice"] == pytest.approx(summary(rows)["dice"]) and last["nsd"] == pytest.approx(summary(rows)["nsd"])
    assert last["dice_of"] == {row["name"]: row["dice"] for row in rows}
    assert last["lost"] == pytest.approx(found["clean"]["dice"] - last["dice"])
    assert last["sha256"] == hashlib.sha256(harmed.tobytes()).hexdigest()
    assert found["settings"]["reference"] == "labels" and "There are no labels" not in done.out
    svg = (tmp_path / "out" / "robustness.svg").read_text()
    assert ">5</text>" in svg and ">3</text>" not in svg
    table = list(csv.DictReader((tmp_path / "out" / "robustness.csv").read_text().splitlines()))
    assert float(table[-1]["dice"]) == pytest.approx(last["dice"]) and "dice_of_ventricles" in table[0]
    # other ids, which a map brings to the model's
    other = write_scan(
        tmp_path / "ids.nii.gz", truth.astype(np.int16) * 100 + 7, make_affine("LPI", (4, 4, 5), (5, -8, 3))
    )
    (tmp_path / "map.json").write_text(json.dumps({str(number * 100 + 7): number for number in range(1, 10)}))
    again = ("--model", model, "--labels", other, "--label-map", tmp_path / "map.json", "--severities", "5")
    assert measure(scan, tmp_path / "mapped", *again, "--only", "noise").code == 0
    assert found_in(tmp_path / "mapped")["cells"] == [last]


def test_without_labels_the_clean_segmentation_is_the_reference(measure: Run, model: Path, scan: Path, tmp_path: Path):
    done = measure(scan, tmp_path / "out", "--model", model, "--severities", "3", "--modality", "ct")
    assert done.code == 0 and "There are no labels" in done.out
    found = found_in(tmp_path / "out")
    assert found["clean"]["dice"] == 1 and list(found["corruptions"]) == list(SCALES["ct"])
    assert "not with the truth" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("channels", [[], ["T2", "ADC"]])
def test_a_3d_network_of_one_channel_is_measured(channels: list[str], measure: Run, scan: Path, tmp_path: Path):
    classes = [{"id": number, "name": f"class {number}", "color": [number, 0, 0]} for number in range(3)]
    contract = {"spacing_mm": 6.0, "patch": [16, 16, 16], "normalisation": "zscore", "channels": channels}
    torch.manual_seed(0)
    network = SkipUnet(3, in_chans=len(channels) or 1, widths=(4, 8))
    weights.save(tmp_path / "m", network, {"name": "m", "version": "1", "classes": classes, "input": contract})
    options = ("--modality", "mr", "--only", "noise", "--severities", "1")
    done = measure(scan, tmp_path / "out", "--model", tmp_path / "m", *options)
    if channels:
        assert done.code == 2 and "takes 2 channels; expected a model of one" in done.error
        assert not (tmp_path / "out").exists()
    else:
        assert done.code == 0 and found_in(tmp_path / "out")["clean"]["dice"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--labels", "MOVED"), "not on the scan's grid"),
        (("--labels", "FOREIGN"), "holds 41, 42, expected ids 0 to 9 of the model"),
        (("--labels", "FOREIGN", "--label-map", "WRONG"), "names class 77"),
        (("--labels", "FOREIGN", "--label-map", "LIST"), "expected a JSON object"),
        (("--labels", "FOREIGN", "--label-map", "missing.json"), "cannot be read"),
        (("--labels", "FOREIGN", "--label-map", "EMPTY"), "hold no structure of the model"),
        (("--label-map", "LIST"), "give both or none"),
        (("--modality", "pet"), "--modality is 'pet', expected one of: mr, ct"),
        (("--severities", "0,1"), "--severities has '0'"),
        (("--only", "bubble"), "unknown for mr"),
        (("--baseline", "alexnet"), "--baseline means nothing for a model that segments volumes"),
        (("--data", "HERE"), "expected one scan"),
    ],
)
def test_labels_and_options_that_do_not_suit_a_scan_are_refused(
    measure: Run, model: Path, scan: Path, tmp_path: Path, options: tuple[str, ...], words: str
):
    shape = read_volume(scan).data.shape
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    ids = np.full(shape, 41, np.int16)
    ids[0] = 42
    given: dict[str, Path] = {
        "MOVED": write_scan(
            inputs / "moved.nii.gz", np.ones(shape, np.uint8), make_affine("LPI", (4, 4, 5), (5, -8, 4))
        ),
        "FOREIGN": write_scan(inputs / "foreign.nii.gz", ids, make_affine("LPI", (4, 4, 5), (5, -8, 3))),
        "HERE": inputs,
    }
    for name, content in {"WRONG": {"41": 77}, "LIST": [41], "EMPTY": {"5": 5}}.items():
        given[name] = inputs / f"{name}.json"
        given[name].write_text(json.dumps(content))
    done = measure(scan, tmp_path / "out", "--model", model, *(given.get(part, part) for part in options))
    assert done.code == 2 and words in done.error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".domain-vision-*"))
