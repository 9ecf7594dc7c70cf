"""What corruption costs a segmentation, and whether flags tell of it, with a segmenter whose answers are known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medvision.segmentation import Segmentation
from medvision.volumes.files import Volume
from medvision.volumes.geometry import Grid
from pipelines.evaluation.robustness_tables import volume_tables
from pipelines.evaluation.volume_robustness import STRIP_SIDE, measure_volume
from shared_backbones.card import Card, ClassEntry
from shared_backbones.errors import InputError
from tests.medvision.phantoms import make_affine, make_image

CLASSES: list[ClassEntry] = [
    {"id": 0, "name": "background", "color": [0, 0, 0]},
    {"id": 1, "name": "core", "color": [255, 0, 0]},
    {"id": 2, "name": "shell", "color": [0, 255, 0]},
]
CARD: Card = {
    "schema_version": 1, "architecture": "x", "arguments": {}, "weights_sha256": "ff", "classes": CLASSES, "input": {},
}  # fmt: skip
SHAPE = (16, 20, 12)


class Fragile:
    """Segments the bright ellipsoid; in a volume that is much brighter it finds nothing, and says so."""

    def __init__(self) -> None:
        self.settings = {"fast": False}
        self.contract = SimpleNamespace(classes=CLASSES)

    def segment(self, volume: Volume) -> Segmentation:
        core = (volume.data > 140) & (volume.data.std() < 90)
        core[[0, -1]] = core[:, [0, -1]] = core[..., [0, -1]] = False
        return Segmentation(
            labels=core.astype(np.uint8), volume=volume, card=CARD,
            confidence={1: 0.9, 2: None}, settings={}, device="cpu", precision="float32", timings_s={},
            warnings=[] if core.any() else ["nothing was found"], model_sha256="ff",
        )  # fmt: skip


@pytest.fixture
def volume() -> Volume:
    return Volume(
        make_image(SHAPE).astype(np.float32), Grid.from_affine(SHAPE, make_affine("LPI", (4, 4, 5))), "ab" * 32
    )


def test_cells_tell_what_was_lost_and_whether_it_was_caught(volume: Volume):
    seen: list[tuple[int, int]] = []
    segmenter: Any = Fragile()
    found, pictures = measure_volume(
        segmenter, volume, None, ["noise", "anisotropy"], [1, 5], modality="mr", on_progress=lambda *n: seen.append(n)
    )
    assert found["clean"]["dice"] == 1 and found["clean"]["flags"] == 1  # there is no shell, ever
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] and found["case"] == "case-abababab"
    for cell in found["cells"]:
        nothing = cell["dice"] == 0
        assert cell["caught"] == nothing == bool(cell["new_warnings"])
        assert cell["new_flags"] == ([{"code": "empty", "structure": "core"}] if nothing else [])
    assert {picture.shape for picture in pictures.values()} == {(STRIP_SIDE, STRIP_SIDE, 3)} and len(pictures) == 5
    lost = [cell for cell in found["cells"] if cell["lost"] > 0.05]
    assert found["caught"]["cells_that_lost"] == len(lost)
    assert found["caught"]["caught_that_lost"] == sum(cell["caught"] for cell in lost)
    alone, _ = measure_volume(segmenter, volume, None, ["anisotropy"], [5], modality="mr")
    assert alone["cells"] == [found["cells"][-1]]
    tables = volume_tables(found)
    assert [table["columns"] for table in tables[:2]] == [["Corruption", "Clean", "Severity 1", "Severity 5"]] * 2
    assert all(len(row) == len(table["columns"]) for table in tables for row in table["rows"])


def test_what_is_gone_is_caught(volume: Volume):
    segmenter: Any = Fragile()
    segmenter.segment = lambda given: Fragile().segment(
        given if given is volume else Volume(given.data * 0, given.grid, given.sha256)
    )
    found, _ = measure_volume(segmenter, volume, None, ["noise"], [1, 2], modality="mr")
    assert [cell["new_flags"] for cell in found["cells"]] == [[{"code": "empty", "structure": "core"}]] * 2
    assert found["caught"] == {
        "cells": 2, "caught": 2, "lost_more_than": 0.05, "cells_that_lost": 2, "caught_that_lost": 2,
    }  # fmt: skip
    useful = found["usefulness"]["cases"]
    assert (useful["count"], useful["poor"], useful["auroc"]["number of flags"]) == (3, 2, 1)
    tables = volume_tables(found)
    assert tables[-1]["columns"] == ["Signal", "cases: 2 of 3 poor", "structures: 2 of 3 poor"]
    assert ["number of flags", 1, 1] in tables[-1]["rows"]
    assert tables[-2]["rows"] == [["noise", "empty 1, warnings", "empty 1, warnings"]]


def test_a_reference_without_structures_is_refused(volume: Volume):
    segmenter: Any = Fragile()
    with pytest.raises(InputError, match="case-abababab: its labels hold no structure"):
        measure_volume(segmenter, volume, np.zeros(SHAPE, np.uint8), ["noise"], [1], modality="mr")


def test_structures_that_the_reference_does_not_hold_are_not_judged(volume: Volume):
    segmenter: Any = Fragile()
    truth = np.zeros(SHAPE, np.uint8)
    truth[4:8, 4:8, 4:8] = 2
    found, _ = measure_volume(segmenter, volume, truth, ["noise"], [1], modality="mr")
    assert found["clean"]["dice_of"] == {"shell": 0} and found["clean"]["flags_of"] == {"core": 0, "shell": 1}
