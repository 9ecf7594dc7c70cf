"""The picture of a test case in a training's report."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from medvision.metrics.overlap import compare
from medvision.volumes.geometry import Grid
from pipelines.kinds.labelled_volumes import _extremes
from pipelines.report.training import training_content, training_report
from pipelines.report.volumes import write_case_panel
from tests.pipelines.report.test_segmentation import CLASSES, HOSTILE


def test_a_training_report_shows_a_segmentation_with_its_reference(tmp_path: Path):
    grid = Grid.from_affine((24, 28, 30), np.eye(4))
    labels = np.zeros(grid.shape, np.uint8)
    labels[6:18, 8:20, 8:20] = 2
    reference = np.roll(labels, 2, axis=0)
    scored = compare(labels, reference, grid.spacing_mm, CLASSES, 1.5)
    classes: Any = [{**entry, "name": HOSTILE} for entry in CLASSES]
    panel = tmp_path / "case_of_lowest_dice.svg"
    write_case_panel(panel, labels * 50.0, labels, reference, grid, classes, scored)
    root = ElementTree.parse(panel).getroot()  # noqa: S314 (written here)
    assert len(root.findall(".//{*}image")) == 3
    lines = [path.attrib for path in root.findall(".//{*}path")]
    assert {"stroke-dasharray" in line for line in lines} == {False, True}
    assert {line["d"] for line in lines if "stroke-dasharray" in line} != {
        line["d"] for line in lines if "stroke-dasharray" not in line
    }
    assert root.findall(".//{*}script") == [] and "alert" in "".join(root.itertext())
    recipe = {"name": "n", "domain": "medvision", "data": {}, "model": {}, "train": {}, "seed": 1}
    card = {"architecture": "unet", "weights_sha256": "ab" * 32}
    content = training_content(recipe, card, tmp_path / "absent", {"figures": {"accuracy": 0.5}, "tables": []})
    page = training_report(content, [panel])
    assert re.search(r'<img class="picture" src="data:image/svg\+xml;base64,', page)
    assert "Case of lowest Dice" in page


def test_the_cases_of_lowest_and_highest_dice_are_drawn():
    done = {n: [{"dice": dice}, {"dice": None}] for n, dice in enumerate((0.5, 0.9, 0.1))}
    assert _extremes({0: done[0]}, 0) == ["case_of_lowest_dice", "case_of_highest_dice"]
    assert _extremes(done, 1) == ["case_of_highest_dice"] and _extremes(done, 2) == ["case_of_lowest_dice"]
    assert _extremes(done, 0) == []
