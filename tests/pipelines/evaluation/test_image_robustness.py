"""What corruption costs a classifier: cells, intervals, what was lost and where, and the files of it."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from pipelines.evaluation import image_robustness
from pipelines.evaluation.paired_tests import paired_tests, read_measurement
from pipelines.evaluation.robustness_files import write_robustness
from pipelines.evaluation.robustness_tables import image_tables
from shared_backbones.classification.figures import class_figures
from shared_backbones.errors import InputError

NAMES = ["a", "b", "c"]
LABELS = np.arange(60) % 3
TARGETS = np.eye(3, dtype=np.uint8)[LABELS]
KINDS = {"noise": "noise", "speckle": "noise", "blur": "blur"}


def scores_of(name: str | None, severity: int) -> tuple[np.ndarray, str]:
    """Right when clean; noise loses four images of class a a step, speckle two, and blur nothing."""
    lost = {"noise": 4, "speckle": 2}.get(name or "", 0) * severity
    answers = LABELS.copy()
    answers[np.flatnonzero(LABELS == 0)[:lost]] = 1
    return np.where(np.eye(3)[answers] > 0, 0.8, 0.1), f"{name}-{severity}"


@pytest.fixture(scope="module")
def found() -> Any:
    return image_robustness.measure(scores_of, TARGETS, NAMES, KINDS, resamples=300)


def test_every_cell_has_the_figures_of_its_scores(found: Any):
    assert [(cell["corruption"], cell["severity"]) for cell in found["cells"]] == [
        (name, severity) for name in KINDS for severity in range(1, 6)
    ]
    for cell in found["cells"]:
        scores, digest = scores_of(cell["corruption"], cell["severity"])
        figures = class_figures(scores, TARGETS, multi_label=False)
        for name in ("accuracy", "balanced_accuracy", "auc", "ece"):
            assert cell[name] == pytest.approx(figures[name])
            assert cell[f"{name}_high"] >= cell[f"{name}_low"]
        assert cell["sha256"] == digest
        assert cell["accuracy_low"] <= cell["accuracy"] <= cell["accuracy_high"]
    assert found["clean"]["accuracy"] == 1 and found["images"] == 60


def test_what_is_lost_is_told_by_corruption_family_class_and_place(found: Any):
    assert found["corruptions"]["blur"]["lost"] == 0 and found["corruptions"]["noise"]["lost"] == pytest.approx(0.2)
    assert found["families"]["noise"]["lost"] == pytest.approx(0.15)
    assert found["worst"]["corruption"] == "noise" and found["worst"]["severity"] == 5
    recalls = found["recalls"]
    assert recalls["clean"] == [1, 1, 1] and recalls["corrupted"]["noise"] == pytest.approx([0.4, 1, 1])
    last = next(cell for cell in found["cells"] if cell["corruption"] == "noise" and cell["severity"] == 5)
    assert last["lost"] == pytest.approx(1 / 3) and last["lost_low"] == pytest.approx(1 / 3)  # all of a class, always
    first = found["cells"][0]
    assert first["lost"] == pytest.approx(0.2 / 3)
    assert 0 < first["lost_low"] < first["lost"] < first["lost_high"]


def test_a_cell_depends_on_itself_alone(found: Any):
    alone = image_robustness.measure(scores_of, TARGETS, NAMES, {"blur": "blur"}, resamples=300)
    assert alone["cells"] == [cell for cell in found["cells"] if cell["corruption"] == "blur"]


def test_several_labels_and_constant_answers_have_figures():
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 5, np.uint8)
    found: Any = image_robustness.measure(
        lambda name, severity: (np.full((20, 2), 0.5 if name else 0.9), ""),
        targets,
        ["x", "y"],
        {"blur": "blur"},
        multi_label=True,
        resamples=50,
    )
    assert found["clean"]["accuracy"] == 0.5 and found["clean"]["balanced_accuracy"] == 0.5
    assert found["cells"][0]["lost"] == 0 and 0.3 < found["clean"]["balanced_accuracy_low"] <= 0.5


def test_files_of_it(found: Any, tmp_path: Path):
    write_robustness(tmp_path, found, lambda name, severity: np.full((9, 9, 3), 40 * severity, np.uint8))
    assert json.loads((tmp_path / "robustness.json").read_text()) == found
    rows = list(csv.DictReader((tmp_path / "robustness.csv").read_text().splitlines()))
    assert len(rows) == 15 and float(rows[0]["accuracy"]) == pytest.approx(found["cells"][0]["accuracy"])
    svg = (tmp_path / "robustness.svg").read_text()
    assert svg.count("<polyline") == 3 and "speckle" in svg
    from PIL import Image

    with Image.open(tmp_path / "robustness_strip.png") as picture:
        assert picture.size[0] > 6 * 88 and picture.size[1] > 3 * 88
    tables = image_tables(found)
    assert [len(table["rows"]) for table in tables] == [3, 1 + 3 + 2, 3]
    assert all(len(row) == len(table["columns"]) for table in tables for row in table["rows"])
    figures = image_robustness.figures_of(found)
    assert figures["corrupted_worst_balanced_accuracy"] == pytest.approx(2 / 3)


def other_scores(name: str | None, severity: int) -> tuple[np.ndarray, str]:
    """As `scores_of`, but wrong on ten images of class c whatever happens."""
    scores, digest = scores_of(name, severity)
    scores[np.flatnonzero(LABELS == 2)[:10]] = [0.8, 0.1, 0.1]
    return scores, digest


def test_two_classifiers_are_compared_image_by_image(found: Any, tmp_path: Path):
    write_robustness(tmp_path, image_robustness.measure(other_scores, TARGETS, NAMES, KINDS, resamples=20))
    other = read_measurement(tmp_path)
    rows = paired_tests(found, other)
    assert [(row["corruption"], row["severity"]) for row in rows[:2]] == [(None, 0), ("noise", 1)] and len(rows) == 16
    assert all((row["only_here"], row["only_there"]) == (10, 0) for row in rows)
    assert rows[0]["p"] == pytest.approx(binomtest(0, 10).pvalue) and rows[0]["p_holm"] == pytest.approx(
        16 * rows[0]["p"]
    )
    assert {row["p"] for row in paired_tests(found, found)} == {1}
    mixed: Any = {**found, "right": {"clean": "00" * 8, "corrupted": found["right"]["corrupted"]}}
    rows = paired_tests(mixed, found)
    assert rows[0]["p_holm"] == pytest.approx(16 * 2 / 2**60) and rows[0]["only_there"] == 60 and rows[1]["p_holm"] == 1


def test_what_was_measured_on_other_images_is_not_compared(found: Any):
    cells = [{**cell, "sha256": "ff"} if cell["severity"] == 5 else cell for cell in found["cells"]]
    other: Any = {**found, "cells": cells}
    with pytest.raises(InputError, match="under noise at severity 5 have the sha256 ff, these noise-5"):
        paired_tests(found, other)
